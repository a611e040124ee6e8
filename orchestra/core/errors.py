"""Errors of Orchestra: a code, a message, a location and a hint.

A code is a letter for the area and three digits. `orchestra explain CODE` prints its explanation from
`orchestra/core/error_texts/*.toml`. Areas: A agents and prompts, C configuration and command line, D documents, E
engine, F fleet, J journal, L workflow language (files and expressions), M model output, N learning, R router, S server,
T tools, V verification, W Python workflows.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import Any, ClassVar, Self


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """A location in a text: file, 1-based line and column, and the text of the line."""

    file: str
    line: int
    column: int = 1
    text: str = ""
    width: int = 1

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}"


MAX_SHOWN_CHARACTERS = 160
"""Maximum number of characters of a line in a report."""


def _visible_part(text: str, column: int) -> tuple[str, int]:
    """Returns the part of a line around a column, with control characters replaced, and the column in that part."""
    start = max(0, column - 1 - MAX_SHOWN_CHARACTERS // 2) if len(text) > MAX_SHOWN_CHARACTERS else 0
    part = text[start : start + MAX_SHOWN_CHARACTERS]
    visible_text = "".join(
        char if char.isprintable() else " " if char == "\t" else "\N{REPLACEMENT CHARACTER}" for char in part
    )
    return visible_text, column - start


def display_width(text: str) -> int:
    """Returns the number of terminal columns of a text: wide characters take two, combining characters none."""
    return len(text) if text.isascii() else sum(map(_character_width, text))


def _character_width(char: str) -> int:
    return 0 if unicodedata.category(char) in ("Mn", "Me") else 2 if unicodedata.east_asian_width(char) in "WF" else 1


class OrchestraError(Exception):
    """Base class of all errors. `str(error)` is the full report with the source line and a caret."""

    exit_code: ClassVar[int] = 1
    run: str = ""
    """The id of the run that failed with this error; empty if there is none."""
    node: str = ""
    """The node that failed first."""
    frames: tuple[str, ...] = ()
    """Traceback of the tool's own code: `FILE:LINE in FUNCTION`, outermost frame first."""

    def __init__(
        self, code: str, message: str, *, location: SourceLocation | None = None, hint: str = "", why: str = ""
    ) -> None:
        self.code, self.message, self.location, self.hint, self.why = code, message, location, hint, why
        super().__init__(message)

    def with_run(self, run: str, node: str = "", frames: tuple[str, ...] = ()) -> Self:
        """Adds the run, the node and the frames to this error and returns it."""
        self.run, self.node, self.frames = run, node, frames
        return self

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.code!r}, {self.message!r})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _restore_error, (type(self), self.args), self.__dict__

    def __str__(self) -> str:
        lines = [f"{self.code}: {self.message}"]
        margin = "  "
        if location := self.location:
            margin = " " * len(str(location.line))
            lines.append(f"{margin}--> {location}")
            if location.text:
                text, column = _visible_part(location.text, location.column)
                before, under = text[: column - 1].ljust(column - 1), text[column - 1 : column - 1 + location.width]
                caret = " " * display_width(before) + "^" * max(1, display_width(under))
                lines += [f"{margin} |", f"{location.line} | {text}", f"{margin} | {caret}"]
        if self.why:
            lines.append(f"{margin} = why: {self.why}")
        if self.hint:
            lines.append(f"{margin} = help: {self.hint}")
        return "\n".join(lines)


def _restore_error(kind: type[OrchestraError], args: tuple[Any, ...]) -> OrchestraError:
    """Restores an error that was unpickled in another process; its attributes are set afterwards."""
    return kind.__new__(kind, *args)


class InputError(OrchestraError):
    """Invalid input, usage, file or configuration. Nothing was started."""

    exit_code = 2


class InputErrors(InputError):
    """Several errors of one file. `errors` lists them in the order of their locations."""

    def __init__(self, errors: list[InputError]) -> None:
        self.errors = tuple(errors)
        first = errors[0]
        super().__init__(first.code, first.message, location=first.location, hint=first.hint, why=first.why)

    def __str__(self) -> str:
        return "\n\n".join(str(error) for error in self.errors)


class RunFailed(OrchestraError):
    """The run failed."""


class Abstained(OrchestraError):
    """The output of the run was withheld. This is a valid outcome; it is raised only if the caller needs the value."""

    exit_code = 3


class BudgetExceeded(RunFailed):
    """A run that would have spent more than its budget."""

    exit_code = 4


class FleetError(OrchestraError):
    """A server that cannot be started, reached or used."""
