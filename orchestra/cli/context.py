"""How verbs come to their settings and to an open `Orchestra`."""

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
    """`Orchestra.open`, or what stands in for it in a test."""

    def __call__(
        self, config: Settings, *, fleet: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AbstractAsyncContextManager[Orchestra]:
        """Opens an `Orchestra` on these settings."""


def load_settings(**flags: Any) -> Settings:
    """The settings of a trusted project, with the flags that were given on top. Raises `InputError` C060 for another one."""
    found = load_settings_to_inspect(**flags)
    found.require_trust()
    return found


def load_settings_to_inspect(**flags: Any) -> Settings:
    """The settings for a command that only inspects: of an untrusted project, nothing is imported, started, or followed out of it."""
    from orchestra.core.settings import Settings

    return Settings.load(flags, trusted="recorded")


def get_opener(context: typer.Context) -> Opener:
    """What opens an `Orchestra`: that of `build_app`, else the real one."""
    if context.obj is not None:
        given: Opener = context.obj
        return given
    from orchestra.app.orchestra import Orchestra

    return Orchestra.open


@asynccontextmanager
async def open_orchestra(
    open_: Opener, settings: Settings, status_line: StatusLine | None = None
) -> AsyncIterator[Orchestra]:
    """An open `Orchestra`, whose fleet starts at the first request. `status_line` shows the progress on stderr; the default is a new one."""
    from orchestra.cli.output import StatusLine
    from orchestra.cli.signals import suspend_between_commits

    told = status_line or StatusLine()
    try:
        with ExitStack() as stack:  # which outlasts the closing: it commits too
            async with open_(settings, fleet="start", progress=told) as orchestra:
                stack.enter_context(suspend_between_commits(orchestra.journal))
                yield orchestra
    finally:
        told.close()


def given_parameters(context: typer.Context) -> list[str]:
    """The names of the arguments and options that somebody has given."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return [name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"]


def print_trust_notice(settings: Settings) -> None:
    """Says on stderr what a command leaves out because the project is not trusted."""
    if (error := settings.trust_error("modules")) is not None:
        print(f"{format_error(error)}\n", file=sys.stderr)
