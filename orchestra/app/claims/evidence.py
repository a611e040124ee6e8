"""Backing: what the parts of a node's value rest on, found by where they stand in it. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from functools import cached_property
from itertools import chain
from operator import itemgetter
from typing import Any

from orchestra.app.claims.leaves import list_of, record_of, records
from orchestra.app.claims.lineage import Steps
from orchestra.app.claims.locations import Place, TableCell
from orchestra.core.paths import written
from orchestra.schema.fields import EXPRESSION


@dataclass(frozen=True, slots=True)
class Cited:
    """Evidence in a node's value or in an output, and the path at which it stands there."""

    path: str
    support: Place
    steps: Steps = ()
    alone: bool = False
    """Whether it supports that field and no other beside it, as the place of a number does; a quote supports its record."""


@dataclass(slots=True)
class _Record:
    """The evidence in one record, numbered as it stands there."""

    all: list[tuple[int, Cited]] = field(default_factory=list)
    at: dict[str, list[tuple[int, Cited]]] = field(default_factory=dict)
    """By its path."""
    others: dict[str, list[tuple[int, Cited]]] = field(default_factory=dict)
    """By the path of a list: what speaks for the items of that list, and is none of them."""

    def of(self, path: str) -> Iterable[tuple[int, Cited]]:
        """What speaks for a part of the record: not the evidence of another number, nor that of another item of a list."""
        same = list_of(path)
        if (others := self.others.get(same)) is None:
            others = [(at, one) for at, one in self.all if not one.alone and list_of(one.path) != same]
            self.others[same] = others
        own = self.at.get(path, [])
        return heapq.merge(own, others, key=itemgetter(0)) if own and others else own or others


class Shelf:
    """The evidence in one value."""

    def __init__(self, cited: Sequence[Cited]) -> None:
        self.cited = cited
        self._records: dict[str, _Record] = {}
        for at, one in enumerate(cited):
            record = self._records.setdefault(record_of(one.path), _Record())
            record.all.append((at, one))
            record.at.setdefault(one.path, []).append((at, one))

    def at(self, path: str) -> list[Place]:
        """The evidence found at a path, without what supports that field alone."""
        record = self._records.get(record_of(path))
        return [] if record is None else [one.support for _, one in record.at.get(path, ()) if not one.alone]

    def beside(self, path: str) -> Iterable[Cited]:
        """What stands nearest: in the record of a part, or in one around it; that in records beside it is theirs."""
        around = record_of(path)
        while True:
            if (record := self._records.get(around)) is not None and (own := record.of(path)):
                return (one for _, one in own)
            if not around:
                return []
            around = record_of(around)

    def near(self, path: str) -> Iterable[Cited]:
        """The same; a part of the outermost record, where that has no evidence of its own, rests on all in the value."""
        return self.beside(path) or ([] if record_of(path) else [one for one in self.cited if not one.alone])


class Statement:
    """A node's value, with what its checks found (`found`) and what it cites itself (`cited`)."""

    def __init__(self, value: Any, found: Sequence[Cited], cited: Sequence[Cited]) -> None:
        self.value, self.found, self.cited = value, Shelf(found), Shelf(cited)

    def places(self, path: str) -> Iterable[Place]:
        """Where the words stand that a part of it rests on."""
        return (one.support for one in chain(self.found.near(path), self.cited.near(path)))

    def expression(self, path: str) -> str | None:
        """The expression that stands beside a part."""
        found = self._records.get(record_of(path), {}).get(EXPRESSION)
        return found if isinstance(found, str) else None

    def operand(self, number: Fraction) -> Place | None:
        """The first place in the evidence where a number stands, whatever its sign."""
        return self._numbers.get(abs(number))

    @cached_property
    def _records(self) -> Mapping[str, Mapping[str, Any]]:
        found: dict[str, Mapping[str, Any]] = {}
        for steps, record in records(self.value):
            found.setdefault(written(steps), record)
        return found

    @cached_property
    def _numbers(self) -> Mapping[Fraction, Place]:
        from orchestra.text.numbers.numbers import numbers

        found: dict[Fraction, Place] = {}
        for place in (one.support for one in chain(self.found.cited, self.cited.cited)):
            for number in numbers(place.text if isinstance(place, TableCell) else place.quote, words=True):
                found.setdefault(abs(number.value), place)
                found.setdefault(abs(number.plain), place)
        return found
