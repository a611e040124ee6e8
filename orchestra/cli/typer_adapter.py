"""Commands: functions of a module, entered into Typer; what a command was asked is one frozen dataclass, whose fields are its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import update_wrapper
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import typer

from orchestra.cli.exit_codes import Verb

Work = Callable[..., None]


def add(group: typer.Typer, work: Work, name: str | None = None, *, panel: str | None = None, epilog: str | None = None) -> None:
    """Enters a function as a command, under its own name where none is given."""
    group.command(name, cls=Verb, rich_help_panel=panel, epilog=epilog)(spread(work))


def spread(work: Work) -> Work:
    """The same function as Typer reads it: a parameter that is a dataclass stands there as its fields, each an option or an argument."""
    hints = get_type_hints(work, include_extras=True)
    asked = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
    apart = {name: [field.name for field in fields(kind)] for name, kind in asked.items()}

    def command(**given: Any) -> None:
        made = {name: kind(**{field: given.pop(field) for field in apart[name]}) for name, kind in asked.items()}
        work(**given, **made)

    update_wrapper(command, work, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    command.__annotations__ = {}  # Typer reads them beside the signature, which says all
    parameters = [each for own in signature(work).parameters.values() for each in _parameters(own, hints[own.name])]
    vars(command)["__signature__"] = Signature(parameters)
    return command


def leave(code: int) -> None:
    """Ends the command with an exit code, unless that is 0."""
    if code:
        raise typer.Exit(code)


def _parameters(own: Parameter, kind: Any) -> Iterator[Parameter]:
    """What a parameter is to Typer: itself, or the fields of what it is made of."""
    if not is_dataclass(kind):
        yield Parameter(own.name, Parameter.KEYWORD_ONLY, default=own.default, annotation=kind)
        return
    types = get_type_hints(kind, include_extras=True)
    for field in fields(kind):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])
