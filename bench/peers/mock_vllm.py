"""A simulated vLLM server: chat completions after a random latency, tens of thousands per second on one core.

A hand-written HTTP/1.1 protocol (keep-alive, bodies with Content-Length), on uvloop if it is installed. The latency of
a request is drawn from the seed and the text of its last message, so it does not depend on the order of requests. `GET
/mock/stats` returns the counters, `POST /mock/reset` resets them. Listens on 127.0.0.1 only.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from bench.peers.latency import latency_s
else:
    from latency import latency_s

MODEL = "mock-slm"


class Tally:
    """Counters since the last reset."""

    def __init__(self) -> None:
        self.by: Counter[str] = Counter()
        self.total = 0
        self.cpu = time.process_time()

    def stats(self) -> dict[str, Any]:
        """Returns the body of `/mock/stats`."""
        return {"total": self.total, "by": dict(self.by), "cpu_s": time.process_time() - self.cpu}


class Server:
    """Latencies, and the counters that all connections share."""

    def __init__(self, latency: str, seed: int) -> None:
        self.latency, self.seed, self.tally = latency, seed, Tally()

    def quick(self, path: bytes) -> bytes:
        """Returns the response to requests other than completions."""
        match path:
            case b"/health" | b"/ping":
                return response("200 OK", b"")
            case b"/version":
                return response("200 OK", b'{"version":"mock"}')
            case b"/v1/models":
                model = {
                    "id": MODEL,
                    "object": "model",
                    "created": 0,
                    "owned_by": "mock",
                    "root": MODEL,
                    "parent": None,
                    "max_model_len": 8192,
                }
                return response("200 OK", json.dumps({"object": "list", "data": [model]}).encode())
            case b"/mock/stats":
                return response("200 OK", json.dumps(self.tally.stats()).encode())
            case b"/mock/reset":
                self.tally = Tally()
                return response("200 OK", b"{}")
            case _:
                return response("404 Not Found", b'{"error":{"message":"not found","type":"NotFoundError","code":404}}')


def response(status: str, body: bytes) -> bytes:
    """Returns the bytes of a response."""
    return f"HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body


def completion(number: int, prompt: str) -> bytes:
    """Returns the bytes of one chat completion."""
    usage = {"prompt_tokens": len(prompt) // 4 + 1, "completion_tokens": 1, "total_tokens": len(prompt) // 4 + 2}
    choice = {"index": 0, "message": {"role": "assistant", "content": "ok"}, "logprobs": None, "finish_reason": "stop"}
    found = {
        "id": f"chatcmpl-{number}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": MODEL,
        "choices": [choice],
    }
    return response("200 OK", json.dumps({**found, "usage": usage}).encode())


class Connection(asyncio.Protocol):
    """One connection; its requests are answered one after the other."""

    def __init__(self, server: Server, loop: asyncio.AbstractEventLoop) -> None:
        self.server, self.loop = server, loop
        self.buffer = b""
        self.busy = self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True

    def data_received(self, data: bytes) -> None:
        self.buffer += data
        self.pump()

    def pump(self) -> None:
        """Takes complete requests out of the buffer."""
        while not self.busy and (end := self.buffer.find(b"\r\n\r\n")) >= 0:
            head = self.buffer[:end]
            lower = head.lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(self.buffer) < end + 4 + length:
                return
            body, self.buffer = self.buffer[end + 4 : end + 4 + length], self.buffer[end + 4 + length :]
            path = head.split(b" ", 2)[1]
            if path == b"/v1/chat/completions":
                self.complete(body)
            else:
                self.transport.write(self.server.quick(path))

    def complete(self, body: bytes) -> None:
        """Responds to a completion request after its latency."""
        server, tally = self.server, self.server.tally
        tally.total += 1
        self.busy = True
        try:
            prompt = str(json.loads(body)["messages"][-1]["content"])
        except (ValueError, LookupError, TypeError):
            tally.by["bad_request"] += 1
            return self.answer(
                response("400 Bad Request", b'{"error":{"message":"no messages","type":"BadRequestError","code":400}}')
            )
        self.loop.call_later(latency_s(server.latency, server.seed, prompt), self.done, prompt, tally)
        return None

    def done(self, prompt: str, tally: Tally) -> None:
        """The latency is over."""
        tally.by["client_gone" if self.closed else "ok"] += 1
        self.answer(completion(tally.total, prompt))

    def answer(self, data: bytes) -> None:
        """Sends a response and continues with buffered requests."""
        self.busy = False
        if not self.closed:
            self.transport.write(data)
            self.pump()


async def serve(port: int, server: Server, seconds: float) -> None:
    """Serves for a given time."""
    loop = asyncio.get_running_loop()
    async with await loop.create_server(lambda: Connection(server, loop), "127.0.0.1", port, backlog=4096):
        await asyncio.sleep(seconds)


def main() -> None:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--port", type=int, default=18000)
    options.add_argument("--latency", default="fixed:0", help="fixed:MS or lognormal:MEAN_MS[:SIGMA]")
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--max-seconds", type=float, default=7200, help="lifetime")
    given = options.parse_args()
    gc.freeze()
    served = serve(given.port, Server(given.latency, given.seed), given.max_seconds)
    try:
        import uvloop
    except ImportError:
        asyncio.run(served)
    else:
        uvloop.run(served)


if __name__ == "__main__":
    main()
