"""Labels: where data may go. A value's label joins everything it was made of."""

from __future__ import annotations

from collections.abc import Iterable
from contextvars import ContextVar
from typing import Literal, TypeAlias, get_args

Label: TypeAlias = Literal["public", "internal", "restricted"]
_ORDER: tuple[Label, ...] = get_args(Label)

CURRENT_LABEL: ContextVar[Label] = ContextVar("orchestra_label", default="public")
"""The label of the call that this code is part of: of a tool, or an agent that is a function. Runs that it begins have it, too."""


def join(labels: Iterable[Label]) -> Label:
    """The strictest of the labels; `public` for none."""
    return max(labels, key=_ORDER.index, default="public")


def meet(labels: Iterable[Label]) -> Label:
    """The least strict of the labels; `restricted` for none."""
    return min(labels, key=_ORDER.index, default="restricted")


def is_allowed(label: Label, ceiling: Label) -> bool:
    """Whether data with this label may go where at most `ceiling` is cleared."""
    return _ORDER.index(label) <= _ORDER.index(ceiling)
