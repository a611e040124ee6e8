"""Measures: what the cells of a column are put in order by, such as sums of money, times of a day, durations and dates.

A column is measured as one: what stands in it says whether `9.40` is a price or a time, and the unit of most cells is that of all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTHS: Final = (
    "jan(?:uary)? feb(?:ruary)? mar(?:ch)? apr(?:il)? may june? july? aug(?:ust)? sept?(?:ember)? oct(?:ober)? nov(?:ember)? dec(?:ember)?"
)
DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS: Final = "mon(?:day)?s? tue(?:s|sday|sdays)? wed(?:nesday)?s? thu(?:r|rs|rsday|rsdays)? fri(?:day)?s? sat(?:urday)?s? sun(?:day)?s?"
GREAT: Final = {"thousand": 1e3, "million": 1e6, "mn": 1e6, "billion": 1e9, "bn": 1e9}
"""Words behind a number that multiply it; a letter alone may be a unit."""
LEAST_SHARE = 0.5
"""Of a column's texts that a kind of measure must read."""

_MONTH = "(?P<month>" + _MONTHS.replace(" ", "|") + r")\b\.?"
_CLOCK = re.compile(r"(?:\w+ )?(?P<hour>\d{1,2})[:.h](?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?\s*(?P<half>[ap]\.?m\.?)?", re.IGNORECASE)
_HOUR = re.compile(r"(?P<hour>1[0-2]|[1-9])\s*(?P<half>[ap]\.?m\.?)|(?:12 )?(?P<noon>noon|midday|midnight)", re.IGNORECASE)
_DURATION = re.compile(
    r"(?:(?P<hours>\d+)\s*(?:hours?|hrs?|h)(?![a-z])\.?)?\s*(?:(?P<minutes>\d+)\s*(?:minutes?|mins?|m)?\b\.?)?", re.IGNORECASE
)
_LAP = re.compile(r"(?P<minutes>\d+)[:'′]\s*(?P<seconds>[0-5]\d(?:\.\d+)?)[\"″]?")
_DATES = tuple(
    re.compile(one, re.IGNORECASE)
    for one in (
        rf"(?:\w{{2,9}},? )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.? {_MONTH},?(?: (?P<year>\d{{4}}))?",
        rf"(?:\w{{2,9}},? )?{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,? (?P<year>\d{{4}}))?",
        rf"{_MONTH},?(?: (?P<year>\d{{4}}))?",
        r"(?P<year>\d{4})-(?P<number>\d\d)-(?P<day>\d\d)",
        r"(?P<day>\d{1,2})[./](?P<number>\d{1,2})[./](?P<year>\d{2,4})",
    )
)
_DAY = re.compile("(" + _DAYS.replace(" ", "|") + r")\b.*", re.IGNORECASE)
_NUMBER = re.compile(r"(?P<digits>\d[\d,' ]*(?:\.\d+)?|\.\d+)")
_MINUS = re.compile(r"[$€£¥]?\s*(?:\(?\s*[$€£¥]?\s*[-−–]\s*[$€£¥]?|\(\s*[$€£¥]?)\s*")
"""What stands before a number that is less than nothing, and nothing else does."""
_COMMA = re.compile(r"\d+,\d{1,2}")
"""A number with a decimal comma."""


def measures(column: Sequence[str]) -> list[float | None]:
    """What each text of a column is put in order by, None for one that has no measure. All None where no kind reads half of them."""
    texts = [" ".join(text.split()) for text in column]
    filled = [text for text in texts if any(letter.isalnum() for letter in text)]
    for kind in (_clock, _date, _lap, _duration, _day, _number):
        read = [kind(text) if text in filled else None for text in texts]
        enough = 0.9 if kind is not _number else LEAST_SHARE
        if filled and sum(one is not None for one in read) >= max(1.0, enough * len(filled)):
            return read
    return [None] * len(texts)


def extremes(column: Sequence[str], *, most: bool) -> list[int]:
    """Where in a column the largest measure stands, or the smallest; several where they are equal, none where nothing has a measure."""
    known = [(value if most else -value, at) for at, value in enumerate(measures(column)) if value is not None]
    top = max(known)[0] if known else None
    return [at for value, at in known if value == top]


def _clock(text: str) -> float | None:
    found = _CLOCK.fullmatch(text)
    if found is not None:
        if not (":" in text or found["half"]):
            return None  # a number, which is in the same order, or a duration
        return _minutes(int(found["hour"]), int(found["minute"]), found["half"]) + int(found["second"] or 0) / 60
    if (found := _HOUR.fullmatch(text)) is None:
        return None
    return _minutes(int(found["hour"]), 0, found["half"]) if found["hour"] else (0.0 if found["noon"].lower() == "midnight" else 720.0)


def _minutes(hour: int, minute: int, half: str | None) -> float:
    if half is not None:
        hour = hour % 12 + (12 if half.lower().startswith("p") else 0)
    return float(hour * 60 + minute)


def _date(text: str) -> float | None:
    for form in _DATES:
        if (found := form.fullmatch(text)) is None:
            continue
        said = found.groupdict()
        month = MONTHS.index(said["month"][:3].lower()) + 1 if said.get("month") else int(said["number"])
        year = int(said["year"] or 0)
        year += 0 if not said["year"] or year >= 100 else 2000 if year < 50 else 1900
        return year * 372.0 + month * 31.0 + int(said.get("day") or 0)
    return None


def _lap(text: str) -> float | None:
    found = _LAP.fullmatch(text)
    return None if found is None or "." not in text else int(found["minutes"]) * 60 + float(found["seconds"])


def _duration(text: str) -> float | None:
    found = _DURATION.fullmatch(text)
    if found is None or not (found["hours"] or (found["minutes"] and not text.isdigit())):
        return None
    return int(found["hours"] or 0) * 60.0 + int(found["minutes"] or 0)


def _day(text: str) -> float | None:
    found = _DAY.fullmatch(text)
    return None if found is None else float(DAYS.index(found[1][:3].lower()))


def _number(text: str) -> float | None:
    found = _NUMBER.search(text)
    if found is None:
        return None
    digits = found["digits"].strip(",' ")
    plain = digits.replace(",", ".") if _COMMA.fullmatch(digits) else re.sub(r"[,' ]", "", digits)
    rest = text[found.end() :].strip(" )+").lower().split(" ")[0]
    value = float(plain) * GREAT.get(rest, 1.0)
    return -value if _MINUS.fullmatch(text[: found.start()]) else value
