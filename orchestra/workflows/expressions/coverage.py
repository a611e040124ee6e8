"""Covering: whether one arm of a `first_of` is there whatever happens, because the last one runs where no earlier one does.

Two forms say so. The last arm's condition is the contrary of an earlier one's, as an `else` is of its `if`:

    refused: {tool: refuse, when: "${input.n > 3}"}
    paid: {tool: pay, when: "${!(input.n > 3)}"}
    done: {first_of: ["${refused}", "${paid}"]}

Or it asks whether an earlier one is there, which a choice with a sure last arm can tell:

    has_short: {first_of: ["${size([short]) > 0}", false]}
    long: {agent: writer, when: "${!has_short}"}
    text: {first_of: ["${short}", "${long}"]}
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeAlias

from orchestra.workflows.expressions.parser import Binary, Call, ListOf, Literal, Logic, Name, NotCEL, Tree, Unary, parse, reference
from orchestra.workflows.python.printer import shape

Conditions: TypeAlias = tuple[Tree, ...]
"""All of them must hold, in written order."""
Arm: TypeAlias = tuple[frozenset[str], Conditions | None]
"""The names that an arm reads, and the conditions under which all of them are there, failures apart; None where that is not known."""


def conditions(texts: Iterable[str]) -> Conditions | None:
    """The conditions that texts of CEL say together; None where one is no CEL."""
    found: list[Tree] = []
    try:
        for text in texts:
            found += _split(parse(text))
    except NotCEL:
        return None
    return tuple(found)


def of_when(when: str | None) -> Conditions | None:
    """The conditions of a node's `when`; none where it has none, None where they are not known."""
    if when is None:
        return ()
    return conditions([inside]) if (inside := reference(when)) is not None else None


def together(parts: Iterable[Conditions | None]) -> Conditions | None:
    """All of several conditions, each once; None where one is not known."""
    found: dict[object, Tree] = {}
    for part in parts:
        if part is None:
            return None
        for one in part:
            found.setdefault(shape(one), one)
    return tuple(found.values())


def contrary(texts: Sequence[tuple[str, int]]) -> str:
    """CEL that says that not all of these hold; each has its rank."""
    if len(texts) == 1:
        text, rank = texts[0]
        return f"!{text}" if rank > 7 else f"!({text})"
    return "!(" + " && ".join(text if rank > 2 else f"({text})" for text, rank in texts) + ")"


def asking(names: Iterable[str]) -> str:
    """CEL that is true where these have values, and has none elsewhere."""
    return f"size([{', '.join(names)}]) > 0"


def covers(around: Conditions, arms: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether an arm is there wherever the conditions `around` hold. `choice` gives the arms of the `first_of` of a name, as templates."""
    *before, (_, last) = arms
    if last is None:
        return False
    held = {shape(one) for one in around}
    for one in last:
        if shape(one) in held:
            continue
        if not _instead(one, held, before, choice):
            return False
        held.add(shape(one))
    return True


def _instead(one: Tree, held: set[object], before: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether an earlier arm is there where this condition does not hold, though those before it do."""
    if isinstance(one, Unary) and one.op == "!" and isinstance(one.of, Name) and (asked := choice(one.of.name)) is not None:
        there = [_asked(template) for template in asked[:-1]]
        if asked[-1] is False and all(names is not None and any(reads <= names for reads, _ in before) for names in there):
            return True
    other = _split(one.of) if isinstance(one, Unary) and one.op == "!" else (Unary("!", one, one.at, one.end),)
    known = held | {shape(part) for part in other}
    return any(wanted is not None and {shape(part) for part in wanted} <= known for _, wanted in before)


def asked_of(given: Conditions, choice: Callable[[str], Sequence[Any] | None]) -> Iterator[str]:
    """The names of which these conditions ask whether they are there, and hold where they are not."""
    for one in given:
        if isinstance(one, Unary) and one.op == "!" and isinstance(one.of, Name) and (asked := choice(one.of.name)) and asked[-1] is False:
            for template in asked[:-1]:
                yield from sorted(_asked(template) or ())


def _asked(template: Any) -> frozenset[str] | None:
    """The names that `asking` was given; None for another template."""
    match of_when(template) if isinstance(template, str) else None:
        case (Binary(">", Call("size", None, (ListOf(items),)), Literal(0)),) if items and all(isinstance(item, Name) for item in items):
            return frozenset(item.name for item in items if isinstance(item, Name))
        case _:
            return None


def _split(tree: Tree) -> Conditions:
    match tree:
        case Logic("&&", items):
            return tuple(part for item in items for part in _split(item))
        case Unary("!", Unary("!", of)):
            return _split(of)
        case _:
            return (tree,)
