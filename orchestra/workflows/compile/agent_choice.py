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
from orchestra.core.suggestions import nearest
from orchestra.schema.json_schema import ANY, branches, choices, show, union
from orchestra.schema.strict_json import canonical
from orchestra.workflows.compile.inputs import Path, compiled, fits, listed, unreferenced
from orchestra.workflows.compile.ordering import NONE, Uses, uses
from orchestra.workflows.expressions.parser import reference
from orchestra.workflows.model import AgentNode, AnyNode, Choice
from orchestra.workflows.program import CompiledNode, Expression, Program

if TYPE_CHECKING:
    from orchestra.workflows.compile.compiler import Compiler
    from orchestra.workflows.compile.nodes import Draft, Names

BOOL: Final[Schema] = {"type": "boolean"}
STR: Final[Schema] = {"type": "string"}
OF_THE_NODE: Final = frozenset({"when", "each", "as_", "limit", "concurrency", "at_least", "after", "fallback"})
"""Modifiers of the node itself; the others are the agents'."""
SHOWN = 120
"""Characters of a label that a reason names."""


def choice_of(node: AnyNode) -> Choice | None:
    """How a node chooses its agent; None where it names one, or asks none."""
    return node.agent if isinstance(node, AgentNode) and isinstance(node.agent, Choice) else None


def named(choice: Choice) -> dict[str, list[str]]:
    """The agents of a choice, each with its labels, in written order; those of `otherwise` have none of their own."""
    found: dict[str, list[str]] = {}
    for label, name in choice.of.items():
        found.setdefault(name, []).append(label)
    if choice.otherwise is not None:
        found.setdefault(choice.otherwise, [])
    return found


def chosen(choice: Choice, value: Any) -> str | None:
    """The agent for what `by` gives: a label, true or false, or null; None where there is none."""
    label = str(value).lower() if isinstance(value, bool) else value
    return choice.of.get(label, choice.otherwise) if isinstance(label, str) else choice.otherwise


def outer(node: AgentNode) -> AgentNode:
    """The node without what is its agents'."""
    return node.model_copy(update={name: AgentNode.model_fields[name].get_default() for name in _INNER})


def inner(node: AgentNode, choice: Choice) -> dict[str, AgentNode]:
    """The node of each agent, by the agent's name; its `when` says in words on which labels it runs."""
    found: dict[str, AgentNode] = {}
    kept = {name: getattr(node, name) for name in node.model_fields_set & _INNER}
    for name, labels in named(choice).items():
        found[name] = AgentNode.model_construct(
            {*kept, "agent", "with_", "when"}, **kept, agent=name, with_=node.with_, when=_words(choice, name, labels)
        )
    return found


_INNER = frozenset(AgentNode.model_fields) - OF_THE_NODE - {"agent", "with_"}


def _words(choice: Choice, name: str, labels: list[str]) -> str:
    """The condition of an agent in words; `Chosen` is what is evaluated."""
    if name != choice.otherwise:
        return f"{choice.by} is {' or '.join(labels)}"
    others = [label for label, agent in choice.of.items() if agent != name]
    return f"{choice.by} is not {' or '.join(others)}" if others else f"{choice.by} is anything"


class Chosen:
    """Whether an agent is the one that a label chooses: the condition under which its node runs."""

    __slots__ = ("agent", "by", "choice", "parts", "references", "schema")

    def __init__(self, by: Expression, choice: Choice, agent: str) -> None:
        self.by, self.choice, self.agent = by, choice, agent
        self.references, self.schema = by.references, BOOL
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> bool:
        """Whether it is. Raises `OrchestraError` (L-codes) where the label's expression fails."""
        return chosen(self.choice, self.by.evaluate(bindings)) == self.agent


class OneOf:
    """The output of the block: what the one node gave that ran (`Program.one_of`)."""

    __slots__ = ("parts", "references", "schema")

    def __init__(self, names: frozenset[str], schema: Schema) -> None:
        self.references, self.schema = names, schema
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """The value that is there."""
        return next(bindings[name] for name in sorted(self.references) if name in bindings)


def reason(node: CompiledNode, bindings: Mapping[str, Any]) -> str:
    """Which agent a node asks on these values, and for which label. Raises `OrchestraError` (L-codes) where its expression fails."""
    choice = choice_of(node.source)
    if choice is None or node.value is None:
        return ""
    value = node.value.evaluate(bindings)
    text, by = canonical(value).decode("utf-8", "replace"), reference(choice.by) or choice.by
    told = text if len(text) <= SHOWN else f"{text[:SHOWN]}…"
    return f"{chosen(choice, value)}, for {by if len(by) <= SHOWN else f'{by[:SHOWN]}…'} is {told}"


def drafted(compiler: Compiler, node: AgentNode, choice: Choice, types: Names, path: Path) -> Draft:
    """The node as a block. Notes labels that have no agent (L122) or never come (L054), and agents that are not there (L111)."""
    from orchestra.workflows.compile.assemble import assembled
    from orchestra.workflows.compile.modifiers import modified
    from orchestra.workflows.compile.nodes import Draft

    by = _label(compiler, choice, types, path)
    known = _agents(compiler, choice, path)
    tools = _tools(node, known)
    sources = {name: one for name, one in inner(node, choice).items() if name in known}
    drafts: dict[str, Draft] = {}
    sure = by is not None and len(known) == len(named(choice))
    for name, source in sources.items():
        plain = source.model_copy(update={"when": None, "tools": tools[name]})
        before = compiler.sure.pop(name, None)
        drafts[name] = modified(compiler, name, plain, types, uses(plain), path)
        sure &= compiler.sure.pop(name)
        if before is not None:
            compiler.sure[name] = before
        drafts[name].when = Chosen(by, choice, name) if by is not None else None
    if not sources:
        return Draft(kind="call", sure=True)
    output = union([draft.output for draft in drafts.values()]) if len(drafts) == len(named(choice)) else ANY
    made = assembled(sources, [*sources], drafts, dict.fromkeys(sources, Uses(NONE, NONE, NONE)), dict.fromkeys(sources, NONE))
    body = Program("", made, OneOf(frozenset(sources), output), output, {}, lexical=True, one_of=True)
    return Draft(kind="call", body=body, output=output, value=by, sure=sure)


def _agents(compiler: Compiler, choice: Choice, path: Path) -> dict[str, Contract]:
    """The agents that are there, by name."""
    catalog, found = compiler.catalog, {}
    places: list[tuple[str, Path]] = [(name, (*path, "agent", "of", label)) for label, name in choice.of.items()]
    places += [(choice.otherwise, (*path, "agent", "otherwise"))] if choice.otherwise is not None else []
    for name, place in places:
        if (contract := catalog.agents.get(name)) is not None:
            found[name] = contract
        elif name in catalog.tools:
            hint = "a choice is of agents; for a tool, `when` and `first_of`"
            compiler.findings.fault("L111", f"{name!r} is a tool", compiler.findings.at(*place), hint=hint)
        else:
            compiler.unknown("agent", name, catalog.agents, place)
    return found


def _tools(node: AgentNode, known: Mapping[str, Contract]) -> dict[str, tuple[str, ...]]:
    """The tools with effects that each agent may use here: those of its own card; what is on no card the first one has to refuse."""
    cards = {name: contract.kit.tools if contract.kit is not None else () for name, contract in known.items()}
    nobodys = [tool for tool in node.tools if not any(tool in listed for listed in cards.values())]
    return {
        name: tuple(tool for tool in node.tools if tool in listed or (not number and tool in nobodys))
        for number, (name, listed) in enumerate(cards.items())
    }


def _label(compiler: Compiler, choice: Choice, types: Names, path: Path) -> Expression | None:
    """What `by` gives, checked: a label, true or false, or null (L114), each of which has an agent (L054, L122)."""
    findings, at = compiler.findings, (*path, "agent", "by")
    by = compiled(choice.by, types, findings, at)
    if by is None:
        return None
    if not by.references:
        hint = f"by: {unreferenced(choice.by) or '${intent.intent}'}"
        findings.fault("L118", "`by` is the same in every run", findings.at(*at), hint=hint)
        return None
    parts = branches(by.schema)
    texts = [part for part in parts if part.get("type") not in ("null", "boolean") and choices(part) != [None]]
    before = len(findings.faults)
    if by.schema == ANY and not findings.faults:
        hint = "give its producer a type, such as `Literal['a', 'b']`"
        findings.fault("L114", "`by` takes a text or a bool, got anything", findings.at(*at), hint=hint)
    elif texts and not all(_worded(part) for part in texts):
        fits("`by`", union(texts), STR, findings, at, choice.by)
    if by.schema != ANY and len(findings.faults) == before:
        _covered(compiler, choice, by.schema, path)
    return by


def _worded(part: Schema) -> bool:
    """Whether all that a part of a type may be is a label."""
    values = choices(part)
    return part.get("type") == "string" if values is None else all(isinstance(value, str | bool | None) for value in values)


def labels(schema: Schema) -> tuple[dict[str, None], bool, bool]:
    """The labels of a type, in its order; whether any other text may come; and whether null may."""
    found: dict[str, None] = {}
    any_text = null = False
    for part in branches(schema):
        values = choices(part)
        if values is None:
            values = [False, True] if part.get("type") == "boolean" else []
            any_text, null = any_text or part.get("type") == "string", null or part.get("type") == "null"
        null = null or None in values
        found |= dict.fromkeys(str(value).lower() if isinstance(value, bool) else value for value in values if value is not None)
    return found, any_text, null


def gaps(choice: Choice, schema: Schema) -> str:
    """Which labels of a type have no agent, in words; empty where all have."""
    if choice.otherwise is not None:
        return ""
    found, any_text, null = labels(schema)
    missing = [label for label in found if label not in choice.of]
    said = [f"no agent for {len(missing)} label{'s' * (len(missing) != 1)}: {listed(missing)}"] if missing else []
    said += ["`by` may be any text, and no agent is for the others"] if any_text else []
    return "; ".join([*said, *(["`by` may be null, and no agent is for that"] if null else [])])


def _covered(compiler: Compiler, choice: Choice, schema: Schema, path: Path) -> None:
    """Notes labels that never come, and labels that come and have no agent."""
    findings = compiler.findings
    found, any_text, null = labels(schema)
    by = reference(choice.by) or choice.by
    for label in choice.of if not any_text else ():
        if label not in found:
            near = nearest(label, found)
            hint = f"did you mean {near!r}?" if near else f"it is one of {listed(found)}"
            place = findings.at(*path, "agent", "of", label, key=True)
            findings.fault("L054", f"{by} is {show(schema)}: it is never {label!r}", place, hint=hint)
    if missing := gaps(choice, schema):
        hint = "otherwise: AGENT, for all that is not listed"
        findings.fault("L122", missing, findings.at(*path, "agent", "of", key=True), hint=hint)
    elif choice.otherwise is not None and not any_text and not null and choice.of.keys() >= found.keys():
        findings.warn("`otherwise` is never asked: each label has an agent", findings.at(*path, "agent", "otherwise"))
    if len(named(choice)) == 1:
        findings.warn("all labels have the same agent", findings.at(*path, "agent", "of"))
