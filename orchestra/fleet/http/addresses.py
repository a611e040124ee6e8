"""Addresses of the fleet's local servers, as the supervisor reports them, and the wait for servers that start or
restart.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from math import inf
from typing import Literal, TypeAlias

from orchestra.core.errors import FleetError
from orchestra.core.protocols import Clock
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.memory import AvailableMemory, available_memory, check_memory
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.messages import HeartbeatRequest, StartRequest, SupervisorReport, SuspectRequest
from orchestra.fleet.weights import weights

SupervisorMode: TypeAlias = Literal["start", "adopt", "none"]
"""`start` uses a running supervisor or starts one; `adopt` requires a running one; `none` uses endpoints only."""
POLL_INTERVAL = 0.3
"""Seconds between two requests to the supervisor while a server is not ready."""
END_REPORT_SECONDS = 1.0
"""Seconds for which the supervisor's report of an end is awaited after a connection broke."""
ANNOUNCE_INTERVAL = 1.0
"""Seconds between requests to a server after which the next one is announced to the supervisor, which may have stopped
the server. It must be less than `least_idle` of `orchestra.fleet.supervisor.server.Timing`.
"""
CLOCK_SLACK = 0.1
"""Seconds by which the rounded age of an end may be too high."""


class LocalAddresses:
    """The addresses of local servers. `bring_up` starts a server; `url` waits for one that is down."""

    def __init__(
        self,
        config: FleetConfig,
        supervisor: SupervisorClient,
        model_store: weights.ModelStore,
        mode: SupervisorMode,
        clock: Clock,
    ) -> None:
        self.config, self.mode = config, mode
        self.supervisor = supervisor
        self._model_store, self._clock = model_store, clock
        self._urls: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._spare_slots: dict[str, int] = {}
        self._announced: dict[str, float] = {}
        """Server that starts on demand to the time of the last announced request."""
        self._lock = asyncio.Lock()
        self.on_address_change: Callable[[str], None] = lambda server: None
        """Called with the name of a server whose address changed."""

    async def bring_up(self, server: str, progress: ProgressCallback = ignore_progress) -> None:
        """Starts one local server: weights, supervisor, health. Raises `FleetError`."""
        if self.mode == "none":
            return
        if self.mode == "adopt":
            await self.supervisor.require_status()
            if self._starts_on_demand:
                await self.supervisor.notify(StartRequest(server))
        elif not await self.supervisor.notify(StartRequest(server)):
            await self._start(server, progress)
        try:
            status = await self.supervisor.wait_until_ready(progress, self.config.first_start_patience, only=server)
        except FleetError as error:
            if error.code != "F003" or self.mode == "adopt":
                raise
            # The supervisor was started for another server, so only that server's weights are installed.
            await self._start(server, progress)
            status = await self.supervisor.wait_until_ready(progress, self.config.first_start_patience, only=server)
        await self._update(status)

    async def _start(self, server: str, progress: ProgressCallback) -> None:
        vllm_launch.vllm_version()
        await self.install_weights(server, progress)
        progress(Progress("start", f"starting {server}"))
        await self.supervisor.start(server)

    async def install_weights(self, server: str, progress: ProgressCallback) -> None:
        """Fetches the weights of a local server if they are missing. The memory is checked before.

        Raises:
            FleetError: The weights cannot be fetched, or the server cannot run on this machine.
        """
        if self.mode == "none":
            return
        local = self.config.local_servers[server]
        check_memory(f"servers.{server}", local, self._model_store, await self._usable_memory())
        await weights.ensure_weights(local.weights, self._model_store, progress)

    async def _usable_memory(self) -> AvailableMemory | None:
        """Returns the memory that a server can have, with that of the servers that can be stopped for it."""
        memory = available_memory()
        if memory is None or not self._starts_on_demand:
            return memory
        status = await self.supervisor.status()
        used_bytes = 0 if status is None else sum(report.memory_bytes for report in status.servers)
        limits = [AvailableMemory(memory.bytes + used_bytes, memory.limit)]
        if self.config.memory_bytes is not None:
            limits.append(AvailableMemory(self.config.memory_bytes, "`memory:` of the fleet file"))
        return min(limits, key=lambda limit: limit.bytes)

    @property
    def _starts_on_demand(self) -> bool:
        return self.config.start == "on_demand"

    async def is_running(self, server: str) -> bool:
        """Whether a server is at the address that is known here. A server that starts on demand may have been stopped;
        the request that follows is announced to the supervisor, which then lets it run.
        """
        url = self._urls.get(server)
        if url is None or not self._starts_on_demand or self.mode == "none":
            return url is not None
        now = self._clock.monotonic()
        if now - self._announced.get(server, -inf) < ANNOUNCE_INTERVAL:
            return True
        try:
            current = await self.supervisor.use(server)
        except FleetError:
            return True  # the supervisor is busy; the request shows whether the server runs
        if current != url:
            self.forget(server, url)
            return False
        self._announced[server] = now
        return True

    async def _update(self, status: SupervisorReport) -> None:
        ready_reports = {
            server.name: server
            for server in status.servers
            if server.phase == "ready" and server.url and server.url != self._urls.get(server.name)
        }
        try:
            key = await self.supervisor.key(status) if ready_reports else ""
        except FleetError as error:
            if error.code != "F008":
                raise
            return  # it has ended; the next request finds another supervisor
        for name, server in ready_reports.items():
            self._urls[name], self._keys[name] = server.url or "", key
            self._spare_slots[name] = server.spare_slots
            self.on_address_change(name)

    def key(self, server: str) -> str:
        """Returns the key of a server at a known address; empty if it needs none."""
        return self._keys.get(server, "")

    def spare_slots(self, server: str) -> int:
        """Returns the adapter slots that must stay free, as reported by the process that started the server. Its vLLM
        may be another one.
        """
        return self._spare_slots.get(server, 0)

    async def url(self, server: str, seconds: float) -> str | RequestError:
        """Returns the address of a server. Waits at most `seconds` while it restarts; 0 asks once without waiting."""
        if await self.is_running(server) and (url := self._urls.get(server)):
            return url
        if self.mode == "none":
            return RequestError.not_reached(
                "F216", f"{server} is not running, and this command does not start it", "orchestra fleet start"
            )
        deadline = self._clock.monotonic() + seconds
        try:
            while True:
                async with self._lock:
                    if url := self._urls.get(server):
                        return url
                    if (fault := await self._refresh(server)) is not None:
                        return fault
                if url := self._urls.get(server):
                    return url
                if self._clock.monotonic() >= deadline:
                    reason = (
                        f"{server} is still not ready after {seconds:.0f} s" if seconds else f"{server} is not ready"
                    )
                    return RequestError(
                        "F216", reason, "orchestra fleet status", reached_model=False, retry_after=POLL_INTERVAL
                    )
                await self._clock.sleep(POLL_INTERVAL)
        except FleetError as error:
            return RequestError.from_error(error, retryable=True)

    async def _refresh(self, server: str) -> RequestError | None:
        status = await self.supervisor.status()
        if status is None:
            if self.mode == "adopt":
                return RequestError.not_reached(
                    "F216", f"the fleet {self.config.name!r} has stopped", "orchestra fleet start", retryable=True
                )
            await self.supervisor.start(server)
            return None
        await self._update(status)
        if any(report.name == server and report.phase in ("stopping", "stopped") for report in status.servers):
            await self.supervisor.notify(StartRequest(server))
        failed_report = next(
            (
                server_report
                for server_report in status.servers
                if server_report.name == server and server_report.phase == "failed"
            ),
            None,
        )
        if failed_report is None:
            return None
        error = failed_report.to_error
        return RequestError.from_error(error)

    def forget(self, server: str, url: str) -> None:
        """Forgets a refused address. The next request asks the supervisor."""
        if self._urls.get(server) == url:
            del self._urls[server]

    async def report_stall(self, server: str) -> None:
        """Reports to the supervisor that a request timed out."""
        if server in self.config.local_servers and self.mode != "none":
            with contextlib.suppress(FleetError):
                await self.supervisor.notify(SuspectRequest(server))

    async def end_error(self, server: str, since: float) -> FleetError | None:
        """Returns why a local server ended, if it did since a time of the clock; None if it runs, or if the supervisor
        does not know.

        The connection breaks before the supervisor has seen the end of the process, so the report is awaited for
        `END_REPORT_SECONDS`.
        """
        if server not in self.config.local_servers or self.mode == "none":
            return None
        deadline = self._clock.monotonic() + END_REPORT_SECONDS
        with contextlib.suppress(FleetError):
            while (status := await self.supervisor.status()) is not None:
                report = next((server_report for server_report in status.servers if server_report.name == server), None)
                if (
                    report is not None
                    and report.last_failure is not None
                    and report.since_failure <= self._clock.monotonic() - since + CLOCK_SLACK
                ):
                    return report.last_failure.to_error()
                if self._clock.monotonic() >= deadline:
                    break
                await self._clock.sleep(POLL_INTERVAL / 3)
        return None

    async def send_heartbeats(self, seconds: float) -> None:
        """Sends heartbeats to the supervisor until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            with contextlib.suppress(FleetError):
                await self.supervisor.notify(HeartbeatRequest())
