"""`orchestra fleet`: the servers started, looked at, read and stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.failure import Verb

Name = Annotated[str | None, typer.Option("--fleet", help="A name in configs/, or a path.", show_default="as configured")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    fleet = typer.Typer(no_args_is_help=True, help="The servers: start, status, logs, stop.")

    @fleet.command("start", cls=Verb)
    def start(
        name: Name = None,
        wait: Annotated[bool, typer.Option(help="Wait until every server is ready.")] = True,
        as_json: AsJson = False,
    ) -> None:
        """Start the servers, or find them running; the first time fetches the weights, and says how large they are."""
        import asyncio

        from orchestra.cli import servers

        asyncio.run(servers.start(name, wait, as_json))

    @fleet.command("status", cls=Verb)
    def status(name: Name = None, as_json: AsJson = False) -> None:
        """Show the servers: health, version, load, memory; and which endpoints are there.

        Exits with 1 where the fleet is not running, a server has failed, an endpoint takes no connection, or its key is not there.
        """
        import asyncio

        from orchestra.cli import servers

        asyncio.run(servers.status(name, as_json))

    @fleet.command("stop", cls=Verb)
    def stop(name: Name = None, as_json: AsJson = False) -> None:
        """Stop the servers."""
        import asyncio

        from orchestra.cli import servers

        asyncio.run(servers.stop(name, as_json))

    @fleet.command("logs", cls=Verb)
    def logs(
        name: Name = None,
        lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=500, help="How many, of each server.")] = 40,
        as_json: AsJson = False,
    ) -> None:
        """Print the last lines of the servers' logs."""
        import asyncio

        from orchestra.cli import servers

        asyncio.run(servers.logs(name, lines, as_json))

    app.add_typer(fleet, name="fleet", rich_help_panel="Look after it")
