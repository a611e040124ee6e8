"""Conversion of times in the Python API: a time, a day, or a duration before now."""

from __future__ import annotations

from datetime import date, datetime, timedelta
from typing import TypeAlias

from orchestra.core.errors import InputError

TimeSpec: TypeAlias = datetime | date | timedelta | None


def to_timestamp(when: TimeSpec, default: float) -> float:
    """Returns seconds since the epoch; for a day, those of its local midnight. Raises `InputError` C010."""
    hint = "since=timedelta(days=30), since=datetime(2026, 11, 1), since=date(2026, 11, 1)"
    try:
        match when:
            case None:
                return default
            case datetime():
                return when.timestamp()
            case date():
                return datetime(when.year, when.month, when.day).astimezone().timestamp()
            case timedelta():
                return (datetime.now().astimezone() - when).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InputError("C010", f"{when!r} is outside the range of dates", hint=hint) from error
    raise InputError("C010", f"{when!r} is not a time", hint=hint)
