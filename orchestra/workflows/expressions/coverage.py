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

from orchestra.workflows.expressions.parser import (
    CelBinary,
    CelCall,
    CelList,
    CelLiteral,
    CelLogic,
    CelName,
    CelSyntaxError,
    CelTree,
    CelUnary,
    parse,
    sole_reference,
)
from orchestra.workflows.python.printer import without_positions

Conditions: TypeAlias = tuple[CelTree, ...]
"""All of them must hold, in written order."""
Arm: TypeAlias = tuple[frozenset[str], Conditions | None]
"""The names that an arm reads, and the conditions under which all of them are there, failures apart; None where that is not known."""


def parse_conditions(texts: Iterable[str]) -> Conditions | None:
    """The conditions that texts of CEL say together; None where one is no CEL."""
    found: list[CelTree] = []
    try:
        for text in texts:
            found += _split_conjunction(parse(text))
    except CelSyntaxError:
        return None
    return tuple(found)


def when_conditions(when: str | None) -> Conditions | None:
    """The conditions of a node's `when`; none where it has none, None where they are not known."""
    if when is None:
        return ()
    return parse_conditions([inside]) if (inside := sole_reference(when)) is not None else None


def combine_conditions(parts: Iterable[Conditions | None]) -> Conditions | None:
    """All of several conditions, each once; None where one is not known."""
    found: dict[object, CelTree] = {}
    for part in parts:
        if part is None:
            return None
        for one in part:
            found.setdefault(without_positions(one), one)
    return tuple(found.values())


def negate(texts: Sequence[tuple[str, int]]) -> str:
    """CEL that says that not all of these hold; each has its rank."""
    if len(texts) == 1:
        text, rank = texts[0]
        return f"!{text}" if rank > 7 else f"!({text})"
    return "!(" + " && ".join(text if rank > 2 else f"({text})" for text, rank in texts) + ")"


def presence_test(names: Iterable[str]) -> str:
    """CEL that is true where these have values, and has none elsewhere."""
    return f"size([{', '.join(names)}]) > 0"


def covers(around: Conditions, arms: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether an arm is there wherever the conditions `around` hold. `choice` gives the arms of the `first_of` of a name, as templates."""
    *before, (_, last) = arms
    if last is None:
        return False
    held = {without_positions(one) for one in around}
    for one in last:
        if without_positions(one) in held:
            continue
        if not _is_complement(one, held, before, choice):
            return False
        held.add(without_positions(one))
    return True


def _is_complement(
    one: CelTree, held: set[object], before: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]
) -> bool:
    """Whether an earlier arm is there where this condition does not hold, though those before it do."""
    if (
        isinstance(one, CelUnary)
        and one.op == "!"
        and isinstance(one.operand, CelName)
        and (asked := choice(one.operand.name)) is not None
    ):
        there = [_presence_test_names(template) for template in asked[:-1]]
        if asked[-1] is False and all(
            names is not None and any(reads <= names for reads, _ in before) for names in there
        ):
            return True
    other = (
        _split_conjunction(one.operand)
        if isinstance(one, CelUnary) and one.op == "!"
        else (CelUnary("!", one, one.start, one.end),)
    )
    known = held | {without_positions(part) for part in other}
    return any(wanted is not None and {without_positions(part) for part in wanted} <= known for _, wanted in before)


def names_tested_absent(given: Conditions, choice: Callable[[str], Sequence[Any] | None]) -> Iterator[str]:
    """The names of which these conditions ask whether they are there, and hold where they are not."""
    for one in given:
        if (
            isinstance(one, CelUnary)
            and one.op == "!"
            and isinstance(one.operand, CelName)
            and (asked := choice(one.operand.name))
            and asked[-1] is False
        ):
            for template in asked[:-1]:
                yield from sorted(_presence_test_names(template) or ())


def _presence_test_names(template: Any) -> frozenset[str] | None:
    """The arguments of a `presence_test` template; None for another template."""
    match when_conditions(template) if isinstance(template, str) else None:
        case (CelBinary(">", CelCall("size", None, (CelList(items),)), CelLiteral(0)),) if items and all(
            isinstance(item, CelName) for item in items
        ):
            return frozenset(item.name for item in items if isinstance(item, CelName))
        case _:
            return None


def _split_conjunction(tree: CelTree) -> Conditions:
    match tree:
        case CelLogic("&&", items):
            return tuple(part for item in items for part in _split_conjunction(item))
        case CelUnary("!", CelUnary("!", of)):
            return _split_conjunction(of)
        case _:
            return (tree,)
