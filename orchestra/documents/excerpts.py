"""Excerpts: the passages that a search has found, as short documents."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.schema.builtin_models import Document, Location, Passage

SEPARATOR = "\n\n"


def make_excerpts(passages: Sequence[Passage]) -> list[Document]:
    """Returns a document for each source, the one of the best passage first. It has the passages in the order of the
    source; locations are those of the source.
    """
    by_source: dict[str, list[Passage]] = {}
    for passage in passages:
        by_source.setdefault(passage.source, []).append(passage)
    return [_excerpt(source, source_passages) for source, source_passages in by_source.items()]


def _excerpt(source: str, passages: Sequence[Passage]) -> Document:
    texts: list[str] = []
    locations: list[Location] = []
    length = 0
    for passage in sorted(passages, key=lambda other_passage: other_passage.start):
        if texts:
            length += len(SEPARATOR)
        for location in passage.locations:
            start = length + max(0, location.start - passage.start)
            if not locations or locations[-1].name != location.name:
                locations.append(Location(start=start, name=location.name))
        texts.append(passage.text)
        length += len(passage.text)
    return Document(source=source, text=SEPARATOR.join(texts), locations=locations)
