"""Commands: functions of a module, entered into Typer; what a command was asked is one frozen dataclass, whose fields are its options."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import MISSING, fields, is_dataclass
from functools import update_wrapper
from inspect import Parameter, Signature, signature
from typing import Any, get_type_hints

import typer

from orchestra.cli.exit_codes import OrchestraCommand

CommandFunction = Callable[..., None]


def add_command(
    group: typer.Typer,
    function: CommandFunction,
    name: str | None = None,
    *,
    panel: str | None = None,
    epilog: str | None = None,
) -> None:
    """Enters a function as a command, under its own name where none is given."""
    group.command(name, cls=OrchestraCommand, rich_help_panel=panel, epilog=epilog)(expand_arguments(function))


def expand_arguments(function: CommandFunction) -> CommandFunction:
    """The same function as Typer reads it: a parameter that is a dataclass stands there as its fields, each an option or an argument."""
    hints = get_type_hints(function, include_extras=True)
    asked = {name: kind for name, kind in hints.items() if is_dataclass(kind) and isinstance(kind, type)}
    apart = {name: [field.name for field in fields(kind)] for name, kind in asked.items()}

    def command(**given: Any) -> None:
        made = {name: kind(**{field: given.pop(field) for field in apart[name]}) for name, kind in asked.items()}
        function(**given, **made)

    update_wrapper(command, function, assigned=("__module__", "__name__", "__qualname__", "__doc__"))
    command.__annotations__ = {}  # Typer reads them beside the signature, which says all
    parameters = [
        each for own in signature(function).parameters.values() for each in _expand_parameter(own, hints[own.name])
    ]
    vars(command)["__signature__"] = Signature(parameters)
    return command


def exit_with(code: int) -> None:
    """Ends the command with an exit code, unless that is 0."""
    if code:
        raise typer.Exit(code)


def _expand_parameter(parameter: Parameter, annotation: Any) -> Iterator[Parameter]:
    """What a parameter is to Typer: itself, or the fields of what it is made of."""
    if not is_dataclass(annotation):
        yield Parameter(parameter.name, Parameter.KEYWORD_ONLY, default=parameter.default, annotation=annotation)
        return
    types = get_type_hints(annotation, include_extras=True)
    for field in fields(annotation):
        default = Parameter.empty if field.default is MISSING else field.default
        yield Parameter(field.name, Parameter.KEYWORD_ONLY, default=default, annotation=types[field.name])
