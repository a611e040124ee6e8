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
from orchestra.core.suggestions import nearest
from orchestra.learn.data.deduplication import mark
from orchestra.learn.evaluation.rows import Question, Test
from orchestra.schema.strict_json import canonical, digest

LONG = 40
"""Bytes as JSON from which on rows that have a value in common are hardly so by chance."""
SHARE = 0.05
"""Up to this share of repeated ones an input counts as one that differs."""


@dataclass(frozen=True, slots=True)
class Independent:
    """Rows without their like."""

    test: Test
    copies: int
    """Rows that were left out for another one with the same input."""
    grouped: int
    """Rows that were left out for another one of their group."""
    group: str = ""
    """The input that rows of one group have in common; empty where they say themselves of which they are."""
    recurring: Recurring | None = None
    """An input that comes again and again in these rows all the same."""


@dataclass(frozen=True, slots=True)
class Recurring:
    """An input of which rows have the same long text, list or record."""

    name: str
    values: int
    """How many different ones there are …"""
    rows: int
    """… in so many rows."""


def independent(test: Test, card: Card, seed: int, field: str = "") -> Independent:
    """One row of each input, and one of each group: of rows with the same value of the input `field`; without one of the same `group`, or
    else with the same evidence, where the card names one. Raises `InputError` V026 for a field that is no input of the agent."""
    known = card.input_schema.get("properties", {})
    if field and field not in known:
        near = nearest(field, known)
        raise InputError("V026", f"{card.name} has no input {field!r} to group by", hint=f"--group {near or next(iter(known), 'NAME')}")

    each = _drawn(test.questions, lambda row: mark(row.input), seed)
    kept = _drawn(each, lambda row: family(row, card, field), seed)
    copies, grouped = len(test.questions) - len(each), len(each) - len(kept)
    named = field or ("" if any(row.group for row in test.questions) else card.evidence or "")
    return Independent(replace(test, questions=kept), copies, grouped, named, _recurring(kept, known))


def _recurring(rows: list[Question], inputs: Iterable[str]) -> Recurring | None:
    """The input with the fewest different values, where these are long and fewer than the rows by more than a few. What all rows have
    tells none of them apart."""
    found: list[Recurring] = []
    for name in inputs:
        values = [mark(row.input[name]) for row in rows if name in row.input and len(canonical(row.input[name])) >= LONG]
        if 1 < (different := len(set(values))) < (1 - SHARE) * len(values):
            found.append(Recurring(name, different, len(values)))
    return min(found, key=lambda one: one.values / one.rows, default=None)


def family(row: Question, card: Card, field: str = "") -> str:
    """What a row has in common with others: the value of its input `field`; without one its `group`, or else its evidence, where the card
    names one. A row that says nothing of it is one by itself."""
    if not field and row.group:
        return row.group
    by = field or card.evidence or ""
    return mark(row.input[by]) if by in row.input else mark(row.input)


def _drawn(rows: Iterable[Question], key: Callable[[Question], str], seed: int) -> list[Question]:
    """One row of each key, in their order: drawn by their ids, so that neither order nor other rows matter."""
    found: dict[str, tuple[str, Any]] = {}
    every = list(rows)
    for row in every:
        name, lot = key(row), digest(canonical([seed, row.id]))
        if name not in found or lot < found[name][0]:
            found[name] = (lot, row)
    chosen = {id(row) for _, row in found.values()}
    return [row for row in every if id(row) in chosen]
