"""The driver: one run under way. It carries out what `decide` proposes, and feeds back what came of it."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, assert_never

from orchestra.core.error_codes import TIME_IS_UP
from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    NOBODY_ASKS,
    Answered,
    Asked,
    AttemptFinished,
    CancelRequested,
    Event,
    Expanded,
    LetterRefused,
    Measured,
    NodeFinished,
    RetryPlanned,
    RunFinished,
    TurnStarted,
)
from orchestra.core.outcomes import Failed, Outcome
from orchestra.core.protocols import Call, Done, Letter, Refused, Workers, direct
from orchestra.engine import checks, deadlines, kinds
from orchestra.engine.call_results import cancelled_itself, finished, of_confidence, recalled, started, streamed
from orchestra.engine.check_budget import Wanting
from orchestra.engine.decide import decide, give_up
from orchestra.engine.evolve import evolve
from orchestra.engine.kinds import ask
from orchestra.engine.kinds.checks import timed
from orchestra.engine.proposals import Ask, Conclude, Count, Enter, Expand, Finish, Invoke, Judge, Pause, Proposal, Recall, moot
from orchestra.engine.run import Run
from orchestra.engine.state import Phase, State, Unit, contradiction
from orchestra.workflows.program import Program

if TYPE_CHECKING:
    from orchestra.engine.engine import Engine

BREATH = 256
"""Calls that come back at once, after which other tasks of the loop get a turn."""
RUNNING = Phase.RUNNING


class Driver:
    """One run under way.

    Calls run in tasks, but a task that is done with a call takes the next one from the line, so a chain of quick calls needs one
    task, and a fork needs as many as have to wait. Events go to the journal once a turn of the loop.
    """

    __slots__ = (
        "alarms", "begun", "clock", "deadlines", "do", "dozing", "ending", "engine", "head", "journal", "line", "loop", "memo", "program",
        "run", "starting", "state", "tasks", "turning", "wanting", "workers",
    )  # fmt: skip

    def __init__(self, engine: Engine, program: Program, run: Run, state: State, workers: Workers) -> None:
        self.engine, self.workers = engine, workers
        self.do = engine.do if workers is engine.workers else direct(workers)
        self.clock, self.journal = engine.clock, engine.journal
        self.program, self.run, self.state = program, run, state
        self.loop = asyncio.get_running_loop()
        self.line: list[Invoke] = []
        """Calls that wait for a task: those from `head` on."""
        self.head = 0
        self.tasks: dict[asyncio.Task[None], Invoke | None] = {}
        """The tasks of the run, each with the call that it does now."""
        self.wanting: list[Wanting] | None = None
        """Values whose checks wait for the budget for checks; None where there were none."""
        self.starting = 0
        """Tasks that have not had their first turn."""
        self.alarms: dict[str, asyncio.Task[None]] = {}
        """Of units that wait for a time, by path."""
        self.deadlines: dict[str, asyncio.Task[None]] = {}
        """Of called workflows whose budget states seconds, by the path of their unit; of the run under an empty one."""
        self.dozing: asyncio.Task[None] | None = None
        """Looks again whether the run may sleep, where the next deadline is near."""
        self.memo = False
        """Whether answers are taken from the memo."""
        self.begun: dict[str, Invoke] = {}
        """By path: calls whose start is not recorded yet. Those that come back at once need no start."""
        self.turning = False
        """Whether the end of this turn of the loop is seen to."""
        self.ending = False

    # Facts

    def record(self, event: Event) -> None:
        """A fact: into the state, to who watches, and with the end of this turn of the loop into the journal."""
        if not self.turning:
            self.await_the_turn()
        evolve(self.state, event, self.program)
        self.run.log.append(event)
        if self.engine.observe is not None:
            self.engine.observe(self.run.id, event)

    def await_the_turn(self) -> None:
        """Sees to it that this turn has an end."""
        self.turning = True
        self.loop.call_soon(self._turn)

    def _turn(self) -> None:
        """The end of a turn of the loop: calls that are still under way have begun."""
        begun, self.begun = self.begun, {}
        try:
            for invoke in begun.values():
                if self.ending:
                    break
                if invoke.unit.phase is RUNNING and invoke.unit.attempt < invoke.call.attempt:
                    self.record(started(self, invoke))
            self.turning = False
            self.run.flush()
        except OrchestraError as error:
            self._break(error)
        if self.wanting and not self.ending:
            with self._guarded():
                if checks.allot(self):  # here, so that values that came in the same turn are held against each other
                    self._go_on()

    def stamp(self) -> dict[str, Any]:
        """What every fact carries: its number, and the time."""
        return {"seq": self.state.seq + 1, "at": self.clock.now()}

    # From proposals to facts

    def pump(self) -> None:
        """Carries out proposals until none is left, and sees to it that somebody does the calls."""
        state = self.state
        happened = True
        while happened:
            happened = False  # calls alone change nothing yet
            for proposal in decide(state):
                if type(proposal) is Invoke:
                    self.line.append(proposal)
                elif state.finished is None:
                    happened = True
                    if not moot(proposal):
                        self._carry_out(proposal)
        if not self.line and not self.tasks and not self.ending and not self.wanting:
            self._rest()

    def _carry_out(self, proposal: Proposal) -> None:
        match proposal:
            case Finish(unit, outcome, instead, given):
                keeping = kinds.plan_cache.keep(self.state, unit, outcome) if unit.writing is not None else None
                self.record(NodeFinished(**self.stamp(), node=unit.path, outcome=outcome, instead=instead, given=given))
                deadlines.unset(self, unit.path)
                if unit.writing is not None or self.state.gone is not None:
                    self._cancel_the_dead()
                if keeping is not None:
                    for key in keeping.keys:
                        self.journal.remember(key, self.run.id, keeping.stored)
            case Judge():
                if (reading := checks.examine(self, proposal)) is not None:
                    self._task(reading)
            case Pause(unit, attempt, low, high, reason):
                due = self.clock.now() + low + (high - low) * self.clock.random()
                self.record(RetryPlanned(**self.stamp(), node=unit.path, attempt=attempt, due=due, reason=reason))
                deadlines.alarm(self, unit)
            case Expand(unit, count):
                self.record(Expanded(**self.stamp(), node=unit.path, count=count))
            case Enter(unit, turn, drafted, because):
                self.record(TurnStarted(**self.stamp(), node=unit.path, turn=turn, drafted=drafted, because=because))
                if turn == 1 and unit.due:
                    deadlines.alarm(self, unit)
                deadlines.watch(self, unit.body)
                if drafted is not None:
                    self._cancel_the_dead()
            case Ask(unit):
                stamp = self.stamp()
                due = deadlines.until(proposal, stamp["at"])
                self.record(Asked(**stamp, node=unit.path, due=due, **ask.facts(proposal)))
                if unit.due:
                    deadlines.alarm(self, unit)
            case Count(unit, call, bound):
                self._task(self._count(unit, call, bound))
            case Recall(unit, keys):
                self._task(self._recall(unit, keys))
            case Conclude(status, outcome):
                self.conclude(status, outcome)
            case Invoke():
                self.line.append(proposal)
            case _:
                assert_never(proposal)

    def remember(self, answer: AttemptFinished) -> None:
        """Keeps an answer for the same call of other runs; how sure its worker was goes first, so that no answer stands without it."""
        if answer.confidence is not None:
            self.journal.remember(of_confidence(answer.memo), self.run.id, answer.confidence)
        self.journal.remember(answer.memo, self.run.id, answer.value)

    def conclude(self, status: str, outcome: Outcome) -> None:
        """The end of the run."""
        self.record(RunFinished(**self.stamp(), status=status, outcome=outcome, usage=self.state.tally.usage()))
        self._end(self._finish())

    # Tasks

    def _task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self.loop.create_task(work)
        self.tasks[task] = None
        task.add_done_callback(self.done)
        return task

    def done(self, task: asyncio.Task[None]) -> None:
        """A task of the run is over: what it brought about goes on, or breaks the run."""
        self.tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._break(error)
        elif not self.ending:
            self.staff()
            if not self.line and not self.tasks and not self.wanting:
                self._rest()

    def staff(self) -> None:
        """Sees to it that tasks are about to start for the calls in line: as many as are under way, two at least."""
        wanted = min(len(self.line) - self.head, max(2, len(self.tasks)))
        while self.starting < wanted:
            self.starting += 1
            self._task(self._work())

    async def _work(self) -> None:
        """Does calls from the line, one after the other, until none is left."""
        self.starting -= 1
        task = asyncio.current_task()
        assert task is not None, "a coroutine that runs has a task"
        left = BREATH
        while not self.ending and (invoke := self._next()) is not None:
            self.tasks[task] = invoke
            call = invoke.call
            certain = invoke.certain or self.engine.strict
            if certain or invoke.reserved >= 0 or call.tier or invoke.unit.tier or invoke.because:
                self.record(started(self, invoke))
                if certain:
                    self.run.flush()
                    await self.journal.durable(self.run.id, self.state.seq)
            else:
                if not self.turning:
                    self.await_the_turn()
                self.begun[call.node] = invoke
            memo = self.workers.measure(call).memo if self.memo else ""
            if memo and (known := await self.journal.recall(memo)) is not None:
                sure = await self.journal.recall(of_confidence(memo)) if invoke.call.kind == "agent" else None
                answer = recalled(self, invoke, memo, *known, sure[1] if sure is not None else None)
            else:
                began = self.clock.monotonic()
                live = self.run.live
                coming = streamed(self.workers, call, live) if self.do is None or live is not None else self.do(call)
                try:
                    reply = await (coming if call.timeout is None else self._timed(coming, call))
                except asyncio.CancelledError:
                    if _wanted():
                        raise
                    reply = cancelled_itself(call)
                if memo and self.workers.measure(call).memo != memo:
                    memo = ""  # something was replaced meanwhile, and nobody knows which of the two has answered
                answer = finished(self, invoke, reply, began, memo)
            self.tasks[task] = None
            self.begun.pop(call.node, None)
            if invoke.unit.phase is RUNNING and not self.ending:  # else its time was up meanwhile, and nobody wants to know
                self.record(answer)
                if answer.memo and answer.settled and not answer.recalled:
                    self.remember(answer)
                self.pump()
            left -= 1
            if not left:
                left = BREATH
                await asyncio.sleep(0)

    def _next(self) -> Invoke | None:
        """The next call in line; one whose time was up before its turn came is left out."""
        line = self.line
        while line:
            invoke = line[self.head]
            self.head += 1
            if self.head == len(line):
                line.clear()
                self.head = 0
            if invoke.unit.phase is RUNNING:
                if line and not self.starting:
                    self.staff()
                return invoke
        return None

    async def _timed(self, reply: Coroutine[Any, Any, Done | Refused], call: Call) -> Done | Refused:
        try:
            async with asyncio.timeout(call.timeout):
                return await reply
        except TimeoutError:
            hint = f"raise `timeout:` of {call.node}, or see what the server is doing: orchestra fleet status"
            return Refused(code=TIME_IS_UP, reason=f"no answer within {call.timeout:g} s", hint=hint, retryable=True)

    async def _count(self, unit: Unit, call: Call, bound: int) -> None:
        try:
            counted = await self.workers.count(call)
        except asyncio.CancelledError:
            if _wanted():
                raise
            counted = None
        if unit.phase is Phase.COUNTING and not self.ending:
            self.record(Measured(**self.stamp(), node=unit.path, prompt_tokens=bound if counted is None else counted))
            self.pump()

    async def _recall(self, unit: Unit, keys: Sequence[str]) -> None:
        """What the memo holds under these keys. A row that is damaged is told, and stops nobody."""
        found: list[tuple[str, Any]] = []
        for key in keys:
            try:
                known = await self.journal.recall(key)
            except OrchestraError as error:
                known = ("", f"{error.code}: {error.message}")
            found += [known] if known is not None else []
        if unit.phase is Phase.RECALLING and not self.ending:
            unit.known = tuple(found)
            self.state.enqueue(unit)
            self.pump()

    # Time

    def give_up(self, unit: Unit, failed: Failed) -> None:
        """The time of a unit is up: it has its end, and what is under way inside is cancelled."""
        self._carry_out(give_up(unit, failed))
        self._cancel_the_dead()

    def _cancel_the_dead(self) -> None:
        """Cancels the calls and the alarms of units that nobody waits for: their time was up, or their plan has gone another way."""
        for path in self.state.gone or ():
            deadlines.unset(self, path)
        self.state.gone = None
        for task, invoke in self.tasks.items():
            if invoke is not None and invoke.unit.phase is Phase.DONE:
                task.cancel()

    def begin(self, letters: Sequence[Letter] = (), up: float = 0.0) -> None:
        """Sets the clocks of what waits for a time, opens the letters that lie there, and starts what may start. An alarm for the time `up`
        has rung, whatever the wall's clock says."""
        with self._guarded():
            self._begin(letters, up)

    @contextmanager
    def _guarded(self) -> Iterator[None]:
        """Whatever goes wrong outside of the run's tasks ends the run here, so that nobody waits for it for ever."""
        try:
            yield
        except BaseException as error:
            self.stop(error)
            raise

    def _begin(self, letters: Sequence[Letter], up: float) -> None:
        now = self.clock.now()
        deadlines.watch(self, self.state.root)
        for unit in list(self.state.units.values()):
            if unit.phase is Phase.INSIDE:
                deadlines.watch(self, unit.body)
            if unit.due and (unit.phase in (Phase.PAUSED, Phase.INSIDE, Phase.EMERGED, Phase.ASKED) or timed(unit)):
                most = 0.0 if unit.due <= up else deadlines.planned(unit)  # the wall's clock may have been set back since
                deadlines.alarm(self, unit, most, late=unit.due <= max(up, now))
        for letter in letters:
            self._open(letter)
        if self.state.cancelled and not self.ending:
            self._cancelled()  # whoever had the run was cut off between the two facts
        self._go_on()

    def _go_on(self) -> None:
        if not self.ending:
            self.pump()
            self.staff()

    # Letters

    def cancel(self, by: str = "", letter: int = 0) -> None:
        """Ends the run: its calls are cancelled up to the servers."""
        if not self.ending:
            self.record(CancelRequested(**self.stamp(), by=by, letter=letter))
            self._cancelled()
        elif self.state.finished is None:
            self.engine.cancel(self.run.id, by)  # it is going to sleep: a letter wakes it

    def _cancelled(self) -> None:
        by = self.state.cancelled_by
        self.conclude("cancelled", Failed("E008", f"cancelled{f' by {by}' if by else ''}", hint=f"orchestra runs show {self.run.id}"))

    def _open(self, letter: Letter) -> None:
        """Does what a letter of the inbox wants; one that changes nothing is noted as well, so that each is opened once."""
        if self.ending or letter.number <= self.state.letters:
            return
        if letter.kind == "cancel":
            self.cancel(letter.by, letter.number)
            return
        asked = self.state.asked.get(letter.node)
        refusal = NOBODY_ASKS if asked is None else self.engine.objection(asked, letter)
        if refusal:
            self.record(LetterRefused(**self.stamp(), letter=letter.number, node=letter.node, reason=refusal))
        else:
            value, number, why = None if letter.declined else letter.value, letter.number, letter.declined
            said: dict[str, Any] = {"value": value, "by": letter.by, "letter": number, "declined": why, "gave": letter.gave}
            self.record(Answered(**self.stamp(), node=letter.node, **said))

    async def collect(self) -> None:
        """Opens the letters that have come."""
        letters = await self.journal.letters(self.run.id, self.state.letters)
        with self._guarded():
            for letter in letters:
                self._open(letter)
            self._go_on()

    # The end

    def _rest(self) -> None:
        """Nothing is under way: the run waits for persons; else it could never end, which would be a fault of the engine."""
        state = self.state
        if state.finished is not None or state.cancelled or self.dozing is not None:
            return
        if state.idle:
            if deadlines.far(self):
                self._end(self._sleep())
        else:
            self._break(contradiction(f"run {self.run.id} stands still"))

    def _break(self, error: BaseException) -> None:
        """The engine or the journal failed: the run ends here, and can be resumed."""
        if not self.ending or self.state.finished is None:
            self._end(self._broken(error))

    def _end(self, last: Coroutine[Any, Any, None]) -> None:
        self.ending = True
        for task in (*self.tasks, *deadlines.clocks(self)):
            task.cancel()
        self.engine.finish(self, last)

    def stop(self, error: BaseException) -> None:
        """Lets go of the run as it stands: what has happened is kept, what is under way is cancelled."""
        if not self.ending:
            self._end(self._broken(error))

    async def quiet(self) -> None:
        """Waits until no task of the run is left."""
        left = {*self.tasks, *deadlines.clocks(self)}
        while left := {task for task in left if not task.done()}:
            await asyncio.wait(left)

    async def _finish(self) -> None:
        await self.quiet()
        self.run.flush()
        await self.journal.durable(self.run.id, self.state.seq)
        last = self.run.log[-1]
        self.run.end(last if isinstance(last, RunFinished) else self.state.finished)

    async def _sleep(self) -> None:
        await self.quiet()
        self.run.flush()
        await self.journal.release(self.run.id)

    async def _broken(self, error: BaseException) -> None:
        """What has happened is kept, and the lease is given back, as far as the journal still can."""
        await self.quiet()
        with suppress(OrchestraError):
            self.run.flush()
        with suppress(OrchestraError):
            await self.journal.release(self.run.id)
        self.run.end(None, error)


def _wanted() -> bool:
    """Whether somebody asked for the cancellation that this task meets; else a worker let one of its own out."""
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0
