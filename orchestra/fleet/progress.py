"""Progress reports of a fleet: downloads, starts and waits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

from orchestra.core.quantities import format_duration, format_size

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

    def format_amount(self) -> str:
        """Returns what is done and the phase, as text that follows the message; empty if both are unknown."""
        phase = f"; {self.phase}" if self.phase else ""
        if self.done is None:
            return phase
        show: Callable[[float], str] = {"bytes": format_size, "seconds": format_duration}.get(self.unit, "{:g}".format)
        if not self.total:
            return f": {show(self.done)}{phase}"
        if self.unit != "seconds":
            return f": {show(self.done)} of {show(self.total)}{phase}"
        if self.done > self.total:
            return f": {show(self.done)}, longer than usual (about {show(self.total)}){phase}"
        return f": {show(self.done)} of about {show(self.total)}{phase}"


ProgressCallback: TypeAlias = Callable[[Progress], None]


def ignore_progress(_: Progress) -> None:
    """Ignores progress."""
