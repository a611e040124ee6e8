"""Texts with their labels, and the folds that members of a committee leave out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestra.schema.strict_json import canonical, digest

FOLDS = 10
"""Each member leaves out one of so many parts of the rows."""


@dataclass(frozen=True, slots=True)
class Labelled:
    """A text and the label that it should get."""

    text: str
    label: str
    beside: str = ""
    """The text that is read beside it, where what is labelled is a pair."""


def plain(text: str) -> str:
    """A text without letter case and punctuation: what is equal so is the same text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def folds(rows: Sequence[Labelled], count: int = FOLDS) -> list[int]:
    """The fold of each row: the labels are spread evenly, equal texts stand in one fold, and pairs of
    which the first texts are equal; the order of the rows does not matter."""
    of_label: dict[str, list[str]] = defaultdict(list)
    first: dict[str, str] = {}
    for text, label in sorted((plain(row.text), row.label) for row in rows):
        first.setdefault(text, label)
    for text, label in first.items():
        of_label[label].append(text)
    fold: dict[str, int] = {}
    for texts in of_label.values():
        for index, text in enumerate(sorted(texts, key=_mark)):
            fold[text] = index % count
    return [fold[plain(row.text)] for row in rows]


def fold_of(text: str, count: int) -> int:
    """The fold of a text that has no label; equal texts stand in one."""
    return int(_mark(plain(text))[:8], 16) % count


def digest_of(rows: Sequence[Labelled]) -> str:
    """Names the rows, whatever their order."""
    return digest(canonical(sorted([row.text, row.label, *([row.beside] if row.beside else [])] for row in rows)))


def _mark(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
