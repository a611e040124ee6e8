"""The stage of one trial: the processes of a run, started and ended by its fault plan."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import Any

import msgspec

from orchestra.app.inputs import question_number
from orchestra.app.reuse import RecallingWorkers, fork_label, reusable_answers
from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, QuestionAsked, RunFinished, RunStarted
from orchestra.core.labels import Label
from orchestra.core.protocols import InboxMessage, OutboxMessage
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunOptions, RunRequest
from orchestra.engine.run import Execution
from orchestra.engine.streaming import TextStream
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing.virtual_clock import VirtualClock
from tests.simulation.lab.crashes import (
    MAX_STEPS,
    STORE_FAULT_CODES,
    CrashingJournal,
    SimulatedProcess,
    detached_task,
    expire_lease,
    track_tasks,
)
from tests.simulation.lab.people import decline_reason, person_answer, values_given
from tests.simulation.lab.random_workflows import RandomWorkflow
from tests.simulation.lab.storms import (
    CHUNK_TEXT,
    CallLog,
    FaultPlan,
    FaultyWorkers,
    ProcessLife,
    seeded_random,
)

MESSAGE_DEADLINE = 65.0
"""Seconds within which an inbox message must reach an active run, under any faults."""
MAX_SECONDS = 200_000.0
"""Virtual seconds after which a run counts as endless: a thousand questions, three at a time, take more than a day."""
ENDED, CRASHED, BROKEN, CLOSED, WAITING = "ended", "crashed", "broken", "closed", "waiting"


@dataclass(slots=True)
class Subscription:
    """The events of one subscriber, and how many were durable at that time."""

    after: int
    events: list[Event] = field(default_factory=list)
    undurable: int = 0
    """Events that it received before they were on disk."""


@dataclass(slots=True)
class Trial:
    """The result of a trial."""

    workflow: RandomWorkflow
    plan: FaultPlan
    run: str
    store: MemoryStore
    log: CallLog = field(default_factory=CallLog)
    subscriptions: list[Subscription] = field(default_factory=list)
    process_ends: list[str] = field(default_factory=list)
    """How each of its processes ended."""
    delivered: list[OutboxMessage] = field(default_factory=list)
    """Messages that were taken from the outbox."""
    violations: list[str] = field(default_factory=list)
    left_waiting: bool = False
    """Whether it was left waiting for a person."""
    clock_jumped: bool = False
    cancel_times: list[float] = field(default_factory=list)
    """Times at which a cancellation had certainly reached it."""
    cancelled: bool = False
    """Whether a cancellation was requested."""
    seconds: float = 0.0
    inputs: dict[str, Any] = field(default_factory=dict)
    label: Label = "public"
    earlier: Trial | None = None
    """The earlier run."""
    may_fork: bool = False
    """Whether the run is to be a fork of it."""
    forked: bool = False
    """Whether it is a fork: the parent left something."""
    parent_status: str = ""
    """How the parent had ended by then."""
    informed_processes: dict[int, int] = field(default_factory=dict)
    """Processes that had read the parent's answers, to the last event that they had read."""
    deleted_events: list[Event] | None = None
    """The events of a deleted run."""

    @property
    def events(self) -> list[Event]:
        """The events of the run in the store, or at its deletion."""
        if self.deleted_events is not None:
            return self.deleted_events
        log = self.store.logs.get(self.run)
        return log.events if log is not None else []

    @property
    def ended(self) -> RunFinished | None:
        """The last event, if the run has ended."""
        last = self.events[-1] if self.events else None
        return last if isinstance(last, RunFinished) else None


class TrialRunner:
    """Runs one trial: processes that start and end, a person, another process, and an administrator who sets the
    clock.
    """

    def __init__(self, trial: Trial, clock: VirtualClock) -> None:
        self.trial, self.plan, self.clock = trial, trial.plan, clock
        self.loop = asyncio.get_running_loop()
        self.random = Random(f"stage {self.plan.seed}")  # reproducible randomness is required
        self.outsiders: dict[asyncio.Task[None], None] = {}
        self.fenced_processes: list[tuple[SimulatedProcess, asyncio.Task[str]]] = []
        """Processes that live on although their run was taken over."""
        self.journal = MemoryJournal(trial.store)
        self.answered: set[int] = set()
        self.finished = False

    def spawn_outside(self, work: Any) -> None:
        """Starts a task that is not part of the run."""
        task = detached_task(work)
        self.outsiders[task] = None
        task.add_done_callback(lambda task: self.outsiders.pop(task, None))

    async def run(self) -> None:
        """Runs the trial from the start to the end of the run."""
        await self._run([*self.plan.lives, ProcessLife(), ProcessLife(), ProcessLife()], len(self.plan.lives))

    async def run_plan(self) -> None:
        """Runs the processes of the fault plan only. The run may be cut off at their end."""
        await self._run(self.plan.lives, None)

    async def resume(self) -> None:
        """Continues a cut off run to its end."""
        await self._run([ProcessLife(), ProcessLife(), ProcessLife()], 0)

    async def _run(self, lives: Sequence[ProcessLife], calm: int | None) -> None:
        """Runs processes one after the other. From number `calm` on there are no faults, and one of them must end the
        run.
        """
        track_tasks(self.loop)
        self.loop.set_exception_handler(self._on_unhandled)
        trial, storm = self.trial, self.plan
        first = len(trial.process_ends)
        self.spawn_outside(self._deliver())
        self._committed(trial.run, trial.events)
        for when, jump in storm.clock_jumps:
            self.spawn_outside(self._jump_clock(when, jump))
        if storm.cancel is not None and storm.cancel[1] == "message":
            self.spawn_outside(self._cancel_by_message(storm.cancel[0]))
        try:
            async with asyncio.timeout(MAX_SECONDS):
                for number, life in enumerate(lives):
                    fate = await self._run_process(first + number, life)
                    trial.process_ends.append(fate)
                    if fate in (ENDED, WAITING):
                        break
                    if calm is not None and number >= calm and self.fenced_processes:
                        # a surviving process may hold the lease rightly
                        trial.process_ends.append(await self.fenced_processes.pop()[1])
                else:
                    if calm is not None:
                        trial.violations.append(f"I1 the last process did not end the run: {trial.process_ends}")
                for process, task in self.fenced_processes:
                    if trial.left_waiting:
                        process.kill()  # it follows a run that continues another day
                    trial.process_ends.append(await task)
        finally:
            self.finished = True
            for outsider in list(self.outsiders):
                outsider.cancel()
            await asyncio.gather(*self.outsiders, return_exceptions=True)
        trial.seconds = self.loop.time()

    def _on_unhandled(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.trial.violations.append(f"I10 {context.get('message')}: {type(error).__name__}: {error}")

    # Processes

    async def _run_process(self, number: int, life: ProcessLife) -> str:
        """Runs one process, and returns how it ended. A fenced process may live on beside the next."""
        process = SimulatedProcess(number, life.fatal_step)
        work = process.task(self._run_engine(process, life))
        fence = None
        ways: list[asyncio.Future[Any]] = [work, process.died]
        if life.fenced_after is not None:
            fence = self.loop.create_task(self.clock.sleep(life.fenced_after))
            ways.append(fence)
        done, _ = await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if fence is not None:
            if not fence.done():
                fence.cancel()
            elif work not in done:
                expire_lease(self.trial.store, self.trial.run)
                self.trial.log.count_fault("lease lost")
                self.fenced_processes.append((process, self.loop.create_task(self._run_fenced(process, work))))
                return "fenced"
        if not process.alive:
            self.trial.log.count_fault("crash in recovery" if number else "crash")
            if process.steps >= MAX_STEPS:
                self.trial.violations.append("I1 the engine is in an endless loop: many steps, and no time passes")
            self._report_leftovers(await process.cancel_tasks())
            return CRASHED if process.steps < MAX_STEPS else ENDED
        return await work

    async def _run_fenced(self, process: SimulatedProcess, work: asyncio.Task[str]) -> str:
        ways: list[asyncio.Future[Any]] = [work, process.died]
        await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        if not process.alive:
            self._report_leftovers(await process.cancel_tasks())
            return CRASHED
        return f"fenced, then {await work}"

    def _report_leftovers(self, names: Sequence[str]) -> None:
        if names:
            self.trial.violations.append(f"I10 tasks that cannot be cancelled: {', '.join(names)}")

    def _position(self, journal: CrashingJournal) -> tuple[int, bool]:
        log = self.trial.store.logs.get(self.trial.run)
        return (0 if log is None else log.end.last_seq), not journal.has_lease(self.trial.run)

    async def _run_engine(self, process: SimulatedProcess, life: ProcessLife) -> str:
        """Runs the engine of a process: it takes the run over, waits for its end, and closes."""
        trial, storm = self.trial, self.plan
        chance = Random(f"journal {storm.seed} {process.number}")  # reproducible randomness is required
        journal = CrashingJournal(trial.store, process, self.clock, chance, life.store_faults, self._committed)
        workers = FaultyWorkers(storm, trial.log, process, self.clock, lambda: self._position(journal))
        engine = Engine(
            self.clock, journal, workers, concurrency=storm.concurrency, observe=lambda run, event: _count_step(process)
        )
        fate = BROKEN
        helpers: list[asyncio.Task[Any]] = []
        try:
            run = await self._start_or_resume(engine, process, workers)
            if run is None:
                return ENDED
            for after, pause, most in storm.subscribers:
                helpers.append(
                    asyncio.create_task(self._subscribe(run, journal, process, after, pause, most), name="reader")
                )
            if run.text_stream is not None:
                helpers.append(asyncio.create_task(self._read_live(run, run.text_stream), name="reader"))
            if storm.cancel is not None and storm.cancel[1] == "handle":
                helpers.append(
                    asyncio.create_task(
                        self._cancel_by_handle(run, storm.cancel[0], fenced=life.fenced_after is not None),
                        name="canceller",
                    )
                )
            if life.closed_after is not None:
                helpers.append(asyncio.create_task(self._close(engine, life.closed_after), name="closer"))
            fate = await self._wait_for_end(run, life)
        except OrchestraError as error:
            fate = self._classify_error(error, process, journal, life)
        finally:
            for task in helpers:
                if task.get_name() != "reader":
                    task.cancel()
            if process.alive:
                await engine.close()
                await journal.close()
            await asyncio.gather(*helpers, return_exceptions=True)
            if process.alive:
                await self._check_leftovers(process, workers)
        for kind in ("fault", "late_mail"):
            if (kind == "fault" and journal.fault_count) or (
                kind == "late_mail" and life.store_faults.message_delay and journal.message_notices
            ):
                trial.log.count_fault(
                    f"store {life.store_faults.fault}" if kind == "fault" else "messages late and twice"
                )
        return fate

    async def _start_or_resume(
        self, engine: Engine, process: SimulatedProcess, workers: FaultyWorkers
    ) -> Execution | None:
        trial = self.trial
        program = trial.workflow.program
        try:
            if trial.run in trial.store.logs:
                heir, _ = await self._fork_workers(engine, process, workers)
                return await engine.resume(
                    program,
                    trial.run,
                    by=f"process {process.number}",
                    workers=heir,
                    stream_text=self._has_live_reader(process),
                )
        except JournalError as error:
            if error.code == "J006":
                return None
            raise
        heir, trial.label = await self._fork_workers(engine, process, workers)
        graph = engine.journal.put_blob(trial.workflow.text.encode())
        parent = trial.earlier.run if heir is not None and trial.earlier is not None else ""
        trial.forked = bool(parent)
        if trial.forked and trial.earlier is not None:
            ended = trial.earlier.ended
            trial.parent_status = "cut off" if ended is None else "done" if ended.status == "done" else "failed"
        values = values_given(self.plan.seed, program)
        if values:
            trial.log.count_fault("values given before")
        return engine.start(
            program,
            RunRequest(
                inputs=trial.inputs,
                graph=graph,
                label=trial.label,
                run=trial.run,
                parent=parent,
                tiers=self.plan.tiers,
                overrides=values,
                options=RunOptions(memo=self.plan.memo, live=self._has_live_reader(process)),
            ),
            workers=heir,
        )

    async def _fork_workers(
        self, engine: Engine, process: SimulatedProcess, workers: FaultyWorkers
    ) -> tuple[RecallingWorkers | None, Label]:
        """Returns the workers of a fork and its label, as far as its parent can be read."""
        trial, elder = self.trial, self.trial.earlier
        if elder is None or not trial.may_fork or not (events := await engine.journal.read(elder.run)):
            return None, trial.label
        begun = events[0]
        assert isinstance(begun, RunStarted), "a run begins so"
        trial.informed_processes[process.number] = len(events)
        return RecallingWorkers(workers, elder.run, reusable_answers(elder.workflow.program, events)), fork_label(
            begun, trial.label
        )

    async def _wait_for_end(self, run: Execution, life: ProcessLife) -> str:
        finished = await run.wait_until_blocked()
        if finished is None and self.plan.habit == "nobody" and life.closed_after is None:
            self.trial.log.count_fault("no person answers")
            await self.clock.sleep(1_000.0)
            if (
                life.fenced_after is None
                and run.finished is None
                and run.questions
                and seeded_random(self.plan.seed, "give up") < 0.5
            ):
                self.trial.left_waiting = True
                return WAITING
            if run.finished is None:
                await self._send(InboxMessage(kind="cancel", by="who waited"))
        if finished is None:
            finished = await run.wait()
        if not self.trial.events or finished != self.trial.events[-1]:
            self.trial.violations.append("I1 a run reported its end before its last event was on disk")
        return ENDED

    def _classify_error(
        self, error: OrchestraError, process: SimulatedProcess, journal: CrashingJournal, life: ProcessLife
    ) -> str:
        """Returns whether the fault plan explains an error."""
        struck = {STORE_FAULT_CODES[life.store_faults.fault]} if journal.fault_count else set()
        if life.closed_after is not None:
            struck.add("E017")
        if "lease lost" in self.trial.log.fault_counts:
            struck |= {"J005", "J022", "J006"}
        if error.code not in struck and process.alive:
            self.trial.violations.append(f"I1 process {process.number} failed: {error.code} {error.message}")
        return CLOSED if error.code == "E017" else BROKEN

    async def _check_leftovers(self, process: SimulatedProcess, workers: FaultyWorkers) -> None:
        """Checks that after `close` only the calling task of the process is left."""
        me = asyncio.current_task()
        for _ in range(20):
            left = [task for task in process.tasks if task is not me and not task.done()]
            if not left:
                break
            await asyncio.sleep(0)
        else:
            names = sorted(getattr(task.get_coro(), "__qualname__", "?") for task in left)
            self.trial.violations.append(f"I10 tasks left after close: {names}")
        if workers.in_flight:
            self.trial.violations.append(f"I10 {workers.in_flight} calls left in flight after close")

    # People and accidents

    async def _subscribe(
        self, run: Execution, journal: CrashingJournal, process: SimulatedProcess, after: int, pause: float, most: int
    ) -> None:
        seen = Subscription(after)
        self.trial.subscriptions.append(seen)
        self.trial.log.count_fault("slow subscriber" if pause else "leaving subscriber" if most else "subscriber")
        stream = run.events(after)
        try:
            async for event in stream:
                if not process.alive:
                    return
                log = self.trial.store.logs.get(self.trial.run)
                seen.undurable += log is None or log.end.last_seq < event.seq
                seen.events.append(event)
                if most and len(seen.events) >= most:
                    return
                if pause:
                    await self.clock.sleep(pause)
        except OrchestraError as error:
            if error.code not in ("E017", "J002", "J003", "J005", "J006", "J022", *STORE_FAULT_CODES.values()):
                self.trial.violations.append(f"I7 a subscriber failed: {error.code} {error.message}")
        finally:
            await stream.aclose()

    def _has_live_reader(self, process: SimulatedProcess) -> bool:
        return seeded_random(self.plan.seed, "live", process.number) < 0.2

    async def _read_live(self, run: Execution, live: TextStream) -> None:
        """Reads streamed text: the chunks of each attempt are in order and complete. It changes nothing."""
        self.trial.log.count_fault("live reader")
        heard: dict[tuple[str, int], str] = {}
        with suppress(OrchestraError):
            async for piece in run.text(live, (), ()):
                key = piece.node, piece.attempt
                text = heard[key] = ("" if piece.start == 0 else heard.get(key, "")) + piece.text
                if not CHUNK_TEXT.startswith(text) or piece.start + len(piece.text) != len(text):
                    self.trial.violations.append(
                        f"I7 a live reader of {piece.node} got {piece.text!r} after {piece.start} characters"
                    )

    async def _jump_clock(self, when: float, seconds: float) -> None:
        await self.clock.sleep(when)
        self.clock.jump(seconds)
        self.trial.clock_jumped = True
        self.trial.log.count_fault("clock forward" if seconds > 0 else "clock back")

    async def _deliver(self) -> None:
        """Delivers outbox messages. Sometimes it dies before it has marked them, and takes them again."""
        seen = {message.key for message in self.trial.delivered}
        for turn in range(12):
            await self.clock.sleep(3.0 * (1 + turn))
            messages = [message for message in await self.journal.outbox() if message.run == self.trial.run]
            fresh = [message for message in messages if message.key not in seen]
            seen |= {message.key for message in fresh}
            self.trial.delivered += fresh
            if messages and seeded_random(self.plan.seed, "deliver", turn) < 0.8:
                await self.journal.mark_delivered([message.number for message in messages])
            elif messages:
                self.trial.log.count_fault("message delivered twice")

    async def _close(self, engine: Engine, when: float) -> None:
        await self.clock.sleep(when)
        self.trial.log.count_fault("close")
        await engine.close()

    async def _cancel_by_handle(self, run: Execution, when: float, *, fenced: bool) -> None:
        await self.clock.sleep(when)
        if not run.is_over:
            self.trial.cancelled = True
            self.trial.log.count_fault("cancel by handle")
            run.cancel("the handle")
            if not fenced:
                self.trial.cancel_times.append(self.clock.now() + MESSAGE_DEADLINE)

    async def _cancel_by_message(self, when: float) -> None:
        await self.clock.sleep(when)
        if await self._send(InboxMessage(kind="cancel", by="a message")):
            self.trial.log.count_fault("cancel by message")

    async def _send(self, message: InboxMessage) -> bool:
        try:
            await self.journal.send(self.trial.run, msgspec.structs.replace(message, at=self.clock.now()))
        except JournalError as error:
            if error.code not in ("J023", "J006"):
                raise
            return False
        if message.kind == "cancel":
            self.trial.cancelled = True
            self.trial.cancel_times.append(self.clock.now() + MESSAGE_DEADLINE)
        return True

    def _committed(self, run: str, events: Sequence[Event]) -> None:
        """Handles a commit: persons see questions then."""
        if self.finished or run != self.trial.run:
            return
        for event in events:
            if isinstance(event, QuestionAsked) and event.seq not in self.answered:
                self.answered.add(event.seq)
                self.spawn_outside(self._answer_question(event))

    async def _answer_question(self, asked: QuestionAsked) -> None:
        """Sends answers to one question, according to the person's habit."""
        habit = "prompt" if asked.kind == "effect" and self.plan.habit == "nobody" else self.plan.habit
        question = "" if asked.kind == "acceptance" else asked.question
        value = person_answer(self.plan.seed, asked.node, question, asked.options, asked.schema)
        why = decline_reason(self.plan.seed, asked.node, question) if asked.kind != "effect" else ""
        right = InboxMessage(
            kind="answer",
            node=asked.node,
            value=value,
            question_digest=asked.question_digest,
            by="ann",
            decline_reason=why,
            question_seq=question_number(asked),
        )
        if asked.result_schema is not None and seeded_random(self.plan.seed, "gave", asked.node) < 0.3:
            self.trial.log.count_fault("says what a call in doubt gave")
            gave = person_answer(self.plan.seed, asked.node, "gave", (), asked.result_schema)
            right = msgspec.structs.replace(right, value=gave, call_happened=True)
        if why:
            self.trial.log.count_fault("declines")
        match habit:
            case "prompt":
                await self.clock.sleep(seeded_random(self.plan.seed, "delay", asked.node) * 2)
                await self._send(right)
            case "slow":
                await self.clock.sleep(seeded_random(self.plan.seed, "delay", asked.node) * 900)
                await self._send(right)
            case "twice":
                await self._send(right)
                await self.clock.sleep(seeded_random(self.plan.seed, "delay", asked.node) * 2)
                if await self._send(right):
                    self.trial.log.count_fault("answer twice")
            case "clumsy":
                await self._send(
                    InboxMessage(
                        kind="answer",
                        node=asked.node,
                        value={"no": ["sense"]},
                        question_digest=asked.question_digest,
                        by="bob",
                    )
                )
                self.trial.log.count_fault("answer of a wrong type")
                if asked.kind == "effect":
                    await self._send(
                        InboxMessage(
                            kind="answer",
                            node=asked.node,
                            value={"no": 1},
                            question_digest=asked.question_digest,
                            by="bob",
                            call_happened=True,
                        )
                    )
                    await self._send(
                        InboxMessage(
                            kind="answer",
                            node=asked.node,
                            question_digest=asked.question_digest,
                            by="bob",
                            decline_reason="it is unknown",
                        )
                    )
                    self.trial.log.count_fault("declines a required answer")
                    again = msgspec.structs.replace(right, question_seq=asked.seq - 1, by="bob")
                    if await self._send(again):
                        self.trial.log.count_fault("answer to the same question before")
                await self.clock.sleep(seeded_random(self.plan.seed, "delay", asked.node) * 2)
                if await self._send(
                    InboxMessage(kind="answer", node=asked.node, value=value, question_digest="stale", by="bob")
                ):
                    self.trial.log.count_fault("answer to a stale question")
                if await self._send(
                    InboxMessage(
                        kind="answer", node="n999", value=value, question_digest=asked.question_digest, by="bob"
                    )
                ):
                    self.trial.log.count_fault("answer to an unknown question")
                await self.clock.sleep(seeded_random(self.plan.seed, "more", asked.node) * 5)
                await self._send(right)
            case _:
                pass


def _count_step(process: SimulatedProcess) -> None:
    process.step()
