"""Operations that compute an answer from a table and its text, and their expressions."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from orchestra.agents.inference.tables.scales import UNITS
from orchestra.text.arithmetic import MAX_EXPONENT, ArithmeticParseError, evaluate
from orchestra.text.numbers.numerals import (
    LAKH_GROUPED,
    NUMERAL,
    is_identifier,
    is_negative,
    is_single_number,
    parse_numeral,
    plain_decimal,
    to_ascii_digits,
)
from orchestra.text.numbers.sort_keys import NumberFormat, column_sort_keys, detect_format, duration_parts

CELLS, TEXT, COUNT, MOST, LEAST = "cells", "text", "count", "most", "least"
SUM, MEAN, RANGE = "sum", "mean", "range"
DIFFERENCE, GAP, PRODUCT = "difference", "gap", "product"
PAIR_OPERATIONS: Final = {
    DIFFERENCE: "{a} - {b}",
    GAP: "{a} - {b}",
    "change": "({a} - {b}) / {b} * 100",
    "share": "{a} / {b} * 100",
    "ratio": "{a} / {b}",
    PRODUCT: "{a} * {b}",
    "portion": "{a} * {b} / 100",
    "discount": "{a} * (100 - {b}) / 100",
    "surcharge": "{a} * (100 + {b}) / 100",
}
"""Operations on two figures, and their expressions. A `gap` is the absolute difference; a `difference` may be
negative.
"""
PERCENT_OPERATIONS: Final = frozenset({"portion", "discount", "surcharge"})
"""Operations whose second figure is a percentage: of the first, off it, or on top of it."""
_SHIFT_INVARIANT: Final = frozenset({MEAN, DIFFERENCE, GAP})
_DAYS_PER_YEAR: Final = 372
"""Days of a year in the sort keys of dates (`orchestra.text.numbers.sort_keys`)."""
_SAME_UNIT: Final = _SHIFT_INVARIANT | {SUM, "change", "share", "ratio"}
"""Operations whose figures have one unit. Some of them do not depend on the origin of the scale."""
OPERATIONS: Final = (CELLS, TEXT, COUNT, MOST, LEAST, SUM, MEAN, *PAIR_OPERATIONS, RANGE)
"""`cells` and `text` are read; `count` counts rows; `most` and `least` read a cell in the row with a column's extreme;
a `range` is the difference of a column's extremes.
"""
SCALES: Final = ("", "percent", *UNITS)
SUM_GROUP_SIZE = 25
"""Terms of a sum in one pair of brackets, if there are many."""

_DIGITS = r"-?\d[\d,]*(?:\.\d+)?"
_FIGURE = re.compile(NUMERAL)
_LAKHS = re.compile(LAKH_GROUPED)
"""A figure with Indian digit grouping, which expressions do not support. Other commas and lists such as `1,2,3` are
kept.
"""
_NON_CURRENCY_WORD = re.compile(r"(?<![^\W\d_])(?!(?:[A-Z]{3}|[Kk]r|Rs|Kč|zł|Ft)(?![^\W\d_]))[^\W\d_]+")
"""A word that is not a currency. Two numbers separated by a blank after it are two numbers, as in `Boeing 737 800`."""
_CLOCK = re.compile(
    r"(?P<hour>[01]?\d|2[0-3]|24(?=:00(?!:?\d))):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?:"
    r" ?(?P<half>[ap])\.?m\.?)?",
    re.IGNORECASE,
)
_HOUR = re.compile(r"(?P<hour>1[0-2]|[1-9]) ?(?P<half>[ap])\.?m\.?", re.IGNORECASE)
_LAP = re.compile(r"(?P<minutes>\d{1,6}):0?(?P<seconds>[0-5]?\d\.\d+)")
_TERM = rf"(?:{_DIGITS}|\([\d.]+ \* 60 \+ [\d.]+(?: \+ \d+ / 60)?(?: \+ 12 \* 60)?\))"
"""A figure, a time of day or a duration."""
_SUM_PATTERN = re.compile(rf"(?P<all>{_DIGITS}(?: \+ {_DIGITS})+)")
_MEAN_PATTERN = re.compile(rf"\((?P<all>{_DIGITS}(?: \+ {_DIGITS})+)\) / (?P<count>\d+)")
_PAIR_PATTERNS: Final = {
    "change": re.compile(rf"\((?P<a>{_TERM}) - (?P<b>{_TERM})\) / (?P<c>{_TERM}) \* 100"),
    "share": re.compile(rf"\(?(?P<a>{_TERM}) / (?P<b>{_TERM})\)? \* 100"),
    DIFFERENCE: re.compile(rf"(?P<a>{_TERM}) - (?P<b>{_TERM})"),
    "ratio": re.compile(rf"(?P<a>{_TERM}) / (?P<b>{_TERM})"),
    PRODUCT: re.compile(rf"(?P<a>{_TERM}) \* (?P<b>{_TERM})"),
    "portion": re.compile(rf"\(?(?P<a>{_TERM}) \* (?P<b>{_TERM})\)? / 100"),
    "discount": re.compile(rf"(?P<a>{_TERM}) \* \(100 - (?P<b>{_TERM})\) / 100"),
    "surcharge": re.compile(rf"(?P<a>{_TERM}) \* \(100 \+ (?P<b>{_TERM})\) / 100"),
}


def parse_figure(text: str, *, points: bool = False, minutes: bool = False) -> str | None:
    """Returns the first figure of a text in the form of an expression; None if there is none.

    The currency is dropped. A figure after a minus or in brackets is negative. A time of day is its minutes, `(9 * 60 +
    15)`, so that the difference of two is a duration. A duration in hours and minutes is its minutes, too. A lap such
    as `2:05.3` is its seconds. A version is not a figure, nor is a number without a finite decimal form, such as `⅓`.

    Args:
        minutes: Whether a duration in hours alone is converted to minutes.
        points: Whether points separate thousands in ambiguous figures.
    """
    text = to_ascii_digits(text)
    if (time_expression := _time_expression(" ".join(text.split()), minutes=minutes)) is not None:
        return time_expression
    match = _FIGURE.search(text)
    if match is None:
        return None
    run = match[0]
    if " " in run and _NON_CURRENCY_WORD.search(text[: match.start()]):
        run = run.partition(" ")[0]
    digits = plain_decimal(run, decimal_comma=points)
    if (
        is_identifier(run)
        or len(digits) > MAX_EXPONENT
        or (is_single_number(run) and Fraction(digits) != parse_numeral(run, decimal_comma=points)[0])
    ):
        return None
    digits = re.sub(r"^0+(?=\d)", "", run if digits == run.replace(",", "") and not _LAKHS.fullmatch(run) else digits)
    return f"-{digits}" if is_negative(text[: match.start()], text[match.end() :]) else digits


def _time_expression(text: str, *, minutes: bool) -> str | None:
    """Returns the minutes of a time of day or of a duration, or the seconds of a lap."""
    if (clock := _CLOCK.fullmatch(text) or _HOUR.fullmatch(text)) is not None:
        groups = clock.groupdict()
        half = (groups["half"] or "").lower()
        hour = 0 if half and int(groups["hour"]) == 12 else int(groups["hour"])
        second = f" + {int(groups['second'])} / 60" if groups.get("second") else ""
        return f"({hour} * 60 + {int(groups.get('minute') or 0)}{second}{' + 12 * 60' if half == 'p' else ''})"
    if (lap := _LAP.fullmatch(text)) is not None:
        return f"({int(lap['minutes'])} * 60 + {lap['seconds']})"
    if (parts := duration_parts(text)) is not None and parts[0] and (parts[1] or minutes):
        return f"({parts[0].lstrip('0') or 0} * 60 + {int(parts[1] or 0)})"
    return None


def harmonize_figures(
    operation: str, texts: Sequence[str], figures: Sequence[str], spelt: NumberFormat
) -> list[str] | None:
    """Returns the figures of cells for one computation. If some durations are in hours and others in minutes, all are
    in minutes.

    None if the figures do not match the sort keys of the cells in proportion, such as millions beside thousands, and
    dates; for differences and means, in distance.
    """
    if operation not in _SAME_UNIT or _figures_agree(operation, figures, sort_keys := column_sort_keys(texts, spelt)):
        return list(figures)
    if not all(duration_parts(" ".join(text.split())) for text in texts):
        return None
    figure_texts = [str(parse_figure(text, points=spelt.decimal_comma, minutes=True)) for text in texts]
    return figure_texts if _figures_agree(operation, figure_texts, sort_keys) else None


def _figures_agree(operation: str, figures: Sequence[str], sort_keys: Sequence[float | None]) -> bool:
    pairs = [
        (_figure_value(figure), Fraction(measure))
        for figure, measure in zip(figures, sort_keys, strict=True)
        if measure is not None
    ]
    if len(pairs) < 2:
        return True
    top, unit = max(pairs, key=lambda pair: abs(pair[1]))
    if all(abs(worth * unit - top * measure) <= abs(top * unit) / 10**9 for worth, measure in pairs):
        return True
    if operation in (DIFFERENCE, GAP) and all(
        worth in ((measure - 1) // _DAYS_PER_YEAR, (measure - 32) // _DAYS_PER_YEAR) for worth, measure in pairs
    ):
        return True  # dates as years: the first days of a year are counted from its months, and some dates have no day
    return operation in _SHIFT_INVARIANT and all(
        abs(worth - measure - top + unit) < Fraction(1, 10**6) for worth, measure in pairs
    )


def build_expression(operation: str, figures: Sequence[str]) -> str:
    """Returns the expression of an answer: over all figures for `sum` and `mean`, over two for `range` and
    `PAIR_OPERATIONS`.
    """
    if operation == RANGE:
        return "{} - {}".format(*figures)
    if operation in PAIR_OPERATIONS:
        first, second = sorted(figures, key=_figure_value, reverse=True) if operation == GAP else figures
        return PAIR_OPERATIONS[operation].format(a=first, b=second)
    total = sum_expression(figures)
    return total if operation == SUM else f"({total}) / {len(figures)}"


def range_ends(texts: Sequence[str], spelt: NumberFormat | None = None) -> tuple[int, int] | None:
    """Returns the positions of a column's maximum and minimum, if the difference of their figures is that of their sort
    keys. It is not for dates, for durations in hours beside minutes, and for millions beside thousands.
    """
    spelt = spelt or detect_format(texts)
    order = column_sort_keys(texts, spelt)
    ranked_values = [(value, at) for at, value in enumerate(order) if value is not None]
    if not ranked_values:
        return None
    (least, low), (largest, high) = (
        min(ranked_values, key=lambda item: item[0]),
        max(ranked_values, key=lambda item: item[0]),
    )
    first, second = (parse_figure(texts[at], points=spelt.decimal_comma) for at in (high, low))
    is_close = (
        first is not None
        and second is not None
        and abs(_figure_value(first) - _figure_value(second) - Fraction(largest) + Fraction(least)) < Fraction(1, 10**6)
    )
    return (high, low) if is_close else None


def can_evaluate(expression: str | None) -> bool:
    """Whether an answer needs no computation or can be computed: no division by zero, and only valid figures."""
    try:
        return expression is None or evaluate(expression) is not None
    except ArithmeticParseError:
        return False


def _figure_value(figure: str) -> Fraction:
    """Returns the value of a figure; None if it is not a number, such as a list."""
    try:
        return evaluate(figure)
    except ArithmeticParseError:
        return Fraction(0)


def sum_expression(terms: Sequence[str]) -> str:
    """Returns the sum of terms, in nested brackets of `SUM_GROUP_SIZE` if there are more, because the nesting of
    expressions is limited.
    """
    if len(terms) <= SUM_GROUP_SIZE:
        return " + ".join(terms)
    return sum_expression(
        [f"({' + '.join(terms[at : at + SUM_GROUP_SIZE])})" for at in range(0, len(terms), SUM_GROUP_SIZE)]
    )


def parse_expression(text: str) -> tuple[str, list[str]] | None:
    """Returns the operation and the figures of an expression; None for another form. A gap is parsed as a
    difference.
    """
    text = _strip_brackets(text)
    if (match := _MEAN_PATTERN.fullmatch(text)) is not None:
        figures = match["all"].split(" + ")
        return (MEAN, figures) if int(match["count"]) == len(figures) else None
    if (match := _SUM_PATTERN.fullmatch(text)) is not None:
        return SUM, match["all"].split(" + ")
    for operation, form in _PAIR_PATTERNS.items():
        if (match := form.fullmatch(text)) is not None and match.groupdict().get("c", match["b"]) == match["b"]:
            return operation, [match["a"], match["b"]]
    return None


def _strip_brackets(text: str) -> str:
    """Removes brackets around a figure or the whole expression, and a blank after its first minus."""
    text = re.sub(rf"\(({_DIGITS})\)", r"\1", re.sub(r"(^|\()- (?=[\d.])", r"\1-", text.strip()))
    inner = text[1:-1]
    return inner if text.startswith("(") and text.endswith(")") and not set(inner) & set("()") else text
