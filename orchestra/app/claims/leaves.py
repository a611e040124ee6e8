"""The leaf values of a value, each with its path and the records that contain it. Pure."""

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
    """A leaf value: its steps and path, and the path of the record that contains it."""

    steps: PathSteps
    path: str
    value: Any

    @property
    def record(self) -> str:
        """The path of the record that contains it."""
        return record_path(self.path)


def leaves(value: Any) -> Iterator[Leaf]:
    """Returns the leaf values that say something."""
    return (Leaf(steps, format_path(steps), part) for steps, part in content_parts(value))


def records(value: Any) -> Iterator[tuple[PathSteps, Mapping[str, Any]]]:
    """Yields the records in a value, containers first, each with its steps."""
    line: list[tuple[PathSteps, Any]] = [((), value)]
    while line:
        steps, subtree = line.pop()
        if isinstance(subtree, Mapping):
            yield steps, subtree
            line += [((*steps, str(key)), part) for key, part in reversed(list(subtree.items()))]
        elif isinstance(subtree, Sequence) and not isinstance(subtree, str):
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(subtree)))]


def list_path(path: str) -> str:
    """Returns the path of the list of which a part is an item, through nested lists; any other path unchanged."""
    return _INDICES.sub("", path)


def record_path(path: str) -> str:
    """Returns the path of the record that contains a part, through nested lists; empty for the whole value."""
    return list_path(path).rpartition(".")[0]
