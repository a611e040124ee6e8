"""The keeper of one server: starts it, waits for health, watches it, restarts it with growing pauses, gives up on hopeless ones."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import aiohttp
import msgspec

from orchestra.core import child_process
from orchestra.core.child_process import Child, Launch
from orchestra.core.errors import FleetError
from orchestra.fleet import vllm_metrics
from orchestra.fleet.config import LocalServer
from orchestra.fleet.request_errors import traits
from orchestra.fleet.secrets import signed
from orchestra.fleet.supervisor import port_owner, vllm_launch
from orchestra.fleet.supervisor.auth_middleware import OPEN
from orchestra.fleet.supervisor.messages import Phase, ServerReport, Trouble

Launcher: TypeAlias = Callable[[LocalServer, int], Launch]


@dataclass(frozen=True, slots=True)
class Timing:
    """How long things may take, in seconds."""

    start: float = 900.0
    """Until the first good answer of /health; a cold GPU server compiles for minutes."""
    silence: float = 180.0
    """Without a word in its log while it starts, until the others no longer wait for it; a compiler says nothing for a minute or two."""
    poll: float = 2.0
    answer: float = 20.0
    """One request of the keeper; the loop of a busy CPU server answers late."""
    stall: float = 90.0
    """Without a good /health, or at work without a token, until the server counts as dead."""
    first_pause: float = 0.5
    longest_pause: float = 60.0
    steady: float = 60.0
    """After so long in health the pauses begin small again."""
    grace: float = 15.0
    attempts: int = 2
    """Starts in a row without health until the keeper gives up."""


class Keeper:
    """Keeps one server. `keep()` runs until `stop()`."""

    def __init__(self, name: str, server: LocalServer, launcher: Launcher, logs: Path, timing: Timing, turn: asyncio.Lock) -> None:
        """`turn` is shared by the keepers of a fleet: servers of one GPU measure its free memory, and so start one after another."""
        self.name, self.server = name, server
        self._turn = turn
        self.phase: Phase = "starting"
        self.log = logs / f"{name}.log"
        self.launch: Launch | None = None
        """What the server was started with."""
        self.child: Child | None = None
        self.port = 0
        self.restarts = 0
        self.fault: FleetError | None = None
        self.version: Any = None
        self.load = vllm_metrics.Load()
        self._looked = time.monotonic()
        self._fastest = 0.0
        self._launcher, self._timing = launcher, timing
        self._began = time.monotonic()
        self._healthy_since: float | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._suspected = False

    @property
    def url(self) -> str:
        """The address of the server; empty while there is none."""
        return f"http://{vllm_launch.LOOPBACK}:{self.port}" if self.port else ""

    async def keep(self) -> None:
        """Starts the server, and starts it again whenever it ends or stalls, until `stop()`."""
        pause, failures = self._timing.first_pause, 0
        async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=self._timing.answer)) as session:
            while not self._stopping:
                healthy_for = await self._live(session)
                if self._stopping:
                    break
                failures = 0 if healthy_for is not None else failures + 1
                if self.fault and (failures >= self._timing.attempts or traits(self.fault.code).final):
                    self.phase = "failed"
                    await self._rest(None)
                    failures, pause = 0, self._timing.first_pause
                else:
                    self.phase = "restarting"
                    pause = self._timing.first_pause if (healthy_for or 0) >= self._timing.steady else pause
                    await self._rest(pause)
                    pause = min(2 * pause, self._timing.longest_pause)
                self.restarts += 1
        self.phase = "stopped"

    async def _rest(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _live(self, session: aiohttp.ClientSession) -> float | None:
        """One life of the server: the seconds that it was healthy, or None where it never was."""
        self._began, self._healthy_since, self._suspected, self.load = time.monotonic(), None, False, vllm_metrics.Load()
        self._fastest = 0.0
        await self._turn.acquire()
        with contextlib.ExitStack() as turn:
            turn.callback(self._turn.release)
            child = await self._start(session, turn)
        if child is None:
            return None
        ended = asyncio.create_task(child.wait())
        try:
            self._healthy_since = time.monotonic()
            await self._watch(session, ended)
            return time.monotonic() - self._healthy_since
        finally:
            self._healthy_since = None
            await child.stop(self._timing.grace if self._stopping else 0.0)
            await ended
            self.child, self.port = None, 0

    async def _start(self, session: aiohttp.ClientSession, turn: contextlib.ExitStack) -> Child | None:
        """A healthy server; None where it did not become one, with `fault` set, or where nobody wants it any more.

        One that hangs gives its `turn` back meanwhile.
        """
        if self._stopping:
            return None
        try:
            self.port = vllm_launch.choose_port(self.server.port)
            # The launcher reads every byte of the weights: not on this loop.
            self.launch = await asyncio.to_thread(self._launcher, self.server, self.port)
            self.child = await child_process.start(self.launch, self.log)
        except FleetError as error:
            self.fault = error
            return None
        except (OSError, ValueError) as error:  # of a path that is none, too: the fleet's other servers go on
            self.fault = FleetError("F005", f"vLLM did not start: {error}", hint="orchestra doctor")
            return None
        ended = asyncio.create_task(self.child.wait())
        healthy = False
        try:
            if healthy := await self._become_healthy(session, ended, turn):
                self.phase, self.fault = "ready", None
                return self.child
            if not self._stopping:
                status = self.child.returncode
                await self.child.kill()
                self.fault = vllm_launch.diagnose(child_process.last_lines(self.log, 40), status)
            return None
        finally:
            if not healthy:
                await self.child.stop(self._timing.grace if self._stopping else 0.0)
                self.child, self.port = None, 0
            else:
                ended.cancel()

    async def _become_healthy(self, session: aiohttp.ClientSession, ended: asyncio.Task[int], turn: contextlib.ExitStack) -> bool:
        began, deadline = time.time(), time.monotonic() + self._timing.start
        while not ended.done() and not self._stopping and time.monotonic() < deadline:
            if await self._get(session, "/health") is not None:
                version = await self._get(session, "/version")
                with contextlib.suppress(msgspec.MsgspecError):
                    self.version = msgspec.json.decode(version or b"null")
                return True
            if time.time() - max(began, child_process.written(self.log)) > self._timing.silence:
                turn.close()
            await asyncio.wait({ended}, timeout=min(0.25, self._timing.poll))
        return False

    async def _watch(self, session: aiohttp.ClientSession, ended: asyncio.Task[int]) -> None:
        """Returns when the server ended, or is dead although it runs, or is asked to stop."""
        sound = moved = time.monotonic()
        while not ended.done() and not self._stopping:
            if await self._get(session, "/health") is not None:
                sound = time.monotonic()
            if await self._moves(session) or not self.load.busy:
                moved = time.monotonic()
            now = time.monotonic()
            if now - sound > self._timing.stall or now - moved > self._timing.stall:
                self.fault = FleetError("F216", "the server stopped answering and was killed")
                return
            if self._suspected:
                self._suspected = False
                if not await self._thinks(session):
                    if not await self._moves(session):
                        self.fault = FleetError("F216", "the server answered /health, but no longer wrote, and was killed")
                        return
                    moved = time.monotonic()  # it writes for others: our one token had to wait
            child_process.trim(self.log)
            self._wake.clear()
            waiting = asyncio.create_task(self._wake.wait())
            await asyncio.wait({ended, waiting}, timeout=self._timing.poll, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()

    async def _moves(self, session: aiohttp.ClientSession) -> bool:
        """Reads the load; says whether the server has worked since it was last read."""
        before, looked = self.load, self._looked
        if (text := await self._get(session, "/metrics")) is not None:
            self.load, self._looked = vllm_metrics.read(text.decode("utf-8", "replace")), time.monotonic()
            if (passed := self._looked - looked) >= self._timing.poll / 2:
                self._fastest = max(self._fastest, (self.load.written - before.written) / passed)
        return self.load.progress != before.progress

    async def _thinks(self, session: aiohttp.ClientSession) -> bool:
        """Whether the server still writes a token: healthy servers can be dead inside."""
        body = {"model": self.server.model, "prompt": "a", "max_tokens": 1, "temperature": 0, "priority": -1000}
        if self.server.scheduling != "priority":
            del body["priority"]
        if not port_owner.is_ours(self.port):
            return False
        try:
            timeout = aiohttp.ClientTimeout(total=self._timing.stall)
            url, headers = self.url + "/v1/completions", self._headers()
            async with session.post(url, json=body, headers=headers, timeout=timeout, allow_redirects=False) as response:
                return response.status < 500
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _get(self, session: aiohttp.ClientSession, path: str) -> bytes | None:
        """What stands there; nothing where another user's program listens in the place of the server, which hears no key either."""
        if not port_owner.is_ours(self.port):
            return None
        try:
            async with session.get(self.url + path, headers={} if path == OPEN else self._headers(), allow_redirects=False) as response:
                return await response.read() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _headers(self) -> Mapping[str, str]:
        return signed(self.launch.key if self.launch else "")

    def stop(self) -> None:
        """Asks `keep` to end the server and return."""
        self._stopping = True
        self._wake.set()

    def revive(self) -> None:
        """Tries again at once where the keeper gave up or pauses."""
        if self.phase in ("failed", "restarting"):
            if self.phase == "failed":
                self.fault, self.phase = None, "starting"
            self._wake.set()

    def suspect(self) -> None:
        """A client waited in vain: look now whether the server still writes."""
        self._suspected = True
        self._wake.set()

    async def report(self) -> ServerReport:
        """What it is now; a server that is ready is asked for its load and its adapters."""
        now = time.monotonic()
        load, adapters = vllm_metrics.Load(), list[str]()
        if self.phase == "ready" and self.url:
            async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=3)) as session:
                text, models = await asyncio.gather(self._get(session, "/metrics"), self._get(session, "/v1/models"))
            load = vllm_metrics.read(text.decode("utf-8", "replace")) if text is not None else self.load
            adapters = vllm_metrics.adapters(models or b"", self.server.model)
        return ServerReport(
            name=self.name,
            phase=self.phase,
            model=self.server.model,
            pid=self.child.pid if self.child else None,
            port=self.port or None,
            url=self.url or None,
            uptime=round(now - self._healthy_since, 1) if self._healthy_since else 0.0,
            since=round(now - self._began, 1),
            restarts=self.restarts,
            version=self.version,
            weights=self.launch.weights if self.launch else "",
            spare_slots=self.launch.spare_slots if self.launch else 0,
            precision=self.launch.precision if self.launch else "",
            tokens_per_second=round(self._fastest, 1),
            memory_bytes=child_process.resident_bytes(self.child.pid) if self.child else 0,
            running=load.running,
            waiting=load.waiting,
            adapters=adapters,
            log=str(self.log),
            error=Trouble.of(self.fault) if self.fault else None,
        )
