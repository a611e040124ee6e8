"""Sentences of documents with wrapped lines: a line break within a paragraph is a space.

A break ends a sentence only before or after an empty line, before an item of a list, a heading, a row of a table or a
line such as `From: name`, and after a short line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from orchestra.documents.passages import sentence_ends

MIN_WRAPPED = 50
"""Characters of a line that may have been wrapped. A shorter one ends by itself."""
_NEW_BLOCK = re.compile(r"\s*(?:$|[-*•–#|>]|\(?\d{1,2}[.)]\s|[a-z]\)\s|[A-Z][\w-]{1,20}:\s)")


def sentence_spans(text: str) -> list[tuple[int, int]]:
    """Returns the positions of the sentences of a text, without white space at their ends, in order."""
    ends = [end for end in sentence_ends(text) if not _is_wrap(text, end) and not _is_number_sign(text, end)]
    spans = []
    for start, end in zip([0, *ends], [*ends, len(text)], strict=True):
        piece = text[start:end]
        begin = start + len(piece) - len(piece.lstrip())
        stop = start + len(piece.rstrip())
        if stop > begin:
            spans.append((begin, stop))
    return spans


def surrounding_span(spans: Sequence[tuple[int, int]], start: int, end: int) -> tuple[int, int]:
    """Returns the position of the sentences that a part of the text overlaps."""
    over = [span for span in spans if span[0] < end and span[1] > start]
    return (over[0][0], over[-1][1]) if over else (start, end)


def unwrapped(text: str) -> str:
    """A text on one line."""
    return " ".join(text.split())


def _is_number_sign(text: str, end: int) -> bool:
    """Whether a full stop belongs to `no.` before a number."""
    return (
        text[end : end + 1].isdigit()
        and re.search(r"\b(?:no|nr|art|sec|p|tel)\.\s+$", text[max(0, end - 8) : end], re.IGNORECASE) is not None
    )


def _is_wrap(text: str, end: int) -> bool:
    """Whether the end of a sentence is only the end of a wrapped line."""
    mark = end - 1
    if mark < 0 or text[mark] != "\n":
        return False
    before = text[:mark].rstrip(" \t\r")
    if before.endswith((".", "!", "?", ":", "\n")) or not before:
        return False
    line = before.rpartition("\n")[2]
    after = text[end:].partition("\n")[0]
    indented = line[:1] in " \t" or re.match(r"\s*(?:[-*•–]|\(?\d{1,2}[.)])\s", line) is not None
    return (len(line) >= MIN_WRAPPED or indented) and not line.startswith(("#", "|")) and not _NEW_BLOCK.match(after)


def numbered_sentences(text: str) -> Iterator[tuple[int, int, str]]:
    """Yields the sentences of a text with their positions, each on one line."""
    for start, end in sentence_spans(text):
        yield start, end, unwrapped(text[start:end])
