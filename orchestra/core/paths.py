"""Paths: of nodes in a run, and of parts in a value.

The path of a node is names joined by `/`, with `[i]` for an element under `each`, `#k` for the k-th turn of a loop, `@v` for version v
of a plan and `?k` for the k-th time that checks ask agents, as in `summaries[3]`, `refine#2/draft`, `solve@1/s2` and
`summaries[3]?1/entailment_0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SEPARATORS = "/[#@?"
"""What stands between a node and what is inside of it."""
_SEPARATOR = re.compile(r"[/\[#@?]")
_NUMBER = re.compile(r"\[\d+\]|[#@?]\d+")
_TURN = re.compile(r"[#@?]\d+$")
_LAST_STEP = re.compile(r"(\[\d+\]|[#@?]\d+|/[^/\[#@?]+)$")


def parent(path: str) -> str:
    """The path of what a node stands in, or an empty text.

    `a[1]/b#2/c` stands in `a[1]/b#2`, that in `a[1]/b`, that in `a[1]`, and that in `a`. `a@1/s2` stands in `a@1`, that in `a`.
    """
    found = _LAST_STEP.search(path)
    return path[: found.start()] if found else ""


def is_inside(path: str, node: str) -> bool:
    """Whether a path is of something in a node: an element, a turn, a step of its body, or a question of its checks."""
    return path.startswith(tuple(node + mark for mark in SEPARATORS))


def root_name(path: str) -> str:
    """The name that a path begins with: `a` of `a[1]/b#2/c`."""
    return _SEPARATOR.split(path, maxsplit=1)[0]


def workflow_path(path: str) -> str:
    """The path of a node in its workflow, in whatever elements and turns it stands: `a/b/c` of `a[1]/b#2/c`."""
    return _NUMBER.sub("", path)


def without_turn(path: str) -> str:
    """The path of a node, of whatever turn, version or question of it: `a[1]` of `a[1]@2`."""
    return _TURN.sub("", path)


def format_path(steps: Iterable[str | int]) -> str:
    """The way to a part of a value as people read it: `items[0].quote`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
