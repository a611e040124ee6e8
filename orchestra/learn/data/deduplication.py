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
    from orchestra.learn.data.dataset import Row

_OTHER = re.compile(r"(?P<sign>[-(](?=\s*\d)|(?<=\d)\)|(?<=\d)[.,](?=\d))|[^\w\s]")
"""A sign beside digits, or something else that is neither a word's, as Python has it, nor a blank."""
_SYMBOLS = "/*%#&@\\"
"""Characters that Unicode calls punctuation, and that tell texts apart."""


@dataclass(frozen=True, slots=True)
class Distinct:
    """Rows without duplicates, and what was left out."""

    rows: list[Row]
    same: int
    """Rows that an earlier one says letter by letter."""
    near: int
    """Rows that an earlier one says in another spelling."""
    contradicting: list[tuple[Row, Row]]
    """Rows with the inputs of an earlier one and another output, each after that one."""


def distinct(rows: Iterable[Row]) -> Distinct:
    """The rows, each once."""
    kept: dict[str, Row] = {}
    same = near = 0
    contradicting: list[tuple[Row, Row]] = []
    for row in rows:
        first = kept.setdefault(mark(row.input), row)
        if first is row:
            continue
        if _plain(first.output) != _plain(row.output):
            contradicting.append((first, row))
        elif first.input == row.input:
            same += 1
        else:
            near += 1
    return Distinct(list(kept.values()), same, near, contradicting)


def says_nothing(value: Any) -> bool:
    """Whether inputs have nothing that could be read: no text but blanks, no number, no element."""
    match value:
        case str():
            return not value.strip()
        case dict():
            return all(says_nothing(item) for item in value.values())
        case list():
            return all(says_nothing(item) for item in value)
        case _:
            return value is None


def mark(value: Any) -> str:
    """Equal for inputs that say the same."""
    return digest(canonical(_plain(value)))


def _plain(value: Any) -> Any:
    """A value whose texts are lists of their words; a text without words stays as it is."""
    match value:
        case str():
            return _OTHER.sub(_kept, unicodedata.normalize("NFKC", value).casefold()).split() or value
        case dict():
            return {key: _plain(item) for key, item in value.items()}
        case list():
            return [_plain(item) for item in value]
        case _:
            return value


def _kept(found: re.Match[str]) -> str:
    """What stays of a character: vowel signs and accents, which Python does not count to words, symbols, and signs beside digits."""
    char, category = found[0], unicodedata.category(found[0])
    if category[0] == "M":
        return char
    if found["sign"] or char in _SYMBOLS or category in ("Sm", "Sc", "So"):
        return f" {char} "
    return "" if category == "Cf" else " "
