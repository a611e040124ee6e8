"""Independent rows: one row for each input and each group, drawn by a seed.

A bound for independent answers does not hold for rows in families: ten questions about one passage, or forty copies of
one row, carry little more evidence than one. Taking one row of each is valid under any dependence within a family.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match
from orchestra.learn.data.dataset import fingerprint
from orchestra.learn.evaluation.rows import EvaluationRow, EvaluationSet
from orchestra.schema.strict_json import canonical, digest

MIN_SHARED_BYTES = 40
"""Rows that share a value of at least this many bytes of JSON are assumed to be related."""
MAX_REPEATED_SHARE = 0.05
"""An input with at most this share of repeated values counts as distinct."""


@dataclass(frozen=True, slots=True)
class IndependentRows:
    """Rows without their relatives."""

    test: EvaluationSet
    duplicates: int
    """Number of rows left out because another row has the same input."""
    group_duplicates: int
    """Number of rows left out because another row has the same group."""
    group_input: str = ""
    """The input that defines the groups; empty if the rows name their groups."""
    repeated_input: RepeatedInput | None = None
    """An input that is still repeated in these rows."""


@dataclass(frozen=True, slots=True)
class RepeatedInput:
    """An input for which several rows have the same long text, list or record."""

    name: str
    distinct_values: int
    """Number of distinct values."""
    rows: int
    """Number of rows."""


def select_independent(test: EvaluationSet, card: Card, seed: int, field: str = "") -> IndependentRows:
    """Selects one row for each input and each group.

    The group is the value of the input `field`. Without `field` it is the `group` of the row, or else the evidence, if
    the card names one.

    Raises:
        InputError: V026 if `field` is not an input of the agent.
    """
    properties = card.input_schema.get("properties", {})
    if field and field not in properties:
        near = closest_match(field, properties)
        raise InputError(
            "V026",
            f"{card.name} has no input {field!r} to group by",
            hint=f"--group {near or next(iter(properties), 'NAME')}",
        )

    unique_rows = _draw_one_per_key(test.rows, lambda row: fingerprint(row.input), seed)
    group_rows = _draw_one_per_key(unique_rows, lambda row: group_key(row, card, field), seed)
    copies, group_count = len(test.rows) - len(unique_rows), len(unique_rows) - len(group_rows)
    group_field = field or ("" if any(row.group for row in test.rows) else card.evidence or "")
    return IndependentRows(
        replace(test, rows=group_rows), copies, group_count, group_field, _find_repeated_input(group_rows, properties)
    )


def _find_repeated_input(rows: list[EvaluationRow], inputs: Iterable[str]) -> RepeatedInput | None:
    """Returns the input with the fewest distinct values, if these are long and clearly fewer than the rows. An input
    with one value in all rows is ignored.
    """
    repeated_inputs: list[RepeatedInput] = []
    for name in inputs:
        values = [
            fingerprint(row.input[name])
            for row in rows
            if name in row.input and len(canonical(row.input[name])) >= MIN_SHARED_BYTES
        ]
        if 1 < (different := len(set(values))) < (1 - MAX_REPEATED_SHARE) * len(values):
            repeated_inputs.append(RepeatedInput(name, different, len(values)))
    return min(
        repeated_inputs, key=lambda repeated_input: repeated_input.distinct_values / repeated_input.rows, default=None
    )


def group_key(row: EvaluationRow, card: Card, field: str = "") -> str:
    """Returns the group of a row: the value of its input `field`; without it the `group` of the row, or else its
    evidence, if the card names one. A row without any of these is its own group.
    """
    if not field and row.group:
        return row.group
    by = field or card.evidence or ""
    return fingerprint(row.input[by]) if by in row.input else fingerprint(row.input)


def _draw_one_per_key(
    rows: Iterable[EvaluationRow], key: Callable[[EvaluationRow], str], seed: int
) -> list[EvaluationRow]:
    """Returns one row for each key, in order. Rows are drawn by id, so the result depends neither on the order nor on
    other rows.
    """
    rows_by_key: dict[str, tuple[str, Any]] = {}
    evaluation_rows = list(rows)
    for row in evaluation_rows:
        name, lot = key(row), digest(canonical([seed, row.id]))
        if name not in rows_by_key or lot < rows_by_key[name][0]:
            rows_by_key[name] = (lot, row)
    row_ids = {id(row) for _, row in rows_by_key.values()}
    return [row for row in evaluation_rows if id(row) in row_ids]
