"""Parts of a value: those that say something, each with the way to it, and the records that they stand in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from orchestra.lineage import Steps
from orchestra.paths import written
from orchestra.places import is_cell, is_citation
from orchestra.values.fields import EXPRESSION, OF_THE_ANSWER, is_share

_INDICES = re.compile(r"(?:\[\d+\])+\Z")
Key: TypeAlias = tuple[type, Any]


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part of a value that holds no other: its steps and its path, and the path of the record that it stands in."""

    steps: Steps
    path: str
    value: Any

    @property
    def record(self) -> str:
        """The path of the record that it stands in."""
        return record_of(self.path)


def leaves(value: Any) -> Iterator[Leaf]:
    """The parts of a value that say something: no nulls and empty texts, no evidence, no expressions, no scores."""
    line: list[tuple[Steps, Any]] = [((), value)]
    while line:
        steps, here = line.pop()
        if isinstance(here, Mapping):
            if is_citation(here) or is_cell(here):
                continue
            passage = {"text", "source", "start", "end"} <= here.keys()
            for key, part in reversed(list(here.items())):
                if (key in OF_THE_ANSWER and is_share(part)) or (key == EXPRESSION and isinstance(part, str)):
                    continue
                if not passage or key not in ("source", "start", "end"):
                    line.append(((*steps, str(key)), part))
        elif isinstance(here, Sequence) and not isinstance(here, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(here)))]
        elif here is not None and here != "":
            yield Leaf(steps, written(steps), here)


def records(value: Any) -> Iterator[tuple[Steps, Mapping[str, Any]]]:
    """The records in a value, containers before what they hold, each with the steps that lead to it."""
    line: list[tuple[Steps, Any]] = [((), value)]
    while line:
        steps, here = line.pop()
        if isinstance(here, Mapping):
            yield steps, here
            line += [((*steps, str(key)), part) for key, part in reversed(list(here.items()))]
        elif isinstance(here, Sequence) and not isinstance(here, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(here)))]


def list_of(path: str) -> str:
    """The path of the list that a part is an item of, through the lists between; that of another part as it is."""
    return _INDICES.sub("", path)


def record_of(path: str) -> str:
    """The path of the record that a part stands in, through the lists between; empty for the whole value."""
    return list_of(path).rpartition(".")[0]


def said_as(value: Any) -> Key | None:
    """The same for two scalars that say the same: texts up to case and spacing. None for what is no scalar, or not even itself (NaN)."""
    if isinstance(value, str):
        return str, " ".join(value.casefold().split())
    return None if isinstance(value, Mapping | Sequence) or value != value else (type(value), value)
