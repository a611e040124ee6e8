"""Intents: what a request wants, apart from how it is written and, one step further, from the literals that stand in it.

A request is cut into words, literals (quoted texts, dates, numbers, names) and signs; spaces and sentence punctuation are left out. Words
compare by their folding (NFKC, casefold), numbers by their value. A name is a run of capitalised words that does not begin a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeAlias

from orchestra.text.numbers.numbers import Number, days, numbers
from orchestra.text.quotes import fold

Kind: TypeAlias = tuple[Any, ...]
"""What a piece is: `("word",)`, `("name",)`, `("quoted",)`, `("date", …)`, `("number", …)`, `("sign",)`. Literals of one kind can stand
for each other."""

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_QUOTED = re.compile(
    r"""“[^“”\n]+”|„[^„“”\n]+[“”]|«[^«»\n]+»|"[^"\n]+"|`[^`\n]+`|(?<!\w)‘[^‘’\n]+’(?!\w)|(?<!\w)'[^'\n]+'(?!\w)""",
)
_MEANT = frozenset("#%&*@/\\_")
"""Punctuation, by its Unicode category, that means something all the same."""
_CONNECTORS = frozenset({"of", "the", "de", "la", "le", "du", "di", "da", "del", "der", "den", "van", "von", "bin", "al"})
"""Small words inside names, as in Bank of England."""
_ENDS = frozenset(".!?:;\n…")
"""What stands before the first word of a sentence."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A word, a literal or a sign of a request, and where it stands in its text."""

    kind: Kind
    key: str
    """Equal where two of one kind say the same."""
    start: int
    end: int
    inset: int = 0
    """Characters of the marks around a quoted text, on each side."""
    value: Number | None = None

    @property
    def literal(self) -> bool:
        """Whether another one of its kind can stand there."""
        return self.kind[0] not in ("word", "sign")

    @property
    def start_inside(self) -> int:
        """Where it begins, without its quotation mark."""
        return self.start + self.inset

    @property
    def end_inside(self) -> int:
        """Where it ends, without its quotation mark."""
        return self.end - self.inset

    @property
    def values(self) -> set[int]:
        """The whole numbers that it may be read as."""
        if self.value is None:
            return set()
        return {int(one) for one in (self.value.value, self.value.plain) if one.denominator == 1}


@dataclass(frozen=True)
class Intent:
    """A request, cut into pieces. `text` is its canonical composition (NFC), which all places refer to."""

    text: str
    flat: tuple[Piece, ...]
    """With names as the words that they are."""
    named: tuple[Piece, ...]
    """With each name as one piece."""

    @classmethod
    def of(cls, request: str) -> Intent:
        """The intent of a request."""
        text = unicodedata.normalize("NFC", request)
        flat = tuple(_pieces(text))
        return cls(text, flat, tuple(_named(text, flat)))

    @property
    def words(self) -> list[Any]:
        """Equal for requests that say the same, literals included."""
        return [[*map(str, piece.kind), piece.key] for piece in self.flat]

    @property
    def skeleton(self) -> list[Any]:
        """Equal for requests that say the same but for their literals."""
        return [[*map(str, piece.kind), "" if piece.literal else piece.key] for piece in self.named]

    @cached_property
    def written(self) -> frozenset[Fraction]:
        """The values of numbers that are written in words."""
        found = numbers(self.text, words=True)
        return frozenset(number.value for number in found if not any(char.isdigit() for char in number.text))

    def places(self, said: str) -> list[tuple[int, int]]:
        """Where a text stands in the request: as whole words, and where it stands nowhere so, anywhere."""
        wanted = unicodedata.normalize("NFC", said)
        if not wanted:
            return []
        found = [(found.start(), found.end()) for found in re.finditer(re.escape(wanted), self.text)]
        whole = [place for place in found if self._whole(*place)]
        return whole or found

    def _whole(self, start: int, end: int) -> bool:
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        cut_before = before.isalnum() and self.text[start].isalnum()
        return not cut_before and not (after.isalnum() and self.text[end - 1].isalnum())


@dataclass(frozen=True, slots=True)
class Pair:
    """A piece of one request, or what stands between two, with its counterpart in another; `same` where they are letter for letter so."""

    old: Piece
    new: Piece
    same: bool

    @property
    def changed(self) -> bool:
        """Whether it is a literal that says something else now."""
        return self.old.literal and self.old.key != self.new.key

    def number(self, value: int | float) -> int | float | None:
        """What a number is now that was read from here; None where it was not."""
        old, new = self.old.value, self.new.value
        if old is None or new is None:
            return None
        exact = Fraction(value)
        if exact not in (old.value, old.plain) and float(value) not in (float(old.value), float(old.plain)):
            return None
        by_value = exact == old.value or float(value) == float(old.value)
        read = new.value if by_value else new.plain
        return int(read) if isinstance(value, int) and read.denominator == 1 else float(read)

    def at(self, place: int) -> int | None:
        """Where a place of the old one is in the new one; None where that is not known."""
        old, new = self.old, self.new
        if not old.start <= place <= old.end:
            return None
        if place == old.start:
            return new.start
        if place == old.end:
            return new.end
        if self.same:
            return new.start + place - old.start
        if old.inset and place == old.start_inside:
            return new.start_inside
        return new.end_inside if old.inset and place == old.end_inside else None


def aligned(old: Sequence[Piece], new: Sequence[Piece], before: str, after: str) -> tuple[Pair, ...]:
    """The pieces of two requests that are alike, and what stands between them, side by side."""
    pairs: list[Pair] = []
    last_old = last_new = 0
    for one, other in zip(old, new, strict=True):
        pairs.append(_pair(_gap(last_old, one.start), _gap(last_new, other.start), before, after))
        pairs.append(_pair(one, other, before, after))
        last_old, last_new = one.end, other.end
    pairs.append(_pair(_gap(last_old, len(before)), _gap(last_new, len(after)), before, after))
    return tuple(pairs)


def _gap(start: int, end: int) -> Piece:
    return Piece(("sign",), "", start, end)


def _pair(one: Piece, other: Piece, before: str, after: str) -> Pair:
    return Pair(one, other, before[one.start : one.end] == after[other.start : other.end])


def _pieces(text: str) -> Iterator[Piece]:
    """The pieces of a text in their order, names as words."""
    literals = sorted(_literals(text), key=lambda piece: piece.start)
    at = 0
    for literal in literals:
        yield from _plain(text, at, literal.start)
        yield literal
        at = literal.end
    yield from _plain(text, at, len(text))


def _plain(text: str, start: int, end: int) -> Iterator[Piece]:
    at = start
    while at < end:
        if word := _WORD.match(text, at, end):
            yield Piece(("word",), fold(word[0].replace("’", "'")).text, at, word.end())
            at = word.end()
            continue
        if not _left_out(text[at]):
            yield Piece(("sign",), unicodedata.normalize("NFKC", text[at]), at, at + 1)
        at += 1


def _left_out(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "ZC" or (category[0] == "P" and char not in _MEANT)


def _literals(text: str) -> Iterator[Piece]:
    """Quoted texts; outside of them dates; outside of both numbers that are no part of a word."""
    taken: list[tuple[int, int]] = []

    def free(start: int, end: int) -> bool:
        return all(end <= begin or stop <= start for begin, stop in taken)

    for match in _QUOTED.finditer(text):
        taken.append(match.span())
        yield Piece(("quoted",), fold(match[0][1:-1]).text.strip(), *match.span(), inset=1)
    for day in days(text):
        start, end = day.start, day.start + len(day.text)
        if free(start, end):
            taken.append((start, end))
            yield Piece(("date", day.year is not None, day.day is not None), f"{day.year}-{day.month}-{day.day}-{day.other}", start, end)
    words = [match.span() for match in _WORD.finditer(text)]
    for number in numbers(text):
        start = text.rfind(number.text, 0, number.start + len(number.text))
        end = start + len(number.text)
        begun = any(begin < start < stop for begin, stop in words)
        if start >= 0 and start <= number.start < end and not begun and free(start, end):
            if not number.bracketed:  # one bracket alone is none of the number's
                start, end = start + number.text.startswith("("), end - number.text.endswith(")")
            taken.append((start, end))
            sign = text[start] if text[start] in "+-−–" else ""  # a sum is no difference
            scale = number.value / number.plain if number.plain else Fraction(1, 100 if number.percent else 1)
            kind = ("number", number.currency, number.percent, number.bracketed, sign, str(scale))
            yield Piece(kind, str(number.value), start, end, value=number)


def _named(text: str, flat: Sequence[Piece]) -> Iterator[Piece]:
    """The pieces with each run of capitalised words as one."""
    at = 0
    while at < len(flat):
        piece = flat[at]
        if not _capital(text, piece) or _begins(text, piece.start):
            yield piece
            at += 1
            continue
        last = at
        while (after := _next(text, flat, last)) is not None:
            last = after
        start, end = piece.start, flat[last].end
        yield Piece(("name",), fold(text[start:end]).text, start, end)
        at = last + 1


def _next(text: str, flat: Sequence[Piece], last: int) -> int | None:
    """The next capitalised word of a name: the neighbour, or one behind at most two connectors."""
    for after in range(last + 1, min(last + 4, len(flat))):
        gap = text[flat[after - 1].end : flat[after].start]
        if gap.strip(" \t") or flat[after].kind != ("word",):
            return None
        if _capital(text, flat[after]):
            return after
        if flat[after].key not in _CONNECTORS:
            return None
    return None


def _capital(text: str, piece: Piece) -> bool:
    return piece.kind == ("word",) and text[piece.start].isupper()


def _begins(text: str, start: int) -> bool:
    """Whether a sentence begins here."""
    before = text[:start].rstrip(" \t\"'“‘«(")
    return not before or before[-1] in _ENDS
