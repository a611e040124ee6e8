"""Moments that an option names: so long ago, or a day."""

from __future__ import annotations

import re
import time
from datetime import datetime, timedelta
from math import inf

from orchestra.core.errors import InputError

_SECONDS = {"h": 3600, "d": 86_400, "w": 604_800}


def parse_age(text: str, option: str = "--older") -> float:
    """The seconds that an age stands for, such as `30d`, `12h` or `2w`. Raises `InputError` C010."""
    if found := re.fullmatch(r"([0-9]{1,6})([hdw])", text):
        return float(found[1]) * _SECONDS[found[2]]
    raise InputError(
        "C010", f"{text!r} is no age", hint=f"write hours, days or weeks: {option} 12h, {option} 30d, {option} 2w"
    )


def parse_time(text: str, option: str) -> float:
    """Seconds since the epoch: so long ago, or the midnight that a day begins with here. Raises `InputError` C010."""
    if text in ("today", "yesterday"):
        # As that day's date: its midnight may be another number of hours away than the clock says, where clocks were changed since.
        text = (datetime.now().astimezone().date() - timedelta(days=text == "yesterday")).isoformat()
    if re.fullmatch(r"\d{4}-\d\d-\d\d", text):
        try:
            return datetime.fromisoformat(text).astimezone().timestamp()
        except (ValueError, OverflowError, OSError) as error:
            raise InputError("C010", f"{text} is no day", hint=f"{option} 2026-11-24") from error
    return time.time() - parse_age(text, option)


def parse_period(since: str | None, until: str | None) -> tuple[float, float]:
    """The moments of --since and --until; any where they are not said. Raises `InputError` C010, also for nothing between."""
    begin = -inf if since is None else max(0.0, parse_time(since, "--since"))  # weeks may reach before all dates
    end = inf if until is None else max(0.0, parse_time(until, "--until"))
    if begin >= end:
        raise InputError(
            "C010", f"no run began since {since} and before {until}", hint="--since yesterday --until today"
        )
    return begin, end
