"""Quantities: the numbers of a problem, in digits or in words, each with its position.

A word may have more than one value: `half` is 2, as a divisor, and 0.5; `20%` and `20 cents` are 20 and 0.2; `3
million` is 3 and 3,000,000; `1⅓`, which has no finite decimal form, is 4 and 3, as a divisor. Each value is a quantity.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from orchestra.text.keywords import CASE_FOLDS
from orchestra.text.numbers.numerals import NUMERAL, SCALES, is_single_number, parse_numeral
from orchestra.text.numbers.words import POWER_WORDS, SMALL_NUMBERS

QuantityKind: TypeAlias = Literal["digits", "words", "times", "divisor", "part", "percent", "known", "found"]
"""In digits; in words; `twice`; `half` as 2, and as 0.5; `20%` as 0.2; a constant; and the result of an earlier
step.
"""
KINDS: Final[tuple[str, ...]] = get_args(QuantityKind)
MAX_QUANTITIES: Final = 40
"""Maximum number of quantities of a problem. Later ones are dropped."""
MAX_DIGITS: Final = 15
"""Maximum digits before the point, and after it;"""
MAX_CHARACTERS: Final = 24
"""and maximum characters."""
_SCALES: Final = {word: 10 ** POWER_WORDS[word] for word in ("hundred", "thousand")}
_ORDINALS: Final = {
    word: number
    for number, word in enumerate(("first", "", "third", "fourth", "fifth", "sixth", "seventh", "eighth", "ninth"), 1)
    if word
}
"""After a hyphen and a ten they form a number; a `thirty-second` break has thirty seconds."""
_MULTIPLIERS: Final = {
    **dict.fromkeys(("twice", "double", "doubled", "doubles", "both", "pair", "pairs", "couple"), 2),
    **dict.fromkeys(("triple", "tripled", "triples", "thrice"), 3),
    **dict.fromkeys(("quadruple", "quadrupled"), 4),
    **dict.fromkeys(("dozen", "dozens"), 12),
    **dict.fromkeys(("hundreds", "percent"), 100),
    "fortnight": 14,
}
_FRACTION_WORDS: Final = {
    **dict.fromkeys(("half", "halves", "halved", "halve"), 2),
    **{f"{part}{end}": number for number, part in enumerate(("third", "quarter"), 3) for end in ("", "s")},
    **{
        f"{part}{end}": number
        for number, part in enumerate(("fifth", "sixth", "seventh", "eighth"), 5)
        for end in ("", "s")
    },
    **{f"{part}{end}": number for number, part in enumerate(("ninth", "tenth"), 9) for end in ("", "s")},
}
_FINITE_DENOMINATORS: Final = (2, 4, 5, 8, 10, 20, 25, 50, 100)
"""Denominators with a short decimal fraction."""
_VULGAR_FRACTIONS: Final = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅛": (1, 8)}
_NUMBER_WORD = "|".join(sorted((*SMALL_NUMBERS, *_SCALES), key=len, reverse=True))
_SPELLED_NUMBER = (
    rf"(?:{_NUMBER_WORD})(?:(?:-|\s|\sand\s)(?:{_NUMBER_WORD})\b){{0,12}}(?:(?<=ty)-(?:{'|'.join(_ORDINALS)})\b)?"
)
_LARGE_SCALES: Final = {word: 10**power for word, power in SCALES.items() if power > 3 and len(word) > 3}
"""Words that multiply the number before them: a lakh and more. Hundreds and thousands are number words."""
_QUANTITY_WORD = "|".join(sorted((*_MULTIPLIERS, *_FRACTION_WORDS), key=len, reverse=True))
_QUANTITY = re.compile(
    rf"(?P<vulgar>[{''.join(_VULGAR_FRACTIONS)}])|(?<![\w.,])(?:[-−–])?(?P<digits>{NUMERAL})|\b(?P<spelt>{_SPELLED_NUMBER})\b|\b(?P<word>{_QUANTITY_WORD})\b"
    rf"|(?<=\ba\s)(?P<great>{'|'.join(_LARGE_SCALES)})\b",
    re.IGNORECASE,
)
_SCALE_AFTER = re.compile(rf"[\s-](?P<scale>{'|'.join(sorted(_LARGE_SCALES, key=len, reverse=True))})\b", re.IGNORECASE)
_PERCENT = re.compile(r"\s?(?:%|per\s?cent\b|cents?\b)", re.IGNORECASE)
_DENOMINATOR = re.compile(r"/(\d{1,3})(?![\d./])", re.ASCII)
"""Makes a fraction of the number before it."""
_DIGITS = re.compile(r"\d+", re.ASCII)
_LIST = re.compile(r"\d+(?:,\d+)+", re.ASCII)


class Quantity(NamedTuple):
    """A number that can be used in a computation."""

    value: Fraction
    kind: QuantityKind
    start: int = 0
    """Its position in characters; constants have none."""
    end: int = 0

    @property
    def text(self) -> str:
        """In the form of an expression."""
        return decimal_text(self.value)


def find_quantities(text: str) -> list[Quantity]:
    """Returns the quantities of a problem, in order; at most `MAX_QUANTITIES`."""
    return [quantity for _, quantity in zip(range(MAX_QUANTITIES), _iterate_quantities(text), strict=False)]


def decimal_text(value: Fraction) -> str:
    """Returns a number with a finite decimal form, without an exponent."""
    return f"{Decimal(value.numerator) / Decimal(value.denominator):f}"


def _iterate_quantities(text: str) -> Iterator[Quantity]:
    for match in _QUANTITY.finditer(text := text.translate(CASE_FOLDS)):
        number_text, (start, end) = match[0].lower(), match.span(match.lastgroup or 0)
        match match.lastgroup:
            case "digits":
                yield from _digit_quantities(match["digits"], text, start, end)
            case "spelt":
                for value in (
                    Fraction(word_number) for word_number in _word_numbers(number_text) if word_number < 10**MAX_DIGITS
                ):
                    yield Quantity(value, "words", start, end)
                    yield from _scaled_quantities(value, "words", text, start, end)
                    yield from _percent_quantities(value, text, start, end)
            case "great":
                yield Quantity(Fraction(_LARGE_SCALES[number_text]), "words", start, end)
            case "vulgar":
                yield from _fraction_quantities(*_VULGAR_FRACTIONS[number_text], start, end)
            case _ if number_text in _MULTIPLIERS:
                yield Quantity(Fraction(_MULTIPLIERS[number_text]), "times", start, end)
            case _:
                yield from _fraction_quantities(1, _FRACTION_WORDS[number_text], start, end)


def _digit_quantities(run: str, text: str, start: int, end: int) -> Iterator[Quantity]:
    """Returns the quantities of digits: a number, a percentage, a fraction, or the numbers of a list; none of a version
    or a date.
    """
    if len(run) > MAX_CHARACTERS:
        return
    if not is_single_number(run):
        if _LIST.fullmatch(run):
            yield from (
                Quantity(Fraction(match[0]), "digits", start + match.start(), start + match.end())
                for match in _DIGITS.finditer(run)
            )
        return
    value, _ = parse_numeral(run)
    if value >= 10**MAX_DIGITS:
        return
    if 10**MAX_DIGITS % value.denominator:
        if not run[-1].isdecimal():  # `1⅓`, but not an exponent
            yield Quantity(Fraction(value.numerator), "digits", start, end)
            yield Quantity(Fraction(value.denominator), "divisor", start, end)
        return
    yield Quantity(value, "digits", start, end)
    yield from _scaled_quantities(value, "digits", text, start, end)
    yield from _percent_quantities(value, text, start, end)
    if (below := _DENOMINATOR.match(text, end)) is not None and int(below[1]) in _FINITE_DENOMINATORS:
        yield Quantity(value / int(below[1]), "part", start, below.end())


def _fraction_quantities(above: int, below: int, start: int, end: int) -> Iterator[Quantity]:
    """Returns the quantities of a word or a sign for a fraction: the divisor and the share."""
    yield Quantity(Fraction(below), "divisor", start, end)
    if below in _FINITE_DENOMINATORS:
        yield Quantity(Fraction(above, below), "part", start, end)


def _scaled_quantities(value: Fraction, kind: QuantityKind, text: str, start: int, end: int) -> Iterator[Quantity]:
    """Returns the product of a number and a following large scale."""
    if (match := _SCALE_AFTER.match(text, end)) is not None and (
        scaled_value := value * _LARGE_SCALES[match["scale"].lower()]
    ) < 10**MAX_DIGITS:
        yield Quantity(scaled_value, kind, start, match.end())


def _percent_quantities(value: Fraction, text: str, start: int, end: int) -> Iterator[Quantity]:
    """Returns the hundredth of a number before a percent sign or a cent."""
    if (sign := _PERCENT.match(text, end)) is not None:
        yield Quantity(value / 100, "percent", start, sign.end())


def _word_numbers(words: str) -> Iterator[int]:
    """Returns the numbers in a sequence of number words: `two hundred and five` is one; `two three`, `twenty and five`
    and `one hundred and two hundred` are two.
    """
    row = re.split(r"[-\s]+", words)
    at = 0
    while at < len(row):
        value, at = _parse_number(row, at)
        yield value
        if at < len(row) and row[at] == "and":
            at += 1


def _parse_number(row: Sequence[str], at: int) -> tuple[int, int]:
    """Returns the number that begins at a word, and its end: thousands, hundreds and the rest, each at most once."""
    total, last = 0, math.inf
    while at < len(row) and last > 1:
        start = at + (row[at] == "and" and total > 0)
        group, end = (1, start) if row[start] in _SCALES else _parse_below_hundred(row, start)
        scale = 1
        while end < len(row) and row[end] in _SCALES:
            scale, end = scale * _SCALES[row[end]], end + 1
        if scale >= last:
            break
        total, at, last = total + group * scale, end, scale
    return total, at


def _parse_below_hundred(row: Sequence[str], at: int) -> tuple[int, int]:
    """Parses `twenty five`, `twenty-fifth`, `nineteen`."""
    value, next_word = SMALL_NUMBERS[row[at]], row[at + 1] if at + 1 < len(row) else ""
    if 20 <= value < 100 and 0 < (ordinal := _ORDINALS.get(next_word, 0) or SMALL_NUMBERS.get(next_word, 0)) < 10:
        return value + ordinal, at + 2
    return value, at + 1
