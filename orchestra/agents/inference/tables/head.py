"""The head of a reader of tables: its outputs, and what they say of places, rows, columns and ways."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from orchestra.agents.inference.tables.encoding import Frame
from orchestra.agents.inference.tables.operations import SCALES, WAYS
from orchestra.text.numbers.sort_keys import BOUNDS

ROLES: Final = ("cells", "first", "second")
"""What a place may be: one of those that are read off or summed up, or one of two figures. Each has five logits: of the place itself, of
the name of its row and the rest of it, of the head of its column and the rest of that."""
NAMES: Final = (
    *(f"{role}.{part}" for role in ROLES for part in ("own", "label", "body", "head", "below")),
    *(f"{role}.{part}" for role in ("asked", "by", "bounded", "also") for part in ("head", "below")),
    *(f"rows.{part}" for part in ("label", "body")),
    "begin",
    "end",
    *("limit", "also.limit"),
    *(f"{also}bound.{bound}" for also in ("", "also.") for bound in ("none", *BOUNDS)),
    *(f"way.{way}" for way in WAYS),
    *(f"scale.{scale}" for scale in SCALES),
)
"""The outputs of the head."""
AT: Final = {name: number for number, name in enumerate(NAMES)}
A = TypeVar("A")


class Logits(NamedTuple, Generic[A]):
    """What the head says of a sheet."""

    ways: A
    scales: A
    cells: A
    """Of each place."""
    first: A
    second: A
    rows: A
    """Of each row of the table."""
    asked: A
    """Of each column: that it is read off."""
    by: A
    """Of each column: that rows are put in order by it."""
    begin: A
    """Of each token."""
    end: A
    bounded: A
    """Of each column: that rows count by a figure of the question that it is compared with."""
    limits: A
    """Of each place: that it is that figure."""
    bounds: A
    """That there is no such condition, and of each of `BOUNDS`."""
    also: A
    """And of a second condition: of each column,"""
    also_limits: A
    """of each place,"""
    also_bounds: A
    """and that there is none, and of each of `BOUNDS`."""


def weighed(read: Any, frame: Frame[Any], together: Callable[[Any], Any]) -> Logits[Any]:
    """The logits of a sheet from the head's outputs, (tokens, outputs); of arrays of numpy and of torch alike.

    `together` is the logarithm of the sum of exponentials over the first axis: any token may tell that there is a scale, as `%` does.
    """
    places = frame.spots @ read
    marks = (frame.starts @ read)[0]

    def of(name: str) -> Any:
        return places[:, AT[name]]

    def rows(name: str) -> Any:
        return frame.label @ of(f"{name}.label") + frame.body @ of(f"{name}.body")

    def columns(name: str) -> Any:
        return frame.head @ of(f"{name}.head") + frame.below @ of(f"{name}.below")

    def role(name: str) -> Any:
        return of(f"{name}.own") + frame.in_row @ rows(name) + frame.in_column @ columns(name)

    bounds, also, ways, scales = AT["bound.none"], AT["also.bound.none"], AT[f"way.{WAYS[0]}"], AT[f"scale.{SCALES[0]}"]
    return Logits(
        ways=marks[ways:scales],
        scales=marks[scales:] + together(read[:, scales:]),
        cells=role("cells"),
        first=role("first"),
        second=role("second"),
        rows=rows("rows"),
        asked=columns("asked"),
        by=columns("by"),
        begin=read[:, AT["begin"]],
        end=read[:, AT["end"]],
        bounded=columns("bounded"),
        limits=of("limit"),
        bounds=marks[bounds:also],
        also=columns("also"),
        also_limits=of("also.limit"),
        also_bounds=marks[also:ways],
    )
