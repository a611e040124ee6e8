"""The ASGI application: the routes with their checks, and the pages."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import Receive, Scope, Send

from orchestra.app.orchestra import Orchestra
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import CALLER_TRACE
from orchestra.server import batches, catalogue, files, forks, keys, runs, schedules, status, threads, usage, webhooks
from orchestra.server.access import require_scope
from orchestra.server.agent_protocols import a2a, ag_ui, mcp_routes
from orchestra.server.background import open_services
from orchestra.server.endpoints import Call, Endpoint, NoBody, decode_body, decode_query, to_response
from orchestra.server.limits import SECURITY_HEADERS, Limits
from orchestra.server.openai_api import chat, embeddings, models, responses
from orchestra.server.openai_api.errors import error_response, is_openai_path
from orchestra.server.openapi import STYLE, describe, render_page
from orchestra.server.principals import NOBODY
from orchestra.server.problems import RequestError, problem_response
from orchestra.server.services import Services
from orchestra.server.settings import ServerSettings
from orchestra.telemetry.trace_context import TraceContext

DEFAULT_SETTINGS: Final = ServerSettings()
OPENAI_MODULES = (models, chat, responses, embeddings)
AGENT_MODULES = (mcp_routes, a2a, ag_ui)
MODULES = (
    *(status, catalogue, usage, runs, forks, threads, batches, files, schedules, webhooks, keys),
    *OPENAI_MODULES,
    *AGENT_MODULES,
)
"""The modules with routes, in the order of the documentation."""
_LOGGER = logging.getLogger("orchestra.server")
_RUN_PAGE = re.compile(r"/runs/([0-9a-z]{1,64})")


@cache
def all_endpoints() -> Sequence[Endpoint]:
    """All routes of the API."""
    return tuple(endpoint for module in MODULES for endpoint in module.ROUTES.endpoints)


def create_app(orchestra: Orchestra, settings: ServerSettings = DEFAULT_SETTINGS) -> Starlette:
    """Returns the server as an ASGI application, to be served, or mounted in another one.

        app = create_app(orchestra)
        other = Starlette(routes=[Mount("/orchestra", app)], lifespan=lambda _: app.router.lifespan_context(app))

    An application that mounts it must enter its lifespan, as above: work in the background starts there.

    Args:
        orchestra: Stays open as long as the application.
        settings: By default each request needs a key.
    """

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with open_services(orchestra, settings) as services:
            app.state.services = services
            yield

    endpoints = all_endpoints()
    routes: list[BaseRoute] = [
        Route(endpoint.path, _handler(endpoint), methods=[endpoint.method])
        for endpoint in sorted(endpoints, key=_route_order)
    ]
    described = msgspec.json.encode(describe(endpoints))
    page = render_page(endpoints)
    routes += [
        Route("/openapi.json", lambda _: Response(described, media_type="application/json")),
        Route("/docs", lambda _: HTMLResponse(page)),
        Route("/docs/style.css", lambda _: Response(STYLE, media_type="text/css")),
    ]
    if (studio := studio_folder()) is not None:
        routes.append(Mount("/", Studio(directory=studio, html=True)))
    return Starlette(
        routes=routes,
        middleware=[Middleware(Limits, settings=settings)],
        exception_handlers={
            HTTPException: _on_http_error,
            OrchestraError: _on_error,
            ClientDisconnect: _on_disconnect,
            Exception: _on_fault,
        },
        lifespan=lifespan,
    )


def studio_folder() -> Path | None:
    """Returns the folder of the studio's files; None if they are not installed."""
    folder = Path(str(resources.files("orchestra.server"))) / "studio"
    return folder if (folder / "index.html").is_file() else None


class Studio(StaticFiles):
    """The files of the studio. Its pages have addresses after `#`; `/runs/ID` redirects to that of a run."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """Returns a file, or a redirection to the page of a run."""
        match = _RUN_PAGE.fullmatch(scope["path"].removeprefix(scope.get("root_path", "")))
        if match is not None:
            return RedirectResponse(f"{scope.get('root_path', '')}/#/runs/{match[1]}", status_code=302)
        response = await super().get_response(path, scope)
        if isinstance(response, RedirectResponse):
            raise HTTPException(404)  # Another address of the start page, such as `//name/..`.
        return response

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends files as a whole: they are small, and errors about parts of them would have another form."""
        headers = [header for header in scope["headers"] if header[0] not in (b"range", b"if-range")]
        await super().__call__({**scope, "headers": headers}, receive, send)


def _route_order(endpoint: Endpoint) -> tuple[bool, int]:
    """Fixed paths come before those with parameters, and these before ones that take the rest of a path."""
    return ":path}" in endpoint.path, endpoint.path.count("{")


def _handler(endpoint: Endpoint) -> Callable[[Request], Awaitable[Response]]:
    async def handle(request: Request) -> Response:
        services: Services = request.app.state.services
        principal = NOBODY
        if endpoint.scope is not None:
            principal = await services.authenticator.authenticate(request)
            require_scope(principal, endpoint.scope)
            services.budgets.count_request(principal.tenant, time.monotonic())
        if not endpoint.while_draining:
            services.require_running()
        query = decode_query(request, endpoint.query)
        caller = TraceContext.parse(request.headers.get("traceparent", ""))
        CALLER_TRACE.set(caller.format() if caller is not None else "")  # of this task, which serves one request
        body: Any = NoBody()
        if endpoint.body is not None:
            body = await decode_body(request, endpoint.body)
        call = Call(services, request, principal, body, query)
        return to_response(endpoint, await endpoint.handler(call))

    return handle


async def _on_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, OrchestraError)
    return _error_reply(request, error)


def _error_reply(request: Request, error: OrchestraError) -> Response:
    return error_response(error) if is_openai_path(request) else problem_response(error)


async def _on_http_error(request: Request, error: Exception) -> Response:
    """The errors of routing: no such route, or another method."""
    assert isinstance(error, HTTPException)
    request_line = f"{request.method} {request.url.path[:200]}"
    headers = dict(error.headers or {})
    status = error.status_code
    return _error_reply(
        request,
        RequestError("S004", f"there is no route {request_line}", hint="see /docs", status=status, headers=headers),
    )


async def _on_disconnect(request: Request, error: Exception) -> Response:
    """The client has closed the connection while its body was read, so the reply is not read."""
    return Response(status_code=400)


async def _on_fault(request: Request, error: Exception) -> Response:
    """A fault of the server: the client learns nothing about it."""
    _LOGGER.error("request failed", exc_info=error)
    reply = _error_reply(request, OrchestraError("S018", "the server has a fault", hint="see its log"))
    reply.headers.update({**SECURITY_HEADERS, "cache-control": "no-store"})  # No middleware sees this reply.
    return reply
