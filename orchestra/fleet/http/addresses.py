"""Where the fleet's own servers listen, as its supervisor says; and the wait for those that start or restart."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import Literal, TypeAlias

from orchestra.core.errors import FleetError
from orchestra.core.protocols import Clock
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.progress import Progress, Report, silent
from orchestra.fleet.request_errors import Fault
from orchestra.fleet.supervisor import vllm_launch
from orchestra.fleet.supervisor.client import Supervision
from orchestra.fleet.supervisor.messages import Start, SupervisorReport, Suspect, Touch
from orchestra.fleet.weights import weights

Mode: TypeAlias = Literal["start", "adopt", "none"]
"""`start` adopts a supervisor that is there, or starts one; `adopt` wants one; `none` uses endpoints only."""
ASK_AGAIN = 0.3
"""Seconds between two questions to the supervisor while a server is not ready."""


class LocalAddresses:
    """The addresses of local servers. `ready` brings one up; `root` waits for one that is down."""

    def __init__(self, config: FleetConfig, supervision: Supervision, pantry: weights.Pantry, mode: Mode, clock: Clock) -> None:
        self.config, self.mode = config, mode
        self.supervision = supervision
        self._pantry, self._clock = pantry, clock
        self._roots: dict[str, str] = {}
        self._keys: dict[str, str] = {}
        self._spare: dict[str, int] = {}
        self._asking = asyncio.Lock()
        self.on_move: Callable[[str], None] = lambda server: None
        """Called with the name of a server that has another address than before."""

    async def ready(self, server: str, report: Report = silent) -> None:
        """Brings up one local server: weights, supervisor, health. Raises `FleetError`."""
        if self.mode == "none":
            return
        if self.mode == "adopt":
            await self.supervision.adopt()
        elif not await self.supervision.tell(Start(server)):
            await self._start(server, report)
        try:
            status = await self.supervision.healthy(report, self.config.patience_at_first, only=server)
        except FleetError as error:
            if error.code != "F003" or self.mode == "adopt":
                raise
            await self._start(server, report)  # whoever started the supervisor wanted another server, and fetched that one's weights
            status = await self.supervision.healthy(report, self.config.patience_at_first, only=server)
        await self._note(status)

    async def _start(self, server: str, report: Report) -> None:
        vllm_launch.vllm_version()
        await weights.ensure(self.config.local[server].weights, self._pantry, report)
        report(Progress("start", f"starting {server}"))
        await self.supervision.start()

    async def _note(self, status: SupervisorReport) -> None:
        moved = {one.name: one for one in status.servers if one.phase == "ready" and one.url and one.url != self._roots.get(one.name)}
        try:
            key = await self.supervision.key(status) if moved else ""
        except FleetError as error:
            if error.code != "F008":
                raise
            return  # it has ended since: who asks next finds another one
        for name, server in moved.items():
            self._roots[name], self._keys[name] = server.url or "", key
            self._spare[name] = server.spare_slots
            self.on_move(name)

    def key(self, server: str) -> str:
        """The key that a server wants at the address that is known; empty where it wants none."""
        return self._keys.get(server, "")

    def spare_slots(self, server: str) -> int:
        """How many slots for adapters must stay free, as whoever started the server says: its vLLM may be another than ours."""
        return self._spare.get(server, 0)

    async def root(self, server: str, seconds: float) -> str | Fault:
        """The address of a server; waits for at most `seconds` while it restarts. For 0 it asks once, and waits for nothing."""
        if found := self._roots.get(server):
            return found
        if self.mode == "none":
            return Fault.unseen("F216", f"{server} is not running, and this command does not start it", "orchestra fleet start")
        deadline = self._clock.monotonic() + seconds
        try:
            while True:
                async with self._asking:
                    if found := self._roots.get(server):
                        return found
                    if (fault := await self._look(server)) is not None:
                        return fault
                if found := self._roots.get(server):
                    return found
                if self._clock.monotonic() >= deadline:
                    reason = f"{server} is still not ready after {seconds:.0f} s" if seconds else f"{server} is not ready"
                    return Fault("F216", reason, "orchestra fleet status", seen=False, retry_after=ASK_AGAIN)
                await self._clock.sleep(ASK_AGAIN)
        except FleetError as error:
            return Fault.of(error, retryable=True)

    async def _look(self, server: str) -> Fault | None:
        status = await self.supervision.status()
        if status is None:
            if self.mode == "adopt":
                return Fault.unseen("F216", f"the fleet {self.config.name!r} has stopped", "orchestra fleet start", retryable=True)
            await self.supervision.start()
            return None
        await self._note(status)
        broken = next((found for found in status.servers if found.name == server and found.phase == "failed"), None)
        if broken is None:
            return None
        error = broken.failure
        return Fault.of(error)

    def lost(self, server: str, root: str) -> None:
        """Nobody listens at `root` any longer: the next request asks the supervisor."""
        if self._roots.get(server) == root:
            del self._roots[server]

    async def suspect(self, server: str) -> None:
        """Tells the supervisor that a request waited in vain."""
        if server in self.config.local and self.mode != "none":
            with contextlib.suppress(FleetError):
                await self.supervision.tell(Suspect(server))

    async def beat(self, seconds: float) -> None:
        """Tells the supervisor every few seconds that somebody is here; runs until it is cancelled."""
        while True:
            await asyncio.sleep(seconds)
            with contextlib.suppress(FleetError):
                await self.supervision.tell(Touch())
