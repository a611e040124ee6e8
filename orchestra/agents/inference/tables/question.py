"""The figures of a question: numbers, also in words, times of day, durations and dates.

A figure is part of the computation (“6 cinnamon buns”), or it limits rows (“larger than 90 square metres”). The encoder
predicts which; the words around it count as well (`orchestra.agents.inference.tables.bounds`).
"""

from __future__ import annotations

import re
from operator import itemgetter
from typing import Final, NamedTuple

from orchestra.agents.inference.tables.bounds import CONTEXT_CHARACTERS, find_bound
from orchestra.agents.inference.tables.operations import parse_figure
from orchestra.agents.inference.word_problems.quantities import decimal_text
from orchestra.text.arithmetic import ArithmeticParseError, evaluate
from orchestra.text.numbers.times import MONTH_PATTERN
from orchestra.text.numbers.words import POWER_WORDS, SMALL_NUMBERS, UNIT_WORDS, WrittenNumber, find_written_numbers

PAIR_WORDS: Final = ("both", "pair", "couple", "twice", "double")
"""Words for two of something, which are never bounds."""
WORD_VALUES: Final = {**dict.fromkeys(PAIR_WORDS, 2), "dozen": 12, "hundred": 100, "thousand": 1000}
"""Words with values, in addition to `orchestra.text.numbers.words`; the last two only without another number word."""
TIME_PHRASES: Final = {
    "half an hour": "30 minutes",
    "quarter of an hour": "15 minutes",
    "an hour and a half": "90 minutes",
    "an hour": "60 minutes",
    "one hour": "60 minutes",
    **dict.fromkeys(("12 noon", "noon", "midday"), "12:00"),
    "midnight": "midnight",
}
"""Words for durations and times."""
HOUR_VALUES: Final = {"an hour": "1", "one hour": "1"}
"""Values for computation where they differ from those for comparison: a price is per hour."""
_CLOCKS: Final = {"half past": (0, 30), "quarter past": (0, 15), "quarter to": (1, 45)}
"""Hours before the named one, and minutes."""

WEEKDAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_MONTHS = rf"(?:{MONTH_PATTERN})\b\.?"
_DAY = r"(?:3[01]|[12]\d|0?[1-9])(?:st|nd|rd|th)?"
_UNIT = r"(?:hours?|hrs?|minutes?|mins?|thousands?|millions?|billions?|trillions?|mn|bn|k)\b"
_WORD = rf"(?:{'|'.join(WORD_VALUES)})\b"
_NAMED = rf"(?:{'|'.join(WEEKDAYS)}|{_MONTHS})"
_BOUND_ONLY = rf"(?:(?:one|zero)(?:-hour|[ -](?:hr|minute|min)s?)?|an? (?:million|billion|trillion)|{_NAMED})"
"""Figures only if words make them a bound: “at least one”, “before May”."""
_ARTICLE_NUMBER = re.compile(r"an?[\s-](?:hundred|thousand)", re.IGNORECASE)
"""Matched without its article."""
_UNIT_AFTER = re.compile(rf"[ -]{_UNIT}", re.IGNORECASE)
_SCALE_WORD = re.compile(r"\b(thousand|million|billion|trillion)s?$")
_DAY_PART = r"(?: in the (?:morning|afternoon|evening)| at night)"
_THOUSANDS_SEPARATOR = "[ \u00a0\u2009\u202f'’]"
"""Separators of thousands other than points and commas."""
_DIGITS = (
    rf"(?:\d{{1,3}}(?:{_THOUSANDS_SEPARATOR}\d{{3}})+(?!\d)(?:[.,]\d+)?|\d{{1,3}}(?:\.\d{{3}})+,\d+|\d{{1,3}}(?:\.\d{{3}}){{2,}}(?![.\d])"
    r"|\d(?:[\d,]*\d)?(?:\.\d+)?)"
)
_FIGURE = re.compile(
    r"(?<![\w.,])(?:"
    r"\d{4}-\d\d-\d\d|\d{1,2}(?P<stroke>[./])\d{1,2}(?P=stroke)(?:\d{4}|\d\d)(?!\d)"
    rf"|{_DAY}(?: of)? {_MONTHS}(?:,? \d{{4}})?|{_MONTHS} (?:\d{{4}}|{_DAY}(?:,? \d{{4}})?)(?![\w:])"
    rf"|(?:{'|'.join(_CLOCKS)}) (?:{'|'.join(UNIT_WORDS[1:13])}|1[0-2]|[1-9])\b"
    rf"|(?:{'|'.join(TIME_PHRASES)})\b"
    rf"|\d{{1,2}}(?:[:.][0-5]\d)?(?: ?[ap]\.?m\b\.?| ?o['’]clock\b(?:{_DAY_PART})?|{_DAY_PART})|\d{{1,2}}:[0-5]\d\b"
    r"|\d{1,6} ?(?:hours?|hrs?|h)(?: and)? \d{1,6} ?(?:minutes?|mins?|m)\b"
    rf"|(?:[-−–]|minus )[$€£¥]?{_DIGITS})"
    rf"|(?:(?<=[$€£¥])|(?<=[$€£¥] )){_DIGITS} ?[mb]\b|(?<![\w.,]){_DIGITS}(?-i:M)\b"
    rf"|(?<!\d){_DIGITS}(?:[ -]?{_UNIT})?"
    rf"|\b{_WORD}(?:[ -]{_UNIT})?|\b{_NAMED}\b",
    re.IGNORECASE | re.ASCII,
)
_FOREIGN_NUMBER = re.compile(rf"\d{{1,3}}(?:{_THOUSANDS_SEPARATOR}\d{{3}}|\.\d{{3}}[.,])")
"""A number in a foreign format."""
_SCALE_LETTERS: Final = {"k": "thousand", "m": "million", "b": "billion"}
_SIGN = re.compile(r"^(?:[-−–]|minus )[$€£¥]?")
_MINUEND = re.compile(r"[\d%)] *$")
"""A figure before a minus, which is then an operator and not a sign."""
_DATE_OR_TIME = re.compile(
    rf"\d:|-\d\d-|[./]\d+[./]|{_MONTHS}|^(?:1[5-9]|20)\d\d$|^(?:{'|'.join(WEEKDAYS)})$", re.IGNORECASE
)
"""A time or a date after `by`, not a percentage."""
MAX_CHARACTERS: Final = 4_000
"""Maximum characters of a question that are read."""
MAX_FIGURES: Final = 48
"""Maximum figures of a question that are locations."""


class QuestionFigure(NamedTuple):
    """A figure of a question."""

    text: str
    """Its text in lower case."""
    figure: str | None
    """In the form of an expression, without a following `thousand` or `million`, because the table's figures may have
    this unit.
    """
    measure: str
    """For comparison with a column's measures: digits and unit."""
    bound: str | None = None
    """The bound that the words around it set."""


def question_figures(question: str) -> list[QuestionFigure]:
    """Returns the figures of a question, in order. Only the beginning of a long question is read."""
    question = question[:MAX_CHARACTERS]
    figures: list[QuestionFigure] = []
    for start, end in _figure_spans(question):
        text, before, after = (
            question[start:end].lower().rstrip("."),
            question[max(0, start - CONTEXT_CHARACTERS) : start],
            question[end : end + CONTEXT_CHARACTERS],
        )
        less = text.startswith("minus") and re.search(r"%|per ?cent", text + after[:9])
        if (sign := _SIGN.match(text)) is not None and (less or _MINUEND.search(before)):  # “the rent minus 10 percent”
            text = text[sign.end() :]
        measure = _normalize_measure(text)
        is_dated = _DATE_OR_TIME.search(measure) is not None
        bound = (
            None if text in PAIR_WORDS else find_bound(before, measure, after, dated=is_dated, spelt=text[:1].isalpha())
        )
        if bound is None and re.fullmatch(_BOUND_ONLY, text):
            continue
        figures.append(QuestionFigure(text, HOUR_VALUES.get(text) or parse_figure(measure), measure, bound))
    return figures[:MAX_FIGURES]


def _figure_spans(question: str) -> list[tuple[int, int]]:
    """Returns the spans of the figures of a question, in order; of those in words, with the unit after them."""
    spans = [match.span() for match in _FIGURE.finditer(question)]
    for written_number in find_written_numbers(question):
        if not _ARTICLE_NUMBER.fullmatch(question, written_number.start, written_number.end):
            unit = _UNIT_AFTER.match(question, written_number.end)
            spans.append((written_number.start, unit.end() if unit else written_number.end))
    places: list[tuple[int, int]] = []
    for start, end in sorted(spans, key=itemgetter(0)):
        if not places or start >= places[-1][1]:
            places.append((start, end))
    return places


def _normalize_measure(text: str) -> str:
    """Returns a text with number words as digits, and times with a colon."""
    if text in TIME_PHRASES:
        return TIME_PHRASES[text]
    if (past := re.fullmatch(rf"({'|'.join(_CLOCKS)}) (\w+)", text)) is not None:
        hour = int(past[2]) if past[2].isdigit() else SMALL_NUMBERS[past[2]]
        before, minute = _CLOCKS[past[1]]
        return f"{(hour - before) or 12}:{minute}"
    if (
        clock := re.match(r"(\d{1,2})(?:[:.](\d\d))? ?(?:([ap])\.?m|o['’]clock|(?=in the |at night))", text)
    ) is not None:
        return _time_of_day(int(clock[1]), clock[2] or "00", clock[3] or "", text)
    if (match := re.fullmatch(r"(\d+) ?h[a-z]*(?: and)? (\d+) ?m[a-z]*", text)) is not None:
        return f"{int(match[1]) * 60 + int(match[2])} minutes"
    text = _SIGN.sub("-", text).replace(" of ", " ")
    text = (
        re.sub(rf"^(\d{{1,3}}(?:(?:{_THOUSANDS_SEPARATOR}|\.)\d{{3}})+)([.,]\d+)?(?=\D|$)", _join_thousands, text)
        if _FOREIGN_NUMBER.match(text)
        else text
    )
    text = re.sub(r"(?<=\d)[- ]?([kmb])$", lambda letter_match: f" {_SCALE_LETTERS[letter_match[1]]}", text)
    if (word := re.match(_WORD, text)) is not None:
        return f"{WORD_VALUES[word[0]]}{text[word.end() :].replace('-', ' ')}"
    if (spelt := next(find_written_numbers(text), None)) is not None and spelt.start == 0:
        return f"{_number_digits(spelt, text[: spelt.end])}{text[spelt.end :].replace('-', ' ')}"
    return re.sub(r"(?<=\d)-(?=[a-z])", " ", text)


def _number_digits(number: WrittenNumber, text: str) -> str:
    """Returns a number in words as digits, with the multiplier after it; a thousand is 1000."""
    great = _SCALE_WORD.search(text)
    if number.value != 1000 and great is not None and number.value == number.plain * 10 ** POWER_WORDS[great[1]]:
        return f"{decimal_text(number.plain)} {great[1]}"
    return decimal_text(number.value)


def _time_of_day(hour: int, minute: str, half: str, text: str) -> str:
    """Returns a time of day, with `am` or `pm` if known. At night, 6 to 11 are pm, earlier hours and 12 are am."""
    if "afternoon" in text or "evening" in text:
        half = "p" if hour <= 12 else ""
    elif "morning" in text:
        half = "a" if hour < 12 else ""
    elif "night" in text:
        half = "" if hour > 12 else "p" if 6 <= hour < 12 else "a"
    return f"{hour}:{minute}{f' {half}m' if half else ''}"


def _join_thousands(match: re.Match[str]) -> str:
    """Removes blanks, apostrophes or points between the thousands of a number."""
    return re.sub(r"\D", "", match[1]) + (match[2] or "").replace(",", ".")


def find_figure(wanted: str, question: str) -> int | None:
    """Returns the index of the question's figure with the same text or value; None if there is none."""
    text = wanted.strip().lower()
    all_figures = question_figures(question)
    worth = _figure_value(parse_figure(_normalize_measure(text)))
    for text_matches in (
        [at for at, question_figure in enumerate(all_figures) if question_figure.text == text],
        [
            at
            for at, question_figure in enumerate(all_figures)
            if text and re.match(rf"{re.escape(text)}(?![\w.,])", question_figure.text)
        ],
        [
            at
            for at, question_figure in enumerate(all_figures)
            if worth is not None and _figure_value(question_figure.figure) == worth
        ],
    ):
        if text_matches:
            return text_matches[0]
    return None


def _figure_value(figure_text: str | None) -> object:
    try:
        return None if figure_text is None else evaluate(figure_text)
    except ArithmeticParseError:
        return None
