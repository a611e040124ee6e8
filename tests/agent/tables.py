"""The card of a reader of tables, and a tiny encoder that knows the words of its tables."""

from __future__ import annotations

from typing import Any

NAMES = ("ada", "grace", "edsger", "barbara", "donald", "alan")
WORDS = [
    *NAMES,
    *("name", "age", "books", "rooms", "the", "has", "how", "many", "most", "least", "difference", "total", "which", "who", "what", "of"),
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
  answer: float | list[str] | null
computed:
  answer: {value: expression, otherwise: quotes}
types:
  Index: {type: integer, format: index, minimum: 0}
  Way: {type: string, enum: [cells, text, count, most, least, sum, mean, difference, gap, change, share, ratio, product]}
  Sum: {type: string, format: expression}
  Scale: {type: string, enum: ["", percent, thousand, million, billion]}
"""


def told(way: str, quotes: list[str] | None = None, expression: str | None = None, **more: Any) -> dict[str, Any]:
    """What such an agent writes."""
    return {"way": way, "quotes": quotes or [], "expression": expression, "scale": "", "cells": [], "rows": [], "column": None} | more
