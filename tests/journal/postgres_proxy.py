"""A proxy in front of a Postgres server that drops connections on request: before a request reaches the server, or
after it was executed.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Literal, TypeAlias

from tests.journal.postgres_server import PostgresServer

Loss: TypeAlias = Literal["request", "answer"]
SOCKET = ".s.PGSQL.5432"


class Proxy:
    """Forwards bytes in both directions. `mark_lost` is called for each request of a connection, and decides what to
    drop.
    """

    def __init__(self, folder: Path) -> None:
        self.dsn = f"postgresql://orchestra@/postgres?host={folder}"
        self.lose: Callable[[str, bytes], Loss | None] = lambda use, request: None
        self.lost = 0

    async def serve(self, client: asyncio.StreamReader, back: asyncio.StreamWriter, path: str) -> None:
        """Serves one connection."""
        try:
            server, on = await asyncio.open_unix_connection(path)
        except OSError:
            back.close()
            return
        losing = asyncio.Event()
        answers = asyncio.create_task(_answers(server, back, losing))
        use = ""
        try:
            while request := await client.read(1 << 20):
                use = use or next((name for name in ("writer", "reader", "presence") if name.encode() in request), "")
                match self.lose(use, request):
                    case "request":
                        self.lost += 1
                        break
                    case "answer":
                        self.lost += 1
                        losing.set()
                        on.write(request)
                        await answers  # ends with the answer, which is dropped
                        break
                    case None:
                        on.write(request)
        finally:
            answers.cancel()
            on.close()
            back.transport.abort()


async def _answers(server: asyncio.StreamReader, back: asyncio.StreamWriter, losing: asyncio.Event) -> None:
    with suppress(ConnectionError):
        while answer := await server.read(1 << 20):
            if losing.is_set():
                return
            back.write(answer)
    back.close()


@asynccontextmanager
async def before(server: PostgresServer) -> AsyncIterator[Proxy]:
    """Starts a proxy in front of the server."""
    folder = Path(tempfile.mkdtemp(prefix="orchestra-px-"))
    proxy, connections = Proxy(folder), set[asyncio.Task[None]]()

    def connected(client: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(proxy.serve(client, back, str(server.folder / SOCKET)))
        connections.add(task)
        task.add_done_callback(connections.discard)

    try:
        async with await asyncio.start_unix_server(connected, str(folder / SOCKET)):
            yield proxy
        for task in list(connections):
            task.cancel()
        await asyncio.gather(*connections, return_exceptions=True)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
