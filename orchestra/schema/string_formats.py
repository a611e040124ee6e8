"""Formats of texts, as pydantic writes them: JSON Schema's own want a time zone of every moment, and no durations below a second."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime, time

_CLOCK = r"\d\d:\d\d:\d\d(\.\d+)?([zZ]|[+-]\d\d:\d\d)?"
_TIME = re.compile(_CLOCK)
_DATETIME = re.compile(rf"\d{{4}}-\d\d-\d\d[tT ]{_CLOCK}")
_DURATION = re.compile(r"-?P(?=[\dT])(\d+Y)?(\d+M)?(\d+W)?(\d+D)?(T(?=\d)(\d+H)?(\d+M)?(\d+(\.\d+)?S)?)?")


def _is_datetime(text: str) -> bool:
    return _DATETIME.fullmatch(text) is not None and _parses(datetime.fromisoformat, text)


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text) is not None and _parses(time.fromisoformat, text)


def _is_duration(text: str) -> bool:
    return _DURATION.fullmatch(text) is not None


def _parses(read: Callable[[str], object], text: str) -> bool:
    try:
        read(text.upper())
    except ValueError:
        return False
    return True


FORMATS: Mapping[str, Callable[[str], bool]] = {"date-time": _is_datetime, "time": _is_time, "duration": _is_duration}
"""What decides of these formats whether a text has them."""
