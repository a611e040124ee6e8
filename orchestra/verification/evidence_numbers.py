"""The numbers, dates and times that evidence holds, found by what they are worth: one look for each number of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from orchestra.core.protocols import Source
from orchestra.text.numbers.numbers import Day, Number, days, differ, figures, moved, same
from orchestra.text.numbers.times import Time, times
from orchestra.verification import number_match

PIECE = 1 << 14
"""Characters that are read at once."""
AROUND = 256
"""Characters before and behind these that are read with them; what a number is, less than these say."""
Place: TypeAlias = tuple[Number, Source]


class Held:
    """What texts hold, each number once, at its first place."""

    __slots__ = ("_alone", "_at", "_dashed", "_days", "_hinted", "_in_part", "_plain", "_times", "places")

    def __init__(self, evidence: Iterable[Source]) -> None:
        first: dict[tuple[object, ...], Place] = {}
        self._hinted: dict[tuple[Fraction, bool], Place] = {}
        """What bears out numbers in words alone, or quarters alone."""
        self._alone: set[Fraction] = set()
        """Those that are no parts of times."""
        self._times: dict[tuple[tuple[int, int], str], dict[tuple[int, bool, str], tuple[Time, Source]]] = {}
        """By what clocks show, and seconds that say no more than they do: each time once, at its first place."""
        self._days: dict[tuple[int | None, int, int | None], tuple[Day, Source]] = {}
        """By what they say, and what says less: each at its first place."""
        for source in evidence:
            for piece in pieces(source.text):
                self._read(piece, source, first)
        self.places = list(first.values())
        self._at: dict[Fraction, list[int]] = {}
        for at, (number, _) in enumerate(self.places):
            for worth in _worth(number):
                self._at.setdefault(worth, []).append(at)
        self._plain = {number.plain for number, _ in self.places}
        self._in_part = {part for number, _ in self.places for part in number.parts}
        self._dashed = {abs(number.plain) for number, _ in self.places if number.dashed}

    def _read(self, piece: Piece, source: Source, first: dict[tuple[object, ...], Place]) -> None:
        """Takes in what begins in a piece of a text."""
        clock = times(piece.text)
        for time in clock:
            if piece.has(time.start):
                key = (time.hour, time.minute is None, time.clock)
                for second in time.less:
                    if key not in (alike := self._times.setdefault((time.face, second), {})):
                        alike[key] = (replace(time, start=time.start + piece.offset), source)
        inside = Spans((time.start, time.end) for time in clock if time.minute is not None)
        known, outside = set[int](), set[int]()
        for number, start in figures(piece.text):
            if not piece.has(start):
                continue
            if not inside.has(start) and id(number) not in outside:
                outside.add(id(number))
                self._alone.add(number.plain)
            if id(number) not in known:
                known.add(id(number))
                first.setdefault(_written(number), (moved(number, start + piece.offset), source))
        for number in number_match.held(piece.text):
            if piece.has(number.start):
                self._alone.add(number.plain)
                if (written := _written(number)) not in first:
                    first[written] = (moved(number, number.start + piece.offset), source)
        for number in number_match.hinted(piece.text):
            if piece.has(number.start) and (hint := (number.value, number_match.is_quarter(number))) not in self._hinted:
                self._hinted[hint] = (moved(number, number.start + piece.offset), source)
        for day in days(piece.text):
            if piece.has(day.start):
                for less in _less(day) - self._days.keys():
                    self._days[less] = (replace(day, start=day.start + piece.offset), source)

    def find(self, number: Number) -> Place | None:
        """The first place of a number that says the same as that of an answer."""
        near = sorted({at for worth in _worth(number) for at in self._at.get(worth, ())})
        if (found := next((self.places[at] for at in near if same(number, self.places[at][0])), None)) is not None:
            return found
        if number.other is not None:
            return self.find(replace(number, value=number.other, plain=number.other, other=None))
        if not number.text.replace("-", "").replace(" ", "").isalpha():
            return None
        plain = self._hinted.get((number.value, False))
        return plain or (self._hinted.get((number.value, True)) if number_match.is_quarter(number) else None)

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
        others = [self.places[at][0] for at in self._at.get(number.plain, ()) if self.places[at][0].plain == number.plain]
        if others and not all(differ(number, one) for one in others):
            return f"{number.text} is in the evidence, with another scale, unit or currency"
        if number_match.is_slashed(number):
            return f"{number.text} is in the evidence as two numbers, and not as a share"
        if number.small:
            return f"{number.text} is not in the evidence, and may be no number"
        if abs(number.plain) in self._dashed or (number.dashed and {number.plain, -number.plain} & self._plain):
            return f"{number.text} is in the evidence, with a dash or a word that may be a minus"
        if number.plain in self._in_part or (number.parts and not number.name and self._plain.issuperset(number.parts)):
            return f"{number.text} is in the evidence, as a part of another number or as two"
        return ""

    def on(self, day: Day) -> tuple[Day, Source] | None:
        """The first place of a date that says that of an answer at least as exactly."""
        return next((one for month, at in _readings(day) if (one := self._days.get((day.year, month, at))) is not None), None)


class Piece(NamedTuple):
    """A piece of a text with what stands around it (`text`, which begins at `offset`), and where in that it begins and ends."""

    text: str
    offset: int
    begin: int
    end: int

    def has(self, at: int) -> bool:
        """Whether something that begins there begins in the piece."""
        return self.begin <= at < self.end


def pieces(text: str, size: int = PIECE) -> Iterator[Piece]:
    """A text in pieces of about `size` characters, cut at a blank where there is one near.

    No pattern looks at more than a piece at once, so that a thread which reads a megabyte lets others have their turns in between.
    """
    start = 0
    while start < len(text) or not start:
        end = min(start + size, len(text))
        if end < len(text):
            blank = max(text.rfind(" ", start + size // 2, end), text.rfind("\n", start + size // 2, end))
            end = blank if blank > start else end
        offset = max(0, start - AROUND)
        yield Piece(text[offset : end + AROUND], offset, start - offset, end - offset)
        if end == len(text):
            return
        start = end


class Spans:
    """Stretches of a text in their order, asked about places in their order."""

    __slots__ = ("_end", "_rest", "_start")

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._rest = iter(spans)
        self._start, self._end = next(self._rest, (0, 0))

    def has(self, at: int) -> bool:
        """Whether a place is in one of them."""
        while self._end and self._end <= at:
            self._start, self._end = next(self._rest, (0, 0))
        return self._start <= at < self._end


def _written(number: Number) -> tuple[object, ...]:
    """What numbers have in common that are written alike, of the same thing."""
    return number.text, number.value, number.measure, number.strange, number.counts


def _worth(number: Number) -> set[Fraction]:
    """What two numbers may have in common that say the same."""
    worth = {number.value, number.plain, abs(number.value), abs(number.plain)}
    if number.measure is not None:
        worth.add(number.value * number.measure.size)
    if number.currency:
        worth.add(number.value / 100)
        worth.add(number.value * 100)
    return worth


def _readings(day: Day) -> Iterator[tuple[int, int | None]]:
    yield day.month, day.day
    if day.other:
        yield day.other


def _less(day: Day) -> set[tuple[int | None, int, int | None]]:
    """What a date says, and what says less: without its day, without its year."""
    return {(year, month, at) for month, exact in _readings(day) for year in (day.year, None) for at in (exact, None)}
