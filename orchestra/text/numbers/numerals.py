"""Digits: what of a text is a figure, and what it says: `1,234.50`, `1.234,50`, `1 234,50`, `1'234.50`, `1½`, `1.5e6` and `1.5 × 10⁶`.

Columns of tables (`orchestra.text.numbers.sort_keys`) and prose (`orchestra.text.numbers.numbers`) are read by this
one grammar. What differs is what
stands around a figure: `12,5` alone is one number, and in a text perhaps two. A number says of itself what its points and commas are, or
another one of the same column does: `999.000` stands for a million less a thousand beside `1.234.567`, and for less than a thousand
beside `12.5`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Final

MINUS_SIGNS: Final = "-‐‑−–‒﹣－"
"""What may be a minus: hyphens, dashes and the sign itself, as part of a class of a regular expression."""
SCALES: Final = {
    "hundred": 2, "thousand": 3, "thousands": 3, "tsd": 3, "lakh": 5, "lakhs": 5, "mn": 6, "mln": 6, "mio": 6, "million": 6, "millions": 6,
    "crore": 7, "crores": 7, "bn": 9, "bln": 9, "mrd": 9, "billion": 9, "billions": 9, "tn": 12, "trillion": 12, "trillions": 12,
}  # fmt: skip
"""Words behind a number that multiply it, and by what power of ten."""
SCALE_PATTERN: Final = "|".join(sorted(SCALES, key=len, reverse=True))
CURRENCY_PATTERN: Final = (
    r"(?:(?:(?<![^\W\d_])(?:US|CA|AU|NZ|HK|MX|[ACRS]))?\$|[€£¥₹₩₽₺₪]"
    r"|(?<![^\W\d_])(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|CAD|AUD|NZD|HKD|SGD|SEK|NOK|DKK|PLN|CZK|KRW|ZAR|BRL|MXN|TRY|[Kk]r|Rs|Kč|zł)"
    r"(?![^\W\d_])\.?)"
)
"""A currency before or behind a number, as a pattern."""
SCALE_LETTERS: Final = {"k": 3, "m": 6, "mm": 6, "b": 9}
"""Letters that do beside a currency, or where they are glued to the digits; a letter alone may be a unit: `324 m` is a height."""

_SIGNED = re.compile(rf"(?:[\s(]|{CURRENCY_PATTERN})*[{MINUS_SIGNS}](?:\s|{CURRENCY_PATTERN})*")
_OPENED = re.compile(rf"(?:[\s%)]|{CURRENCY_PATTERN})*\((?:\s|{CURRENCY_PATTERN})*")
"""What stands before a number that is less than nothing: a minus, or a bracket,"""
_CLOSED = re.compile(
    rf"(?:(?:mm|[kKmMbB])(?!\w))?(?:[\s%‰)#.,;*†‡§¹²³]|{CURRENCY_PATTERN}|\[\w{{1,3}}\]|\([a-z]\)"
    rf"|(?:per \w+|{SCALE_PATTERN}|p\.?p\.?|ppts?|bps?|pts|pct|per ?cent"
    r"|(?:percentage |basis )?points|°[CF]?|kg|[MGk]Wh?|(?:[gtlx×]|[ck]?m)[²³]?)(?!\w))*+",
    re.IGNORECASE,
)
"""and behind it nothing but such: its unit, its scale and the mark of a note."""

_BLANK = "[ \u00a0\u2007\u2009\u202f]"
POINT_GROUPED: Final = r"(?!0)\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)(?!\d|[.,]\d)"
"""Points stand between thousands here, whatever stands beside it;"""
COMMA_GROUPED: Final = r"(?!0)\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"
"""here commas do, as English has them;"""
LAKH_GROUPED: Final = r"(?!0)\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)(?:\.\d+)?"
"""and here as India has them, if it is no list;"""
SPACE_GROUPED: Final = rf"(?!0)\d{{1,3}}(?:(?:{_BLANK}\d{{3}})+|(?:['’]\d{{3}})+)(?!\d)(?:[.,]\d+(?![.,]?\d))?"
"""here blanks or apostrophes do;"""
DECIMAL_COMMA: Final = r"(?:0,\d+|\d+,\d{1,2}|\d{1,3},\d{4,})(?!\d|[.,]\d)"
"""here the comma is the decimal one, if it is no list;"""
DOTTED_IDENTIFIER: Final = r"\d+(?:\.\d+){2,}"
"""here it is none, unless points stand between thousands: a version, an address, a date;"""
VULGAR_FRACTION: Final = "(?:\\d+|\\d{1,3}[^\\S\\n])?[\u00bc-\u00be\u2150-\u215e\u2189]"
"""here it is a fraction, with the whole number before it;"""
POWER_OF_TEN: Final = (
    r"(?:[eE][+-]?\d{1,3}(?!\w|\.\d)|[^\S\n]?[×xX·][^\S\n]?10(?:\^[-−+]?\d{1,3}(?!\d|\.\d)|[⁻⁺]?[⁰¹²³⁴-⁹]{1,3}))"
)
"""and this is a power of ten behind it."""
NUMERAL: Final = rf"(?:{VULGAR_FRACTION}|{SPACE_GROUPED}|\d+(?:[.,]\d+)*(?:{POWER_OF_TEN})?|(?<![\w.])\.\d+)"
"""A number's digits and what stands between them, as a pattern, with lists and names that are no number. Blanks and apostrophes stand
only between thousands."""
_ENGLISH = re.compile(r"\d[\d,]*(?:\.\d+)?")
"""What is read of a run in which points and commas are in no order."""
_NUMBER = re.compile(rf"(?:[^\W\d]{{1,3}}(?![^\W\d]))?[^\w.,]*(?P<run>{NUMERAL})")
"""A number that has no more before it than a sign and a currency."""
_SINGLE_NUMBER = re.compile(
    rf"{VULGAR_FRACTION}|{SPACE_GROUPED}|{POINT_GROUPED}|{COMMA_GROUPED}|{LAKH_GROUPED}|{DECIMAL_COMMA}|\d+(?:\.\d+)?(?:{POWER_OF_TEN})?|\.\d+"
)
_VULGAR_FRACTION, _POINT_GROUPED, _DOTTED_IDENTIFIER, _DECIMAL_COMMA, _POWER_OF_TEN = (
    re.compile(one) for one in (VULGAR_FRACTION, POINT_GROUPED, DOTTED_IDENTIFIER, DECIMAL_COMMA, POWER_OF_TEN)
)
_COMMAS = re.compile(r"\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|\d+\.(?!\d{3}$)\d+|0\.\d+|\d{4,}\.\d+")
"""Commas stand between thousands here, or a point is the decimal one, whatever stands beside it."""
_THOUSAND = re.compile(r"(?!0)\d{1,3},\d{3}")
"""Here the comma seems not to be the decimal one."""
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}\.\d{3}|\d+,\d+")
"""What points between thousands in other numbers make another one of."""
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
_FOREIGN = re.compile(r"[^\D0-9]")
_WIDE = re.compile("(?<=[\uff10-\uff19])[\uff0c\uff0e](?=[\uff10-\uff19])")
"""Full-width marks between full-width digits; between others they part sentences."""
_ASCII_SIGNS = str.maketrans("٫٬٪％＋－＄￡￥（）", ".,%%+-$£¥()")


def to_ascii_digits(text: str) -> str:
    """A text of the same length in which digits, marks and signs of other scripts are those of ASCII."""
    if text.isascii():
        return text
    text = _WIDE.sub(lambda mark: "," if mark[0] == "\uff0c" else ".", text).translate(_ASCII_SIGNS)
    return _FOREIGN.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)


def is_negative(before: str, after: str) -> bool:
    """Whether a number between two texts is less than nothing, as accounts write it: behind a minus or in brackets, of which the closing
    one may be missing; a currency may stand on either side of both. Words make it an aside: `(3) of them`."""
    return _SIGNED.fullmatch(before) is not None or (
        _OPENED.fullmatch(before) is not None and _CLOSED.fullmatch(after) is not None
    )


def uses_decimal_comma(texts: Iterable[str], *, sure: bool = False) -> bool:
    """Whether the numbers of some texts have points between thousands, and a decimal comma: one shows it, and none shows the contrary.

    What has words before its number is no number, as a name with a note `(1,2)`. To be `sure` one must have points between thousands:
    a decimal comma may be that of two numbers, `10,12`.
    """
    runs = [found["run"] for text in texts if (found := _NUMBER.match(to_ascii_digits(text))) is not None]
    if any(_COMMAS.fullmatch(run) for run in runs):
        return False
    if any(_POINT_GROUPED.fullmatch(run) for run in runs):
        return True
    return (
        not sure
        and any(_DECIMAL_COMMA.fullmatch(run) for run in runs)
        and not any(_THOUSAND.fullmatch(run) for run in runs)
    )


def is_single_number(run: str, *, decimal_comma: bool = False) -> bool:
    """Whether a run is one number: neither a list such as `1,2,3` nor a name such as `3.11.9`."""
    return _SINGLE_NUMBER.fullmatch(run) is not None or (decimal_comma and _AMBIGUOUS.fullmatch(run) is not None)


def is_identifier(run: str) -> bool:
    """Whether a run is a version, an address or a date with stops, which nobody computes with."""
    return _DOTTED_IDENTIFIER.fullmatch(run) is not None and _POINT_GROUPED.fullmatch(run) is None


def parse_numeral(run: str, *, decimal_comma: bool = False) -> tuple[Fraction, int]:
    """What a run says, exactly, and how many places it shows: fewer than none where a power of ten is behind it.

    `points` says whether points stand between thousands where the run itself leaves it open.
    """
    run = to_ascii_digits(run)
    if _VULGAR_FRACTION.fullmatch(run):
        whole, share = run[:-1].strip(), Fraction(unicodedata.numeric(run[-1])).limit_denominator(10)
        return Fraction(int(whole or 0)) + share, 0
    power = _POWER_OF_TEN.search(run)
    digits = _plain_decimal(run if power is None else run[: power.start()], decimal_comma=decimal_comma)
    exponent = 0 if power is None else int(re.split(r"[eE^]|10(?=[⁻⁺⁰¹²³⁴-⁹])", power[0])[-1].translate(_RAISED))
    return Fraction(Decimal(digits)) * Fraction(10) ** exponent, len(digits.partition(".")[2]) - exponent


def plain_decimal(run: str, *, decimal_comma: bool = False) -> str:
    """The digits of a run with at most one point, the decimal one. `points` is as for `parse_numeral`. A third has 28 of them."""
    run = to_ascii_digits(run)
    if _VULGAR_FRACTION.fullmatch(run) is None and _POWER_OF_TEN.search(run) is None:
        return _plain_decimal(run, decimal_comma=decimal_comma)
    exact, _ = parse_numeral(run)
    return f"{Decimal(exact.numerator) / Decimal(exact.denominator):f}"


def _plain_decimal(run: str, *, decimal_comma: bool) -> str:
    joined = re.sub(rf"{_BLANK}|['’]", "", run)
    if joined != run:
        return joined.replace(",", ".")  # its thousands are joined, and what is left is the decimal point
    if _POINT_GROUPED.fullmatch(run) or (decimal_comma and _AMBIGUOUS.fullmatch(run)):
        return run.replace(".", "").replace(",", ".")
    if _DECIMAL_COMMA.fullmatch(run):
        return run.replace(",", ".")
    found = _ENGLISH.match(run)
    return run if found is None else found[0].replace(",", "")
