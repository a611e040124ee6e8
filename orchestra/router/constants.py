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
        return [one for one in self.sentences if one.mood in (Mood.COMMAND, Mood.STATEMENT)]

    @property
    def has_command(self) -> bool:
        """Whether the request contains a command."""
        return any(one.mood is Mood.COMMAND for one in self.sentences)

    @property
    def refusal_reason(self) -> str:
        """Why the request asks for no effect."""
        moods = list(dict.fromkeys(one.mood.value for one in self.sentences))
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
        found: dict[int, int] = {}
        for match in _TOKEN.finditer(self.text):
            start, end = match.span()
            found.setdefault(start, end)
            opening = _OPENING.match(self.text, start, end)
            begin = opening.end() if opening is not None else start
            closing = _CLOSING.search(self.text, begin, end)
            stop = closing.start() if closing is not None else end
            found[start if begin >= stop else begin] = end if begin >= stop else stop
        return found

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
        kept = [at for at, char in enumerate(self.text) if not (char.isspace() and self.text[at - 1 : at].isspace())]
        found = find_dates("".join(" " if self.text[at].isspace() else self.text[at] for at in kept))
        ends = [kept[one.start + len(one.text) - 1] + 1 for one in found]
        return [
            replace(one, start=kept[one.start], text=self.text[kept[one.start] : end])
            for one, end in zip(found, ends, strict=True)
        ]

    @cached_property
    def amounts(self) -> Sequence[Amount]:
        """Numbers of the request."""
        return [self._amount(one) for one in find_numbers(self.text, words=True)]

    def _amount(self, one: Number) -> Amount:
        begin, end = one.begin, one.begin + len(one.text)
        first, last = next(
            ((start, stop) for start, stop in self.token_ends.items() if start <= one.start < stop), (begin, end)
        )
        content = any(start < one.start < stop for start, stop in self.quoted_spans)
        dated = any(day.start <= one.start < day.start + len(day.text) for day in self.days)
        scaled = _SCALE.match(self.text, end)
        less = _NEGATING_PREFIX.search(self.text, max(0, begin - 10), begin)
        spelt = not any(map(str.isdigit, one.text))
        unsure = (
            one.uncertain_scale
            or one.bracketed
            or one.uncertain_minus
            or bool(one.other_readings or one.identifier)
            or one.alternative is not None
        )
        unsure = unsure or (spelt and one.value in (0, 1)) or _LEADING_ZERO.match(self.text, one.start) is not None
        whole = begin in self.token_ends and (end in self.end_positions or last == end)
        # `5` is all of `5 euros`, but only part of `5 million` and `50 cents`.
        scales = one.plain != one.value or spelt or one.currency in currencies.SUBUNITS
        stop = max(last, end if scales else 0, scaled.end() if scaled is not None else 0)
        begin = min(begin, first, less.start() if less is not None else begin)
        certain = whole and not (content or dated or scaled or less or unsure)
        return Amount(begin, stop, _passable_values(one) if certain else frozenset())

    def find(self, value: Any, kind: Schema) -> list[Span]:
        """Spans of a constant of a type: a text or a number. Booleans and null have no occurrences."""
        if isinstance(value, bool) or value is None:
            return []
        if isinstance(value, int | float):
            return self.find_number(Fraction(Decimal(str(value))))
        found = self.find_text(str(value))
        return found or (self._find_date(str(value)) if kind.get("format") == "date" else [])

    def find_number(self, value: Fraction) -> list[Span]:
        """Spans of a number, in any notation."""
        return [
            (one.start, one.end) for one in self.amounts if value in one.values and self._is_usable(one.start, one.end)
        ]

    def find_text(self, value: str) -> list[Span]:
        """Spans of a text as whole tokens. A text that is a number occurs where the number does."""
        if not value.strip():
            return []
        found = [span for span in self._token_spans(value) if not self._cuts_number(*span)]
        read = find_numbers(value.strip(), words=True)
        if not found and len(read) == 1 and read[0].text == value.strip() and len(_passable_values(read[0])) == 1:
            (number,) = _passable_values(read[0])
            found = (
                self.find_number(number)
                if not read[0].other_readings and not read[0].uncertain_minus and not _LEADING_ZERO.match(value.strip())
                else []
            )
        return found

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
            one.start < end and start < one.end and not (start <= one.start and one.end <= end) for one in self.amounts
        )

    def _is_usable(self, start: int, end: int) -> bool:
        return any(one.start <= start and end <= one.end for one in self.usable_sentences)

    def _find_date(self, value: str) -> list[Span]:
        """Spans of a date that is written with its year and is unambiguous."""
        said = next(iter(find_dates(value)), None)
        if said is None:
            return []
        same = [
            one
            for one in self.days
            if one.alternative is None and (one.year, one.month, one.day) == (said.year, said.month, said.day)
        ]
        spans = [(one.start, one.start + len(one.text)) for one in same]
        return [span for span in spans if self._is_usable(*span)]

    def named_choices(self, choices: Sequence[Any]) -> list[Any]:
        """The enum values of a tool that the request names."""
        said = " ".join(self.text[one.start : one.end] for one in self.usable_sentences).casefold()
        return [
            one
            for one in choices
            if isinstance(one, str) and re.search(rf"(?<!\w){re.escape(one.casefold())}(?!\w)", said)
        ]

    def grammar_rules(self, name: str, max_length: int) -> list[str]:
        """Grammar rules of a terminal: whole tokens of a usable sentence in JSON notation; empty if there is no such
        sentence.
        """
        found = [
            f"{name}_{at}: %regex {ascii_json({'substring_chunks': self._chunks(one)})}"
            for at, one in enumerate(self.usable_sentences)
        ]
        choice = " | ".join(f"{name}_{at}" for at in range(len(found)))
        edge = r"""[^ .,;:!?…()\[\]{}<>"'“”„‘’«»¿¡\\]"""  # punctuation may be inside a piece, but not at its ends
        shape = rf"/{edge}([\s\S]{{0,{max_length - 2}}}{edge})?/"
        return [*found, f"{name}_SHAPE: {shape}", f'{name}: "\\"" ({name}_SHAPE & ({choice})) "\\""'] if found else []

    def _chunks(self, one: Sentence) -> list[str]:
        edges = sorted(
            {one.start, one.end, *(at for at in (*self.token_ends, *self.end_positions) if one.start < at < one.end)}
        )
        return [_json_escaped(self.text[start:end]) for start, end in pairwise(edges)]


def _json_escaped(text: str) -> str:
    """A text as it is escaped inside a JSON string."""
    return canonical(text).decode("utf-8", "replace")[1:-1]


def _passable_values(one: Number) -> frozenset[Fraction]:
    """Values that may be passed for a number: an amount in cents as whole units, a percentage also as the written
    number.
    """
    if one.currency in currencies.SUBUNITS:
        return frozenset({one.value / 100})
    return frozenset({one.value, one.plain}) if one.percent else frozenset({one.value})
