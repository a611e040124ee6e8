"""What verbs print: JSON for programs; for people plain text, and rich's tables where they help."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from orchestra.core.errors import display_width
from orchestra.core.untrusted_text import escape_invisible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text


def print_json(value: Any) -> None:
    """One line of JSON on stdout, keys in the order given."""
    import msgspec

    sys.stdout.write(json_line(msgspec.json.encode(value)))


def json_line(encoded: bytes) -> str:
    """JSON as a line of stdout: what a terminal would obey, and what the encoding there has no sign for, are escapes of JSON in it."""
    text = encoded.decode()
    if text.isascii() and "\x7f" not in text:
        return text + "\n"
    try:
        text.encode(sys.stdout.encoding or "utf-8")
    except UnicodeEncodeError:
        text = _NON_ASCII.sub(_json_escape, text)
    return _CONTROL_CHARACTERS.sub(_json_escape, text) + "\n"


MAX_RICH_ROWS = 200
"""Rows of a table that is long."""
_NON_ASCII = re.compile("[^\x00-\x7f]")
_CONTROL_CHARACTERS = re.compile(
    "[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]"
)
"""Control, bidi and invisible characters that JSON leaves as they are; outside of strings it has none of them."""


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def make_console(*, stderr: bool = False) -> Console:
    """A console that leaves lines as long as they are where nobody looks at a terminal."""
    from rich.console import Console

    class PlainConsole(Console):
        def on_broken_pipe(self) -> None:
            """Lets the verb's error handling see it; rich would end the process with status 1."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000
    return PlainConsole(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def make_table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> Table:
    """A table of escaped texts; the columns in `right` are numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = set(right)
    for index, heading in enumerate(headings):
        made.add_column(heading, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(escape_invisible(cell)) for cell in row))
    return made


def print_table(headings: Sequence[str], rows: Sequence[Sequence[str]], *, right: Iterable[int] = ()) -> None:
    """The same on stdout. A long one that fits is laid out here, for rich takes a millisecond a row."""
    screen = make_console()
    if len(rows) > MAX_RICH_ROWS:
        from rich.cells import cell_len
        from rich.text import Text

        shown = [[escape_invisible(cell) for cell in row] for row in (headings, *rows)]
        widths = [max(map(cell_len, column)) for column in zip(*shown, strict=True)]
        if sum(widths) + 2 * len(widths) <= screen.width and not any("\n" in cell for row in shown for cell in row):
            numbers = set(right)
            blanks = (
                [" " * (width - cell_len(cell)) for width, cell in zip(widths, row, strict=True)] for row in shown
            )
            lines = [
                "  ".join(
                    blank + cell if at in numbers else cell + blank
                    for at, (cell, blank) in enumerate(zip(row, empty, strict=True))
                )
                for row, empty in zip(shown, blanks, strict=True)
            ]
            screen.print(Text(lines[0].rstrip(), style="bold"))
            sys.stdout.write("".join(f"{line.rstrip()}\n" for line in lines[1:]))
            sys.stdout.flush()
            return
    screen.print(make_table(headings, rows, right=right))


def print_text(text: str | Text = "", *, style: str = "") -> None:
    """A text for a person on stdout: exactly as it is; on a terminal in its style, and without what that would obey."""
    if style or not isinstance(text, str):
        from rich.text import Text

        screen = make_console()
        if screen.is_terminal:
            screen.print(Text(escape_invisible(text), style=style) if isinstance(text, str) else text)
            return
    plain = text if isinstance(text, str) else text.plain
    # Not by way of rich, which makes spaces of tabs.
    sys.stdout.write(f"{escape_invisible(plain) if sys.stdout.isatty() else plain}\n")
    sys.stdout.flush()  # as rich does: what stands on stderr keeps its place beside it


def print_note(text: str) -> None:
    """A remark on stderr, beside the output that a program may read."""
    print(escape_invisible(text), file=sys.stderr)


def terminal_width(stream: TextIO, otherwise: int = 80) -> int:
    """The columns of the terminal that a stream is; `otherwise` where it is none, or does not say."""
    if not stream.isatty():
        return otherwise
    told = os.environ.get("COLUMNS", "")
    try:
        return (
            int(told) if told.isdecimal() and int(told) else os.get_terminal_size(stream.fileno()).columns or otherwise
        )
    except OSError:
        return otherwise


def truncate(text: str, width: int) -> str:
    """As much of a text as stands in so many columns."""
    left = width
    for end, char in enumerate(text):
        if (left := left - display_width(char)) < 0:
            return text[:end]
    return text


def format_time(at: float) -> str:
    """A time of a journal as people read it; the number itself where it is none, for a journal may be damaged."""
    from datetime import datetime

    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def format_duration(value: float) -> str:
    """A duration as people read it."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def format_money(value: float) -> str:
    """What something cost, in the currency of the fleet's prices; empty for nothing."""
    if value <= 0:
        return ""
    if value >= 1:
        return f"{value:,.2f}"
    return f"{value:.6f}" if value >= 1e-6 else "<0.000001"


def format_size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
