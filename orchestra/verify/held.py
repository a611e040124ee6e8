"""The numbers and dates that evidence holds, found by what they are worth: one look for each number of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import TypeAlias

from orchestra.doors import Source
from orchestra.verify.numbers import Day, Number, days, numbers, same

Place: TypeAlias = tuple[Number, Source]


class Held:
    """What texts hold, each number once, at its first place."""

    __slots__ = ("_at", "_dashed", "_days", "_in_part", "_plain", "places")

    def __init__(self, evidence: Iterable[Source]) -> None:
        first: dict[tuple[str, Fraction], Place] = {}
        self._days: set[tuple[int | None, int, int | None]] = set()
        for source in evidence:
            for number in numbers(source.text, words=True):
                first.setdefault((number.text, number.value), (number, source))
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
