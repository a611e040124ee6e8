"""Ways in which an answer comes out of a table and the text around it, and the expressions of those that compute."""

from __future__ import annotations

import re
from collections.abc import Sequence
from fractions import Fraction
from typing import Final

from orchestra.agents.inference.tables.scales import UNITS
from orchestra.text.arithmetic import MAX_EXPONENT, NotArithmetic, evaluate
from orchestra.text.numbers.numerals import LAKHS, RUN, clear, even, named, negative, plain, worth
from orchestra.text.numbers.sort_keys import Spelling, duration, measures, spelling

CELLS, TEXT, COUNT, MOST, LEAST = "cells", "text", "count", "most", "least"
SUM, MEAN, RANGE = "sum", "mean", "range"
DIFFERENCE, GAP, PRODUCT = "difference", "gap", "product"
PAIRS: Final = {
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
"""Ways that take two figures, and their expressions. A `gap` is by how much the larger one is larger, whichever comes first; a `difference`
may be negative."""
PERCENTS: Final = frozenset({"portion", "discount", "surcharge"})
"""Those that take the second figure for so many percent: of the first, off it, or on top of it."""
_DISTANCES: Final = frozenset({MEAN, DIFFERENCE, GAP})
_YEAR: Final = 372
"""Days of a year by which dates are put in order (`orchestra.text.numbers.sort_keys`)."""
_TOGETHER: Final = _DISTANCES | {SUM, "change", "share", "ratio"}
"""Ways whose figures are of one unit, and those of them to which it does not matter where counting begins."""
WAYS: Final = (CELLS, TEXT, COUNT, MOST, LEAST, SUM, MEAN, *PAIRS, RANGE)
"""`cells` and `text` are read off; `count` is of rows; `most` and `least` read a cell off in the row where a column has its extreme; a
`range` is from its least to its most."""
SCALES: Final = ("", "percent", *UNITS)
GROUP = 25
"""Terms of a sum that stand in one pair of brackets, where there are many."""

_DIGITS = r"-?\d[\d,]*(?:\.\d+)?"
_FIGURE = re.compile(RUN)
_LAKHS = re.compile(LAKHS)
"""A figure with commas as India has them, which no expression has; those of others stay, and so do lists such as `1,2,3`."""
_NAMED = re.compile(r"(?<![^\W\d_])(?!(?:[A-Z]{3}|[Kk]r|Rs|Kč|zł|Ft)(?![^\W\d_]))[^\W\d_]+")
"""A word that is no currency: behind it two numbers with a blank between them are two, as in `Boeing 737 800`."""
_CLOCK = re.compile(
    r"(?P<hour>[01]?\d|2[0-3]|24(?=:00(?!:?\d))):(?P<minute>[0-5]\d)(?::(?P<second>[0-5]\d))?(?: ?(?P<half>[ap])\.?m\.?)?", re.IGNORECASE
)
_HOUR = re.compile(r"(?P<hour>1[0-2]|[1-9]) ?(?P<half>[ap])\.?m\.?", re.IGNORECASE)
_LAP = re.compile(r"(?P<minutes>\d{1,6}):0?(?P<seconds>[0-5]?\d\.\d+)")
_TERM = rf"(?:{_DIGITS}|\([\d.]+ \* 60 \+ [\d.]+(?: \+ \d+ / 60)?(?: \+ 12 \* 60)?\))"
"""A figure, a time of the day or a duration."""
_SUM = re.compile(rf"(?P<all>{_DIGITS}(?: \+ {_DIGITS})+)")
_MEAN = re.compile(rf"\((?P<all>{_DIGITS}(?: \+ {_DIGITS})+)\) / (?P<count>\d+)")
_PAIR: Final = {
    "change": re.compile(rf"\((?P<a>{_TERM}) - (?P<b>{_TERM})\) / (?P<c>{_TERM}) \* 100"),
    "share": re.compile(rf"\(?(?P<a>{_TERM}) / (?P<b>{_TERM})\)? \* 100"),
    DIFFERENCE: re.compile(rf"(?P<a>{_TERM}) - (?P<b>{_TERM})"),
    "ratio": re.compile(rf"(?P<a>{_TERM}) / (?P<b>{_TERM})"),
    PRODUCT: re.compile(rf"(?P<a>{_TERM}) \* (?P<b>{_TERM})"),
    "portion": re.compile(rf"\(?(?P<a>{_TERM}) \* (?P<b>{_TERM})\)? / 100"),
    "discount": re.compile(rf"(?P<a>{_TERM}) \* \(100 - (?P<b>{_TERM})\) / 100"),
    "surcharge": re.compile(rf"(?P<a>{_TERM}) \* \(100 \+ (?P<b>{_TERM})\) / 100"),
}


def figure(text: str, *, points: bool = False, minutes: bool = False) -> str | None:
    """The first figure of a text as an expression has it: without its currency, negative behind a minus or in brackets. None without.

    A time of the day is its minutes, `(9 * 60 + 15)`, so that a difference of two says how long something takes, and so is a duration in
    hours and minutes; with `minutes` one in hours alone is too. A lap such as `2:05.3` is its seconds. `points` says whether points stand
    between thousands where the figure leaves it open. A version is no figure, nor is what no decimal says, such as `⅓`.
    """
    text = even(text)
    if (timed := _timed(" ".join(text.split()), minutes=minutes)) is not None:
        return timed
    found = _FIGURE.search(text)
    if found is None:
        return None
    run = found[0]
    if " " in run and _NAMED.search(text[: found.start()]):
        run = run.partition(" ")[0]
    digits = plain(run, points=points)
    if named(run) or len(digits) > MAX_EXPONENT or (clear(run) and Fraction(digits) != worth(run, points=points)[0]):
        return None
    digits = re.sub(r"^0+(?=\d)", "", run if digits == run.replace(",", "") and not _LAKHS.fullmatch(run) else digits)
    return f"-{digits}" if negative(text[: found.start()], text[found.end() :]) else digits


def _timed(text: str, *, minutes: bool) -> str | None:
    """The minutes of a time of the day or of a duration, the seconds of a lap."""
    if (clock := _CLOCK.fullmatch(text) or _HOUR.fullmatch(text)) is not None:
        said = clock.groupdict()
        half = (said["half"] or "").lower()
        hour = 0 if half and int(said["hour"]) == 12 else int(said["hour"])
        second = f" + {int(said['second'])} / 60" if said.get("second") else ""
        return f"({hour} * 60 + {int(said.get('minute') or 0)}{second}{' + 12 * 60' if half == 'p' else ''})"
    if (lap := _LAP.fullmatch(text)) is not None:
        return f"({int(lap['minutes'])} * 60 + {lap['seconds']})"
    if (found := duration(text)) is not None and found[0] and (found[1] or minutes):
        return f"({found[0].lstrip('0') or 0} * 60 + {int(found[1] or 0)})"
    return None


def agreeing(way: str, texts: Sequence[str], figures: Sequence[str], spelt: Spelling) -> list[str] | None:
    """The figures of cells as they are computed with together, of durations of which some are in hours and some in minutes all in minutes.

    None where they are no such figures: what the cells are put in order by is in another proportion, as with millions beside thousands, and
    with dates; or for differences and means, in other distances.
    """
    if way not in _TOGETHER or _agree(way, figures, known := measures(texts, spelt)):
        return list(figures)
    if not all(duration(" ".join(text.split())) for text in texts):
        return None
    found = [str(figure(text, points=spelt.points, minutes=True)) for text in texts]
    return found if _agree(way, found, known) else None


def _agree(way: str, figures: Sequence[str], known: Sequence[float | None]) -> bool:
    pairs = [(_worth(figure), Fraction(measure)) for figure, measure in zip(figures, known, strict=True) if measure is not None]
    if len(pairs) < 2:
        return True
    top, unit = max(pairs, key=lambda pair: abs(pair[1]))
    if all(abs(worth * unit - top * measure) <= abs(top * unit) / 10**9 for worth, measure in pairs):
        return True
    if way in (DIFFERENCE, GAP) and all(worth in ((measure - 1) // _YEAR, (measure - 32) // _YEAR) for worth, measure in pairs):
        return True  # years, of dates: the first days of a year are counted from its months, and some dates have no day
    return way in _DISTANCES and all(abs(worth - measure - top + unit) < Fraction(1, 10**6) for worth, measure in pairs)


def expression(way: str, figures: Sequence[str]) -> str:
    """What computes the answer: of all figures for `sum` and `mean`, of two for `range` and the ways of `PAIRS`."""
    if way == RANGE:
        return "{} - {}".format(*figures)
    if way in PAIRS:
        first, second = sorted(figures, key=_worth, reverse=True) if way == GAP else figures
        return PAIRS[way].format(a=first, b=second)
    total = summed(figures)
    return total if way == SUM else f"({total}) / {len(figures)}"


def span(texts: Sequence[str], spelt: Spelling | None = None) -> tuple[int, int] | None:
    """Where in a column the most and the least stand, if the difference of their figures is that of what the column is put in order by: of
    dates, of durations in hours beside minutes, and of millions beside thousands it is not."""
    spelt = spelt or spelling(texts)
    order = measures(texts, spelt)
    known = [(value, at) for at, value in enumerate(order) if value is not None]
    if not known:
        return None
    (least, low), (most, high) = min(known, key=lambda one: one[0]), max(known, key=lambda one: one[0])
    first, second = (figure(texts[at], points=spelt.points) for at in (high, low))
    same = (
        first is not None
        and second is not None
        and abs(_worth(first) - _worth(second) - Fraction(most) + Fraction(least)) < Fraction(1, 10**6)
    )
    return (high, low) if same else None


def computes(expression: str | None) -> bool:
    """Whether there is nothing to compute, or it can be: not by nought, and not of digits that are no figure."""
    try:
        return expression is None or evaluate(expression) is not None
    except NotArithmetic:
        return False


def _worth(figure: str) -> Fraction:
    """What a figure is worth; nothing where it cannot be computed with, as a list."""
    try:
        return evaluate(figure)
    except NotArithmetic:
        return Fraction(0)


def summed(terms: Sequence[str]) -> str:
    """The sum of terms, in brackets by `GROUP` where there are more, and those again, for expressions nest only so deep."""
    if len(terms) <= GROUP:
        return " + ".join(terms)
    return summed([f"({' + '.join(terms[at : at + GROUP])})" for at in range(0, len(terms), GROUP)])


def parsed(text: str) -> tuple[str, list[str]] | None:
    """The way and the figures that an expression is of; None for an expression of another form. A gap looks like a difference."""
    text = _plain(text)
    if (found := _MEAN.fullmatch(text)) is not None:
        figures = found["all"].split(" + ")
        return (MEAN, figures) if int(found["count"]) == len(figures) else None
    if (found := _SUM.fullmatch(text)) is not None:
        return SUM, found["all"].split(" + ")
    for way, form in _PAIR.items():
        if (found := form.fullmatch(text)) is not None and found.groupdict().get("c", found["b"]) == found["b"]:
            return way, [found["a"], found["b"]]
    return None


def _plain(text: str) -> str:
    """An expression without brackets around a figure or around all of it, and without a blank behind its first minus."""
    text = re.sub(rf"\(({_DIGITS})\)", r"\1", re.sub(r"(^|\()- (?=[\d.])", r"\1-", text.strip()))
    inner = text[1:-1]
    return inner if text.startswith("(") and text.endswith(")") and not set(inner) & set("()") else text
