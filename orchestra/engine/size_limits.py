"""Bulk: values that no journal takes. Each answer of a call is small enough; what is put together of many may not be."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from orchestra.core.events import encode
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome

TOO_LARGE: Final = "E026"
MAX_VALUE_BYTES: Final = 64 << 20
"""Bytes of JSON in a value at most: what a journal takes for an event. Not less, for runs have such values on record."""
SAFE_TEXT_LENGTH: Final = MAX_VALUE_BYTES // 6
"""A text of fewer characters is smaller, however its characters are escaped."""
TOO_LARGE_HINT: Final = "pass on less of each: digests, names of files, or what a tool makes of the list"


def limit_size(outcome: Outcome, node: str) -> Outcome:
    """The outcome; a failure where its value is too large to be recorded."""
    if type(outcome) is not ValueOutcome or (size := _json_size(outcome.value)) <= MAX_VALUE_BYTES:
        return outcome
    return FailedOutcome(
        TOO_LARGE,
        f"its value has {size:,} bytes of JSON or more; at most {MAX_VALUE_BYTES:,} are kept",
        node,
        TOO_LARGE_HINT,
    )


def _json_size(value: Any) -> int:
    """Bytes of a value as JSON, or a little less, counted until they are too many; 0 for what is no JSON: the journal says so itself."""
    if not isinstance(value, list | dict):
        return 0 if type(value) is not str or len(value) < SAFE_TEXT_LENGTH else _encoded_length(value)
    found, items = (_encoded_length(list(value)), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:  # each for itself: together they would be in memory once more
        found += _encoded_length(item) + 1
        if found > MAX_VALUE_BYTES:
            break
    return found


def _encoded_length(value: Any) -> int:
    try:
        return len(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return 0
