"""Where the fleet's own servers listen, as its supervisor says; and the wait for those that start or restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal, TypeAlias

from orchestra.core.errors import FleetError
from orchestra.core.protocols import Clock
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import SupervisorClient
from orchestra.fleet.supervisor.messages import HeartbeatRequest, StartRequest, SupervisorReport, SuspectRequest
from orchestra.fleet.weights import weights

SupervisorMode: TypeAlias = Literal["start", "adopt", "none"]
"""`start` adopts a supervisor that is there, or starts one; `adopt` wants one; `none` uses endpoints only."""
POLL_INTERVAL = 0.3
"""Seconds between two questions to the supervisor while a server is not ready."""


class LocalAddresses:
    """The addresses of local servers. `bring_up` starts one; `url` waits for one that is down."""

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
        self._lock = asyncio.Lock()
        self.on_address_change: Callable[[str], None] = lambda server: None
        """Called with the name of a server that has another address than before."""

    async def bring_up(self, server: str, progress: ProgressCallback = ignore_progress) -> None:
        """Brings up one local server: weights, supervisor, health. Raises `FleetError`."""
        if self.mode == "none":
            return
        if self.mode == "adopt":
            await self.supervisor.require_status()
        elif not await self.supervisor.notify(StartRequest(server)):
            await self._start(server, progress)
        try:
            status = await self.supervisor.wait_until_ready(progress, self.config.first_start_patience, only=server)
        except FleetError as error:
            if error.code != "F003" or self.mode == "adopt":
                raise
            # whoever started the supervisor wanted another server, and fetched that one's weights
            await self._start(server, progress)
            status = await self.supervisor.wait_until_ready(progress, self.config.first_start_patience, only=server)
        await self._update(status)

    async def _start(self, server: str, progress: ProgressCallback) -> None:
        vllm_launch.vllm_version()
        await weights.ensure_weights(self.config.local_servers[server].weights, self._model_store, progress)
        progress(Progress("start", f"starting {server}"))
        await self.supervisor.start()

    async def _update(self, status: SupervisorReport) -> None:
        moved = {
            one.name: one
            for one in status.servers
            if one.phase == "ready" and one.url and one.url != self._urls.get(one.name)
        }
        try:
            key = await self.supervisor.key(status) if moved else ""
        except FleetError as error:
            if error.code != "F008":
                raise
            return  # it has ended since: who asks next finds another one
        for name, server in moved.items():
            self._urls[name], self._keys[name] = server.url or "", key
            self._spare_slots[name] = server.spare_slots
            self.on_address_change(name)

    def key(self, server: str) -> str:
        """The key that a server wants at the address that is known; empty where it wants none."""
        return self._keys.get(server, "")

    def spare_slots(self, server: str) -> int:
        """How many slots for adapters must stay free, as whoever started the server says: its vLLM may be another than ours."""
        return self._spare_slots.get(server, 0)

    async def url(self, server: str, seconds: float) -> str | RequestError:
        """The address of a server; waits for at most `seconds` while it restarts. For 0 it asks once, and waits for nothing."""
        if found := self._urls.get(server):
            return found
        if self.mode == "none":
            return RequestError.not_reached(
                "F216", f"{server} is not running, and this command does not start it", "orchestra fleet start"
            )
        deadline = self._clock.monotonic() + seconds
        try:
            while True:
                async with self._lock:
                    if found := self._urls.get(server):
                        return found
                    if (fault := await self._refresh(server)) is not None:
                        return fault
                if found := self._urls.get(server):
                    return found
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
            await self.supervisor.start()
            return None
        await self._update(status)
        broken = next((found for found in status.servers if found.name == server and found.phase == "failed"), None)
        if broken is None:
            return None
        error = broken.to_error
        return RequestError.from_error(error)

    def forget(self, server: str, url: str) -> None:
        """Nobody listens at `root` any longer: the next request asks the supervisor."""
        if self._urls.get(server) == url:
            del self._urls[server]

    async def report_stall(self, server: str) -> None:
        """Tells the supervisor that a request waited in vain."""
        if server in self.config.local_servers and self.mode != "none":
            with contextlib.suppress(FleetError):
                await self.supervisor.notify(SuspectRequest(server))

    async def send_heartbeats(self, seconds: float) -> None:
        """Tells the supervisor every few seconds that somebody is here; runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            with contextlib.suppress(FleetError):
                await self.supervisor.notify(HeartbeatRequest())
