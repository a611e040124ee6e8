"""Conditions and small computations over values that are not known yet; over known ones they are plain Python."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Sized
from typing import Any, TypeVar, cast

from orchestra.workflows.expressions.temporal import AS_TEXTS, misread
from orchestra.workflows.expressions.type_checker import kinds
from orchestra.workflows.python.errors import Spot, user_spot
from orchestra.workflows.python.pending import ATOM, RANKS, Wired, express, floating, said
from orchestra.workflows.python.placeholders import Guarded, Placeholder, holds, lift
from orchestra.workflows.python.presence import read_by
from orchestra.workflows.python.printer import typed
from orchestra.workflows.python.scopes import Draft, Scope, being_read, fault, place, tracing
from orchestra.workflows.python.suggestions import Position, encloses

T = TypeVar("T")
U = TypeVar("U")


def all_of(first: bool, /, *more: bool) -> bool:
    """Whether all conditions hold."""
    return _logic("&&", first, more)


def any_of(first: bool, /, *more: bool) -> bool:
    """Whether one of the conditions holds."""
    return _logic("||", first, more)


def _logic(op: str, first: Any, more: Sequence[Any]) -> bool:
    if not holds([first, *more]):
        return all((first, *more)) if op == "&&" else any((first, *more))
    conditions = [boolean(lift(one), "all_of" if op == "&&" else "any_of") for one in (first, *more)]
    if len(conditions) == 1:
        return cast(bool, Placeholder(conditions[0]))
    pattern = f" {op} ".join(f"{{{index}}}" for index in range(len(conditions)))
    return cast(bool, Placeholder(express(pattern, RANKS[op], *conditions, bracket=RANKS[op] + 1)))


def not_(condition: bool, /) -> bool:
    """Whether a condition does not hold."""
    if not holds(condition):
        return not condition
    return cast(bool, Placeholder(express("!{0}", RANKS["!"], boolean(lift(condition), "not_"), bracket=RANKS["!"])))


def length(items: Sized, /) -> int:
    """How many elements a list has, or characters a text."""
    if not holds(items):
        return len(items)
    wired = lift(items)
    if not wired.unknown and not kinds(wired.schema) <= {"list", "map", "str"}:
        hint = f"or_else({said(wired)}, ...) says what stands in for None" if "null" in kinds(wired.schema) else ""
        raise fault("W008", f"{said(wired)} is {typed(wired.schema)}: it has no length", hint=hint)
    return cast(int, Placeholder(express("size({0})", ATOM, wired, bracket=0)))


def present(value: object, /) -> bool:
    """Whether a value is not None."""
    if not holds(value):
        return value is not None
    wired = lift(value)
    if not wired.unknown and not kinds(wired.schema) & {"null", "any"}:
        raise fault("W008", f"{said(wired)} is {typed(wired.schema)}: it is never None", hint="leave present() out")
    return cast(bool, Placeholder(express("{0} != null", RANKS["!="], wired, bracket=RANKS["!="] + 1)))


def or_else(value: T | None, default: U, /) -> T | U:
    """A value, or what stands in for None."""
    if not holds([value, default]):
        return default if value is None else value
    wired, other = lift(value), lift(default)
    if not wired.unknown and not kinds(wired.schema) & {"null", "any"}:
        raise fault("W008", f"{said(wired)} is {typed(wired.schema)}: it is never None", hint="leave or_else() out")
    wired, other = _alike(wired, other)
    made = express("{0} != null ? {0} : {1}", RANKS["?"], wired, other, bracket=RANKS["!="] + 1)
    return cast("T | U", Placeholder(made))


def contains(items: Sequence[T], item: T, /) -> bool:
    """Whether a list has an element, or a text has a part."""
    if not holds([items, item]):
        return item in items
    wired, one = lift(items), lift(item)
    if what := misread("in", one.schema, wired.schema):
        raise fault("W008", f"contains() would take {what} as a text", hint="do it in a @tool(effect='pure')", why=AS_TEXTS)
    if not wired.unknown and kinds(wired.schema) == {"str"}:
        return cast(bool, Placeholder(express("{0}.contains({1})", ATOM, wired, one)))
    if not wired.unknown and not kinds(wired.schema) <= {"list", "map", "any"}:
        raise fault("W008", f"{said(wired)} is {typed(wired.schema)}, and no list", hint="contains(items, item)")
    made = express("{1} in {0}", RANKS["in"], wired, one, bracket=RANKS["in"] + 1)
    return cast(bool, Placeholder(made))


def choose(condition: bool, then: T, otherwise: U, /) -> T | U:
    """One of two values. Both are computed before; to choose between calls, `first_of(when(...), ...)`."""
    if not holds(condition):
        return then if condition else otherwise
    for value in (then, otherwise):
        once(value, "choose", "first_of(when(condition, lambda: ...), otherwise=lambda: ...)")
    first, second = _alike(lift(then), lift(otherwise))
    made = express("{0} ? {1} : {2}", RANKS["?"], boolean(lift(condition), "choose"), first, second, bracket=RANKS["?"] + 1)
    return cast("T | U", Placeholder(made))


def _alike(first: Wired, second: Wired) -> tuple[Wired, Wired]:
    """Two numbers as floats, where one of them is one."""
    if kinds(first.schema) | kinds(second.schema) == {"int", "float"}:
        return floating(first, kinds(first.schema)), floating(second, kinds(second.schema))
    return first, second


def as_text(value: str | int | float | bool, /) -> str:
    """A number, a condition or a text as text."""
    if not holds(value):
        return str(value).lower() if isinstance(value, bool) else str(value)
    wired = lift(value)
    if not wired.unknown and not kinds(wired.schema) <= {"str", "int", "float", "bool"}:
        text = said(wired)
        hint = f"or_else({text}, '')" if "null" in kinds(wired.schema) else f"a field of it; or a @tool(effect='pure') that writes {text}"
        raise fault("W008", f"{text} is {typed(wired.schema)}: it has no text of its own", hint=hint)
    return cast(str, Placeholder(express("string({0})", ATOM, wired, bracket=0)))


def once(given: Any, word: str, hint: str = "") -> Any:
    """One of several values, evaluated already. Raises `InputError` W029 for one that a call with effects makes within the expression."""
    if (made := _made_here(given)) is not None:
        called, by, kind = made
        place = f"{word}={by}(...)" if not hint else f"{by}(...) in {word}"
        raise fault(
            "W029",
            f"{called} has effects ({kind}), and {place} runs it whatever happens",
            hint=hint or f"{word}=lambda: {by}(...)",
            why="arguments come before the call: it is no branch, but a value that is made in any case",
        )
    return given


def _made_here(given: Any) -> tuple[str, str, str] | None:
    """What has effects of all that a value is made of, if it is called within the present expression, under no condition of its own: its
    name, what is called there, which may be a function of the user's that calls it, and the effect."""
    scope, here = tracing(), user_spot()
    if scope is None or not (line := [*_read(given)]):
        return None
    outer, standing, seen = place(here), scope.standing, {*line}
    while line:
        node = line.pop()
        way = _way(node, here, outer) if node.guards == standing else None
        if way is None:
            continue
        if (kind := _effect(node, scope)) != "pure":
            callee = node.fields.get("tool") or node.fields.get("call")
            called = callee if isinstance(callee, str) else node.name
            by = way[-1].code.co_name if way else called
            return called, by if by.isidentifier() else called, kind
        more = [read for read in read_by(node.fields, scope) if read not in seen]
        seen.update(more)
        line += more
    return None


def _way(node: Draft, here: Spot, outer: Position) -> tuple[Spot, ...] | None:
    """The functions of the user's by which a node is called within an expression, innermost first; None where it is not."""
    for depth, spot in enumerate(node.spots):
        if spot.code is here.code and encloses(outer, place(spot)):
            return node.spots[:depth]
    return None


def _effect(node: Draft, scope: Scope) -> str:
    """The effect of what a node calls, of what is called in its body, and in the function of a workflow that it calls."""
    if node.effect != "pure":
        return node.effect
    name = node.fields.get("call")
    steps = [step for step in scope.root.steps if step.kind == "call" and step.name == name] if isinstance(name, str) else []
    found = (_acting(step) for step in steps[-1:])
    return next((kind for kind in (*found, *(_effect(one, scope) for one in node.inner)) if kind != "pure"), "pure")


def _acting(step: Any) -> str:
    """An effect of a step; of a workflow's function, of what it calls. None is known of a file, nor of a function that is being read."""
    waiting, seen = [step], set[int]()
    while waiting:
        one = waiting.pop()
        if one.kind != "call":
            if (kind := str(getattr(one, "effect", "pure"))) != "pure":
                return kind
        elif id(one) not in seen and one.function is not None and not being_read(one.function):
            seen.add(id(one))
            waiting += one.steps
    return "pure"


def _read(given: Any) -> Iterator[Draft]:
    """The nodes that a value reads, those of its elements included."""
    if type(given) in (Placeholder, Guarded):
        yield from (read for read in given._wired.reads if isinstance(read, Draft))
    elif isinstance(given, Mapping | list | tuple):
        for inner in given.values() if isinstance(given, Mapping) else given:
            yield from _read(inner)


def boolean(wired: Wired, word: str) -> Wired:
    """An expression that is a condition for `word`. Raises `InputError` W008 for one of another type."""
    if not wired.unknown and not kinds(wired.schema) <= {"bool", "any"}:
        text = said(wired)
        null = "null" in kinds(wired.schema)
        hint = f"or_else({text}, False)" if kinds(wired.schema) == {"bool", "null"} else f"present({text})" if null else f"{text} == ..."
        raise fault("W008", f"{word} takes a condition, and {text} is {typed(wired.schema)}", hint=hint)
    return wired
