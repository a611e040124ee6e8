"""Index of the numbers, dates and times in evidence, by value, for one lookup per number of an answer."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from fractions import Fraction
from typing import NamedTuple, TypeAlias

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.numbers import (
    CalendarDate,
    Number,
    differ_in_kind,
    find_dates,
    find_figures,
    move_number,
    same_number,
)
from orchestra.text.numbers.times import TimeOfDay, find_times
from orchestra.verification import number_match

CHUNK_SIZE = 1 << 14
"""Characters that are parsed at once."""
CHUNK_OVERLAP = 256
"""Characters before and after a chunk that are parsed with it. The context that decides what a number is, is shorter.
"""
LocatedNumber: TypeAlias = tuple[Number, EvidenceSource]


class EvidenceIndex:
    """Numbers, dates and times of texts, each at its first location."""

    __slots__ = (
        "_by_value",
        "_dashed_values",
        "_days",
        "_hints",
        "_part_values",
        "_plain_values",
        "_standalone",
        "_times",
        "numbers",
    )

    def __init__(self, evidence: Iterable[EvidenceSource]) -> None:
        first: dict[tuple[object, ...], LocatedNumber] = {}
        self._hints: dict[tuple[Fraction, bool], LocatedNumber] = {}
        """Numbers that support only numbers in words, or only quarters."""
        self._standalone: set[Fraction] = set()
        """Numbers that are not part of a time."""
        self._times: dict[
            tuple[tuple[int, int], str], dict[tuple[int, bool, str], tuple[TimeOfDay, EvidenceSource]]
        ] = {}
        """By clock face and by each coarser value of the seconds: each time at its first location."""
        self._days: dict[tuple[int | None, int, int | None], tuple[CalendarDate, EvidenceSource]] = {}
        """By date and by each coarser date: each at its first location."""
        for source in evidence:
            for piece in split_text(source.text):
                self._index_chunk(piece, source, first)
        self.numbers = list(first.values())
        self._by_value: dict[Fraction, list[int]] = {}
        for at, (number, _) in enumerate(self.numbers):
            for value in _lookup_values(number):
                self._by_value.setdefault(value, []).append(at)
        self._plain_values = {number.plain for number, _ in self.numbers}
        self._part_values = {part for number, _ in self.numbers for part in number.other_readings}
        self._dashed_values = {abs(number.plain) for number, _ in self.numbers if number.uncertain_minus}

    def _index_chunk(
        self, piece: TextChunk, source: EvidenceSource, first: dict[tuple[object, ...], LocatedNumber]
    ) -> None:
        """Indexes everything that begins in a chunk of a text."""
        clock = find_times(piece.text)
        for time in clock:
            if piece.contains(time.start):
                key = (time.hour, time.minute is None, time.clock_format)
                for second in time.coarser_seconds:
                    if key not in (alike := self._times.setdefault((time.clock_face, second), {})):
                        alike[key] = (replace(time, start=time.start + piece.offset), source)
        inside = SpanCursor((time.start, time.end) for time in clock if time.minute is not None)
        known, outside = set[int](), set[int]()
        for number, start in find_figures(piece.text):
            if not piece.contains(start):
                continue
            if not inside.contains(start) and id(number) not in outside:
                outside.add(id(number))
                self._standalone.add(number.plain)
            if id(number) not in known:
                known.add(id(number))
                first.setdefault(_number_key(number), (move_number(number, start + piece.offset), source))
        for number in number_match.candidate_numbers(piece.text):
            if piece.contains(number.start):
                self._standalone.add(number.plain)
                if (written := _number_key(number)) not in first:
                    first[written] = (move_number(number, number.start + piece.offset), source)
        for number in number_match.hint_numbers(piece.text):
            if (
                piece.contains(number.start)
                and (hint := (number.value, number_match.is_quarter(number))) not in self._hints
            ):
                self._hints[hint] = (move_number(number, number.start + piece.offset), source)
        for day in find_dates(piece.text):
            if piece.contains(day.start):
                for less in _date_keys(day) - self._days.keys():
                    self._days[less] = (replace(day, start=day.start + piece.offset), source)

    def find(self, number: Number) -> LocatedNumber | None:
        """First location of a number that says the same as this one of an answer."""
        near = sorted({at for value in _lookup_values(number) for at in self._by_value.get(value, ())})
        if (
            found := next((self.numbers[at] for at in near if same_number(number, self.numbers[at][0])), None)
        ) is not None:
            return found
        if number.alternative is not None:
            return self.find(replace(number, value=number.alternative, plain=number.alternative, alternative=None))
        if not number.text.replace("-", "").replace(" ", "").isalpha():
            return None
        plain = self._hints.get((number.value, False))
        return plain or (self._hints.get((number.value, True)) if number_match.is_quarter(number) else None)

    def find_time(self, time: TimeOfDay) -> tuple[TimeOfDay, EvidenceSource] | None:
        """First location of a time that says at least as much as this one of an answer."""
        return next((one for one in self._similar_times(time) if time.matches(one[0])), None)

    def _similar_times(self, time: TimeOfDay) -> Iterable[tuple[TimeOfDay, EvidenceSource]]:
        return self._times.get((time.clock_face, time.second), {}).values()

    def time_doubt(self, time: TimeOfDay) -> str:
        """Why it is undetermined whether a time that was not found is in the evidence; empty if it is not."""
        if any(time.may_match(one) for one, _ in self._similar_times(time)):
            return f"{time.text} is in the evidence, as a time that may be another one"
        parts = {Fraction(time.hour), *(Fraction(part) for part in (time.minute, time.second) if part and part != "00")}
        return (
            f"the time {time.text} is not in the evidence, though its numbers are"
            if self._standalone.issuperset(parts)
            else ""
        )

    def find_operand(self, value: Fraction) -> LocatedNumber | None:
        """First location of a number that may be written this way in an expression."""
        near = sorted(
            {at for candidate in (value, abs(value), -abs(value)) for at in self._by_value.get(candidate, ())}
        )
        return next(
            (one for at in near if abs(value) in (abs((one := self.numbers[at])[0].value), abs(one[0].plain))), None
        )

    def number_doubt(self, number: Number) -> str:
        """Why it is undetermined whether a number that was not found is in the evidence; empty if it is not."""
        others = [
            self.numbers[at][0]
            for at in self._by_value.get(number.plain, ())
            if self.numbers[at][0].plain == number.plain
        ]
        if others and not all(differ_in_kind(number, one) for one in others):
            return f"{number.text} is in the evidence, with another scale, unit or currency"
        if number_match.has_slash(number):
            return f"{number.text} is in the evidence as two numbers, and not as a share"
        if number.is_uncertain:
            return f"{number.text} is not in the evidence, and may be no number"
        if abs(number.plain) in self._dashed_values or (
            number.uncertain_minus and {number.plain, -number.plain} & self._plain_values
        ):
            return f"{number.text} is in the evidence, with a dash or a word that may be a minus"
        if number.plain in self._part_values or (
            number.other_readings and not number.identifier and self._plain_values.issuperset(number.other_readings)
        ):
            return f"{number.text} is in the evidence, as a part of another number or as two"
        return ""

    def find_day(self, day: CalendarDate) -> tuple[CalendarDate, EvidenceSource] | None:
        """First location of a date that says at least as much as this one of an answer."""
        return next(
            (one for month, at in _readings(day) if (one := self._days.get((day.year, month, at))) is not None), None
        )


class TextChunk(NamedTuple):
    """A chunk of a text with its context: `text`, which begins at `offset`, and the bounds of the chunk in it."""

    text: str
    offset: int
    begin: int
    end: int

    def contains(self, at: int) -> bool:
        """Whether a position in `text` is inside the chunk."""
        return self.begin <= at < self.end


def split_text(text: str, size: int = CHUNK_SIZE) -> Iterator[TextChunk]:
    """Splits a text into chunks of about `size` characters, at white space if some is near.

    No pattern scans more than one chunk at once, so that a thread which parses a megabyte lets other threads run in
    between.
    """
    start = 0
    while start < len(text) or not start:
        end = min(start + size, len(text))
        if end < len(text):
            blank = max(text.rfind(" ", start + size // 2, end), text.rfind("\n", start + size // 2, end))
            end = blank if blank > start else end
        offset = max(0, start - CHUNK_OVERLAP)
        yield TextChunk(text[offset : end + CHUNK_OVERLAP], offset, start - offset, end - offset)
        if end == len(text):
            return
        start = end


class SpanCursor:
    """Sorted spans of a text, queried with ascending positions."""

    __slots__ = ("_end", "_rest", "_start")

    def __init__(self, spans: Iterable[tuple[int, int]]) -> None:
        self._rest = iter(spans)
        self._start, self._end = next(self._rest, (0, 0))

    def contains(self, at: int) -> bool:
        """Whether a position is in one of the spans."""
        while self._end and self._end <= at:
            self._start, self._end = next(self._rest, (0, 0))
        return self._start <= at < self._end


def _number_key(number: Number) -> tuple[object, ...]:
    """Key of numbers that have the same text, value and unit."""
    return number.text, number.value, number.measure_unit, number.unknown_currency, number.counts_noun


def _lookup_values(number: Number) -> set[Fraction]:
    """Values that two numbers that say the same may have in common."""
    values = {number.value, number.plain, abs(number.value), abs(number.plain)}
    if number.measure_unit is not None:
        values.add(number.value * number.measure_unit.factor)
    if number.currency:
        values.add(number.value / 100)
        values.add(number.value * 100)
    return values


def _readings(day: CalendarDate) -> Iterator[tuple[int, int | None]]:
    yield day.month, day.day
    if day.alternative:
        yield day.alternative


def _date_keys(day: CalendarDate) -> set[tuple[int | None, int, int | None]]:
    """Keys of a date and of its coarser forms, without the day or the year."""
    return {(year, month, at) for month, exact in _readings(day) for year in (day.year, None) for at in (exact, None)}
