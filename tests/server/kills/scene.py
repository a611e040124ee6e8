"""Runs in progress, each with a reader of its stream, while the server is killed and started again.

A reader starts its run with an idempotency key, so that it may repeat the request, and continues its stream with
`Last-Event-ID`. Each of many readers follows one run after the other until all kills are over.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import msgspec

from tests.server.kills.serve import STEPS, CallRecord, write_project

ROOT = Path(__file__).parents[3]
LIFE = (0.1, 2.0)
"""Seconds between the start of a server and its death."""
RETRY_SECONDS = 0.2
LIMIT_SECONDS = 300.0
"""Seconds in which a run must end after the last kill."""
LOST = (aiohttp.ClientError, ConnectionError, TimeoutError)


@dataclass
class Stream:
    """What a reader has received about its run."""

    key: str
    run: str = ""
    events: list[tuple[int, str]] = field(default_factory=list)
    """Sequence numbers and data."""
    seen_in: dict[str, int] = field(default_factory=dict)
    """For each node whose end the reader knows: the process that has reported it."""
    has_ended: bool = False
    continued: int = 0
    """How often the stream was continued."""

    @property
    def last(self) -> int:
        """The last number that it has."""
        return self.events[-1][0] if self.events else 0


@dataclass
class Scene:
    """The server, its readers, and how often it was killed."""

    folder: Path
    lanes: int
    port: int = 0
    process: asyncio.subprocess.Process | None = None
    number: int = 0
    """The number of the process."""
    streams: list[Stream] = field(default_factory=list)
    in_progress: list[int] = field(default_factory=list)
    """Runs in progress at each kill."""
    is_over: bool = False

    @property
    def url(self) -> str:
        """The address of the server."""
        return f"http://127.0.0.1:{self.port}"

    async def start(self) -> None:
        """Starts the server and waits until it listens."""
        self.number += 1
        command = ["-m", "tests.server.kills.serve", str(self.folder), str(self.port), str(self.number)]
        with (self.folder / "log").open("ab") as log:
            self.process = await asyncio.create_subprocess_exec(
                sys.executable, *command, cwd=ROOT, stdout=asyncio.subprocess.PIPE, stderr=log
            )
        assert self.process.stdout is not None
        line = await self.process.stdout.readline()
        assert line, (self.folder / "log").read_text()

    async def end(self, number: signal.Signals) -> None:
        """Ends the server with a signal."""
        assert self.process is not None
        with suppress(ProcessLookupError):  # It has ended by itself.
            self.process.send_signal(number)
        await self.process.wait()


def free_port() -> int:
    """Returns a port that is free now."""
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


async def kill_often(
    folder: Path,
    kills: int,
    lanes: int,
    seed: int,
    seconds: float = math.inf,
    report: Callable[[Scene], None] = lambda _: None,
) -> tuple[Scene, list[str]]:
    """Kills a server at random moments while runs go on.

    Args:
        folder: The folder of the server.
        kills: How often it is killed.
        lanes: Runs in progress at the same time.
        seed: The seed of the moments.
        seconds: After this time there is no further kill; the runs still go on to their ends.
        report: Called after each kill, once the next server listens.

    Returns:
        What happened, and the violations.
    """
    write_project(folder)
    scene, chance = Scene(folder, lanes, free_port()), random.Random(seed)
    end = time.monotonic() + seconds
    await scene.start()
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            async with asyncio.TaskGroup() as group:
                for lane in range(lanes):
                    group.create_task(_follow_runs(scene, session, lane))
                await _until_all_started(scene)
                for _ in range(kills):
                    await asyncio.sleep(chance.uniform(*LIFE))
                    scene.in_progress.append(sum(bool(one.run) and not one.has_ended for one in scene.streams))
                    await scene.end(signal.SIGKILL)
                    await scene.start()
                    report(scene)
                    if time.monotonic() > end:
                        break
                scene.is_over = True
            violations = [fault async for fault in audit(scene, session)]
    finally:
        await scene.end(signal.SIGTERM)
    return scene, violations


async def _until_all_started(scene: Scene) -> None:
    async with asyncio.timeout(LIMIT_SECONDS):
        while sum(bool(one.run) for one in scene.streams) < scene.lanes:  # noqa: ASYNC110  # there is no event for it
            await asyncio.sleep(0.02)


async def _follow_runs(scene: Scene, session: aiohttp.ClientSession, lane: int) -> None:
    """Follows one run after the other, the last one to its end."""
    number = 0
    while not scene.is_over:
        stream = Stream(f"lane-{lane}-{number}")
        scene.streams.append(stream)
        number += 1
        deadline = asyncio.timeout(None)
        async with deadline:
            while not stream.has_ended:
                if scene.is_over and deadline.when() is None:
                    deadline.reschedule(asyncio.get_running_loop().time() + LIMIT_SECONDS)
                try:
                    if not stream.run:
                        await _start_run(scene, session, stream)
                    await _read(scene, session, stream)
                except LOST:
                    await asyncio.sleep(RETRY_SECONDS)


async def _start_run(scene: Scene, session: aiohttp.ClientSession, stream: Stream) -> None:
    body = {"workflow": "chain", "inputs": {"text": stream.key}, "mode": "background"}
    async with session.post(f"{scene.url}/api/runs", json=body, headers={"Idempotency-Key": stream.key}) as reply:
        answer = await reply.json(content_type=None)
        if reply.status in (409, 503):  # The run of the key is taken over just now.
            raise aiohttp.ClientError(str(answer))
        assert reply.status == 202, answer
        stream.run = answer["id"]


async def _read(scene: Scene, session: aiohttp.ClientSession, stream: Stream) -> None:
    """Reads a stream from its last event on, until it or its connection ends."""
    process, headers = scene.number, {"Last-Event-ID": str(stream.last)}
    async with session.get(f"{scene.url}/api/runs/{stream.run}/events", headers=headers) as reply:
        stream.continued += bool(stream.events)
        assert reply.status == 200, (stream.run, stream.last, reply.status)
        async for fields in _frames(reply.content):
            if "id" not in fields:
                continue  # An error of the stream: it will be continued.
            stream.events.append((int(fields["id"]), fields["data"]))
            if fields["event"] == "attempt_finished":
                stream.seen_in[json.loads(fields["data"])["node"]] = process
            stream.has_ended = stream.has_ended or fields["event"] == "run_finished"


async def _frames(content: aiohttp.StreamReader) -> AsyncIterator[dict[str, str]]:
    """Yields the events that have arrived completely."""
    rest = b""
    async for part in content.iter_any():
        *blocks, rest = (rest + part).split(b"\n\n")
        for block in blocks:
            lines = [line.partition(": ") for line in block.decode().split("\n") if not line.startswith(":")]
            if fields := {name: value for name, _, value in lines if name}:
                yield fields


# The audit


async def audit(scene: Scene, session: aiohttp.ClientSession) -> AsyncIterator[str]:
    """Yields every violation: an event that is lost, repeated or another one, a repeated call, a run too many."""
    calls = [msgspec.json.decode(line, type=CallRecord) for line in (scene.folder / "calls").read_bytes().splitlines()]
    for stream in scene.streams:
        async with session.get(
            f"{scene.url}/api/runs/{stream.run}/events?limit=10000", headers={"Accept": "application/json"}
        ) as reply:
            stored: list[Any] = (await reply.json(content_type=None))["items"]
        for fault in stream_violations(stream, stored, [call for call in calls if call.run == stream.run]):
            yield f"{stream.key} ({stream.run}): {fault}"
    known = {stream.run for stream in scene.streams}
    if len(known) != len(scene.streams):
        yield "two keys have one run"
    cursor = ""
    while True:
        async with session.get(f"{scene.url}/api/runs?limit=200&cursor={cursor}") as reply:
            page = await reply.json(content_type=None)
        for run in page["items"]:
            if run["id"] not in known:
                yield f"a run too many: {run['id']}"
        if not (cursor := page["next"] or ""):
            break
    log = (scene.folder / "log").read_text("utf-8", "replace")
    if "Traceback" in log or "request failed" in log:
        yield f"the log has a fault: {log[-2000:]}"


def stream_violations(stream: Stream, stored: Sequence[Any], calls: Sequence[CallRecord]) -> Iterator[str]:
    """Yields what is wrong with one stream, compared with the journal at the end, and the calls of its run."""
    numbers = [number for number, _ in stream.events]
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers of its events are {numbers}"
    if [json.loads(data) for _, data in stream.events] != list(stored):
        yield "it has other events than the journal"
    last = stored[-1] if stored else {}
    if last.get("type") != "run_finished" or last.get("status") != "done":
        yield f"its run has not ended well: {last}"
    for (process, node), times in Counter((call.process, call.node) for call in calls).items():
        if times > 1:
            yield f"{node} was called {times} times by process {process}"
        if process > stream.seen_in.get(node, process):
            yield f"{node} was called again by process {process}, after its end was told"
    if len({call.node for call in calls}) != STEPS:
        yield f"only {len({call.node for call in calls})} steps were called"
