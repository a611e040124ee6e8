"""Date arithmetic: a day that a source states as a duration from a day of the question.

`Invoices are payable within 30 days` and `Invoice of 12 March 2026, when is it due?` make 11 April 2026. A duration
with `notice` or `before` counts backwards. Working days are not computed, because holidays differ.
"""

from __future__ import annotations

import calendar
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Final

from orchestra.schema.builtin_models import Passage
from orchestra.tools.answer_checks import shared_words
from orchestra.tools.periods import EARLIEST, Date, Period, find_periods
from orchestra.tools.table_lexicon import NUMBER_WORDS

COMMON_YEAR: Final = 2001
"""The year of a day without one; it has no 29 February."""
_ASKS_DAY: Final = re.compile(
    r"\b(?:by |until |till |from |since )?(?:when|what date|which date|what day|which day)\b|\bdeadline\b|\bat the "
    r"latest\b|"
    r"\bwhen\b|\b(?:bis )?wann\b|\bspätestens\b|\bquand\b|\bau plus tard\b|\bcuándo\b|\bmás tardar\b",
    re.IGNORECASE,
)
_DURATION: Final = re.compile(
    rf"\b(?P<number>\d{{1,3}}|{'|'.join(NUMBER_WORDS)})[\s-](?P<kind>working|business|calendar|full|whole)?\s?"
    r"(?P<unit>day|week|fortnight|month|year)s?\b",
    re.IGNORECASE,
)
_BACKWARDS: Final = re.compile(
    r"\b(?:notice|before|prior to|in advance|ahead of|earlier than|beforehand)\b", re.IGNORECASE
)
_FORWARDS: Final = re.compile(r"\b(?:within|after|from|of|following|since|later|net|for|until)\b", re.IGNORECASE)
_END: Final = re.compile(r"\b(?:ends?|ending|expires?|runs? out|until|till|end of|term)\b", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Deadline:
    """A computed day, and the sentence with the duration."""

    day: str
    expression: str
    sentence: Passage


def compute_deadline(
    question: str, sentences: Sequence[Passage], scores: Sequence[float], near: float
) -> Deadline | None:
    """Returns the day that a duration of the sources makes of the day of a question.

    Args:
        question: The question; it asks for a day and states one.
        sentences: Sentences of the sources.
        scores: The closeness of each sentence to the question.
        near: The least closeness of a sentence that is about the question.
    """
    periods = [period for period in find_periods(question) if _named(period)[1] and period.ends is None]
    if not _ASKS_DAY.search(question) or len(periods) != 1:
        return None
    start = _start(periods[0], question)
    ranked = sorted(range(len(sentences)), key=lambda at: (-scores[at], at))
    for at in ranked[:6]:
        sentence = sentences[at]
        durations = list(_DURATION.finditer(sentence.text))
        if scores[at] < near or len(durations) != 1 or start is None or not shared_words(question, sentence.text):
            continue
        duration = durations[0]
        backwards = _BACKWARDS.search(sentence.text) is not None
        if (duration["kind"] or "").casefold() in ("working", "business"):
            return None
        if not backwards and not _FORWARDS.search(sentence.text):
            continue
        count = _count(duration["number"]) * (-1 if backwards else 1)
        end = _shift(start, count, duration["unit"].casefold())
        year = f" {end.year}" if _named(periods[0])[0] else ""
        sign = "-" if backwards else "+"
        return Deadline(
            f"{end.day} {calendar.month_name[end.month]}{year}", f"{periods[0].name} {sign} {duration[0]}", sentence
        )
    return None


def _named(period: Period) -> Date:
    """The date that the question names: of `from 12 March` the first, of `until 12 March` the last."""
    return period.last if period.first == EARLIEST else period.first


def _start(period: Period, question: str) -> date | None:
    """The day of a period; of a month the last one if the question is about its end, else None."""
    year, month, day = _named(period)
    if not day:
        if not _END.search(question):
            return None
        day = calendar.monthrange(year or COMMON_YEAR, month)[1]
    try:
        return date(year or COMMON_YEAR, month, day)
    except ValueError:
        return None


def _count(text: str) -> int:
    return int(text) if text.isdigit() else NUMBER_WORDS[text.casefold()]


def _shift(start: date, count: int, unit: str) -> date:
    """A day moved by a number of days, weeks, months or years; the last of a month stays the last."""
    if unit in ("day", "week", "fortnight"):
        return start + timedelta(days=count * {"day": 1, "week": 7, "fortnight": 14}[unit])
    months = start.year * 12 + start.month - 1 + count * (12 if unit == "year" else 1)
    year, month = divmod(months, 12)
    last = calendar.monthrange(year, month + 1)[1]
    is_last = start.day == calendar.monthrange(start.year, start.month)[1]
    return date(year, month + 1, last if is_last or start.day > last else start.day)
