"""Quantities: the numbers that a problem gives, in digits or in words, each with the place where it stands.

A word may be reckoned with in more than one way: `half` as 2, to divide by, and as 0.5; `20%` and `20 cents` as 20 and as
0.2. Each is a quantity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from orchestra.values.digits import RUN, worth

Kind: TypeAlias = Literal["digits", "words", "times", "divisor", "part", "percent", "known", "found"]
"""In digits; in words; `twice`; `half` as 2, and as 0.5; `20%` as 0.2; what everybody knows; and what was found by a step before."""
KINDS: Final[tuple[str, ...]] = get_args(Kind)
MOST: Final = 40
"""Quantities of a problem: those that come first."""
MAX_DIGITS: Final = 15
"""What has more digits before its point, or behind it, is no quantity;"""
LONGEST: Final = 24
"""nor what has more characters."""
_SMALL: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen"),
    *("fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_TENS: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS: Final = {word: number for number, word in enumerate(_SMALL)} | {word: 10 * number for number, word in enumerate(_TENS, 2)}
_SCALES: Final = {"hundred": 100, "thousand": 1000}
_TIMES: Final = {
    **dict.fromkeys(("twice", "double", "doubled", "doubles", "both", "pair", "pairs", "couple"), 2),
    **dict.fromkeys(("triple", "tripled", "triples", "thrice"), 3),
    **dict.fromkeys(("quadruple", "quadrupled"), 4),
    **dict.fromkeys(("dozen", "dozens"), 12),
    **dict.fromkeys(("hundreds", "percent"), 100),
    "fortnight": 14,
}
_PARTS: Final = {
    **dict.fromkeys(("half", "halves", "halved", "halve"), 2),
    **{f"{part}{end}": number for number, part in enumerate(("third", "quarter"), 3) for end in ("", "s")},
    **{f"{part}{end}": number for number, part in enumerate(("fifth", "sixth", "seventh", "eighth"), 5) for end in ("", "s")},
    **{f"{part}{end}": number for number, part in enumerate(("ninth", "tenth"), 9) for end in ("", "s")},
}
_FINITE: Final = (2, 4, 5, 8, 10, 20, 25, 50, 100)
"""What a whole number is divided by for a short decimal fraction."""
_VULGAR: Final = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8)}
_NUMBER_WORD = "|".join(sorted((*_UNITS, *_SCALES), key=len, reverse=True))
_SPELT = rf"(?:{_NUMBER_WORD})(?:(?:-|\s|\sand\s)(?:{_NUMBER_WORD})\b)*"
_WORD = "|".join(sorted((*_TIMES, *_PARTS), key=len, reverse=True))
_FOUND = re.compile(
    rf"(?P<vulgar>[{''.join(_VULGAR)}])|(?<![\w.,])(?:[-−–])?(?P<digits>{RUN})|\b(?P<spelt>{_SPELT})\b|\b(?P<word>{_WORD})\b", re.IGNORECASE
)
_PERCENT = re.compile(r"\s?(?:%|per\s?cent\b|cents?\b)", re.IGNORECASE)
_OVER = re.compile(r"/(\d{1,3})(?![\d./])", re.ASCII)
"""What makes a fraction of the number before it."""


class Quantity(NamedTuple):
    """A number that can be reckoned with."""

    value: Fraction
    kind: Kind
    start: int = 0
    """Where it stands, in characters; what everybody knows stands nowhere."""
    end: int = 0

    @property
    def text(self) -> str:
        """As an expression has it."""
        return decimal(self.value)


def quantities(text: str) -> list[Quantity]:
    """The quantities of a problem, in order; `MOST` of them."""
    return [one for _, one in zip(range(MOST), _quantities(text), strict=False)]


def decimal(value: Fraction) -> str:
    """A number that has a finite decimal fraction, without an exponent."""
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"


def _quantities(text: str) -> Iterator[Quantity]:
    for match in _FOUND.finditer(text):
        found, (start, end) = match[0].lower(), match.span(match.lastgroup or 0)
        match match.lastgroup:
            case "digits":
                yield from _written(match["digits"], text, start, end)
            case "spelt":
                for value in map(Fraction, _spelt(found)):
                    yield Quantity(value, "words", start, end)
                    yield from _hundredths(value, text, start, end)
            case "vulgar":
                yield from _part(*_VULGAR[found], start, end)
            case _ if found in _TIMES:
                yield Quantity(Fraction(_TIMES[found]), "times", start, end)
            case _:
                yield from _part(1, _PARTS[found], start, end)


def _written(run: str, text: str, start: int, end: int) -> Iterator[Quantity]:
    """What is made of digits: a number, a percentage, a fraction."""
    value, _ = worth(run)
    if len(run) > LONGEST or value >= 10**MAX_DIGITS or 10**MAX_DIGITS % value.denominator:
        return
    yield Quantity(value, "digits", start, end)
    yield from _hundredths(value, text, start, end)
    if (below := _OVER.match(text, end)) is not None and int(below[1]) in _FINITE:
        yield Quantity(value / int(below[1]), "part", start, below.end())


def _part(above: int, below: int, start: int, end: int) -> Iterator[Quantity]:
    """What a word or a sign for a part is reckoned with: what is divided by, and the share."""
    yield Quantity(Fraction(below), "divisor", start, end)
    if below in _FINITE:
        yield Quantity(Fraction(above, below), "part", start, end)


def _hundredths(value: Fraction, text: str, start: int, end: int) -> Iterator[Quantity]:
    """What stands before a per cent or a cent, as a hundredth of it."""
    if (sign := _PERCENT.match(text, end)) is not None:
        yield Quantity(value / 100, "percent", start, sign.end())


def _spelt(words: str) -> Iterator[int]:
    """The numbers of a row of number words: `two hundred and five` is one, and `two three` are two."""
    total, group, last = 0, 0, 0
    begun = False
    for word in re.split(r"[-\s]+(?:and\s+)?", words):
        if word in _SCALES:
            scale = _SCALES[word]
            group = max(group, 1) * scale
            if scale == 1000:
                total, group = total + group, 0
            begun, last = True, scale
            continue
        unit = _UNITS[word]
        joins = begun and (last in (100, 1000) or (20 <= last < 100 and 0 < unit < 10))
        if begun and not joins:
            yield total + group
            total = group = 0
        group += unit
        begun, last = True, unit if unit else 1
    yield total + group
