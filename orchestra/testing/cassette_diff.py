"""How two recorded calls differ, in lines that a person reads at a glance."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from typing import Any

from orchestra.schema.strict_json import canonical

MAX_LINES = 5
"""Differences that are shown at most."""
MAX_WIDTH = 60
"""Characters that are shown of each side of a difference."""
_MAX_COMPARED = 2_000
"""Characters of a call that likeness looks at: `SequenceMatcher` takes quadratic time."""


def similarity(one: Any, other: Any) -> float:
    """How alike two JSON values are, in [0, 1]: equal parts count first, then the texts."""
    parts = dict(_leaves(one)), dict(_leaves(other))
    paths = parts[0].keys() | parts[1].keys()
    same: float = sum(parts[0].get(path, _MISSING) == parts[1].get(path, _MISSING) for path in paths) / max(1, len(paths))
    first, second = (canonical(value).decode()[:_MAX_COMPARED] for value in (one, other))
    ratio: float = difflib.SequenceMatcher(a=first, b=second, autojunk=False).quick_ratio()
    return (same + ratio) / 2


def differences(recorded: Any, now: Any) -> list[str]:
    """One line for each part that differs: where it is, what was recorded, what is asked now."""
    before, after = dict(_leaves(recorded)), dict(_leaves(now))
    paths = [*after, *(path for path in before if path not in after)]
    lines = []
    for path in paths:
        old, new = before.get(path, _MISSING), after.get(path, _MISSING)
        if old != new or type(old) is not type(new):
            lines.append(f"{path}: {_describe_change(old, new)}")
    if len(lines) > MAX_LINES:
        lines[MAX_LINES:] = [f"and {len(lines) - MAX_LINES} more"]
    return lines


_MISSING = object()


def _leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """The values of a JSON value that are no containers, and empty ones, with their paths."""
    match value:
        case dict() if value:
            for key, part in value.items():
                yield from _leaves(part, f"{path}.{key}" if path else str(key))
        case list() | tuple() if value:
            for index, part in enumerate(value):
                yield from _leaves(part, f"{path}[{index}]")
        case _:
            yield path, value


def _describe_change(old: Any, new: Any) -> str:
    if old is _MISSING:
        return f"not recorded, now {_shorten(new, 0)}"
    if new is _MISSING:
        return f"recorded {_shorten(old, 0)}, now missing"
    start = 0
    if isinstance(old, str) and isinstance(new, str):
        common = next((index for index, (a, b) in enumerate(zip(old, new, strict=False)) if a != b), min(len(old), len(new)))
        start = max(0, common - MAX_WIDTH // 3) if max(len(old), len(new)) > MAX_WIDTH else 0
    return f"recorded {_shorten(old, start)}, now {_shorten(new, start)}"


def _shorten(value: Any, start: int) -> str:
    """A value in one short line, beginning near the place where it differs."""
    text = value if isinstance(value, str) else canonical(value).decode()
    part = text[start : start + MAX_WIDTH]
    cut = ("…" if start else "") + part + ("…" if start + MAX_WIDTH < len(text) else "")
    return repr(cut) if isinstance(value, str) else cut
