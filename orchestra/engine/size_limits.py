"""Size limits: values that a journal cannot store. Each result of a call is small enough; a value composed of many may
not be.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from orchestra.core.events import encode
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome

TOO_LARGE: Final = "E026"
MAX_VALUE_BYTES: Final = 64 << 20
"""Bytes of JSON in a value at most: the journal's limit of an event. Recorded runs have such values, so it cannot be
lower.
"""
SAFE_TEXT_LENGTH: Final = MAX_VALUE_BYTES // 6
"""A text with fewer characters is smaller, however its characters are escaped."""
TOO_LARGE_HINT: Final = "pass on less of each: digests, names of files, or what a tool makes of the list"


def limit_size(outcome: Outcome, node: str) -> Outcome:
    """Returns the outcome; a failure if its value is too large to be recorded."""
    if type(outcome) is not ValueOutcome or (size := _json_size(outcome.value)) <= MAX_VALUE_BYTES:
        return outcome
    return FailedOutcome(
        TOO_LARGE,
        f"its value has {size:,} bytes of JSON or more; at most {MAX_VALUE_BYTES:,} are kept",
        node,
        TOO_LARGE_HINT,
    )


def _json_size(value: Any) -> int:
    """Returns the bytes of a value as JSON, or slightly less, counted until they exceed the limit; 0 for a value that
    is not JSON: the journal reports that.
    """
    if not isinstance(value, list | dict):
        return 0 if type(value) is not str or len(value) < SAFE_TEXT_LENGTH else _encoded_length(value)
    total_length, items = (_encoded_length(list(value)), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:  # One by one: together they would be in memory twice.
        total_length += _encoded_length(item) + 1
        if total_length > MAX_VALUE_BYTES:
            break
    return total_length


def _encoded_length(value: Any) -> int:
    try:
        return len(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return 0
