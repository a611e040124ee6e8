"""The shell: carries out what `decide` proposes, and feeds back what came of it. The only part of the engine that waits."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import aclosing
from typing import Any, assert_never

import msgspec

from orchestra.doors import Call, Chunk, Clock, Done, Journal, Refused, Workers
from orchestra.engine.decide import decide
from orchestra.engine.evolve import evolve
from orchestra.engine.proposals import Conclude, Enter, Expand, Finish, Invoke, Judge, Pause, Proposal
from orchestra.engine.run import Run
from orchestra.engine.state import Phase, State, Unit
from orchestra.errors import OrchestraError
from orchestra.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    Event,
    Expanded,
    Judged,
    NodeFinished,
    RetryPlanned,
    RunFinished,
    RunStarted,
    TurnStarted,
)
from orchestra.log import Observer
from orchestra.values.labels import Label
from orchestra.values.outcome import Failed
from orchestra.values.types import Validator
from orchestra.verify import acceptance
from orchestra.workflow.program import Program


class Engine:
    """Runs programs through three doors. One engine serves any number of runs at once on one event loop."""

    def __init__(
        self, clock: Clock, journal: Journal, workers: Workers, *, concurrency: int = 256, observe: Observer | None = None
    ) -> None:
        self.clock, self.journal, self.workers, self.observe = clock, journal, workers, observe
        self.concurrency = concurrency
        """Calls of one run in flight at most."""
        self._runs: dict[str, Run] = {}
        self._drivers: set[asyncio.Task[None]] = set()

    def start(self, program: Program, inputs: Mapping[str, Any], *, graph: str, label: Label = "internal", run: str = "") -> Run:
        """Begins a run of `program` on inputs that are already of its types.

        `graph` is the digest of its source in the journal; `run` is an id that nobody has, a new one where it is empty.
        """
        handle = Run(run or self.clock.new_id(), self.journal, observe=self.observe)
        started = RunStarted(
            seq=1, at=self.clock.now(), run=handle.id, workflow=program.name, graph=graph, inputs=dict(inputs), label=label
        )
        driver = _Driver(self, program, handle)
        driver.record(started)
        task = asyncio.get_running_loop().create_task(driver.drive(), name=f"run {handle.id}")
        handle.attach(task)
        self._runs[handle.id] = handle
        self._drivers.add(task)
        task.add_done_callback(lambda done: self._forget(handle, done))
        return handle

    def running(self, run: str) -> Run | None:
        """The run of this engine that has the id and is under way."""
        return self._runs.get(run)

    def _forget(self, run: Run, task: asyncio.Task[None]) -> None:
        self._drivers.discard(task)
        self._runs.pop(run.id, None)

    async def close(self) -> None:
        """Ends all runs that are under way, and waits for their tasks."""
        drivers = list(self._drivers)
        for task in drivers:
            task.cancel()
        await asyncio.gather(*drivers, return_exceptions=True)


class _Driver:
    """One run under way."""

    def __init__(self, engine: Engine, program: Program, run: Run) -> None:
        self.clock, self.journal, self.workers = engine.clock, engine.journal, engine.workers
        self.program, self.run = program, run
        self.state = State(engine.concurrency)
        self.calls: set[asyncio.Task[None]] = set()
        self.validators: dict[int, Validator] = {}
        """By the identity of the schema, which the program keeps alive."""
        self.over = asyncio.Event()

    async def drive(self) -> None:
        """From the first event, which is recorded, to the last; ends with everything on disk and no task left."""
        try:
            async with asyncio.TaskGroup() as group:
                self.group = group
                watchers = [group.create_task(self._cancellation())]
                if self.program.budget is not None and self.program.budget.seconds is not None:
                    watchers.append(group.create_task(self._deadline(self.program.budget.seconds)))
                self._pump()
                await self.over.wait()
                for task in (*watchers, *self.calls):
                    task.cancel()
        except* OrchestraError as broken:
            raise broken.exceptions[0] from None
        await self.journal.durable(self.run.id, self.state.seq)

    def record(self, event: Event) -> None:
        """A fact: into the journal, into the state, to who watches."""
        self.journal.append(self.run.id, (event,))
        evolve(self.state, event, self.program)
        self.run.record(event)

    def _stamp(self) -> dict[str, Any]:
        return {"seq": self.state.seq + 1, "at": self.clock.now()}

    def _pump(self) -> None:
        """Carries out proposals until none is left."""
        while proposals := decide(self.state):
            for proposal in proposals:
                if self.state.finished is None:
                    self._carry_out(proposal)

    def _carry_out(self, proposal: Proposal) -> None:
        match proposal:
            case Finish(unit, outcome):
                self.record(NodeFinished(**self._stamp(), node=unit.path, outcome=outcome))
            case Invoke(unit, call, settled):
                self.record(AttemptStarted(**self._stamp(), node=unit.path, attempt=call.attempt, name=call.name, escalated=call.escalate))
                self._spawn(unit, call, settled)
            case Judge(unit, attempt, situation):
                ruling = acceptance.start(situation)
                self.record(
                    Judged(
                        **self._stamp(),
                        node=unit.path,
                        attempt=attempt,
                        verdicts=ruling.verdicts,
                        accepted=ruling.accepted,
                        score=ruling.score,
                        reason=ruling.reason,
                    )
                )
            case Pause(unit, attempt, low, high, reason):
                due = self.clock.now() + low + (high - low) * self.clock.random()
                self.record(RetryPlanned(**self._stamp(), node=unit.path, attempt=attempt, due=due, reason=reason))
                self._task(self._alarm(unit))
            case Expand(unit, count):
                self.record(Expanded(**self._stamp(), node=unit.path, count=count))
            case Enter(unit, turn):
                self.record(TurnStarted(**self._stamp(), node=unit.path, turn=turn))
            case Conclude(status, outcome):
                self.record(RunFinished(**self._stamp(), status=status, outcome=outcome, usage=self.state.usage))
                self.over.set()
            case _:
                assert_never(proposal)

    def _task(self, work: Any) -> None:
        task = self.group.create_task(work)
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)

    def _spawn(self, unit: Unit, call: Call, settled: bool) -> None:
        self._task(self._attempt(unit, call, self.state.seq if settled else 0))

    async def _attempt(self, unit: Unit, call: Call, durable: int) -> None:
        """One call, from its start to the fact of its end. `durable` is the event that must be on disk before the call goes out."""
        if durable:
            await self.journal.durable(self.run.id, durable)
        began = self.clock.monotonic()
        try:
            async with asyncio.timeout(call.timeout):
                reply = await self._reply(call)
        except TimeoutError:
            hint = f"raise `timeout:` of {unit.path}, or see what the server is doing: orchestra fleet status"
            reply = Refused(code="E006", reason=f"no answer within {call.timeout:g} s", hint=hint, retryable=True)
        if self.state.finished is not None or self.state.cancelled:
            return
        if isinstance(reply, Done):
            reply = self._checked(unit, reply)
        self.record(self._finished(unit, call, reply, self.clock.monotonic() - began))
        self._pump()

    async def _reply(self, call: Call) -> Done | Refused:
        async with aclosing(self.workers.run(call)) as replies:
            async for reply in replies:
                if not isinstance(reply, Chunk):
                    return reply
        return Refused(code="E007", reason=f"the worker of {call.name} gave no reply", hint="orchestra doctor", retryable=True)

    def _checked(self, unit: Unit, reply: Done) -> Done | Refused:
        """The reply, if its value is of the type that the node's readers were compiled against."""
        schema = unit.node.output
        if not schema:
            return reply
        validator = self.validators.get(id(schema))
        if validator is None:
            validator = self.validators[id(schema)] = Validator(schema)
        if (fault := validator.check(reply.value)) is None:
            return reply
        kept: dict[str, Any] = {name: getattr(reply, name) for name in ("usage", "server", "model", "sent", "received")}
        return Refused(code="E009", reason=f"{unit.path}: {fault}", hint="the worker breaks its contract; mend it", **kept)

    def _finished(self, unit: Unit, call: Call, reply: Done | Refused, seconds: float) -> AttemptFinished:
        usage = msgspec.structs.replace(reply.usage, seconds=seconds, calls=max(1, reply.usage.calls))
        facts: dict[str, Any] = {
            "node": unit.path,
            "attempt": call.attempt,
            "usage": usage,
            "server": reply.server,
            "model": reply.model,
            "sent": self.journal.put(reply.sent) if reply.sent else "",
            "received": self.journal.put(reply.received) if reply.received else "",
        }
        if isinstance(reply, Done):
            return AttemptFinished(**self._stamp(), **facts, value=reply.value, confidence=reply.confidence)
        return AttemptFinished(**self._stamp(), **facts, error=reply.code, reason=reply.reason, hint=reply.hint, retryable=reply.retryable)

    async def _alarm(self, unit: Unit) -> None:
        """Wakes a paused unit at its due time."""
        await self.clock.sleep(max(0.0, unit.due - self.clock.now()))
        if unit.phase is Phase.PAUSED:
            self.state.enqueue(unit)
            self._pump()

    async def _deadline(self, seconds: float) -> None:
        await self.clock.sleep(seconds)
        hint = "raise `seconds` of the workflow's `budget:`, or --budget seconds=…"
        self._break_off("budget", Failed("E005", f"not done within {seconds:g} s", hint=hint))

    async def _cancellation(self) -> None:
        by = await self.run.cancellation()
        if self.state.finished is None:
            self.record(CancelRequested(**self._stamp(), by=by))
            self._break_off("cancelled", Failed("E008", f"cancelled{f' by {by}' if by else ''}", hint=f"orchestra runs show {self.run.id}"))

    def _break_off(self, status: str, outcome: Failed) -> None:
        if self.state.finished is None:
            self._carry_out(Conclude(status, outcome))
