"""The evidence of the parts of a node's value, found by their paths. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

from orchestra.app.claims.leaves import list_path, record_path, records
from orchestra.app.claims.lineage import PathSteps
from orchestra.app.claims.locations import EvidenceLocation, TableCell
from orchestra.core.paths import format_path
from orchestra.schema.fields import EXPRESSION_FORMAT


@dataclass(frozen=True, slots=True)
class CitedEvidence:
    """Evidence in a node's value or in an output, with its path there."""

    path: str
    support: EvidenceLocation
    steps: PathSteps = ()
    field_only: bool = False
    """Whether it supports that field only, as the location of a number does; a quote supports its record."""


@dataclass(slots=True)
class _RecordEvidence:
    """The evidence in one record, numbered in order."""

    all: list[tuple[int, CitedEvidence]] = field(default_factory=list)
    by_path: dict[str, list[tuple[int, CitedEvidence]]] = field(default_factory=dict)
    """By path."""
    by_list: dict[str, list[tuple[int, CitedEvidence]]] = field(default_factory=dict)
    """By the path of a list: what supports the items of that list, and is not one of them."""

    def for_path(self, path: str) -> Iterable[tuple[int, CitedEvidence]]:
        """Returns the evidence of a part of the record, without that of another number or of another item of a list."""
        list_key = list_path(path)
        if (other_evidence := self.by_list.get(list_key)) is None:
            other_evidence = [
                (at, cited_evidence)
                for at, cited_evidence in self.all
                if not cited_evidence.field_only and list_path(cited_evidence.path) != list_key
            ]
            self.by_list[list_key] = other_evidence
        record_evidence = self.by_path.get(path, [])
        return (
            heapq.merge(record_evidence, other_evidence, key=itemgetter(0))
            if record_evidence and other_evidence
            else record_evidence or other_evidence
        )


class EvidenceByPath:
    """The evidence in one value."""

    def __init__(self, cited: Sequence[CitedEvidence]) -> None:
        self.cited = cited
        self._records: dict[str, _RecordEvidence] = {}
        for at, cited_evidence in enumerate(cited):
            record = self._records.setdefault(record_path(cited_evidence.path), _RecordEvidence())
            record.all.append((at, cited_evidence))
            record.by_path.setdefault(cited_evidence.path, []).append((at, cited_evidence))

    def at(self, path: str) -> list[EvidenceLocation]:
        """Returns the evidence at a path, without what supports that field only."""
        record = self._records.get(record_path(path))
        return (
            []
            if record is None
            else [
                cited_evidence.support
                for _, cited_evidence in record.by_path.get(path, ())
                if not cited_evidence.field_only
            ]
        )

    def nearest(self, path: str) -> Iterable[CitedEvidence]:
        """Returns the nearest evidence: in the record of a part, or in a record around it, without records beside
        it.
        """
        around = record_path(path)
        while True:
            if (record := self._records.get(around)) is not None and (record_evidence := record.for_path(path)):
                return (cited_evidence for _, cited_evidence in record_evidence)
            if not around:
                return []
            around = record_path(around)

    def nearest_or_all(self, path: str) -> Iterable[CitedEvidence]:
        """As `nearest`; a part of the outermost record without own evidence rests on all evidence in the value."""
        return self.nearest(path) or (
            []
            if record_path(path)
            else [cited_evidence for cited_evidence in self.cited if not cited_evidence.field_only]
        )


class Statement:
    """A node's value, with what its checks found (`found`) and what it cites (`cited`)."""

    def __init__(self, value: Any, found: Sequence[CitedEvidence], cited: Sequence[CitedEvidence]) -> None:
        self.value, self.found, self.cited = value, EvidenceByPath(found), EvidenceByPath(cited)

    def places(self, path: str) -> Iterable[EvidenceLocation]:
        """Returns the locations of the words on which a part rests."""
        return (
            cited_evidence.support
            for cited_evidence in chain(self.found.nearest_or_all(path), self.cited.nearest_or_all(path))
        )

    def expression(self, path: str) -> str | None:
        """Returns the expression beside a part."""
        value = self._records.get(record_path(path), {}).get(EXPRESSION_FORMAT)
        return value if isinstance(value, str) else None

    def operand(self, number: Fraction) -> EvidenceLocation | None:
        """Returns the first location of a number in the evidence, regardless of its sign."""
        return self._number_places.get(abs(number))

    @cached_property
    def _records(self) -> Mapping[str, Mapping[str, Any]]:
        fields_by_path: dict[str, Mapping[str, Any]] = {}
        for steps, record in records(self.value):
            fields_by_path.setdefault(format_path(steps), record)
        return fields_by_path

    @cached_property
    def _number_places(self) -> Mapping[Fraction, EvidenceLocation]:
        from orchestra.text.numbers.numbers import find_numbers

        places: dict[Fraction, EvidenceLocation] = {}
        for place in (cited_evidence.support for cited_evidence in chain(self.found.cited, self.cited.cited)):
            for number in find_numbers(place.text if isinstance(place, TableCell) else place.quote, words=True):
                places.setdefault(abs(number.value), place)
                places.setdefault(abs(number.plain), place)
        return places
