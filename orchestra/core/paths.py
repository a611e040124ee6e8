"""Paths of nodes in a run, and of parts of a value.

The path of a node consists of names joined by `/`. `[i]` is an element of `each`, `#k` the k-th turn of a loop, `@v`
version v of a plan, and `?k` the k-th round in which checks call agents: `summaries[3]`, `refine#2/draft`, `solve@1/s2`
and `summaries[3]?1/entailment_0`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SEPARATORS = "/[#@?"
"""Separators between a node and its parts."""
_SEPARATOR = re.compile(r"[/\[#@?]")
_NUMBER = re.compile(r"\[\d+\]|[#@?]\d+")
_TURN = re.compile(r"[#@?]\d+$")
_LAST_STEP = re.compile(r"(\[\d+\]|[#@?]\d+|/[^/\[#@?]+)$")


def parent(path: str) -> str:
    """Returns the path of the enclosing node, or an empty string.

    The parents of `a[1]/b#2/c` are `a[1]/b#2`, `a[1]/b`, `a[1]` and `a`. The parents of `a@1/s2` are `a@1` and `a`.
    """
    match = _LAST_STEP.search(path)
    return path[: match.start()] if match else ""


def is_inside(path: str, node: str) -> bool:
    """Returns whether a path is inside a node: an element, a turn, a step of its body, or a call of its checks."""
    return path.startswith(tuple(node + mark for mark in SEPARATORS))


def root_name(path: str) -> str:
    """Returns the first name of a path: `a` of `a[1]/b#2/c`."""
    return _SEPARATOR.split(path, maxsplit=1)[0]


def workflow_path(path: str) -> str:
    """Returns the path of a node in its workflow, without elements and turns: `a/b/c` of `a[1]/b#2/c`."""
    return _NUMBER.sub("", path)


def without_turn(path: str) -> str:
    """Returns the path of a node without turn, version and round: `a[1]` of `a[1]@2`."""
    return _TURN.sub("", path)


def format_path(steps: Iterable[str | int]) -> str:
    """Returns the path of a part of a value in display form: `items[0].quote`."""
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
