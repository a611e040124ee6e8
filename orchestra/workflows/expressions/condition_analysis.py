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
    conditions: list[CelTree] = []
    try:
        for text in texts:
            conditions += _split_conjunction(parse(text))
    except CelSyntaxError:
        return None
    return tuple(conditions)


def when_conditions(when: str | None) -> Conditions | None:
    """Returns the conditions of a node's `when`; empty without `when`, None if unknown."""
    if when is None:
        return ()
    return parse_conditions([inside]) if (inside := sole_reference(when)) is not None else None


def combine_conditions(parts: Iterable[Conditions | None]) -> Conditions | None:
    """Joins conjunctions, each condition once; None if one is unknown."""
    conditions: dict[object, CelTree] = {}
    for part in parts:
        if part is None:
            return None
        for condition in part:
            conditions.setdefault(without_positions(condition), condition)
    return tuple(conditions.values())


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
    assumptions = {without_positions(condition) for condition in around}
    for condition in last:
        if without_positions(condition) in assumptions:
            continue
        if not _is_complement(condition, assumptions, before, choice):
            return False
        assumptions.add(without_positions(condition))
    return True


def _is_complement(
    condition: CelTree, assumptions: set[object], before: Sequence[Arm], choice: Callable[[str], Sequence[Any] | None]
) -> bool:
    """Whether an earlier arm has a value if this condition does not hold while those before it do."""
    if (
        isinstance(condition, CelUnary)
        and condition.op == "!"
        and isinstance(condition.operand, CelName)
        and (templates := choice(condition.operand.name)) is not None
    ):
        tested_names = [_presence_test_names(template) for template in templates[:-1]]
        if templates[-1] is False and all(
            names is not None and any(reads <= names for reads, _ in before) for names in tested_names
        ):
            return True
    other_terms = (
        _split_conjunction(condition.operand)
        if isinstance(condition, CelUnary) and condition.op == "!"
        else (CelUnary("!", condition, condition.start, condition.end),)
    )
    all_assumptions = assumptions | {without_positions(part) for part in other_terms}
    return any(
        terms is not None and {without_positions(part) for part in terms} <= all_assumptions for _, terms in before
    )


def names_tested_absent(given: Conditions, choice: Callable[[str], Sequence[Any] | None]) -> Iterator[str]:
    """Returns the names that these conditions require to have no value."""
    for condition in given:
        if (
            isinstance(condition, CelUnary)
            and condition.op == "!"
            and isinstance(condition.operand, CelName)
            and (templates := choice(condition.operand.name))
            and templates[-1] is False
        ):
            for template in templates[:-1]:
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
            truths = [_truth(item, types) for item in items]
            if ends in truths or (not ends and _is_contradiction(items)):
                return ends
            return None if None in truths else not ends
        case CelBinary(op, left, right):
            return _compare_ranges(op, left, right, types)
        case _:
            return None


def _is_contradiction(items: tuple[CelTree, ...]) -> bool:
    """Whether a conjunction requires a path to equal two different literals, or to equal one and not to equal it."""
    values_by_path: dict[FieldPath, object] = {}
    excluded_values: set[tuple[FieldPath, str]] = set()
    for item in items:
        match item:
            case CelBinary("==" | "!=" as op, side, CelLiteral(value)) | CelBinary(
                "==" | "!=" as op, CelLiteral(value), side
            ) if path := path_of(side):
                if op == "!=":
                    excluded_values.add((path, repr(value)))
                elif path in values_by_path and repr(values_by_path[path]) != repr(value):
                    return True
                else:
                    values_by_path[path] = value
            case _:
                pass
    return any((path, repr(value)) in excluded_values for path, value in values_by_path.items())


def _compare_ranges(op: str, left: CelTree, right: CelTree, types: Mapping[str, Schema]) -> bool | None:
    if (path := path_of(left)) is not None and path == path_of(right):
        return {"==": True, "!=": False, "<": False, ">": False, "<=": True, ">=": True}.get(op)
    first, second = _range_of(left, types), _range_of(right, types)
    if first is None or second is None:
        return None
    (low, high), (other_low, other_high) = first, second
    match op:
        case "<" | ">=":
            below = True if high < other_low else False if low >= other_high else None
            return below if op == "<" or below is None else not below
        case ">" | "<=":
            above = True if low > other_high else False if high <= other_low else None
            return above if op == ">" or above is None else not above
        case "==" | "!=" if high < other_low or low > other_high:
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
            field_schema = field_type(_type_of(of, types), name)
            return field_schema if isinstance(field_schema, dict) else {}
        case _:
            return {}
