"""Alternatives: a node that asks one agent of several, chosen by a label. It is a block with a node for each agent, of which one runs.

    reply:
      agent: {by: "${intent.intent}", of: {lost_card: card_agent, top_up: top_up_agent}, otherwise: general}
      with: {text: "${input.text}"}

What belongs to an attempt (`checks`, `retry`, `timeout`, `escalate` and so on) belongs to the agent that is asked, what belongs to the
node (`when`, `each`, `after`, `fallback`) to the whole. So each agent has its own card's checks, its own certificate and its own tools.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from orchestra.agents.contract import Schema
from orchestra.schema.json_schema import enum_values, union_members
from orchestra.schema.strict_json import canonical
from orchestra.workflows.compile.diagnostics import join_names
from orchestra.workflows.expressions.parser import sole_reference
from orchestra.workflows.model import AgentChoice, AgentNode, AnyNode
from orchestra.workflows.program import CompiledNode, Expression

BOOL: Final[Schema] = {"type": "boolean"}


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
            {*kept, "agent", "with_", "when"},
            **kept,
            agent=name,
            with_=node.with_,
            when=_describe_condition(choice, name, labels),
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
        found |= dict.fromkeys(
            str(value).lower() if isinstance(value, bool) else value for value in values if value is not None
        )
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
