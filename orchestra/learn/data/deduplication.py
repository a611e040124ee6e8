"""Duplicates: rows that say the same, up to case, punctuation, spacing and Unicode form. The first one stays.

Symbols are no punctuation, and neither are signs beside digits: `7 - 3` is not `7 + 3`, nor `C++` `C#`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from orchestra.schema.strict_json import canonical, digest

if TYPE_CHECKING:
    from orchestra.learn.data.dataset import DatasetRow

_PUNCTUATION = re.compile(r"(?P<sign>[-(](?=\s*\d)|(?<=\d)\)|(?<=\d)[.,](?=\d))|[^\w\s]")
"""A sign beside digits, or something else that is neither a word's, as Python has it, nor a blank."""
_SYMBOLS = "/*%#&@\\"
"""Characters that Unicode calls punctuation, and that tell texts apart."""


@dataclass(frozen=True, slots=True)
class DeduplicatedRows:
    """Rows without duplicates, and what was left out."""

    rows: list[DatasetRow]
    exact_duplicates: int
    """Rows that an earlier one says letter by letter."""
    near_duplicates: int
    """Rows that an earlier one says in another spelling."""
    contradictions: list[tuple[DatasetRow, DatasetRow]]
    """Rows with the inputs of an earlier one and another output, each after that one."""


def deduplicate(rows: Iterable[DatasetRow]) -> DeduplicatedRows:
    """The rows, each once."""
    kept: dict[str, DatasetRow] = {}
    same = near = 0
    contradicting: list[tuple[DatasetRow, DatasetRow]] = []
    for row in rows:
        first = kept.setdefault(fingerprint(row.input), row)
        if first is row:
            continue
        if _normalize(first.output) != _normalize(row.output):
            contradicting.append((first, row))
        elif first.input == row.input:
            same += 1
        else:
            near += 1
    return DeduplicatedRows(list(kept.values()), same, near, contradicting)


def is_empty(value: Any) -> bool:
    """Whether inputs have nothing that could be read: no text but blanks, no number, no element."""
    match value:
        case str():
            return not value.strip()
        case dict():
            return all(is_empty(item) for item in value.values())
        case list():
            return all(is_empty(item) for item in value)
        case _:
            return value is None


def fingerprint(value: Any) -> str:
    """Equal for inputs that say the same."""
    return digest(canonical(_normalize(value)))


def _normalize(value: Any) -> Any:
    """A value whose texts are lists of their words; a text without words stays as it is."""
    match value:
        case str():
            return _PUNCTUATION.sub(_normalize_character, unicodedata.normalize("NFKC", value).casefold()).split() or value
        case dict():
            return {key: _normalize(item) for key, item in value.items()}
        case list():
            return [_normalize(item) for item in value]
        case _:
            return value


def _normalize_character(found: re.Match[str]) -> str:
    """What stays of a character: vowel signs and accents, which Python does not count to words, symbols, and signs beside digits."""
    char, category = found[0], unicodedata.category(found[0])
    if category[0] == "M":
        return char
    if found["sign"] or char in _SYMBOLS or category in ("Sm", "Sc", "So"):
        return f" {char} "
    return "" if category == "Cf" else " "
