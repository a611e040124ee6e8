"""Choices: values that are there only where a condition holds, and what stands in for them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Never, cast, overload

from typing_extensions import TypeVar

from orchestra.values.types import Schema
from orchestra.workflow.conditions import boolean
from orchestra.workflow.nodes import FirstOfNode
from orchestra.workflow.pending import JSON_TYPES, Wired, guard_of, node_value, said, together
from orchestra.workflow.placeholders import Guarded, Placeholder, holds, lift, missing, peek, renamed, template
from orchestra.workflow.scopes import current, fault, traced

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E", default=Never)

_NOTHING: Any = object()


def needed(value: Guarded[T], /) -> T:
    """A value that may be missing, where nothing stands in for it: what uses it is skipped, or withheld, with it."""
    given: Any = value
    if type(given) is not Guarded:
        return value  # type: ignore[return-value]  # it is sure to be there
    if given._mapped:
        raise missing(given)
    return cast(T, renamed(replace(given._wired, needs=frozenset())))


@overload
def when(condition: bool, then: Callable[[], Guarded[T]], /) -> Guarded[T]: ...
@overload
def when(condition: bool, then: Guarded[T], /) -> Guarded[T]: ...
@overload
def when(condition: bool, then: Callable[[], T], /) -> Guarded[T]: ...
@overload
def when(condition: bool, then: T, /) -> Guarded[T]: ...
def when(condition: Any, then: Any, /) -> Any:
    """A value that is there only where a condition holds.

    `when(c, reader(...))` guards that one call; what its arguments call runs anyway. `when(c, lambda: ...)` guards every call
    in the lambda. Raises `InputError` W015 for a condition that is known now, W016 for what is no call.
    """
    scope = current("when")
    if not holds(condition):
        raise fault("W015", f"this condition is known now: {condition!r}", hint="x = a if flag else b")
    guard = guard_of(boolean(lift(condition), "when"))
    if type(then) not in (Placeholder, Guarded) and callable(then):
        before = scope.guards
        scope.guards = (*before, guard)
        try:
            then = traced(then)
            wired = peek(then)
        finally:
            scope.guards = before
        if type(then) is Guarded and then._mapped:
            raise missing(then)
        if not any(guard in node.guards for node in wired.needs):
            raise _not_called(then, wired)
        return Guarded(renamed(wired)._wired)
    wired = peek(then)
    if type(then) is Guarded and then._mapped:
        raise missing(then)
    node = wired.node
    if node is None or node.scope is not scope or wired.cel not in (node.name, f"{node.name}.values"):
        raise _not_called(then, wired)
    if node.used:
        called = node.fields.get("agent") or node.fields.get("tool")
        hint = f"when(condition, lambda: {called if isinstance(called, str) else node.name}(...))"
        raise fault("W016", f"{said(wired)} is used already, as if it were sure to be there", hint=hint)
    node.guards, node.own = (*node.guards, guard), node.own + 1
    return Guarded(renamed(wired)._wired)


def _not_called(then: Any, wired: Wired) -> Exception:
    text = repr(then) if not holds(then) else said(wired)
    if wired.needs and holds(then):
        hint = "when(condition, lambda: ...) guards every call in the lambda"
        return fault("W016", f"when() guards the result of one call, and {text} is not one", hint=hint)
    return fault("W016", f"when() guards calls, and {text} calls nothing", hint=f"choose(condition, {text}, ...)")


@overload
def first_of(a: Guarded[A], /, *, otherwise: E = ...) -> A | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], /, *, otherwise: E = ...) -> A | B | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], c: Guarded[C], /, *, otherwise: E = ...) -> A | B | C | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], c: Guarded[C], d: Guarded[D], /, *rest: Guarded[D], otherwise: E = ...) -> A | B | C | D | E: ...
def first_of(*options: Any, otherwise: Any = _NOTHING) -> Any:
    """The first of its options that is there, in written order; `otherwise` is the sure last one.

    Without `otherwise` the value is missing where all options are: then it can only be what the workflow returns.
    """
    scope = current("first_of")
    arms: list[Any] = []
    schemas: list[Schema] = []
    for option in (*options, *(() if otherwise is _NOTHING else (otherwise,))):
        if type(option) is Guarded and option._mapped:
            raise missing(option)
        arm, schema = template(Placeholder(replace(option._wired, needs=frozenset())) if type(option) is Guarded else option)
        arms.append(arm)
        schemas.append(schema)
    draft = scope.add(FirstOfNode, "first", together([*map(_plain, schemas)]), first_of=tuple(arms))
    draft.unsure = otherwise is _NOTHING
    return Placeholder(node_value(draft, scope))


def _plain(schema: Schema) -> Schema:
    """The type of a constant, so that a choice of texts is a text."""
    if "const" not in schema or isinstance(schema["const"], dict | list):
        return schema
    return {"const": schema["const"], "type": JSON_TYPES[type(schema["const"])]}
