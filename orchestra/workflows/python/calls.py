"""Calls of steps in a workflow function: a call becomes a node, and its arguments become typed templates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, ParamSpec, Self, TypedDict, cast

from pydantic import ValidationError
from typing_extensions import TypeVar, Unpack

from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.schema.types import ANY, Schema, element_type, resolve, subschema
from orchestra.workflows.expressions.type_checker import value_kinds
from orchestra.workflows.model import AgentNode, Node, Retry
from orchestra.workflows.python import errors
from orchestra.workflows.python.branches import is_lazy, with_fallback
from orchestra.workflows.python.conditions import reject_effects
from orchestra.workflows.python.pending import display_text, node_value, type_mismatch
from orchestra.workflows.python.placeholders import Maybe, Placeholder, contains_placeholder, lift, template_with_type
from orchestra.workflows.python.printer import python_type
from orchestra.workflows.python.scopes import NodePresence, TracedNode, TraceScope, current_scope, trace_error
from orchestra.workflows.python.signatures import Signature

P = ParamSpec("P")
R = TypeVar("R", covariant=True)


class NodeOptions(TypedDict, total=False):
    """Options of one node besides its inputs."""

    name: str
    """The name of the node; by default the name of the variable."""
    timeout: float
    """The time limit of one attempt in seconds."""
    retry: int | Retry
    """The maximum number of attempts, at most 10."""
    fallback: object
    """The value if the node has none, of its output's type. `lambda: writer(...)` is called only in that case."""
    after: Sequence[object]
    """Values whose nodes it waits for without reading them."""
    escalate: bool
    """A condition of an agent: if it holds, the fleet's larger model is called at once."""
    tools: Sequence[str | Step[..., Any]]
    """For an agent with tools: the tools with effects from its card that it may use here."""


class Step(Generic[P, R]):
    """A step that a node runs. A call in a workflow function returns a placeholder, typed as the output."""

    kind: ClassVar[str] = "step"
    node_type: ClassVar[type[Node]] = Node

    def __init__(self, name: str, signature: Signature, description: str = "") -> None:
        self.name, self.signature, self.description = name, signature, description
        self._options: NodeOptions = {}
        self.__name__, self.__doc__, self.__signature__ = name, description, signature.parameters

    def __repr__(self) -> str:
        return f"<{self.kind} {self}>"

    def __str__(self) -> str:
        fields = self.signature.input.get("properties", {})
        input_texts = (f"{name}: {python_type(subschema(self.signature.input, part))}" for name, part in fields.items())
        return f"{self.name}({', '.join(input_texts)}) -> {python_type(self.signature.output)}"

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        scope = current_scope()
        if scope is None:
            raise errors.error_at(
                "W001",
                f"{self.name} is called outside a workflow",
                hint=f"await orchestra.run({self.name}, ...)",
                why=self._usage_hint(),
            )
        expression = self._argument_templates(self._bind_arguments(args, kwargs))
        draft = self._add_node(scope, expression)
        scope.root.steps += self._callees()
        return cast(R, finish_node(self._options, draft, scope, self.name, f"{self.name}.options(fallback=...)"))

    def options(self, **options: Unpack[NodeOptions]) -> Self:
        """Returns the step with options for its next node: `reader.options(timeout=30, retry=3)(question=...)`."""
        unknown = next((name for name in options if name not in NodeOptions.__annotations__), None)
        if unknown is not None:
            near = closest_match(unknown, NodeOptions.__annotations__)
            hint = f"did you mean {near!r}?" if near else f"options: {', '.join(NodeOptions.__annotations__)}"
            raise trace_error("W016", f"{self.name}.options has no {unknown!r}", hint=hint)
        new_step = object.__new__(type(self))
        new_step.__dict__.update(self.__dict__)
        new_step._options = {**self._options, **options}
        return new_step

    def read(self, value: Any) -> R:
        """Converts a JSON value of the output to its Python type. Raises `InputError` W020 for a value of another
        type.
        """
        return cast(R, self.signature.read(value))

    def is_same(self, other: Step[..., Any]) -> bool:
        """Whether another step of this name is the same."""
        own_signature, other_signature = self.signature, other.signature
        return (
            type(self) is type(other)
            and own_signature.input == other_signature.input
            and own_signature.output == other_signature.output
        )

    def _callees(self) -> tuple[Step[..., Any], ...]:
        """The steps that its node may call."""
        return (self,)

    def _presence(self) -> NodePresence:
        """How certainly it has a value, as far as is known here.

        A card of a file and another workflow are assumed to have one. Otherwise an `else` branch could run because its
        `if` branch failed, which is worse than a choice that is refused or has no value.
        """
        return NodePresence.ALWAYS

    def _usage_hint(self) -> str:
        return "an agent needs servers, a budget and a journal: an Orchestra has them"

    def _bind_arguments(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments by name. Raises `InputError` W010."""
        if not args and (plain := self.signature.keywords) is not None and plain.accepts(kwargs):
            return {name: kwargs[name] for name in plain.names if name in kwargs}
        parameters = self.signature.parameters
        loose = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.parameters.values())
        for name in kwargs if not loose else ():
            if name not in parameters.parameters:
                near = closest_match(name, parameters.parameters)
                raise trace_error(
                    "W010", f"{self.name} has no input {name!r}", hint=f"did you mean {near!r}?" if near else str(self)
                )
        try:
            bound = parameters.bind(*args, **kwargs).arguments
        except TypeError as error:
            raise trace_error("W010", f"{self.name}: {error}", hint=str(self)) from None
        return {**bound.pop("inputs", {}), **bound} if loose else dict(bound)

    def _argument_templates(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Returns the arguments as templates. Raises `InputError` W011 for an argument of another type."""
        expression: dict[str, Any] = {}
        fields = self.signature.fields
        for name, value in arguments.items():
            expression[name], actual_schema = template_with_type(value)
            expected_schema = fields.get(name, ANY)
            if reason := type_mismatch(actual_schema, expected_schema):
                raise argument_type_error(f"{self.name}({name}=...)", value, actual_schema, expected_schema, reason)
        return expression

    def _add_node(self, scope: TraceScope, expression: dict[str, Any]) -> TracedNode:
        fields: dict[str, Any] = {self.kind: self.name, "with_": expression}
        if "name" in self._options:
            fields["name"] = self._options["name"]
        draft = scope.add_node(self.node_type, self.name, self.signature.output, **fields)
        draft.effect, draft.presence = getattr(self, "effect", "pure"), self._presence()
        return draft


def finish_node(options: NodeOptions, draft: TracedNode, scope: TraceScope, default: str, fallback_usage: str) -> Any:
    """Applies the options and returns the value of the node. With `fallback=lambda: ...` the value is that of a
    `first_of`.
    """
    apply_options(options, draft, scope, fallback_usage)
    if not is_lazy(then := options.get("fallback")):
        return Placeholder(node_value(draft, scope))
    if draft.has_variable_name and "name" not in options:
        scope.rename_node(draft, default, has_variable_name=False)
    first = with_fallback(draft, scope, cast(Any, then))
    actual_schema = first._expression.schema
    if reason := type_mismatch(actual_schema, draft.schema):
        raise argument_type_error(fallback_usage, first, actual_schema, draft.schema, reason)
    return first


def apply_options(options: NodeOptions, draft: TracedNode, scope: TraceScope, fallback_usage: str) -> None:
    """Sets options on a node. `fallback_usage` is the form of its fallback in messages. Raises `InputError` W006, W011
    or W016.
    """
    for word in ("timeout", "retry"):
        if contains_placeholder(options.get(word)):
            value = display_text(lift(options.get(word)))
            hint = f"{word}=3: a number that is known when the workflow is written"
            raise trace_error("W016", f"{word}={value} is a value of the workflow", hint=hint)
    if "timeout" in options:
        draft.fields["timeout"] = float(options["timeout"])
    if "retry" in options:
        draft.fields["retry"] = _parse_retry(options["retry"])
    if "fallback" in options and not is_lazy(options["fallback"]):
        value, fallback_schema = template_with_type(reject_effects(options["fallback"], "fallback"))
        draft.fields["fallback"] = "${null}" if value is None else value  # a field that is None is omitted
        if reason := type_mismatch(fallback_schema, draft.schema):
            raise argument_type_error(fallback_usage, options["fallback"], fallback_schema, draft.schema, reason)
    if "escalate" in options:
        draft.fields["escalate"] = _escalation_condition(options["escalate"], draft)
    if "tools" in options:
        if draft.kind is not AgentNode:
            raise trace_error(
                "W016", f"{draft.name} is not an agent, and takes no tools", hint="tools=[...] belongs to an agent"
            )
        draft.fields["tools"] = tuple(tool.name if isinstance(tool, Step) else tool for tool in options["tools"])
    if "after" in options:
        draft.fields["after"] = tuple(_after_node(value, scope) for value in options["after"])
    if "name" in options and draft.name != options["name"]:
        raise trace_error(
            "W016", f"a node cannot be called {options['name']!r} here", hint=f"a free name, such as {draft.name!r}"
        )


def _parse_retry(retry: int | Retry) -> Retry:
    if isinstance(retry, Retry):
        return retry
    try:
        return Retry(attempts=retry)
    except ValidationError as error:
        raise trace_error(
            "W016", f"retry={retry!r} is not a number of attempts", hint="retry=3, from 1 to 10"
        ) from error


def _after_node(value: Any, scope: TraceScope) -> str:
    expression = value._expression if type(value) in (Placeholder, Maybe) else None
    if expression is None or expression.node is None:
        raise trace_error(
            "W016", "after=[...] takes the values of calls", hint="after=[passages], where passages = search(...)"
        )
    if expression.node.scope is not scope:
        raise trace_error(
            "W006",
            f"{display_text(expression)} belongs to another body",
            hint="after=[...] takes nodes of the same body",
        )
    expression.node.used = True
    return str(expression.node.name)


def argument_type_error(what: str, value: Any, have: Schema, want: Schema, reason: str) -> InputError:
    """Returns the error W011 for a value of another type, with a hint at an assignable part."""
    actual_type = python_type(have) if type(value) is Placeholder else _short_literal(have)
    position_text = (
        f": {reason}" if reason.startswith((".", "[")) or ": " in reason or actual_type == python_type(want) else ""
    )
    return trace_error(
        "W011", f"{what} takes {python_type(want)}, got {actual_type}{position_text}", hint=_fit_hint(value, have, want)
    )


def _short_literal(actual_schema: Schema) -> str:
    """Formats a constant for a message."""
    text = repr(actual_schema["const"]) if "const" in actual_schema else python_type(actual_schema)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _fit_hint(value: Any, actual_schema: Schema, expected_schema: Schema) -> str:
    """Returns a hint: an assignable field, the elements, a list of the value, or its text."""
    if type(value) is not Placeholder:
        return ""
    text, shape = display_text(value._expression), resolve(actual_schema)
    alternatives = shape.get("anyOf", ())
    plain = [part for part in alternatives if part.get("type") != "null"]
    if (
        len(plain) == 1
        and len(alternatives) == 2
        and type_mismatch(subschema(shape, plain[0]), expected_schema) is None
    ):
        return f"or_else({text}, ...) gives a default for None"
    if fields := _fitting_fields(shape, expected_schema):
        return "did you mean " + " or ".join(f"{text}.{name}" for name in fields) + "?"
    item_schema = element_type(expected_schema) if resolve(expected_schema).get("type") == "array" else ""
    inner = element_type(actual_schema) if shape.get("type") == "array" else ""
    if isinstance(inner, dict):
        return _list_fit_hint(text, inner, expected_schema, item_schema)
    if isinstance(item_schema, dict) and type_mismatch(actual_schema, item_schema) is None:
        return f"did you mean [{text}]?"
    if (
        value_kinds(actual_schema) <= {"int", "float", "bool"}
        and type_mismatch({"type": "string"}, expected_schema) is None
    ):
        return f"did you mean as_text({text})?"
    return ""


def _fitting_fields(shape: Schema, expected_schema: Schema) -> list[str]:
    """Returns the names of the assignable fields, at most three."""
    return [
        name
        for name, part in shape.get("properties", {}).items()
        if type_mismatch(subschema(shape, part), expected_schema) is None
    ][:3]


def _list_fit_hint(text: str, inner: Schema, expected_schema: Schema, item_schema: Schema | str) -> str:
    """Returns a hint for a list: each element, a field of each, or the first one."""
    shape = resolve(inner)
    if type_mismatch(inner, expected_schema) is None:
        return f"map_(lambda item: ..., {text}) for each element, or {text}[0] for the first"
    if isinstance(item_schema, dict) and (fields := _fitting_fields(shape, item_schema)):
        return f"did you mean map_(lambda item: item.{fields[0]}, {text})?"
    if fields := _fitting_fields(shape, expected_schema):
        field = fields[0]
        return f"map_(lambda item: ... item.{field} ..., {text}) for each element, or {text}[0].{field} for the first"
    return ""


def _escalation_condition(condition: Any, draft: TracedNode) -> Any:
    """Returns the text of `escalate`. Raises `InputError` W011 for other types, W016 for a step that is not an
    agent.
    """
    if draft.kind is not AgentNode:
        raise trace_error(
            "W016", f"{draft.name} is not an agent, and has no larger model", hint="escalate=... belongs to an agent"
        )
    template, actual_schema = template_with_type(condition)
    expected_schema: Schema = {"type": "boolean"}
    reason = (
        type_mismatch(actual_schema, expected_schema)
        if isinstance(condition, Placeholder)
        else "it is not a value of the workflow"
    )
    if reason:
        raise argument_type_error(f"{draft.name}: escalate", condition, actual_schema, expected_schema, reason)
    return template
