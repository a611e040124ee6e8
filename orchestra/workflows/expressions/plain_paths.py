"""Plain paths: references that only follow fields and indices, which is what most references do; read without a parser."""

from __future__ import annotations

import re
from functools import lru_cache

import msgspec

from orchestra.workflows.expressions.parser import KEYWORDS, sole_reference

MAX_PLAIN_LENGTH = 80
"""Characters of a plain path, at most: so few that none of the parser's limits is near."""

_PATH = re.compile(r"([a-z][a-z0-9_]*)((?:\.[A-Za-z_]\w*|\[(?:0|[1-9]\d{0,8})\])*)", re.ASCII)
_STEP = re.compile(r"\.(\w+)|\[(\d+)\]", re.ASCII)


class PlainPath(msgspec.Struct, frozen=True, gc=False):
    """A reference as a name and the fields and indices that are followed from there."""

    root: str
    steps: tuple[str | int, ...]
    source: str
    references: frozenset[str]
    """The name alone."""


def parse_plain_path(source: str) -> PlainPath | None:
    """The path that the text of a reference is; None for another expression, and for a path that is longer than usual."""
    return _parse_cached(source) if len(source) <= MAX_PLAIN_LENGTH else None


@lru_cache(maxsize=8192)
def parse_plain_template(text: str) -> PlainPath | None:
    """The path that is all of a template, as in `${a.b}`; None for another template. Only for texts of at most `MAX_PLAIN_LENGTH`."""
    return _parse(inside) if (inside := sole_reference(text)) is not None else None


@lru_cache(maxsize=2048)
def _parse_cached(source: str) -> PlainPath | None:
    return _parse(source)


def _parse(source: str) -> PlainPath | None:
    if (match := _PATH.fullmatch(source)) is None:
        return None
    root, rest = match.groups()
    if root in KEYWORDS:
        return None
    steps = tuple(name or int(index) for name, index in _STEP.findall(rest)) if rest else ()
    return PlainPath(root, steps, source, frozenset((root,)))
