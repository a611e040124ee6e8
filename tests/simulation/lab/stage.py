"""Stages: where one run is played, by processes that come and go, under everything that its storm says."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from orchestra.app.inputs import number_of
from orchestra.app.reuse import Recalling, answers, inherited
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Asked, Event, RunFinished, RunStarted
from orchestra.core.labels import Label
from orchestra.core.protocols import Letter, Message
from orchestra.engine.engine import Engine
from orchestra.engine.run import Run
from orchestra.engine.streaming import Live
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing.virtual_clock import VirtualClock
from tests.simulation.lab.crashes import EXHAUSTED, FAULTS, CrashingJournal, Process, attribute_tasks, expire, nobodys_task
from tests.simulation.lab.people import declines, given_before, person
from tests.simulation.lab.random_workflows import Drawn
from tests.simulation.lab.storms import WRITTEN, DirectStormyWorkers, Ledger, Life, Storm, StormyWorkers, draw

LATE = 65.0
"""Seconds within which a letter reaches a run that somebody has in hand, in whatever weather."""
PATIENCE = 200_000.0
"""Virtual seconds after which a run counts as one that never ends: a thousand persons, asked three at a time, take more than a day."""
ENDED, CRASHED, BROKEN, CLOSED, WAITING = "ended", "crashed", "broken", "closed", "waiting"


@dataclass(slots=True)
class Read:
    """What one subscriber saw, and how much of it was on disk by then."""

    after: int
    events: list[Event] = field(default_factory=list)
    early: int = 0
    """Events that it saw before they were on disk."""


@dataclass(slots=True)
class Trial:
    """What a run came to."""

    drawn: Drawn
    storm: Storm
    run: str
    store: MemoryStore
    ledger: Ledger = field(default_factory=Ledger)
    reads: list[Read] = field(default_factory=list)
    fates: list[str] = field(default_factory=list)
    """How each of its processes ended."""
    delivered: list[Message] = field(default_factory=list)
    """What somebody took from the outbox."""
    wrong: list[str] = field(default_factory=list)
    waits: bool = False
    """Whether it was left waiting for a person."""
    jumped: bool = False
    cancels: list[float] = field(default_factory=list)
    """When a wish to end it had surely reached it."""
    cancelled: bool = False
    """Whether somebody asked it to end."""
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    label: Label = "public"
    elder: Trial | None = None
    """The run that was there before."""
    may_fork: bool = False
    """Whether the run is to be a fork of it."""
    forked: bool = False
    """Whether it is one: the parent left something."""
    parent_was: str = ""
    """How the parent had ended by then."""
    heirs: dict[int, int] = field(default_factory=dict)
    """Processes that knew what the parent was answered, and up to which event."""
    kept: list[Event] | None = None
    """The events of a run that was deleted."""

    @property
    def events(self) -> list[Event]:
        """What the store has of the run, or had when it was deleted."""
        if self.kept is not None:
            return self.kept
        log = self.store.logs.get(self.run)
        return log.events if log is not None else []

    @property
    def ended(self) -> RunFinished | None:
        """The last event, if it is there."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, RunFinished) else None


class Stage:
    """Plays one trial: processes that come and go, a person, an outsider, an administrator who sets the clock."""

    def __init__(self, trial: Trial, clock: VirtualClock) -> None:
        self.trial, self.storm, self.clock = trial, trial.storm, clock
        self.loop = asyncio.get_running_loop()
        self.chance = Random(f"stage {self.storm.seed}")  # chance that can be repeated is the point
        self.outsiders: dict[asyncio.Task[None], None] = {}
        self.lingering: list[tuple[Process, asyncio.Task[str]]] = []
        """Processes that live on though their run was taken over."""
        self.desk = MemoryJournal(trial.store)
        self.answered: set[int] = set()
        self.over = False

    def outside(self, work: Any) -> None:
        """Work of somebody who is no part of the run."""
        task = nobodys_task(work)
        self.outsiders[task] = None
        task.add_done_callback(lambda task: self.outsiders.pop(task, None))

    async def play(self) -> None:
        """From the run's beginning, through the storm, to its end."""
        await self._play([*self.storm.lives, Life(), Life(), Life()], len(self.storm.lives))

    async def begin(self) -> None:
        """The processes of the storm alone: the run may be cut off at their end."""
        await self._play(self.storm.lives, None)

    async def go_on(self) -> None:
        """What was cut off goes on, to its end."""
        await self._play([Life(), Life(), Life()], 0)

    async def _play(self, lives: Sequence[Life], calm: int | None) -> None:
        """Processes one after the other. From number `calm` on nothing happens to them, and one of them must bring the run to an end."""
        attribute_tasks(self.loop)
        self.loop.set_exception_handler(self._unheard)
        trial, storm = self.trial, self.storm
        first = len(trial.fates)
        self.outside(self._deliver())
        self._committed(trial.run, trial.events)
        for when, jump in storm.jumps:
            self.outside(self._jump(when, jump))
        if storm.cancel is not None and storm.cancel[1] == "letter":
            self.outside(self._cancel_by_letter(storm.cancel[0]))
        try:
            async with asyncio.timeout(PATIENCE):
                for number, life in enumerate(lives):
                    fate = await self._live(first + number, life)
                    trial.fates.append(fate)
                    if fate in (ENDED, WAITING):
                        break
                    if calm is not None and number >= calm and self.lingering:
                        trial.fates.append(await self.lingering.pop()[1])  # who lives on may hold the lease rightly
                else:
                    if calm is not None:
                        trial.wrong.append(f"I1 the last process did not bring the run to an end: {trial.fates}")
                for process, task in self.lingering:
                    if trial.waits:
                        process.kill()  # it follows a run that goes on some other day
                    trial.fates.append(await task)
        finally:
            self.over = True
            for outsider in list(self.outsiders):
                outsider.cancel()
            await asyncio.gather(*self.outsiders, return_exceptions=True)
        trial.seconds = self.loop.time()

    def _unheard(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.trial.wrong.append(f"I10 {context.get('message')}: {type(error).__name__}: {error}")

    # Processes

    async def _live(self, number: int, life: Life) -> str:
        """One process. Gives how it ended; where it is fenced it may live on beside the next."""
        process = Process(number, life.fatal)
        work = process.task(self._serve(process, life))
        fence = None
        ways: list[asyncio.Future[Any]] = [work, process.gone]
        if life.fenced is not None:
            fence = self.loop.create_task(self.clock.sleep(life.fenced))
            ways.append(fence)
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if fence is not None:
            if not fence.done():
                fence.cancel()
            elif work not in done:
                expire(self.trial.store, self.trial.run)
                self.trial.ledger.strike("lease lost")
                self.lingering.append((process, self.loop.create_task(self._linger(process, work))))
                return "fenced"
        if not process.alive:
            self.trial.ledger.strike("crash in recovery" if number else "crash")
            if process.steps >= EXHAUSTED:
                self.trial.wrong.append("I1 the engine turns on the spot: it does things without end, and no time passes")
            self._left(await process.bury())
            return CRASHED if process.steps < EXHAUSTED else ENDED
        return await work

    async def _linger(self, process: Process, work: asyncio.Task[str]) -> str:
        ways: list[asyncio.Future[Any]] = [work, process.gone]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if not process.alive:
            self._left(await process.bury())
            return CRASHED
        return f"fenced, then {await work}"

    def _left(self, names: Sequence[str]) -> None:
        if names:
            self.trial.wrong.append(f"I10 tasks that cannot be cancelled: {', '.join(names)}")

    def _position(self, journal: CrashingJournal) -> tuple[int, bool]:
        log = self.trial.store.logs.get(self.trial.run)
        return (0 if log is None else log.line.last), not journal.holds(self.trial.run)

    async def _serve(self, process: Process, life: Life) -> str:
        """What a process does: it takes the run up, waits for its end, and closes."""
        trial, storm = self.trial, self.storm
        chance = Random(f"journal {storm.seed} {process.number}")  # chance that can be repeated is the point
        journal = CrashingJournal(trial.store, process, self.clock, chance, life.weather, self._committed)
        made = DirectStormyWorkers if storm.direct else StormyWorkers
        workers = made(storm, trial.ledger, process, self.clock, lambda: self._position(journal))
        engine = Engine(self.clock, journal, workers, concurrency=storm.concurrency, observe=lambda run, event: _step(process))
        fate = BROKEN
        helpers: list[asyncio.Task[Any]] = []
        try:
            run = await self._take_up(engine, process, workers)
            if run is None:
                return ENDED
            for after, pause, most in storm.readers:
                helpers.append(asyncio.create_task(self._subscribe(run, journal, process, after, pause, most), name="reader"))
            if run.live is not None:
                helpers.append(asyncio.create_task(self._listen(run, run.live), name="reader"))
            if storm.cancel is not None and storm.cancel[1] == "handle":
                helpers.append(
                    asyncio.create_task(self._cancel_by_handle(run, storm.cancel[0], fenced=life.fenced is not None), name="canceller")
                )
            if life.closed is not None:
                helpers.append(asyncio.create_task(self._close(engine, life.closed), name="closer"))
            fate = await self._await(run, life)
        except OrchestraError as error:
            fate = self._excuse(error, process, journal, life)
        finally:
            for task in helpers:
                if task.get_name() != "reader":
                    task.cancel()
            if process.alive:
                await engine.close()
                await journal.close()
            await asyncio.gather(*helpers, return_exceptions=True)
            if process.alive:
                await self._inspect(process, workers)
        for kind in ("fault", "late_mail"):
            if (kind == "fault" and journal.struck) or (kind == "late_mail" and life.weather.late_mail and journal.rang):
                trial.ledger.strike(f"store {life.weather.fault}" if kind == "fault" else "letters late and twice")
        return fate

    async def _take_up(self, engine: Engine, process: Process, workers: StormyWorkers) -> Run | None:
        trial = self.trial
        program = trial.drawn.program
        try:
            if trial.run in trial.store.logs:
                heir, _ = await self._recalling(engine, process, workers)
                return await engine.resume(program, trial.run, by=f"process {process.number}", workers=heir, live=self._is_read(process))
        except JournalError as error:
            if error.code == "J006":
                return None
            raise
        heir, trial.label = await self._recalling(engine, process, workers)
        graph = engine.journal.put(trial.drawn.text.encode())
        options = {"memo": True} if self.storm.memo else {}
        parent = trial.elder.run if heir is not None and trial.elder is not None else ""
        trial.forked = bool(parent)
        if trial.forked and trial.elder is not None:
            ended = trial.elder.ended
            trial.parent_was = "cut off" if ended is None else "done" if ended.status == "done" else "failed"
        values = given_before(self.storm.seed, program)
        if values:
            trial.ledger.strike("values given before")
        return engine.start(
            program,
            trial.inputs,
            graph=graph,
            label=trial.label,
            run=trial.run,
            options=options,
            parent=parent,
            workers=heir,
            tiers=self.storm.tiers,
            live=self._is_read(process),
            values=values,
        )

    async def _recalling(self, engine: Engine, process: Process, workers: StormyWorkers) -> tuple[Recalling | None, Label]:
        """The workers of a fork, as far as its parent can still be read; and its label."""
        trial, elder = self.trial, self.trial.elder
        if elder is None or not trial.may_fork or not (events := await engine.journal.read(elder.run)):
            return None, trial.label
        begun = events[0]
        assert isinstance(begun, RunStarted), "a run begins so"
        trial.heirs[process.number] = len(events)
        return Recalling(workers, elder.run, answers(elder.drawn.program, events)), inherited(begun, trial.label)

    async def _await(self, run: Run, life: Life) -> str:
        finished = await run.pause()
        if finished is None and self.storm.habit == "nobody" and life.closed is None:
            self.trial.ledger.strike("nobody answers")
            await self.clock.sleep(1_000.0)
            if life.fenced is None and run.finished is None and run.asked and draw(self.storm.seed, "give up") < 0.5:
                self.trial.waits = True
                return WAITING
            if run.finished is None:
                await self._post(Letter(kind="cancel", by="who waited"))
        if finished is None:
            finished = await run.wait()
        if not self.trial.events or finished != self.trial.events[-1]:
            self.trial.wrong.append("I1 a run said that it had ended before its last event was on disk")
        return ENDED

    def _excuse(self, error: OrchestraError, process: Process, journal: CrashingJournal, life: Life) -> str:
        """Whether the storm explains an error."""
        struck = {FAULTS[life.weather.fault]} if journal.struck else set()
        if life.closed is not None:
            struck.add("E017")
        if "lease lost" in self.trial.ledger.struck:
            struck |= {"J005", "J022", "J006"}
        if error.code not in struck and process.alive:
            self.trial.wrong.append(f"I1 process {process.number} broke: {error.code} {error.message}")
        return CLOSED if error.code == "E017" else BROKEN

    async def _inspect(self, process: Process, workers: StormyWorkers) -> None:
        """After `close` nothing of the process may be left but the task that asks."""
        me = asyncio.current_task()
        for _ in range(20):
            left = [task for task in process.tasks if task is not me and not task.done()]
            if not left:
                break
            await asyncio.sleep(0)
        else:
            self.trial.wrong.append(f"I10 tasks left after close: {sorted(task.get_coro().__qualname__ for task in left)}")  # type: ignore[union-attr]  # tasks are made of coroutines
        if workers.in_flight:
            self.trial.wrong.append(f"I10 {workers.in_flight} calls left in flight after close")

    # People and accidents

    async def _subscribe(self, run: Run, journal: CrashingJournal, process: Process, after: int, pause: float, most: int) -> None:
        seen = Read(after)
        self.trial.reads.append(seen)
        self.trial.ledger.strike("slow subscriber" if pause else "leaving subscriber" if most else "subscriber")
        stream = run.events(after)
        try:
            async for event in stream:
                if not process.alive:
                    return
                log = self.trial.store.logs.get(self.trial.run)
                seen.early += log is None or log.line.last < event.seq
                seen.events.append(event)
                if most and len(seen.events) >= most:
                    return
                if pause:
                    await self.clock.sleep(pause)
        except OrchestraError as error:
            if error.code not in ("E017", "J002", "J003", "J005", "J006", "J022", *FAULTS.values()):
                self.trial.wrong.append(f"I7 a subscriber broke: {error.code} {error.message}")
        finally:
            await stream.aclose()

    def _is_read(self, process: Process) -> bool:
        return draw(self.storm.seed, "live", process.number) < 0.2

    async def _listen(self, run: Run, live: Live) -> None:
        """Somebody who reads what models write: of each attempt its pieces in order, and nothing is left out. It changes nothing."""
        self.trial.ledger.strike("live reader")
        heard: dict[tuple[str, int], str] = {}
        with suppress(OrchestraError):
            async for piece in run.text(live, (), ()):
                key = piece.node, piece.attempt
                text = heard[key] = ("" if piece.start == 0 else heard.get(key, "")) + piece.text
                if not WRITTEN.startswith(text) or piece.start + len(piece.text) != len(text):
                    self.trial.wrong.append(f"I7 a live reader of {piece.node} got {piece.text!r} after {piece.start} characters")

    async def _jump(self, when: float, seconds: float) -> None:
        await self.clock.sleep(when)
        self.clock.jump(seconds)
        self.trial.jumped = True
        self.trial.ledger.strike("clock forward" if seconds > 0 else "clock back")

    async def _deliver(self) -> None:
        """Somebody who takes messages out of the outbox; now and then he dies before he has marked them, and takes them again."""
        seen = {message.key for message in self.trial.delivered}
        for turn in range(12):
            await self.clock.sleep(3.0 * (1 + turn))
            messages = [message for message in await self.desk.outbox() if message.run == self.trial.run]
            fresh = [message for message in messages if message.key not in seen]
            seen |= {message.key for message in fresh}
            self.trial.delivered += fresh
            if messages and draw(self.storm.seed, "deliver", turn) < 0.8:
                await self.desk.delivered([message.number for message in messages])
            elif messages:
                self.trial.ledger.strike("message delivered twice")

    async def _close(self, engine: Engine, when: float) -> None:
        await self.clock.sleep(when)
        self.trial.ledger.strike("close")
        await engine.close()

    async def _cancel_by_handle(self, run: Run, when: float, *, fenced: bool) -> None:
        await self.clock.sleep(when)
        if not run.over:
            self.trial.cancelled = True
            self.trial.ledger.strike("cancel by handle")
            run.cancel("the handle")
            if not fenced:
                self.trial.cancels.append(self.clock.now() + LATE)

    async def _cancel_by_letter(self, when: float) -> None:
        await self.clock.sleep(when)
        if await self._post(Letter(kind="cancel", by="a letter")):
            self.trial.ledger.strike("cancel by letter")

    async def _post(self, letter: Letter) -> bool:
        try:
            await self.desk.post(self.trial.run, msgspec.structs.replace(letter, at=self.clock.now()))
        except JournalError as error:
            if error.code not in ("J023", "J006"):
                raise
            return False
        if letter.kind == "cancel":
            self.trial.cancelled = True
            self.trial.cancels.append(self.clock.now() + LATE)
        return True

    def _committed(self, run: str, events: Sequence[Event]) -> None:
        """What came to disk: people see questions there."""
        if self.over or run != self.trial.run:
            return
        for event in events:
            if isinstance(event, Asked) and event.seq not in self.answered:
                self.answered.add(event.seq)
                self.outside(self._answer(event))

    async def _answer(self, asked: Asked) -> None:
        """Letters to one question, as the person's habit is."""
        habit = "prompt" if asked.about == "effect" and self.storm.habit == "nobody" else self.storm.habit
        question = "" if asked.about == "acceptance" else asked.question
        value = person(self.storm.seed, asked.node, question, asked.options, asked.schema)
        why = declines(self.storm.seed, asked.node, question) if asked.about != "effect" else ""
        right = Letter(kind="answer", node=asked.node, value=value, shown=asked.shown, by="ann", declined=why, asked=number_of(asked))
        if asked.gives is not None and draw(self.storm.seed, "gave", asked.node) < 0.3:
            self.trial.ledger.strike("says what a call in doubt gave")
            gave = person(self.storm.seed, asked.node, "gave", (), asked.gives)
            right = msgspec.structs.replace(right, value=gave, gave=True)
        if why:
            self.trial.ledger.strike("declines")
        match habit:
            case "prompt":
                await self.clock.sleep(draw(self.storm.seed, "delay", asked.node) * 2)
                await self._post(right)
            case "slow":
                await self.clock.sleep(draw(self.storm.seed, "delay", asked.node) * 900)
                await self._post(right)
            case "twice":
                await self._post(right)
                await self.clock.sleep(draw(self.storm.seed, "delay", asked.node) * 2)
                if await self._post(right):
                    self.trial.ledger.strike("answer twice")
            case "clumsy":
                await self._post(Letter(kind="answer", node=asked.node, value={"no": ["sense"]}, shown=asked.shown, by="bob"))
                self.trial.ledger.strike("answer of a wrong type")
                if asked.about == "effect":
                    await self._post(Letter(kind="answer", node=asked.node, value={"no": 1}, shown=asked.shown, by="bob", gave=True))
                    await self._post(Letter(kind="answer", node=asked.node, shown=asked.shown, by="bob", declined="nobody knows"))
                    self.trial.ledger.strike("declines where somebody must say")
                    again = msgspec.structs.replace(right, asked=asked.seq - 1, by="bob")
                    if await self._post(again):
                        self.trial.ledger.strike("answer to the same question before")
                await self.clock.sleep(draw(self.storm.seed, "delay", asked.node) * 2)
                if await self._post(Letter(kind="answer", node=asked.node, value=value, shown="stale", by="bob")):
                    self.trial.ledger.strike("answer to a stale question")
                if await self._post(Letter(kind="answer", node="n999", value=value, shown=asked.shown, by="bob")):
                    self.trial.ledger.strike("answer to nobody's question")
                await self.clock.sleep(draw(self.storm.seed, "more", asked.node) * 5)
                await self._post(right)
            case _:
                pass


def _step(process: Process) -> None:
    process.step()
