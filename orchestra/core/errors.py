"""Every error of Orchestra: a code, a message, a place, a hint.

A code is one capital letter for the room and three digits; `orchestra explain CODE` reads its explanation from
`orchestra/core/error_texts/*.toml`. Rooms: A agents and prompts, C configuration and command line, E engine, F fleet,
J journal, L workflow language (files and expressions), M model output, N learning, R router, T tools, V verification,
W Python workflows.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where something stands in a text: a file, a 1-based line and column, and the line itself."""

    file: str
    line: int
    column: int = 1
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


MAX_SHOWN_CHARACTERS = 160
"""Characters of a line that a report shows at most."""


def _visible_part(text: str, column: int) -> tuple[str, int]:
    """The part of a line around a column, with what a terminal would obey made visible, and the column in it."""
    start = max(0, column - 1 - MAX_SHOWN_CHARACTERS // 2) if len(text) > MAX_SHOWN_CHARACTERS else 0
    part = text[start : start + MAX_SHOWN_CHARACTERS]
    shown = "".join(
        char if char.isprintable() else " " if char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in part
    )
    return shown, column - start


def display_width(text: str) -> int:
    """The columns that a text takes on a terminal: wide characters take two, combining ones none."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(char: str) -> int:
    return 0 if unicodedata.category(char) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(char) in "WF" else 1


class OrchestraError(Exception):
    """The base of all errors; `str(error)` is the full report, with the line shown and a caret under the fault."""

    exit_code: ClassVar[int] = 1
    run: str = ""
    """The id of the run that it ended; empty where there is none."""
    node: str = ""
    """The node at which it began."""
    frames: tuple[str, ...] = ()
    """Where a tool's own code raised: `FILE:LINE in FUNCTION`, the outermost first."""

    def __init__(
        self, code: str, message: str, *, location: SourceLocation | None = None, hint: str = "", why: str = ""
    ) -> None:
        self.code, self.message, self.location, self.hint, self.why = code, message, location, hint, why
        super().__init__(message)

    def with_run(self, run: str, node: str = "", frames: tuple[str, ...] = ()) -> Self:
        """The same error, which says what run it ended, and where."""
        self.run, self.node, self.frames = run, node, frames
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_error, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        margin = "  "
        if place := self.location:
            margin = " " * len(str(place.line))
            lines.append(f"{margin}--> {place}")
            if place.text:
                text, column = _visible_part(place.text, place.column)
                before, under = text[: column - 1].ljust(column - 1), text[column - 1 : column - 1 + place.width]
                caret = " " * display_width(before) + "^" * max(1, display_width(under))
                lines += [f"{margin} |", f"{place.line} | {text}", f"{margin} | {caret}"]
        if self.why:
            lines.append(f"{margin} = why: {self.why}")
        if self.hint:
            lines.append(f"{margin} = help: {self.hint}")
        return "\n".join(lines)


def _restore_error(kind: type[OrchestraError], args: tuple[Any, ...]) -> OrchestraError:
    """An error as another process gets it, whose attributes follow."""
    return kind.__new__(kind, *args)


class InputError(OrchestraError):
    """Bad input, usage, file or configuration: nothing was started."""

    exit_code = 2


class InputErrors(InputError):
    """Several faults of one file, found in one reading; `errors` has them in the order of their places."""

    def __init__(self, errors: list[InputError]) -> None:
        self.errors = tuple(errors)
        first = errors[0]
        super().__init__(first.code, first.message, location=first.location, hint=first.hint, why=first.why)

    def __str__(self) -> str:
        return "\n\n".join(str(error) for error in self.errors)


class RunFailed(OrchestraError):
    """A run that ended in a failure."""


class Abstained(OrchestraError):
    """A run whose output was withheld: a valid outcome, raised only where a plain value was demanded."""

    exit_code = 3


class BudgetExceeded(RunFailed):
    """A run that would have spent more than its budget."""

    exit_code = 4


class FleetError(OrchestraError):
    """A server that cannot be started, reached or used."""
