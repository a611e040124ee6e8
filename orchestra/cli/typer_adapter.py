"""Registers functions as Typer commands, and maps errors to messages and exit codes.

A command takes its options as frozen dataclasses: each field is an option or an argument.
"""

from __future__ import annotations

import errno
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import update_wrapper
from inspect import Parameter, Signature, cleandoc, signature
from itertools import pairwise
from pathlib import Path
from typing import Any, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from orchestra.cli.output import is_interactive, print_json
from orchestra.core.errors import InputError, InputErrors, OrchestraError
from orchestra.core.trust import ProjectGuard, TrustStore, UntrustedError
from orchestra.core.untrusted_text import escape_invisible, shorten

INTERRUPTED = 130
TERMINATED = 143
"""128 + SIGTERM: the run was released and can be resumed."""
WAITING = 5
"""The run waits for a person."""
BROKEN_PIPE = 141
"""128 + SIGPIPE, as of every filter whose reader has closed the pipe."""
STATUS_CODES: Mapping[str, int] = {
    "done": 0,
    "failed": 1,
    "abstained": 3,
    "budget": 4,
    "waiting": WAITING,
    "cancelled": INTERRUPTED,
}
"""Exit codes of a run's statuses (docs/reference/glossary.md)."""
INPUT_OPTION, INPUT_METAVAR = "-i", "KEY=VALUE"
"""The option of all commands that take inputs."""
KEY_VALUE = re.compile(r"[^\W\d]\w*=")
_ALL_ARGUMENTS = "orchestra.all_arguments"
"""The key of a command's arguments in its context."""
DISK_FULL_ERRNOS = tuple(getattr(errno, name) for name in ("ENOSPC", "EDQUOT", "EFBIG") if hasattr(errno, name))
"""Error numbers of a full disk."""


class OrchestraCommand(TyperCommand):
    """A command that prints its errors and exits with their codes."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parses the arguments. Superfluous ones of a command with inputs are reported by `invoke`, with a hint."""
        if any(getattr(param, "metavar", "") == INPUT_METAVAR for param in self.params):
            ctx.allow_extra_args = True
            ctx.meta[_ALL_ARGUMENTS] = list(args)
        return super().parse_args(ctx, args)

    def invoke(self, ctx: Any) -> Any:
        """Runs the command."""
        as_json = bool(ctx.params.get("as_json"))
        try:
            return self._execute(ctx, as_json=as_json)
        except BrokenPipeError as error:
            # The reader of stdout has closed it. Buffered output must not raise again at exit.
            _drop_stdout()
            raise typer.Exit(BROKEN_PIPE) from error
        except OSError as error:
            if error.errno not in DISK_FULL_ERRNOS:
                raise
            raise typer.Exit(_show_disk_full(error, as_json=as_json)) from error
        except KeyboardInterrupt as error:
            print("interrupted", file=sys.stderr)
            raise typer.Exit(INTERRUPTED) from error

    def _execute(self, ctx: Any, *, as_json: bool) -> Any:
        try:
            result = self._execute_trusted(ctx)
        except OrchestraError as error:
            show_error(error, as_json=as_json)
            sys.stdout.flush()
            raise typer.Exit(error.exit_code) from error
        sys.stdout.flush()
        return result

    def _execute_trusted(self, ctx: Any) -> Any:
        """Runs the command. An untrusted project is refused before any work; if the user then trusts it, the command
        runs once more.
        """
        if ctx.args:
            raise _superfluous_argument_error(ctx)
        try:
            return super().invoke(ctx)
        except UntrustedError as error:
            if not ask_for_trust(error):
                raise
        return super().invoke(ctx)


def _superfluous_argument_error(ctx: Any) -> InputError:
    """The error for arguments that no parameter takes; usually inputs without their option."""
    hint, rest = f"an input is written {INPUT_OPTION} {INPUT_METAVAR}", list(ctx.args)
    if all(KEY_VALUE.match(argument) for argument in rest):
        command = ctx.command_path.split()
        for before, argument in pairwise(["", *ctx.meta[_ALL_ARGUMENTS]]):
            if argument in rest and before != INPUT_OPTION:
                rest.remove(argument)
                command.append(INPUT_OPTION)
            command.append(argument)
        hint = f"{hint}: {shlex.join(argument for argument in command if argument != '--')}"
    return InputError("C010", f"unexpected argument {shorten(ctx.args[0], 60)!r}", hint=hint)


def _show_disk_full(error: OSError, *, as_json: bool) -> int:
    """Prints the error of a full disk, also of the disk behind stdout. Returns the exit code."""
    fault = OrchestraError(
        "C023",
        f"{error.filename or 'the output'} cannot be written: {error.strerror}",
        hint="free some disk space, or write elsewhere",
    )
    if error.filename is None:
        _drop_stdout()  # a failed write to stdout: the buffered rest must not raise again
    show_error(fault, as_json=as_json)
    return fault.exit_code


def _drop_stdout() -> None:
    """Discards all further output on stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def show_error(error: OrchestraError, *, as_json: bool = False) -> None:
    """Prints an error as text to stderr and, with `as_json`, as JSON to stdout."""
    print(format_error(error), file=sys.stderr)
    if not as_json:
        print(f"\nfor details: orchestra explain {error.code}", file=sys.stderr)
    else:
        print_json({"error": error_data(error)})


def format_error(error: OrchestraError) -> str:
    """The full text of an error, without control characters. Files in the current folder get relative paths."""
    return escape_invisible(str(error)).replace(f"--> {Path.cwd()}{os.sep}", "--> ")


def split_error(error: OrchestraError) -> tuple[OrchestraError, ...]:
    """The single errors of an error."""
    return error.errors if isinstance(error, InputErrors) else (error,)


def error_data(error: OrchestraError) -> dict[str, Any]:
    """Returns an error as JSON values."""
    data: dict[str, Any] = {"code": error.code, "message": error.message}
    if error.location:
        data["place"] = {"file": error.location.file, "line": error.location.line, "column": error.location.column}
    if error.hint:
        data["hint"] = error.hint
    if error.why:
        data["why"] = error.why
    if isinstance(error, InputErrors):
        data["errors"] = [error_data(part) for part in error.errors]
    return data


class OrchestraGroup(TyperGroup):
    """A group whose help lists its commands by panel, in plain text: Rich would take longer to import than the rest."""

    def format_commands(self, ctx: Any, formatter: Any) -> None:
        """Writes a section for each panel, with the whole summary of each command."""
        panels: dict[str, list[tuple[str, str]]] = {}
        for name in self.list_commands(ctx):
            command = self.get_command(ctx, name)
            if command is not None and not command.hidden:
                panel = getattr(command, "rich_help_panel", None)
                summary = (command.help or "").partition("\n\n")[0]
                panels.setdefault(panel if isinstance(panel, str) else "Commands", []).append((name, summary))
        for panel, rows in panels.items():
            with formatter.section(panel):
                formatter.write_dl(rows)


CommandFunction = Callable[..., None]


def add_command(
    group: typer.Typer,
    function: CommandFunction,
    name: str | None = None,
    *,
    panel: str | None = None,
    epilog: str | None = None,
) -> None:
    """Registers a function as a command; its default name is that of the function."""
    group.command(name, cls=OrchestraCommand, rich_help_panel=panel, epilog=epilog)(expand_arguments(function))


def expand_arguments(function: CommandFunction) -> CommandFunction:
    """Returns a function with the same effect for Typer: each dataclass parameter is replaced by its fields."""
    hints = get_type_hints(function, include_extras=True)
    option_kinds = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
    apart = {name: [field.name for field in fields(kind)] for name, kind in option_kinds.items()}

    def command(**values: Any) -> None:
        option_groups = {
            name: kind(**{field: values.pop(field) for field in apart[name]}) for name, kind in option_kinds.items()
        }
        function(**values, **option_groups)

    update_wrapper(command, function, assigned=("__module__", "__name__", "__qualname__"))
    command.__doc__ = _join_lines(function.__doc__)
    command.__annotations__ = {}  # Typer reads annotations beside the signature
    parameters = [
        parameter
        for own_parameter in signature(function).parameters.values()
        for parameter in _expand_parameter(own_parameter, hints[own_parameter.name])
    ]
    vars(command)["__signature__"] = Signature(parameters)
    return command


def _join_lines(text: str | None) -> str | None:
    """Joins the lines of each paragraph, because Typer keeps the line breaks of a docstring."""
    if text is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in cleandoc(text).split("\n\n"))


def exit_with(code: int) -> None:
    """Exits with a code other than 0."""
    if code:
        raise typer.Exit(code)


def _expand_parameter(parameter: Parameter, annotation: Any) -> Iterator[Parameter]:
    """Yields the Typer parameters of one parameter: itself, or the fields of its dataclass."""
    if not is_dataclass(annotation):
        yield Parameter(parameter.name, Parameter.KEYWORD_ONLY, default=parameter.default, annotation=annotation)
        return
    types = get_type_hints(annotation, include_extras=True)
    for field in fields(annotation):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])


def ask_for_trust(error: UntrustedError) -> bool:
    """Asks the user at the terminal to trust a project, and records a yes. Returns False without a terminal or without
    a yes.
    """
    if not is_interactive():
        return False
    sys.stderr.write(f"{describe_needs(error.guard)}\nTrust it? [y/N] ")
    sys.stderr.flush()
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        return False
    TrustStore.from_environment(os.environ).add(error.guard)
    return True


def describe_needs(guard: ProjectGuard) -> str:
    """Lists what the project may do once it is trusted."""
    if not guard.requirements:
        return escape_invisible(f"{guard.folder} needs no trust.")
    return escape_invisible(
        "\n".join([f"A trusted {guard.folder} may", *(f"  - {need}" for need in guard.requirements)])
    )
