"""Occurrences in the request of the constants of calls with effects.

Texts compare literally, by whole tokens: `Bob` does not occur in `Bobby`, and `5` not in `5.50`. Numbers compare by
value: `5`, `five` and `5.00` are one number; `-5`, `5k` and `5 dozen` are others. An ambiguous notation such as `1.234`
or `- 5` is no occurrence of a number. Only sentences that may ask for an effect, or that state facts for one, count
(`orchestra.router.sentences`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from fractions import Fraction
from functools import cached_property
from itertools import pairwise
from typing import Any, TypeAlias

from orchestra.agents.evidence_grammar import ascii_json
from orchestra.router.sentences import QUOTED, Mood, Sentence, split_sentences
from orchestra.schema.strict_json import canonical
from orchestra.schema.types import Schema
from orchestra.text.numbers import currencies
from orchestra.text.numbers.numbers import CalendarDate, Number, find_dates, find_numbers

Span: TypeAlias = tuple[int, int]
"""Start and end of a constant in the request."""
_TOKEN = re.compile(r"\S+")
_OPENING = re.compile(r"""[("'“‘„«»\[{<¿¡]*""")
_CLOSING = re.compile(r"""(?:['’]s?)?[)"'”’“«»\]}>.,;:!?…]*\Z""")
_SCALE = re.compile(
    r"[\s-]*(?:dozens?|score|gross|grand|hundreds?|thousands?|[mb]illions?|trillions?|lakhs?|crores?|[km]|mm|mn|mio|mln|mrd|bn|[bt]n?"
    r"|hundert|tausend|million(?:en)?|milliarden?|mille|mil|mill(?:ón|ones)|%|‰|percent|pct|x|times|fold|[-/:^*]\s*\d)(?!\w)",
    re.IGNORECASE,
)
"""Text after a number that makes it another number and that `numbers` does not parse as part of it."""
_NEGATING_PREFIX = re.compile(
    r"(?:\b(?:minus|negative|less|below|moins|menos|meno)|[-−–—+*/^x×~<>≤≥])\s*\Z", re.IGNORECASE
)
"""Text before a number that may make it another number."""
_LEADING_ZERO = re.compile(r"[-+]?0\d")
"""A digit sequence that is no number: 0041."""


@dataclass(frozen=True, slots=True)
class Amount:
    """A number in the request: its span, and the values that may be passed for it; none if its reading is uncertain."""

    start: int
    end: int
    values: frozenset[Fraction]


@dataclass(frozen=True)
class RequestIndex:
    """Index of a request for the constants of calls with effects."""

    text: str

    @cached_property
    def sentences(self) -> Sequence[Sentence]:
        """All sentences of the request."""
        return split_sentences(self.text)

    @cached_property
    def usable_sentences(self) -> Sequence[Sentence]:
        """Sentences whose constants may be passed: commands and statements of fact."""
        return [sentence for sentence in self.sentences if sentence.mood in (Mood.COMMAND, Mood.STATEMENT)]

    @property
    def has_command(self) -> bool:
        """Whether the request contains a command."""
        return any(sentence.mood is Mood.COMMAND for sentence in self.sentences)

    @property
    def refusal_reason(self) -> str:
        """Why the request asks for no effect."""
        moods = list(dict.fromkeys(sentence.mood.value for sentence in self.sentences))
        return (
            f"the request is {moods[0]}"
            if len(moods) == 1 and self.usable_sentences == []
            else "no sentence of the request asks for anything"
        )

    @cached_property
    def token_ends(self) -> Mapping[int, int]:
        """Positions where a piece of the request may begin, each with the end of its first token, without surrounding
        punctuation.
        """
        token_ends: dict[int, int] = {}
        for match in _TOKEN.finditer(self.text):
            start, end = match.span()
            token_ends.setdefault(start, end)
            opening = _OPENING.match(self.text, start, end)
            begin = opening.end() if opening is not None else start
            closing = _CLOSING.search(self.text, begin, end)
            stop = closing.start() if closing is not None else end
            token_ends[start if begin >= stop else begin] = end if begin >= stop else stop
        return token_ends

    @cached_property
    def end_positions(self) -> frozenset[int]:
        """Positions where a piece of the request may end."""
        return frozenset((*self.token_ends.values(), *(match.end() for match in _TOKEN.finditer(self.text))))

    @cached_property
    def quoted_spans(self) -> Sequence[Span]:
        """Spans of quoted words. They are content: a number in them is no number that the request states."""
        return [match.span() for match in QUOTED.finditer(self.text)]

    @cached_property
    def days(self) -> Sequence[CalendarDate]:
        """Dates of the request, with any white space between their words."""
        text = [at for at, char in enumerate(self.text) if not (char.isspace() and self.text[at - 1 : at].isspace())]
        dates = find_dates("".join(" " if self.text[at].isspace() else self.text[at] for at in text))
        ends = [text[calendar_date.start + len(calendar_date.text) - 1] + 1 for calendar_date in dates]
        return [
            replace(calendar_date, start=text[calendar_date.start], text=self.text[text[calendar_date.start] : end])
            for calendar_date, end in zip(dates, ends, strict=True)
        ]

    @cached_property
    def amounts(self) -> Sequence[Amount]:
        """Numbers of the request."""
        return [self._amount(number) for number in find_numbers(self.text, words=True)]

    def _amount(self, number: Number) -> Amount:
        begin, end = number.begin, number.begin + len(number.text)
        first, last = next(
            ((start, stop) for start, stop in self.token_ends.items() if start <= number.start < stop), (begin, end)
        )
        content = any(start < number.start < stop for start, stop in self.quoted_spans)
        is_date = any(day.start <= number.start < day.start + len(day.text) for day in self.days)
        scale_match = _SCALE.match(self.text, end)
        less = _NEGATING_PREFIX.search(self.text, max(0, begin - 10), begin)
        spelt = not any(map(str.isdigit, number.text))
        unsure = (
            number.uncertain_scale
            or number.bracketed
            or number.uncertain_minus
            or bool(number.other_readings or number.identifier)
            or number.alternative is not None
        )
        unsure = (
            unsure or (spelt and number.value in (0, 1)) or _LEADING_ZERO.match(self.text, number.start) is not None
        )
        is_whole = begin in self.token_ends and (end in self.end_positions or last == end)
        # `5` is all of `5 euros`, but only part of `5 million` and `50 cents`.
        scales = number.plain != number.value or spelt or number.currency in currencies.SUBUNITS
        stop = max(last, end if scales else 0, scale_match.end() if scale_match is not None else 0)
        begin = min(begin, first, less.start() if less is not None else begin)
        certain = is_whole and not (content or is_date or scale_match or less or unsure)
        return Amount(begin, stop, _passable_values(number) if certain else frozenset())

    def find(self, value: Any, kind: Schema) -> list[Span]:
        """Spans of a constant of a type: a text or a number. Booleans and null have no occurrences."""
        if isinstance(value, bool) or value is None:
            return []
        if isinstance(value, int | float):
            return self.find_number(Fraction(Decimal(str(value))))
        spans = self.find_text(str(value))
        return spans or (self._find_date(str(value)) if kind.get("format") == "date" else [])

    def find_number(self, value: Fraction) -> list[Span]:
        """Spans of a number, in any notation."""
        return [
            (amount.start, amount.end)
            for amount in self.amounts
            if value in amount.values and self._is_usable(amount.start, amount.end)
        ]

    def find_text(self, value: str) -> list[Span]:
        """Spans of a text as whole tokens. A text that is a number occurs where the number does."""
        if not value.strip():
            return []
        spans = [span for span in self._token_spans(value) if not self._cuts_number(*span)]
        numbers = find_numbers(value.strip(), words=True)
        if (
            not spans
            and len(numbers) == 1
            and numbers[0].text == value.strip()
            and len(_passable_values(numbers[0])) == 1
        ):
            (number,) = _passable_values(numbers[0])
            spans = (
                self.find_number(number)
                if not numbers[0].other_readings
                and not numbers[0].uncertain_minus
                and not _LEADING_ZERO.match(value.strip())
                else []
            )
        return spans

    def _token_spans(self, value: str) -> Iterator[Span]:
        at = self.text.find(value)
        while at >= 0:
            end = at + len(value)
            if at in self.token_ends and end in self.end_positions and self._is_usable(at, end):
                yield at, end
            at = self.text.find(value, at + 1)

    def _cuts_number(self, start: int, end: int) -> bool:
        """Whether a piece of the request contains only part of a number."""
        return any(
            amount.start < end and start < amount.end and not (start <= amount.start and amount.end <= end)
            for amount in self.amounts
        )

    def _is_usable(self, start: int, end: int) -> bool:
        return any(
            usable_sentence.start <= start and end <= usable_sentence.end for usable_sentence in self.usable_sentences
        )

    def _find_date(self, value: str) -> list[Span]:
        """Spans of a date that is written with its year and is unambiguous."""
        date = next(iter(find_dates(value)), None)
        if date is None:
            return []
        matching_dates = [
            day
            for day in self.days
            if day.alternative is None and (day.year, day.month, day.day) == (date.year, date.month, date.day)
        ]
        spans = [(other_date.start, other_date.start + len(other_date.text)) for other_date in matching_dates]
        return [span for span in spans if self._is_usable(*span)]

    def named_choices(self, choices: Sequence[Any]) -> list[Any]:
        """The enum values of a tool that the request names."""
        text = " ".join(
            self.text[usable_sentence.start : usable_sentence.end] for usable_sentence in self.usable_sentences
        ).casefold()
        return [
            choice
            for choice in choices
            if isinstance(choice, str) and re.search(rf"(?<!\w){re.escape(choice.casefold())}(?!\w)", text)
        ]

    def grammar_rules(self, name: str, max_length: int) -> list[str]:
        """Grammar rules of a terminal: whole tokens of a usable sentence in JSON notation; empty if there is no such
        sentence.
        """
        rules = [
            f"{name}_{at}: %regex {ascii_json({'substring_chunks': self._chunks(sentence)})}"
            for at, sentence in enumerate(self.usable_sentences)
        ]
        choice = " | ".join(f"{name}_{at}" for at in range(len(rules)))
        edge = r"""[^ .,;:!?…()\[\]{}<>"'“”„‘’«»¿¡\\]"""  # punctuation may be inside a piece, but not at its ends
        shape = rf"/{edge}([\s\S]{{0,{max_length - 2}}}{edge})?/"
        return [*rules, f"{name}_SHAPE: {shape}", f'{name}: "\\"" ({name}_SHAPE & ({choice})) "\\""'] if rules else []

    def _chunks(self, sentence: Sentence) -> list[str]:
        edges = sorted(
            {
                sentence.start,
                sentence.end,
                *(at for at in (*self.token_ends, *self.end_positions) if sentence.start < at < sentence.end),
            }
        )
        return [_json_escaped(self.text[start:end]) for start, end in pairwise(edges)]


def _json_escaped(text: str) -> str:
    """A text as it is escaped inside a JSON string."""
    return canonical(text).decode("utf-8", "replace")[1:-1]


def _passable_values(number: Number) -> frozenset[Fraction]:
    """Values that may be passed for a number: an amount in cents as whole units, a percentage also as the written
    number.
    """
    if number.currency in currencies.SUBUNITS:
        return frozenset({number.value / 100})
    return frozenset({number.value, number.plain}) if number.percent else frozenset({number.value})
