"""Texts with their labels, and the folds that members of a committee leave out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestra.schema.strict_json import canonical, digest

FOLD_COUNT = 10
"""Each member leaves out one of so many parts of the rows."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text and the label that it should get."""

    text: str
    label: str
    paired_text: str = ""
    """The text that is read beside it, where what is labelled is a pair."""


def normalize_text(text: str) -> str:
    """A text without letter case and punctuation: what is equal so is the same text."""
    return " ".join(re.findall(r"\w+", text.lower()))


def assign_folds(rows: Sequence[LabelledText], count: int = FOLD_COUNT) -> list[int]:
    """The fold of each row: the labels are spread evenly, equal texts stand in one fold, and pairs of
    which the first texts are equal; the order of the rows does not matter."""
    of_label: dict[str, list[str]] = defaultdict(list)
    first: dict[str, str] = {}
    for text, label in sorted((normalize_text(row.text), row.label) for row in rows):
        first.setdefault(text, label)
    for text, label in first.items():
        of_label[label].append(text)
    fold: dict[str, int] = {}
    for texts in of_label.values():
        for index, text in enumerate(sorted(texts, key=_text_digest)):
            fold[text] = index % count
    return [fold[normalize_text(row.text)] for row in rows]


def fold_of(text: str, count: int) -> int:
    """The fold of a text that has no label; equal texts stand in one."""
    return int(_text_digest(normalize_text(text))[:8], 16) % count


def labelled_texts_digest(rows: Sequence[LabelledText]) -> str:
    """Names the rows, whatever their order."""
    return digest(canonical(sorted([row.text, row.label, *([row.paired_text] if row.paired_text else [])] for row in rows)))


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
