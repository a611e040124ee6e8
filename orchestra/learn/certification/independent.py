"""Rows that are independent of each other: one of each input, and one of each group, drawn by a seed.

A bound for independent answers does not hold for rows that come in families: ten questions about one passage, or a row that is copied
forty times, tell little more than one. One row of each is the way that promises nothing too much, whatever they have in common.
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
"""Bytes as JSON from which on rows that have a value in common are hardly so by chance."""
MAX_REPEATED_SHARE = 0.05
"""Up to this share of repeated ones an input counts as one that differs."""


@dataclass(frozen=True, slots=True)
class IndependentRows:
    """Rows without their like."""

    test: EvaluationSet
    duplicates: int
    """Rows that were left out for another one with the same input."""
    group_duplicates: int
    """Rows that were left out for another one of their group."""
    group_input: str = ""
    """The input that rows of one group have in common; empty where they say themselves of which they are."""
    repeated_input: RepeatedInput | None = None
    """An input that comes again and again in these rows all the same."""


@dataclass(frozen=True, slots=True)
class RepeatedInput:
    """An input of which rows have the same long text, list or record."""

    name: str
    distinct_values: int
    """How many different ones there are …"""
    rows: int
    """… in so many rows."""


def select_independent(test: EvaluationSet, card: Card, seed: int, field: str = "") -> IndependentRows:
    """One row of each input, and one of each group: of rows with the same value of the input `field`; without one of the same `group`, or
    else with the same evidence, where the card names one. Raises `InputError` V026 for a field that is no input of the agent."""
    known = card.input_schema.get("properties", {})
    if field and field not in known:
        near = closest_match(field, known)
        raise InputError(
            "V026",
            f"{card.name} has no input {field!r} to group by",
            hint=f"--group {near or next(iter(known), 'NAME')}",
        )

    each = _draw_one_per_key(test.rows, lambda row: fingerprint(row.input), seed)
    kept = _draw_one_per_key(each, lambda row: group_key(row, card, field), seed)
    copies, grouped = len(test.rows) - len(each), len(each) - len(kept)
    named = field or ("" if any(row.group for row in test.rows) else card.evidence or "")
    return IndependentRows(replace(test, rows=kept), copies, grouped, named, _find_repeated_input(kept, known))


def _find_repeated_input(rows: list[EvaluationRow], inputs: Iterable[str]) -> RepeatedInput | None:
    """The input with the fewest different values, where these are long and fewer than the rows by more than a few. What all rows have
    tells none of them apart."""
    found: list[RepeatedInput] = []
    for name in inputs:
        values = [
            fingerprint(row.input[name])
            for row in rows
            if name in row.input and len(canonical(row.input[name])) >= MIN_SHARED_BYTES
        ]
        if 1 < (different := len(set(values))) < (1 - MAX_REPEATED_SHARE) * len(values):
            found.append(RepeatedInput(name, different, len(values)))
    return min(found, key=lambda one: one.distinct_values / one.rows, default=None)


def group_key(row: EvaluationRow, card: Card, field: str = "") -> str:
    """What a row has in common with others: the value of its input `field`; without one its `group`, or else its evidence, where the card
    names one. A row that says nothing of it is one by itself."""
    if not field and row.group:
        return row.group
    by = field or card.evidence or ""
    return fingerprint(row.input[by]) if by in row.input else fingerprint(row.input)


def _draw_one_per_key(
    rows: Iterable[EvaluationRow], key: Callable[[EvaluationRow], str], seed: int
) -> list[EvaluationRow]:
    """One row of each key, in their order: drawn by their ids, so that neither order nor other rows matter."""
    found: dict[str, tuple[str, Any]] = {}
    every = list(rows)
    for row in every:
        name, lot = key(row), digest(canonical([seed, row.id]))
        if name not in found or lot < found[name][0]:
            found[name] = (lot, row)
    chosen = {id(row) for _, row in found.values()}
    return [row for row in every if id(row) in chosen]
