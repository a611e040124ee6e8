"""How verbs fail: the one place where errors become text and exit codes."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from orchestra.cli.output import print_json
from orchestra.core.errors import InputErrors, OrchestraError
from orchestra.core.trust import Untrusted
from orchestra.core.untrusted_text import visible

INTERRUPTED = 130
TERMINATED = 143
"""128 + SIGTERM: the run was let go of, and can be resumed."""
WAITING = 5
"""The run waits for a person."""
BROKEN_PIPE = 141
"""128 + SIGPIPE, what every filter returns whose reader went away."""
STATUS_CODES: Mapping[str, int] = {
    "done": 0,
    "failed": 1,
    "abstained": 3,
    "budget": 4,
    "waiting": WAITING,
    "cancelled": INTERRUPTED,
}
"""Exit codes of a run's statuses (docs/reference/glossary.md)."""
NO_ROOM = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
"""What systems say of a disk that takes no more."""


class Verb(TyperCommand):
    """A command whose errors are shown and end in their exit codes."""

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        as_json = bool(ctx.params.get("as_json"))
        try:
            return self._carry_out(ctx, as_json=as_json)
        except BrokenPipeError as error:
            # Whoever read our output has gone. What is still buffered must not raise again at exit.
            _drop_stdout()
            raise typer.Exit(BROKEN_PIPE) from error
        except OSError as error:
            if error.errno not in NO_ROOM:
                raise
            raise typer.Exit(_full(error, as_json=as_json)) from error
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error

    def _carry_out(self, ctx: Any, *, as_json: bool) -> Any:
        try:
            result = self._trusted(ctx)
        except OrchestraError as error:
            show(error, as_json=as_json)
            sys.stdout.flush()
            raise typer.Exit(error.exit_code) from error
        sys.stdout.flush()
        return result

    def _trusted(self, ctx: Any) -> Any:
        """Runs the command, and once more where it was refused and a person then trusts the project: nothing has begun before that."""
        try:
            return super().invoke(ctx)
        except Untrusted as error:
            from orchestra.cli.trust import is_granted_at_terminal

            if not is_granted_at_terminal(error):
                raise
        return super().invoke(ctx)


def _full(error: OSError, *, as_json: bool) -> int:
    """Shows that a disk is full, be it the one that stdout goes to; gives the exit code."""
    fault = OrchestraError(
        "C023", f"{error.filename or 'the output'} cannot be written: {error.strerror}", hint="make room, or write to another place"
    )
    if error.filename is None:
        _drop_stdout()  # a write, which does not know what it wrote to: what is still buffered must not raise again
    show(fault, as_json=as_json)
    return fault.exit_code


def _drop_stdout() -> None:
    """What is still to be written goes nowhere from here on."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show(error: OrchestraError, *, as_json: bool = False) -> None:
    """Prints an error: as text to stderr, and as JSON to stdout where a program reads it."""
    print(report(error), file=sys.stderr)
    if not as_json:
        print(f"\norchestra explain {error.code} says more", file=sys.stderr)
    else:
        print_json({"error": as_data(error)})


def report(error: OrchestraError) -> str:
    """An error's whole text, made visible; files of the current folder are named as one would type them."""
    return visible(str(error)).replace(f"--> {Path.cwd()}{os.sep}", "--> ")


def parts(error: OrchestraError) -> tuple[OrchestraError, ...]:
    """The faults that an error reports."""
    return error.errors if isinstance(error, InputErrors) else (error,)


def as_data(error: OrchestraError) -> dict[str, Any]:
    """An error as JSON."""
    data: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.place:
        data["place"] = {"file": error.place.file, "line": error.place.line, "column": error.place.column}
    if error.hint:
        data["hint"] = error.hint
    if error.why:
        data["why"] = error.why
    if isinstance(error, InputErrors):
        data["errors"] = [as_data(part) for part in error.errors]
    return data
