"""Choices: values that are there only where a condition holds, and what stands in for them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from inspect import isfunction, ismethod
from typing import Any, Never, cast, overload

from typing_extensions import TypeVar

from orchestra.schema.json_schema import TYPE_NAMES
from orchestra.schema.types import Schema
from orchestra.workflows.expressions.coverage import asking, conditions, contrary, covers
from orchestra.workflows.model import FirstOfNode
from orchestra.workflows.python.conditions import boolean, once
from orchestra.workflows.python.pending import RANKS, Wired, guard_of, node_value, said, together
from orchestra.workflows.python.placeholders import Guarded, Placeholder, holds, lift, missing, peek, renamed, template
from orchestra.workflows.python.presence import firm, holds_under, presence
from orchestra.workflows.python.scopes import Draft, Guard, Presence, Scope, Variable, current, fault, traced

T = TypeVar("T")
A = TypeVar("A")
B = TypeVar("B")
C = TypeVar("C")
D = TypeVar("D")
E = TypeVar("E", default=Never)

_NOTHING: Any = object()


def needed(value: Guarded[T], /) -> T:
    """Takes a value that may be missing as if it were there. Where it is missing, whatever uses it is skipped or withheld too."""
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
        with _guarding(scope, (guard,)):
            then = traced(then)
            wired = peek(then)
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
    if node.instead:
        hint = "when(condition, lambda: ...) guards every call in the lambda"
        raise fault("W016", f"{said(wired)} is a call and what stands in for it, and when() guards one call", hint=hint)
    if node.used:
        called = node.fields.get("agent") or node.fields.get("tool")
        hint = f"when(condition, lambda: {called if isinstance(called, str) else node.name}(...))"
        raise fault("W016", f"{said(wired)} is used already, as if it were sure to be there", hint=hint)
    node.guards, node.own = (*node.guards, guard), node.own + 1
    return Guarded(renamed(wired)._wired)


@contextmanager
def _guarding(scope: Scope, guards: tuple[Guard, ...]) -> Iterator[None]:
    """Guards every node that is described meanwhile."""
    before = scope.guards
    scope.guards = (*before, *guards)
    try:
        yield
    finally:
        scope.guards = before


def _not_called(then: Any, wired: Wired) -> Exception:
    text = repr(then) if not holds(then) else said(wired)
    if wired.needs and holds(then):
        hint = "when(condition, lambda: ...) guards every call in the lambda"
        return fault("W016", f"when() guards the result of one call, and {text} is not one", hint=hint)
    return fault("W016", f"when() guards calls, and {text} calls nothing", hint=f"choose(condition, {text}, ...)")


@overload
def first_of(a: Guarded[A], /, *, otherwise: Callable[[], E]) -> A | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], /, *, otherwise: Callable[[], E]) -> A | B | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], c: Guarded[C], /, *, otherwise: Callable[[], E]) -> A | B | C | E: ...
@overload
def first_of(
    a: Guarded[A], b: Guarded[B], c: Guarded[C], d: Guarded[D], /, *rest: Guarded[D], otherwise: Callable[[], E]
) -> A | B | C | D | E: ...
@overload
def first_of(a: Guarded[A], /, *, otherwise: E = ...) -> A | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], /, *, otherwise: E = ...) -> A | B | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], c: Guarded[C], /, *, otherwise: E = ...) -> A | B | C | E: ...
@overload
def first_of(a: Guarded[A], b: Guarded[B], c: Guarded[C], d: Guarded[D], /, *rest: Guarded[D], otherwise: E = ...) -> A | B | C | D | E: ...
def first_of(*options: Any, otherwise: Any = _NOTHING) -> Any:
    """The first option that has a value, in the order written.

    `otherwise=lambda: writer(...)` is called only if no option has one: every `when` was false, or the value was withheld or failed.
    `otherwise=writer(...)` is an argument, so the writer runs every time; for a tool with effects that is refused (W029). Without
    `otherwise` there may be no value at all, and the result can only be returned from the workflow.
    """
    scope = current("first_of")
    options = (*options, *(() if otherwise is _NOTHING or lazy(otherwise) else (once(otherwise, "otherwise"),)))
    arms = [_arm(option) for option in options]
    unsure, last = otherwise is _NOTHING, otherwise
    guards: tuple[Guard, ...] = ()
    if lazy(otherwise):
        last, guards = _instead(scope, options, otherwise)
        unsure = type(last) is Guarded or any("checks" in node.fields and "fallback" not in node.fields for node in _nodes(last))
        arms.append(_arm(last))
    draft = scope.add(FirstOfNode, "first", together([_plain(schema) for _, schema in arms]), first_of=tuple(arm for arm, _ in arms))
    if unsure and not (len(options) > 1 and _covered(scope, options)):
        draft.presence = Presence.OPEN
    elif otherwise is not _NOTHING:
        draft.presence = presence(_nodes(last), (*scope.standing, *guards))
    return Placeholder(node_value(draft, scope))


def _arm(option: Any) -> tuple[Any, Schema]:
    if type(option) is Guarded and option._mapped:
        raise missing(option)
    return template(Placeholder(replace(option._wired, needs=frozenset())) if type(option) is Guarded else option)


def lazy(given: Any) -> bool:
    """Whether it is a function that describes what stands in: `lambda: writer(...)`."""
    return type(given) not in (Placeholder, Guarded) and (isfunction(given) or ismethod(given))


def _instead(scope: Scope, options: tuple[Any, ...], then: Callable[[], Any]) -> tuple[Any, tuple[Guard, ...]]:
    """What a function gives, called where none of the options is there, and what says so; a plain value where it calls nothing."""
    if sure := [option for option in options if not _nodes(option)]:
        text = said(lift(sure[0]))
        hint = f"or_else({text}, ...), or first_of(when(condition, lambda: ...), otherwise=lambda: ...)"
        raise fault("W016", f"{text} is sure to be there, so `otherwise=lambda: ...` would never be called", hint=hint)
    asked = [option for option in options if not _conditional(scope, option)]
    guards = tuple(_contrary(scope, option) for option in options if _conditional(scope, option))
    if asked:
        guards += (_asking(scope, asked),)
    before = len(scope.nodes)
    with _guarding(scope, guards):
        last = traced(then)
        wired = peek(last)
    own = frozenset(node for node in wired.needs if any(guard in node.guards for guard in guards))
    if not own and type(last) is not Guarded and len(asked) < len(options):
        return _other(scope, last, guards), guards
    if asked and len(scope.nodes) == before:
        scope.free(scope.nodes.pop().name)
    if type(last) is Guarded or not holds(last) or not own:
        return last, guards
    return Placeholder(replace(wired, needs=wired.needs - own)), guards


def _other(scope: Scope, value: Any, guards: tuple[Guard, ...]) -> Placeholder:
    """A value that is there under these guards only, so that it does not stand in for an arm that failed."""
    with _guarding(scope, guards):
        text, schema = template(value)
        draft = scope.add(FirstOfNode, "other", _plain(schema), name="other", first_of=(text,))
        draft.used, draft.presence = True, presence(_nodes(value), scope.standing)
    return Placeholder(replace(node_value(draft, scope), needs=frozenset()))


def _nodes(option: Any) -> list[Draft]:
    """The nodes that an option reads, by name."""
    reads = option._wired.reads if type(option) in (Placeholder, Guarded) else ()
    return sorted((read for read in reads if isinstance(read, Draft)), key=lambda one: one.name)


def _own(scope: Scope, option: Any) -> tuple[Guard, ...] | None:
    """What guards an option beside all that guards the place; None where it may be missing for another reason."""
    standing, found = scope.standing, dict[Guard, None]()
    for node in _nodes(option):
        if not (holds_under(standing, node.guards) and firm(node)):
            return None
        found |= dict.fromkeys(guard for guard in node.guards if not holds_under([guard], standing))
    return tuple(found)


def _conditional(scope: Scope, option: Any) -> bool:
    """Whether an option is there, failures apart, exactly where conditions hold that can be asked here."""
    if type(option) is not Guarded or not (guards := _own(scope, option)):
        return False
    if any("fallback" in node.fields for node in _nodes(option)):
        return False  # it is there where its conditions do not hold, too
    reads = [read for guard in guards for read in guard.reads if isinstance(read, Draft)]
    return all(holds_under(read.guards, scope.standing) and firm(read, Presence.ANSWERED) for read in reads)


def _contrary(scope: Scope, option: Any) -> Guard:
    guards = _own(scope, option) or ()
    for guard in guards:
        for read in guard.reads:
            if isinstance(read, Draft):
                read.used = True
    reads = frozenset[Variable]().union(*(guard.reads for guard in guards))
    return Guard(contrary([(guard.cel, guard.rank) for guard in guards]), RANKS["!"], reads)


def _asking(scope: Scope, options: list[Any]) -> Guard:
    """The condition that none of the options is there: a node tells whether one is."""
    asked = [[node.name for node in _nodes(option)] for option in options]
    for option in options:
        for node in _nodes(option):
            node.used = True
    name = "has_" + "_or_".join(dict.fromkeys(name for names in asked for name in names))
    arms = (*(f"${{{asking(names)}}}" for names in asked), False)
    draft = scope.add(FirstOfNode, "has", {"type": "boolean"}, name=name, first_of=arms)
    draft.used = True
    return Guard(f"!{draft.name}", RANKS["!"], frozenset({draft}))


def _covered(scope: Scope, options: tuple[Any, ...]) -> bool:
    """Whether the last of the options is there where no earlier one is."""
    arms = []
    for option in options:
        nodes = _nodes(option)
        guards = dict.fromkeys(guard for node in nodes for guard in node.guards)
        sure = all(firm(node, Presence.ANSWERED) for node in nodes)
        arms.append((frozenset(node.name for node in nodes), conditions(guard.cel for guard in guards) if sure else None))
    choices = {one.name: one.fields["first_of"] for one in scope.nodes if one.kind is FirstOfNode}
    around = conditions(guard.cel for guard in scope.standing)
    return around is not None and covers(around, arms, choices.get)


def standing_in(draft: Draft, scope: Scope, then: Callable[[], Any]) -> Any:
    """The value of a node, or, where it has none, what a function describes: `fallback=lambda: writer(...)`."""
    first: Any = first_of(Guarded[Any](node_value(draft, scope)), otherwise=then)
    first._wired.node.instead = draft.name
    return first


def _plain(schema: Schema) -> Schema:
    """The type of a constant, so that a choice of texts is a text."""
    if "const" not in schema or isinstance(schema["const"], dict | list):
        return schema
    return {"const": schema["const"], "type": TYPE_NAMES[type(schema["const"])]}
