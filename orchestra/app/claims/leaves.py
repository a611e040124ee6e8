"""Parts of a value: those that say something, each with the way to it, and the records that they stand in. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.app.claims.lineage import PathSteps
from orchestra.core.paths import format_path
from orchestra.schema.content import content_parts

_INDICES = re.compile(r"(?:\[\d+\])+\Z")


@dataclass(frozen=True, slots=True)
class Leaf:
    """A part of a value that holds no other: its steps and its path, and the path of the record that it stands in."""

    steps: PathSteps
    path: str
    value: Any

    @property
    def record(self) -> str:
        """The path of the record that it stands in."""
        return record_path(self.path)


def leaves(value: Any) -> Iterator[Leaf]:
    """The parts of a value that say something."""
    return (Leaf(steps, format_path(steps), part) for steps, part in content_parts(value))


def records(value: Any) -> Iterator[tuple[PathSteps, Mapping[str, Any]]]:
    """The records in a value, containers before what they hold, each with the steps that lead to it."""
    line: list[tuple[PathSteps, Any]] = [((), value)]
    while line:
        steps, here = line.pop()
        if isinstance(here, Mapping):
            yield steps, here
            line += [((*steps, str(key)), part) for key, part in reversed(list(here.items()))]
        elif isinstance(here, Sequence) and not isinstance(here, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(here)))]


def list_path(path: str) -> str:
    """The path of the list that a part is an item of, through the lists between; that of another part as it is."""
    return _INDICES.sub("", path)


def record_path(path: str) -> str:
    """The path of the record that a part stands in, through the lists between; empty for the whole value."""
    return list_path(path).rpartition(".")[0]
