"""Supervision of one server: starts it, waits for health, watches it, restarts it with backoff, and gives up after
repeated failures. A server that is started on demand stops when it has had no request for a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import aiohttp
import msgspec

from orchestra.core import child_process
from orchestra.core.atomic_files import write_file
from orchestra.core.child_process import ChildProcess, ProcessSpec
from orchestra.core.errors import FleetError
from orchestra.fleet import vllm_metrics
from orchestra.fleet.config import STALL_SECONDS, LocalServer
from orchestra.fleet.http import openai_protocol
from orchestra.fleet.request_errors import RequestError, error_policy
from orchestra.fleet.secrets import auth_headers
from orchestra.fleet.supervisor import port_owner, vllm_launch
from orchestra.fleet.supervisor.auth_middleware import PUBLIC_PATH
from orchestra.fleet.supervisor.liveness import Health, Liveness
from orchestra.fleet.supervisor.memory_budget import Holder, MemoryBudget, Need
from orchestra.fleet.supervisor.messages import ServerFailure, ServerPhase, ServerReport

Probe: TypeAlias = Callable[[aiohttp.ClientSession], Coroutine[Any, Any, None]]
StartSeconds: TypeAlias = Annotated[float, msgspec.Meta(ge=0, le=86_400)]
MeasuredBytes: TypeAlias = Annotated[int, msgspec.Meta(ge=0, le=1 << 50)]
Launcher: TypeAlias = Callable[[LocalServer, int], ProcessSpec]
MEMORY_INTERVAL = 5.0
"""Seconds for which a measured memory is reported again."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Time limits in seconds."""

    start_timeout: float = 900.0
    """Limit without log output until the first successful /health. A cold GPU server compiles for minutes, and a start
    that writes log lines continues.
    """
    silence_timeout: float = 180.0
    """Limit without log output during a start; then other starts stop waiting for it. A compiler is silent for a minute
    or two.
    """
    poll_interval: float = 2.0
    stall_timeout: float = STALL_SECONDS
    """Limit without progress while there are requests; then the server counts as dead. It is also the timeout of the
    supervisor's own requests, because the event loop of a busy CPU server answers late.
    """
    failure_timeout: float = 90.0
    """Limit of failed health requests (an error status, or a refused connection); then the server counts as dead."""
    initial_backoff: float = 0.5
    max_backoff: float = 60.0
    backoff_reset: float = 60.0
    """Seconds of health after which the backoff starts again."""
    grace_period: float = 15.0
    max_start_attempts: int = 2
    """Starts in a row without health after which the supervisor gives up."""
    memory_wait: float = 60.0
    """Limit for which a start on demand waits until other servers have no requests and can be stopped."""
    least_idle: float = 5.0
    """Least time without a request after which a server is stopped. A client announces requests that are more than a
    second apart (`UseRequest`), so a request is not under way then.
    """
    idle_check_timeout: float = 5.0
    """Limit of the reading of the load before a server is stopped. A server that answers later has work."""


@dataclass(frozen=True, slots=True)
class OnDemand:
    """How a server is started on demand and stopped when it has no requests."""

    idle_stop: float
    """Seconds without a request after which it stops."""
    budget: MemoryBudget
    memory_need: Callable[[LocalServer], Need]
    """Estimates the memory of a server that was not measured yet."""


class ServerSupervisor:
    """Supervises one server. `run` returns after `stop`."""

    def __init__(
        self,
        name: str,
        server: LocalServer,
        launcher: Launcher,
        logs: Path,
        timing: Timing,
        start_lock: asyncio.Lock,
        on_demand: OnDemand | None = None,
    ) -> None:
        """`start_lock` is shared by all servers of a fleet: servers of one GPU measure its free memory, so they start
        one after the other. With `on_demand` the server starts when it is requested.
        """
        self.name, self.server = name, server
        self._start_lock, self._on_demand = start_lock, on_demand
        self._is_wanted = on_demand is None
        self._may_stop_others = False
        self.phase: ServerPhase = "starting" if self._is_wanted else "stopped"
        self.log = logs / f"{name}.log"
        self.launch: ProcessSpec | None = None
        """The command with which the server was started."""
        self.child: ChildProcess | None = None
        self.port = 0
        self.restarts = 0
        self.error: FleetError | None = None
        self.version: Any = None
        self.load = vllm_metrics.ServerLoad()
        self._load_read_at = time.monotonic()
        self._seen_progress = self.load.progress
        self._peak_tokens_per_second = 0.0
        self._launcher, self._timing = launcher, timing
        self._started_at = time.monotonic()
        self._healthy_since: float | None = None
        self._wake = asyncio.Event()
        self._stopping = False
        self._liveness = self._new_liveness()
        self.last_failure: FleetError | None = None
        """Why the server last ended or was ended, after it was ready."""
        self._failed_at = 0.0
        self._memory = (0, 0.0, 0)
        """The last measured memory: process, time, bytes."""
        self._start_file, self._memory_file = logs / f"{name}.start.json", logs / f"{name}.memory.json"
        self._usual_start, self._measured_bytes = self._read_start(), self._read_memory()
        self._reserved_bytes = 0
        self._last_used = time.monotonic()
        self._release_request: asyncio.Event | None = None
        """Set when the server was stopped, or stays because it has requests; None without a request to stop."""
        self._wait_reason = ""

    def _read_start(self) -> float:
        """Returns the seconds of the last start; 0 without a record."""
        try:
            return msgspec.json.decode(self._start_file.read_bytes(), type=StartSeconds)
        except (OSError, msgspec.MsgspecError):
            return 0.0

    def _record_start(self, seconds: float) -> None:
        """Records the duration of a start. The next start is expected to take as long."""
        self._usual_start = round(seconds, 1)
        with contextlib.suppress(OSError):  # only an estimate depends on it
            write_file(self._start_file, msgspec.json.encode(self._usual_start))

    def _read_memory(self) -> int:
        """Returns the most memory of earlier runs; 0 without a record."""
        try:
            return msgspec.json.decode(self._memory_file.read_bytes(), type=MeasuredBytes)
        except (OSError, msgspec.MsgspecError):
            return 0

    def _measure_memory(self) -> int:
        """Returns the memory of the server, and records it for the next start."""
        memory_bytes = self._memory_bytes(0.0)
        if memory_bytes > self._measured_bytes:
            self._measured_bytes = memory_bytes
            with contextlib.suppress(OSError):  # only an estimate depends on it
                write_file(self._memory_file, msgspec.json.encode(memory_bytes))
        return memory_bytes

    def _memory_bytes(self, max_age: float) -> int:
        """Returns the memory of the processes, measured at most `max_age` seconds ago: the kernel walks all pages for a
        measurement.
        """
        if self.child is None:
            return 0
        now, (pid, measured_at, memory) = time.monotonic(), self._memory
        if pid != self.child.pid or now - measured_at >= max_age:
            memory = child_process.resident_bytes(self.child.pid)
            self._memory = self.child.pid, now, memory
        return memory

    def _new_liveness(self) -> Liveness:
        return Liveness(self._timing.stall_timeout, self._timing.failure_timeout, time.monotonic())

    @property
    def url(self) -> str:
        """The address of the server; empty if it does not run."""
        return f"http://{vllm_launch.LOOPBACK}:{self.port}" if self.port else ""

    async def run(self) -> None:
        """Starts the server, and restarts it when it ends or stalls, until `stop`."""
        pause, failures = self._timing.initial_backoff, 0
        async with aiohttp.ClientSession(
            trust_env=False, timeout=aiohttp.ClientTimeout(total=self._timing.stall_timeout)
        ) as session:
            while not self._stopping:
                if not self._is_wanted:
                    self.phase = "stopped"
                    await self._wait(None)
                    continue
                healthy_for = await self._run_once(session)
                if self._stopping:
                    break
                if self.phase == "stopping":
                    pause, failures, self.phase = self._timing.initial_backoff, 0, "starting"
                    continue
                failures = 0 if healthy_for is not None else failures + 1
                if self.error and (
                    failures >= self._timing.max_start_attempts
                    or error_policy(self.error.code).permanent
                    or self.error.code == "F226"
                ):
                    self.phase = "failed"
                    await self._wait(None)
                    failures, pause = 0, self._timing.initial_backoff
                else:
                    self.phase = "restarting"
                    pause = self._timing.initial_backoff if (healthy_for or 0) >= self._timing.backoff_reset else pause
                    await self._wait(pause)
                    pause = min(2 * pause, self._timing.max_backoff)
                self.restarts += 1
        self.phase = "stopped"

    async def _wait(self, seconds: float | None) -> None:
        self._wake.clear()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), seconds)

    async def _run_once(self, session: aiohttp.ClientSession) -> float | None:
        """Runs the server once. Returns the seconds of health, or None if it never became healthy."""
        self._started_at, self._healthy_since, self.load = time.monotonic(), None, vllm_metrics.ServerLoad()
        self._peak_tokens_per_second = 0.0
        try:
            if self._on_demand is not None and not await self._reserve_memory(self._on_demand.budget):
                return None
            await self._start_lock.acquire()
            with contextlib.ExitStack() as release_lock:
                release_lock.callback(self._start_lock.release)
                child = await self._start(session, release_lock)
            return None if child is None else await self._run_until_end(session, child)
        finally:
            self._reserved_bytes = 0
            self._end_release()

    async def _run_until_end(self, session: aiohttp.ClientSession, child: ChildProcess) -> float:
        """Watches a healthy server until its process has ended. Returns the seconds of health."""
        end_task = asyncio.create_task(child.wait())
        try:
            self._healthy_since = self._last_used = time.monotonic()
            await self._watch(session, end_task)
            healthy_for = time.monotonic() - self._healthy_since
            if not (self._stopping or self.phase == "stopping"):
                if end_task.done():
                    self.error = vllm_launch.diagnose_end(child_process.last_lines(self.log, 40), end_task.result())
                self.last_failure, self._failed_at = self.error, time.monotonic()
            return healthy_for
        finally:
            self._healthy_since = None
            await child.stop(self._timing.grace_period if self._stopping or self.phase == "stopping" else 0.0)
            await end_task
            self.child, self.port = None, 0

    async def _reserve_memory(self, budget: MemoryBudget) -> bool:
        """Waits until the server fits in the memory. Returns False with `error` set if it does not, or on `stop`."""

        def reserve(size: int) -> None:
            self._reserved_bytes = max(1, size)

        async def pause(reason: str) -> bool:
            self._wait_reason = reason
            await self._wait(self._timing.poll_interval / 4)
            return not self._stopping

        try:
            error = await budget.admit(self.name, reserve, lambda: self._may_stop_others, pause)
        finally:
            self._wait_reason = ""
        if error is not None:
            self.error = error
        return error is None and not self._stopping

    async def _start(self, session: aiohttp.ClientSession, release_lock: contextlib.ExitStack) -> ChildProcess | None:
        """Starts the server. Returns the healthy process; None if it failed (with `error` set) or was stopped
        meanwhile.

        A start without progress releases the lock.
        """
        if self._stopping:
            return None
        try:
            self._started_at = time.monotonic()  # the wait for other servers does not count
            self.port = vllm_launch.choose_port(self.server.port)
            # The launcher reads all bytes of the weights, so it runs on a thread.
            self.launch = await asyncio.to_thread(self._launcher, self.server, self.port)
            self.child = await child_process.start_process(self.launch, self.log)
        except FleetError as error:
            self.error = error
            return None
        except (OSError, ValueError) as error:  # also an invalid path; the fleet's other servers continue
            self.error = FleetError("F005", f"vLLM did not start: {error}", hint="orchestra doctor")
            return None
        end_task = asyncio.create_task(self.child.wait())
        healthy = False
        try:
            if healthy := await self._wait_until_healthy(session, end_task, release_lock):
                self.phase, self.error = "ready", None
                self._record_start(time.monotonic() - self._started_at)
                return self.child
            if not self._stopping:
                status = self.child.returncode
                await self.child.kill()
                self.error = vllm_launch.diagnose(child_process.last_lines(self.log, 40), status)
            return None
        finally:
            if not healthy:
                await self.child.stop(self._timing.grace_period if self._stopping else 0.0)
                self.child, self.port = None, 0
            else:
                end_task.cancel()

    async def _wait_until_healthy(
        self, session: aiohttp.ClientSession, end_task: asyncio.Task[int], release_lock: contextlib.ExitStack
    ) -> bool:
        start_time, probe = time.time(), asyncio.create_task(self._probe_health(session))
        try:
            while not end_task.done() and not self._stopping:
                if probe.done():
                    if probe.result() == "ok":
                        version = await self._get(session, "/version")
                        with contextlib.suppress(msgspec.MsgspecError):
                            self.version = msgspec.json.decode(version or b"null")
                        return True
                    probe = asyncio.create_task(self._probe_health(session))
                silence = time.time() - max(start_time, child_process.last_write_time(self.log))
                if silence > self._timing.silence_timeout:
                    release_lock.close()
                if silence > self._timing.start_timeout:
                    break
                await asyncio.wait({end_task}, timeout=min(0.25, self._timing.poll_interval))
            return False
        finally:
            await _cancel(probe)

    async def _watch(self, session: aiohttp.ClientSession, end_task: asyncio.Task[int]) -> None:
        """Returns when the server has ended, is dead although its process runs, or is to be stopped.

        Requests to the server are not awaited here: a slow server may answer them late, and its end is seen at once.
        """
        liveness = self._liveness = self._new_liveness()
        log = child_process.LogReader(self.log)
        log.new_lines()
        probes: dict[Probe, asyncio.Task[None]] = {}
        try:
            while not end_task.done() and not self._stopping:
                for probe in (self._probe, *((self._probe_generation,) if liveness.suspected else ())):
                    if probe not in probes or probes[probe].done():
                        probes[probe] = asyncio.create_task(probe(session))
                self._wake.clear()
                task = asyncio.create_task(self._wake.wait())
                await asyncio.wait(
                    {end_task, task}, timeout=self._timing.poll_interval, return_when=asyncio.FIRST_COMPLETED
                )
                task.cancel()
                liveness.observe_log(log.new_lines(), time.monotonic())
                if not end_task.done() and self._on_demand is not None:
                    self._observe_use()
                    if await self._becomes_idle(session, self._on_demand.idle_stop):
                        return
                if not end_task.done() and (error := liveness.failure(time.monotonic())) is not None:
                    self.error = error
                    return
                child_process.rotate_log(self.log)
        finally:
            await _cancel(*probes.values())

    def _observe_use(self) -> None:
        """Records whether the last reading of the load shows requests."""
        if self.load.busy or self._liveness.has_requests or self.load.progress != self._seen_progress:
            self._last_used, self._seen_progress = time.monotonic(), self.load.progress

    async def _becomes_idle(self, session: aiohttp.ClientSession, idle_stop: float) -> bool:
        """Whether the server is to be stopped now because it has no requests. Its phase is `stopping` then.

        The load is read again, because the last reading may be older than a request.
        """
        least = self._timing.least_idle
        limit = least if self._release_request is not None else max(idle_stop, least)
        if self._stopping or self._idle_seconds() < limit:
            self._end_release()
            return False
        self._measure_memory()
        text = None
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._timing.idle_check_timeout):
                text = await self._get(session, "/metrics")
        load = None if text is None else vllm_metrics.parse_metrics(text.decode("utf-8", "replace"))
        if load is None or load.busy or load.progress != self._seen_progress:
            self._last_used = time.monotonic()
        if self._stopping or self._idle_seconds() < limit:
            self._end_release()
            return False
        self.phase, self._is_wanted, self._may_stop_others = "stopping", False, False
        return True

    def _idle_seconds(self) -> float:
        """Returns the seconds since the last known or announced request."""
        return time.monotonic() - self._last_used

    def _end_release(self) -> None:
        """Ends a request to stop, because the server has ended or has requests."""
        if self._release_request is not None:
            self._release_request.set()
            self._release_request = None

    async def _probe(self, session: aiohttp.ClientSession) -> None:
        """Requests the health and the load."""
        health, has_progressed = await asyncio.gather(self._probe_health(session), self._has_progressed(session))
        self._liveness.observe_health(health, time.monotonic())
        self._liveness.observe_load(busy=self.load.busy, progressed=has_progressed, now=time.monotonic())

    async def _probe_generation(self, session: aiohttp.ClientSession) -> None:
        """Requests a token. A server with a good /health can hang."""
        if await self._can_generate(session):
            self._liveness.observe_progress(time.monotonic())

    async def _probe_health(self, session: aiohttp.ClientSession) -> Health:
        """Requests /health. A connection that breaks or times out is `late`."""
        if not port_owner.is_own_port(self.port):
            return "failed"
        try:
            async with session.get(self.url + PUBLIC_PATH, allow_redirects=False) as response:
                return "ok" if response.status == 200 else "failed"
        except aiohttp.ClientConnectorError:
            return "failed"
        except (aiohttp.ClientError, TimeoutError):
            return "late"

    async def _has_progressed(self, session: aiohttp.ClientSession) -> bool:
        """Reads the load. Returns whether the server has worked since the last reading."""
        before, last_read_at = self.load, self._load_read_at
        if (text := await self._get(session, "/metrics")) is not None:
            self.load, self._load_read_at = (
                vllm_metrics.parse_metrics(text.decode("utf-8", "replace")),
                time.monotonic(),
            )
            if (elapsed := self._load_read_at - last_read_at) >= self._timing.poll_interval / 2:
                self._peak_tokens_per_second = max(
                    self._peak_tokens_per_second, (self.load.output_tokens - before.output_tokens) / elapsed
                )
        return self.load.progress != before.progress

    async def _can_generate(self, session: aiohttp.ClientSession) -> bool:
        """Whether the server still generates a token. A server with a good /health can hang."""
        body = {"model": self.server.model, "prompt": "a", "max_tokens": 1, "temperature": 0, "priority": -1000}
        if self.server.scheduling != "priority":
            del body["priority"]
        if not port_owner.is_own_port(self.port):
            return False
        try:
            url, headers = self.url + "/v1/completions", self._headers()
            async with session.post(url, json=body, headers=headers, allow_redirects=False) as response:
                return response.status < 500
        except (aiohttp.ClientError, TimeoutError):
            return False

    async def _get(self, session: aiohttp.ClientSession, path: str) -> bytes | None:
        """Returns the response; None if another user's process listens on the port, which gets no key."""
        if not port_owner.is_own_port(self.port):
            return None
        try:
            async with session.get(
                self.url + path, headers={} if path == PUBLIC_PATH else self._headers(), allow_redirects=False
            ) as response:
                return await response.read() if response.status == 200 else None
        except (aiohttp.ClientError, TimeoutError):
            return None

    def _headers(self) -> Mapping[str, str]:
        return auth_headers(self.launch.key if self.launch else "")

    def stop(self) -> None:
        """Makes `run` stop the server and return."""
        self._stopping = True
        self._wake.set()

    def request_start(self, *, may_stop_others: bool) -> None:
        """Starts the server if it is stopped or has failed, also after a stop that is under way.

        Args:
            may_stop_others: Whether servers without requests may be stopped to have memory for this one.
        """
        self._last_used = time.monotonic()
        self._may_stop_others |= may_stop_others
        if self._is_wanted:
            self.retry_now()
            return
        self._is_wanted, self.error = True, None
        if self.phase == "stopped":
            self.phase, self._started_at = "starting", time.monotonic()
        self._wake.set()

    def use(self) -> str:
        """Records that a request is about to be sent. Returns the address; empty if the server is not ready."""
        self._last_used = time.monotonic()
        return self.url if self.phase == "ready" else ""

    def need(self) -> Need:
        """Returns the memory that the server needs, as measured or estimated."""
        if self._on_demand is None:
            return Need(0, 0)
        estimate = self._on_demand.memory_need(self.server)
        if not self._measured_bytes:
            return estimate
        return Need(estimate.minimum, max(estimate.minimum, self._measured_bytes))

    def holder(self) -> Holder | None:
        """Returns the memory that is reserved for the server, or that it holds; None if there is none."""
        if not self._reserved_bytes:
            return None
        memory_bytes = self._measure_memory()
        busy = self.phase != "ready" or self.load.busy or self._liveness.has_requests
        unused_bytes = max(0, self._reserved_bytes - memory_bytes) if self.phase in ("starting", "restarting") else 0
        return Holder(
            self.name, max(self._reserved_bytes, memory_bytes), unused_bytes, None if busy else self._idle_seconds()
        )

    async def release(self) -> None:
        """Stops the server if it has no requests. Returns when it has ended, or has requests again."""
        if self.phase != "ready":
            return
        self._release_request = end_event = asyncio.Event()
        self._wake.set()
        await end_event.wait()

    def retry_now(self) -> None:
        """Ends a pause or the state of failure, and starts the server at once."""
        if self.phase in ("failed", "restarting"):
            if self.phase == "failed":
                self.error, self.phase = None, "starting"
            self._wake.set()

    def check_liveness(self) -> None:
        """Checks at once whether the server still generates, because a client's request timed out."""
        self._liveness.suspect(time.monotonic())
        self._wake.set()

    async def report(self) -> ServerReport:
        """Returns the report. A ready server is queried for its load and adapters."""
        now = time.monotonic()
        load, adapters = vllm_metrics.ServerLoad(), list[str]()
        if self.phase == "ready" and self.url:
            async with aiohttp.ClientSession(trust_env=False, timeout=aiohttp.ClientTimeout(total=3)) as session:
                text, models = await asyncio.gather(self._get(session, "/metrics"), self._get(session, "/v1/models"))
            load = vllm_metrics.parse_metrics(text.decode("utf-8", "replace")) if text is not None else self.load
            listed_models = openai_protocol.read_models(models or b"")
            if not isinstance(listed_models, RequestError):
                adapters = sorted(model.id for model in listed_models if model.id != self.server.model)
        return ServerReport(
            name=self.name,
            phase=self.phase,
            model=self.server.model,
            pid=self.child.pid if self.child else None,
            port=self.port or None,
            url=self.url or None,
            uptime=round(now - self._healthy_since, 1) if self._healthy_since else 0.0,
            since_start=round(now - self._started_at, 1),
            restarts=self.restarts,
            version=self.version,
            weights=self.launch.weights_fingerprint if self.launch else "",
            spare_slots=self.launch.free_adapter_slots if self.launch else 0,
            precision=self.launch.precision if self.launch else "",
            tokens_per_second=round(self._peak_tokens_per_second, 1),
            memory_bytes=self._memory_bytes(MEMORY_INTERVAL),  # a starting server is polled
            running=load.running,
            waiting=load.waiting,
            adapters=adapters,
            log=str(self.log),
            error=ServerFailure.from_error(self.error) if self.error else None,
            last_failure=ServerFailure.from_error(self.last_failure) if self.last_failure else None,
            since_failure=round(now - self._failed_at, 1) if self.last_failure else 0.0,
            start_phase=self._start_phase(),
            idle=round(self._idle_seconds(), 1) if self.phase == "ready" and not load.busy else 0.0,
            usual_start=self._usual_start,
        )

    def _start_phase(self) -> str:
        """Returns what the starting server does. Before its process runs, the log is that of an earlier start."""
        if self._wait_reason:
            return self._wait_reason
        if self.phase != "starting" or self.child is None:
            return ""
        return vllm_launch.start_phase(child_process.last_lines(self.log, 200))


async def _cancel(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
