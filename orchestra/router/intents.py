"""Intents: normal forms of a request, one without differences of spelling, and one also without its literals.

A request is split into words, literals (quoted texts, dates, numbers, names) and signs. Spaces and sentence punctuation
are left out. Words compare after folding (NFKC, casefold), numbers by value. A name is a run of capitalized words that
does not begin a sentence.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from typing import Any, TypeAlias

from orchestra.text.numbers.numbers import Number, find_dates, find_numbers
from orchestra.text.quotes import fold

TokenKind: TypeAlias = tuple[Any, ...]
"""Kind of a token: `("word",)`, `("name",)`, `("quoted",)`, `("date", …)`, `("number", …)`, `("sign",)`. Literals of
one kind can replace each other.
"""

_WORD = re.compile(r"\w+(?:['’\-]\w+)*")
_QUOTED = re.compile(
    r"""“[^“”\n]+”|„[^„“”\n]+[“”]|«[^«»\n]+»|"[^"\n]+"|`[^`\n]+`|(?<!\w)‘[^‘’\n]+’(?!\w)|(?<!\w)'[^'\n]+'(?!\w)""",
)
_MEANINGFUL_SIGNS = frozenset("#%&*@/\\_")
"""Characters with a Unicode category of punctuation that are still tokens."""
_CONNECTORS = frozenset(
    {"of", "the", "de", "la", "le", "du", "di", "da", "del", "der", "den", "van", "von", "bin", "al"}
)
"""Small words inside names, as in Bank of England."""
_SENTENCE_ENDS = frozenset(".!?:;\n…")
"""Characters before the first word of a sentence."""


@dataclass(frozen=True, slots=True)
class RequestToken:
    """A word, a literal or a sign of a request, with its span in the text."""

    kind: TokenKind
    key: str
    """Equal for tokens of one kind that say the same."""
    start: int
    end: int
    quote_width: int = 0
    """Width of the quotation marks of a quoted text, on each side."""
    value: Number | None = None

    @property
    def is_literal(self) -> bool:
        """Whether another literal of its kind can replace it."""
        return self.kind[0] not in ("word", "sign")

    @property
    def inner_start(self) -> int:
        """Start without the quotation mark."""
        return self.start + self.quote_width

    @property
    def inner_end(self) -> int:
        """End without the quotation mark."""
        return self.end - self.quote_width

    @property
    def integers(self) -> set[int]:
        """Integers that it may be read as."""
        if self.value is None:
            return set()
        return {int(number) for number in (self.value.value, self.value.plain) if number.denominator == 1}


@dataclass(frozen=True)
class Intent:
    """A tokenized request. `text` is normalized (NFC), and all positions refer to it."""

    text: str
    word_tokens: tuple[RequestToken, ...]
    """Tokens with names as separate words."""
    named_tokens: tuple[RequestToken, ...]
    """Tokens with each name as one token."""

    @classmethod
    def of(cls, request: str) -> Intent:
        """Builds the intent of a request."""
        text = unicodedata.normalize("NFC", request)
        flat = tuple(_tokenize(text))
        return cls(text, flat, tuple(_merge_names(text, flat)))

    @property
    def exact_key(self) -> list[Any]:
        """Equal for requests that say the same, with the same literals."""
        return [[*map(str, piece.kind), piece.key] for piece in self.word_tokens]

    @property
    def template_key(self) -> list[Any]:
        """Equal for requests that say the same except for their literals."""
        return [[*map(str, piece.kind), "" if piece.is_literal else piece.key] for piece in self.named_tokens]

    @cached_property
    def spelled_numbers(self) -> frozenset[Fraction]:
        """Values of numbers in words."""
        numbers = find_numbers(self.text, words=True)
        return frozenset(number.value for number in numbers if not any(char.isdigit() for char in number.text))

    def find(self, said: str) -> list[tuple[int, int]]:
        """Spans of a text in the request: as whole words, or if there are none, anywhere."""
        phrase = unicodedata.normalize("NFC", said)
        if not phrase:
            return []
        spans = [(match.start(), match.end()) for match in re.finditer(re.escape(phrase), self.text)]
        whole_spans = [place for place in spans if self._is_whole_word(*place)]
        return whole_spans or spans

    def _is_whole_word(self, start: int, end: int) -> bool:
        before, after = self.text[start - 1 : start], self.text[end : end + 1]
        cut_before = before.isalnum() and self.text[start].isalnum()
        return not cut_before and not (after.isalnum() and self.text[end - 1].isalnum())


@dataclass(frozen=True, slots=True)
class AlignedToken:
    """A token or a gap of one request, aligned with its counterpart in another request.

    `is_identical` is true if both are the same, letter for letter.
    """

    old: RequestToken
    new: RequestToken
    is_identical: bool

    @property
    def is_changed(self) -> bool:
        """Whether it is a literal with another value in the new request."""
        return self.old.is_literal and self.old.key != self.new.key

    def map_number(self, value: int | float) -> int | float | None:
        """Maps a number that was read from here to the new request; None if it was not read from here."""
        old, new = self.old.value, self.new.value
        if old is None or new is None:
            return None
        exact = Fraction(value)
        if exact not in (old.value, old.plain) and float(value) not in (float(old.value), float(old.plain)):
            return None
        by_value = exact == old.value or float(value) == float(old.value)
        number = new.value if by_value else new.plain
        return int(number) if isinstance(value, int) and number.denominator == 1 else float(number)

    def map_position(self, position: int) -> int | None:
        """Maps a position to the new request; None if unknown."""
        old, new = self.old, self.new
        if not old.start <= position <= old.end:
            return None
        if position == old.start:
            return new.start
        if position == old.end:
            return new.end
        if self.is_identical:
            return new.start + position - old.start
        if old.quote_width and position == old.inner_start:
            return new.inner_start
        return new.inner_end if old.quote_width and position == old.inner_end else None


def align(
    old: Sequence[RequestToken], new: Sequence[RequestToken], before: str, after: str
) -> tuple[AlignedToken, ...]:
    """Aligns the tokens of two requests of the same form, and the gaps between them."""
    pairs: list[AlignedToken] = []
    last_old = last_new = 0
    for token, other_token in zip(old, new, strict=True):
        pairs.append(_align_pair(_gap(last_old, token.start), _gap(last_new, other_token.start), before, after))
        pairs.append(_align_pair(token, other_token, before, after))
        last_old, last_new = token.end, other_token.end
    pairs.append(_align_pair(_gap(last_old, len(before)), _gap(last_new, len(after)), before, after))
    return tuple(pairs)


def _gap(start: int, end: int) -> RequestToken:
    return RequestToken(("sign",), "", start, end)


def _align_pair(token: RequestToken, other_token: RequestToken, before: str, after: str) -> AlignedToken:
    return AlignedToken(
        token, other_token, before[token.start : token.end] == after[other_token.start : other_token.end]
    )


def _tokenize(text: str) -> Iterator[RequestToken]:
    """Splits a text into tokens, with names as separate words."""
    literals = sorted(_literal_tokens(text), key=lambda piece: piece.start)
    at = 0
    for literal in literals:
        yield from _plain_tokens(text, at, literal.start)
        yield literal
        at = literal.end
    yield from _plain_tokens(text, at, len(text))


def _plain_tokens(text: str, start: int, end: int) -> Iterator[RequestToken]:
    at = start
    while at < end:
        if word := _WORD.match(text, at, end):
            yield RequestToken(("word",), fold(word[0].replace("’", "'")).text, at, word.end())
            at = word.end()
            continue
        if not _is_ignored(text[at]):
            yield RequestToken(("sign",), unicodedata.normalize("NFKC", text[at]), at, at + 1)
        at += 1


def _is_ignored(char: str) -> bool:
    category = unicodedata.category(char)
    return category[0] in "ZC" or (category[0] == "P" and char not in _MEANINGFUL_SIGNS)


def _literal_tokens(text: str) -> Iterator[RequestToken]:
    """Quoted texts; outside of them dates; outside of both, numbers that are not part of a word."""
    literal_spans: list[tuple[int, int]] = []

    def is_free(start: int, end: int) -> bool:
        return all(end <= begin or stop <= start for begin, stop in literal_spans)

    for match in _QUOTED.finditer(text):
        literal_spans.append(match.span())
        yield RequestToken(("quoted",), fold(match[0][1:-1]).text.strip(), *match.span(), quote_width=1)
    for day in find_dates(text):
        start, end = day.start, day.start + len(day.text)
        if is_free(start, end):
            literal_spans.append((start, end))
            yield RequestToken(
                ("date", day.year is not None, day.day is not None),
                f"{day.year}-{day.month}-{day.day}-{day.alternative}",
                start,
                end,
            )
    words = [match.span() for match in _WORD.finditer(text)]
    for number in find_numbers(text):
        start = text.rfind(number.text, 0, number.start + len(number.text))
        end = start + len(number.text)
        is_inside = any(begin < start < stop for begin, stop in words)
        if start >= 0 and start <= number.start < end and not is_inside and is_free(start, end):
            if not number.bracketed:  # a single bracket is not part of the number
                start, end = start + number.text.startswith("("), end - number.text.endswith(")")
            literal_spans.append((start, end))
            sign = text[start] if text[start] in "+-−–" else ""  # a sign makes it another kind
            scale = number.value / number.plain if number.plain else Fraction(1, 100 if number.percent else 1)
            kind = ("number", number.currency, number.percent, number.bracketed, sign, str(scale))
            yield RequestToken(kind, str(number.value), start, end, value=number)


def _merge_names(text: str, flat: Sequence[RequestToken]) -> Iterator[RequestToken]:
    """Merges each run of capitalized words into one token."""
    at = 0
    while at < len(flat):
        piece = flat[at]
        if not _is_capitalized(text, piece) or _starts_sentence(text, piece.start):
            yield piece
            at += 1
            continue
        last = at
        while (after := _next_name_word(text, flat, last)) is not None:
            last = after
        start, end = piece.start, flat[last].end
        yield RequestToken(("name",), fold(text[start:end]).text, start, end)
        at = last + 1


def _next_name_word(text: str, flat: Sequence[RequestToken], last: int) -> int | None:
    """Index of the next capitalized word of a name: the neighbour, or one after at most two connectors."""
    for after in range(last + 1, min(last + 4, len(flat))):
        gap = text[flat[after - 1].end : flat[after].start]
        if gap.strip(" \t") or flat[after].kind != ("word",):
            return None
        if _is_capitalized(text, flat[after]):
            return after
        if flat[after].key not in _CONNECTORS:
            return None
    return None


def _is_capitalized(text: str, piece: RequestToken) -> bool:
    return piece.kind == ("word",) and text[piece.start].isupper()


def _starts_sentence(text: str, start: int) -> bool:
    """Whether a sentence begins here."""
    before = text[:start].rstrip(" \t\"'“‘«(")
    return not before or before[-1] in _SENTENCE_ENDS
