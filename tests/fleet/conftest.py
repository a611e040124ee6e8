"""Fixtures: raw servers with scripted faults, a clock without waiting, and fleets whose vLLM is a small script."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import aiohttp
import pytest

from orchestra.fleet import dispatch
from orchestra.fleet.config import Endpoint, FleetConfig, FleetLimits, Server
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http.client import HttpClient
from orchestra.fleet.progress import ProgressCallback, ignore_progress
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.sender import Sender
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.weights import ModelStore

Play: TypeAlias = Callable[["Visit"], Awaitable[object]]


@dataclass
class Visit:
    """One request, as a server receives it."""

    head: str
    body: bytes
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def say(self, *pieces: bytes) -> None:
        for piece in pieces:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, body: bytes, status: str = "200 OK", *headers: str) -> None:
        head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""])
        await self.say(head.encode() + body)

    async def gone(self) -> bool:
        """Waits until the client has closed the connection."""
        return await self.reader.read() == b""


@dataclass
class RawServer:
    """Runs a scripted function on each connection, and records the requests."""

    play: Play
    visits: list[Visit] = field(default_factory=list)
    port: int = 0
    writers: list[asyncio.StreamWriter] = field(default_factory=list)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        try:
            while head := (await reader.readuntil(b"\r\n\r\n")).decode("latin-1"):
                length = next(
                    (int(line[15:]) for line in head.split("\r\n") if line.lower().startswith("content-length:")), 0
                )
                visit = Visit(head, await reader.readexactly(length), reader, writer)
                self.visits.append(visit)
                await self.play(visit)
                if "keep-alive" not in head and writer.is_closing():
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def raw_server(play: Play) -> AsyncIterator[RawServer]:
    server = RawServer(play)
    listener = await asyncio.start_server(server.handle, "127.0.0.1", 0)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for writer in server.writers:
            writer.transport.abort()
        await asyncio.sleep(0)


def chat_answer(text: str, model: str = "m", **more: Any) -> bytes:
    usage = {"prompt_tokens": 11, "completion_tokens": 3, "prompt_tokens_details": {"cached_tokens": 4}}
    choices = [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}]
    return json.dumps({"id": "x", "model": model, "choices": choices, "usage": usage, **more}).encode()


async def eventually(wanted: Callable[[], Awaitable[Any]], seconds: float = 60) -> Any:
    """Waits until `wanted` returns a true value, and returns it."""
    async with asyncio.timeout(seconds):
        while True:
            if found := await wanted():
                return found
            await asyncio.sleep(0.02)


async def post(url: str, path: str) -> None:
    """Sends an empty request. The server may end meanwhile."""
    async with aiohttp.ClientSession() as session:
        with contextlib.suppress(aiohttp.ClientError):
            await (await session.post(url + path, json={})).read()


T = TypeVar("T")


class HurriedClock:
    """A clock whose sleeps return at once and are recorded."""

    def __init__(self) -> None:
        self.slept: list[float] = []

    def now(self) -> float:
        return 1e9 + sum(self.slept)

    def monotonic(self) -> float:
        return sum(self.slept)

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await asyncio.sleep(0)

    async def run_in_thread(self, task: Callable[[], T]) -> T:
        return task()

    def random(self) -> float:
        return 0.5

    def new_id(self) -> str:
        return "0" * 20


class NoAddresses:
    """Addresses of a fleet without local servers."""

    async def url(self, server: str, seconds: float) -> str | RequestError:
        raise AssertionError("endpoints have their address in the configuration")

    def key(self, server: str) -> str:
        raise AssertionError("and their keys, too")

    def forget(self, server: str, url: str) -> None:
        pass


def endpoints(*urls: str, limits: FleetLimits | None = None, **settings: Any) -> FleetConfig:
    """Returns a fleet of endpoints `s0`, `s1`, … that all serve the model `base`."""
    given = {"dialect": "vllm", "label": "restricted", "model": "m"} | settings
    servers: dict[str, Server] = {f"s{i}": Endpoint(endpoint=url + "/v1", **given) for i, url in enumerate(urls)}
    return FleetConfig(
        schema="orchestra/fleet/v1",
        name="test",
        servers=servers,
        models={"base": tuple(servers)},
        limits=limits or FleetLimits(),
    )


@asynccontextmanager
async def sending(
    config: FleetConfig, report: ProgressCallback = ignore_progress
) -> AsyncIterator[tuple[Sender, HurriedClock]]:
    clock = HurriedClock()
    async with HttpClient(config.limits) as client:
        yield Sender(config, client, NoAddresses(), clock, report), clock


FAKE = (sys.executable, str(Path(__file__).with_name("fake_supervisor.py")))


class FakeSupervision(SupervisorClient):
    """Starts a supervisor whose servers are small scripts."""

    async def start(self, server: str | None = None, command: Any = None) -> None:
        await super().start(server, FAKE)


def local_config(
    *models: str, idle_stop: float = 60.0, memory: str | None = None, on_demand: bool = False, **server: Any
) -> FleetConfig:
    """Returns a fleet of local servers, one per model, named like the model."""
    weights = {"licence": "none", "sources": [{"folder": "/nowhere"}]}
    servers = {model: {"model": model, "max_model_len": 512, "weights": weights} | server for model in models}
    text = {
        "schema": "orchestra/fleet/v1",
        "name": "fakes",
        "servers": servers,
        "models": {"base": models[0], **(dict(zip(models, models, strict=True)) if on_demand else {})},
        "idle_stop": idle_stop,
        "start": "on_demand" if on_demand else "together",
        "memory": memory,
    }
    return FleetConfig.model_validate_json(json.dumps(text))


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Folders:
    """Sets XDG folders of the test, also for its child processes."""
    for name in ("XDG_CACHE_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()[4:-5]))
    return Folders.from_environment(os.environ)


@pytest.fixture
def supervisions(folders: Folders) -> Iterator[list[FakeSupervision]]:
    """A list of supervisions. Their supervisors are stopped after the test."""
    made: list[FakeSupervision] = []
    yield made

    async def end() -> None:
        for supervision in made:
            await supervision.stop()

    asyncio.run(end())


@pytest.fixture
def faked(folders: Folders, supervisions: list[FakeSupervision], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Opens fleets whose supervisor runs scripts."""

    def make(config: FleetConfig, model_folders: Folders) -> FakeSupervision:
        supervisions.append(FakeSupervision(config, model_folders))
        return supervisions[-1]

    monkeypatch.setattr(dispatch, "SupervisorClient", make)
    monkeypatch.setattr("orchestra.fleet.supervisor.vllm_launch.vllm_version", lambda: "0.0-fake")
    (folders.cache / "weights").mkdir(parents=True)

    def open_(config: FleetConfig, cards: Any = None, **more: Any) -> AbstractAsyncContextManager[Fleet]:
        from .calling import CARDS

        return Fleet.open(config, cards=CARDS if cards is None else cards, model_store=ModelStore(folders), **more)

    return open_
