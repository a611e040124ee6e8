"""The numbers, dates and times that evidence holds, found by what they are worth: one look for each number of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from fractions import Fraction
from typing import TypeAlias

from orchestra.doors import Source
from orchestra.verify.numbers import Day, Number, days, numbers, same
from orchestra.verify.times import Time, times

Place: TypeAlias = tuple[Number, Source]


class Held:
    """What texts hold, each number once, at its first place."""

    __slots__ = ("_alone", "_at", "_dashed", "_days", "_in_part", "_plain", "_times", "places")

    def __init__(self, evidence: Iterable[Source]) -> None:
        first: dict[tuple[str, Fraction], Place] = {}
        self._alone: set[Fraction] = set()
        """Those that are no parts of times."""
        self._times: dict[tuple[tuple[int, int], str], dict[tuple[int, bool, str], tuple[Time, Source]]] = {}
        """By what clocks show, and seconds that say no more than they do: each time once, at its first place."""
        self._days: set[tuple[int | None, int, int | None]] = set()
        for source in evidence:
            clock = times(source.text)
            for time in clock:
                for second in time.less:
                    key = (time.hour, time.minute is None, time.clock)
                    self._times.setdefault((time.face, second), {}).setdefault(key, (time, source))
            to_the_minute = [time for time in clock if time.minute is not None]
            for number, inside in inside_of(to_the_minute, numbers(source.text, words=True)):
                first.setdefault((number.text, number.value), (number, source))
                if not inside:
                    self._alone.add(number.plain)
            for day in days(source.text):
                self._days |= _less(day)
        self.places = list(first.values())
        self._at: dict[Fraction, list[int]] = {}
        for at, (number, _) in enumerate(self.places):
            for worth in _worth(number):
                self._at.setdefault(worth, []).append(at)
        self._plain = {number.plain for number, _ in self.places}
        self._in_part = {part for number, _ in self.places for part in number.parts}
        self._dashed = {abs(number.plain) for number, _ in self.places if number.dashed}

    def find(self, number: Number) -> Place | None:
        """The first place of a number that says the same as that of an answer."""
        near = sorted({at for worth in _worth(number) for at in self._at.get(worth, ())})
        return next((self.places[at] for at in near if same(number, self.places[at][0])), None)

    def at(self, time: Time) -> tuple[Time, Source] | None:
        """The first place of a time that says that of an answer at least as exactly."""
        return next((one for one in self._near(time) if time.agrees(one[0])), None)

    def _near(self, time: Time) -> Iterable[tuple[Time, Source]]:
        return self._times.get((time.face, time.second), {}).values()

    def doubtful(self, time: Time) -> str:
        """Why nobody can tell whether a time that is not found stands there; empty where it does not."""
        if any(time.may_be(one) for one, _ in self._near(time)):
            return f"{time.text} is in the evidence, as a time that may be another one"
        parts = {Fraction(time.hour), *(Fraction(part) for part in (time.minute, time.second) if part and part != "00")}
        return f"the time {time.text} is not in the evidence, though its numbers are" if self._alone.issuperset(parts) else ""

    def operand(self, value: Fraction) -> Place | None:
        """The first place of a number that may be written so in an expression."""
        near = sorted({at for worth in (value, abs(value), -abs(value)) for at in self._at.get(worth, ())})
        return next((one for at in near if abs(value) in (abs((one := self.places[at])[0].value), abs(one[0].plain))), None)

    def doubt(self, number: Number) -> str:
        """Why nobody can tell whether a number that is not found stands there; empty where it does not."""
        if number.plain in self._plain:
            return f"{number.text} is in the evidence, with another scale or currency"
        if abs(number.plain) in self._dashed or (number.dashed and {number.plain, -number.plain} & self._plain):
            return f"{number.text} is in the evidence, with a dash or a word that may be a minus"
        if number.plain in self._in_part or (number.parts and not number.name and self._plain.issuperset(number.parts)):
            return f"{number.text} is in the evidence, as a part of another number or as two"
        return ""

    def has(self, day: Day) -> bool:
        """Whether a date stands there, at least as exactly."""
        return not self._days.isdisjoint((day.year, month, at) for month, at in _readings(day))


def inside_of(clock: Sequence[Time], found: Iterable[Number]) -> Iterator[tuple[Number, bool]]:
    """The numbers of a text, each with whether it is a part of one of these times of it; both in the order of the text."""
    spans = iter([(time.start, time.end) for time in clock])
    start, end = next(spans, (0, 0))
    for number in found:
        while end and end <= number.start:
            start, end = next(spans, (0, 0))
        yield number, start <= number.start < end


def _worth(number: Number) -> set[Fraction]:
    """What two numbers may have in common that say the same."""
    return {number.value, number.plain, abs(number.value), abs(number.plain)}


def _readings(day: Day) -> Iterator[tuple[int, int | None]]:
    yield day.month, day.day
    if day.other:
        yield day.other


def _less(day: Day) -> set[tuple[int | None, int, int | None]]:
    """What a date says, and what says less: without its day, without its year."""
    return {(year, month, at) for month, exact in _readings(day) for year in (day.year, None) for at in (exact, None)}
