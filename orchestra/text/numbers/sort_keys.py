"""Sort keys of table cells: amounts of money, times of day, durations, dates, versions.

A column is read as a whole: its cells decide whether `9.40` is a price or a time, whether `1.234` is more than a
thousand, whether `1/2/2024` is in January, and which unit applies to all cells.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NamedTuple, TypeAlias

from orchestra.text.numbers.numerals import (
    CURRENCY_PATTERN,
    MINUS_SIGNS,
    NUMERAL,
    SCALE_LETTERS,
    SCALE_PATTERN,
    SCALES,
    is_identifier,
    is_negative,
    is_single_number,
    parse_numeral,
    to_ascii_digits,
    uses_decimal_comma,
)
from orchestra.text.numbers.times import MONTH_PATTERN, month_number

DAYS: Final = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAYS: Final = (
    "mon(?:day)?s? tue(?:s|sday|sdays)? wed(?:nesday)?s? thu(?:r|rs|rsday|rsdays)? fri(?:day)?s? sat(?:urday)?s?"
    " sun(?:day)?s?"
)
SCALE_WORDS: Final = {
    word: 10.0**power
    for word, power in SCALES.items()
    if word not in ("hundred", "lakh", "crore", "tn") and word[-1] != "s"
}
"""Words in a header or in a limit that multiply numbers, without words that are also names."""
ABOVE, FROM, BELOW, UP_TO = "above", "from", "below", "upto"
BOUNDS: Final = (ABOVE, FROM, BELOW, UP_TO)
"""Kinds of limits: `from` and `upto` include the limit, `above` and `below` exclude it."""
_CellReader: TypeAlias = Callable[[str], float | None]
MAX_POWER = 256
"""Powers of ten must be below this."""
MIN_SHARE = 0.5
"""Minimum share of a column's texts that a kind of measure must be able to read."""

_MONTH = rf"(?P<month>{MONTH_PATTERN})\b\.?"
_CLOCK = re.compile(
    r"(?:\w+ )?(?P<hour>\d{1,2})[:.h](?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?\s*(?P<half>[ap]\.?m\.?)?",
    re.IGNORECASE,
)
_HOUR = re.compile(
    r"(?P<hour>1[0-2]|[1-9])\s*(?P<half>[ap]\.?m\.?)|(?:12 )?(?P<noon>noon|midday|midnight)", re.IGNORECASE
)
_DURATION = re.compile(
    r"(?:(?P<hours>\d{1,6}(?P<share>[.,]\d{1,2})?)\s*(?:hours?|hrs?|h)(?![a-z])\.?)?\s*"
    r"(?:(?P<minutes>\d{1,6})\s*(?:minutes?|mins?|m)?\b\.?)?",
    re.IGNORECASE,
)
_IN_MINUTES = re.compile(r"\d\s*m(?:ins?|inutes?)?\b", re.IGNORECASE)
_LAP = re.compile(r"(?P<minutes>\d{1,6})[:'′]\s*(?P<seconds>[0-5]\d(?:\.\d+)?)[\"″]?")
_YEAR = r"(?P<year>\d{4}|['’]\d\d)"
_DATES = tuple(
    re.compile(pattern, re.IGNORECASE | re.ASCII)
    for pattern in (
        rf"(?:\w{{2,9}},? )?(?P<day>\d{{1,2}})(?:st|nd|rd|th)?\.? {_MONTH},?(?: (?P<year>\d{{4}}))?",
        rf"(?:\w{{2,9}},? )?{_MONTH} (?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:(?:,? |,)(?P<year>\d{{4}}))?",
        rf"{_MONTH},?(?: (?P<year>\d{{4}}))?",
        rf"{_MONTH}(?:[-–/]| ?['’])(?P<year>\d{{4}}|\d\d)",
        rf"(?P<day>\d{{1,2}})[-–/]{_MONTH}(?:[-–/](?P<year>\d{{4}}|\d\d))?",
        r"(?P<year>\d{4})(?P<mark>[-/.])(?P<number>\d{1,2})(?P=mark)(?P<day>\d{1,2})",
        r"(?P<number>0?[1-9]|1[0-2])/(?P<year>(?:19|20)\d\d)",  # `7/1234` is a fraction
        rf"(?:q(?P<quarter>[1-4])|h(?P<half>[12])),? {_YEAR}",
        rf"(?:(?P<quarter>[1-4])q|(?P<half>[12])h),? ?{_YEAR}",
        rf"{_YEAR}[ -]?(?:q(?P<quarter>[1-4])|h(?P<half>[12]))",
        r"(?P<first>\d{1,2})[./](?P<second>\d{1,2})[./](?P<year>\d{2,4})",
        r"(?P<first>\d{1,2})-(?P<second>\d{1,2})-(?P<year>\d{4})",
    )
)
_NUMERIC_DATES = _DATES[-2:]
"""Dates whose first number may be the day or the month."""
_DATE_TIME = re.compile(
    r"(?P<date>.*?\w)(?:T|,? (?:at )?)(?P<hour>[01]?\d|2[0-4]):(?P<minute>[0-5]\d)"
    r"(?::(?P<second>[0-5]\d(?:\.\d{1,9})?))?(?: ?(?P<half>[ap])\.?m\.?)?(?: ?(?:Z|UTC|GMT))?"
    r"(?: ?(?P<off>[-+])(?P<hours>\d\d):?(?P<minutes>\d\d)?)?",
    re.IGNORECASE | re.ASCII,
)
"""A date with a time of day, and the time zone offset."""
_DATE_IN_TEXT = re.compile(
    rf"(?<![\w.,/-])(?:\d{{4}}([-/.])\d{{1,2}}\1\d{{1,2}}|\d{{1,2}}([-/.])\d{{1,2}}\2\d{{4}}"
    rf"|\d{{1,2}}(?:st|nd|rd|th)?\.? (?:{MONTH_PATTERN})\.?,? \d{{4}}"
    rf"|(?:{MONTH_PATTERN})\.? \d{{1,2}}(?:st|nd|rd|th)?,? \d{{4}})(?![\d/-])",
    re.IGNORECASE | re.ASCII,
)
"""A date among words, whose first digits are not a number."""
_DAY = re.compile("(" + _DAYS.replace(" ", "|") + r")\b.*", re.IGNORECASE)
_NUMBER = re.compile(rf"(?P<parts>\d{{1,6}}['’′]\d{{1,2}}(?!\d))|(?P<digits>{NUMERAL})")
"""A number; minutes and seconds, such as `4'35`, sort by their digits."""
_PRICE, _PRICED = (
    re.compile(rf"{CURRENCY_PATTERN}[\s(]*[{MINUS_SIGNS}]?\s*$"),
    re.compile(rf"\s?(?:mm|[kmbKMB])\s?{CURRENCY_PATTERN}"),
)
"""Text before an amount of money, and after one with a letter."""
_SCALE_LETTER = re.compile(
    rf"(?P<letter>mm|[kmb])(?:(?![\w²³/])|(?={CURRENCY_PATTERN}))|\s(?P<apart>mm|[kmb])\s?{CURRENCY_PATTERN}?[\s+).]*$",
    re.IGNORECASE,
)
_SCALE_WORD = re.compile(
    rf"[\s)+$€£¥]*(?:(?<=\d)-)?(?P<scale>{SCALE_PATTERN})(?!\w)(?:\s(?P<more>{SCALE_PATTERN})(?!\w))?", re.IGNORECASE
)
_NUMBER_WITH_LETTER = re.compile(rf"[{MINUS_SIGNS}+~<>≈(]?\s?{NUMERAL}(?P<letter>[kKMB]?)\+?\)?")
"""Only a number, optionally with such a letter; a small `m` is a metre."""
_VERSION = re.compile(r"v?(\d{1,3}(?:\.\d{1,3}){0,3})", re.IGNORECASE)
_HOURS, _MINUTES = (
    re.compile(r"\b(?:h|hrs?|hours?)\b", re.IGNORECASE),
    re.compile(r"\b(?:min|mins|minutes?)\b", re.IGNORECASE),
)
"""Units of durations in a column's header."""


class NumberFormat(NamedTuple):
    """Format of the numbers and dates of a column, for ambiguous ones."""

    decimal_comma: bool = False
    """Whether points separate thousands and the comma is a decimal comma."""
    month_first: bool = False


def detect_format(texts: Sequence[str], *, is_other_column: bool = False) -> NumberFormat:
    """Returns the format that the unambiguous texts show; the English format if there are none. `sure` is used for
    texts of other columns.
    """
    dates = [match for text in texts for form in _NUMERIC_DATES if (match := form.fullmatch(text.strip())) is not None]
    month_first = any(int(date_match["second"]) > 12 for date_match in dates) and all(
        int(date_match["first"]) <= 12 for date_match in dates
    )
    return NumberFormat(uses_decimal_comma(texts, sure=is_other_column), month_first)


def column_sort_keys(column: Sequence[str], number_format: NumberFormat | None = None) -> list[float | None]:
    """Returns the sort key of each text of a column, None for a text without one. All are None if no kind of measure
    reads half of them.

    `number_format` is the format if more than these texts determine it.
    """
    return _read_column(column, number_format or detect_format(column))[1]


def _read_column(column: Sequence[str], number_format: NumberFormat) -> tuple[_CellReader | None, list[float | None]]:
    """Returns the kind of measure of a column, and its sort keys."""
    texts = [" ".join(to_ascii_digits(text).split()) for text in column]
    filled_texts = [text for text in texts if any(letter.isalnum() for letter in text)]
    readers: dict[_CellReader, _CellReader] = {kind: kind for kind in (_clock, _date, _lap, _duration, _day)}
    readers[_duration] = partial(_duration, shares=any(_IN_MINUTES.search(text) for text in filled_texts))
    readers[_date] = partial(_date, month_first=number_format.month_first)
    if any(is_identifier(text.lower().removeprefix("v")) for text in texts):
        readers[_version] = _version
    readers[_number] = partial(_number, points=number_format.decimal_comma, lettered=_has_scale_letters(filled_texts))
    for kind, reader in readers.items():
        cell_keys = [reader(text) if text in filled_texts else None for text in texts]
        enough = 0.9 if kind is not _number else MIN_SHARE
        if filled_texts and sum(key is not None for key in cell_keys) >= max(1.0, enough * len(filled_texts)):
            return kind, cell_keys
    return None, [None] * len(texts)


def filter_by_limit(
    column: Sequence[str], limit: str, bound: str, head: str = "", number_format: NumberFormat | None = None
) -> list[bool] | None:
    """Returns which texts of a column satisfy a limit; a text without a sort key does not.

    `bound` is one of `BOUNDS`; `head` is the column's header, which may contain a unit (`Duration (min)`);
    `number_format` is as for `column_sort_keys`. None if the limit is not of the column's kind, such as a time of day
    with prices.
    """
    column = [to_ascii_digits(cell) for cell in column]
    kind, cell_keys = _read_column(column, number_format := number_format or detect_format(column))
    text = " ".join(to_ascii_digits(limit).lower().replace(" of ", " ").split())
    if kind is None or bound not in BOUNDS:
        return None
    if kind is _date:
        date_limit = _date_limit(column, text, number_format)
    else:
        late = text == "midnight" and bound in (BELOW, UP_TO)  # the end of the day, not its beginning
        edge = (
            _number_limit(column, text, head, number_format)
            if kind is _number
            else _limit(kind, column, "24:00" if late else text)
        )
        date_limit = None if edge is None else (cell_keys, edge)
    if date_limit is None:
        return None
    values, edge = date_limit
    holds = {ABOVE: float.__gt__, FROM: float.__ge__, BELOW: float.__lt__, UP_TO: float.__le__}[bound]
    return [value is not None and holds(value, edge) for value in values]


def _limit(kind: _CellReader, column: Sequence[str], limit: str) -> float | None:
    """Returns the value of a limit for times, durations, laps, versions and weekdays; None if it is none of these."""
    if (clock := re.fullmatch(r"(\d{1,2})(?:\.([0-5]\d))?", limit)) is not None and kind is _clock:
        hour = int(clock[1])
        late = 0 < hour < 12 and all(
            value is None or value >= 720 for value in map(kind, column)
        )  # “after 5” in the afternoon
        return (hour + 12 * late) * 60.0 + int(clock[2] or 0) if hour <= 24 else None
    if kind is _duration:
        if (minutes := _minutes_of(limit)) is not None:
            return minutes
        if re.fullmatch(r"\d+(?:\.\d+)?", limit):  # in the unit of the cells
            return float(limit) * (1 if any(re.search(r"\d\s*m|min", cell) for cell in column) else 60)
    return kind(limit)


def _number_limit(column: Sequence[str], limit: str, head: str, number_format: NumberFormat) -> float | None:
    """Returns the value of a numeric limit; None if it is not numeric, such as a time of day."""
    if _clock(limit) is not None or _date(limit) is not None:
        return None
    has_letters = _has_scale_letters(column)
    magnitudes = [
        abs(value)
        for cell in column
        if (value := _number(cell, points=number_format.decimal_comma, lettered=has_letters)) is not None
    ]
    if (minutes := _minutes_of(limit)) is not None:
        hours = _HOURS.search(head) or (
            not _MINUTES.search(head) and "h" in limit and max(magnitudes, default=0.0) <= 24
        )
        return minutes / 60 if hours else minutes
    edge = _number(
        limit, points=number_format.decimal_comma and "," not in limit
    )  # an English question uses commas between thousands for any table
    factor, great = _scale_factor(head), _scale_factor(limit)
    if edge is None or not magnitudes:
        return edge
    units = {
        _multiplier(cell, match, lettered=has_letters) for cell in column if (match := _NUMBER.search(cell)) is not None
    }
    if units != {1.0} or _scale_factor("\n".join(column)) > 1:  # the cells have a unit, and “over 5” omits it
        bare = len(units) == 1 and not re.search("[a-z]", limit)
        return edge * min(units) if bare and edge * 10 < min(magnitudes) <= edge * min(units) * 10 else edge
    if factor > 1 and great > 1:
        return edge / factor
    if edge <= max(magnitudes):
        return edge
    for unit in (factor, great):  # “60 thousand” for figures in thousands, if no value is that large
        if unit > 1 and min(magnitudes) / 10 <= edge / unit <= max(magnitudes) * 10:
            return edge / unit
    return edge


def _scale_factor(text: str) -> float:
    """Returns the factor of a unit in a text, 1 without one."""
    return next(
        (by for word, by in SCALE_WORDS.items() if re.search(rf"(?<![a-z]){word}s?\b", text, re.IGNORECASE)), 1.0
    )


def _minutes_of(text: str) -> float | None:
    """Returns the minutes of a duration with a unit, such as “1.5 hours”."""
    if (match := re.fullmatch(r"(\d[\d,]{0,9}(?:\.\d{1,9})?) ?(h(?:(?:ou)?rs?)?|min(?:ute)?s?)", text)) is not None:
        return float(match[1].replace(",", "")) * (60 if match[2].startswith("h") else 1)
    return _duration(text)


def _date_limit(
    column: Sequence[str], limit: str, number_format: NumberFormat
) -> tuple[list[float | None], float] | None:
    """Returns the dates of a column and a limit, both reduced to the precision of the limit."""
    month_first = number_format.month_first or detect_format([*column, limit]).month_first
    if split_time(limit)[1] is not None and (exact := _date(limit, month_first=month_first)) is not None:
        return [_date(" ".join(cell.split()), month_first=month_first) for cell in column], exact
    edge = (
        (int(limit), 0, 0) if re.fullmatch(r"(?:19|20)\d\d", limit) else calendar_date(limit, month_first=month_first)
    )
    dates = [calendar_date(split_time(" ".join(cell.split()))[0], month_first=month_first) for cell in column]
    years = {cell[0] for cell in dates if cell is not None}
    if edge is None or (not edge[0] and len(years) > 1) or (edge[0] and years == {0}):
        return None

    def to_days(date: tuple[int, int, int]) -> float:
        year, month, day = date
        return (year * 372.0 if edge[0] else 0.0) + (month * 31.0 if edge[1] else 0.0) + (day if edge[2] else 0.0)

    return [None if cell is None else to_days(cell) for cell in dates], to_days(edge)


def find_extremes(column: Sequence[str], *, largest: bool, number_format: NumberFormat | None = None) -> list[int]:
    """Returns the indices of the largest or smallest measure: several if they are equal, none without measures."""
    sort_keys = [
        (value if largest else -value, at)
        for at, value in enumerate(column_sort_keys(column, number_format))
        if value is not None
    ]
    top = max(sort_keys)[0] if sort_keys else None
    return [at for value, at in sort_keys if value == top]


def _clock(text: str) -> float | None:
    match = _CLOCK.fullmatch(text)
    if match is not None:
        if not (":" in text or match["half"]):
            return None  # a number, which has the same order, or a duration
        return _minutes(int(match["hour"]), int(match["minute"]), match["half"]) + int(match["second"] or 0) / 60
    if (match := _HOUR.fullmatch(text)) is None:
        return None
    return (
        _minutes(int(match["hour"]), 0, match["half"])
        if match["hour"]
        else (0.0 if match["noon"].lower() == "midnight" else 720.0)
    )


def _minutes(hour: int, minute: int, half: str | None) -> float:
    if half is not None:
        hour = hour % 12 + (12 if half.lower().startswith("p") else 0)
    return float(hour * 60 + minute)


def _date(text: str, *, month_first: bool = False) -> float | None:
    """Returns days in a calendar in which every month has 31; the time of day is the fraction."""
    day, minutes = split_time(text)
    parts = calendar_date(day, month_first=month_first)
    return None if parts is None else parts[0] * 372.0 + parts[1] * 31.0 + parts[2] + (minutes or 0.0) / 1440


def split_time(text: str) -> tuple[str, float | None]:
    """Splits a text into the part before a time of day at its end, and that time in minutes, in UTC if it has an
    offset.
    """
    if (match := _DATE_TIME.fullmatch(text)) is None:
        return text, None
    minutes = _minutes(int(match["hour"]), int(match["minute"]), match["half"]) + float(match["second"] or 0) / 60
    off = int(match["hours"] or 0) * 60 + int(match["minutes"] or 0)
    return match["date"], minutes + (off if match["off"] == "-" else -off)


def calendar_date(text: str, *, month_first: bool = False) -> tuple[int, int, int] | None:
    """Returns year, month and day, 0 for missing parts; None for an invalid date."""
    for form in _DATES:
        if (match := form.fullmatch(text)) is None:
            continue
        parts = match.groupdict()
        day: int | None
        if form in _NUMERIC_DATES:
            day, month = (int(parts[name]) for name in (("second", "first") if month_first else ("first", "second")))
            if month > 12 >= day:
                day, month = month, day
        else:
            number = int(parts.get("number") or int(parts.get("quarter") or 0) * 3 or int(parts.get("half") or 0) * 6)
            month = month_number(parts["month"]) if parts.get("month") else number
            day = int(parts["day"]) if parts.get("day") else None
        if not 1 <= month <= 12 or not (day is None or 1 <= day <= 31):
            return None
        year = int((parts["year"] or "0").strip("'’"))
        year += 0 if not parts["year"] or year >= 100 else 2000 if year < 50 else 1900
        return year, month, day or 0
    return None


def _lap(text: str) -> float | None:
    match = _LAP.fullmatch(text)
    return None if match is None or "." not in text else int(match["minutes"]) * 60 + float(match["seconds"])


def duration_parts(text: str) -> tuple[str, str] | None:
    """Returns the digits of a duration's hours and minutes, one of which may be empty; None if it is not a duration."""
    match = _DURATION.fullmatch(text)
    if match is None or not (match["hours"] or (match["minutes"] and not text.isdigit() and not text.endswith("M"))):
        return None  # `5M` means millions
    return (match["hours"] or "").replace(",", "."), match["minutes"] or ""


def _duration(text: str, *, shares: bool = False) -> float | None:
    """Returns the minutes of a duration. `shares` includes `1.5 h`, which is a number if no cell has minutes."""
    parts = duration_parts(text)
    if parts is None or ("." in parts[0] and not shares):
        return None
    return float(parts[0] or 0) * 60 + int(parts[1] or 0)


def _day(text: str) -> float | None:
    match = _DAY.fullmatch(text)
    return None if match is None else float(DAYS.index(match[1][:3].lower()))


def _version(text: str) -> float | None:
    """Returns the parts of a version or an address: `3.9` is before `3.10.1`."""
    match = _VERSION.fullmatch(text)
    if match is None:
        return None
    parts = [int(part) for part in match[1].split(".")]
    return float(sum(part * 1000 ** (3 - at) for at, part in enumerate(parts)))


def _number(text: str, *, points: bool = False, lettered: bool = False) -> float | None:
    """Returns the value of a number; None for a list such as `1,2,3`, for a version, and for a date among words."""
    match = _NUMBER.search(text)
    if match is None or any(date.start() <= match.start() < date.end() for date in _DATE_IN_TEXT.finditer(text)):
        return None
    if match["parts"]:  # also feet and inches: those under ten come first
        first, second = re.split(r"['’′]", match[0])
        value = int(first) * 100.0 + int(second)
    elif (
        is_single_number(match[0], decimal_comma=points)
        and abs(exact := parse_numeral(match[0], decimal_comma=points)[0]) < 10**MAX_POWER
    ):
        value = float(exact)
    else:
        return None
    value *= _multiplier(text, match, lettered=lettered)
    return -value if is_negative(text[: match.start()], text[match.end() :]) else value


def _multiplier(text: str, match: re.Match[str], *, lettered: bool) -> float:
    """Returns the factor of the word or letter after a number."""
    rest = text[match.end() :]
    letter = _SCALE_LETTER.match(rest)
    if letter is not None and (
        (lettered and letter["letter"]) or _PRICE.search(text[: match.start()]) or _PRICED.match(rest)
    ):
        return 10.0 ** SCALE_LETTERS[(letter["letter"] or letter["apart"]).lower()]
    scale_match = _SCALE_WORD.match(text, match.end())
    return (
        1.0
        if scale_match is None
        else 10.0 ** (SCALES[scale_match["scale"].lower()] + SCALES.get((scale_match["more"] or "").lower(), 0))
    )


def _has_scale_letters(column: Sequence[str]) -> bool:
    """Returns whether letters directly after the numbers of a column multiply them: all have one, or the others have
    thousands.
    """
    numbers = [text for text in column if _NUMBER.search(text)]
    matches = [match for text in numbers if (match := _NUMBER_WITH_LETTER.fullmatch(text.strip())) is not None]
    letters = {letter_match["letter"].lower() for letter_match in matches}
    return bool(matches) and len(matches) == len(numbers) and ("" not in letters or "k" in letters)
