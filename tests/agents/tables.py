"""Fixtures for table readers: the card, the words of a tiny encoder, files of random arrays, and handmade logits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.tables.encoding import TableEncoding
from orchestra.agents.inference.tables.head import OUTPUT_NAMES as OUTPUTS
from orchestra.agents.inference.tables.head import TableLogits
from orchestra.agents.inference.tables.operations import OPERATIONS, SCALES
from orchestra.agents.inference.tables.reader import FORMAT, TableReader, answer_fields
from orchestra.testing.tiny_encoder import SHAPE
from orchestra.text.numbers.sort_keys import BOUNDS

NAMES = ("ada", "grace", "edsger", "barbara", "donald", "alan")
WORDS = [
    *NAMES,
    *(
        "name",
        "age",
        "books",
        "rooms",
        "the",
        "has",
        "how",
        "many",
        "most",
        "least",
        "difference",
        "total",
        "which",
        "who",
        "what",
        "of",
    ),
    *("is", "in", "and", "?", "|", ".", ",", "$", "(", ")", "-"),
    *map(str, range(100)),
]
CARD = """
name: teller
kind: encoder
model: tiny
input:
  question: str
  table: list[list[str]]
  paragraphs: list[str]
output:
  way: Way
  expression: Sum | null
  quotes: list[Quote]
  scale: Scale
  cells: list[list[Index]]
  rows: list[Index]
  column: Index | null
  condition: Condition | null
  also: Condition | null
  answer: float | list[str] | null
computed:
  answer: {value: expression, otherwise: quotes}
types:
  Index: {type: integer, format: index, minimum: 0}
  Way:
    type: string
    enum: [cells, text, count, most, least, sum, mean, difference, gap, change, share, ratio, product, portion,
    discount, surcharge, range]
  Bound: {type: string, enum: [above, from, below, upto]}
  Condition: {column: Index, bound: Bound, limit: Quote}
  Sum: {type: string, format: expression}
  Scale: {type: string, enum: ["", percent, thousand, million, billion]}
"""
Place = tuple[int, int] | str
"""A cell by row and column, or a figure of the text or of the question by its text."""


def told(way: str, quotes: list[str] | None = None, expression: str | None = None, **more: Any) -> dict[str, Any]:
    """Returns the output of such an agent."""
    begun = {"way": way, "quotes": quotes or [], "expression": expression, "scale": ""}
    return begun | {"cells": [], "rows": [], "column": None, "condition": None, "also": None} | more


def layout(**changes: Any) -> dict[str, Any]:
    said: dict[str, Any] = {
        "format": FORMAT,
        "question": "question",
        "table": "table",
        "paragraphs": "paragraphs",
        "tokens": 64,
    }
    return said | {"base": {"licence": "CC0-1.0", "sha256": {}}, "data": [], "arrays": "tables.npz"} | changes


def arrays(rank: int = 2, up: float = 0.0) -> dict[str, Any]:
    import numpy as np

    chance = np.random.default_rng(3)
    made: dict[str, Any] = {
        "weight": chance.normal(size=(len(OUTPUTS), SHAPE.hidden_size)),
        "bias": np.zeros(len(OUTPUTS)),
    }
    for name in SHAPE.linear_layers:
        taken, gives = SHAPE.layer_shape(name)
        made |= {f"down.{name}": chance.normal(size=(1, rank, taken)), f"up.{name}": np.full((1, gives, rank), up)}
    return made


def write(folder: Path, made: dict[str, Any], **changes: Any) -> Card:
    text, data = pack_arrays(layout(**changes), made)
    folder.mkdir(exist_ok=True)
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "tables.npz").write_bytes(data)
    return Card.load(folder)


def spot(sheet: TableEncoding, place: Place) -> int:
    """Returns the index of a location."""
    [found] = [
        at
        for at, one in enumerate(sheet.locations)
        if place in ((one.row, one.column), one.text if one.row < 0 else None)
    ]
    return found


@dataclass(frozen=True)
class Hand:
    """Handmade logits; everything that is not named is improbable."""

    ways: Sequence[str]
    """The likeliest operation first."""
    scale: str = ""
    cells: Mapping[Place, float] | None = None
    first: Mapping[Place, float] | None = None
    second: Mapping[Place, float] | None = None
    rows: Mapping[int, float] | None = None
    asked: Mapping[int, float] | None = None
    by: Mapping[int, float] | None = None
    begin: Mapping[int, float] | None = None
    end: Mapping[int, float] | None = None
    bounded: Mapping[int, float] | None = None
    limits: Mapping[Place, float] | None = None
    bound: str = "none"
    also: Mapping[int, float] | None = None
    also_limits: Mapping[Place, float] | None = None
    also_bound: str = "none"

    def logits(self, sheet: TableEncoding) -> TableLogits[Any]:
        wide = max((len(row) for row in sheet.table), default=0)

        def places(given: Mapping[Place, float] | None) -> Any:
            return _filled(len(sheet.locations), {spot(sheet, place): value for place, value in (given or {}).items()})

        return TableLogits(
            operations=_filled(
                len(OPERATIONS), {OPERATIONS.index(way): 8.0 - 2 * rank for rank, way in enumerate(self.ways)}
            ),
            scales=_filled(len(SCALES), {SCALES.index(self.scale): 1.0}),
            cells=places(self.cells),
            first=places(self.first),
            second=places(self.second),
            rows=_filled(len(sheet.table), self.rows or {}),
            answer_columns=_filled(wide, self.asked or {}),
            order_columns=_filled(wide, self.by or {}),
            begin=_filled(len(sheet.chars), self.begin or {}),
            end=_filled(len(sheet.chars), self.end or {}),
            condition_columns=_filled(wide, self.bounded or {}),
            limits=places(self.limits),
            bounds=_filled(len(BOUNDS) + 1, {("none", *BOUNDS).index(self.bound): 9.0}),
            extra_columns=_filled(wide, self.also or {}),
            extra_limits=places(self.also_limits),
            extra_bounds=_filled(len(BOUNDS) + 1, {("none", *BOUNDS).index(self.also_bound): 9.0}),
        )


def _filled(count: int, values: Mapping[int, float]) -> Any:
    import numpy as np

    made = np.full(count, -6.0)
    for at, value in values.items():
        made[at] = value
    return made


def answer(reader: TableReader, sheet: TableEncoding, hand: Hand) -> dict[str, Any]:
    """Returns the output for logits."""
    return answer_fields(*reader.decode(sheet, hand.logits(sheet)), sheet)


def sure(reader: TableReader, sheet: TableEncoding, hand: Hand) -> float:
    return reader.decode(sheet, hand.logits(sheet))[0].probability


def share(logits: Any, at: int) -> float:
    import numpy as np

    return float(np.exp(logits[at]) / np.exp(logits).sum())


def way_and_scale(logits: TableLogits[Any], way: str) -> float:
    """Returns the probability of an operation and of the likeliest scale."""
    return share(logits.operations, OPERATIONS.index(way)) * share(logits.scales, int(logits.scales.argmax()))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))
