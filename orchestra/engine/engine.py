"""The engine: any number of runs on one event loop, through three doors."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from orchestra.core.error_codes import ENDED, HELD, LOST
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import Observer
from orchestra.core.events import NOTHING, Asked, AttemptFinished, CancelRequested, Event, GivenValue, Resumed, RunFinished, RunStarted
from orchestra.core.labels import Label
from orchestra.core.lifecycle import Home
from orchestra.core.outcomes import Failed
from orchestra.core.protocols import Clock, Journal, Letter, Workers, direct
from orchestra.engine import deadlines
from orchestra.engine.driver import Driver
from orchestra.engine.evolve import evolve
from orchestra.engine.run import Run
from orchestra.engine.state import State, Unit
from orchestra.schema.types import Validator
from orchestra.workflows.program import Program

ELSEWHERE = (HELD, ENDED, LOST)
"""Codes of runs that are not in this process's hand."""
TOO_LATE = "its time was up"
"""Why an answer that came after the deadline of its question does not count."""
MOST_CHECKS = 4_096
"""Validators that are kept; a program that is compiled anew has schemas of its own."""
FOLLOW = 0.5
"""Seconds between looks at a run that another process has in hand."""
_EXACT: Mapping[str, type] = {"string": str, "integer": int, "boolean": bool}
_NOTES = frozenset({"type", "title", "description"})


@dataclass(frozen=True, slots=True)
class _Sleeper:
    """What is kept of a run that waits for persons."""

    program: Program
    run: Run
    workers: Workers


class Engine:
    """Runs programs through the doors. A run that waits for persons is let go of, and taken up again when a letter comes."""

    def __init__(
        self,
        clock: Clock,
        journal: Journal,
        workers: Workers,
        *,
        concurrency: int = 256,
        strict: bool = False,
        observe: Observer | None = None,
    ) -> None:
        self.clock, self.journal, self.workers, self.observe = clock, journal, workers, observe
        self.do = direct(workers)
        self.concurrency = concurrency
        """Calls of one run in flight at most."""
        self.strict = strict
        """Whether every call waits until what led to it is on disk; else only those with effects do."""
        self._drivers: dict[str, Driver] = {}
        self._finishing: dict[str, asyncio.Task[None]] = {}
        """Runs that end, or go to sleep."""
        self._asleep: dict[str, _Sleeper] = {}
        self._alarms: dict[str, asyncio.Task[None]] = {}
        """Of those that sleep, and ask with a deadline."""
        self._taking: dict[str, tuple[asyncio.Task[None], Run]] = {}
        """Runs that are being taken over: each by one task, however many want it."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._followers: dict[str, tuple[asyncio.Task[None], Run]] = {}
        """Runs that another process has in hand, and whose events are read as they come."""
        self._postman: asyncio.Task[None] | None = None
        self._home: Home | None = None
        """The loop of its runs."""
        self._checks: dict[int, tuple[dict[str, Any], type | None, Validator]] = {}
        """By the identity of a schema, which is kept alive here: the one type of a plain schema, and its validator."""
        self._closed = False

    def start(
        self,
        program: Program,
        inputs: Mapping[str, Any],
        *,
        graph: str,
        label: Label = "internal",
        run: str = "",
        versions: dict[str, str] | None = None,
        parent: str = "",
        options: Mapping[str, Any] | None = None,
        workers: Workers | None = None,
        tiers: tuple[str, ...] = (),
        live: bool = False,
        values: Mapping[str, GivenValue] | None = None,
    ) -> Run:
        """Begins a run of `program` on inputs that are already of its types.

        `graph` is the digest of its source in the journal, `versions` those of what it calls; `run` is an id that nobody has, a
        new one where it is empty; `parent` is the run that it is forked from; `options` are kept for a resumption; `workers` do its
        calls instead of the engine's own; `tiers` are the fleet's larger models, in the order in which they are asked;
        with `live` the text of models can be read while it is written; `values` are what persons gave in the place of what steps
        would come to, by path.
        """
        handle = Run(run or self.clock.new_id(), self.journal).listen(live)
        started = RunStarted(
            seq=1,
            at=self.clock.now(),
            run=handle.id,
            workflow=program.name,
            graph=graph,
            inputs=dict(inputs),
            label=label,
            versions={} if versions is None else versions,
            parent=parent,
            options=dict(options or {}),
            tiers=tiers,
            given=dict(values) if values else None,
        )
        handle.started = started
        workers = workers or self.workers
        driver = self._drive(program, handle, State(self.concurrency, workers.measure), workers)
        driver.memo = bool(started.options.get("memo"))
        driver.record(started)
        driver.begin()
        return handle

    async def resume(self, program: Program, run: str, *, by: str = "", workers: Workers | None = None, live: bool = False) -> Run:
        """Takes a run over that nobody has in hand, and goes on with it, `live` as in `start`. `program` is the one that it began with.

        Calls that had an end are not made again. Raises `JournalError` J022 where somebody alive has it, J023 where it is not
        there, J006 where it has ended; `OrchestraError` E018 where its events are not of this program.
        """
        if run in self._drivers and not self._drivers[run].ending:
            return self._drivers[run].run.listen(live)
        handle = (self.running(run) or Run(run, self.journal)).listen(live)
        await self._once(_Sleeper(program, handle, workers or self.workers), by)
        return self.running(run) or handle

    async def _once(self, sleeper: _Sleeper, by: str, up: float = 0.0) -> None:
        """Takes a run over; whoever wants the same run meanwhile waits for the same task. Of an alarm for the time `up`."""
        run = sleeper.run
        if run.id not in self._taking:
            task = asyncio.get_running_loop().create_task(self._take(sleeper, by, up))
            self._taking[run.id] = (task, run)
            task.add_done_callback(lambda _: self._taking.pop(run.id, None))
        await asyncio.shield(self._taking[run.id][0])

    async def _take(self, sleeper: _Sleeper, by: str, up: float) -> None:
        run = sleeper.run
        epoch = await self.journal.lease(run.id)
        try:
            await self._go_on(sleeper, epoch, by, up)
        except BaseException:
            if run.id not in self._drivers:  # nobody has begun to carry it out: others may
                with suppress(OrchestraError):
                    await self.journal.release(run.id)
            raise

    async def _go_on(self, sleeper: _Sleeper, epoch: int, by: str, up: float) -> None:
        """A run whose lease we have: it goes on where it was, or goes on waiting."""
        program, run = sleeper.program, sleeper.run
        events = await self.journal.read(run.id)
        state = self.fold(program, events, sleeper.workers)
        letters = await self.journal.letters(run.id, state.letters)
        first = events[0]
        run.started = first if isinstance(first, RunStarted) else None
        run.offset, run.log, run.flushed = len(events), [], 0
        late = (waits := deadlines.first(state)) is not None and waits.due <= max(up, self.clock.now())
        if state.idle and not letters and not state.cancelled and not late:
            await self.journal.release(run.id)
            await self._rest(sleeper, state)
            return
        driver = self._drive(program, run, state, sleeper.workers)
        self._rouse(run.id)
        driver.memo = bool(run.started and run.started.options.get("memo"))
        now = self.clock.now()
        driver.record(Resumed(seq=state.seq + 1, at=now, epoch=epoch, by=by, away=max(0.0, now - events[-1].at)))
        state.tidy()
        driver.begin(letters, up)

    async def close_off(self, run: str, by: str) -> None:
        """Ends a run that nobody has in hand, without its workflow. Raises `JournalError` J022, J023, J006 as `resume` does."""
        await self.journal.lease(run)
        try:
            await self._cut_short(run, by)
        except OrchestraError:
            with suppress(OrchestraError):
                await self.journal.release(run)
            raise

    async def _cut_short(self, run: str, by: str) -> None:
        events = await self.journal.read(run)
        letters = await self.journal.letters(run)
        seq, at = events[-1].seq, self.clock.now()
        usage = sum((event.usage for event in events if isinstance(event, AttemptFinished)), NOTHING)
        outcome = Failed("E008", f"cancelled{f' by {by}' if by else ''}", hint=f"orchestra runs show {run}")
        last = (
            CancelRequested(seq=seq + 1, at=at, by=by, letter=letters[-1].number if letters else 0),
            RunFinished(seq=seq + 2, at=at, status="cancelled", outcome=outcome, usage=usage),
        )
        self.journal.append(run, last)
        await self.journal.durable(run, seq + 2)

    def fold(self, program: Program, events: Sequence[Event], workers: Workers) -> State:
        """The state that events tell; `workers` say what calls cost. Raises `OrchestraError` E018 where they are not of this program."""
        state = State(self.concurrency, workers.measure)
        for event in events:
            try:
                evolve(state, event, program)
            except (KeyError, IndexError) as error:
                said = f"event {event.seq} of run {state.run} names {error}, which its workflow does not have"
                raise OrchestraError("E018", said, hint=f"orchestra runs fork {state.run}") from error
        state.tidy()
        return state

    def _drive(self, program: Program, run: Run, state: State, workers: Workers) -> Driver:
        if self._closed:
            raise OrchestraError("E017", "the engine is closed", hint="open another: async with Orchestra.open() as orchestra")
        driver = self._drivers[run.id] = Driver(self, program, run, state, workers)
        self._home = self._home or Home()
        run.attach(driver.cancel, self._home)
        self._attend()
        return driver

    def _attend(self) -> None:
        """Sees to it that somebody waits for letters."""
        if self._postman is None or self._postman.done():
            self._postman = asyncio.get_running_loop().create_task(self._deliver(), name="inbox")

    def running(self, run: str) -> Run | None:
        """The run of this engine that has the id, and is under way, waits for a person, or is followed."""
        if run in self._drivers:
            return self._drivers[run].run
        if run in self._taking:
            return self._taking[run][1]
        if run in self._asleep:
            return self._asleep[run].run
        return self._followers[run][1] if run in self._followers else None

    # What drivers need

    def fault(self, schema: dict[str, Any], value: Any) -> str | None:
        """Why a value is not of a schema; None where it is."""
        known = self._checks.get(id(schema))
        if known is None:
            exact = _EXACT.get(schema["type"]) if schema.keys() <= _NOTES and isinstance(schema.get("type"), str) else None
            if len(self._checks) >= MOST_CHECKS:
                self._checks.clear()
            known = self._checks[id(schema)] = (schema, exact, Validator(schema))
        if type(value) is known[1]:
            return None
        return known[2].check(value)

    def objection(self, asked: Asked, letter: Letter) -> str:
        """Why a person's answer does not count; empty where it does."""
        if letter.shown != asked.shown:
            return "the question has changed since it was shown"
        if letter.asked not in (0, asked.seq):
            return "it was asked again since it was shown"
        if asked.due and letter.at >= asked.due:
            return TOO_LATE
        if letter.gave:
            return "it is declined, and says what the call gave" if letter.declined else _given(asked, letter.value)
        if letter.declined:
            return f"nobody else can say it: {' or '.join(asked.options)}" if asked.about == "effect" else ""
        if asked.options and letter.value not in asked.options:
            return f"the answer is none of {', '.join(asked.options)}"
        # Not `fault`: that keeps the schema, and questions come and go.
        return (Validator(asked.schema).check(letter.value) if asked.schema else None) or ""

    def finish(self, driver: Driver, last: Coroutine[Any, Any, None]) -> None:
        """Carries the last step of a driver out, and lets go of it."""
        run = driver.run
        task = self._finishing[run.id] = self._task(self._finish(driver, last))
        task.add_done_callback(lambda done: self._failed(run, done))

    def _failed(self, run: Run, done: asyncio.Task[None]) -> None:
        """Whatever went wrong at the end of a run, nobody waits for it for ever."""
        if not done.cancelled() and (error := done.exception()) is not None and not run.over:
            run.end(None, error)
            self._dismiss()

    async def _finish(self, driver: Driver, last: Coroutine[Any, Any, None]) -> None:
        run = driver.run
        try:
            await last
        except OrchestraError as error:
            with suppress(OrchestraError):  # where the end could not be kept, the run can be resumed
                await self.journal.release(run.id)
            run.end(None, error)
        finally:
            self._drivers.pop(run.id, None)
            self._finishing.pop(run.id, None)
        if run.over:
            self._dismiss()
        else:
            await self._rest(_Sleeper(driver.program, run, driver.workers), driver.state)

    async def _rest(self, sleeper: _Sleeper, state: State) -> None:
        """Lets a run wait for persons; takes it up again at once where a letter came meanwhile, and when the first time is up."""
        run = sleeper.run
        if self._closed:
            run.end(None, _closed(run.id))
            return
        self._asleep[run.id] = sleeper
        self._attend()
        self._set_alarm(sleeper, deadlines.first(state))
        run.sleep(list(state.asked.values()), lambda by: self.cancel(run.id, by))
        if await self.journal.letters(run.id, state.letters):
            self._task(self._notify(run.id))

    def _set_alarm(self, sleeper: _Sleeper, unit: Unit | None) -> None:
        """Sees to it that a run that waits for persons is woken when the time of a unit is up, the first of its units."""
        run = sleeper.run.id
        if (before := self._alarms.pop(run, None)) is not None:
            before.cancel()
        if unit is not None:
            self._alarms[run] = asyncio.get_running_loop().create_task(self._ring(sleeper, unit.due, deadlines.planned(unit)))

    async def _ring(self, sleeper: _Sleeper, due: float, most: float) -> None:
        await self.clock.sleep(min(max(0.0, due - self.clock.now()), most))
        del self._alarms[sleeper.run.id]  # it must not cancel itself
        if sleeper.run.id in self._asleep:
            self._task(self._wake(sleeper, "a deadline", due))

    def _rouse(self, run: str) -> bool:
        """A run sleeps no more; whether it did."""
        if (alarm := self._alarms.pop(run, None)) is not None:
            alarm.cancel()
        return self._asleep.pop(run, None) is not None

    def cancel(self, run: str, by: str) -> None:
        """Cancels a run that waits for a person, or is about to, by a letter."""
        self._task(self._cancel(run, by))

    async def _cancel(self, run: str, by: str) -> None:
        if run in self._finishing:
            await asyncio.wait({self._finishing[run]})  # its events may not be on disk yet
        try:
            await self.journal.post(run, Letter(kind="cancel", by=by, at=self.clock.now()))
        except OrchestraError as error:
            if (handle := self.running(run)) is not None and error.code != ENDED:
                handle.end(None, error)
        else:
            await self._notify(run)

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    # Letters

    async def _deliver(self) -> None:
        """Hands letters to the runs that they are for. Where the journal breaks, runs that wait for persons hear of it here."""
        try:
            while True:
                for run in await self.journal.mail():
                    if self.running(run) is not None:
                        self._task(self._notify(run))
        except OrchestraError as error:
            for sleeper in self._asleep.values():
                sleeper.run.end(None, error)
            self._asleep.clear()

    async def _notify(self, run: str) -> None:
        """There is a letter for a run: whoever has it opens it; one that sleeps is woken."""
        try:
            while run in self._taking:
                await asyncio.wait({self._taking[run][0]})
            if run in self._drivers:
                await self._drivers[run].collect()
            elif run in self._asleep:
                await self._wake(self._asleep[run], "a letter")
        except OrchestraError as error:
            if (handle := self.running(run)) is not None:
                self._rouse(run)
                handle.end(None, error)

    async def _wake(self, sleeper: _Sleeper, by: str, up: float = 0.0) -> None:
        """Takes a sleeping run up again; where another process was faster, follows it. What goes wrong reaches whoever waits for it."""
        try:
            await self._once(sleeper, by, up)
        except OrchestraError as error:
            run = sleeper.run
            if run.id in self._taking:  # somebody tries again meanwhile, and a run that is taken over must not be followed as well
                await self._notify(run.id)
                return
            asleep = self._rouse(run.id)
            if error.code not in ELSEWHERE:
                run.end(None, error)
            elif asleep and self._closed:
                run.end(None, _closed(run.id))
            elif asleep:  # else another letter woke it too, and whoever brought it has seen to the rest
                follower = asyncio.get_running_loop().create_task(self._follow(sleeper))
                self._followers[run.id] = (follower, run)
                follower.add_done_callback(lambda _: self._followers.pop(run.id, None))

    async def _follow(self, sleeper: _Sleeper) -> None:
        """Another process has the run in hand: its events are read as they come, and the run is taken back where it is left."""
        run = sleeper.run
        try:
            while True:
                events = await self.journal.read(run.id, run.offset)
                if self._has(run):
                    return
                if events and run.id not in self._taking:
                    run.offset += len(events)
                    run.wake()
                    if isinstance(events[-1], RunFinished):
                        run.end(events[-1])
                        return
                await self.clock.sleep(FOLLOW)
                if self._has(run):
                    return
                try:
                    await self._once(sleeper, "who watched it")
                except OrchestraError as error:
                    if error.code not in ELSEWHERE:
                        raise
                else:
                    return
        except OrchestraError as error:
            run.end(None, error)
        finally:
            if self._closed and not run.over:
                run.end(None, _closed(run.id))

    def _has(self, run: Run) -> bool:
        """Whether this engine has a run itself, or had it to its end."""
        return run.over or run.id in self._drivers or run.id in self._asleep

    def _dismiss(self) -> None:
        """Without runs there is nobody to deliver letters to."""
        if not self._drivers and not self._asleep and not self._taking and self._postman is not None:
            self._postman.cancel()
            self._postman = None

    async def close(self) -> None:
        """Lets go of all runs, and waits for their tasks. What was under way can be resumed."""
        self._closed = True
        for driver in list(self._drivers.values()):
            driver.stop(_closed(driver.run.id))
        for sleeper in self._asleep.values():
            sleeper.run.end(None, _closed(sleeper.run.id))
        idle = [*(task for task, _ in self._followers.values()), *self._alarms.values()]
        idle += [self._postman] if self._postman is not None else []
        for task in idle:
            task.cancel()
        taking = [task for task, _ in self._taking.values()]
        await asyncio.gather(*self._tasks, *taking, *idle, return_exceptions=True)
        for driver in list(self._drivers.values()):  # of a run that was being taken over
            driver.stop(_closed(driver.run.id))
        await asyncio.gather(*self._tasks, return_exceptions=True)


def _given(asked: Asked, value: Any) -> str:
    """Why that is not what a call in doubt gave; empty where it may be."""
    if asked.about != "effect":
        return "it asks for an answer, and not for what a call gave"
    if asked.gives is None:
        return "it was asked by an older version, which takes no value of the call"
    return Validator(asked.gives).check(value) or ""


def _closed(run: str) -> OrchestraError:
    error = OrchestraError("E017", f"the engine was closed while run {run} was under way", hint=f"orchestra runs resume {run}")
    return error.about(run)
