"""Numbers and dates as texts write them: thousands, decimals, %, k/m/bn, currencies, small number words, calendar dates.

Figures are those of `orchestra.text.numbers.numerals`. Thousands and decimals are read as English writes them where
it is not plain that they are
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

from orchestra.text.keywords import UNSPACED
from orchestra.text.numbers import currencies
from orchestra.text.numbers.iso_codes import CURRENCIES, FORMER_CURRENCIES
from orchestra.text.numbers.months import MONTH_WORDS, month_of
from orchestra.text.numbers.numerals import (
    COMMA,
    COMMAED,
    JOINED,
    LAKHS,
    LETTERS,
    MINUS,
    NAME,
    POINTED,
    POWER,
    SCALE,
    SCALES,
    VULGAR,
    even,
    worth,
)
from orchestra.text.numbers.units import METRES, POUND, Unit, unit_at
from orchestra.text.numbers.words import written

MAX_DIGITS = 40
"""Longer runs of digits are identifiers, compared as they stand."""

_DASHES = frozenset("–‒")
"""What is a dash rather than a minus; and yet texts write `–5 °C`."""
_ENDS_IN_UNIT = r"(?=[^\S\n]?[a-z])(?![^\S\n](?:and|or|to|und|oder|bis|et|ou|y|o|e)\b)"
"""A word behind a figure, which joins no other one to it."""
_NUMBER = re.compile(
    rf"""(?P<alone>\A)?(?:(?<!\w)|(?<=[{UNSPACED}\uac00-\ud7a3])|(?<=\dx)|(?<=\dT)(?=\d\d:)|(?<=\dh)(?=[0-5]\d(?!\w)))
    (?P<open>\(\s?)?
    (?:(?P<sign>[{MINUS}+])(?P<apart>\s?))?
    (?:(?=[^\d\s(])(?P<before>{currencies.BEFORE})\s?)?
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
    (?:(?=(?:\s|-)?[^\W\d_]|\s?[^\w\s.,;:()]) (?:(?:\s|-)?(?P<scale>{SCALE})(?!\w)(?:\s(?P<scale2>{SCALE})(?!\w))?
     | (?P<glued>mm|[kmb])(?!\w)
     | [^\S\n](?P<letter>(?(before)(?:mm|[kmb])(?!\w)
        |(?:(?-i:mm?|[MBK])|(?:mm|[kmb])(?=\s?(?:{currencies.AFTER})(?!\w)))(?!\w)(?!\.\s*(?-i:[A-Z])))))?
    (?:\s?(?P<percent>[%‰]|pct(?!\w)|per\s?cent(?!\w)|percentage\spoints?(?!\w)|bps?(?!\w)|basis\spoints?(?!\w)))?
    (?:\s?(?P<after>{currencies.AFTER})(?!\w))?
    (?P<ordinal>(?<=\d)(?:st|nd|rd|th)(?!\w))? )?
    (?P<close>\))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_BEHIND = re.compile(
    r"\s?/\s?\w+|[^\S\n]?-?[^\W\d][\w./²³]*(?:(?!\s(?:per|an?)\s)[\s-][^\W\d]\w*[²³]?)?(?:\s(?:per|an?|/)\s\w+)?|[^\S\n]?[^\w\s]"
)
"""What stands behind a number, as far as it says what that is a number of."""
_SIGN_OF_MONEY = "[\u20a0-\u20cf\u060b\u09f2\u09f3\u17db\ufdfc]"
_STRANGE_BEFORE = re.compile(rf"(?:(?<![^\W\d_])[A-Z]{{3}}\s?|{_SIGN_OF_MONEY}\s?)\Z")
_STRANGE_BEHIND = re.compile(rf"\s?(?:[A-Z]{{3}}(?!\w)|{_SIGN_OF_MONEY})")
_COUNTED = re.compile(
    r" (?-i:(?![A-Z]))(?!(?:and|or|to|of|in|on|at|by|for|from|per|as|than|with|the|an?|is|was|were|are|has|had|respectively|between|up|down"
    r"|after|before|during|over|under|while|when|which|that|but|compared|versus|vs|million|billion|thousand|und|et)\b)[^\W\d]{3,}",
    re.IGNORECASE,
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
_DATED = re.compile(r"\b(?:on|dated?|due|until|till|by|since|from|before|after):?\s\Z", re.IGNORECASE)
"""Before a date;"""
_WITHIN = re.compile(r"\b(?:in|during|throughout)\s\Z", re.IGNORECASE)
"""and before a month."""
_GOES_ON = re.compile(r"[.,]\d|\s?[%‰€£¥₹$°]")
_THEN = re.compile(rf"\s(?P<word>[^\W\d_])|[,;]?\s(?:and\s)?(?:(?:{MONTH_WORDS})\.?\s)?\d", re.IGNORECASE)
"""Behind a month and a number that may be no day of it: what it counts, or the next of a list."""


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
    measure: Unit | None = None
    """The unit behind it, where that is known."""
    strange: str = ""
    """Three capitals or the sign beside it, which may be a currency that is not known here."""
    counts: bool = False
    """Whether a word follows that is no unit, no currency and no small word: `10 items`."""
    small: bool = False
    """Whether it stands in words that may be no number: `one`, `the first`, `the two`."""
    other: Fraction | None = None
    """What else it is where the words may be read in two ways: the `a third` of `a third man`."""
    headed: bool = False
    """Whether `(%)` stands right before it, as at the head of a column: what stands behind it may be the next one's head."""
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
    found = [number if number.start == start else moved(number, start) for number, start in figures(text)]
    if words:
        found += (
            Number(one.value, one.plain, one.step, text=text[one.start : one.end], start=one.start, begin=one.start)
            for one in written(text)
        )
    return sorted(found, key=lambda number: number.start)


def figures(text: str) -> Iterator[tuple[Number, int]]:
    """The numbers of a text that have digits, each with where these begin; of those that are written alike it is the first one."""
    known: dict[tuple[str, bool, bool, str, str, str, bool], Number] = {}
    plain = even(text)
    for match in _NUMBER.finditer(plain):
        if match["name"] and _DOTTED_DATE.fullmatch(match["name"]):
            yield from ((number, number.start) for number in _dated(match))
            continue
        minus, dashed = _sign(match)
        begin, end = match.span()
        start = match.start("digits")
        listed = _TWO_OR_ONE.match(plain, start) if plain[end : end + 1] == "," else None
        behind = _BEHIND.match(plain, end)
        before = "" if match["before"] or begin < 3 else plain[begin - 4 : begin]
        shown = text[begin:end]
        headed = not match["before"] and plain[max(0, begin - 8) : begin].rstrip().endswith("(%)")
        told = before if before[2:3].isupper() else ""
        key = (shown, minus, dashed, listed[0] if listed else "", behind[0] if behind else "", told, headed)
        if (number := known.get(key)) is None:
            number = _number(match, shown, listed, minus=minus, dashed=dashed)
            number = known[key] = replace(number, headed=True) if headed else number
        yield number, start


def moved(number: Number, start: int) -> Number:
    """A number in another place."""
    return replace(number, start=start, begin=number.begin + start - number.start)


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
    currency = currencies.named(match["before"] or match["after"] or "")
    scale, unit, loose = _scale(match, currency)
    if match["percent"]:
        scale /= 1000 if match["percent"] == "‰" else 10_000 if match["percent"][0] in "bB" else 100
    step = Fraction(0) if match["vulgar"] else Fraction(10) ** -places * scale
    sure = bool(currency or match["percent"] or match["scale"])
    parts = (worth(listed[0])[0],) if listed else _parts(match, plain, sure=sure)
    if minus:
        plain = -plain
    measure, strange, counts = (None, "", False) if currency or match["percent"] else beside(match.string, begin, match.end())
    if match["letter"] in ("m", "mm") and not currency:
        measure = unit_at(match.string, match.start("letter") - 1) or METRES[match["letter"]]
    return Number(
        plain * scale, plain, step, currency, bool(match["percent"]), bool(match["open"] and match["close"]), text, start, begin,
        dashed, unit, loose, measure=measure, strange=strange, counts=counts, parts=parts,
    )  # fmt: skip


def beside(text: str, begin: int, end: int) -> tuple[Unit | None, str, bool]:
    """What stands beside a number without a currency: its unit; what may be a currency that nobody knows; whether it counts something."""
    measure = unit_at(text, end)
    before, behind = _STRANGE_BEFORE.search(text, max(0, begin - 5), begin), _STRANGE_BEHIND.match(text, end)
    strange = "" if measure else (before or behind or [""])[0].strip()
    if strange.isalpha() and strange not in CURRENCIES and strange not in FORMER_CURRENCIES:  # `VAT`, `NET`
        strange = ""
    return measure, strange, measure is None and _COUNTED.match(text, end) is not None


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


def unreal(text: str, *, dated: bool = False) -> list[tuple[str, bool]]:
    """What a text writes as a date and is none, and whether it surely is meant as one: 30 February, 2026-02-30, 31 June.

    A month beyond the twelfth is no date, and nothing is said of it; nor of `2024.02.30`, which may be a version, but behind such words as
    `on`, or where the whole text should be a date (`dated`).
    """
    every = [match for pattern in _DATES[:4] for match in pattern.finditer(text) if _day(match) is None and _like_a_date(match)]
    said = ((match[0], _is_meant(match, dated=dated)) for match in every)
    return [(shown, sure) for shown, sure in said if sure is not None]


def _is_meant(match: re.Match[str], *, dated: bool) -> bool | None:
    """Whether a date is meant; None where a number of something else is, as in `in June 31 people died` and `Feb 30%`."""
    text, parts = match.string, match.groupdict()
    if parts.get("y"):
        return True if dated or parts.get("mark") != "." or _DATED.search(text, max(0, match.start() - 10), match.start()) else None
    if _GOES_ON.match(text, match.end()):
        return None
    if (behind := _THEN.match(text, match.end())) is None:
        return True
    counts = behind["word"] and match[0][0].isalpha() and _WITHIN.search(text, max(0, match.start() - 10), match.start())
    return None if counts else False


def _like_a_date(match: re.Match[str]) -> bool:
    parts = match.groupdict()
    if parts.get("n"):
        return 28 < int(parts["d"]) <= 31
    first, second = (int(parts[name]) for name in (("m", "d") if parts.get("m") else ("a", "b")))
    return 0 < min(first, second) <= 12 and 28 < max(first, second) <= 31 and (parts.get("a") is not None or second > first)


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

    Currencies, units and per cent clash only where both are written: `$5` is no `5 euros`, and `5 km` are `5,000 metres`. The `m` of `5m`
    in the evidence is a million, or a metre.
    """
    if answer.measure and evidence.measure and not (answer.unit and evidence.unit):
        equal = answer.value * answer.measure.size == evidence.value * evidence.measure.size
        return answer.measure.kind == evidence.measure.kind and equal
    if answer.currency and evidence.currency and (answer.currency in currencies.PARTS) != (evidence.currency in currencies.PARTS):
        return _money(answer) == _money(evidence) and currencies.differ(answer.currency, evidence.currency) is not True
    if differ(answer, evidence) is not False:
        return False
    if answer.unit and evidence.unit:  # `324m` and `324 m`, but not `5 m` and `5 mm`
        return answer.unit == evidence.unit and answer.plain == evidence.plain
    if answer.value == evidence.value or ((answer.bracketed or evidence.bracketed) and abs(answer.value) == abs(evidence.value)):
        return True
    if evidence.loose and answer.value == evidence.plain:
        return True
    return answer.percent != evidence.percent and answer.plain == evidence.plain and _unscaled(answer) and _unscaled(evidence)


def _unscaled(number: Number) -> bool:
    """Whether a number has no scale but per cent, or hundredths of one."""
    return number.value in (number.plain, number.plain / 100, number.plain / 10_000)


def _money(number: Number) -> Fraction:
    """A sum of money in whole units."""
    return number.value / 100 if number.currency in currencies.PARTS else number.value


def differ(answer: Number, evidence: Number) -> bool | None:
    """Whether two numbers are of different things, whatever they are worth: of two currencies, of metres and feet, of per cent and of
    kilograms; None where nobody can tell. What one of them leaves open is no difference."""
    if answer.currency and evidence.currency:
        return currencies.differ(answer.currency, evidence.currency)
    if answer.percent and evidence.headed:
        return False
    if answer.measure and evidence.measure:
        if answer.measure == evidence.measure:
            return False
        of_one_way = {answer.measure.kind, evidence.measure.kind} == {"length", "speed"}  # `100 km in an hour`
        return None if answer.unit or evidence.unit or of_one_way else True
    mine, theirs = (one.measure is not None and bool(one.unit) for one in (answer, evidence))  # `5 m` may be millions
    kinds = [(bool(one.currency), one.percent, one.measure is not None and not one.unit) for one in (answer, evidence)]
    if any(map(any, kinds)) and all(map(any, kinds)) and kinds[0] != kinds[1]:
        pounds = {one.currency for one in (answer, evidence)} <= {"GBP", "pound", ""}
        weight = next((one.measure for one in (answer, evidence) if one.measure is not None), None)
        return not (pounds and weight == POUND)
    if (answer.currency and evidence.strange) or (answer.strange and evidence.currency):
        return None
    if (mine and (evidence.currency or evidence.percent)) or (theirs and (answer.currency or answer.percent)):
        return None
    counted = (answer.percent and evidence.counts) or (answer.counts and evidence.percent)
    return None if counted or (answer.strange and evidence.strange and answer.strange != evidence.strange) else False
