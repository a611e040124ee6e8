"""Branches: values that exist only under a condition, and their alternatives."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import isfunction, ismethod
from typing import Any, Never, cast, overload

from typing_extensions import TypeVar

from orchestra.schema.json_schema import TYPE_NAMES
from orchestra.schema.types import Schema
from orchestra.workflows.expressions.condition_analysis import covers, negate, parse_conditions, presence_test
from orchestra.workflows.model import FirstOfNode
from orchestra.workflows.python.conditions import (
    always_present,
    guards_hold,
    presence_of,
    reject_effects,
    require_boolean,
)
from orchestra.workflows.python.pending import (
    PRECEDENCE,
    PendingExpression,
    display_text,
    node_value,
    to_guard,
    union_type,
)
from orchestra.workflows.python.placeholders import (
    Maybe,
    Placeholder,
    contains_placeholder,
    lift,
    missing_error,
    peek,
    rename_to_variable,
    template_with_type,
)
from orchestra.workflows.python.scopes import (
    NodeGuard,
    NodePresence,
    TracedNode,
    TraceScope,
    Variable,
    require_scope,
    trace,
    trace_error,
)

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E", default=Never)

_UNSET: Any = object()


def require(value: Maybe[T], /) -> T:
    """Takes a value that may be missing as if it existed. If it is missing, its users are skipped or withheld too."""
    argument: Any = value
    if type(argument) is not Maybe:
        return value  # type: ignore[return-value]  # it is sure to be there
    if argument._is_list:
        raise missing_error(argument)
    return cast(T, rename_to_variable(replace(argument._expression, needs=frozenset())))


@overload
def when(condition: bool, then: Callable[[], Maybe[T]], /) -> Maybe[T]: ...
@overload
def when(condition: bool, then: Maybe[T], /) -> Maybe[T]: ...
@overload
def when(condition: bool, then: Callable[[], T], /) -> Maybe[T]: ...
@overload
def when(condition: bool, then: T, /) -> Maybe[T]: ...
def when(condition: Any, then: Any, /) -> Any:
    """Returns a value that exists only if a condition holds.

    `when(c, reader(...))` guards that one call; calls in its arguments run anyway. `when(c, lambda: ...)` guards every
    call in the lambda. Raises `InputError` W015 for a constant condition, W016 for something that is not a call.
    """
    scope = require_scope("when")
    if not contains_placeholder(condition):
        raise trace_error("W015", f"this condition is known now: {condition!r}", hint="x = a if flag else b")
    guard = to_guard(require_boolean(lift(condition), "when"))
    if type(then) not in (Placeholder, Maybe) and callable(then):
        with _add_guards(scope, (guard,)):
            then = trace(then)
            expression = peek(then)
        if type(then) is Maybe and then._is_list:
            raise missing_error(then)
        if not any(guard in node.guards for node in expression.needs):
            raise _not_a_call_error(then, expression)
        return Maybe(rename_to_variable(expression)._expression)
    expression = peek(then)
    if type(then) is Maybe and then._is_list:
        raise missing_error(then)
    node = expression.node
    if node is None or node.scope is not scope or expression.cel not in (node.name, f"{node.name}.values"):
        raise _not_a_call_error(then, expression)
    if node.fallback_for:
        hint = "when(condition, lambda: ...) guards every call in the lambda"
        raise trace_error(
            "W016",
            f"{display_text(expression)} is a call with a fallback, and when() guards one call",
            hint=hint,
        )
    if node.is_used:
        callee = node.fields.get("agent") or node.fields.get("tool")
        hint = f"when(condition, lambda: {callee if isinstance(callee, str) else node.name}(...))"
        raise trace_error(
            "W016", f"{display_text(expression)} is used already, as if it were sure to be there", hint=hint
        )
    node.guards, node.own_guard_count = (*node.guards, guard), node.own_guard_count + 1
    return Maybe(rename_to_variable(expression)._expression)


@contextmanager
def _add_guards(scope: TraceScope, guards: tuple[NodeGuard, ...]) -> Iterator[None]:
    """Guards all nodes that are added inside the block."""
    before = scope.guards
    scope.guards = (*before, *guards)
    try:
        yield
    finally:
        scope.guards = before


def _not_a_call_error(then: Any, expression: PendingExpression) -> Exception:
    text = repr(then) if not contains_placeholder(then) else display_text(expression)
    if expression.needs and contains_placeholder(then):
        hint = "when(condition, lambda: ...) guards every call in the lambda"
        return trace_error("W016", f"when() guards the result of one call, and {text} is not one", hint=hint)
    return trace_error("W016", f"when() guards calls, and {text} calls nothing", hint=f"choose(condition, {text}, ...)")


@overload
def first_of(a: Maybe[A], /, *, otherwise: Callable[[], E]) -> A | E: ...
@overload
def first_of(a: Maybe[A], b: Maybe[B], /, *, otherwise: Callable[[], E]) -> A | B | E: ...
@overload
def first_of(a: Maybe[A], b: Maybe[B], c: Maybe[C], /, *, otherwise: Callable[[], E]) -> A | B | C | E: ...
@overload
def first_of(
    a: Maybe[A], b: Maybe[B], c: Maybe[C], d: Maybe[D], /, *rest: Maybe[D], otherwise: Callable[[], E]
) -> A | B | C | D | E: ...
@overload
def first_of(a: Maybe[A], /, *, otherwise: E = ...) -> A | E: ...
@overload
def first_of(a: Maybe[A], b: Maybe[B], /, *, otherwise: E = ...) -> A | B | E: ...
@overload
def first_of(a: Maybe[A], b: Maybe[B], c: Maybe[C], /, *, otherwise: E = ...) -> A | B | C | E: ...
@overload
def first_of(
    a: Maybe[A], b: Maybe[B], c: Maybe[C], d: Maybe[D], /, *rest: Maybe[D], otherwise: E = ...
) -> A | B | C | D | E: ...
def first_of(*options: Any, otherwise: Any = _UNSET) -> Any:
    """Returns the first option, in written order, that has a value.

    `otherwise=lambda: writer(...)` is called only if no option has a value: every `when` was false, or the value was
    withheld or failed. `otherwise=writer(...)` is an argument, so the writer always runs; a tool with effects is
    refused there (W029). Without `otherwise` there may be no value, and the result can only be returned from the
    workflow.
    """
    scope = require_scope("first_of")
    options = (
        *options,
        *(() if otherwise is _UNSET or is_lazy(otherwise) else (reject_effects(otherwise, "otherwise"),)),
    )
    arms = [_arm_template(option) for option in options]
    unsure, last = otherwise is _UNSET, otherwise
    guards: tuple[NodeGuard, ...] = ()
    if is_lazy(otherwise):
        last, guards = _trace_otherwise(scope, options, otherwise)
        unsure = type(last) is Maybe or any(
            "checks" in node.fields and "fallback" not in node.fields for node in _read_nodes(last)
        )
        arms.append(_arm_template(last))
    draft = scope.add_node(
        FirstOfNode,
        "first",
        union_type([_constant_type(schema) for _, schema in arms]),
        first_of=tuple(arm for arm, _ in arms),
    )
    if unsure and not (len(options) > 1 and _is_exhaustive(scope, options)):
        draft.presence = NodePresence.OPTIONAL
    elif otherwise is not _UNSET:
        draft.presence = presence_of(_read_nodes(last), (*scope.active_guards, *guards))
    return Placeholder(node_value(draft, scope))


def _arm_template(option: Any) -> tuple[Any, Schema]:
    if type(option) is Maybe and option._is_list:
        raise missing_error(option)
    return template_with_type(
        Placeholder(replace(option._expression, needs=frozenset())) if type(option) is Maybe else option
    )


def is_lazy(given: Any) -> bool:
    """Whether it is a function of an alternative: `lambda: writer(...)`."""
    return type(given) not in (Placeholder, Maybe) and (isfunction(given) or ismethod(given))


def _trace_otherwise(
    scope: TraceScope, options: tuple[Any, ...], then: Callable[[], Any]
) -> tuple[Any, tuple[NodeGuard, ...]]:
    """Traces an alternative under the guard that no option has a value. Returns a plain value if it calls nothing."""
    if sure := [option for option in options if not _read_nodes(option)]:
        text = display_text(lift(sure[0]))
        hint = f"or_else({text}, ...), or first_of(when(condition, lambda: ...), otherwise=lambda: ...)"
        raise trace_error(
            "W016", f"{text} is sure to be there, so `otherwise=lambda: ...` would never be called", hint=hint
        )
    unconditional_options = [option for option in options if not _is_conditional(scope, option)]
    guards = tuple(_negated_guard(scope, option) for option in options if _is_conditional(scope, option))
    if unconditional_options:
        guards += (_absence_guard(scope, unconditional_options),)
    before = len(scope.nodes)
    with _add_guards(scope, guards):
        last = trace(then)
        expression = peek(last)
    traced_nodes = frozenset(node for node in expression.needs if any(guard in node.guards for guard in guards))
    if not traced_nodes and type(last) is not Maybe and len(unconditional_options) < len(options):
        return _guarded_value(scope, last, guards), guards
    if unconditional_options and len(scope.nodes) == before:
        scope.release_name(scope.nodes.pop().name)
    if type(last) is Maybe or not contains_placeholder(last) or not traced_nodes:
        return last, guards
    return Placeholder(replace(expression, needs=expression.needs - traced_nodes)), guards


def _guarded_value(scope: TraceScope, value: Any, guards: tuple[NodeGuard, ...]) -> Placeholder:
    """Returns a value that exists only under these guards, so that it does not replace an arm that failed."""
    with _add_guards(scope, guards):
        text, schema = template_with_type(value)
        draft = scope.add_node(FirstOfNode, "other", _constant_type(schema), name="other", first_of=(text,))
        draft.is_used, draft.presence = True, presence_of(_read_nodes(value), scope.active_guards)
    return Placeholder(replace(node_value(draft, scope), needs=frozenset()))


def _read_nodes(option: Any) -> list[TracedNode]:
    """Returns the nodes that an option reads, by name."""
    reads = option._expression.reads if type(option) in (Placeholder, Maybe) else ()
    return sorted(
        (variable for variable in reads if isinstance(variable, TracedNode)), key=lambda traced_node: traced_node.name
    )


def _own_guards(scope: TraceScope, option: Any) -> tuple[NodeGuard, ...] | None:
    """Returns the guards of an option beyond those of its scope; None if it may be missing for another reason."""
    guard_set, guards = scope.active_guards, dict[NodeGuard, None]()
    for node in _read_nodes(option):
        if not (guards_hold(guard_set, node.guards) and always_present(node)):
            return None
        guards |= dict.fromkeys(guard for guard in node.guards if not guards_hold([guard], guard_set))
    return tuple(guards)


def _is_conditional(scope: TraceScope, option: Any) -> bool:
    """Whether an option exists, unless it fails, exactly under conditions that can be evaluated here."""
    if type(option) is not Maybe or not (guards := _own_guards(scope, option)):
        return False
    if any("fallback" in node.fields for node in _read_nodes(option)):
        return False  # It may also exist if its conditions do not hold.
    reads = [variable for guard in guards for variable in guard.reads if isinstance(variable, TracedNode)]
    return all(
        guards_hold(traced_node.guards, scope.active_guards) and always_present(traced_node, NodePresence.IF_ANSWERED)
        for traced_node in reads
    )


def _negated_guard(scope: TraceScope, option: Any) -> NodeGuard:
    guards = _own_guards(scope, option) or ()
    for guard in guards:
        for variable in guard.reads:
            if isinstance(variable, TracedNode):
                variable.is_used = True
    reads = frozenset[Variable]().union(*(guard.reads for guard in guards))
    return NodeGuard(negate([(guard.cel, guard.precedence) for guard in guards]), PRECEDENCE["!"], reads)


def _absence_guard(scope: TraceScope, options: list[Any]) -> NodeGuard:
    """Returns the guard that no option exists."""
    names_by_option = [[node.name for node in _read_nodes(option)] for option in options]
    for option in options:
        for node in _read_nodes(option):
            node.is_used = True
    name = "has_" + "_or_".join(dict.fromkeys(name for names in names_by_option for name in names))
    arms = (*(f"${{{presence_test(names)}}}" for names in names_by_option), False)
    draft = scope.add_node(FirstOfNode, "has", {"type": "boolean"}, name=name, first_of=arms)
    draft.is_used = True
    return NodeGuard(f"!{draft.name}", PRECEDENCE["!"], frozenset({draft}))


def _is_exhaustive(scope: TraceScope, options: tuple[Any, ...]) -> bool:
    """Whether the last option exists if no earlier one does."""
    arms = []
    for option in options:
        nodes = _read_nodes(option)
        guards = dict.fromkeys(guard for node in nodes for guard in node.guards)
        sure = all(always_present(node, NodePresence.IF_ANSWERED) for node in nodes)
        arms.append(
            (frozenset(node.name for node in nodes), parse_conditions(guard.cel for guard in guards) if sure else None)
        )
    choices = {node.name: node.fields["first_of"] for node in scope.nodes if node.kind is FirstOfNode}
    around = parse_conditions(guard.cel for guard in scope.active_guards)
    return around is not None and covers(around, arms, choices.get)


def with_fallback(draft: TracedNode, scope: TraceScope, then: Callable[[], Any]) -> Any:
    """Returns the value of a node or, if it has none, of a traced function: `fallback=lambda: writer(...)`."""
    first: Any = first_of(Maybe[Any](node_value(draft, scope)), otherwise=then)
    first._expression.node.fallback_for = draft.name
    return first


def _constant_type(schema: Schema) -> Schema:
    """Widens the type of a constant, so that a choice of texts is a text."""
    if "const" not in schema or isinstance(schema["const"], dict | list):
        return schema
    return {"const": schema["const"], "type": TYPE_NAMES[type(schema["const"])]}
