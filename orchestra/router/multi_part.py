"""Requests with several parts: their parts, and those that no step of a plan serves.

Parts are recognized only by joining phrases: `Also:`, `And another thing:`, `1) ... 2) ...`. A story of five sentences
that ends in a question is one part, and so is a message to a bank. If no colon and no dash follows the phrase, a
question must precede it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

from orchestra.core.untrusted_text import pluralize
from orchestra.router.capabilities import Capabilities, RequestParts
from orchestra.router.plan_syntax import INPUT, PlanAnswer, PlanLiteral, PlanReference, PlanStep
from orchestra.text.numbers.numbers import find_numbers
from orchestra.workflows.model import REQUEST

Span: TypeAlias = tuple[int, int]
"""Start and end of a part in the request."""
MAX_SHOWN_LENGTH = 80
"""Characters of a part that are shown."""
_PART_JOIN = (
    r"(?:(?:and|oh,?|but|or|on)\s+){0,2}"
    r"(?:also|besides|then|furthermore|moreover|separately|next|finally|lastly|by the way|that done|after that|"
    r"p\.?\s?s\.?|"
    r"(?:second|third)(?:ly| thing)?|in addition\b[\w ,]{0,40}|unrelated\b[\w ]{0,20}|while\s+(?:you'?re|"
    r"you\s+are)\s+at\s+it|"
    r"(?:(?:an?|one)\s+)?(?:entirely\s+)?(?:another|more|other|last|different|separate)\s+"
    r"(?:thing|question|matter|topic|request|note|task)s?\b[\w ]{0,20}|"
    r"(?:question|item|part|point)\s+\(?(?:two|three|[2-9b-h])\)?)"
)
_PART_BOUNDARIES = (
    re.compile(
        rf"(?:(?<=[.!?;\n])|(?<=[.!?;\n][\"'”’)]))\s{{0,9}}{_PART_JOIN}(?:,[\w ,]{{0,30}})?\s{{0,9}}[:–—]\s*",
        re.IGNORECASE,
    ),
    re.compile(rf"\s{{1,9}}(?-i:(?=[A-Z])){_PART_JOIN}\s{{0,9}}:\s+", re.IGNORECASE),
    re.compile(rf"(?<=\?)\s{{1,9}}{_PART_JOIN}(?:,|\s-)\s+", re.IGNORECASE),
    re.compile(r"(?<=[?.!\n])\s{0,9}(?:PS|P\.S\.)[:,]?\s+"),
)
_THANKS = re.compile(
    r"(?:\W|\b(?:many|thanks?|thank you|thx|cheers|please|so|very|much|a lot|a million|in advance|again|for|"
    r"(?:all |any )?(?:your|the) "
    r"(?:help|time|patience|effort|work)|and|(?:best|kind|warm) regards|have a (?:nice|great|good) (?:day|"
    r"evening|week|weekend)|"
    r"vielen|besten|herzlichen|dank|danke|dir|ihnen|euch|schön|sehr|im voraus|für|(?:die|deine|ihre|"
    r"eure) (?:hilfe|mühe|zeit)|alles|bitte|"
    r"(?:viele|liebe|beste|mit freundlichen) grüße?n?)\b)*",
    re.IGNORECASE,
)
"""A part that requests nothing."""
_STYLE_INSTRUCTION = re.compile(
    r"\W*(?:and\s+)?(?:please\s+)?(?:be\b|keep\b|make it\b|answer\b|reply\b|respond\b|say (?:it|so)\b|"
    r"explain (?:it|yourself)\b|no\b|use\b|"
    r"fasse dich\b|antworte\b|bitte antworten?\b)[^?]*",
    re.IGNORECASE,
)
"""A part about the style of the answer."""
_BACK_REFERENCE = re.compile(
    r"\b(?:it|its|them|their|that|this|those|these|both|the (?:result|answer|outcome|sum|total|summary)s?)\b",
    re.IGNORECASE,
)
"""A phrase that refers to another part."""
_FOLLOW_UP_COMPUTATION = re.compile(
    r"\b(?:convert|round|halve|double|triple|express|split|divide|multiply|add|subtract|take|turn)\b[^.?!]{0,20}"
    r"\b(?:it|them|this|that|these|those|the (?:result|answer|outcome|sum|total)s?)\b",
    re.IGNORECASE,
)
"""A phrase that continues the computation of another part."""
_NUMBER = re.compile(r"\d|\b(?:dozen|half|halve|twice|thrice|double|triple|pair|couple|quarter|third)", re.IGNORECASE)
_QUOTED = re.compile(r"""(?<![^\s(:])"(?!\s)[^"]{2,}(?<!\s)"(?!\w)|“[^“”]+”|„[^“”„]+[“”]|»[^«»]+«|«[^«»]+»""")
"""Quoted words, or a text to work on."""
_LIST_MARKER = re.compile(r"(?:^|\s)\(?([1-9a-h])\)\s+")


@dataclass(frozen=True, slots=True)
class UncoveredParts:
    """Parts of a request that a plan does not serve."""

    parts: tuple[str, ...]
    """Parts that no step received on its own."""
    unassigned_values: int = 0
    """Number of answer values that depend on the whole request, fewer than these parts. It is unknown which parts they
    serve.
    """

    def __str__(self) -> str:
        text = " and ".join(
            f'"{part if len(part) <= MAX_SHOWN_LENGTH else part[: MAX_SHOWN_LENGTH - 1] + "…"}"' for part in self.parts
        )
        return (
            f"{len(self.parts)} parts, {pluralize(self.unassigned_values, 'step')}: {text}"
            if self.unassigned_values
            else f"nothing serves {text}"
        )


def split_request(text: str) -> RequestParts | None:
    """Returns the parts of a request with several parts; None for any other."""
    quoted_spans = [match.span() for match in _QUOTED.finditer(text) if match[0] != text.strip()]

    def outside_quotes(matches: Iterable[re.Match[str]]) -> list[re.Match[str]]:
        return [match for match in matches if not any(start < match.end() <= end for start, end in quoted_spans)]

    cuts = sorted(match.span() for bound in _PART_BOUNDARIES for match in outside_quotes(bound.finditer(text)))
    markers = outside_quotes(_LIST_MARKER.finditer(text))
    if markers and not _introduces_list(text[: markers[0].start()]):
        markers = []
    if (
        not cuts
        and len(markers) > 1
        and "".join(marker[1] for marker in markers) in ("12345678", "abcdefgh")[markers[0][1] == "a"]
    ):
        cuts = [(0, markers[0].end()), *(marker.span() for marker in markers[1:])]
    spans, at = [], 0
    for start, end in [*cuts, (len(text), len(text))]:
        if len(text[at:start].split()) > 1 and not any(
            pattern.fullmatch(text, at, start) for pattern in (_THANKS, _STYLE_INSTRUCTION)
        ):
            begin = at + len(text[at:start]) - len(text[at:start].lstrip())
            spans.append((begin, begin + len(text[at:start].strip())))
        at = max(at, end)
    return RequestParts(text, tuple(spans)) if len(spans) > 1 else None


def has_number(text: str) -> bool:
    """Whether a text has a number, in digits or in words."""
    return _NUMBER.search(text) is not None or next(iter(find_numbers(text, words=True)), None) is not None


def next_numeric_part(request_parts: RequestParts, steps: Sequence[PlanStep]) -> str:
    """The first part with a number whose words no step has received; empty if there is none."""
    covered_spans = {span for step in steps for span in _part_coverage(request_parts, step).spans}
    texts = (request_parts.text[start:end] for start, end in request_parts.spans if (start, end) not in covered_spans)
    return next(filter(has_number, texts), "")


def _introduces_list(before: str) -> bool:
    """Whether a list after these words is a list of requests. After a question it lists choices; inside a sentence it
    lists positions.
    """
    return "?" not in before and (not before.strip() or before.rstrip()[-1] in ".;:!" or before.endswith("\n"))


def with_request_parts(capabilities: Capabilities, text: str) -> Capabilities:
    """Returns capabilities that demand a step for each part of this request; unchanged with an output type."""
    request_parts = None if capabilities.output_type else split_request(text)
    if request_parts is None:
        return capabilities
    return replace(
        capabilities,
        request_parts=replace(
            request_parts,
            computing=frozenset(name for name, capability in capabilities.by_name.items() if capability.computes),
        ),
    )


def find_uncovered(
    request_parts: RequestParts | None, steps: Sequence[PlanStep], answer: PlanAnswer
) -> UncoveredParts | None:
    """Returns the parts that a plan does not serve; None if each part has a value of the answer.

    A value serves the parts whose words its steps received. A value that depends on the whole request, or on none of
    its words, serves one more part. So does each step behind it that received no words and reads no step. A step that
    reads another step serves a part that refers to another part.
    """
    if request_parts is None:
        return None
    steps_by_name = {step.name: step for step in steps}
    served_spans: set[Span] = set()
    covered_roots: set[str] = set()
    spare = leaning = sums = 0
    for root in dict.fromkeys(value.root for value in answer.values):
        step_spans, any_part, any_sum, wordless = set[Span](), False, False, 0
        for step in _dependencies(root, steps_by_name):
            share = _part_coverage(request_parts, step)
            step_spans, any_part, any_sum = (
                step_spans | share.spans,
                any_part or share.any_part,
                any_sum or share.any_sum,
            )
            if share == _PartCoverage() and step.name not in covered_roots:
                covered_roots.add(step.name)
                rests = any(reference.root in steps_by_name for reference in step.references)
                leaning, wordless = leaning + rests, wordless + (not rests)
        served_spans |= step_spans
        sums += any_sum
        spare += wordless + any_part if step_spans or any_part or any_sum else max(wordless, 1)
    texts = tuple(
        request_parts.text[start:end] for start, end in request_parts.spans if (start, end) not in served_spans
    )
    back, able = ({part for part in texts if search(part)} for search in (_BACK_REFERENCE.search, has_number))
    spare += min(min(leaning, len(back)) + min(sums, len(able)), len(back | able))
    return UncoveredParts(texts, spare) if len(texts) > spare else None


@dataclass(frozen=True, slots=True)
class _PartCoverage:
    """The parts of a request that a step serves."""

    spans: frozenset[Span] = frozenset()
    any_part: bool = False
    """Whether it received the whole request and serves one unknown part."""
    any_sum: bool = False
    """Whether that part is one with a number."""


def _part_coverage(request_parts: RequestParts, step: PlanStep) -> _PartCoverage:
    """Returns the parts whose words a step received.

    A computing capability cannot serve words without a number, unless they continue the computation of an earlier part
    (`Then: convert it to cents.`). Given several parts, it serves those with a number. Given the whole request, it
    serves one part if several parts have a number, or none has.
    """
    texts, is_whole = _given_texts(step)
    spans = (
        frozenset(request_parts.spans)
        if is_whole
        else frozenset(span for text in texts for span in _overlapping_parts(request_parts, text))
    )
    if step.capability not in request_parts.computing:
        return _PartCoverage(any_part=True) if is_whole else _PartCoverage(spans)
    texts_by_span = {span: request_parts.text[slice(*span)] for span in spans}
    sums = [span for span in spans if has_number(texts_by_span[span])]
    if is_whole and len(sums) != 1:
        return _PartCoverage(any_sum=True)
    return _PartCoverage(
        frozenset(
            span
            for span in spans
            if not sums or span in sums or (span > min(sums) and _FOLLOW_UP_COMPUTATION.search(texts_by_span[span]))
        )
    )


def received_whole_request(step: PlanStep) -> bool:
    """Whether a step received the whole request."""
    return _given_texts(step)[1]


def _dependencies(root: str, steps_by_name: Mapping[str, PlanStep]) -> Iterator[PlanStep]:
    """A step and all steps that it depends on."""
    line = [root]
    for name in line:
        if (step := steps_by_name.get(name)) is not None:
            yield step
            line += [
                root_name
                for root_name in dict.fromkeys(reference.root for reference in step.references)
                if root_name in steps_by_name and root_name not in line
            ]


def _given_texts(step: PlanStep) -> tuple[list[str], bool]:
    """Texts that a step received, and whether it received the whole request."""
    texts, is_whole = list[str](), False
    for value in [*step.arguments.values(), step.each]:
        match value:
            case PlanLiteral(str() as text):
                texts.append(text)
            case PlanLiteral(list() as items):
                texts += [item for item in items if isinstance(item, str)]
            case PlanReference() as reference:
                is_whole = is_whole or (reference.root, *reference.path) == (INPUT, REQUEST)
            case _:
                pass
    return texts, is_whole


def _overlapping_parts(request_parts: RequestParts, text: str) -> Iterator[Span]:
    """Parts that overlap a text."""
    at = request_parts.text.find(text) if text.strip() else -1
    while at >= 0:
        yield from ((start, end) for start, end in request_parts.spans if start < at + len(text) and at < end)
        at = request_parts.text.find(text, at + 1)
