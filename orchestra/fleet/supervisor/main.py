"""The supervisor: one process per fleet, `python -m orchestra.fleet.supervisor.main FILE`. It outlives the command that
started it.

It holds a lock for its lifetime, so there is only one. It listens on a Unix socket beside the lock (one JSON line per
request), manages its servers, and exits after `idle_stop` seconds without a client or a request. With
`start: on_demand` a server starts when a client requests it, and stops by itself.
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
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO

import msgspec

from orchestra.core import child_process
from orchestra.core.child_process import ProcessSpec
from orchestra.fleet import cpu
from orchestra.fleet.config import PROTOCOL_VERSION, FleetConfig, LocalServer
from orchestra.fleet.memory import PROCESS_BYTES, AvailableMemory, available_memory, check_memory, memory_need
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.folders import LOCK_FILE, SOCKET_FILE, Folders
from orchestra.fleet.supervisor.memory_budget import MemoryBudget, Need
from orchestra.fleet.supervisor.messages import (
    EmptyResponse,
    HeartbeatRequest,
    KeyRequest,
    KeyResponse,
    LogsRequest,
    LogsResponse,
    StartRequest,
    StatusRequest,
    StopRequest,
    SupervisorReport,
    SupervisorRequest,
    SuspectRequest,
    UseRequest,
    UseResponse,
)
from orchestra.fleet.supervisor.server import Launcher, OnDemand, ServerSupervisor, Timing
from orchestra.fleet.weights import weights

log = logging.getLogger("orchestra.fleet.supervisor.main")
MAX_REQUEST_BYTES = 1 << 16
CHILDREN_FILE = "children.json"
KEY_BYTES = 32
"""Random bytes of the key of all servers of a supervisor. The key is only in memory and in their environments, and ends
with them.
"""
MAX_LOG_LINES = 500
"""Lines of a log in one response."""
LOCK_TIMEOUT = 60.0
"""Seconds to wait for the lock of a supervisor that is stopping."""


class Supervisor:
    """Manages the local servers of one fleet, and answers requests about them."""

    def __init__(
        self,
        config: FleetConfig,
        folders: Folders,
        launcher: Launcher,
        timing: Timing | None = None,
        available: Callable[[], AvailableMemory | None] = available_memory,
    ) -> None:
        """Starts nothing.

        Args:
            config: The configuration of the fleet.
            folders: The folders of weights, logs and sockets.
            launcher: Returns the command of a server.
            timing: The time limits.
            available: Returns the memory that a new process can use.
        """
        self.config = config
        self._runtime_folder, self._log_folder = folders.runtime_folder(config.digest), folders.logs(config.digest)
        self._timing = timing or Timing(stall_timeout=config.stall_timeout)
        self._key = secrets.token_urlsafe(KEY_BYTES)
        start_lock = asyncio.Lock()

        def locked(server: LocalServer, port: int) -> ProcessSpec:
            return replace(launcher(server, port), key=self._key)

        budget = MemoryBudget(config.memory_bytes, available, self._timing.memory_wait, self._timing.least_idle)
        self._servers = {
            name: ServerSupervisor(
                name,
                server,
                locked,
                self._log_folder,
                self._timing,
                start_lock,
                OnDemand(server.idle_stop or config.idle_stop, budget, memory_estimate(folders))
                if config.start == "on_demand"
                else None,
            )
            for name, server in config.local_servers.items()
        }
        budget.tenants.update(self._servers)
        self._stop = asyncio.Event()
        self._last_activity = self._started_at = time.monotonic()
        self._reason = ""

    async def run(self) -> None:
        """Serves until `stop`, or until no client has used it for `idle_stop` seconds. Stops all child processes."""
        if count := child_process.kill_leftovers(self._runtime_folder / CHILDREN_FILE):
            log.warning("ended %d servers of an earlier supervisor", count)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop, signal.Signals(number).name)
        path = self._runtime_folder / SOCKET_FILE
        path.unlink(missing_ok=True)
        listener = await asyncio.start_unix_server(self._serve, path, limit=MAX_REQUEST_BYTES)
        path.chmod(0o600)
        try:
            async with asyncio.TaskGroup() as group:
                for server_supervisor in self._servers.values():
                    group.create_task(server_supervisor.run())
                group.create_task(self._monitor())
                await self._stop.wait()
                log.info("ending: %s", self._reason)
                path.unlink(missing_ok=True)  # a new client starts another supervisor
                listener.close()
                for server_supervisor in self._servers.values():
                    server_supervisor.stop()
        finally:
            listener.close()
            (self._runtime_folder / CHILDREN_FILE).unlink(missing_ok=True)

    def stop(self, reason: str) -> None:
        """Makes `run` return."""
        self._reason = self._reason or reason
        self._stop.set()

    async def _monitor(self) -> None:
        """Records the children for a later supervisor, and checks for idleness."""
        measurements: dict[str, tuple[int, int]] = {}
        recorded_pids: list[int] = []
        while not self._stop.is_set():
            pids = [
                server_supervisor.child.pid for server_supervisor in self._servers.values() if server_supervisor.child
            ]
            if pids != recorded_pids:
                child_process.record_processes(pids, self._runtime_folder / CHILDREN_FILE)
                recorded_pids = pids
            for name, server_supervisor in self._servers.items():
                if server_supervisor.load.busy or server_supervisor.load.progress != measurements.get(
                    name, server_supervisor.load.progress
                ):
                    self._last_activity = time.monotonic()
                measurements[name] = server_supervisor.load.progress
            if time.monotonic() - self._last_activity > self.config.idle_stop:
                self.stop(f"no request for {self.config.idle_stop:.0f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(
                    self._stop.wait(), min(self._timing.poll_interval / 2, self.config.idle_stop / 4)
                )

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(30):
                while line := await reader.readline():
                    question = msgspec.json.decode(line, type=SupervisorRequest)
                    writer.write(msgspec.json.encode(await self._handle(question)) + b"\n")
                    await writer.drain()
        except (OSError, TimeoutError, ValueError, msgspec.MsgspecError, asyncio.LimitOverrunError):
            log.warning("a client disconnected, or sent an invalid request")
        finally:
            writer.close()

    async def _handle(
        self, question: SupervisorRequest
    ) -> SupervisorReport | LogsResponse | KeyResponse | UseResponse | EmptyResponse:
        self._last_activity = time.monotonic()
        match question:
            case StatusRequest():
                return await self._report()
            case LogsRequest(lines):
                count = min(lines, MAX_LOG_LINES) if lines > 0 else LogsRequest().lines
                return LogsResponse(
                    {
                        name: child_process.last_lines(server_supervisor.log, count)
                        for name, server_supervisor in self._servers.items()
                    }
                )
            case KeyRequest():
                return KeyResponse(self._key)
            case StartRequest(server):
                for server_supervisor in self._select(server):
                    server_supervisor.request_start(may_stop_others=server is not None)
            case UseRequest(server):
                return UseResponse("".join(server_supervisor.use() for server_supervisor in self._select(server)))
            case SuspectRequest(server):
                for server_supervisor in self._select(server):
                    server_supervisor.check_liveness()
            case StopRequest():
                self.stop("a client asked for it")
            case HeartbeatRequest():
                pass
        return EmptyResponse()

    def _select(self, server: str | None) -> list[ServerSupervisor]:
        return [server_supervisor for name, server_supervisor in self._servers.items() if server in (None, name)]

    async def _report(self) -> SupervisorReport:
        return SupervisorReport(
            protocol=PROTOCOL_VERSION,
            fleet=self.config.name,
            digest=self.config.digest,
            pid=os.getpid(),
            uptime=round(time.monotonic() - self._started_at, 1),
            idle_stop=self.config.idle_stop,
            logs=str(self._log_folder),
            servers=list(
                await asyncio.gather(*(server_supervisor.report() for server_supervisor in self._servers.values()))
            ),
            requires_key=True,
        )


def memory_estimate(folders: Folders) -> Callable[[LocalServer], Need]:
    """Returns a function that estimates the memory of a server from its weights and its key-value cache. The memory of
    a GPU is not known here.
    """

    def estimate(server: LocalServer) -> Need:
        local_server = cpu.resolve_auto(server, folders.cache) if server.device == "cpu" else server
        need = memory_need(local_server, weights.ModelStore(folders))
        return Need(0, 0) if need is None else Need(need.bytes, need.bytes + PROCESS_BYTES)

    return estimate


def weights_launcher(folders: Folders) -> Launcher:
    """Returns a launcher that verifies the digests of the cached weights, then returns the command of vLLM."""

    def launch(server: LocalServer, port: int) -> ProcessSpec:
        vllm_launch.vllm_version()
        folder = weights.find_weights(server.weights, weights.ModelStore(folders))
        if folder is None:
            raise weights.missing_error(server.weights)
        check_memory(server.model, server, weights.ModelStore(folders), available_memory())
        if server.device == "cpu" and server.dtype == "auto":
            cpu.ensure_speeds(folders.cache)
        return vllm_launch.build_launch(
            cpu.resolve_auto(server, folders.cache), weights.verify_weights(folder).folder, port
        )

    return launch


def acquire_lock(lock: Path, timeout: float = LOCK_TIMEOUT) -> IO[str] | None:
    """Returns the open lock file, which holds the lock; None if another supervisor answers or holds it too long."""
    file = lock.open("a+")
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return file
        except BlockingIOError:
            if (lock.parent / SOCKET_FILE).exists() or time.monotonic() > deadline:
                file.close()
                return None
            time.sleep(0.1)


def serve(
    file: Path,
    launcher: Launcher | None = None,
    timing: Timing | None = None,
    available: Callable[[], AvailableMemory | None] = available_memory,
) -> int:
    """Runs the supervisor of the fleet in `file`. Returns 0, also if another one runs already.

    Args:
        file: The configuration of the fleet as JSON.
        launcher: Returns the command of a server; by default that of vLLM.
        timing: The time limits.
        available: Returns the memory that a new process can use.
    """
    config = FleetConfig.model_validate_json(file.read_bytes())
    folders = Folders.from_environment()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    lock = acquire_lock(folders.runtime_folder(config.digest) / LOCK_FILE)
    if lock is None:
        return 0

    async def run() -> None:
        await Supervisor(config, folders, launcher or weights_launcher(folders), timing, available).run()

    with lock:
        asyncio.run(run())
    return 0


def main(arguments: Sequence[str]) -> int:
    """Forks, so that the starting command need not wait, and serves."""
    if os.fork():
        os._exit(0)
    os.setsid()
    return serve(Path(arguments[0]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
