"""What texts stand for: moments, durations and decimal numbers pass between nodes as texts, and texts compare and add otherwise.

`10` comes before `9`, and `10:00+02:00` behind `09:00Z`. Calendar days (`date`) are written so that their order is that of their texts.
"""

from __future__ import annotations

from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

from orchestra.schema.json_schema import ANY, Schema, branches, elements

AS_TEXTS = "it passes between nodes as a text, and texts compare and add otherwise"
_STANDS = {
    "date-time": "a date and time",
    "time": "a time of day",
    "duration": "a duration",
    "decimal": "a decimal number",
    "date": "a date",
}
_ORDER = ("<", "<=", ">", ">=")
_TYPES: tuple[tuple[type, str], ...] = (
    (datetime, "date-time"),
    (date, "date"),
    (time, "time"),
    (timedelta, "duration"),
    (Decimal, "decimal"),
)


def constant_format(value: Any) -> str:
    """The format that a Python value is written in, where its text stands for something else; empty for another value."""
    return next((name for kind, name in _TYPES if isinstance(value, kind)), "")


def misread(op: str, left: Schema, right: Schema) -> str:
    """What one of the operands is that an operator would take as a text; empty where it may."""
    right = _inside(right) if op == "in" else right
    if op == "+":
        return _standing(left) if _standing(right) else ""
    a, b = _standing(left, but="date"), _standing(right, but="date")
    if op in _ORDER or op == "in":
        return a or b
    if a and b:
        return a
    number = _STANDS["decimal"]
    return number if (a == number and _numeric(right)) or (b == number and _numeric(left)) else ""


def _standing(schema: Schema, but: str = "") -> str:
    """What a text of this type stands for; empty where it is a text and no more."""
    formats = (str(part.get("format")) for part in branches(schema))
    return next((_STANDS[one] for one in formats if one in _STANDS and one != but), "")


def _numeric(schema: Schema) -> bool:
    """Whether a value may be a number, which never equals a decimal number that is written as a text."""
    return any(part.get("type") in ("integer", "number") for part in branches(schema))


def _inside(schema: Schema) -> Schema:
    """The type of a list's elements."""
    found = elements(schema) if all(part.get("type") == "array" for part in branches(schema)) else ANY
    return found if isinstance(found, dict) else ANY
