"""Numbers as people write them: in digits, in words, as fractions, ordinals and dozens; those that an answer states,
and those that support them.

A number in words is looked up like one in digits. `one`, `first`, `second`, a bare `half` and numbers after `the`, as
in `the two`, may be no numbers (`is_uncertain`). In phrases such as `no one` and `at first` they are none.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from operator import attrgetter

from orchestra.text.numbers.currencies import SUFFIX_PATTERN, currency_code
from orchestra.text.numbers.numbers import Number, find_numbers, number_context
from orchestra.text.numbers.units import unit_at
from orchestra.text.numbers.words import (
    NON_NUMBER_PATTERN,
    NumberPhrase,
    WrittenNumber,
    find_hints,
    find_phrases,
    find_unit_articles,
    find_written_numbers,
)

MAX_BACK_REFERENCE = 12
"""Largest number in words that may refer back and count nothing new: `the two`, `all three`."""
_DETERMINER = re.compile(
    r"\b(?:the|these|those|all|both|other|last|next|our|their|his|her|its|my|your|us|them|they|you|we|any|each|every|either)\s\Z",
    re.IGNORECASE,
)
_DETERMINER_WINDOW = 12
_PER_CENT = re.compile(r"\s(?:per\s?cent|pct|percentage\spoints?)(?!\w)", re.IGNORECASE)
_CURRENCY = re.compile(rf"\s(?P<after>{SUFFIX_PATTERN})(?!\w)", re.IGNORECASE)
_CONJUNCTION = re.compile(r"[\s-](?:and[\s-])?", re.IGNORECASE)


def stated_numbers(text: str) -> list[Number]:
    """Numbers that a text states, in order."""
    nothing = non_numeric_spans(text)
    numbers = (one for one in _worded_numbers(text) if not any(start <= one.start < end for start, end in nothing))
    return sorted((*find_numbers(text), *numbers), key=attrgetter("start"))


def non_numeric_spans(text: str) -> list[tuple[int, int]]:
    """Spans of phrases whose words count nothing: `no one`, `at first`."""
    return [found.span() for found in NON_NUMBER_PATTERN.finditer(text)]


def has_slash(number: Number) -> bool:
    """Whether a number is written with a slash: `3/4` is a fraction, and may be two numbers."""
    return "/" in number.text or "\u2044" in number.text


def candidate_numbers(text: str) -> Iterator[Number]:
    """Numbers of a text other than figures, in each of their readings."""
    for number in _worded_numbers(text):
        yield number
        if number.alternative is not None:
            yield replace(number, value=number.alternative, plain=number.alternative, alternative=None)
    for one, end in find_unit_articles(text):
        yield replace(_phrase_number(text, one), text=text[one.start : end])


def is_quarter(number: Number) -> bool:
    """Whether a number is a quarter of a year: `Q4`, `fourth quarter`."""
    return number.text.lower().endswith(" quarter") or number.text[:1] == "Q"


def hint_numbers(text: str) -> Iterator[Number]:
    """Numbers that support a number in words, but none in digits."""
    return (_phrase_number(text, one) for one in find_hints(text))


def _worded_numbers(text: str) -> Iterator[Number]:
    """Numbers of a text in words or with a slash. Each word belongs to one of them."""
    words = list(find_written_numbers(text))
    starts = [one.start for one in words]
    gone: set[int] = set()
    for phrase in find_phrases(text):
        at = bisect_right(starts, phrase.start) - 1
        last = words[at] if at >= 0 else None
        if phrase.ordinal and last is not None and (joined := _compound_ordinal(text, last, phrase)) is not None:
            gone.add(at)
            yield _phrase_number(text, joined)
        elif last is None or last.end <= phrase.start or (last.start == phrase.start and last.end <= phrase.end):
            first = at if last is not None and last.start == phrase.start else at + 1
            gone.update(one for one in range(first, bisect_right(starts, phrase.end - 1)))
            yield _phrase_number(text, phrase)
    for at, one in enumerate(words):
        if at not in gone:
            yield _written_number(text, one)


def _compound_ordinal(text: str, before: WrittenNumber, last: NumberPhrase) -> NumberPhrase | None:
    """An ordinal of several words: `one hundred and twenty-fifth`, where `hundred and twenty` is also a number."""
    if before.value < 100 or not (before.end > last.start or _CONJUNCTION.fullmatch(text, before.end, last.start)):
        return None
    tens = last.value // 10 * 10 if before.end > last.start else 0
    return NumberPhrase(before.value - tens + last.value, before.start, last.end)


def _phrase_number(text: str, one: NumberPhrase) -> Number:
    shown = text[one.start : one.end]
    if one.ordinal and text[one.end : one.end + len(" quarter")].lower() == " quarter":
        shown = text[one.start : one.end + len(" quarter")]
    found = Number(one.value, one.value, Fraction(0), text=shown, start=one.start, begin=one.start)
    return replace(
        found, measure_unit=unit_at(text, one.end), is_uncertain=one.is_uncertain, alternative=one.alternative
    )


def _written_number(text: str, one: WrittenNumber) -> Number:
    shown = text[one.start : one.end]
    found = Number(one.value, one.plain, one.step, text=shown, start=one.start, begin=one.start)
    if _PER_CENT.match(text, one.end):
        return replace(found, value=one.value / 100, step=one.step / 100, percent=True)
    if money := _CURRENCY.match(text, one.end):
        return replace(found, currency=currency_code(money["after"]))
    measure, _, counts = number_context(text, one.start, one.end)
    known = (
        one.value <= MAX_BACK_REFERENCE
        and _DETERMINER.search(text, max(0, one.start - _DETERMINER_WINDOW), one.start) is not None
    )
    return replace(
        found, measure_unit=measure, counts_noun=counts, is_uncertain=measure is None and (one.value in (0, 1) or known)
    )
