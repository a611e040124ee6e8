"""Static analysis of conditions: which conditions cover all cases, and which are always true or false."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from orchestra.schema.json_schema import Schema, field_type
from orchestra.workflows.expressions.parser import (
    CelBinary,
    CelCall,
    CelList,
    CelLiteral,
    CelLogic,
    CelName,
    CelSelect,
    CelSyntaxError,
    CelTree,
    CelUnary,
    parse,
    sole_reference,
)
from orchestra.workflows.expressions.type_checker import FieldPath, path_of
from orchestra.workflows.python.printer import without_positions

Conditions: TypeAlias = tuple[CelTree, ...]
"""A conjunction of conditions in written order."""


Arm: TypeAlias = tuple[frozenset[str], Conditions | None]
"""The names that an arm reads, and the conditions under which all of them have values unless they fail; None if
unknown.
"""


def parse_conditions(texts: Iterable[str]) -> Conditions | None:
    """Parses texts of CEL as one conjunction; None if one is invalid."""
    found: list[CelTree] = []
    try:
        for text in texts:
            found += _split_conjunction(parse(text))
    except CelSyntaxError:
        return None
    return tuple(found)


def when_conditions(when: str | None) -> Conditions | None:
    """Returns the conditions of a node's `when`; empty without `when`, None if unknown."""
    if when is None:
        return ()
    return parse_conditions([inside]) if (inside := sole_reference(when)) is not None else None


def combine_conditions(parts: Iterable[Conditions | None]) -> Conditions | None:
    """Joins conjunctions, each condition once; None if one is unknown."""
    found: dict[object, CelTree] = {}
    for part in parts:
        if part is None:
            return None
        for one in part:
            found.setdefault(without_positions(one), one)
    return tuple(found.values())


def negate(texts: Sequence[tuple[str, int]]) -> str:
    """Returns the CEL of the negated conjunction. Each condition comes with its precedence."""
    if len(texts) == 1:
        text, rank = texts[0]
        return f"!{text}" if rank > 7 else f"!({text})"
    return "!(" + " && ".join(text if rank > 2 else f"({text})" for text, rank in texts) + ")"


def presence_test(names: Iterable[str]) -> str:
    """Returns CEL that is true if these names have values, and has no value otherwise."""
    return f"size([{', '.join(names)}]) > 0"


def covers(around: Conditions, arms: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]) -> bool:
    """Whether one arm always has a value under the conditions `around`. `choice` returns the arms of a `first_of` by
    name.
    """
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
    """Whether an earlier arm has a value if this condition does not hold while those before it do."""
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
    """Returns the names that these conditions require to have no value."""
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
    """Returns the arguments of a `presence_test` template; None for another template."""
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


Range = tuple[float, float]


def static_truth(text: str, types: Mapping[str, Schema]) -> bool | None:
    """Returns the value that a condition, written as `${...}`, has in every run; None if it can have both."""
    if (inside := sole_reference(text)) is None:
        return None
    try:
        return _truth(parse(inside), types)
    except CelSyntaxError:
        return None


def _truth(tree: CelTree, types: Mapping[str, Schema]) -> bool | None:
    match tree:
        case CelLiteral(bool(value)):
            return value
        case CelUnary("!", of):
            inner = _truth(of, types)
            return None if inner is None else not inner
        case CelLogic(op, items):
            ends = op == "||"
            known = [_truth(item, types) for item in items]
            if ends in known or (not ends and _is_contradiction(items)):
                return ends
            return None if None in known else not ends
        case CelBinary(op, left, right):
            return _compare_ranges(op, left, right, types)
        case _:
            return None


def _is_contradiction(items: tuple[CelTree, ...]) -> bool:
    """Whether a conjunction requires a path to equal two different literals, or to equal one and not to equal it."""
    wanted: dict[FieldPath, object] = {}
    refused: set[tuple[FieldPath, str]] = set()
    for item in items:
        match item:
            case CelBinary("==" | "!=" as op, left, CelLiteral(value)) | CelBinary(
                "==" | "!=" as op, CelLiteral(value), left
            ) if path := path_of(left):
                if op == "!=":
                    refused.add((path, repr(value)))
                elif path in wanted and repr(wanted[path]) != repr(value):
                    return True
                else:
                    wanted[path] = value
            case _:
                pass
    return any((path, repr(value)) in refused for path, value in wanted.items())


def _compare_ranges(op: str, left: CelTree, right: CelTree, types: Mapping[str, Schema]) -> bool | None:
    if (path := path_of(left)) is not None and path == path_of(right):
        return {"==": True, "!=": False, "<": False, ">": False, "<=": True, ">=": True}.get(op)
    first, second = _range_of(left, types), _range_of(right, types)
    if first is None or second is None:
        return None
    (low, high), (least, most) = first, second
    match op:
        case "<" | ">=":
            below = True if high < least else False if low >= most else None
            return below if op == "<" or below is None else not below
        case ">" | "<=":
            above = True if low > most else False if high <= least else None
            return above if op == ">" or above is None else not above
        case "==" | "!=" if high < least or low > most:
            return op == "!="
        case _:
            return None


def _range_of(tree: CelTree, types: Mapping[str, Schema]) -> Range | None:
    """Returns the range of the numbers of a tree; None if it is not a number or unbounded."""
    match tree:
        case CelLiteral(int(value) | float(value)) if not isinstance(value, bool):
            return value, value
        case CelCall("size", of, args):
            schema = _type_of(of if of is not None else args[0], types) if of is not None or args else {}
            return max(schema.get("minItems", 0), schema.get("minLength", 0)), min(
                schema.get("maxItems", math.inf), schema.get("maxLength", math.inf)
            )
        case CelName() | CelSelect():
            schema = _type_of(tree, types)
            if schema.get("type") not in ("integer", "number") or not schema.keys() & {"minimum", "maximum"}:
                return None
            return schema.get("minimum", -math.inf), schema.get("maximum", math.inf)
        case _:
            return None


def _type_of(tree: CelTree, types: Mapping[str, Schema]) -> Schema:
    match tree:
        case CelName(name):
            return types.get(name, {})
        case CelSelect(of, name):
            found = field_type(_type_of(of, types), name)
            return found if isinstance(found, dict) else {}
        case _:
            return {}
