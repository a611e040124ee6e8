"""One agent of several in Python: chosen by a label that is known when the workflow runs.

intent = banking_intent(text=text)
reply = agent_by(intent.intent, {"lost_or_stolen_card": card_agent, "top_up_failed": top_up_agent}, otherwise=general)(text=text)
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Never, ParamSpec, cast

from typing_extensions import TypeVar

from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema
from orchestra.workflows.compile import agent_choice
from orchestra.workflows.model import AgentChoice
from orchestra.workflows.python.calls import Step, argument_type_error
from orchestra.workflows.python.pending import display_text, type_mismatch, union_type
from orchestra.workflows.python.placeholders import Placeholder, template_with_type
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import TracedNode, TraceScope, require_scope, trace_error
from orchestra.workflows.python.steps import Agent

P = ParamSpec("P")
A = TypeVar("A")
B = TypeVar("B", default=Never)
K = TypeVar("K", str, bool)

_HINT = "agent_by(label, {'a': reader}, otherwise=writer)"
_LABEL_SCHEMA: Schema = {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}


class AgentBy(Agent[P, A]):
    """One agent of several. Called in a workflow function it gives what the chosen one will give."""

    choice: AgentChoice
    agents: tuple[Agent[..., Any], ...]

    def _argument_templates(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments as templates, which each of the agents must take. Raises `InputError` W010 or W011 for one that does not."""
        expression = [agent._argument_templates(agent._bind_arguments((), given)) for agent in self.agents]
        return expression[0]

    def _add_node(self, scope: TraceScope, expression: dict[str, Any]) -> TracedNode:
        fields: dict[str, Any] = {"agent": self.choice, "with_": expression}
        if "name" in self._options:
            fields["name"] = self._options["name"]
        return scope.add_node(
            self.node_type, "agent", union_type([agent.signature.output for agent in self.agents]), **fields
        )

    def _callees(self) -> tuple[Step[..., Any], ...]:
        return self.agents


def agent_by(by: object, of: Mapping[K, Agent[P, A]], /, *, otherwise: Agent[P, B] | None = None) -> Agent[P, A | B]:
    """The agent that a label chooses: `of` has them by label, `otherwise` is the one for all other labels.

    `by` is a text, a choice of texts or a bool of the workflow. All agents take the same inputs. Without `otherwise` each label that
    `by` may have needs an agent. Raises `InputError` W008 for a label that never comes, W011 for what is no label, W016 for a label
    without an agent, or for what is no agent.
    """
    scope = require_scope("agent_by")
    stated, found = template_with_type(by)
    if type(by) is not Placeholder:
        hint = "{...}[label], where the label is known now"
        raise trace_error("W016", f"agent_by() takes a value of the workflow, and {by!r} is known now", hint=hint)
    if reason := type_mismatch(found, _LABEL_SCHEMA):
        raise argument_type_error("agent_by(by)", by, found, {"type": "string"}, reason)
    by_label: dict[str, Agent[P, Any]] = {
        str(label).lower() if isinstance(label, bool) else label: agent for label, agent in of.items()
    }
    agents: dict[str, Agent[..., Any]] = {}
    for agent in (*by_label.values(), *(() if otherwise is None else (otherwise,))):
        if not isinstance(agent, Agent):
            raise trace_error("W016", f"agent_by() is given {agent!r}, which is no agent", hint=_HINT)
        agents.setdefault(agent.name, agent)
    if not by_label:
        raise trace_error("W016", "agent_by() is given no label", hint=_HINT)
    rest = otherwise.name if otherwise is not None else None
    choice = AgentChoice(by=stated, of={label: agent.name for label, agent in by_label.items()}, otherwise=rest)
    _check_labels(choice, found, display_text(by._expression))
    first = next(iter(agents.values()))
    made: AgentBy[P, Any] = AgentBy("agent_by", first.signature)
    made.choice, made.agents = choice, tuple(agents.values())
    scope.root.steps += made.agents
    return cast("Agent[P, A | B]", made)


def _check_labels(choice: AgentChoice, schema: Schema, text: str) -> None:
    """Refuses labels that never come, and those that come and have no agent."""
    if "x-unknown" in schema:
        return
    known, any_text, _ = agent_choice.label_values(schema)
    for label in choice.of if not any_text else ():
        if label not in known:
            near = closest_match(label, known)
            raise trace_error(
                "W008",
                f"{text} is {python_type(schema)}: it is never {label!r}",
                hint=f"did you mean {near!r}?" if near else "",
            )
    if missing := agent_choice.missing_labels(choice, schema):
        raise trace_error(
            "W016", f"agent_by({text}, ...): {missing}", hint="otherwise=AGENT, for all that is not listed"
        )
