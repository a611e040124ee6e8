"""Times of day in text: `17:45`, `5:45 pm`, `6.30 p.m.`, `5 pm`, `T10:00:00Z`. Each is one value, not two numbers. Also
names of months.

A text of the same form that is not a time, such as the verse 3:16 or the score 2:10, is compared by its digits, and
never equals a time with other digits. Time zones are ignored.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from orchestra.text.keywords import CASE_FOLDS
from orchestra.text.numbers.numerals import to_ascii_digits

_SHORT: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
MONTH_PATTERN: Final = (
    "jan(?:uary)?|feb(?:ruary)?|mar(?:ch)?|apr(?:il)?|may|june?|july?|aug(?:ust)?|sep(?:t(?:ember)?)?|oct(?:ober)?"
    "|nov(?:ember)?|dec(?:ember)?"
)
"""English names of months, short and long, as a pattern."""


def month_number(name: str) -> int:
    """Returns the number of a month, from 1, for a text that matches the pattern."""
    return _SHORT.index(name[:3].translate(CASE_FOLDS).lower()) + 1


ClockFormat: TypeAlias = Literal["am", "pm", "24", ""]
"""12-hour, 24-hour, or unspecified as in `5:45`."""

_TIME = re.compile(
    r"""(?:(?P<iso>(?<=\dT))|(?<![\d+])(?<!\d[:.]))
    (?P<hour>[01]?\d|2[0-3]|24(?=:00))
    (?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d(?:[.,]\d+(?![:\d]))?))?|\.(?P<point>[0-5]\d)(?=\s?[ap]))?
    (?:[^\S\n]?(?P<half>[ap])(?:m|\.m\.?)(?!\w))?
    (?(iso)(?:Z|[+\-]\d\d:?\d\d)?|(?(second)(?:Z|[+\-]\d\d:?\d\d(?!:))?))
    (?!\d|[:.]\d|,\d{3}(?!\d))
    """,
    re.VERBOSE | re.IGNORECASE,
)
_TIME_CONTEXT = re.compile(
    r"(?:^\W*|\b(?:at|from|until|till?|since|before|after|between|around|about|um|ab|bis|von|seit|gegen|vor|nach|zwischen|à|vers|alle|ore|las)"
    r"[^\S\n]+)$",
    re.IGNORECASE,
)
"""Text before a time of day, rather than before a score, a ratio or a duration."""
_CONJUNCTION = re.compile(r"[^\S\n]*(?:to|and|or|und|bis|[-–—,/])[^\S\n]*", re.IGNORECASE)
"""Text between two times."""
_BEFORE = 24
"""Characters before a time that are examined."""
MAX_SECOND_DIGITS = 9
"""Maximum digits of a fraction of a second for comparison with less exact times."""


@dataclass(frozen=True, slots=True)
class TimeOfDay:
    """A time of day in a text, possibly partial."""

    hour: int
    """As written."""
    minute: int | None = None
    second: str = ""
    """Its digits, if any, without trailing zeros of a fraction."""
    clock_format: ClockFormat = ""
    text: str = ""
    start: int = 0
    is_certain: bool = True
    """Whether the text before it shows that it is a time of day, not a score, ratio or duration."""

    @property
    def end(self) -> int:
        """End of its text."""
        return self.start + len(self.text)

    @property
    def clock_face(self) -> tuple[int, int]:
        """The time on a 12-hour clock face."""
        return self.hour % 12, self.minute or 0

    @property
    def hour_of_day(self) -> int | None:
        """The hour from 0 to 23; None if am or pm is unknown."""
        match self.clock_format:
            case "":
                return None
            case "24":
                return self.hour % 24
            case half:
                return self.hour % 12 + 12 * (half == "pm")

    @property
    def exact_second(self) -> str:
        """The second as far as it is written; `17:00` and `5 pm` mean the full minute."""
        return self.second or "00"

    @property
    def coarser_seconds(self) -> list[str]:
        """The seconds of less exact statements of this time, and its own."""
        whole, _, part = self.exact_second.partition(".")
        return [
            "",
            whole,
            *(f"{whole}.{part[:size]}" for size in range(1, min(len(part), MAX_SECOND_DIGITS + 1))),
            *([self.exact_second] if part else []),
        ]

    def matches(self, written: TimeOfDay) -> bool:
        """Returns whether another time states this one at least as exactly: `5:45 pm` states 17:45 and 5:45, which do
        not state `5:45 am`.
        """
        if not self._same_face(written):
            return False
        mine, theirs = self.hour_of_day, written.hour_of_day
        if self.hour != written.hour and not (self.is_certain or self.has_meridiem):
            return False
        if mine is not None and theirs is not None:
            return mine == theirs
        if theirs is not None and self.minute is not None and written.minute is None and self.hour != theirs:
            return False  # `10:00` may be in the morning, `10 pm` is not
        return self.hour == written.hour and not (theirs is None and self.has_meridiem)

    @property
    def has_meridiem(self) -> bool:
        """Whether it has am or pm."""
        return self.clock_format in ("am", "pm")

    def may_match(self, written: TimeOfDay) -> bool:
        """Returns whether another time may be this one: one of them lacks am or pm, or may not be a time."""
        mine, theirs = self.hour_of_day, written.hour_of_day
        return self._same_face(written) and (None in (mine, theirs) or mine == theirs)

    def _same_face(self, written: TimeOfDay) -> bool:
        return self.clock_face == written.clock_face and self.second in written.coarser_seconds


def find_times(text: str) -> list[TimeOfDay]:
    """Returns the times of day in a text, in order."""
    plain = to_ascii_digits(text)
    found: list[TimeOfDay] = []
    for match in _TIME.finditer(plain):
        if (time := _parse_time(match, text, plain, found[-1] if found else None)) is not None:
            found.append(time)
    return found


def _parse_time(match: re.Match[str], text: str, plain: str, last: TimeOfDay | None) -> TimeOfDay | None:
    minute, half = match["minute"] or match["point"], (match["half"] or "").lower()
    hour, start = int(match["hour"]), match.start()
    if not (minute or half) or (half and not minute and not 1 <= hour <= 12):
        return None
    if not minute and start and (text[start - 1].isalpha() or text[start - 1] in ",.:_"):
        return None
    zeros = match["iso"] is not None or not 1 <= hour <= 12 or (match["hour"].startswith("0") and not half)
    clock: ClockFormat = "24" if zeros else "am" if half == "a" else "pm" if half else ""
    whole, _, part = (match["second"] or "").replace(",", ".").partition(".")
    second = f"{whole}.{part.rstrip('0')}".rstrip(".")
    beside = last is not None and last.is_certain and _CONJUNCTION.fullmatch(plain, last.end, start) is not None
    sure = beside or match["iso"] is not None or bool(half) or _has_time_context(plain, start)
    return TimeOfDay(hour, int(minute) if minute else None, second, clock, text[start : match.end()], start, sure)


def _has_time_context(text: str, start: int) -> bool:
    before = text[max(0, start - _BEFORE) : start]
    return _TIME_CONTEXT.search(before if start <= _BEFORE else f"_{before}") is not None
