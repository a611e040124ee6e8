"""Progress reports of a fleet: downloads, starts and waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

Stage: TypeAlias = Literal["weights", "download", "convert", "verify", "start", "wait", "ready", "adapter", "restart"]


@dataclass(frozen=True, slots=True)
class Progress:
    """One step of a preparation.

    `done` and `total` are bytes or seconds, if known; a total of seconds is an estimate.
    """

    stage: Stage
    message: str
    done: float | None = None
    total: float | None = None
    unit: Literal["", "bytes", "seconds"] = ""
    phase: str = ""
    """What is done within the step."""


ProgressCallback: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Ignores progress."""
