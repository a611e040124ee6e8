"""`orchestra fleet`: the servers started, looked at, read and stopped."""

from __future__ import annotations

from typing import Annotated

import typer

from orchestra.cli.options import FleetOption, JsonOption
from orchestra.cli.typer_adapter import add_command


def register(app: typer.Typer) -> None:
    """Adds the verbs."""
    group = typer.Typer(no_args_is_help=True, help="The servers: start, status, logs, key, stop.")
    add_command(group, start)
    add_command(group, status)
    add_command(group, stop)
    add_command(group, logs)
    add_command(group, key)
    app.add_typer(group, name="fleet", rich_help_panel="Look after it")


def start(
    fleet: FleetOption = None,
    wait: Annotated[bool, typer.Option(help="Wait until every server is ready.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Start the servers, or find them running; the first time fetches the weights, and says how large they are."""
    import asyncio

    from orchestra.cli import fleet_status

    asyncio.run(fleet_status.start(fleet, wait, as_json))


def status(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """Show the servers: health, version, load, memory; and which endpoints are there.

    Exits with 1 where the fleet is not running, a server has failed, an endpoint takes no connection, or its key is not there.
    """
    import asyncio

    from orchestra.cli import fleet_status

    asyncio.run(fleet_status.status(fleet, as_json))


def stop(fleet: FleetOption = None, as_json: JsonOption = False) -> None:
    """Stop the servers."""
    import asyncio

    from orchestra.cli import fleet_status

    asyncio.run(fleet_status.stop(fleet, as_json))


def logs(
    fleet: FleetOption = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=1, max=500, help="How many, of each server.")] = 40,
    as_json: JsonOption = False,
) -> None:
    """Print the last lines of the servers' logs."""
    import asyncio

    from orchestra.cli import fleet_status

    asyncio.run(fleet_status.logs(fleet, lines, as_json))


def key(
    fleet: FleetOption = None,
    header: Annotated[bool, typer.Option("--header", help="As the header that carries it, for curl -H @-.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Print the key that the running local servers want with each request.

    orchestra fleet key --header | curl -H @- ADDRESS/v1/models keeps it off the command line, which all users of a machine can read;
    orchestra fleet status has the address.
    """
    import asyncio

    from orchestra.cli import fleet_status

    asyncio.run(fleet_status.key(fleet, header, as_json))
