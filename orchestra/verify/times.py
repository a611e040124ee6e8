"""Times of the day as texts write them: `17:45`, `5:45 pm`, `6.30 p.m.`, `5 pm`, `T10:00:00Z`. Each is one value, and no two numbers.

What is written like one and is none, as the verse 3:16, is compared in the same way. Zones are passed over.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestra.values.digits import even

Clock: TypeAlias = Literal["am", "pm", "24", ""]
"""Of twelve hours, of 24, or one that does not say: `5:45`."""

_TIME = re.compile(
    r"""(?:(?P<iso>(?<=\dT))|(?<![\w:.,]))
    (?P<hour>[01]?\d|2[0-4])
    (?::(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d(?:[.,]\d+)?))?|\.(?P<point>[0-5]\d)(?=\s?[ap]))?
    (?:[^\S\n]?(?P<half>[ap])(?:m|\.m\.?))?
    (?(iso)(?:Z|[+\-]\d\d:?\d\d)?|(?(second)(?:Z|[+\-]\d\d:?\d\d(?!:))?))
    (?!\w|[:.,]\d)
    """,
    re.VERBOSE | re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class Time:
    """A time of the day in a text, as far as it is written."""

    hour: int
    """As it is written."""
    minute: int | None = None
    second: str = ""
    """Its digits, where there are others than noughts."""
    clock: Clock = ""
    text: str = ""
    start: int = 0

    @property
    def end(self) -> int:
        """Where its text ends."""
        return self.start + len(self.text)

    @property
    def face(self) -> tuple[int, int]:
        """What the hands of a clock show."""
        return self.hour % 12, self.minute or 0

    @property
    def of_day(self) -> int | None:
        """The hour from 0 to 23; None where nobody knows which half of the day is meant."""
        match self.clock:
            case "":
                return None
            case "24":
                return self.hour % 24
            case half:
                return self.hour % 12 + 12 * (half == "pm")

    def agrees(self, written: Time) -> bool:
        """Whether another time says this one at least as exactly: `5:45 pm` says 17:45 and 5:45, which say no `5:45 am`."""
        if not self._near(written):
            return False
        mine, theirs = self.of_day, written.of_day
        if mine is not None and theirs is not None:
            return mine == theirs
        return self.hour == written.hour and not (theirs is None and self.clock in ("am", "pm"))

    def may_be(self, written: Time) -> bool:
        """Whether another time may be this one, where one of the two does not say which half of the day is meant."""
        return self._near(written) and None in (self.of_day, written.of_day)

    def _near(self, written: Time) -> bool:
        return self.face == written.face and self.second in ("", written.second)


def times(text: str) -> list[Time]:
    """The times of the day of a text, in their order."""
    return [time for match in _TIME.finditer(even(text)) if (time := _time(match, text)) is not None]


def _time(match: re.Match[str], text: str) -> Time | None:
    minute, half = match["minute"] or match["point"], (match["half"] or "").lower()
    hour = int(match["hour"])
    if not (match["minute"] or half) or (half and not minute and not 1 <= hour <= 12):
        return None
    plain = match["iso"] is not None or not 1 <= hour <= 12 or (match["hour"].startswith("0") and not half)
    clock: Clock = "24" if plain else "am" if half == "a" else "pm" if half else ""
    whole, _, part = (match["second"] or "").replace(",", ".").partition(".")
    second = f"{whole}.{part.rstrip('0')}".rstrip(".") if (whole + part).strip("0") else ""
    return Time(hour, int(minute) if minute else None, second, clock, text[match.start() : match.end()], match.start())
