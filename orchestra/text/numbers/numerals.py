"""Figures in text and their values: `1,234.50`, `1.234,50`, `1 234,50`, `1'234.50`, `1½`, `1.5e6` and `1.5 × 10⁶`.

Columns of tables (`orchestra.text.numbers.sort_keys`) and prose (`orchestra.text.numbers.numbers`) share this grammar.
They differ in the context of a figure: `12,5` alone is one number, and in a text perhaps two. The meaning of points and
commas follows from the number itself, or from another one of the same column: `999.000` is a million minus a thousand
next to `1.234.567`, and less than a thousand next to `12.5`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from decimal import Decimal
from fractions import Fraction
from typing import Final

MINUS_SIGNS: Final = "-‐‑−–‒﹣－"
"""Characters that may be a minus: hyphens, dashes and the sign itself, for a character class."""
SCALES: Final = {
    "hundred": 2, "thousand": 3, "thousands": 3, "tsd": 3, "lakh": 5, "lakhs": 5, "mn": 6, "mln": 6, "mio": 6,
    "million": 6, "millions": 6, "crore": 7, "crores": 7, "bn": 9, "bln": 9, "mrd": 9, "billion": 9, "billions": 9,
    "tn": 12, "trillion": 12, "trillions": 12,
}  # fmt: skip
"""Words after a number that multiply it, with their powers of ten."""
SCALE_PATTERN: Final = "|".join(sorted(SCALES, key=len, reverse=True))
CURRENCY_PATTERN: Final = (
    r"(?:(?:(?<![^\W\d_])(?:US|CA|AU|NZ|HK|MX|[ACRS]))?\$|[€£¥₹₩₽₺₪]"
    r"|(?<![^\W\d_])(?:USD|EUR|GBP|CHF|JPY|CNY|RMB|INR|CAD|AUD|NZD|HKD|SGD|SEK|NOK|DKK|PLN|CZK|KRW|ZAR|BRL|MXN|TRY|[Kk]r|Rs|Kč|zł)"
    r"(?![^\W\d_])\.?)"
)
"""A currency before or after a number, as a pattern."""
SCALE_LETTERS: Final = {"k": 3, "m": 6, "mm": 6, "b": 9}
"""Letters with the same effect next to a currency, or directly after the digits. A separate letter may be a unit: `324
m` is a height.
"""

_SIGNED = re.compile(rf"(?:[\s(]|{CURRENCY_PATTERN})*[{MINUS_SIGNS}](?:\s|{CURRENCY_PATTERN})*")
_OPENED = re.compile(rf"(?:[\s%)]|{CURRENCY_PATTERN})*\((?:\s|{CURRENCY_PATTERN})*")
"""The start of a negative number: a bracket, with spaces and currencies."""
_CLOSED = re.compile(
    rf"(?:(?:mm|[kKmMbB])(?!\w))?(?:[\s%‰)#.,;*†‡§¹²³]|{CURRENCY_PATTERN}|\[\w{{1,3}}\]|\([a-z]\)"
    rf"|(?:per \w+|{SCALE_PATTERN}|p\.?p\.?|ppts?|bps?|pts|pct|per ?cent"
    r"|(?:percentage |basis )?points|°[CF]?|kg|[MGk]Wh?|(?:[gtlx×]|[ck]?m)[²³]?)(?!\w))*+",
    re.IGNORECASE,
)
"""The end of a bracketed number: unit, scale and footnote marks may follow."""

_BLANK = "[ \u00a0\u2007\u2009\u202f]"
POINT_GROUPED: Final = r"(?!0)\d{1,3}(?:(?:\.\d{3}){2,}(?:,\d+)?|\.\d{3},\d+)(?!\d|[.,]\d)"
"""Points separate thousands, in any context."""
COMMA_GROUPED: Final = r"(?!0)\d{1,3}(?:,\d{3})+(?!\d)(?:\.\d+)?"
"""Commas separate thousands, as in English."""
LAKH_GROUPED: Final = r"(?!0)\d{1,2}(?:,\d{2})+,\d{3}(?!,?\d)(?:\.\d+)?"
"""Commas separate as in India, unless it is a list."""
SPACE_GROUPED: Final = rf"(?!0)\d{{1,3}}(?:(?:{_BLANK}\d{{3}})+|(?:['’]\d{{3}})+)(?!\d)(?:[.,]\d+(?![.,]?\d))?"
"""Spaces or apostrophes separate thousands."""
DECIMAL_COMMA: Final = r"(?:0,\d+|\d+,\d{1,2}|\d{1,3},\d{4,})(?!\d|[.,]\d)"
"""The comma is a decimal comma, unless it is a list."""
DOTTED_IDENTIFIER: Final = r"\d+(?:\.\d+){2,}"
"""Neither separates thousands: a version, an address, a date."""
VULGAR_FRACTION: Final = "(?:\\d+|\\d{1,3}[^\\S\\n])?[\u00bc-\u00be\u2150-\u215e\u2189]"
"""A vulgar fraction, with the integer before it."""
POWER_OF_TEN: Final = (
    r"(?:[eE][+-]?\d{1,3}(?!\w|\.\d)|[^\S\n]?[×xX·][^\S\n]?10(?:\^[-−+]?\d{1,3}(?!\d|\.\d)|[⁻⁺]?[⁰¹²³⁴-⁹]{1,3}))"
)
"""A power of ten after the digits."""
NUMERAL: Final = rf"(?:{VULGAR_FRACTION}|{SPACE_GROUPED}|\d+(?:[.,]\d+)*(?:{POWER_OF_TEN})?|(?<![\w.])\.\d+)"
"""The digits of a number and their separators, as a pattern; it also matches lists and identifiers. Spaces and
apostrophes only separate thousands.
"""
_ENGLISH = re.compile(r"\d[\d,]*(?:\.\d+)?")
"""The part that is read of a run with inconsistent points and commas."""
_NUMBER = re.compile(rf"(?:[^\W\d]{{1,3}}(?![^\W\d]))?[^\w.,]*(?P<run>{NUMERAL})")
"""A number after nothing but a sign and a currency."""
_SINGLE_NUMBER = re.compile(
    rf"{VULGAR_FRACTION}|{SPACE_GROUPED}|{POINT_GROUPED}|{COMMA_GROUPED}|{LAKH_GROUPED}|{DECIMAL_COMMA}|\d+(?:\.\d+)?(?:{POWER_OF_TEN})?|\.\d+"
)
_VULGAR_FRACTION, _POINT_GROUPED, _DOTTED_IDENTIFIER, _DECIMAL_COMMA, _POWER_OF_TEN = (
    re.compile(one) for one in (VULGAR_FRACTION, POINT_GROUPED, DOTTED_IDENTIFIER, DECIMAL_COMMA, POWER_OF_TEN)
)
_COMMAS = re.compile(r"\d{1,3}(?:,\d{3})+\.\d+|\d{1,3}(?:,\d{3}){2,}|\d+\.(?!\d{3}$)\d+|0\.\d+|\d{4,}\.\d+")
"""Commas separate thousands here, or the point is a decimal point, in any context."""
_THOUSAND = re.compile(r"(?!0)\d{1,3},\d{3}")
"""The comma is probably not a decimal comma."""
_AMBIGUOUS = re.compile(r"[1-9]\d{0,2}\.\d{3}|\d+,\d+")
"""Figures whose value depends on whether points separate thousands in other numbers."""
_RAISED = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺−", "0123456789-+-")
_FOREIGN = re.compile(r"[^\D0-9]")
_WIDE = re.compile("(?<=[\uff10-\uff19])[\uff0c\uff0e](?=[\uff10-\uff19])")
"""Full-width marks between full-width digits; between other characters they separate sentences."""
_ASCII_SIGNS = str.maketrans("٫٬٪％＋－＄￡￥（）", ".,%%+-$£¥()")


def to_ascii_digits(text: str) -> str:
    """Returns a text of the same length with ASCII digits, marks and signs in place of those of other scripts."""
    if text.isascii():
        return text
    text = _WIDE.sub(lambda mark: "," if mark[0] == "\uff0c" else ".", text).translate(_ASCII_SIGNS)
    return _FOREIGN.sub(lambda digit: str(unicodedata.decimal(digit[0])), text)


def is_negative(before: str, after: str) -> bool:
    """Returns whether a number between two texts is negative in accounting style: after a minus, or in brackets, of
    which the closing one may be missing. A currency may be on either side. With words it is an aside: `(3) of them`.
    """
    return _SIGNED.fullmatch(before) is not None or (
        _OPENED.fullmatch(before) is not None and _CLOSED.fullmatch(after) is not None
    )


def uses_decimal_comma(texts: Iterable[str], *, sure: bool = False) -> bool:
    """Returns whether the numbers of some texts use a decimal comma, with points between thousands: one shows it, and
    none shows the contrary.

    Numbers after words are ignored, such as a name with a footnote `(1,2)`. `sure` requires points between thousands: a
    comma may also separate two numbers, as in `10,12`.
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
    """Returns whether a run is one number: neither a list such as `1,2,3` nor an identifier such as `3.11.9`."""
    return _SINGLE_NUMBER.fullmatch(run) is not None or (decimal_comma and _AMBIGUOUS.fullmatch(run) is not None)


def is_identifier(run: str) -> bool:
    """Returns whether a run is a version, an address or a date with points."""
    return _DOTTED_IDENTIFIER.fullmatch(run) is not None and _POINT_GROUPED.fullmatch(run) is None


def parse_numeral(run: str, *, decimal_comma: bool = False) -> tuple[Fraction, int]:
    """Returns the exact value of a run, and the number of displayed decimal places, which is negative before a power of
    ten.

    `points` decides whether points separate thousands if the run itself is ambiguous.
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
    """Returns the digits of a run with at most a decimal point. `points` is as for `parse_numeral`. A third has 28
    digits.
    """
    run = to_ascii_digits(run)
    if _VULGAR_FRACTION.fullmatch(run) is None and _POWER_OF_TEN.search(run) is None:
        return _plain_decimal(run, decimal_comma=decimal_comma)
    exact, _ = parse_numeral(run)
    return f"{Decimal(exact.numerator) / Decimal(exact.denominator):f}"


def _plain_decimal(run: str, *, decimal_comma: bool) -> str:
    joined = re.sub(rf"{_BLANK}|['’]", "", run)
    if joined != run:
        return joined.replace(",", ".")  # thousands are joined, so what is left is the decimal point
    if _POINT_GROUPED.fullmatch(run) or (decimal_comma and _AMBIGUOUS.fullmatch(run)):
        return run.replace(".", "").replace(",", ".")
    if _DECIMAL_COMMA.fullmatch(run):
        return run.replace(",", ".")
    found = _ENGLISH.match(run)
    return run if found is None else found[0].replace(",", "")
