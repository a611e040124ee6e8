"""Numbers that a text writes in words: `twenty-one`, `a hundred and five`, `two million three hundred thousand`, `half a million`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction
from typing import Final, NamedTuple

from orchestra.text.keywords import CASE_FOLDS

UNIT_WORDS: Final = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
TENS_WORDS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
SMALL_NUMBERS: Final = {name: value for value, name in enumerate(UNIT_WORDS)} | {
    name: 10 * value for value, name in enumerate(TENS_WORDS, 2)
}
"""Words for what is less than a hundred."""
POWER_WORDS: Final = {"hundred": 2, "thousand": 3, "million": 6, "billion": 9, "trillion": 12}
"""Words that multiply, and by what power of ten."""
_POWER = "|".join(POWER_WORDS)
_WORD = rf"(?:{'|'.join(sorted((*SMALL_NUMBERS, *POWER_WORDS), key=len, reverse=True))})\b"
NUMBER_WORDS_PATTERN: Final = rf"{_WORD}(?:[\s-](?:and[\s-])?{_WORD})*"
"""A row of number words, as a pattern; `find_written_numbers` says how many numbers it is."""
_SMALL = (
    rf"(?:(?P<tens>{'|'.join(TENS_WORDS)})(?:[\s-](?P<unit>{'|'.join(UNIT_WORDS[1:10])}))?|(?P<word>{'|'.join(reversed(UNIT_WORDS))}))\b"
)
_START = re.compile(rf"\b(?:(?P<one>an?)(?=[\s-](?:{_POWER})\b)|(?P<part>half|quarter|an?[\s-](?:half|quarter))\b|{_SMALL})", re.IGNORECASE)
_NEXT = re.compile(rf"[\s-](?P<and>and[\s-])?{_SMALL}", re.IGNORECASE)
"""What may follow `two hundred` or `two million`: `and five`, `three hundred`."""
_HUNDREDS = re.compile(r"[\s-]hundred\b", re.IGNORECASE)
_SCALE = re.compile(r"[\s-](thousand|million|billion|trillion)s?\b", re.IGNORECASE)
_HALF = re.compile(r"[\s-]and[\s-]a[\s-]half\b", re.IGNORECASE)
_PART = re.compile(
    rf"(?:(?P<half>(?:an?[\s-]|one[\s-])?half)|(?P<quarter>(?:an?[\s-]|one[\s-])?quarter)|three[\s-]quarters)"
    rf"(?:[\s-]of)?(?:[\s-]an?)?[\s-](?P<scale>{_POWER})\b",
    re.IGNORECASE,
)
_FRACTION_OF = re.compile(r"(?:ths?|thirds?|quarters?|hal(?:f|ves))\s+of\s+$", re.IGNORECASE)
"""Before `a million`: a share of it, which is another number."""
_BETWEEN = re.compile(r"\bbetween\s(?:about\s|around\s|roughly\s|some\s)?$", re.IGNORECASE)
_OTHER_END = re.compile(r"\s(?:and|to)\s", re.IGNORECASE)
_HYPHENS = str.maketrans("\u2010\u2011", "--") | CASE_FOLDS
_BEFORE = 24
"""Characters before a number that are looked at."""


class WrittenNumber(NamedTuple):
    """A number in words, and its place in the text; `plain` and `step` are those of `orchestra.text.numbers.numbers.Number`."""

    value: Fraction
    plain: Fraction
    step: Fraction
    start: int
    end: int


def find_written_numbers(text: str) -> Iterator[WrittenNumber]:
    """The numbers of a text that stand there in words, in their order."""
    text = text.translate(_HYPHENS)
    after = 0
    for match in _START.finditer(text):
        if match.start() < after:
            continue
        before = text[max(0, match.start() - _BEFORE) : match.start()]
        found = _fraction_of_power(text, match.start())
        if found is None and not match["part"] and not (match["one"] and _FRACTION_OF.search(before)):
            found = _compose(text, match, joined=True)
            if _BETWEEN.search(before) and not _OTHER_END.match(text, found.end):
                found = _compose(text, match, joined=False)
        if found is not None:
            after = found.end
            yield found


def _fraction_of_power(text: str, start: int) -> WrittenNumber | None:
    """Half a million, three quarters of a million."""
    if (match := _PART.match(text, start)) is None:
        return None
    share = Fraction(1, 2) if match["half"] else Fraction(1, 4) if match["quarter"] else Fraction(3, 4)
    scale = Fraction(10 ** POWER_WORDS[match["scale"].lower()])
    return WrittenNumber(share * scale, share, scale / 100, start, match.end())


def _compose(text: str, match: re.Match[str], *, joined: bool) -> WrittenNumber:
    """A number from its first word on. Where it is not `joined`, an `and` parts two numbers, as behind `between`."""
    group, end = _parse_group(text, match, joined=joined)
    power, end = _parse_scale(text, end)
    total, plain, step = group * 10**power, group, Fraction(10**power)
    if half := _HALF.match(text, end):  # a million and a half
        return WrittenNumber(total + step / 2, total + step / 2, step / 10, match.start(), half.end())
    while power and (following := _NEXT.match(text, end)):
        group, group_end = _parse_group(text, following, joined=joined)
        lower, group_end = _parse_scale(text, group_end)
        if lower >= power or (following["and"] and (lower or group >= 100 or not joined)):
            break
        total, end, power, step = total + group * 10**lower, group_end, lower, Fraction(10**lower)
        plain = total
    return WrittenNumber(total, plain, step, match.start(), end)


def _parse_group(text: str, match: re.Match[str], *, joined: bool) -> tuple[Fraction, int]:
    """A number under a thousand, or of so many hundreds, and where it ends."""
    value, end = _small_value(match), match.end()
    if hundreds := _HUNDREDS.match(text, end):
        value, end = value * 100, hundreds.end()
        rest = _NEXT.match(text, end)
        # `one hundred and two hundred` are two numbers
        if rest and not _HUNDREDS.match(text, rest.end()) and (joined or not rest["and"]):
            value, end = value + _small_value(rest), rest.end()
    elif half := _HALF.match(text, end):
        return value + Fraction(1, 2), half.end()
    return Fraction(value), end


def _small_value(match: re.Match[str]) -> int:
    """A number under a hundred."""
    words = [word.lower() for word in (match["tens"], match["unit"], match["word"]) if word]
    return sum(SMALL_NUMBERS[word] for word in words) if words else 1


def _parse_scale(text: str, end: int) -> tuple[int, int]:
    """The power of ten that follows, and where it ends."""
    power = 0
    while match := _SCALE.match(text, end):  # a thousand million
        power, end = power + POWER_WORDS[match[1].lower()], match.end()
    return power, end
