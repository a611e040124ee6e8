"""Numbers and dates as texts write them: thousands, decimals, %, k/m/bn, currencies, small number words, calendar dates."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

MAX_DIGITS = 40
"""Longer runs of digits are identifiers, compared as they stand."""

_SCALES = {
    "k": 3, "thousand": 3, "thousands": 3, "m": 6, "mn": 6, "mm": 6, "mio": 6, "million": 6, "millions": 6,
    "b": 9, "bn": 9, "billion": 9, "billions": 9, "tn": 12, "trillion": 12, "trillions": 12,
}  # fmt: skip
_CURRENCIES = {
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
    "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "quid": "GBP",
    "¥": "JPY", "jpy": "JPY", "yen": "JPY", "chf": "CHF", "franc": "CHF", "francs": "CHF",
    "₹": "INR", "inr": "INR", "rupee": "INR", "rupees": "INR", "cny": "CNY", "rmb": "CNY", "yuan": "CNY",
}  # fmt: skip
_MONTH_NAMES = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_MONTHS = {name[:width]: month for month, name in enumerate(_MONTH_NAMES, start=1) for width in (3, len(name))} | {"sept": 9}
_UNITS = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve", "thirteen", "fourteen",
    "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TEN_NAMES = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_TENS = {name: 10 * (index + 2) for index, name in enumerate(_TEN_NAMES)}
_WORDS = {name: value for value, name in enumerate(_UNITS)} | _TENS

_NUMBER = re.compile(
    rf"""(?<![\w.])
    (?P<open>\()?
    (?P<sign>[-+−–])?\s?
    (?P<before>US\$|[$€£¥₹]|(?:usd|eur|gbp|chf|jpy|inr|cny|rmb)\s)?\s?
    (?P<sign2>[-−])?
    (?P<digits>\d{{1,3}}(?:,\d{{3}})+(?!\d)|\d{{1,3}}(?:[   ]\d{{3}})+(?!\d)|\d+)
    (?P<decimals>\.\d+)?
    (?:(?:\s|-)?(?P<scale>{"|".join(sorted(_SCALES, key=len, reverse=True))})(?![\w]))?
    (?:\s?(?P<percent>%|per\s?cent(?!\w)|percentage\spoints?(?!\w)))?
    (?:\s?(?P<after>{"|".join(re.escape(c) for c in sorted(_CURRENCIES, key=len, reverse=True))})(?![\w]))?
    (?P<ordinal>(?<=\d)(?:st|nd|rd|th)(?!\w))?
    (?P<close>\))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_MONTH = "|".join(sorted(_MONTHS, key=len, reverse=True))
_DATES = tuple(
    re.compile(rf"(?<![\w.]){pattern}(?!\w)", re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})-(?P<m>\d{2})-(?P<d>\d{2})",
        r"(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4})",
        rf"(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<n>{_MONTH})\.?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{_MONTH})\.?\s(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{_MONTH})\.?,?\s(?P<y>\d{{4}})",
    )
)
_WORD_NUMBER = re.compile(
    rf"""\b(?P<tens>{"|".join(_TENS)})(?:[\s-](?P<unit>{"|".join(_UNITS[1:10])}))?\b
       | \b(?P<word>{"|".join(reversed(_UNITS))})\b""",
    re.IGNORECASE | re.VERBOSE,
)
_REST = re.compile(rf"(?:\s|-)(?:and(?:\s|-))?(?:{_WORD_NUMBER.pattern})", re.IGNORECASE | re.VERBOSE)
"""What follows `two hundred`, as in `two hundred and five`."""
_HUNDREDS = re.compile(r"[\s-]hundred\b", re.IGNORECASE)
_WORD_SCALE = re.compile(r"[\s-](thousand|million|billion|trillion)s?\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text. `value` has its scale and its per cent in it; `plain` is what the digits alone say."""

    value: Fraction
    plain: Fraction
    step: Fraction
    """One unit in the last shown place, scaled as the value is."""
    currency: str = ""
    percent: bool = False
    bracketed: bool = False
    """Written `(3.1)`: a negative number in accounts, an aside in prose."""
    text: str = ""
    start: int = 0
    """Where its digits begin; `begin` is where `text` does."""
    begin: int = 0


@dataclass(frozen=True, slots=True)
class Day:
    """A date in a text, as far as it is written; `other` is the second reading of `3/4/2026`."""

    year: int | None
    month: int
    day: int | None
    text: str = ""
    start: int = 0
    other: tuple[int, int] | None = None

    def agrees(self, written: Day) -> bool:
        """Whether another date says this one at least as exactly."""
        for month, day in filter(None, ((written.month, written.day), written.other)):
            for mine in filter(None, ((self.month, self.day), self.other)):
                if mine[0] == month and mine[1] in (None, day) and self.year in (None, written.year):
                    return True
        return False


def numbers(text: str, *, words: bool = False) -> list[Number]:
    """The numbers of a text in their order; with `words`, written-out ones such as `twenty-one` too."""
    known: dict[str, Number] = {}
    found: list[Number] = []
    for match in _NUMBER.finditer(text):
        if len(match["digits"]) > MAX_DIGITS:
            continue
        if (number := known.get(match[0])) is None:
            number = known[match[0]] = _number(match)
        elif number.start != match.start("digits"):  # read before: only its place is another
            moved = match.start("digits") - number.start
            number = replace(number, start=number.start + moved, begin=number.begin + moved)
        found.append(number)
    if words:
        found += _written(text)
    return sorted(found, key=lambda number: number.start)


def _number(match: re.Match[str]) -> Number:
    digits = re.sub(r"\D", "", match["digits"])
    decimals = match["decimals"] or ""
    plain = Fraction(Decimal(digits + decimals))
    bracketed = bool(match["open"] and match["close"])
    if (match["sign"] or "") in ("-", "−") or match["sign2"]:
        plain = -plain
    scale = Fraction(10) ** _SCALES.get((match["scale"] or "").lower(), 0)
    if match["percent"]:
        scale /= 100
    step = Fraction(1, 10 ** max(0, len(decimals) - 1)) * scale
    currency = _CURRENCIES.get((match["before"] or match["after"] or "").strip().lower(), "")
    begin = match.start() + len(match[0]) - len(match[0].lstrip())
    return Number(plain * scale, plain, step, currency, bool(match["percent"]), bracketed, match[0].strip(), match.start("digits"), begin)


def _small(match: re.Match[str]) -> int:
    """A written-out number under a hundred."""
    if match["word"]:
        return _WORDS[match["word"].lower()]
    return _TENS[match["tens"].lower()] + (_WORDS[match["unit"].lower()] if match["unit"] else 0)


def _written(text: str) -> Iterator[Number]:
    after = 0
    for match in _WORD_NUMBER.finditer(text):
        value, end = _small(match), match.end()
        if match.start() < after:
            continue
        if hundreds := _HUNDREDS.match(text, end):
            value, end = value * 100, hundreds.end()
            if rest := _REST.match(text, end):
                value, end = value + _small(rest), rest.end()
        after = end
        power = 0
        if scale := _WORD_SCALE.match(text, end):
            power, end = _SCALES[scale[1].lower()], scale.end()
        yield Number(
            Fraction(value * 10**power),
            Fraction(value),
            Fraction(10**power),
            text=text[match.start() : end],
            start=match.start(),
            begin=match.start(),
        )


def days(text: str) -> list[Day]:
    """The calendar dates of a text that exist, in their order."""
    found: list[Day] = []
    taken = bytearray(len(text))
    for pattern in _DATES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if 1 in taken[start:end]:
                continue
            if day := _day(match):
                found.append(day)
                taken[start:end] = b"\x01" * (end - start)
    return sorted(found, key=lambda day: day.start)


def _day(match: re.Match[str]) -> Day | None:
    parts = match.groupdict()
    year = int(parts["y"]) if parts.get("y") else None
    if parts.get("a"):
        readings = [(m, d) for d, m in ((int(parts["a"]), int(parts["b"])), (int(parts["b"]), int(parts["a"]))) if _exists(year, m, d)]
        if not readings:
            return None
        return Day(year, *readings[0], match[0], match.start(), readings[1] if len(readings) > 1 else None)
    month = int(parts["m"]) if parts.get("m") else _MONTHS[parts["n"].lower()]
    day = int(parts["d"]) if parts.get("d") else None
    return Day(year, month, day, match[0], match.start()) if _exists(year, month, day or 1) else None


def _exists(year: int | None, month: int, day: int) -> bool:
    try:
        date(year or 2000, month, day)
    except ValueError:
        return False
    return True


def same(answer: Number, evidence: Number) -> bool:
    """Whether two numbers say the same: equal with scale and per cent, or equal digits where one leaves out the `%`.

    Currencies clash only where both are written.
    """
    if answer.currency and evidence.currency and answer.currency != evidence.currency:
        return False
    if answer.value == evidence.value or ((answer.bracketed or evidence.bracketed) and abs(answer.value) == abs(evidence.value)):
        return True
    unscaled = answer.value in (answer.plain, answer.plain / 100) and evidence.value in (evidence.plain, evidence.plain / 100)
    return unscaled and answer.percent != evidence.percent and answer.plain == evidence.plain
