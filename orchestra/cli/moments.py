"""Moments that an option names: so long ago, or a day."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta

from orchestra.errors import InputError

_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def age(text: str, option: str = "--older") -> float:
    """The seconds that an age stands for, such as `30d`, `12h` or `2w`. Raises `InputError` C010."""
    if found := re.fullmatch(r"([0-9]{1,6})([hdw])", text):
        return float(found[1]) * _SECONDS[found[2]]
    raise InputError("C010", f"{text!r} is no age", hint=f"write hours, days or weeks: {option} 12h, {option} 30d, {option} 2w")


def moment_of(text: str, option: str) -> float:
    """Seconds since the epoch: so long ago, or the midnight that a day begins with here. Raises `InputError` C010."""
    if text in ("today", "yesterday"):
        # As that day's date: its midnight may be another number of hours away than the clock says, where clocks were changed since.
        text = (datetime.now().astimezone().date() - timedelta(days=text == "yesterday")).isoformat()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise InputError("C010", f"{text} is no day", hint=f"{option} 2026-11-24") from error
    return time.time() - age(text, option)
