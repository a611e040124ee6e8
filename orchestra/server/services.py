"""What the routes of one server share: the open `Orchestra`, the records, and tasks in the background."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias, TypeVar

import msgspec

from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.run_detail import RecordedRun, RunAnswer
from orchestra.app.run_queries import first_and_last_events
from orchestra.core.error_codes import LEASE_HELD, LEASE_LOST, RUN_ENDED
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import log_info
from orchestra.core.events import RunFinished, RunStarted
from orchestra.core.tags import Tags
from orchestra.engine.request import RunRequest
from orchestra.journal.errors import JournalError
from orchestra.journal.verdicts import RunVerdict, run_verdict
from orchestra.server.access import Authenticator
from orchestra.server.open_records import open_records, records_place
from orchestra.server.principals import public_tags
from orchestra.server.problems import RequestError
from orchestra.server.records import Records
from orchestra.server.settings import ServerSettings
from orchestra.server.tenant_budgets import TenantBudgets
from orchestra.telemetry.metrics import RunMetrics
from orchestra.workflows.model import Budget
from orchestra.workflows.python.steps import Step

MAX_VERDICTS = 100_000
"""Runs whose verdict is kept in memory."""
_OWNED_ELSEWHERE = (LEASE_HELD, LEASE_LOST, RUN_ENDED)


T = TypeVar("T")
StartListener: TypeAlias = Callable[[Run[Any], Tags], Awaitable[None]]


class WaitEnded(Exception):
    """Something was not waited for to its end."""


class Changes:
    """Wakes those who wait for a change of something with a name."""

    def __init__(self) -> None:
        self._events: dict[str, asyncio.Event] = {}

    async def wait(self, name: str, seconds: float) -> None:
        """Waits for a change, at most this long."""
        event = self._events.setdefault(name, asyncio.Event())
        try:
            async with asyncio.timeout(seconds):
                await event.wait()
        except TimeoutError:
            return

    def notify(self, name: str) -> None:
        """Wakes everybody who waits for a change of this name."""
        if (event := self._events.pop(name, None)) is not None:
            event.set()


class Services:
    """The state of one server."""

    def __init__(self, orchestra: Orchestra, settings: ServerSettings, records: Records) -> None:
        self.orchestra, self.settings, self.records = orchestra, settings, records
        self.authenticator = Authenticator(settings, records)
        self.thread_changes = Changes()
        self.draining = asyncio.Event()
        """Set when the server begins to stop: no run starts."""
        self.stopping = asyncio.Event()
        """Set when the server stops: streams and waits end."""
        self._waits: set[asyncio.Timeout] = set()
        """The waits that end when the server stops."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._verdicts: dict[str, RunVerdict] = {}
        """The verdicts on ended runs, which do not change."""
        self.work: dict[str, asyncio.Task[None]] = {}
        """Work in the background with a name, such as a batch."""
        self.metrics = RunMetrics()
        orchestra.observe(self.metrics.observe, self.metrics.restore)
        self.budgets = TenantBudgets(orchestra, records, settings.tenants, self.spawn)
        self.on_start: list[StartListener] = []
        """Called with each run that starts, and its tags."""

    @classmethod
    @asynccontextmanager
    async def open(cls, orchestra: Orchestra, settings: ServerSettings) -> AsyncIterator[Services]:
        """Opens the records. Stops the work in the background at the end."""
        async with open_records(records_place(orchestra.settings)) as records:
            services = cls(orchestra, settings, records)
            try:
                yield services
            finally:
                await services.close()

    def spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Starts work in the background. It ends with the server."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    def spawn_once(self, name: str, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Starts work with a name, unless it goes on already."""
        if name not in self.work:
            self.work[name] = task = self.spawn(work())
            task.add_done_callback(lambda _: self.work.pop(name, None))

    def stop_work(self, name: str) -> None:
        """Stops work with a name, if it goes on here."""
        if (task := self.work.get(name)) is not None:
            task.cancel()

    async def drain(self) -> int:
        """Starts no more runs, and waits for those that go on, as long as the settings say. Returns the number of those
        that still do: the next server resumes them.
        """
        self.draining.set()
        unfinished_runs = await self.orchestra.wait_idle(self.settings.drain)
        self._stop()
        return unfinished_runs

    def _stop(self) -> None:
        self.stopping.set()
        for scope in self._waits:
            self._end_wait(scope)

    async def wait(self, work: Awaitable[T], seconds: float | None, until: asyncio.Future[Any] | None = None) -> T:
        """Returns the result of work. Raises `WaitEnded` after some seconds, once a future is done, and when the server
        stops; the work is then cancelled.
        """
        try:
            async with asyncio.timeout(0 if self.stopping.is_set() else seconds) as scope:
                self._waits.add(scope)
                if until is not None:
                    until.add_done_callback(lambda _: self._end_wait(scope))
                try:
                    return await work
                finally:
                    self._waits.discard(scope)
        except TimeoutError as error:
            if not scope.expired():
                raise
            raise WaitEnded from error

    def _end_wait(self, scope: asyncio.Timeout) -> None:
        if scope in self._waits and not scope.expired():
            scope.reschedule(asyncio.get_running_loop().time())

    async def close(self) -> None:
        """Stops the work in the background."""
        self.draining.set()
        self._stop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # Runs

    async def start(self, request: RunRequest) -> Run[Any]:
        """Starts a run, or returns the run with its key. Raises `RequestError` S010 while the server stops, S022 or
        S024 beyond the limits of its tenant; and as `Orchestra.start` does.
        """
        self.require_running()
        async with self.budgets.reserve(request.options, self.own_budget(request.workflow)) as options:
            run = await self.orchestra.start_request(msgspec.structs.replace(request, options=options))
        for listener in self.on_start:
            await listener(run, request.options.tags or {})
        return run

    def own_budget(self, workflow: Step[..., Any] | str) -> Budget | None:
        """Returns the budget that a workflow states. Raises as `Orchestra.program` does."""
        if not self.settings.tenants:
            return None  # It is not needed, and compiling is not free.
        return self.orchestra.program(self.orchestra.find(workflow) if isinstance(workflow, str) else workflow).budget

    def require_running(self) -> None:
        """Raises `RequestError` S010 while the server stops."""
        if self.draining.is_set():
            raise RequestError("S010", "the server stops", hint="repeat the request at another server, or later")

    async def started(self, run: str) -> RunStarted | None:
        """Returns the first event of a run, without large inputs; None for an unknown run."""
        run_events = await first_and_last_events(self.orchestra.journal, [run])
        first = run_events[run][0] if run in run_events else None
        return first if isinstance(first, RunStarted) else None

    async def has_ended(self, run: str, after: int) -> bool:
        """Whether a run has no events after this one, because it has ended or was deleted."""
        run_events = await first_and_last_events(self.orchestra.journal, [run])
        return run not in run_events or (isinstance(last := run_events[run][1], RunFinished) and last.seq <= after)

    async def read_run(self, run: str) -> RecordedRun:
        """Returns everything that the journal has about a run."""
        return await RecordedRun.read(self.orchestra.journal, run, time.time())

    async def run_verdict(self, run: str, *, ended: bool) -> RunVerdict:
        """Returns the verdict on a run; from memory if it has ended before. A run that cannot be read has none."""
        if (verdict := self._verdicts.get(run)) is not None:
            return verdict
        try:
            new_verdict = run_verdict(await self.orchestra.journal.read(run))
        except JournalError:
            return "none"
        if ended:
            if len(self._verdicts) >= MAX_VERDICTS:
                del self._verdicts[next(iter(self._verdicts))]
            self._verdicts[run] = new_verdict
        return new_verdict

    async def answer(self, run: str) -> RunAnswer:
        """Returns a run and its output."""
        recorded_run = await self.read_run(run)
        return recorded_run.answer(public_tags(recorded_run.started.tags))

    async def answer_of(self, result: Result[Any]) -> RunAnswer:
        """Returns the same for a run that has ended in this process, whose events need not be read again."""
        recorded_run = await RecordedRun.of_result(self.orchestra.journal, result)
        return recorded_run.answer(public_tags(recorded_run.started.tags))

    async def live_run(self, run: str) -> Run[Any] | None:
        """Returns a run of this process whose text can be read; None for another run."""
        if self.orchestra.active_run(run) is None:
            return None
        try:
            return await self.orchestra.options(live=True).resume(run)
        except OrchestraError:
            return None

    async def resume(self, run: str, by: str) -> None:
        """Resumes a run in the background, unless another process has it."""
        try:
            await self.orchestra.resume(run, by=by)
        except OrchestraError as error:
            if error.code not in _OWNED_ELSEWHERE:
                self.log("run not resumed", run=run, code=error.code)

    def log(self, message: str, **fields: Any) -> None:
        """Logs a line for the operator."""
        settings = self.orchestra.settings
        log_info(settings.log, message, form=settings.log_as, **fields)
