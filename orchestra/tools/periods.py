"""Periods: days, months, quarters, years and ranges of them in a question, and whether a date of a table is in one.

A date is year, month and day, with 0 for a missing part. `in February` has no year and contains each February.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from orchestra.text.numbers.sort_keys import calendar_date, detect_format, split_time

Date: TypeAlias = tuple[int, int, int]
MONTH_NAMES: Final = (
    "january januar janvier enero",
    "february februar février fevrier febrero",
    "march märz maerz mars marzo",
    "april avril abril",
    "may mai mayo",
    "june juni juin junio",
    "july juli juillet julio",
    "august août aout agosto",
    "september septembre septiembre",
    "october oktober octobre octubre",
    "november novembre noviembre",
    "december dezember décembre decembre diciembre",
)
"""Names of the months in English, German, French and Spanish."""
_SHORT_NAMES: Final = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "sept", "oct", "nov", "dec"]
MONTHS: Final = {name: number for number, names in enumerate(MONTH_NAMES, 1) for name in names.split()} | {
    name: min(at + 1 - (at > 8), 12) for at, name in enumerate(_SHORT_NAMES)
}
_MONTH: Final = rf"(?P<month>{'|'.join(sorted(MONTHS, key=len, reverse=True))})\b\.?"
_YEAR: Final = r"(?P<year>(?:19|20)\d\d)\b"
_ORDINALS: Final = {"first": 1, "1st": 1, "second": 2, "2nd": 2, "third": 3, "3rd": 3, "fourth": 4, "4th": 4, "last": 4}
_ORDINAL: Final = rf"(?P<ordinal>{'|'.join(_ORDINALS)})"
_PATTERNS: Final = tuple(
    re.compile(rf"(?<![\w/.-]){pattern}(?![\w/]|-\d)", re.IGNORECASE)
    for pattern in (
        r"(?P<iso>(?:19|20)\d\d-\d\d-\d\d)",
        r"(?P<numeric>\d{1,2}[./]\d{1,2}[./](?:19|20)?\d\d)",
        r"(?P<year>(?:19|20)\d\d)-(?P<number>0[1-9]|1[0-2])",
        rf"(?P<day>\d{{1,2}})(?:st|nd|rd|th|\.|er)?\s+(?:of\s+|de\s+)?{_MONTH}(?:,?\s+(?:de\s+)?{_YEAR})?",
        rf"{_MONTH}\s+(?P<day>\d{{1,2}})(?:st|nd|rd|th)?(?:,?\s+{_YEAR})?",
        rf"{_MONTH}(?:,?\s+(?:of\s+|in\s+|de\s+)?{_YEAR})?",
        rf"q(?P<quarter>[1-4])(?:[\s/-]*{_YEAR})?",
        rf"{_ORDINAL}\s+(?:quarter|half)(?:\s+(?:of\s+|in\s+)?{_YEAR})?",
        _YEAR,
    )
)
_PREFIX: Final = re.compile(
    r"\b(?:last|this|next|past|the month of|the year|letzte[nrsm]?|diese[nrsm]?|dernier|pasado)\s+$", re.IGNORECASE
)
_RANGE: Final = re.compile(
    r"\s*(?:to|until|till|through|up to|bis|à|au|jusqu'(?:à|en|au)|a|hasta|-|–|—)\s*(?:the\s+|end of\s+|zum\s+|le\s+"
    r"|el\s+)?",
    re.IGNORECASE,
)
_AND: Final = re.compile(r"\s+(?:and|und|et|y)\s+(?:the\s+)?", re.IGNORECASE)
_BETWEEN: Final = re.compile(r"\b(?:between|zwischen|entre)\s+(?:the\s+)?$", re.IGNORECASE)
_BEFORE: Final = (
    (
        "from",
        re.compile(
            r"\b(?:since|from|as of|seit|ab|depuis|desde|à partir d[e']|from (?:the )?(?:start"
            r"|beginning) of)\s+(?:the\s+)?$",
            re.IGNORECASE,
        ),
    ),
    ("above", re.compile(r"\b(?:after|later than|nach|après|después de|past)\s+(?:the\s+)?$", re.IGNORECASE)),
    ("below", re.compile(r"\b(?:before|earlier than|prior to|vor|avant|antes de)\s+(?:the\s+)?$", re.IGNORECASE)),
    (
        "upto",
        re.compile(
            r"\b(?:until|till|up to|by(?: the end of)?|bis(?: zum)?|jusqu'(?:à|en|au)|hasta|not later "
            r"than)\s+(?:the\s+)?$",
            re.IGNORECASE,
        ),
    ),
)


@dataclass(frozen=True, slots=True)
class Period:
    """A period of a question: the first and the last date, both included, and its position in the question."""

    first: Date
    last: Date
    start: int
    end: int
    name: str
    ends: tuple[Period, Period] | None = None
    """The first and the last period of a range."""

    def contains(self, date: Date) -> bool:
        """Whether a date is in the period. A year that one of both lacks is not compared."""
        if any(edge[part] and not date[part] for edge in (self.first, self.last) for part in (1, 2)):
            return False  # a whole year is not in a month
        return _compare(date, self.first) >= 0 and _compare(date, self.last) <= 0

    @property
    def is_year(self) -> bool:
        """Whether the period is one whole year."""
        return self.first[1:] == (0, 0) and self.first == self.last


EARLIEST: Final[Date] = (-9999, 0, 0)
LATEST: Final[Date] = (9999, 0, 0)


def _compare(one: Date, other: Date) -> int:
    """Compares two dates by the parts that both have."""
    if abs(other[0]) == 9999:
        return -1 if other[0] > 0 else 1
    for a, b in zip(one, other, strict=True):
        if a and b and a != b:
            return -1 if a < b else 1
    return 0


def find_periods(text: str) -> list[Period]:
    """Returns the periods of a text in their order; `from A to B` and `since A` are one period."""
    single = list(_single_periods(text))
    merged: list[Period] = []
    for period in single:
        if merged:
            before = merged[-1]
            between = text[before.end : period.start]
            is_range = _RANGE.fullmatch(between) or (_AND.fullmatch(between) and _BETWEEN.search(text[: before.start]))
            if is_range and before.first[0] >= 0:
                first = before.first if before.first[0] else (period.last[0], *before.first[1:])
                name = text[before.start : period.end]
                earlier = replace(before, first=first, last=(first[0], *before.last[1:]))
                merged[-1] = Period(first, period.last, before.start, period.end, name, (earlier, period))
                continue
        merged.append(period)
    return [_bounded(period, text) for period in merged]


def _bounded(period: Period, text: str) -> Period:
    """A period with the word before it: `since March`, `before 2025`."""
    for bound, pattern in _BEFORE:
        match = pattern.search(text[: period.start])
        if match is None:
            continue
        if period.first != period.last and bound in ("from", "upto"):
            return replace(period, start=match.start())
        start = match.start()
        if bound == "from":
            return replace(period, last=LATEST, start=start)
        if bound == "upto":
            return replace(period, first=EARLIEST, start=start)
        if bound == "above":
            return replace(period, first=_next(period.last), last=LATEST, start=start)
        return replace(period, first=EARLIEST, last=_previous(period.first), start=start)
    return period


def _next(date: Date) -> Date:
    year, month, day = date
    if day:
        return (year, month, day + 1)
    if month:
        return (year, month + 1, 0) if month < 12 else (year + 1 if year else 0, 1, 0)
    return (year + 1, 0, 0)


def _previous(date: Date) -> Date:
    year, month, day = date
    if day:
        return (year, month, day - 1) if day > 1 else _previous((year, month, 0))
    if month:
        return (year, month - 1, 0) if month > 1 else (year - 1 if year else 0, 12, 0)
    return (year - 1, 0, 0)


def _single_periods(text: str) -> Iterator[Period]:
    at = 0
    while at < len(text):
        matches = [match for pattern in _PATTERNS if (match := pattern.search(text, at))]
        if not matches:
            return
        match = min(matches, key=lambda match: (match.start(), -match.end()))
        at = match.end()
        found = _read(match)
        if found is not None and not _is_other_word(match, text):
            prefix = _PREFIX.search(text[: match.start()])
            yield Period(*found, prefix.start() if prefix else match.start(), match.end(), match[0])


def _is_other_word(match: re.Match[str], text: str) -> bool:
    """Whether a match is no period: `may` as a verb, or the digits of an amount."""
    parts = match.groupdict()
    month = (parts.get("month") or "").casefold()
    if month in ("may", "mar", "mars", "mai") and not parts.get("day") and not parts.get("year"):
        return match[0][:1].islower() and not re.search(
            r"\b(?:in|of|since|until|from|to|for|last|and|en|im|seit|depuis|de)\s+$", text[: match.start()]
        )
    if parts.get("year") == match[0]:
        before, after = text[: match.start()].rstrip(), text[match.end() :].lstrip()
        return (before[-1:] in "£€$#" and bool(before)) or bool(
            re.match(r"(?:£|€|\$|%|eur|gbp|usd|kg|km|pounds)\b", after, re.I)
        )
    return False


def _read(match: re.Match[str]) -> tuple[Date, Date] | None:
    parts = {name: value for name, value in match.groupdict().items() if value}
    year = int(parts.get("year", 0))
    if "iso" in parts or "numeric" in parts:
        date = calendar_date(parts.get("iso") or parts["numeric"])
        return (date, date) if date else None
    if "quarter" in parts or "ordinal" in parts:
        if "half" in match[0].casefold():
            half = min(_ORDINALS[parts["ordinal"].casefold()], 2)
            return (year, 6 * half - 5, 0), (year, 6 * half, 0)
        quarter = int(parts.get("quarter") or _ORDINALS[parts["ordinal"].casefold()])
        return (year, 3 * quarter - 2, 0), (year, 3 * quarter, 0)
    if "number" in parts or "month" in parts:
        month = int(parts.get("number") or MONTHS[parts["month"].casefold()])
        day = int(parts.get("day", 0))
        return ((year, month, day), (year, month, day)) if day <= 31 else None
    return (year, 0, 0), (year, 0, 0)


def read_dates(texts: Sequence[str]) -> list[tuple[Date, Date] | None]:
    """Returns the first and the last date of a column's cells: days, months, quarters and years; None for others."""
    month_first = detect_format(texts).month_first
    return [_cell_dates(" ".join(text.split()), month_first) for text in texts]


def _cell_dates(text: str, month_first: bool) -> tuple[Date, Date] | None:
    if re.fullmatch(r"(?:19|20)\d\d", text):
        return (int(text), 0, 0), (int(text), 0, 0)
    if match := re.fullmatch(r"((?:19|20)\d\d)-(0[1-9]|1[0-2])", text):
        return (int(match[1]), int(match[2]), 0), (int(match[1]), int(match[2]), 0)
    if (month := MONTHS.get(text.casefold().rstrip("."))) is not None:
        return (0, month, 0), (0, month, 0)
    if re.search(r"\bq[1-4]\b|\b[1-4]q\b", text, re.IGNORECASE) and (period := read_period(text)) is not None:
        return period.first, period.last
    date = calendar_date(split_time(text)[0], month_first=month_first)
    return (date, date) if date is not None else None


def read_period(text: str) -> Period | None:
    """Returns the period that a header names as a whole, such as `Q1`, `2024` or `January 2025`; None for others."""
    periods = find_periods(text.strip())
    return periods[0] if len(periods) == 1 and periods[0].name.strip() == text.strip() else None
