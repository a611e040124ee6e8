"""`orchestra mcp`: the workflows as tools of the Model Context Protocol, over standard input and output."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import typer

from orchestra.cli.context import get_opener, load_settings, open_orchestra
from orchestra.cli.options import EndpointOption, FleetOption, ModelOption
from orchestra.cli.typer_adapter import add_command
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from orchestra.cli.context import Opener
    from orchestra.core.settings import Settings


def register(app: typer.Typer) -> None:
    """Adds the command."""
    add_command(app, mcp, panel="Operate")


def mcp(
    context: typer.Context, fleet: FleetOption = None, endpoint: EndpointOption = None, model: ModelOption = None
) -> None:
    """Serve workflows as tools to an MCP client that starts this command, over standard input and output.

    `orchestra serve` has the same tools at `/mcp`, for clients that connect over HTTP.
    """
    _require_libraries()
    asyncio.run(_serve(get_opener(context), load_settings(fleet=fleet, endpoint=endpoint, model=model)))


async def _serve(opener: Opener, settings: Settings) -> None:
    from orchestra.server.agent_protocols.mcp_stdio import serve_stdio

    async with open_orchestra(opener, settings) as orchestra:
        await serve_stdio(orchestra)


def _require_libraries() -> None:
    from importlib.util import find_spec

    if missing := [name for name in ("starlette", "jwt", "cronsim", "mcp") if find_spec(name) is None]:
        raise InputError(
            "S034", f"the MCP server needs {', '.join(missing)}", hint="pip install 'orchestra-slm[server,mcp]'"
        )
