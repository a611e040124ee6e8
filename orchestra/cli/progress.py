"""Progress on stderr: a bar where somebody looks, a line every few seconds where a file does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from orchestra.cli.output import format_duration, format_size, terminal_width, truncate
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from orchestra.fleet.progress import Progress

REPORT_SECONDS = 5.0
"""Seconds between two lines where stderr is no terminal."""


class ProgressMeter:
    """How far a batch is: rows, rate, time left."""

    def __init__(self, total: int, done: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._total, self._initial, self._done, self._failed, self._abstained = total, done, done, 0, 0
        self._monotonic = monotonic
        self._started = self._last_report = monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

            from orchestra.cli.output import make_console

            self._bar = Progress(
                BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), console=make_console(stderr=True)
            )
            self._bar.start()
            self._bar.add_task("", total=self._total, completed=self._done)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def advance(self, *, failed: bool = False, abstained: bool = False) -> None:
        """One row more is written."""
        self._done += 1
        self._failed += failed
        self._abstained += abstained
        if self._bar is not None:
            self._bar.update(0, completed=self._done, description=self.rates())
        elif (now := self._monotonic()) - self._last_report >= REPORT_SECONDS:
            self._last_report = now
            print(f"{self._done} of {self._total} rows, {self.rates()}", file=sys.stderr)

    def rates(self) -> str:
        """The rate, the time left, and how many rows have no output."""
        elapsed = max(self._monotonic() - self._started, 1e-9)
        rate = (self._done - self._initial) / elapsed
        said = [f"{rate:.1f} rows/s"]
        if rate and self._done < self._total:
            said.append(f"{format_duration((self._total - self._done) / rate)} left")
        if self._abstained:
            said.append(f"{self._abstained} abstained")
        if self._failed:
            said.append(f"{self._failed} failed")
        return ", ".join(said)


class StatusLine:
    """Shows what the fleet is doing while one waits for it; a `ProgressCallback` of `orchestra.fleet.progress`."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._message, self._last_report, self._line_open = "", float("-inf"), False
        self._console: Any = None
        """For texts, once there was one."""
        self._text_open = False
        """Whether a line of a text has not ended."""

    def __call__(self, progress: Progress) -> None:
        """Shows a step: each new one, and one that goes on every few seconds (or at once, on a terminal)."""
        now = self._monotonic()
        new = progress.message != self._message
        terminal = sys.stderr.isatty()
        if not new and now - self._last_report < (0.1 if terminal else REPORT_SECONDS):
            return
        self._message, self._last_report = progress.message, now
        text = escape_invisible(progress.message, keep="") + _format_progress(progress)
        if not terminal:
            self.close()
            print(text, file=sys.stderr)
            return
        if new and self._line_open:
            sys.stderr.write("\n")
        self.show_line(text)

    def show_line(self, text: str) -> None:
        """Rewrites the line on a terminal; says nothing elsewhere."""
        if sys.stderr.isatty():
            if self._text_open:
                self.close()
            shown = truncate(escape_invisible(text, keep=""), terminal_width(sys.stderr) - 1)
            sys.stderr.write(f"\r\x1b[2K{shown}")
            sys.stderr.flush()
            self._line_open = True

    def show_text(self, text: str) -> None:
        """Goes on with a text, dimmed on a terminal, below what stands there."""
        if self._line_open:
            self.close()
        if self._console is None:
            from orchestra.cli.output import make_console

            self._console = make_console(stderr=True)
        self._console.print(escape_invisible(text), style="dim", end="")
        self._text_open = not text.endswith("\n")

    def close(self) -> None:
        """Ends the line that is being rewritten, or a text."""
        if self._line_open or self._text_open:
            sys.stderr.write("\n")
            self._line_open = self._text_open = False


def _format_progress(progress: Progress) -> str:
    if progress.done is None:
        return ""
    show: Callable[[float], str] = {"bytes": format_size, "seconds": format_duration}.get(progress.unit, "{:g}".format)
    if progress.total:
        about = "about " if progress.unit == "seconds" else ""
        return f": {show(progress.done)} of {about}{show(progress.total)}"
    return f": {show(progress.done)}"
