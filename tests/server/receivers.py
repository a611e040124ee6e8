"""Services for tests that receive the messages of a server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from tests.server.servers import listening


@dataclass
class Receiver:
    """A service that receives webhooks."""

    url: str = ""
    status: int = 200
    messages: list[tuple[dict[str, str], bytes]] = field(default_factory=list)

    async def receive(self, request: Request) -> Response:
        """Records a message."""
        self.messages.append((dict(request.headers), await request.body()))
        return RedirectResponse("/other", self.status) if 300 <= self.status < 400 else Response(None, self.status)


@asynccontextmanager
async def receiving(status: int = 200) -> AsyncIterator[Receiver]:
    """A service that answers with a status."""
    receiver = Receiver(status=status)
    routes = [Route("/{path:path}", receiver.receive, methods=["POST", "GET"])]
    async with listening(Starlette(routes=routes)) as url:
        receiver.url = f"{url}/hook"
        yield receiver
