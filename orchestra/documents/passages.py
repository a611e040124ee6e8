"""Passages: splits documents into parts that a small model can read, each with its exact position."""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from operator import attrgetter

from orchestra.schema.builtin_models import Document, Location, Passage

MAX_PASSAGE = 1_200
"""Maximum characters of a passage if a sentence ends in time: about 300 tokens, a small model's reading span."""
MIN_PARAGRAPH = 80
"""A paragraph with fewer characters, such as a heading, is joined with the next one."""

_PARAGRAPH = re.compile(r"\S(?:.*?\S)??(?=\s*\n\s*\n|\s*\Z)", re.DOTALL)
_ABBREVIATION = re.compile(r"(?:\b(?:[A-Za-z]|Dr|Mr|Mrs|Ms|St|Prof|Jr|Sr|vs|cf|No|ca|etc|approx))\Z")
_SENTENCE_END = re.compile(r"[.!?]['\")\]\u2019\u201d]*\s+|[\u3002\uff01\uff1f]|\n")


def split_passages(documents: Sequence[Document]) -> list[Passage]:
    """Returns the passages of all documents, in order; `text == document.text[start:end]` for each."""
    return [
        Passage(
            source=document.source,
            text=document.text[start:end],
            start=start,
            end=end,
            locations=locations_in(document.locations, start, end),
        )
        for document in documents
        for start, end in _passage_spans(document.text)
    ]


_START = attrgetter("start")


def locations_in(locations: Sequence[Location], start: int, end: int) -> list[Location]:
    """Returns the locations that a span of a document overlaps, in order."""
    first = max(0, bisect_right(locations, start, key=_START) - 1)
    return list(locations[first : bisect_left(locations, end, key=_START)])


def location_at(locations: Sequence[Location], start: int) -> str:
    """Returns the name of the location in which a character stands; empty if there is none."""
    at = bisect_right(locations, start, key=_START)
    return locations[at - 1].name if at else ""


def sentence_ends(text: str) -> list[int]:
    """Returns the positions where sentences end, and the end marks with the white space after them, in order."""
    return list(_sentence_ends(text, 0, len(text)))


def sentence_span(text: str, start: int, end: int, ends: Sequence[int] = ()) -> tuple[int, int]:
    """Returns the position of the sentences that a span of a text overlaps, without white space at their ends.

    Args:
        ends: The result of `sentence_ends`, if there are many spans of one text. It saves reading the text before.
    """
    before = bisect_right(ends, start)
    previous_end = ends[before - 1] if before else 0
    first = max(_sentence_ends(text, previous_end, start), default=previous_end)
    last = next(_sentence_ends(text, end, len(text)), len(text))
    while first < start and text[first].isspace():
        first += 1
    return first, max(end, first + len(text[first:last].rstrip()))


def _sentence_ends(text: str, start: int, stop: int) -> Iterator[int]:
    """Returns the ends of the sentences in a part of a text."""
    return (
        match.end() for match in _SENTENCE_END.finditer(text, start, stop) if not _is_abbreviation(text, match.start())
    )


def _is_abbreviation(text: str, stop: int) -> bool:
    """Whether a full stop does not end a sentence: after a single letter, or a word such as `Dr`."""
    return text[stop] == "." and _ABBREVIATION.search(text, max(0, stop - 6), stop) is not None


def _passage_spans(text: str) -> Iterator[tuple[int, int]]:
    open_span: tuple[int, int] | None = None
    for paragraph in _PARAGRAPH.finditer(text):
        start, end = paragraph.span()
        if open_span is not None and end - open_span[0] <= MAX_PASSAGE:
            start = open_span[0]
        elif open_span is not None:
            yield open_span
        open_span = None
        if end - start < MIN_PARAGRAPH:
            open_span = (start, end)
        else:
            yield from _split_long(text, start, end)
    if open_span is not None:
        yield open_span


def _split_long(text: str, start: int, end: int) -> Iterator[tuple[int, int]]:
    """Splits a long paragraph at the ends of sentences, or at white space, or at the limit."""
    while end - start > MAX_PASSAGE:
        window = text[start : start + MAX_PASSAGE]
        ends = [match.end() for match in _SENTENCE_END.finditer(window) if match.end() > MAX_PASSAGE // 3]
        at = ends[-1] if ends else max(window.rfind(" ") + 1, 0) or MAX_PASSAGE
        stop = start + len(window[:at].rstrip())
        if stop > start:
            yield start, stop
        start += at
        while start < end and text[start].isspace():
            start += 1
    if start < end:
        yield start, end
