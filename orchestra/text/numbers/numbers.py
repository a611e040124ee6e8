"""Numbers and dates in text: thousands, decimals, %, k/m/bn, currencies, small number words, calendar dates.

Figures are parsed by `orchestra.text.numbers.numerals`. Thousands and decimals are read in the English way unless the
figure shows another one: `1.234` is a decimal, `1.234,56` and `1.234.567` are not. The comma of `12,5` is a decimal
comma if the text has nothing else, and next to a unit or a currency; elsewhere it separates two numbers. Identifiers,
such as versions, addresses and very long rows of digits, are compared as strings.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import date
from decimal import Decimal
from fractions import Fraction

from orchestra.text.keywords import UNSPACED_SCRIPTS
from orchestra.text.numbers import currencies
from orchestra.text.numbers.iso_codes import CURRENCIES, FORMER_CURRENCIES
from orchestra.text.numbers.numerals import (
    COMMA_GROUPED,
    DECIMAL_COMMA,
    DOTTED_IDENTIFIER,
    LAKH_GROUPED,
    MINUS_SIGNS,
    POINT_GROUPED,
    POWER_OF_TEN,
    SCALE_LETTERS,
    SCALE_PATTERN,
    SCALES,
    SPACE_GROUPED,
    VULGAR_FRACTION,
    parse_numeral,
    to_ascii_digits,
)
from orchestra.text.numbers.times import MONTH_PATTERN, month_number
from orchestra.text.numbers.units import METRE_LETTERS, POUND, MeasureUnit, unit_at
from orchestra.text.numbers.words import find_written_numbers

MAX_DIGITS = 40
"""Longer runs of digits are identifiers, compared as strings."""

_DASHES = frozenset("–‒")
"""Dashes that are usually not minus signs, although some texts write `–5 °C`."""
_ENDS_IN_UNIT = r"(?=[^\S\n]?[a-z])(?![^\S\n](?:and|or|to|und|oder|bis|et|ou|y|o|e)\b)"
"""A word after a figure that does not join it to another figure."""
_NUMBER = re.compile(
    rf"""(?P<alone>\A)?(?:(?<!\w)|(?<=[{UNSPACED_SCRIPTS}\uac00-\ud7a3])|(?<=\dx)|(?<=\dT)(?=\d\d:)|(?<=\dh)(?=[0-5]\d(?!\w)))
    (?P<open>\(\s?)?
    (?:(?P<sign>[{MINUS_SIGNS}+])(?P<apart>\s?))?
    (?:(?=[^\d\s(])(?P<before>{currencies.PREFIX_PATTERN})\s?)?
    (?P<sign2>[{MINUS_SIGNS}])?
    (?:v(?=\d+\.\d))?
    (?P<digits>(?<!\d\.)(?:
        {POINT_GROUPED} | {COMMA_GROUPED} | (?P<joined>{SPACE_GROUPED})
      | (?P<name>{DOTTED_IDENTIFIER})
      | (?P<comma>(?<!\d,)(?:
            (?:{DECIMAL_COMMA}|{LAKH_GROUPED})(?(before)|(?:(?=[^\S\n]?[%‰°€£¥₹$])|(?(alone)(?=\s*\Z)|(?!))))
          | (?:0,\d+|\d+,\d{{1,2}}|{LAKH_GROUPED})(?!\d|[.,]\d){_ENDS_IN_UNIT}))
      | (?P<vulgar>{VULGAR_FRACTION})
      | (?<![\w.])\.\d+(?!\.\d)
      | \d+(?:\.\d+)?(?:{POWER_OF_TEN})?
    ))
    (?:(?=(?:\s|-)?[^\W\d_]|\s?[^\w\s.,;:()]) (?:(?:\s|-)?(?P<scale>{SCALE_PATTERN})(?!\w)
       (?:\s(?P<scale2>{SCALE_PATTERN})(?!\w))?
     | (?P<glued>mm|[kmb])(?!\w)
     | [^\S\n](?P<letter>(?(before)(?:mm|[kmb])(?!\w)
        |(?:(?-i:mm?|[MBK])|(?:mm|[kmb])(?=\s?(?:{currencies.SUFFIX_PATTERN})(?!\w)))(?!\w)(?!\.\s*(?-i:[A-Z])))))?
    (?:\s?(?P<percent>[%‰]|pct(?!\w)|per\s?cent(?!\w)|percentage\spoints?(?!\w)|bps?(?!\w)|basis\spoints?(?!\w)))?
    (?:\s?(?P<after>{currencies.SUFFIX_PATTERN})(?!\w))?
    (?P<ordinal>(?<=\d)(?:st|nd|rd|th)(?!\w))? )?
    (?P<close>\))?
    """,
    re.VERBOSE | re.IGNORECASE,
)
_FOLLOWING_UNIT = re.compile(
    r"\s?/\s?\w+|[^\S\n]?-?[^\W\d][\w./²³]*(?:(?!\s(?:per|an?)\s)[\s-][^\W\d]\w*[²³]?)?(?:\s(?:per|an?|/)\s\w+)?|[^\S\n]?[^\w\s]"
)
"""Text after a number that shows what it counts or measures."""
_CURRENCY_SIGN = "[\u20a0-\u20cf\u060b\u09f2\u09f3\u17db\ufdfc]"
_UNKNOWN_CURRENCY_BEFORE = re.compile(rf"(?:(?<![^\W\d_])[A-Z]{{3}}\s?|{_CURRENCY_SIGN}\s?)\Z")
_UNKNOWN_CURRENCY_AFTER = re.compile(rf"\s?(?:[A-Z]{{3}}(?!\w)|{_CURRENCY_SIGN})")
_COUNTED = re.compile(
    r" (?-i:(?![A-Z]))(?!(?:and|or|to|of|in|on|at|by|for|from|per|as|than|with|the|an?|is|was|were"
    r"|are|has|had|respectively"
    r"|between|up|down|after|before"
    r"|during|over|under|while|when|which|that|but|compared|versus|vs"
    r"|million|billion|thousand|und|et)\b)[^\W\d]{3,}",
    re.IGNORECASE,
)
_MINUS_WORD = re.compile(r"\b(?:minus|negative)\s$", re.IGNORECASE)
"""Before a number that is negative, or subtracted from another one."""
_AMBIGUOUS_COMMA = re.compile(rf"(?<!\d,)(?:{DECIMAL_COMMA}|{LAKH_GROUPED})")
_DOTTED_DATE = re.compile(r"\d{1,2}\.\d{1,2}\.\d{4}|\d{4}\.\d{2}\.\d{2}")
_ENDS_A_NUMBER = frozenset("%‰°€£$¥₹)]")
_DATES = tuple(
    re.compile(rf"(?<!\w)(?<!\d\.){pattern}(?:(?!\w)|(?=T\d\d))", re.IGNORECASE)
    for pattern in (
        r"(?P<y>\d{4})(?P<mark>[-/.])(?P<m>\d{2})(?P=mark)(?P<d>\d{2})",
        r"(?P<a>\d{1,2})[/.](?P<b>\d{1,2})[/.](?P<y>\d{4})",
        rf"(?P<d>\d{{1,2}})(?:st|nd|rd|th)?\s(?:of\s)?(?P<n>{MONTH_PATTERN})\.?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{MONTH_PATTERN})\.?\s(?P<d>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s(?P<y>\d{{4}}))?",
        rf"(?P<n>{MONTH_PATTERN})\.?,?\s(?P<y>\d{{4}})",
    )
)
_DATE_CONTEXT = re.compile(r"\b(?:on|dated?|due|until|till|by|since|from|before|after):?\s\Z", re.IGNORECASE)
"""Before a date."""
_MONTH_CONTEXT = re.compile(r"\b(?:in|during|throughout)\s\Z", re.IGNORECASE)
"""Before a month."""
_NUMBER_CONTINUES = re.compile(r"[.,]\d|\s?[%‰€£¥₹$°]")
_AFTER_DATE = re.compile(rf"\s(?P<word>[^\W\d_])|[,;]?\s(?:and\s)?(?:(?:{MONTH_PATTERN})\.?\s)?\d", re.IGNORECASE)
"""After a month and a number that may not be a day: what the number counts, or the next item of a list."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number in a text. `value` includes its scale and per cent; `plain` is the value of the digits alone."""

    value: Fraction
    plain: Fraction
    step: Fraction
    """One unit in the last displayed place, scaled like the value."""
    currency: str = ""
    percent: bool = False
    bracketed: bool = False
    """Written as `(3.1)`: a negative number in accounts, an aside in prose."""
    text: str = ""
    start: int = 0
    """Start of its digits; `begin` is the start of `text`."""
    begin: int = 0
    uncertain_minus: bool = False
    """Whether an ambiguous dash or the word is before it: `- 3 chairs`, `2010 - 2015`, `–5`, `minus 5`."""
    unit_letter: str = ""
    """A letter after it that is a scale or a unit: `5m`, `324 m`. Next to a currency it is a scale."""
    uncertain_scale: bool = False
    """Whether its value includes the scale of such a letter, but may be that of the digits alone."""
    identifier: str = ""
    """A string that is compared as it is, such as `3.11.9`; its value is one that no decimal has."""
    measure_unit: MeasureUnit | None = None
    """The unit after it, if it is known."""
    unknown_currency: str = ""
    """Three capitals or a sign next to it that may be an unknown currency."""
    counts_noun: bool = False
    """Whether a word follows that is not a unit, a currency or a function word: `10 items`."""
    is_uncertain: bool = False
    """Whether its words may not be a number: `one`, `the first`, `the two`."""
    alternative: Fraction | None = None
    """The other reading of ambiguous words, such as the `a third` of `a third man`."""
    has_percent_header: bool = False
    """Whether `(%)` is directly before it, as in a table header; the text after it may then belong to the next column.
    """
    other_readings: tuple[Fraction, ...] = ()
    """Other readings of its digits: two numbers for `3,5 of` and `737 800`, a decimal for `3,5`, thousands for `1.234`,
    and the beginnings of identifiers.
    """


@dataclass(frozen=True, slots=True)
class CalendarDate:
    """A date in a text, possibly partial; `other` is the second reading of `3/4/2026`."""

    year: int | None
    month: int
    day: int | None
    text: str = ""
    start: int = 0
    alternative: tuple[int, int] | None = None

    def matches(self, written: CalendarDate) -> bool:
        """Returns whether another date states this one at least as exactly."""
        for month, day in filter(None, ((written.month, written.day), written.alternative)):
            for mine in filter(None, ((self.month, self.day), self.alternative)):
                if mine[0] == month and mine[1] in (None, day) and self.year in (None, written.year):
                    return True
        return False


def find_numbers(text: str, *, words: bool = False) -> list[Number]:
    """Returns the numbers of a text in order; with `words` also written-out ones such as `twenty-one`."""
    found = [number if number.start == start else move_number(number, start) for number, start in find_figures(text)]
    if words:
        found += (
            Number(one.value, one.plain, one.step, text=text[one.start : one.end], start=one.start, begin=one.start)
            for one in find_written_numbers(text)
        )
    return sorted(found, key=lambda number: number.start)


def find_figures(text: str) -> Iterator[tuple[Number, int]]:
    """Yields the numbers with digits and the start of their digits; of equal spellings only the first."""
    known: dict[tuple[str, bool, bool, str, str, str, bool], Number] = {}
    plain = to_ascii_digits(text)
    for match in _NUMBER.finditer(plain):
        if match["name"] and _DOTTED_DATE.fullmatch(match["name"]):
            yield from ((number, number.start) for number in _date_parts(match))
            continue
        minus, dashed = _sign(match)
        begin, end = match.span()
        start = match.start("digits")
        listed = _AMBIGUOUS_COMMA.match(plain, start) if plain[end : end + 1] == "," else None
        behind = _FOLLOWING_UNIT.match(plain, end)
        before = "" if match["before"] or begin < 3 else plain[begin - 4 : begin]
        shown = text[begin:end]
        headed = not match["before"] and plain[max(0, begin - 8) : begin].rstrip().endswith("(%)")
        previous = before if before[2:3].isupper() else ""
        key = (shown, minus, dashed, listed[0] if listed else "", behind[0] if behind else "", previous, headed)
        if (number := known.get(key)) is None:
            number = _number(match, shown, listed, minus=minus, dashed=dashed)
            number = known[key] = replace(number, has_percent_header=True) if headed else number
        yield number, start


def move_number(number: Number, start: int) -> Number:
    """Returns a number at another position."""
    return replace(number, start=start, begin=number.begin + start - number.start)


def _date_parts(match: re.Match[str]) -> Iterator[Number]:
    """Returns day, month and year of a date with points or slashes."""
    for part in re.finditer(r"\d+", match["name"]):
        start = match.start("name") + part.start()
        yield Number(
            Fraction(int(part[0])), Fraction(int(part[0])), Fraction(1), text=part[0], start=start, begin=start
        )


def _sign(match: re.Match[str]) -> tuple[bool, bool]:
    """Returns whether a number is negative, and whether that is uncertain.

    A minus is directly before the digits. A dash is between two numbers, or before a space: a bullet, an aside, a
    range.
    """
    if match["sign2"]:
        return True, False
    sign = match["sign"]
    if not sign:
        return False, _MINUS_WORD.search(match.string, max(0, match.start() - 10), match.start()) is not None
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
    """Returns a number. `listed` are the readings of it and the next one, depending on whether the comma between them
    is a decimal comma.
    """
    begin, start, digits = match.start(), match.start("digits"), match["digits"]
    if match["name"] or sum(map(str.isdigit, digits)) > MAX_DIGITS:
        return _identifier(digits, text, start, begin)
    plain, places = parse_numeral(digits)
    currency = currencies.currency_code(match["before"] or match["after"] or "")
    scale, unit, loose = _scale(match, currency)
    if match["percent"]:
        scale /= 1000 if match["percent"] == "‰" else 10_000 if match["percent"][0] in "bB" else 100
    step = Fraction(0) if match["vulgar"] else Fraction(10) ** -places * scale
    sure = bool(currency or match["percent"] or match["scale"])
    parts = (parse_numeral(listed[0])[0],) if listed else _other_readings(match, plain, sure=sure)
    if minus:
        plain = -plain
    measure, strange, counts = (
        (None, "", False) if currency or match["percent"] else number_context(match.string, begin, match.end())
    )
    if match["letter"] in ("m", "mm") and not currency:
        measure = unit_at(match.string, match.start("letter") - 1) or METRE_LETTERS[match["letter"]]
    return Number(
        plain * scale, plain, step, currency, bool(match["percent"]), bool(match["open"] and match["close"]), text,
        start, begin, dashed, unit, loose, measure_unit=measure, unknown_currency=strange, counts_noun=counts,
        other_readings=parts,
    )  # fmt: skip


def number_context(text: str, begin: int, end: int) -> tuple[MeasureUnit | None, str, bool]:
    """Examines the text next to a number without a currency: its unit, a possible unknown currency, and whether it
    counts something.
    """
    measure = unit_at(text, end)
    before, behind = (
        _UNKNOWN_CURRENCY_BEFORE.search(text, max(0, begin - 5), begin),
        _UNKNOWN_CURRENCY_AFTER.match(text, end),
    )
    strange = "" if measure else (before or behind or [""])[0].strip()
    if strange.isalpha() and strange not in CURRENCIES and strange not in FORMER_CURRENCIES:  # `VAT`, `NET`
        strange = ""
    return measure, strange, measure is None and _COUNTED.match(text, end) is not None


def _other_readings(match: re.Match[str], plain: Fraction, *, sure: bool) -> tuple[Fraction, ...]:
    """Returns other readings of a number's digits."""
    digits = match["digits"]
    if match["comma"]:
        return () if sure else tuple(parse_numeral(part)[0] for part in digits.split(","))
    if match["joined"] and " " in digits and not sure and not digits.endswith("000"):  # `Boeing 737 800`
        return tuple(parse_numeral(part)[0] for part in digits.split(" "))
    other = plain if "," in digits else parse_numeral(digits, decimal_comma=True)[0]  # `1.234` next to `1.234,50`
    return (other,) if other != plain else ()


def _scale(match: re.Match[str], currency: str) -> tuple[Fraction, str, bool]:
    """Returns the scale after the digits, a letter that is a scale or a unit, and whether that is uncertain."""
    if match["scale"]:
        return (
            Fraction(10) ** (SCALES[match["scale"].lower()] + SCALES.get((match["scale2"] or "").lower(), 0)),
            "",
            False,
        )
    letter = match["glued"] or match["letter"] or ""
    if match["letter"] and letter.islower() and not currency:
        return Fraction(1), letter, False
    loose = not currency and (letter in ("m", "mm", "b") or bool(match["letter"]))
    return Fraction(10) ** SCALE_LETTERS.get(letter.lower(), 0), letter if loose else "", loose


def _identifier(digits: str, text: str, start: int, begin: int) -> Number:
    """Returns an identifier, which is compared as a string. Its value is a third of an integer, which no decimal
    equals.
    """
    value = Fraction(3 * int(hashlib.sha256(digits.encode()).hexdigest(), 16) + 1, 3)
    head = digits[: MAX_DIGITS + 1].split(".")
    parts = (Fraction(int(head[0])), Fraction(Decimal(".".join(head[:2])))) if len(head) > 2 else ()
    return Number(
        value, value, Fraction(0), text=text, start=start, begin=begin, identifier=digits, other_readings=parts
    )


def from_json_number(value: int | float) -> Number:
    """Returns a finite JSON number as it is written: 134.9 has one decimal place, 135.0 none; integers keep all digits.

    Raises `ValueError` for an integer of thousands of digits.
    """
    text = repr(value)
    if isinstance(value, int):
        exact, places = Fraction(value), 0
        if len(text.lstrip("-")) > MAX_DIGITS:
            return find_numbers(text)[0]
    else:
        written = Decimal(text).normalize()
        exponent = written.as_tuple().exponent
        exact, places = Fraction(written), max(0, -exponent) if isinstance(exponent, int) else 0
    return Number(exact, exact, Fraction(1, 10**places), text=text)


def find_dates(text: str) -> list[CalendarDate]:
    """Returns the valid calendar dates of a text in order."""
    found: list[CalendarDate] = []
    taken = bytearray(len(text))
    for pattern in _DATES:
        for match in pattern.finditer(text):
            start, end = match.span()
            if 1 in taken[start:end]:
                continue
            if day := _calendar_date(match):
                found.append(day)
                taken[start:end] = b"\x01" * (end - start)
    return sorted(found, key=lambda day: day.start)


def find_invalid_dates(text: str, *, is_date: bool = False) -> list[tuple[str, bool]]:
    """Yields invalid dates, such as 30 February, 2026-02-30 and 31 June, and whether each is certainly meant as a date.

    A month beyond 12 is not a date and is skipped. So is `2024.02.30`, which may be a version, except after words such
    as `on`, or if the whole text should be a date (`dated`).
    """
    every = [
        match
        for pattern in _DATES[:4]
        for match in pattern.finditer(text)
        if _calendar_date(match) is None and _looks_like_date(match)
    ]
    said = ((match[0], _is_meant_as_date(match, dated=is_date)) for match in every)
    return [(shown, sure) for shown, sure in said if sure is not None]


def _is_meant_as_date(match: re.Match[str], *, dated: bool) -> bool | None:
    """Returns whether a date is meant; None if the number belongs to something else, as in `in June 31 people died` and
    `Feb 30%`.
    """
    text, parts = match.string, match.groupdict()
    if parts.get("y"):
        return (
            True
            if dated
            or parts.get("mark") != "."
            or _DATE_CONTEXT.search(text, max(0, match.start() - 10), match.start())
            else None
        )
    if _NUMBER_CONTINUES.match(text, match.end()):
        return None
    if (behind := _AFTER_DATE.match(text, match.end())) is None:
        return True
    counts = (
        behind["word"]
        and match[0][0].isalpha()
        and _MONTH_CONTEXT.search(text, max(0, match.start() - 10), match.start())
    )
    return None if counts else False


def _looks_like_date(match: re.Match[str]) -> bool:
    parts = match.groupdict()
    if parts.get("n"):
        return 28 < int(parts["d"]) <= 31
    first, second = (int(parts[name]) for name in (("m", "d") if parts.get("m") else ("a", "b")))
    return (
        0 < min(first, second) <= 12
        and 28 < max(first, second) <= 31
        and (parts.get("a") is not None or second > first)
    )


def _calendar_date(match: re.Match[str]) -> CalendarDate | None:
    parts = match.groupdict()
    year = int(parts["y"]) if parts.get("y") else None
    if parts.get("a"):
        readings = [
            (m, d)
            for d, m in ((int(parts["a"]), int(parts["b"])), (int(parts["b"]), int(parts["a"])))
            if _date_exists(year, m, d)
        ]
        if not readings:
            return None
        return CalendarDate(year, *readings[0], match[0], match.start(), readings[1] if len(readings) > 1 else None)
    month = int(parts["m"]) if parts.get("m") else month_number(parts["n"])
    day = int(parts["d"]) if parts.get("d") else None
    return CalendarDate(year, month, day, match[0], match.start()) if _date_exists(year, month, day or 1) else None


def _date_exists(year: int | None, month: int, day: int) -> bool:
    try:
        date(year or 2000, month, day)
    except ValueError:
        return False
    return True


def same_number(answer: Number, evidence: Number) -> bool:
    """Returns whether two numbers are equal: with scale and per cent, or by digits if one of them omits the `%`.

    Currencies, units and per cent only conflict if both are written: `$5` is not `5 euros`, and `5 km` are `5,000
    metres`. The `m` of `5m` in the evidence may be a million or a metre.
    """
    if answer.measure_unit and evidence.measure_unit and not (answer.unit_letter and evidence.unit_letter):
        equal = answer.value * answer.measure_unit.factor == evidence.value * evidence.measure_unit.factor
        return answer.measure_unit.dimension == evidence.measure_unit.dimension and equal
    if (
        answer.currency
        and evidence.currency
        and (answer.currency in currencies.SUBUNITS) != (evidence.currency in currencies.SUBUNITS)
    ):
        return (
            _whole_units(answer) == _whole_units(evidence)
            and currencies.are_different(answer.currency, evidence.currency) is not True
        )
    if differ_in_kind(answer, evidence) is not False:
        return False
    if answer.unit_letter and evidence.unit_letter:  # `324m` equals `324 m`, but `5 m` does not equal `5 mm`
        return answer.unit_letter == evidence.unit_letter and answer.plain == evidence.plain
    if answer.value == evidence.value or (
        (answer.bracketed or evidence.bracketed) and abs(answer.value) == abs(evidence.value)
    ):
        return True
    if evidence.uncertain_scale and answer.value == evidence.plain:
        return True
    return (
        answer.percent != evidence.percent
        and answer.plain == evidence.plain
        and _is_unscaled(answer)
        and _is_unscaled(evidence)
    )


def _is_unscaled(number: Number) -> bool:
    """Returns whether a number has no scale except per cent, or hundredths."""
    return number.value in (number.plain, number.plain / 100, number.plain / 10_000)


def _whole_units(number: Number) -> Fraction:
    """Returns an amount of money in whole units."""
    return number.value / 100 if number.currency in currencies.SUBUNITS else number.value


def differ_in_kind(answer: Number, evidence: Number) -> bool | None:
    """Returns whether two numbers measure different things regardless of their values: two currencies, metres and feet,
    per cent and kilograms; None if it is unknown. Missing information is not a difference.
    """
    if answer.currency and evidence.currency:
        return currencies.are_different(answer.currency, evidence.currency)
    if answer.percent and evidence.has_percent_header:
        return False
    if answer.measure_unit and evidence.measure_unit:
        if answer.measure_unit == evidence.measure_unit:
            return False
        of_one_way = {answer.measure_unit.dimension, evidence.measure_unit.dimension} == {
            "length",
            "speed",
        }  # `100 km in an hour`
        return None if answer.unit_letter or evidence.unit_letter or of_one_way else True
    mine, theirs = (
        one.measure_unit is not None and bool(one.unit_letter) for one in (answer, evidence)
    )  # `5 m` may be millions
    kinds = [
        (bool(one.currency), one.percent, one.measure_unit is not None and not one.unit_letter)
        for one in (answer, evidence)
    ]
    if any(map(any, kinds)) and all(map(any, kinds)) and kinds[0] != kinds[1]:
        pounds = {one.currency for one in (answer, evidence)} <= {"GBP", "pound", ""}
        weight = next((one.measure_unit for one in (answer, evidence) if one.measure_unit is not None), None)
        return not (pounds and weight == POUND)
    if (answer.currency and evidence.unknown_currency) or (answer.unknown_currency and evidence.currency):
        return None
    if (mine and (evidence.currency or evidence.percent)) or (theirs and (answer.currency or answer.percent)):
        return None
    counted = (answer.percent and evidence.counts_noun) or (answer.counts_noun and evidence.percent)
    return (
        None
        if counted
        or (
            answer.unknown_currency
            and evidence.unknown_currency
            and answer.unknown_currency != evidence.unknown_currency
        )
        else False
    )
