"""Parts of an answer that can be removed one by one, and the answer without some of them. Pure.

A text in a list belongs to the innermost element that contains it. Any other text is split into sentences. Texts
without a claim (`orchestra.verification.entailment.extract_claims`) are no parts and stay.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import msgspec

from orchestra.core.events import DroppedPart, Verdict
from orchestra.schema.fields import Schema
from orchestra.verification.entailment import AnswerClaim, claim_fields

Steps: TypeAlias = tuple[str | int, ...]
_SENTENCE_END = re.compile(r"[.!?…][\"'”’)\]]*\s+|(?<!\s)\s*\n\s*")
_ABBREVIATION = re.compile(
    r"(?:^|[\s(])(?:[A-Za-z]|Dr|Mr|Mrs|Ms|Prof|St|Jr|Sr|Inc|Ltd|Co|No|Nos|Fig|Vol|Art|vs|cf|ca|approx|etc|e\.g|i\.e|[A-Z]\.[A-Z])\.$"
)
"""Initials and English abbreviations, whose full stop ends no sentence."""
_LIST_MARKER = re.compile(r"[\s#*>(-]*(?:\d{1,3}(?:\.\d{1,3})*|[ivxlIVXL]{1,5})\.[*)]*\s+")
"""Number of a list item: the beginning of a sentence, not a sentence."""
_LOOKBEHIND = 24
"""Characters before the end of a sentence that are examined."""


class AnswerPart(msgspec.Struct, frozen=True):
    """A part of a value: its path, its claims, and for a sentence its span in the text."""

    steps: Steps
    claims: tuple[AnswerClaim, ...]
    start: int | None = None
    end: int | None = None

    @property
    def text(self) -> str:
        """The claims as one text."""
        return "; ".join(claim.text for claim in self.claims)

    def to_dropped(self, reason: str, score: float | None) -> DroppedPart:
        """Returns the record of the removed part."""
        return DroppedPart(self.steps, self.text, reason, score, self.start, self.end)


def split_answer(value: Any, schema: Schema) -> list[AnswerPart]:
    """Returns the parts of a value in order. A list element has the position of its first text."""
    found: list[AnswerPart] = []
    elements: dict[Steps, int] = {}
    for field in claim_fields(value, schema):
        inside = max((at for at, step in enumerate(field.steps) if isinstance(step, int)), default=-1)
        if inside < 0:
            for start, end in sentence_spans(field.value):
                found.append(
                    AnswerPart(field.steps, (AnswerClaim(field.value[start:end].strip(), field.path),), start, end)
                )
            continue
        steps, claim = field.steps[: inside + 1], AnswerClaim(field.value, field.path)
        if (known := elements.get(steps)) is None:
            elements[steps] = len(found)
            found.append(AnswerPart(steps, (claim,)))
        else:
            found[known] = AnswerPart(steps, (*found[known].claims, claim))
    return found


def sentence_spans(text: str) -> Iterator[tuple[int, int]]:
    """Spans of the sentences of a text, each with the white space after it, so that they cover the text."""
    begin = 0
    for match in _SENTENCE_END.finditer(text):
        end = match.end()
        if end == len(text) or _continues_sentence(text, begin, match):
            continue
        yield begin, end
        begin = end
    if text[begin:].strip():
        yield begin, len(text)


def _continues_sentence(text: str, begin: int, match: re.Match[str]) -> bool:
    """Whether the sentence from `begin` on continues here, or has not begun."""
    start, end = match.span()
    if (start == begin and match[0].isspace()) or (
        start - begin <= _LOOKBEHIND and _LIST_MARKER.fullmatch(text, begin, end)
    ):
        return True
    if "\n" in match[0]:
        return False
    return text[end].islower() or _ABBREVIATION.search(text[max(begin, start - _LOOKBEHIND) : end].rstrip()) is not None


class RemainingAnswer(msgspec.Struct, frozen=True):
    """A value without removed parts, and the new path of each list element that moved."""

    value: Any
    new_steps: Mapping[Steps, Steps]

    def new_path(self, steps: Steps) -> Steps:
        """The path in the new value of a part of the old one."""
        for length in range(len(steps), 0, -1):
            if (new := self.new_steps.get(steps[:length])) is not None:
                return (*new, *steps[length:])
        return steps


def remove_parts(value: Any, dropped: Iterable[DroppedPart]) -> RemainingAnswer:
    """Returns the value without the dropped parts. A text without any sentence left becomes null."""
    gone: dict[Steps, list[tuple[int, int]]] = {}
    for one in dropped:
        spans = gone.setdefault(one.steps, [])
        if one.start is not None and one.end is not None:
            spans.append((one.start, one.end))
    moved: dict[Steps, Steps] = {}
    return RemainingAnswer(_remove(value, (), (), gone, moved), moved)


def remaining_value(value: Any, verdicts: Iterable[Verdict]) -> Any:
    """Returns an accepted value without the parts that its verdicts dropped."""
    dropped = [one for verdict in verdicts for one in verdict.dropped]
    return remove_parts(value, dropped).value if dropped else value


def _remove(
    value: Any, old: Steps, new: Steps, gone: Mapping[Steps, list[tuple[int, int]]], moved: dict[Steps, Steps]
) -> Any:
    if isinstance(value, str):
        return _remove_spans(value, gone[old]) if gone.get(old) else value
    if isinstance(value, Mapping):
        return {name: _remove(part, (*old, name), (*new, name), gone, moved) for name, part in value.items()}
    if not isinstance(value, Sequence):
        return value
    kept: list[Any] = []
    for index, part in enumerate(value):
        before = (*old, index)
        if before in gone and not gone[before]:
            continue
        here = (*new, len(kept))
        moved[before] = here
        kept.append(_remove(part, before, here, gone, moved))
    return kept


def _remove_spans(text: str, spans: Sequence[tuple[int, int]]) -> str | None:
    """A text without some of its sentences."""
    kept, at = [], 0
    for start, end in sorted(spans):
        kept.append(text[at:start])
        at = max(at, end)
    rest = "".join([*kept, text[at:]]).strip()
    return rest or None
