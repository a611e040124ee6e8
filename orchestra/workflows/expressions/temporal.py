"""What texts stand for: moments, durations and decimal numbers pass between nodes as texts, and texts compare and add otherwise.

`10` comes before `9`, and `10:00+02:00` behind `09:00Z`. Calendar days (`date`) are written so that their order is that of their texts.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from orchestra.schema.json_schema import ANY, Schema, element_type, union_members

TEXT_FORM_REASON = "it passes between nodes as a text, and texts compare and add otherwise"
_FORMAT_NAMES = {
    "date-time": "a date and time",
    "time": "a time of day",
    "duration": "a duration",
    "decimal": "a decimal number",
    "date": "a date",
}
_ORDER_OPERATORS = ("<", "<=", ">", ">=")
_FORMAT_BY_TYPE: tuple[tuple[type, str], ...] = (
    (datetime, "date-time"),
    (date, "date"),
    (time, "time"),
    (timedelta, "duration"),
    (Decimal, "decimal"),
)


def constant_format(value: Any) -> str:
    """The format that a Python value is written in, where its text stands for something else; empty for another value."""
    return next((name for kind, name in _FORMAT_BY_TYPE if isinstance(value, kind)), "")


def misread_operand(op: str, left: Schema, right: Schema) -> str:
    """What one of the operands is that an operator would take as a text; empty where it may."""
    right = _element_type(right) if op == "in" else right
    if op == "+":
        return _text_meaning(left) if _text_meaning(right) else ""
    a, b = _text_meaning(left, except_format="date"), _text_meaning(right, except_format="date")
    if op in _ORDER_OPERATORS or op == "in":
        return a or b
    if a and b:
        return a
    number = _FORMAT_NAMES["decimal"]
    return number if (a == number and _is_numeric(right)) or (b == number and _is_numeric(left)) else ""


def _text_meaning(schema: Schema, except_format: str = "") -> str:
    """What a text of this type stands for; empty where it is a text and no more."""
    formats = (str(part.get("format")) for part in union_members(schema))
    return next((_FORMAT_NAMES[one] for one in formats if one in _FORMAT_NAMES and one != except_format), "")


def _is_numeric(schema: Schema) -> bool:
    """Whether a value may be a number, which never equals a decimal number that is written as a text."""
    return any(part.get("type") in ("integer", "number") for part in union_members(schema))


def _element_type(schema: Schema) -> Schema:
    """The type of a list's elements."""
    found = element_type(schema) if all(part.get("type") == "array" for part in union_members(schema)) else ANY
    return found if isinstance(found, dict) else ANY
