"""The head of a table reader: its outputs, and the logits of locations, rows, columns and operations."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, NamedTuple, TypeVar

from orchestra.agents.inference.tables.encoding import PoolingMatrices
from orchestra.agents.inference.tables.operations import OPERATIONS, SCALES
from orchestra.text.numbers.sort_keys import BOUNDS

ROLES: Final = ("cells", "first", "second")
"""Roles of a location: read or aggregated, or one of two figures. Each has five logits: of the location, of the name of
its row, of the rest of the row, of the header of its column, and of the rest of the column.
"""
OUTPUT_NAMES: Final = (
    *(f"{role}.{part}" for role in ROLES for part in ("own", "label", "body", "head", "below")),
    *(f"{role}.{part}" for role in ("asked", "by", "bounded", "also") for part in ("head", "below")),
    *(f"rows.{part}" for part in ("label", "body")),
    "begin",
    "end",
    *("limit", "also.limit"),
    *(f"{also}bound.{bound}" for also in ("", "also.") for bound in ("none", *BOUNDS)),
    *(f"way.{way}" for way in OPERATIONS),
    *(f"scale.{scale}" for scale in SCALES),
)
"""The outputs of the head."""
OUTPUT_INDEX: Final = {name: number for number, name in enumerate(OUTPUT_NAMES)}
A = TypeVar("A")


class TableLogits(NamedTuple, Generic[A]):
    """The logits of an encoded table."""

    operations: A
    scales: A
    cells: A
    """Of each location."""
    first: A
    second: A
    rows: A
    """Of each row of the table."""
    answer_columns: A
    """Of each column: that it is read."""
    order_columns: A
    """Of each column: that rows are ordered by it."""
    begin: A
    """Of each token."""
    end: A
    condition_columns: A
    """Of each column: that the condition compares it."""
    limits: A
    """Of each location: that it is the figure of the condition."""
    bounds: A
    """Of no condition, and of each of `BOUNDS`."""
    extra_columns: A
    """Of the second condition: of each column,"""
    extra_limits: A
    """of each location,"""
    extra_bounds: A
    """and of no second condition, and of each of `BOUNDS`."""


def table_logits(read: Any, pooling: PoolingMatrices[Any], log_sum_exp: Callable[[Any], Any]) -> TableLogits[Any]:
    """The logits of an encoded table from the head's outputs, (tokens, outputs); for arrays of numpy and of torch.

    `log_sum_exp` works over the first axis, because any token may state that there is a scale, as `%` does.
    """
    places = pooling.locations @ read
    start_outputs = (pooling.starts @ read)[0]

    def of(name: str) -> Any:
        return places[:, OUTPUT_INDEX[name]]

    def rows(name: str) -> Any:
        return pooling.row_label @ of(f"{name}.label") + pooling.row_body @ of(f"{name}.body")

    def columns(name: str) -> Any:
        return pooling.column_header @ of(f"{name}.head") + pooling.column_body @ of(f"{name}.below")

    def role(name: str) -> Any:
        return of(f"{name}.own") + pooling.in_row @ rows(name) + pooling.in_column @ columns(name)

    bounds, also, operations, scales = (
        OUTPUT_INDEX["bound.none"],
        OUTPUT_INDEX["also.bound.none"],
        OUTPUT_INDEX[f"way.{OPERATIONS[0]}"],
        OUTPUT_INDEX[f"scale.{SCALES[0]}"],
    )
    return TableLogits(
        operations=start_outputs[operations:scales],
        scales=start_outputs[scales:] + log_sum_exp(read[:, scales:]),
        cells=role("cells"),
        first=role("first"),
        second=role("second"),
        rows=rows("rows"),
        answer_columns=columns("asked"),
        order_columns=columns("by"),
        begin=read[:, OUTPUT_INDEX["begin"]],
        end=read[:, OUTPUT_INDEX["end"]],
        condition_columns=columns("bounded"),
        limits=of("limit"),
        bounds=start_outputs[bounds:also],
        extra_columns=columns("also"),
        extra_limits=of("also.limit"),
        extra_bounds=start_outputs[also:operations],
    )
