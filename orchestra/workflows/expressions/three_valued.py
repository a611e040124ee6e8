"""Truth: what can be said of a condition before anything is known, by three-valued logic over ranges of numbers.

Kleene's strong logic for `!`, `&&` and `||`; a comparison is decided where the ranges of its sides are apart, or where the sides are the
same path; a conjunction is false where it wants one path to equal two literals. Sound, not complete: None says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestra.schema.json_schema import Schema, field_type
from orchestra.workflows.expressions.parser import (
    CelBinary,
    CelCall,
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

Range = tuple[float, float]


def static_truth(text: str, types: Mapping[str, Schema]) -> bool | None:
    """The value that a condition, written as `${...}`, has in every run; None where it may have either."""
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
    """Whether a conjunction wants a path to equal two different literals, or to equal one and not to."""
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
    """The numbers that a tree may give; None where it gives none, or any."""
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
