"""The HTTP clients for the bodies of nodes, and the simulated server."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
FROM, TO = 10_000, 32_000
"""Port range of the server: below the ephemeral ports of clients."""


class Clients:
    """`await call(text)` is one small chat completion through the named library."""

    def __init__(self, kind: str, base: str) -> None:
        self.kind, self.base, self.url = kind, base, f"{base}/chat/completions"
        self.client: Any = None

    async def __aenter__(self) -> Self:
        match self.kind:
            case "openai":
                import openai

                self.client, self.call = (
                    openai.AsyncOpenAI(base_url=self.base, api_key="x", max_retries=0, timeout=60),
                    self._openai,
                )
            case "openai-aiohttp":
                import openai

                http = openai.DefaultAioHttpClient()
                self.client = openai.AsyncOpenAI(
                    base_url=self.base, api_key="x", max_retries=0, timeout=60, http_client=http
                )
                self.call = self._openai
            case "aiohttp":
                import aiohttp

                connector = aiohttp.TCPConnector(limit=0)
                self.client, self.call = (
                    aiohttp.ClientSession(connector=connector, timeout=aiohttp.ClientTimeout(total=60)),
                    self._aiohttp,
                )
            case _:
                raise ValueError(f"no client is called {self.kind}")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.client.close()

    def body(self, text: str) -> dict[str, Any]:
        """Returns the request."""
        messages = [{"role": "system", "content": "You are a specialist."}, {"role": "user", "content": text}]
        return {"model": "mock-slm", "messages": messages, "max_tokens": 16, "temperature": 0}

    async def _openai(self, text: str) -> str:
        reply = await self.client.chat.completions.create(**self.body(text))
        return str(reply.choices[0].message.content)

    async def _aiohttp(self, text: str) -> str:
        async with self.client.post(self.url, json=self.body(text)) as reply:
            return str((await reply.json())["choices"][0]["message"]["content"])


class Mock:
    """The simulated server in a separate process with the same Python: its cost does not count for a peer."""

    def __init__(self, latency: str, seed: int) -> None:
        """Raises `RuntimeError` if the server does not start on any of five ports."""
        for _ in range(5):
            self.port = random.SystemRandom().randrange(FROM, TO)
            if self._start(latency, seed):
                return
        raise RuntimeError("the stand-in server did not start")

    @property
    def base(self) -> str:
        """Its base URL for OpenAI clients."""
        return f"http://127.0.0.1:{self.port}/v1"

    def _start(self, latency: str, seed: int) -> bool:
        command = [
            sys.executable,
            str(HERE / "mock_vllm.py"),
            "--port",
            str(self.port),
            "--latency",
            latency,
            "--seed",
            str(seed),
        ]
        self.process = subprocess.Popen(
            [*command, "--max-seconds", "900"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        for _ in range(200):
            if self.process.poll() is not None:
                return False
            try:
                self._ask("/health")
            except OSError:
                time.sleep(0.05)
            else:
                return True
        self.process.kill()
        return False

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", data, timeout=5) as reply:
            return bytes(reply.read())

    def reset(self) -> None:
        """Resets the counters."""
        self._ask("/mock/reset", b"")

    def stats(self) -> dict[str, Any]:
        """Returns the counters."""
        found: dict[str, Any] = json.loads(self._ask("/mock/stats"))
        return found

    def close(self) -> None:
        """Stops the server."""
        self.process.terminate()
        self.process.wait()
