"""Labelled texts, and the folds that the members of a committee leave out."""

from __future__ import annotations

import hashlib
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from orchestra.schema.strict_json import canonical, digest

FOLD_COUNT = 10
"""Number of folds; each member leaves out one."""


@dataclass(frozen=True, slots=True)
class LabelledText:
    """A text with its label."""

    text: str
    label: str
    paired_text: str = ""
    """The second text of a pair; empty for a single text."""


def normalize_text(text: str) -> str:
    """Returns a text without case and punctuation; texts are equal if this form is equal."""
    return " ".join(re.findall(r"\w+", text.lower()))


def assign_folds(rows: Sequence[LabelledText], count: int = FOLD_COUNT) -> list[int]:
    """Returns the fold of each row. Labels are spread evenly, and rows with equal first texts are in one fold. The
    order of the rows does not matter.
    """
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
    """Returns the fold of a text without a label; equal texts are in one fold."""
    return int(_text_digest(normalize_text(text))[:8], 16) % count


def labelled_texts_digest(rows: Sequence[LabelledText]) -> str:
    """Returns a digest of the rows that does not depend on their order."""
    return digest(
        canonical(sorted([row.text, row.label, *([row.paired_text] if row.paired_text else [])] for row in rows))
    )


def _text_digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
