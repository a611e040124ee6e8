"""Bulk: values that no journal takes. Each answer of a call is small enough; what is put together of many may not be."""

from __future__ import annotations

from typing import Any, Final

import msgspec

from orchestra.core.events import encode
from orchestra.core.outcomes import Failed, Outcome, Value

TOO_LARGE: Final = "E026"
MOST: Final = 64 << 20
"""Bytes of JSON in a value at most: what a journal takes for an event. Not less, for runs have such values on record."""
SURE: Final = MOST // 6
"""A text of fewer characters is smaller, however its characters are escaped."""
HINT: Final = "pass on less of each: digests, names of files, or what a tool makes of the list"


def kept(outcome: Outcome, node: str) -> Outcome:
    """The outcome; a failure where its value is too large to be recorded."""
    if type(outcome) is not Value or (size := _size(outcome.value)) <= MOST:
        return outcome
    return Failed(TOO_LARGE, f"its value has {size:,} bytes of JSON or more; at most {MOST:,} are kept", node, HINT)


def _size(value: Any) -> int:
    """Bytes of a value as JSON, or a little less, counted until they are too many; 0 for what is no JSON: the journal says so itself."""
    if not isinstance(value, list | dict):
        return 0 if type(value) is not str or len(value) < SURE else _bytes(value)
    found, items = (_bytes(list(value)), value.values()) if isinstance(value, dict) else (0, value)
    for item in items:  # each for itself: together they would be in memory once more
        found += _bytes(item) + 1
        if found > MOST:
            break
    return found


def _bytes(value: Any) -> int:
    try:
        return len(encode(value))
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError):
        return 0
