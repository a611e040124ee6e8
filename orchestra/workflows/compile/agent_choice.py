"""A node that calls one of several agents, chosen by a label. It compiles to a block with one node per agent, of which
one runs.

    reply:
      agent: {by: "${intent.intent}", of: {lost_card: card_agent, top_up: top_up_agent}, otherwise: general}
      with: {text: "${input.text}"}

Modifiers of an attempt (`checks`, `retry`, `timeout`, `escalate` and so on) apply to the called agent, modifiers of the
node (`when`, `each`, `after`, `fallback`) to the block. Each agent thus keeps the checks of its card, its certificate
and its tools.
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
"""Modifiers of the node itself; all others are applied to the agents."""


MAX_SHOWN_LENGTH = 120
"""The maximum number of characters of a label in a reason."""


def choice_of(node: AnyNode) -> AgentChoice | None:
    """Returns the choice of a node; None if it names one agent or is no agent node."""
    return node.agent if isinstance(node, AgentNode) and isinstance(node.agent, AgentChoice) else None


def labels_by_agent(choice: AgentChoice) -> dict[str, list[str]]:
    """Returns the agents of a choice with their labels, in written order. The agent of `otherwise` may have no
    labels.
    """
    labels: dict[str, list[str]] = {}
    for label, name in choice.of.items():
        labels.setdefault(name, []).append(label)
    if choice.otherwise is not None:
        labels.setdefault(choice.otherwise, [])
    return labels


def choose_agent(choice: AgentChoice, value: Any) -> str | None:
    """Returns the agent for a value of `by` (a label, a bool or null); None if there is none."""
    label = str(value).lower() if isinstance(value, bool) else value
    return choice.of.get(label, choice.otherwise) if isinstance(label, str) else choice.otherwise


def outer_node(node: AgentNode) -> AgentNode:
    """Returns the node without the modifiers of its agents."""
    return node.model_copy(update={name: AgentNode.model_fields[name].get_default() for name in _AGENT_MODIFIERS})


def agent_nodes(node: AgentNode, choice: AgentChoice) -> dict[str, AgentNode]:
    """Returns one node per agent, by the agent's name. Its `when` describes the condition in words."""
    nodes: dict[str, AgentNode] = {}
    modifiers = {name: getattr(node, name) for name in node.model_fields_set & _AGENT_MODIFIERS}
    for name, labels in labels_by_agent(choice).items():
        nodes[name] = AgentNode.model_construct(
            {*modifiers, "agent", "with_", "when"},
            **modifiers,
            agent=name,
            with_=node.with_,
            when=_describe_condition(choice, name, labels),
        )
    return nodes


_AGENT_MODIFIERS = frozenset(AgentNode.model_fields) - NODE_MODIFIERS - {"agent", "with_"}


def _describe_condition(choice: AgentChoice, name: str, labels: list[str]) -> str:
    """Describes the condition of an agent in words; `ChoiceCondition` evaluates it."""
    if name != choice.otherwise:
        return f"{choice.by} is {' or '.join(labels)}"
    other_labels = [label for label, agent in choice.of.items() if agent != name]
    return f"{choice.by} is not {' or '.join(other_labels)}" if other_labels else f"{choice.by} is anything"


class ChoiceCondition:
    """The condition of an agent's node: whether the label chooses this agent."""

    __slots__ = ("agent", "by", "choice", "parts", "references", "schema")

    def __init__(self, by: Expression, choice: AgentChoice, agent: str) -> None:
        self.by, self.choice, self.agent = by, choice, agent
        self.references, self.schema = by.references, BOOL
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> bool:
        """Returns whether the agent is chosen. Raises `OrchestraError` (L-codes) if the expression of the label
        fails.
        """
        return choose_agent(self.choice, self.by.evaluate(bindings)) == self.agent


class ChoiceOutput:
    """The output of the block: the value of the node that ran (`Program.runs_one_node`)."""

    __slots__ = ("parts", "references", "schema")

    def __init__(self, names: frozenset[str], schema: Schema) -> None:
        self.references, self.schema = names, schema
        self.parts: Mapping[str, Expression] | None = None

    def evaluate(self, bindings: Mapping[str, Any]) -> Any:
        """Returns the value of the node that has one."""
        return next(bindings[name] for name in sorted(self.references) if name in bindings)


def explain_choice(node: CompiledNode, bindings: Mapping[str, Any]) -> str:
    """Describes which agent a node calls for these values, and why. Raises `OrchestraError` (L-codes) if its expression
    fails.
    """
    choice = choice_of(node.source)
    if choice is None or node.value is None:
        return ""
    value = node.value.evaluate(bindings)
    text, by = canonical(value).decode("utf-8", "replace"), sole_reference(choice.by) or choice.by
    excerpt = text if len(text) <= MAX_SHOWN_LENGTH else f"{text[:MAX_SHOWN_LENGTH]}…"
    label = by if len(by) <= MAX_SHOWN_LENGTH else f"{by[:MAX_SHOWN_LENGTH]}…"
    return f"{choose_agent(choice, value)}, for {label} is {excerpt}"


def label_values(schema: Schema) -> tuple[dict[str, None], bool, bool]:
    """Returns the labels of a type in its order, whether other texts are possible, and whether null is possible."""
    values_by_label: dict[str, None] = {}
    any_text = null = False
    for part in union_members(schema):
        values = enum_values(part)
        if values is None:
            values = [False, True] if part.get("type") == "boolean" else []
            any_text, null = any_text or part.get("type") == "string", null or part.get("type") == "null"
        null = null or None in values
        values_by_label |= dict.fromkeys(
            str(value).lower() if isinstance(value, bool) else value for value in values if value is not None
        )
    return values_by_label, any_text, null


def missing_labels(choice: AgentChoice, schema: Schema) -> str:
    """Describes the labels of a type that have no agent; empty if all have one."""
    if choice.otherwise is not None:
        return ""
    labels, any_text, null = label_values(schema)
    missing = [label for label in labels if label not in choice.of]
    messages = (
        [f"no agent for {len(missing)} label{'s' * (len(missing) != 1)}: {join_names(missing)}"] if missing else []
    )
    messages += ["`by` may be any text, and no agent is for the others"] if any_text else []
    return "; ".join([*messages, *(["`by` may be null, and no agent is for that"] if null else [])])
