"""The supervisor: one process a fleet, that outlives the command which started it: `python -m orchestra.fleet.supervisor.main FILE`.

It holds a lock for its life, so that there is one; listens on a Unix socket beside the lock, one JSON line a question;
keeps its servers; and ends by itself after `idle_stop` without a client or a request.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import os
import secrets
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import msgspec

from orchestra.core import child_process
from orchestra.core.child_process import Launch
from orchestra.fleet import cpu
from orchestra.fleet.config import PROTOCOL, FleetConfig, LocalServer
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.folders import LOCK, SOCKET, Folders
from orchestra.fleet.supervisor.messages import (
    Done,
    Key,
    Keyed,
    Logs,
    Question,
    Start,
    Status,
    Stop,
    SupervisorReport,
    Suspect,
    Tails,
    Touch,
)
from orchestra.fleet.supervisor.server import Keeper, Launcher, Timing
from orchestra.fleet.weights import weights

log = logging.getLogger("orchestra.fleet.supervisor.main")
LINE_BYTES = 1 << 16
CHILDREN = "children.json"
KEY_BYTES = 32
"""Of chance, in the key that all servers of a supervisor want. It is in memory and in their environments alone, and ends with them."""
MOST_LINES = 500
"""Of a log that one answer has."""
LOCK_SECONDS = 60.0
"""A supervisor that is ending may hold the lock for its grace; a new one waits so long for it."""


class Supervisor:
    """Keeps the local servers of one fleet, and answers questions about them."""

    def __init__(self, config: FleetConfig, folders: Folders, launcher: Launcher, timing: Timing | None = None) -> None:
        self.config = config
        self._meeting, self._logs = folders.meeting(config.digest), folders.logs(config.digest)
        self._timing = timing or Timing()
        self._key = secrets.token_urlsafe(KEY_BYTES)
        turn = asyncio.Lock()

        def locked(server: LocalServer, port: int) -> Launch:
            return replace(launcher(server, port), key=self._key)

        self._keepers = {name: Keeper(name, server, locked, self._logs, self._timing, turn) for name, server in config.local.items()}
        self._stop = asyncio.Event()
        self._touched = self._started = time.monotonic()
        self._reason = ""

    async def run(self) -> None:
        """Serves until it is told to stop or nobody has wanted it for `idle_stop` seconds; leaves no child."""
        if count := child_process.end_leftovers(self._meeting / CHILDREN):
            log.warning("ended %d servers of an earlier supervisor", count)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        path = self._meeting / SOCKET
        path.unlink(missing_ok=True)
        listener = await asyncio.start_unix_server(self._serve, path, limit=LINE_BYTES)
        path.chmod(0o600)
        try:
            async with asyncio.TaskGroup() as group:
                for keeper in self._keepers.values():
                    group.create_task(keeper.keep())
                group.create_task(self._look_after())
                await self._stop.wait()
                log.info("ending: %s", self._reason)
                path.unlink(missing_ok=True)  # whoever comes now starts another
                listener.close()
                for keeper in self._keepers.values():
                    keeper.stop()
        finally:
            listener.close()
            (self._meeting / CHILDREN).unlink(missing_ok=True)

    def stop(self, reason: str) -> None:
        """Asks `run` to end."""
        self._reason = self._reason or reason
        self._stop.set()

    async def _look_after(self) -> None:
        """Notes the children for a successor, and sees whether anybody still wants them."""
        seen: dict[str, tuple[int, int]] = {}
        noted: list[int] = []
        while not self._stop.is_set():
            pids = [keeper.child.pid for keeper in self._keepers.values() if keeper.child]
            if pids != noted:
                child_process.record(pids, self._meeting / CHILDREN)
                noted = pids
            for name, keeper in self._keepers.items():
                if keeper.load.busy or keeper.load.progress != seen.get(name, keeper.load.progress):
                    self._touched = time.monotonic()
                seen[name] = keeper.load.progress
            if time.monotonic() - self._touched > self.config.idle_stop:
                self.stop(f"nobody asked for {self.config.idle_stop:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), min(self._timing.poll / 2, self.config.idle_stop / 4))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(30):
                while line := await reader.readline():
                    question = msgspec.json.decode(line, type=Question)
                    writer.write(msgspec.json.encode(await self._answer(question)) + b"\n")
                    await writer.drain()
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError, asyncio.LimitOverrunError):
            log.warning("a client went away, or said what is no question")
        finally:
            writer.close()

    async def _answer(self, question: Question) -> SupervisorReport | Tails | Keyed | Done:
        self._touched = time.monotonic()
        match question:
            case Status():
                return await self._report()
            case Logs(lines):
                count = min(lines, MOST_LINES) if lines > 0 else Logs().lines
                return Tails({name: child_process.last_lines(keeper.log, count) for name, keeper in self._keepers.items()})
            case Key():
                return Keyed(self._key)
            case Start(server):
                for keeper in self._named(server):
                    keeper.revive()
            case Suspect(server):
                for keeper in self._named(server):
                    keeper.suspect()
            case Stop():
                self.stop("a client said so")
            case Touch():
                pass
        return Done()

    def _named(self, server: str | None) -> list[Keeper]:
        return [keeper for name, keeper in self._keepers.items() if server in (None, name)]

    async def _report(self) -> SupervisorReport:
        return SupervisorReport(
            protocol=PROTOCOL,
            fleet=self.config.name,
            digest=self.config.digest,
            pid=os.getpid(),
            uptime=round(time.monotonic() - self._started, 1),
            idle_stop=self.config.idle_stop,
            logs=str(self._logs),
            servers=list(await asyncio.gather(*(keeper.report() for keeper in self._keepers.values()))),
            guarded=True,
        )


def from_weights(folders: Folders) -> Launcher:
    """Starts vLLM on weights that are in the cache, each file compared with its digest first."""

    def start(server: LocalServer, port: int) -> Launch:
        vllm_launch.vllm_version()
        folder = weights.find(server.weights, weights.Pantry(folders))
        if folder is None:
            raise weights.absent(server.weights)
        if server.device == "cpu" and server.dtype == "auto":
            cpu.ensure_speeds(folders.cache)
        return vllm_launch.launch(cpu.resolved(server, folders.cache), weights.verify(folder).folder, port)

    return start


def take(lock: Path, seconds: float = LOCK_SECONDS) -> IO[str] | None:
    """The lock, held as long as the file is open; None where another supervisor answers, or holds it for too long."""
    file = lock.open("a+")
    deadline = time.monotonic() + seconds
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if (lock.parent / SOCKET).exists() or time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.1)


def serve(file: Path, launcher: Launcher | None = None, timing: Timing | None = None) -> int:
    """Runs the supervisor of the fleet in `file`; gives 0, also where another one is there already."""
    config = FleetConfig.model_validate_json(file.read_bytes())
    folders = Folders.of()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    held = take(folders.meeting(config.digest) / LOCK)
    if held is None:
        return 0

    async def run() -> None:
        await Supervisor(config, folders, launcher or from_weights(folders), timing).run()

    with held:
        asyncio.run(run())
    return 0


def main(arguments: Sequence[str]) -> int:
    """Leaves the command that started it (so that nobody has to wait for it), and serves."""
    if os.fork():
        os._exit(0)
    os.setsid()
    return serve(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
