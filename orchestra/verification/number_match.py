"""Numbers as people say them: in digits, in words, as shares, ordinals and dozens; what an answer states, and what bears that out.

A number in words is looked up as one in digits is. `one`, `first` and `second`, a bare `half` and what stands behind `the`, as in
`the two`, may be no numbers (`small`); and in phrases such as `no one` and `at first` they are none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from operator import attrgetter

from orchestra.text.numbers.currencies import AFTER, named
from orchestra.text.numbers.numbers import Number, beside, numbers
from orchestra.text.numbers.phrases import NO_NUMBER, Phrase, hints, ones, phrases
from orchestra.text.numbers.units import unit_at
from orchestra.text.numbers.words import Written, written

FEW = 12
"""Numbers in words, at most, that may refer to what was named and count nothing new: `the two`, `all three`."""
_KNOWN = re.compile(
    r"\b(?:the|these|those|all|both|other|last|next|our|their|his|her|its|my|your|us|them|they|you|we|any|each|every|either)\s\Z",
    re.IGNORECASE,
)
_BEFORE = 12
_PER_CENT = re.compile(r"\s(?:per\s?cent|pct|percentage\spoints?)(?!\w)", re.IGNORECASE)
_MONEY = re.compile(rf"\s(?P<after>{AFTER})(?!\w)", re.IGNORECASE)
_JOINED = re.compile(r"[\s-](?:and[\s-])?", re.IGNORECASE)


def stated(text: str) -> list[Number]:
    """The numbers that a text states, in their order."""
    nothing = idioms(text)
    said = (one for one in _said(text) if not any(start <= one.start < end for start, end in nothing))
    return sorted((*numbers(text), *said), key=attrgetter("start"))


def idioms(text: str) -> list[tuple[int, int]]:
    """Where phrases stand whose words count nothing: `no one`, `at first`."""
    return [found.span() for found in NO_NUMBER.finditer(text)]


def is_slashed(number: Number) -> bool:
    """Whether a number is written with a stroke: `3/4` is a share, and may be two numbers."""
    return "/" in number.text or "\u2044" in number.text


def held(text: str) -> Iterator[Number]:
    """The numbers that a text holds, its figures aside, in each of their readings."""
    for number in _said(text):
        yield number
        if number.other is not None:
            yield replace(number, value=number.other, plain=number.other, other=None)
    for one, end in ones(text):
        yield replace(_number(text, one), text=text[one.start : end])


def is_quarter(number: Number) -> bool:
    """Whether a number is a quarter of a year: `Q4`, `fourth quarter`."""
    return number.text.lower().endswith(" quarter") or number.text[:1] == "Q"


def hinted(text: str) -> Iterator[Number]:
    """What bears out a number in words, and none in digits."""
    return (_number(text, one) for one in hints(text))


def _said(text: str) -> Iterator[Number]:
    """The numbers of a text that stand there in words, or with a stroke; each word is of one of them."""
    words = list(written(text))
    starts = [one.start for one in words]
    gone: set[int] = set()
    for phrase in phrases(text):
        at = bisect_right(starts, phrase.start) - 1
        last = words[at] if at >= 0 else None
        if phrase.ordinal and last is not None and (joined := _ordinal(text, last, phrase)) is not None:
            gone.add(at)
            yield _number(text, joined)
        elif last is None or last.end <= phrase.start or (last.start == phrase.start and last.end <= phrase.end):
            first = at if last is not None and last.start == phrase.start else at + 1
            gone.update(one for one in range(first, bisect_right(starts, phrase.end - 1)))
            yield _number(text, phrase)
    for at, one in enumerate(words):
        if at not in gone:
            yield _word(text, one)


def _ordinal(text: str, before: Written, last: Phrase) -> Phrase | None:
    """An ordinal of more than one word: `one hundred and twenty-fifth`, whose `hundred and twenty` is a number of its own."""
    if before.value < 100 or not (before.end > last.start or _JOINED.fullmatch(text, before.end, last.start)):
        return None
    tens = last.value // 10 * 10 if before.end > last.start else 0
    return Phrase(before.value - tens + last.value, before.start, last.end)


def _number(text: str, one: Phrase) -> Number:
    shown = text[one.start : one.end]
    if one.ordinal and text[one.end : one.end + len(" quarter")].lower() == " quarter":
        shown = text[one.start : one.end + len(" quarter")]
    found = Number(one.value, one.value, Fraction(0), text=shown, start=one.start, begin=one.start)
    return replace(found, measure=unit_at(text, one.end), small=one.small, other=one.other)


def _word(text: str, one: Written) -> Number:
    shown = text[one.start : one.end]
    found = Number(one.value, one.plain, one.step, text=shown, start=one.start, begin=one.start)
    if _PER_CENT.match(text, one.end):
        return replace(found, value=one.value / 100, step=one.step / 100, percent=True)
    if money := _MONEY.match(text, one.end):
        return replace(found, currency=named(money["after"]))
    measure, _, counts = beside(text, one.start, one.end)
    known = one.value <= FEW and _KNOWN.search(text, max(0, one.start - _BEFORE), one.start) is not None
    return replace(found, measure=measure, counts=counts, small=measure is None and (one.value in (0, 1) or known))
