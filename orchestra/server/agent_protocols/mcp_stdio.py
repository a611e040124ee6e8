"""The MCP server over standard input and output, for clients that start it as a process: `orchestra mcp`."""

from __future__ import annotations

from mcp.server.stdio import stdio_server
from starlette.requests import Request

from orchestra.app.orchestra import Orchestra
from orchestra.server.agent_protocols.mcp_server import create_server
from orchestra.server.endpoints import Call, NoBody, NoQuery
from orchestra.server.principals import LOCAL_USER
from orchestra.server.services import Services
from orchestra.server.settings import ServerSettings


async def serve_stdio(orchestra: Orchestra) -> None:
    """Serves until the client closes the input. Runs of calls without a result are cancelled then."""
    async with Services.open(orchestra, ServerSettings(auth=False)) as services, stdio_server() as (reader, writer):
        call = Call(services, Request({"type": "http", "headers": []}), LOCAL_USER, NoBody(), NoQuery())
        server = create_server(lambda _: call)
        await server.run(reader, writer, server.create_initialization_options())
