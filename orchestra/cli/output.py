"""Output of commands: JSON, text, tables and progress lines, and checks of output files."""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self, TextIO

from orchestra.core.errors import OrchestraError, display_width
from orchestra.core.quantities import format_duration
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from orchestra.fleet.progress import Progress


def print_json(value: Any) -> None:
    """Prints one line of JSON to stdout, keys in the given order."""
    import msgspec

    sys.stdout.write(json_line(msgspec.json.encode(value)))


def json_line(encoded: bytes) -> str:
    """One line of JSON. Control characters, and those that the encoding of stdout lacks, are JSON escapes."""
    text = encoded.decode()
    if text.isascii() and "\x7f" not in text:
        return text + "\n"
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = _NON_ASCII.sub(_json_escape, text)
    return _CONTROL_CHARACTERS.sub(_json_escape, text) + "\n"


MAX_RICH_ROWS = 200
"""Rows above which a table is long."""
_NON_ASCII = re.compile("[^\x00-\x7f]")
_CONTROL_CHARACTERS = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Control, bidi and invisible characters that JSON does not escape. They occur only within strings."""


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def make_console(*, stderr: bool = False) -> Console:
    """Returns a rich console. It does not wrap lines if stdout is not a terminal."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            """Re-raises the error for the command's error handling; rich would exit with status 1."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000
    return PlainConsole(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def _make_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> Table:
    """A table of escaped texts. `right` are the indices of numeric columns."""
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = set(right)
    for index, heading in enumerate(headings):
        table.add_column(heading, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        table.add_row(*(Text(escape_invisible(cell)) for cell in row))
    return table


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """Prints a table to stdout. `right` are the indices of numeric columns.

    A long table that fits the terminal is laid out here, because rich takes a millisecond a row.
    """
    screen = make_console()
    if len(rows) > MAX_RICH_ROWS:
        from rich.cells import cell_len
        from rich.text import Text

        escaped_rows = [[escape_invisible(cell) for cell in row] for row in (headings, *rows)]
        widths = [max(map(cell_len, column)) for column in zip(*escaped_rows, strict=True)]
        if sum(widths) + 2 * len(widths) <= screen.width and not any(
            "\n" in cell for row in escaped_rows for cell in row
        ):
            numbers = set(right)
            blanks = (
                [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)]
                for row in escaped_rows
            )
            lines = [
                "  ".join(
                    blank + cell if at in numbers else cell + blank
                    for at, (cell, blank) in enumerate(zip(row, empty, strict=True))
                )
                for row, empty in zip(escaped_rows, blanks, strict=True)
            ]
            screen.print(Text(lines[0].rstrip(), style="bold"))
            sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines[1:]))
            sys.stdout.flush()
            return
    screen.print(_make_table(headings, rows, right=right))


def print_text(text: str | Text = "", *, style: str = "") -> None:
    """Prints text to stdout. On a terminal it is styled, and control characters are removed."""
    if style or not isinstance(text, str):
        from rich.text import Text

        screen = make_console()
        if screen.is_terminal:
            screen.print(Text(escape_invisible(text), style=style) if isinstance(text, str) else text)
            return
    plain = text if isinstance(text, str) else text.plain
    # rich would replace tabs by spaces.
    sys.stdout.write(f"{escape_invisible(plain) if sys.stdout.isatty() else plain}\n")
    sys.stdout.flush()  # as rich does, to keep the order with stderr


def print_note(text: str) -> None:
    """Prints a message to stderr."""
    print(escape_invisible(text), file=sys.stderr)


def terminal_width(stream: TextIO, otherwise: int = 80) -> int:
    """The width of a stream's terminal in columns; `otherwise` without a terminal or a known width."""
    if not stream.isatty():
        return otherwise
    columns = os.environ.get("COLUMNS", "")
    try:
        return (
            int(columns)
            if columns.isdecimal() and int(columns)
            else os.get_terminal_size(stream.fileno()).columns or otherwise
        )
    except OSError:
        return otherwise


def truncate(text: str, width: int) -> str:
    """Cuts a text to a number of columns."""
    remaining_width = width
    for end, char in enumerate(text):
        if (remaining_width := remaining_width - display_width(char)) < 0:
            return text[:end]
    return text


def check_writable(target: Path, option: str, *, folder: bool = False) -> None:
    """Checks, before the work starts, that a file or `folder` can be written. Raises `OrchestraError` C023."""
    existing_path = next(path for path in (target, *target.absolute().parents) if os.path.lexists(path))
    if existing_path.is_dir() != (folder or existing_path != target):
        reason = "it is a folder" if existing_path.is_dir() else f"{existing_path} is not a folder"
    elif not os.access(existing_path, os.W_OK):
        reason = f"{existing_path} is not writable"
    else:
        return
    raise _write_error(target, reason, option)


def check_replaceable(target: Path, option: str) -> None:
    """Checks that a file can be replaced atomically, which depends on its folder. Raises `OrchestraError` C023."""
    if target.is_dir():
        raise _write_error(target, "it is a folder", option)
    check_writable(target.parent, option, folder=True)


@contextlib.contextmanager
def writing_output(target: Path, option: str) -> Iterator[None]:
    """Creates the folder of `target`, and raises `OrchestraError` C023 if writing within the context fails."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        yield
    except OSError as error:
        raise _write_error(target, error.strerror or str(error), option) from error


def _write_error(target: Path, reason: str, option: str) -> OrchestraError:
    return OrchestraError("C023", f"{target} cannot be written: {reason}", hint=f"choose another one with {option}")


REPORT_SECONDS = 5.0
"""Seconds between two lines if stderr is not a terminal."""


class ProgressMeter:
    """Progress of a batch: rows, rate and remaining time."""

    def __init__(self, total: int, done: int, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._total, self._initial, self._done, self._failed, self._abstained = total, done, done, 0, 0
        self._monotonic = monotonic
        self._started = self._last_report = monotonic()
        self._bar: Any = None

    def __enter__(self) -> Self:
        if sys.stderr.isatty():
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

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
        """Counts one more written row."""
        self._done += 1
        self._failed += failed
        self._abstained += abstained
        if self._bar is not None:
            self._bar.update(0, completed=self._done, description=self.rates())
        elif (now := self._monotonic()) - self._last_report >= REPORT_SECONDS:
            self._last_report = now
            print(f"{self._done} of {self._total} rows, {self.rates()}", file=sys.stderr)

    def rates(self) -> str:
        """The rate, the remaining time and the number of rows without an output."""
        elapsed = max(self._monotonic() - self._started, 1e-9)
        rate = (self._done - self._initial) / elapsed
        rate_texts = [f"{rate:.1f} rows/s"]
        if rate and self._done < self._total:
            rate_texts.append(f"{format_duration((self._total - self._done) / rate)} left")
        if self._abstained:
            rate_texts.append(f"{self._abstained} abstained")
        if self._failed:
            rate_texts.append(f"{self._failed} failed")
        return ", ".join(rate_texts)


class StatusLine:
    """Shows the progress of the fleet; a `ProgressCallback` of `orchestra.fleet.progress`."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._step, self._last_report, self._line_open = ("", ""), float("-inf"), False
        self._console: Any = None
        """Prints model text; created at the first text."""
        self._text_open = False
        """True within an unfinished line of model text."""

    def __call__(self, progress: Progress) -> None:
        """Shows a step: each new one at once, a continuing one every few seconds, or at once on a terminal."""
        now = self._monotonic()
        step = progress.message, progress.phase
        new = step != self._step
        terminal = sys.stderr.isatty()
        if not new and now - self._last_report < (0.1 if terminal else REPORT_SECONDS):
            return
        new_message = progress.message != self._step[0]
        self._step, self._last_report = step, now
        text = escape_invisible(progress.message, keep="") + progress.format_amount()
        if not terminal:
            self.close()
            print(text, file=sys.stderr)
            return
        if new_message and self._line_open:
            sys.stderr.write("\n")
        self.show_line(text)

    def show_line(self, text: str) -> None:
        """Rewrites the status line on a terminal; without effect elsewhere."""
        if sys.stderr.isatty():
            if self._text_open:
                self.close()
            visible_text = truncate(escape_invisible(text, keep=""), terminal_width(sys.stderr) - 1)
            sys.stderr.write(f"\r\x1b[2K{visible_text}")
            sys.stderr.flush()
            self._line_open = True

    def show_text(self, text: str) -> None:
        """Appends model text, dimmed on a terminal."""
        if self._line_open:
            self.close()
        if self._console is None:
            self._console = make_console(stderr=True)
        self._console.print(escape_invisible(text), style="dim", end="")
        self._text_open = not text.endswith("\n")

    def close(self) -> None:
        """Ends the current status line or text."""
        if self._line_open or self._text_open:
            sys.stderr.write("\n")
            self._line_open = self._text_open = False


def is_interactive() -> bool:
    """True if a user at the terminal of this process can answer questions."""
    return sys.platform != "win32" and sys.stdin.isatty() and sys.stderr.isatty()
