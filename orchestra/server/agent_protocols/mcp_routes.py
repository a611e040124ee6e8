"""The routes of MCP: `/mcp`, with the streamable HTTP transport of the official SDK.

The SDK is an extra, and importing it takes a second. Therefore the MCP server of an application starts at its first
request.
"""

from __future__ import annotations

import asyncio
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestra.server.endpoints import Call, RouteTable, require_json_type
from orchestra.server.problems import RequestError
from orchestra.server.services import Services
from orchestra.server.streams import EVENT_STREAM, STOP_SECONDS

if TYPE_CHECKING:
    from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

ROUTES = RouteTable()
CALL_KEY: Final = "orchestra.call"
"""Where the scope of a request has who sends it."""
MAX_SESSIONS: Final = 1000
"""Sessions of older protocol versions, which keep a task each. Those of 2026-07-28 keep nothing."""


@ROUTES.route("POST", "/mcp", "run", media_type=EVENT_STREAM)
async def send_mcp_message(call: Call) -> Response:
    """Send a message of the Model Context Protocol: list the workflows as tools, and call them."""
    require_json_type(call.request)
    return await _reply(call)


@ROUTES.route("GET", "/mcp", "run", media_type=EVENT_STREAM)
async def stream_mcp_messages(call: Call) -> Response:
    """Stream the messages of the server in a session of MCP."""
    return await _reply(call)


@ROUTES.route("DELETE", "/mcp", "run")
async def end_mcp_session(call: Call) -> Response:
    """End a session of MCP. Its calls are cancelled."""
    return await _reply(call)


def require_sdk() -> None:
    """Raises `RequestError` S034 if the SDK is not installed."""
    if find_spec("mcp") is None:
        raise RequestError(
            "S034", "the package mcp is not installed", hint="pip install 'orchestra-slm[mcp]'", status=501
        )


async def _reply(call: Call[Any, Any]) -> Response:
    require_sdk()
    state = call.request.app.state
    if not hasattr(state, "mcp"):
        state.mcp = McpHost(call.services)
    host: McpHost = state.mcp
    return McpReply(call, await host.manager())


class McpHost:
    """The MCP server of an application."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._manager: asyncio.Future[StreamableHTTPSessionManager] | None = None

    async def manager(self) -> StreamableHTTPSessionManager:
        """Returns the sessions, which start at the first call."""
        if self._manager is None:
            self._manager = asyncio.get_running_loop().create_future()
            self._services.spawn(self._run(self._manager))
        return await asyncio.shield(self._manager)

    async def _run(self, ready: asyncio.Future[StreamableHTTPSessionManager]) -> None:
        """Runs the sessions until the server stops, in a task of their own, which owns their scopes."""
        module = await asyncio.to_thread(import_module, "orchestra.server.agent_protocols.mcp_server")

        from mcp.server.streamable_http_manager import StreamableHTTPSessionManager

        manager = StreamableHTTPSessionManager(
            module.create_server(lambda context: context.request.scope[CALL_KEY]),
            max_request_body_size=self._services.settings.max_body,
            max_sessions=MAX_SESSIONS,
        )
        async with manager.run():
            ready.set_result(manager)
            await asyncio.Event().wait()


class McpReply(Response):
    """A reply that the SDK sends. It ends when the server stops."""

    def __init__(self, call: Call[Any, Any], manager: StreamableHTTPSessionManager) -> None:
        self._call, self._manager = call, manager
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Lets the SDK answer the request. A session belongs to the tenant and the subject that opened it."""
        from mcp.server.auth.middleware.bearer_auth import AuthenticatedUser
        from mcp.server.auth.provider import AccessToken

        sender = self._call.principal
        owner = AccessToken(token="", client_id=sender.tenant, subject=sender.subject, scopes=[])
        call_scope = {**scope, CALL_KEY: self._call, "user": AuthenticatedUser(owner)}
        answering = asyncio.ensure_future(self._manager.handle_request(call_scope, receive, send))
        stopping = asyncio.ensure_future(self._call.services.stopping.wait())
        try:
            await asyncio.wait({answering, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if stopping.done():
                await asyncio.wait({answering}, timeout=STOP_SECONDS)
            if answering.done():
                answering.result()
        finally:
            for task in (answering, stopping):
                task.cancel()
            await asyncio.gather(answering, stopping, return_exceptions=True)
