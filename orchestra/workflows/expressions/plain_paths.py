"""Plain paths: references that only follow fields and indices, which is what most references do; read without a parser."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from orchestra.workflows.expressions.parser import KEYWORDS, reference

MAX_LENGTH = 80
"""Characters of a plain path, at most: so few that none of the parser's limits is near."""

_PATH = re.compile(r"([a-z][a-z0-9_]*)((?:\.[A-Za-z_]\w*|\[(?:0|[1-9]\d{0,8})\])*)", re.ASCII)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]", re.ASCII)


class Plain(msgspec.Struct, frozen=True, gc=False):
    """A reference as a name and the fields and indices that are followed from there."""

    root: str
    steps: tuple[str | int, ...]
    source: str
    reads: frozenset[str]
    """The name alone."""


def plain(source: str) -> Plain | None:
    """The path that the text of a reference is; None for another expression, and for a path that is longer than usual."""
    return _plain(source) if len(source) <= MAX_LENGTH else None


@lru_cache(maxsize=8192)
def whole(text: str) -> Plain | None:
    """The path that is all of a template, as in `${a.b}`; None for another template. Only for texts of at most `MAX_LENGTH`."""
    return _read(inside) if (inside := reference(text)) is not None else None


@lru_cache(maxsize=2048)
def _plain(source: str) -> Plain | None:
    return _read(source)


def _read(source: str) -> Plain | None:
    if (match := _PATH.fullmatch(source)) is None:
        return None
    root, rest = match.groups()
    if root in KEYWORDS:
        return None
    steps = tuple(name or int(index) for name, index in _STEP.findall(rest)) if rest else ()
    return Plain(root, steps, source, frozenset((root,)))
