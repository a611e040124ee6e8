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

    def output_named(name: str) -> Any:
        return places[:, OUTPUT_INDEX[name]]

    def row_logits(name: str) -> Any:
        return pooling.row_label @ output_named(f"{name}.label") + pooling.row_body @ output_named(f"{name}.body")

    def column_logits(name: str) -> Any:
        return pooling.column_header @ output_named(f"{name}.head") + pooling.column_body @ output_named(
            f"{name}.below"
        )

    def role_logits(name: str) -> Any:
        return output_named(f"{name}.own") + pooling.in_row @ row_logits(name) + pooling.in_column @ column_logits(name)

    bounds, also, operations, scales = (
        OUTPUT_INDEX["bound.none"],
        OUTPUT_INDEX["also.bound.none"],
        OUTPUT_INDEX[f"way.{OPERATIONS[0]}"],
        OUTPUT_INDEX[f"scale.{SCALES[0]}"],
    )
    return TableLogits(
        operations=start_outputs[operations:scales],
        scales=start_outputs[scales:] + log_sum_exp(read[:, scales:]),
        cells=role_logits("cells"),
        first=role_logits("first"),
        second=role_logits("second"),
        rows=row_logits("rows"),
        answer_columns=column_logits("asked"),
        order_columns=column_logits("by"),
        begin=read[:, OUTPUT_INDEX["begin"]],
        end=read[:, OUTPUT_INDEX["end"]],
        condition_columns=column_logits("bounded"),
        limits=output_named("limit"),
        bounds=start_outputs[bounds:also],
        extra_columns=column_logits("also"),
        extra_limits=output_named("also.limit"),
        extra_bounds=start_outputs[also:operations],
    )
