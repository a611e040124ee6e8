"""What verbs print: JSON for programs; for people plain text, and rich's tables where they help."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from orchestra.values.text import visible

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_json(value: Any) -> None:
    """One line of JSON on stdout, keys in the order given; what a terminal would obey stands in it as an escape of JSON."""
    import msgspec

    text = msgspec.json.encode(value).decode()
    sys.stdout.write((text if text.isascii() and "\x7f" not in text else _OBEYED.sub(_json_escape, text)) + "\n")


_OBEYED = re.compile("[\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff]")
"""Control, bidi and invisible characters that JSON leaves as they are; outside of strings it has none of them."""


def _json_escape(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def console(*, stderr: bool = False) -> Console:
    """A console that leaves lines as long as they are where nobody looks at a terminal."""
    from rich.console import Console

    class Plain(Console):
        def on_broken_pipe(self) -> None:
            """Lets the verb's error handling see it; rich would end the process with status 1."""
            raise BrokenPipeError

    stream = sys.stderr if stderr else sys.stdout
    width = None if stream.isatty() else 10_000
    return Plain(file=stream, width=width, highlight=False, markup=False, emoji=False, soft_wrap=True)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = ()) -> Table:
    """A table of escaped texts; the columns in `right` are numbers."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    numbers = set(right)
    for index, heading in enumerate(headings):
        made.add_column(heading, justify="right" if index in numbers else "left", overflow="fold")
    for row in rows:
        made.add_row(*(Text(visible(cell)) for cell in row))
    return made


def say(text: str = "", *, style: str = "") -> None:
    """A text for a person on stdout, exactly as it is."""
    from rich.text import Text

    console().print(Text(text, style=style))


def note(text: str) -> None:
    """A remark on stderr, beside the output that a program may read."""
    print(visible(text), file=sys.stderr)


def moment(at: float) -> str:
    """A time of a journal as people read it; the number itself where it is none, for a journal may be damaged."""
    from datetime import datetime

    try:
        return datetime.fromtimestamp(at).astimezone().strftime("%Y-%m-%d %H:%M:%S")
    except (ValueError, OverflowError, OSError):
        return f"{at:g}"


def seconds(value: float) -> str:
    """A duration as people read it."""
    if value < 10:
        return f"{value:.2f} s"
    if value < 120:
        return f"{value:.0f} s"
    minutes = value / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def size(count: float) -> str:
    """A number of bytes as people read it."""
    for unit in ("bytes", "kB", "MB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"
