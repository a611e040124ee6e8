"""Confidentiality labels. The label of a value is the join of the labels of all its sources."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Literal, TypeAlias, get_args

Label: TypeAlias = Literal["public", "internal", "restricted"]
_ORDER: tuple[Label, ...] = get_args(Label)

CURRENT_LABEL: ContextVar[Label] = ContextVar("orchestra_label", default="public")
"""The label of the call that runs this code: a tool, or an agent that is a function. Runs started by this code have it
too.
"""


def join(labels: Iterable[Label]) -> Label:
    """Returns the strictest of the labels; `public` for none."""
    return max(labels, key=_ORDER.index, default="public")


def meet(labels: Iterable[Label]) -> Label:
    """Returns the least strict of the labels; `restricted` for none."""
    return min(labels, key=_ORDER.index, default="restricted")


def is_allowed(label: Label, ceiling: Label) -> bool:
    """Returns whether data with this label may go to a place with this ceiling."""
    return _ORDER.index(label) <= _ORDER.index(ceiling)
