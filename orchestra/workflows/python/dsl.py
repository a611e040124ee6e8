"""The functions of the workflow language in Python. Each adds to the graph, and is typed as the value that it will
have.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, Never, ParamSpec, cast, get_args, get_origin, overload

from typing_extensions import TypeForm, TypeVar

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.types import Schema, SchemaMode, resolve, schema_of, subschema
from orchestra.workflows.compile import agent_choice
from orchestra.workflows.model import AgentChoice, AskNode, Retry
from orchestra.workflows.python.acceptance import (
    AbstainAction,
    RecoveryAction,
    abstain,
    accepted,
    agree,
    back_off,
    combined,
    entailment,
    escalate,
    format_,
    numbers,
    quote,
    recompute,
    rederive,
    retry,
    support,
    verify,
)
from orchestra.workflows.python.branches import first_of, require, when
from orchestra.workflows.python.calls import Step, argument_type_error, finish_node
from orchestra.workflows.python.checks import AcceptThreshold, Check, certified
from orchestra.workflows.python.conditions import (
    all_of,
    any_of,
    as_text,
    choose,
    contains,
    has_value,
    length,
    not_,
    or_else,
)
from orchestra.workflows.python.iteration import filter_, loop, map_, values
from orchestra.workflows.python.pending import display_text, plain_json, type_mismatch, union_type
from orchestra.workflows.python.placeholders import Maybe, Placeholder, contains_placeholder, lift, template_with_type
from orchestra.workflows.python.plan import plan, return_type
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import NodePresence, TracedNode, TraceScope, require_scope, trace_error
from orchestra.workflows.python.steps import Agent

P = ParamSpec("P")


T = TypeVar("T")


def build(model: Callable[P, T], /, *args: P.args, **fields: P.kwargs) -> T:
    """Builds a pydantic model, dataclass or typed dict from values that are not known yet, checked like its
    constructor.

    Raises `InputError` W010 for missing or unknown fields, W011 for a value of another type.
    """
    if not contains_placeholder(dict(fields)) and not contains_placeholder(args):
        return model(*args, **fields)
    if args:
        raise trace_error("W010", "build() takes the fields by name", hint="build(Answer, text=..., citations=[])")
    name = getattr(model, "__name__", str(model))
    input_schema, output = _schema(model, name, "validation"), _schema(model, name, "serialization")
    properties = input_schema.get("properties", {})
    for key in fields:
        if key not in properties:
            near = closest_match(key, properties)
            raise trace_error(
                "W010",
                f"{name} has no field {key!r}",
                hint=f"did you mean {near!r}?" if near else f"fields: {', '.join(properties)}",
            )
    if absent := [key for key in input_schema.get("required", ()) if key not in fields]:
        raise trace_error("W010", f"{name} needs the field {absent[0]!r}", hint=f"build({name}, {absent[0]}=...)")
    defaults: dict[str, Any] = {
        key: part["default"] for key, part in properties.items() if "default" in part and key not in fields
    }
    for key, value in fields.items():
        actual_schema = template_with_type(value)[1]
        expected_schema = subschema(input_schema, properties[key])
        if reason := type_mismatch(actual_schema, expected_schema):
            raise argument_type_error(f"build({name}, {key}=...)", value, actual_schema, expected_schema, reason)
        defaults[key] = value
    required_names = output.get("required", ())
    output_parts = {key: part for key, part in output["properties"].items() if key in defaults or key in required_names}
    return cast(T, Placeholder(replace(lift(defaults), schema={**output, "properties": output_parts})))


def _schema(model: Any, name: str, mode: SchemaMode) -> Schema:
    try:
        schema = resolve(schema_of(model, mode))
    except InputError as error:
        raise trace_error(
            "W010", f"build() takes a model: {error.message}", hint="build(Answer, text=..., citations=[])"
        ) from error
    if "properties" not in schema:
        raise trace_error(
            "W010", f"build() takes a model, and {name} is none", hint="build(Answer, text=..., citations=[])"
        )
    return schema


CLAUSES = ("options", "returns", "fallback", "timeout", "retry", "after")
"""The keywords of `ask`."""


_USAGE = "ask('Refund it?', options=['yes', 'no'])"


_STR: Schema = {"type": "string"}


class AskAction(RecoveryAction):
    """The action `ask` in `otherwise`: a person replaces a refused value. A call with a question is a node of its
    own.
    """

    __slots__ = ()

    if TYPE_CHECKING:

        @overload
        def __call__(
            self,
            question: str,
            /,
            *,
            options: Sequence[str] = ...,
            fallback: str = ...,
            timeout: float = ...,
            retry: int | Retry = ...,
            after: Sequence[object] = (),
        ) -> str: ...
        @overload
        def __call__(
            self,
            question: str,
            /,
            *,
            returns: TypeForm[T],
            fallback: object = ...,
            timeout: float = ...,
            retry: int | Retry = ...,
            after: Sequence[object] = (),
        ) -> T: ...
        def __call__(self, question: str, /, **clauses: Any) -> Any:
            """Returns the answer of a person: a text, one of the options, or a value of the type `returns`."""
    else:

        def __call__(self, *question, **clauses):
            """Returns the answer of a person: a text, one of the options, or a value of the type `returns`.

                answer = ask("Refund " + as_text(amount) + "?", options=["yes", "no"])

            `options` are the possible texts; `returns=Literal["yes", "no"]` has the same effect and a precise type.
            `fallback` is the value if the person declines or `timeout` seconds have passed. `retry` and `after` are the
            same as for other calls.

            Raises:
                InputError: W001 outside of a workflow, W010 for wrong arguments, W011 for a question that is not a
                text, W016 for a wrong
                    option, W018 for a type that the language does not have.
            """
            scope = require_scope("ask(...)")
            if len(question) != 1:
                problem = "has no question" if not question else f"takes one question, got {len(question)}"
                raise trace_error("W010", f"ask() {problem}: it comes first, and everything else by name", hint=_USAGE)
            if unknown := next((name for name in clauses if name not in CLAUSES), None):
                near = closest_match(unknown, CLAUSES)
                raise trace_error(
                    "W010", f"ask() has no {unknown!r}", hint=f"did you mean {near!r}?" if near else _USAGE
                )
            text, actual_schema = template_with_type(question[0])
            if reason := type_mismatch(actual_schema, _STR):
                raise argument_type_error("ask(question)", question[0], actual_schema, _STR, reason)
            fields, schema = {"ask": text}, _STR
            if "options" in clauses and "returns" in clauses:
                raise trace_error(
                    "W016",
                    "ask() takes options, which are texts, or a type that it returns",
                    hint="leave one of them out",
                )
            if "options" in clauses:
                fields["options"] = _parse_options(clauses.pop("options"))
            elif (returns := clauses.pop("returns", str)) is not str:
                if get_origin(returns) is Literal and all(isinstance(argument, str) for argument in get_args(returns)):
                    fields["options"] = _parse_options(get_args(returns))
                else:
                    fields["returns"], schema = return_type(returns, scope)
            if "options" in fields:
                schema = {"enum": [*fields["options"]]}
            draft = scope.add_node(AskNode, "asked", schema, **fields)
            draft.presence = NodePresence.ALWAYS if "fallback" in clauses else NodePresence.IF_ANSWERED
            return finish_node(clauses, draft, scope, "asked", "ask(fallback=...)")


def _parse_options(options: Any) -> tuple[str, ...]:
    """Returns the options. Raises `InputError` W016 for anything but a list of constant texts."""
    if contains_placeholder(options):
        raise trace_error(
            "W016",
            "options=[...] are known when the workflow is written, and this is a value of it",
            hint="options=['yes', 'no']",
        )
    if (
        isinstance(options, str)
        or not isinstance(options, Sequence)
        or not all(isinstance(option, str) for option in options)
    ):
        raise trace_error(
            "W016",
            f"options={plain_json(options)!r} is not a list of texts",
            hint="options=['yes', 'no'], or returns=... a type",
        )
    if not options:
        raise trace_error("W016", "options=[] has none to choose from", hint="leave it out, and any text is an answer")
    return tuple(options)


ask: Final = AskAction("ask")
"""Asks a person. In `otherwise` the person sees the refused value and enters the right one; a call asks a question. The
run waits for the answer without any cost, also for days.
"""


A = TypeVar("A")


B = TypeVar("B", default=Never)


K = TypeVar("K", str, bool)


_HINT = "agent_by(label, {'a': reader}, otherwise=writer)"


_LABEL_SCHEMA: Schema = {"anyOf": [{"type": "string"}, {"type": "boolean"}, {"type": "null"}]}


class AgentBy(Agent[P, A]):
    """A choice of one agent among several. A call in a workflow function returns the value of the chosen agent."""

    choice: AgentChoice
    agents: tuple[Agent[..., Any], ...]

    def _argument_templates(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments as templates. Raises `InputError` W010 or W011 if one of the agents does not take
        them.
        """
        expression = [agent._argument_templates(agent._bind_arguments((), arguments)) for agent in self.agents]
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
    """Chooses an agent by a label.

    Args:
        by: A text, a choice of texts or a bool of the workflow.
        of: The agents by label. All agents take the same inputs.
        otherwise: The agent for all other labels. Without it each possible label needs an agent.

    Raises:
        InputError: W008 for an impossible label, W011 if `by` is not a label, W016 for a label without an agent, or for
        something
            that is not an agent.
    """
    scope = require_scope("agent_by")
    template, actual_schema = template_with_type(by)
    if type(by) is not Placeholder:
        hint = "{...}[label], where the label is known now"
        raise trace_error("W016", f"agent_by() takes a value of the workflow, and {by!r} is known now", hint=hint)
    if reason := type_mismatch(actual_schema, _LABEL_SCHEMA):
        raise argument_type_error("agent_by(by)", by, actual_schema, {"type": "string"}, reason)
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
    choice = AgentChoice(by=template, of={label: agent.name for label, agent in by_label.items()}, otherwise=rest)
    _check_labels(choice, actual_schema, display_text(by._expression))
    first = next(iter(agents.values()))
    result: AgentBy[P, Any] = AgentBy("agent_by", first.signature)
    result.choice, result.agents = choice, tuple(agents.values())
    scope.root.steps += result.agents
    return cast("Agent[P, A | B]", result)


def _check_labels(choice: AgentChoice, schema: Schema, text: str) -> None:
    """Refuses impossible labels, and possible labels without an agent."""
    if "x-unknown" in schema:
        return
    labels, any_text, _ = agent_choice.label_values(schema)
    for label in choice.of if not any_text else ():
        if label not in labels:
            near = closest_match(label, labels)
            raise trace_error(
                "W008",
                f"{text} is {python_type(schema)}: it is never {label!r}",
                hint=f"did you mean {near!r}?" if near else "",
            )
    if missing := agent_choice.missing_labels(choice, schema):
        raise trace_error(
            "W016", f"agent_by({text}, ...): {missing}", hint="otherwise=AGENT, for all that is not listed"
        )


__all__ = [
    "AbstainAction",
    "AcceptThreshold",
    "Check",
    "Maybe",
    "RecoveryAction",
    "abstain",
    "accepted",
    "agent_by",
    "agree",
    "all_of",
    "any_of",
    "as_text",
    "ask",
    "back_off",
    "build",
    "certified",
    "choose",
    "combined",
    "contains",
    "entailment",
    "escalate",
    "filter_",
    "first_of",
    "format_",
    "has_value",
    "length",
    "loop",
    "map_",
    "not_",
    "numbers",
    "or_else",
    "plan",
    "quote",
    "recompute",
    "rederive",
    "require",
    "retry",
    "support",
    "values",
    "verify",
    "when",
]
