"""Alternatives: a node that asks one agent of several, chosen by a label. It is a block with a node for each agent, of which one runs.

    reply:
      agent: {by: "${intent.intent}", of: {lost_card: card_agent, top_up: top_up_agent}, otherwise: general}
      with: {text: "${input.text}"}

What belongs to an attempt (`checks`, `retry`, `timeout`, `escalate` and so on) belongs to the agent that is asked, what belongs to the
node (`when`, `each`, `after`, `fallback`) to the whole. So each agent has its own card's checks, its own certificate and its own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from orchestra.agents.contract import Contract, Schema
from orchestra.core.suggestions import closest_match
from orchestra.schema.json_schema import ANY, enum_values, format_type, union, union_members
from orchestra.schema.strict_json import canonical
from orchestra.workflows.compile.inputs import KeyPath, as_reference, check_assignable, join_names, try_compile
from orchestra.workflows.compile.ordering import NO_NAMES, NodeReferences, node_references
from orchestra.workflows.expressions.parser import sole_reference
from orchestra.workflows.model import AgentChoice, AgentNode, AnyNode
from orchestra.workflows.program import CompiledNode, Expression, Program

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Compiler
    from orchestra.workflows.compile.nodes import NodeDraft, TypeScope

BOOL: Final[Schema] = {"type": "boolean"}
STR: Final[Schema] = {"type": "string"}
NODE_MODIFIERS: Final = frozenset({"when", "each", "as_", "limit", "concurrency", "at_least", "after", "fallback"})
"""Modifiers of the node itself; the others are the agents'."""
MAX_SHOWN_LENGTH = 120
"""Characters of a label that a reason names."""


def choice_of(node: AnyNode) -> AgentChoice | None:
    """How a node chooses its agent; None where it names one, or asks none."""
    return node.agent if isinstance(node, AgentNode) and isinstance(node.agent, AgentChoice) else None


def labels_by_agent(choice: AgentChoice) -> dict[str, list[str]]:
    """The agents of a choice, each with its labels, in written order; those of `otherwise` have none of their own."""
    found: dict[str, list[str]] = {}
    for label, name in choice.of.items():
        found.setdefault(name, []).append(label)
    if choice.otherwise is not None:
        found.setdefault(choice.otherwise, [])
    return found


def choose_agent(choice: AgentChoice, value: Any) -> str | None:
    """The agent for what `by` gives: a label, true or false, or null; None where there is none."""
    label = str(value).lower() if isinstance(value, bool) else value
    return choice.of.get(label, choice.otherwise) if isinstance(label, str) else choice.otherwise


def outer_node(node: AgentNode) -> AgentNode:
    """The node without what is its agents'."""
    return node.model_copy(update={name: AgentNode.model_fields[name].get_default() for name in _AGENT_MODIFIERS})


def agent_nodes(node: AgentNode, choice: AgentChoice) -> dict[str, AgentNode]:
    """The node of each agent, by the agent's name; its `when` says in words on which labels it runs."""
    found: dict[str, AgentNode] = {}
    kept = {name: getattr(node, name) for name in node.model_fields_set & _AGENT_MODIFIERS}
    for name, labels in labels_by_agent(choice).items():
        found[name] = AgentNode.model_construct(
            {*kept, "agent", "with_", "when"}, **kept, agent=name, with_=node.with_, when=_describe_condition(choice, name, labels)
        )
    return found


_AGENT_MODIFIERS = frozenset(AgentNode.model_fields) - NODE_MODIFIERS - {"agent", "with_"}


def _describe_condition(choice: AgentChoice, name: str, labels: list[str]) -> str:
    """The condition of an agent in words; `ChoiceCondition` is what is evaluated."""
    if name != choice.otherwise:
        return f"{choice.by} is {' or '.join(labels)}"
    others = [label for label, agent in choice.of.items() if agent != name]
    return f"{choice.by} is not {' or '.join(others)}" if others else f"{choice.by} is anything"


class ChoiceCondition:
    """Whether an agent is the one that a label chooses: the condition under which its node runs."""

    __slots__ = ("agent", "by", "choice", "parts", "references", "schema")

    def __init__(self, by: Expression, choice: AgentChoice, agent: str) -> None:
        self.by, self.choice, self.agent = by, choice, agent
        self.references, self.schema = by.references, BOOL
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> bool:
        """Whether it is. Raises `OrchestraError` (L-codes) where the label's expression fails."""
        return choose_agent(self.choice, self.by.evaluate(bindings)) == self.agent


class ChoiceOutput:
    """The output of the block: what the one node gave that ran (`Program.runs_one_node`)."""

    __slots__ = ("parts", "references", "schema")

    def __init__(self, names: frozenset[str], schema: Schema) -> None:
        self.references, self.schema = names, schema
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The value that is there."""
        return next(bindings[name] for name in sorted(self.references) if name in bindings)


def explain_choice(node: CompiledNode, bindings: Mapping[str, Any]) -> str:
    """Which agent a node asks on these values, and for which label. Raises `OrchestraError` (L-codes) where its expression fails."""
    choice = choice_of(node.source)
    if choice is None or node.value is None:
        return ""
    value = node.value.evaluate(bindings)
    text, by = canonical(value).decode("utf-8", "replace"), sole_reference(choice.by) or choice.by
    told = text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"
    return f"{choose_agent(choice, value)}, for {by if len(by) <= MAX_SHOWN_LENGTH else f'{by[:MAX_SHOWN_LENGTH]}…'} is {told}"


def compile_choice(compiler: Compiler, node: AgentNode, choice: AgentChoice, types: TypeScope, path: KeyPath) -> NodeDraft:
    """The node as a block. Notes labels that have no agent (L122) or never come (L054), and agents that are not there (L111)."""
    from orchestra.workflows.compile.assemble import assemble_nodes
    from orchestra.workflows.compile.modifiers import compile_node
    from orchestra.workflows.compile.nodes import NodeDraft

    by = _compile_label(compiler, choice, types, path)
    known = _choice_agents(compiler, choice, path)
    tools = _allowed_tools(node, known)
    sources = {name: one for name, one in agent_nodes(node, choice).items() if name in known}
    drafts: dict[str, NodeDraft] = {}
    always_present = by is not None and len(known) == len(labels_by_agent(choice))
    for name, source in sources.items():
        plain = source.model_copy(update={"when": None, "tools": tools[name]})
        before = compiler.always_present.pop(name, None)
        drafts[name] = compile_node(compiler, name, plain, types, node_references(plain), path)
        always_present &= compiler.always_present.pop(name)
        if before is not None:
            compiler.always_present[name] = before
        drafts[name].when = ChoiceCondition(by, choice, name) if by is not None else None
    if not sources:
        return NodeDraft(kind="call", always_present=True)
    output = union([draft.output for draft in drafts.values()]) if len(drafts) == len(labels_by_agent(choice)) else ANY
    made = assemble_nodes(
        sources, [*sources], drafts, dict.fromkeys(sources, NodeReferences(NO_NAMES, NO_NAMES, NO_NAMES)), dict.fromkeys(sources, NO_NAMES)
    )
    body = Program("", made, ChoiceOutput(frozenset(sources), output), output, {}, sees_outer_scope=True, runs_one_node=True)
    return NodeDraft(kind="call", body=body, output=output, value=by, always_present=always_present)


def _choice_agents(compiler: Compiler, choice: AgentChoice, path: KeyPath) -> dict[str, Contract]:
    """The agents that are there, by name."""
    catalog, found = compiler.catalog, {}
    places: list[tuple[str, KeyPath]] = [(name, (*path, "agent", "of", label)) for label, name in choice.of.items()]
    places += [(choice.otherwise, (*path, "agent", "otherwise"))] if choice.otherwise is not None else []
    for name, place in places:
        if (contract := catalog.agents.get(name)) is not None:
            found[name] = contract
        elif name in catalog.tools:
            hint = "a choice is of agents; for a tool, `when` and `first_of`"
            compiler.findings.error("L111", f"{name!r} is a tool", compiler.findings.place_of(*place), hint=hint)
        else:
            compiler.report_unknown("agent", name, catalog.agents, place)
    return found


def _allowed_tools(node: AgentNode, known: Mapping[str, Contract]) -> dict[str, tuple[str, ...]]:
    """The tools with effects that each agent may use here: those of its own card; what is on no card the first one has to refuse."""
    cards = {name: contract.tool_use.tools if contract.tool_use is not None else () for name, contract in known.items()}
    nobodys = [tool for tool in node.tools if not any(tool in listed for listed in cards.values())]
    return {
        name: tuple(tool for tool in node.tools if tool in listed or (not number and tool in nobodys))
        for number, (name, listed) in enumerate(cards.items())
    }


def _compile_label(compiler: Compiler, choice: AgentChoice, types: TypeScope, path: KeyPath) -> Expression | None:
    """What `by` gives, checked: a label, true or false, or null (L114), each of which has an agent (L054, L122)."""
    findings, at = compiler.findings, (*path, "agent", "by")
    by = try_compile(choice.by, types, findings, at)
    if by is None:
        return None
    if not by.references:
        hint = f"by: {as_reference(choice.by) or '${intent.intent}'}"
        findings.error("L118", "`by` is the same in every run", findings.place_of(*at), hint=hint)
        return None
    parts = union_members(by.schema)
    texts = [part for part in parts if part.get("type") not in ("null", "boolean") and enum_values(part) != [None]]
    before = len(findings.errors)
    if by.schema == ANY and not findings.errors:
        hint = "give its producer a type, such as `Literal['a', 'b']`"
        findings.error("L114", "`by` takes a text or a bool, got anything", findings.place_of(*at), hint=hint)
    elif texts and not all(_is_label_type(part) for part in texts):
        check_assignable("`by`", union(texts), STR, findings, at, choice.by)
    if by.schema != ANY and len(findings.errors) == before:
        _check_labels(compiler, choice, by.schema, path)
    return by


def _is_label_type(part: Schema) -> bool:
    """Whether all that a part of a type may be is a label."""
    values = enum_values(part)
    return part.get("type") == "string" if values is None else all(isinstance(value, str | bool | None) for value in values)


def label_values(schema: Schema) -> tuple[dict[str, None], bool, bool]:
    """The labels of a type, in its order; whether any other text may come; and whether null may."""
    found: dict[str, None] = {}
    any_text = null = False
    for part in union_members(schema):
        values = enum_values(part)
        if values is None:
            values = [False, True] if part.get("type") == "boolean" else []
            any_text, null = any_text or part.get("type") == "string", null or part.get("type") == "null"
        null = null or None in values
        found |= dict.fromkeys(str(value).lower() if isinstance(value, bool) else value for value in values if value is not None)
    return found, any_text, null


def missing_labels(choice: AgentChoice, schema: Schema) -> str:
    """Which labels of a type have no agent, in words; empty where all have."""
    if choice.otherwise is not None:
        return ""
    found, any_text, null = label_values(schema)
    missing = [label for label in found if label not in choice.of]
    said = [f"no agent for {len(missing)} label{'s' * (len(missing) != 1)}: {join_names(missing)}"] if missing else []
    said += ["`by` may be any text, and no agent is for the others"] if any_text else []
    return "; ".join([*said, *(["`by` may be null, and no agent is for that"] if null else [])])


def _check_labels(compiler: Compiler, choice: AgentChoice, schema: Schema, path: KeyPath) -> None:
    """Notes labels that never come, and labels that come and have no agent."""
    findings = compiler.findings
    found, any_text, null = label_values(schema)
    by = sole_reference(choice.by) or choice.by
    for label in choice.of if not any_text else ():
        if label not in found:
            near = closest_match(label, found)
            hint = f"did you mean {near!r}?" if near else f"it is one of {join_names(found)}"
            place = findings.place_of(*path, "agent", "of", label, key=True)
            findings.error("L054", f"{by} is {format_type(schema)}: it is never {label!r}", place, hint=hint)
    if missing := missing_labels(choice, schema):
        hint = "otherwise: AGENT, for all that is not listed"
        findings.error("L122", missing, findings.place_of(*path, "agent", "of", key=True), hint=hint)
    elif choice.otherwise is not None and not any_text and not null and choice.of.keys() >= found.keys():
        findings.warn("`otherwise` is never asked: each label has an agent", findings.place_of(*path, "agent", "otherwise"))
    if len(labels_by_agent(choice)) == 1:
        findings.warn("all labels have the same agent", findings.place_of(*path, "agent", "of"))
