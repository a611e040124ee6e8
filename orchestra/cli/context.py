"""Loads the settings of a command and opens an `Orchestra`."""

from __future__ import annotations

import sys
from contextlib import AbstractAsyncContextManager, ExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias

import typer

from orchestra.cli.typer_adapter import format_error

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from orchestra.app.orchestra import Orchestra
    from orchestra.cli.output import StatusLine
    from orchestra.core.settings import Settings
    from orchestra.fleet.progress import Progress

FleetMode: TypeAlias = Literal["start", "adopt", "none"]


class Opener(Protocol):
    """`Orchestra.open`, or its replacement in a test."""

    def __call__(
        self, config: Settings, *, fleet: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AbstractAsyncContextManager[Orchestra]:
        """Opens an `Orchestra` with these settings."""


def load_settings(**flags: Any) -> Settings:
    """Returns the settings of a trusted project with the given flags applied. Raises `InputError` C060 for an untrusted
    project.
    """
    settings = load_settings_to_inspect(**flags)
    settings.require_trust()
    return settings


def load_settings_to_inspect(**flags: Any) -> Settings:
    """Returns the settings for a command that only inspects. In an untrusted project no module is imported, no server
    is started and no link out of the project is followed.
    """
    from orchestra.core.settings import Settings

    return Settings.load(flags, trusted="recorded")


def get_opener(context: typer.Context) -> Opener:
    """Returns the opener of `build_app`, or `Orchestra.open`."""
    if context.obj is not None:
        opener: Opener = context.obj
        return opener
    from orchestra.app.orchestra import Orchestra

    return Orchestra.open


@asynccontextmanager
async def open_orchestra(
    open_: Opener, settings: Settings, status_line: StatusLine | None = None
) -> AsyncIterator[Orchestra]:
    """Opens an `Orchestra` whose fleet starts at the first request.

    Args:
        open_: Opens it.
        settings: Its settings.
        status_line: Shows progress on stderr; a new one by default.
    """
    from orchestra.cli.output import StatusLine
    from orchestra.cli.signals import suspend_between_commits

    progress_line = status_line or StatusLine()
    try:
        with ExitStack() as stack:  # outlasts the closing of the Orchestra, which commits too
            async with open_(settings, fleet="start", progress=progress_line) as orchestra:
                stack.enter_context(suspend_between_commits(orchestra.journal))
                yield orchestra
    finally:
        progress_line.close()


def given_parameters(context: typer.Context) -> list[str]:
    """The names of the arguments and options that the command line sets."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def print_trust_notice(settings: Settings) -> None:
    """Prints to stderr what a command leaves out because the project is not trusted."""
    if (error := settings.trust_error("modules")) is not None:
        print(f"{format_error(error)}\n", file=sys.stderr)
