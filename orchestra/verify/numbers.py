"""Numbers and dates as texts write them: thousands, decimals, %, k/m/bn, currencies, small number words, calendar dates.

Figures are those of `orchestra.values.digits`. Thousands and decimals are read as English writes them where it is not plain that they are
not: `1.234` is a decimal, `1.234,56` and `1.234.567` are not. A comma as in `12,5` is a decimal one where nothing else stands in the text,
and beside a unit or a currency; elsewhere it parts two numbers. What is no quantity, such as a version, an address or a very long row of
digits, is compared as it stands.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

from orchestra.values.digits import COMMA, COMMAED, JOINED, LAKHS, LETTERS, MINUS, NAME, POINTED, POWER, SCALE, SCALES, VULGAR, even, worth
from orchestra.values.months import MONTH_WORDS, month_of
from orchestra.values.number_words import written
from orchestra.values.words import UNSPACED

MAX_DIGITS = 40
"""Longer runs of digits are identifiers, compared as they stand."""

_CURRENCIES = {
    "$": "USD", "us$": "USD", "usd": "USD", "dollar": "USD", "dollars": "USD",
    "€": "EUR", "eur": "EUR", "euro": "EUR", "euros": "EUR",
    "£": "GBP", "gbp": "GBP", "pound": "GBP", "pounds": "GBP", "quid": "GBP",
    "¥": "JPY", "jpy": "JPY", "yen": "JPY", "chf": "CHF", "franc": "CHF", "francs": "CHF",
    "₹": "INR", "inr": "INR", "rupee": "INR", "rupees": "INR", "cny": "CNY", "rmb": "CNY", "yuan": "CNY",
}  # fmt: skip
_DASHES = frozenset("–‒")
"""What is a dash rather than a minus; and yet texts write `–5 °C`."""
_CURRENCY = "|".join(re.escape(name) for name in sorted(_CURRENCIES, key=len, reverse=True))
_ENDS_IN_UNIT = r"(?=[^\S\n]?[a-z])(?![^\S\n](?:and|or|to|und|oder|bis|et|ou|y|o|e)\b)"
"""A word behind a figure, which joins no other one to it."""
_NUMBER = re.compile(
    rf"""(?P<alone>\A)?(?:(?<!\w)|(?<=[{UNSPACED}\uac00-\ud7a3])|(?<=\dx)|(?<=\dT)(?=\d\d:)|(?<=\dh)(?=[0-5]\d(?!\w)))
    (?P<open>\(\s?)?
    (?:(?P<sign>[{MINUS}+])(?P<apart>\s?))?
    (?:(?P<before>US\$|[$€£¥₹]|usd|eur|gbp|chf|jpy|inr|cny|rmb)\s?)?
    (?P<sign2>[{MINUS}])?
    (?:v(?=\d+\.\d))?
    (?P<digits>(?<!\d\.)(?:
        {POINTED} | {COMMAED} | (?P<joined>{JOINED})
      | (?P<name>{NAME})
      | (?P<comma>(?<!\d,)(?:
            (?:{COMMA}|{LAKHS})(?(before)|(?:(?=[^\S\n]?[%‰°€£¥₹$])|(?(alone)(?=\s*\Z)|(?!))))
          | (?:0,\d+|\d+,\d{{1,2}}|{LAKHS})(?!\d|[.,]\d){_ENDS_IN_UNIT}))
      | (?P<vulgar>{VULGAR})
      | (?<![\w.])\.\d+(?!\.\d)
      | \d+(?:\.\d+)?(?:{POWER})?
    ))
    (?:(?:\s|-)?(?P<scale>{SCALE})(?!\w)(?:\s(?P<scale2>{SCALE})(?!\w))?
     | (?P<glued>mm|[kmb])(?!\w)
     | [^\S\n](?P<letter>(?(before)(?:mm|[kmb])(?!\w)
        |(?:(?-i:mm?|[MBK])|(?:mm|[kmb])(?=\s?(?:{_CURRENCY})(?!\w)))(?!\w)(?!\.\s*(?-i:[A-Z])))))?
    (?:\s?(?P<percent>[%‰]|pct(?!\w)|per\s?cent(?!\w)|percentage\spoints?(?!\w)))?
    (?:\s?(?P<after>{_CURRENCY})(?!\w))?
    (?P<ordinal>(?<=\d)(?:st|nd|rd|th)(?!\w))?
    (?P<close>\))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_LESS = re.compile(r"\b(?:minus|negative)\s$", re.IGNORECASE)
"""Before a number that may be less than nothing, or taken off another one."""
_TWO_OR_ONE = re.compile(rf"(?<!\d,)(?:{COMMA}|{LAKHS})")
_DOTTED_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}|\d{4}\.\d{2}\.\d{2}")
_ENDS_A_NUMBER = frozenset("%‰°€£$¥₹)]")
_DATES = tuple(
    re.compile(rf"(?<!\w)(?<!\d\.){pattern}(?:(?!\w)|(?=T\d\d))", re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})(?P<mark>[-/.])(?P<m>\d{2})(?P=mark)(?P<d>\d{2})",
        r"(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4})",
        rf"(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<n>{MONTH_WORDS})\.?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{MONTH_WORDS})\.?\s(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{MONTH_WORDS})\.?,?\s(?P<y>\d{{4}})",
    )
)


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
    dashed: bool = False
    """A dash stands before it of which nobody knows whether it is a minus, or the word: `- 3 chairs`, `2010 - 2015`, `–5`, `minus 5`."""
    unit: str = ""
    """A letter behind it that is a scale or a unit: `5m`, `324 m`. Beside a currency it is a scale."""
    loose: bool = False
    """Whether its value has the scale of such a letter, and may yet be what the digits alone say."""
    name: str = ""
    """What is compared as it stands, such as `3.11.9`; its value is one that no decimal has."""
    parts: tuple[Fraction, ...] = ()
    """What else its digits may say: the two numbers of `3,5 of` and of `737 800`, the one that `3,5` is for others, the thousands of
    `1.234`, and the beginnings of a name."""


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
    known: dict[tuple[str, bool, bool, str], Number] = {}
    found: list[Number] = []
    plain = even(text)
    for match in _NUMBER.finditer(plain):
        if match["name"] and _DOTTED_DATE.fullmatch(match["name"]):
            found += _dated(match)
            continue
        minus, dashed = _sign(match)
        listed = _TWO_OR_ONE.match(plain, match.start("digits")) if plain[match.end() : match.end() + 1] == "," else None
        shown = text[match.start() : match.end()]
        key = (shown, minus, dashed, listed[0] if listed else "")
        if (number := known.get(key)) is None:
            number = known[key] = _number(match, shown, listed, minus=minus, dashed=dashed)
        elif number.start != match.start("digits"):  # read before: only its place is another
            moved = match.start("digits") - number.start
            number = replace(number, start=number.start + moved, begin=number.begin + moved)
        found.append(number)
    if words:
        found += (
            Number(one.value, one.plain, one.step, text=text[one.start : one.end], start=one.start, begin=one.start)
            for one in written(text)
        )
    return sorted(found, key=lambda number: number.start)


def _dated(match: re.Match[str]) -> Iterator[Number]:
    """The day, the month and the year of a date with stops, as of one with strokes."""
    for part in re.finditer(r"\d+", match["name"]):
        start = match.start("name") + part.start()
        yield Number(Fraction(int(part[0])), Fraction(int(part[0])), Fraction(1), text=part[0], start=start, begin=start)


def _sign(match: re.Match[str]) -> tuple[bool, bool]:
    """Whether a number has a minus, and whether that is unsure.

    A minus stands at its digits. A dash is between two numbers, or before a blank: a bullet, an aside, a range.
    """
    if match["sign2"]:
        return True, False
    sign = match["sign"]
    if not sign:
        return False, _LESS.search(match.string, max(0, match.start() - 10), match.start()) is not None
    if sign == "+":
        return False, False
    at = match.start("sign")
    before = match.string[max(0, at - 3) : at]
    last = before.rstrip()[-1:]
    ends = last.isdigit() or last in _ENDS_A_NUMBER
    if match["apart"]:
        return sign == "−" and not ends, True
    if ends and before[-1:] == last:  # `5%-10%`
        return False, True
    return not (ends and sign in _DASHES), ends or sign in _DASHES


def _number(match: re.Match[str], text: str, listed: re.Match[str] | None, *, minus: bool, dashed: bool) -> Number:
    """A number; `listed` is what it and the one behind it are if the comma between them is a decimal one, or one of thousands."""
    begin, start, digits = match.start(), match.start("digits"), match["digits"]
    if match["name"] or sum(map(str.isdigit, digits)) > MAX_DIGITS:
        return _named(digits, text, start, begin)
    plain, places = worth(digits)
    currency = _CURRENCIES.get((match["before"] or match["after"] or "").lower(), "")
    scale, unit, loose = _scale(match, currency)
    if match["percent"]:
        scale /= 1000 if match["percent"] == "‰" else 100
    step = Fraction(0) if match["vulgar"] else Fraction(10) ** -places * scale
    sure = bool(currency or match["percent"] or match["scale"])
    parts = (worth(listed[0])[0],) if listed else _parts(match, plain, sure=sure)
    if minus:
        plain = -plain
    return Number(
        plain * scale, plain, step, currency, bool(match["percent"]), bool(match["open"] and match["close"]), text, start, begin,
        dashed, unit, loose, parts=parts,
    )  # fmt: skip


def _parts(match: re.Match[str], plain: Fraction, *, sure: bool) -> tuple[Fraction, ...]:
    """What else the digits of a number may say."""
    digits = match["digits"]
    if match["comma"]:
        return () if sure else tuple(worth(part)[0] for part in digits.split(","))
    if match["joined"] and " " in digits and not sure and not digits.endswith("000"):  # `Boeing 737 800`
        return tuple(worth(part)[0] for part in digits.split(" "))
    other = plain if "," in digits else worth(digits, points=True)[0]  # `1.234` beside `1.234,50`
    return (other,) if other != plain else ()


def _scale(match: re.Match[str], currency: str) -> tuple[Fraction, str, bool]:
    """The scale behind the digits; the letter that is one, or a unit; and whether nobody knows which."""
    if match["scale"]:
        return Fraction(10) ** (SCALES[match["scale"].lower()] + SCALES.get((match["scale2"] or "").lower(), 0)), "", False
    letter = match["glued"] or match["letter"] or ""
    if match["letter"] and letter.islower() and not currency:
        return Fraction(1), letter, False
    loose = not currency and (letter in ("m", "mm", "b") or bool(match["letter"]))
    return Fraction(10) ** LETTERS.get(letter.lower(), 0), letter if loose else "", loose


def _named(digits: str, text: str, start: int, begin: int) -> Number:
    """What is compared as it stands. Its value is a third of a whole number, which no decimal is."""
    value = Fraction(3 * int(hashlib.sha256(digits.encode()).hexdigest(), 16) + 1, 3)
    head = digits[: MAX_DIGITS + 1].split(".")
    parts = (Fraction(int(head[0])), Fraction(Decimal(".".join(head[:2])))) if len(head) > 2 else ()
    return Number(value, value, Fraction(0), text=text, start=start, begin=begin, name=digits, parts=parts)


def stated(value: int | float) -> Number:
    """A finite JSON number as it is written: 134.9 has one decimal place, 135.0 none; no digit of an integer is rounded away.

    Raises `ValueError` for an integer of thousands of digits.
    """
    text = repr(value)
    if isinstance(value, int):
        exact, places = Fraction(value), 0
        if len(text.lstrip("-")) > MAX_DIGITS:
            return numbers(text)[0]
    else:
        written = Decimal(text).normalize()
        exponent = written.as_tuple().exponent
        exact, places = Fraction(written), max(0, -exponent) if isinstance(exponent, int) else 0
    return Number(exact, exact, Fraction(1, 10**places), text=text)


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
    month = int(parts["m"]) if parts.get("m") else month_of(parts["n"])
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

    Currencies clash only where both are written. The `m` of `5m` in the evidence is a million, or a metre.
    """
    if answer.currency and evidence.currency and answer.currency != evidence.currency:
        return False
    if answer.unit and evidence.unit:  # `324m` and `324 m`, but not `5 m` and `5 mm`
        return answer.unit == evidence.unit and answer.plain == evidence.plain
    if answer.value == evidence.value or ((answer.bracketed or evidence.bracketed) and abs(answer.value) == abs(evidence.value)):
        return True
    if evidence.loose and answer.value == evidence.plain:
        return True
    unscaled = answer.value in (answer.plain, answer.plain / 100) and evidence.value in (evidence.plain, evidence.plain / 100)
    return unscaled and answer.percent != evidence.percent and answer.plain == evidence.plain
