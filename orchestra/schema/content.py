"""Content of a value: the parts that are neither empty, nor evidence, nor scores of the answer; and equality of
content. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeAlias

from orchestra.schema.fields import EXPRESSION_FORMAT, SCORE_FIELDS, is_probability

ContentKey: TypeAlias = tuple[type, Any]


def content_parts(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Yields the content parts of a value with their paths, without nulls, empty strings, evidence, expressions and
    scores.
    """
    return ((steps, part) for steps, part in _leaf_parts(value) if _is_nonempty(part))


def _leaf_parts(value: Any) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Like `content_parts`, but with nulls and with empty strings, lists and records."""
    line: list[tuple[tuple[str | int, ...], Any]] = [((), value)]
    while line:
        steps, subtree = line.pop()
        if isinstance(subtree, Mapping) and subtree:
            if is_citation(subtree) or is_cell(subtree):
                continue
            passage = {"text", "source", "start", "end"} <= subtree.keys()
            for key, part in reversed(list(subtree.items())):
                if (key in SCORE_FIELDS and is_probability(part)) or (
                    key == EXPRESSION_FORMAT and isinstance(part, str)
                ):
                    continue
                if not passage or key not in ("source", "start", "end"):
                    line.append(((*steps, str(key)), part))
        elif isinstance(subtree, Sequence) and not isinstance(subtree, str) and subtree:
            line += [((*steps, index), part) for index, part in reversed(list(enumerate(subtree)))]
        else:
            yield steps, subtree


def _is_nonempty(part: Any) -> bool:
    return part is not None and (not isinstance(part, Sequence | Mapping) or len(part) > 0)


def has_content(value: Any) -> bool:
    """Returns whether a value has content.

    A value of nulls and empty strings has none. An empty list or record counts as the answer "none", unless it stands
    next to nulls and empty strings: it may be their empty list of evidence.
    """
    parts = [part for _, part in _leaf_parts(value)]
    return any(map(_is_nonempty, parts)) or (bool(parts) and all(part is not None and part != "" for part in parts))


def content_key(value: Any) -> ContentKey | None:
    """Returns a key that is equal for scalars with equal content: strings up to case and spacing. None for other values
    and NaN.
    """
    if isinstance(value, str):
        return str, " ".join(value.casefold().split())
    return None if isinstance(value, Mapping | Sequence) or value != value else (type(value), value)


def is_citation(value: Any) -> bool:
    """Returns whether a value has the form of `Citation`."""
    match value:
        case {"quote": str(), "source": str(), "start": int(), "end": int()}:
            return True
        case _:
            return False


def is_cell(value: Any) -> bool:
    """Returns whether a value has the form of `Cell`."""
    match value:
        case {"row": int(), "column": int(), "text": str()}:
            return True
        case _:
            return False
