"""The official client of MCP, connected to a server over a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.server.servers import TestServer, listening

ERAS = ["legacy", "2026-07-28"]
"""The handshake of older versions, with sessions, and the version without sessions."""


@asynccontextmanager
async def mcp_client(
    server: TestServer, era: str, headers: dict[str, str] | None = None, **options: Any
) -> AsyncIterator[Client]:
    """A client of a server. `options` are those of the client."""
    async with listening(server.app) as url, connected(url, era, headers, **options) as client:
        yield client


@asynccontextmanager
async def connected(url: str, era: str, headers: dict[str, str] | None = None, **options: Any) -> AsyncIterator[Client]:
    """A client of the server at an address."""
    async with (
        httpx2.AsyncClient(headers=headers, timeout=60) as http,
        Client(streamable_http_client(f"{url}/mcp", http_client=http), mode=era, **options) as client,
    ):
        yield client
