"""What if: a recorded run gone through again with something otherwise, in memory: only what changed is asked, and no effect is repeated.

Answers that the run recorded are recalled wherever the very same call is made, those of tools with effects too. A call that the run did
not make goes out where nothing can come of it but its answer: agents, and pure tools. A tool with effects is never called: where its
inputs have changed the run stops. A person is never asked: what was answered stands as long as the question does.

Budgets hold: a recalled call takes of them what it took then. Time is not told again, for a recalled call takes none.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, Literal, TypeAlias

from orchestra.agents.card import Card
from orchestra.agents.contract import Contract
from orchestra.app.code_changes import Code, code_since
from orchestra.app.inputs import bound
from orchestra.app.project import Project
from orchestra.app.reuse import Difference, changes, question_of
from orchestra.app.snapshot_store import accepted_by, as_told, called, restored
from orchestra.app.whatif_certificates import Covered, Uncovered, covered
from orchestra.app.workers import Troupe
from orchestra.core.error_codes import REPEATED
from orchestra.core.errors import InputError
from orchestra.core.events import NOTHING, Answered, Asked, AttemptFinished, Event, Resumed, RunFinished, RunStarted, Usage
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value
from orchestra.core.paths import first_name, parent
from orchestra.core.protocols import Call, Direct, Done, Letter, Measure, Refused, Reply, Workers
from orchestra.engine.call_results import streamed
from orchestra.engine.engine import Engine
from orchestra.engine.replay import Replayed, replay
from orchestra.engine.run import Run
from orchestra.journal.history import History
from orchestra.journal.memory import MemoryJournal
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import Program
from orchestra.workflows.python.steps import Step

ASKED = "?"
"""In the paths of what checks ask about a node: the node itself says what came of it."""
STILL = 8
"""Turns of the loop without another call, after which what an answer leads to has been asked for."""
TURN, PATIENCE = 0.01, 10.0
"""Seconds between looks at a run that was just answered, and until it is taken for one that cannot be."""

Verdict: TypeAlias = Literal["same", "changed", "withheld", "answered", "failed", "stopped", "refused"]
"""What becomes of a run's answer: it is the same or another one; it is not there any more, because it was withheld or because something
failed; it is there now and was not; the run stops before; or its workflow would not be run at all, for nothing certifies who is asked."""


@dataclass(frozen=True, slots=True)
class Stop:
    """A node at which a run stops: what would be done there must not be done again."""

    node: str
    name: str
    """The tool, or `a person`."""
    inputs: Any
    """What it would be called with, or the question."""


@dataclass(frozen=True, slots=True)
class Side:
    """What a run came to, or would."""

    status: str
    outcome: Outcome | None
    usage: Usage
    """Of all its calls, recalled ones at what they cost then."""
    judged: int
    """Nodes whose value checks judged."""
    accepted: int


@dataclass(frozen=True, slots=True)
class Rehearsal:
    """A run as it was, and as it would be."""

    run: str
    workflow: str
    before: Side
    after: Side
    changed: tuple[Difference, ...]
    stops: tuple[Stop, ...]
    recalled: int
    """Calls that were answered from the record."""
    anew: int
    """Calls that went out."""
    spent: Usage
    """By those."""
    lost: str = ""
    """Why today's engine does not follow the record to its end; calls that come behind are made anew."""
    late: tuple[str, ...] = ()
    """Nodes whose time was up then, and an empty path for the run itself. Recalled calls take no time: these may come to something else
    though nothing is otherwise."""
    altered: tuple[str, ...] = ()
    """Pure tools whose code is another now: they are called anew."""
    unsure: tuple[str, ...] = ()
    """Pure tools of which the run does not say how they were written: their answers are recalled."""
    uncovered: tuple[Uncovered, ...] = ()
    """Nodes whose certificate, or combination, is not about who is asked: with that agent the workflow would be refused. They were judged
    by the threshold that the run had, which promises nothing of their values, and none of these counts as accepted."""

    @property
    def verdict(self) -> Verdict:
        """What becomes of its answer."""
        if self.uncovered:
            return "refused"
        if self.stops:
            return "stopped"
        before, after = self.before.outcome, self.after.outcome
        if same(before, after):
            return "same"
        if isinstance(after, Value):
            return "changed" if isinstance(before, Value) else "answered"
        return "failed" if isinstance(after, Failed) or after is None else "withheld"


def same(one: Outcome | None, other: Outcome | None) -> bool:
    """Whether two outcomes are the same to whoever uses them: the same value, however sure; withheld twice; a failure of one kind."""
    match one, other:
        case Value(), Value():
            return bool(one.value == other.value)
        case Failed(), Failed():
            return one.code == other.code
        case (Abstained(), Abstained()) | (Skipped(), Skipped()):
            return True
        case _:
            return one is other


@dataclass(slots=True)
class _Record:
    """What a run answered to one and the same call of a node; its attempts, the errors among them too."""

    answer: AttemptFinished
    usage: Usage = NOTHING


@dataclass(slots=True)
class _Queue:
    """Recalled answers that are waited for: they go out one after the other, as they came then, so that who was first is first again."""

    waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    come: int = 0
    task: asyncio.Task[None] | None = None

    async def turn(self, seq: int) -> None:
        """Waits until no answer is waited for that came before the one with this number."""
        loop = asyncio.get_running_loop()
        free: asyncio.Future[None] = loop.create_future()
        self.come += 1
        heapq.heappush(self.waiting, (seq, self.come, free))
        if self.task is None or self.task.done():
            self.task = loop.create_task(self._serve())
        await free

    async def _serve(self) -> None:
        while self.waiting:
            come, still = self.come, 0
            while still < STILL:  # whatever follows from the last answer may ask for one that came sooner
                await asyncio.sleep(0)
                come, still = self.come, still + 1 if come == self.come else 0
            _, _, free = heapq.heappop(self.waiting)
            if not free.done():  # else nobody waits for it any longer
                free.set_result(None)


@dataclass(slots=True)
class Sealed:
    """Workers behind which nothing has effects: they answer from a record, and let through what can do no harm."""

    inner: Workers
    records: Mapping[bytes, Mapping[str, _Record]]
    """By what makes a call the same, and by node: the same question asked twice may have had two answers."""
    harmless: frozenset[tuple[str, str]]
    """Kind and name of whatever may be called."""
    counts: Mapping[bytes, int] = field(default_factory=dict)
    """Tokens of prompts, as servers counted them."""
    recalled: dict[tuple[str, int], Usage] = field(default_factory=dict)
    """By node and attempt: what an answer cost then."""
    anew: set[tuple[str, int]] = field(default_factory=set)
    stops: dict[str, Stop] = field(default_factory=dict)
    queue: _Queue = field(default_factory=_Queue)

    @classmethod
    def of(cls, inner: Workers, program: Program, found: Replayed, asked: Iterable[str], altered: Iterable[str] = ()) -> Sealed:
        """Of a replayed run. The agents in `asked` and the tools in `altered` are asked anew, whatever they answered before."""
        records: dict[bytes, dict[str, _Record]] = {}
        unknown = {("agent", name) for name in asked} | {("tool", name) for name in altered}
        for call, finished in found.calls.values():
            if finished is None or (call.kind, call.name) in unknown:
                continue
            record = records.setdefault(_identity(call), {}).setdefault(call.node, _Record(finished))
            record.usage += finished.usage
            if record.answer.error:
                record.answer = finished
        pure = ((one.kind, one.name) for one in called(program) if one.kind == "agent" or one.effect == "pure")
        return cls(inner, records, frozenset(pure), {_identity(call): tokens for call, tokens in found.counts})

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Answers a call, or passes it on."""
        if (known := await self._known(call)) is not None:
            yield known
            return
        async with aclosing(self.inner.run(call)) as replies:
            async for reply in replies:
                yield reply

    async def do(self, call: Call) -> Done | Refused:
        """The same without chunks."""
        if (known := await self._known(call)) is not None:
            return known
        return await (self.inner.do(call) if isinstance(self.inner, Direct) else streamed(self.inner, call))

    async def _known(self, call: Call) -> Done | Refused | None:
        if (known := self.records.get(_identity(call))) is not None:
            record = known.get(call.node) or next(iter(known.values()))
            self.recalled[call.node, call.attempt] = record.usage
            then = record.answer
            await self.queue.turn(then.seq)
            server, model, usage = then.server, then.model, record.usage
            if then.error:  # once more would be the same again: nobody waits for it
                return Refused(code=then.error, reason=then.reason, hint=then.hint, server=server, model=model, usage=usage)
            said = {"value": then.value, "confidence": then.confidence, "recalled": then.recalled, "given": then.given}
            return Done(**said, server=server, model=model, usage=usage)
        if (call.kind, call.name) in self.harmless:
            self.anew.add((call.node, call.attempt))
            return None
        self.stops[call.node] = Stop(call.node, call.name, call.inputs)
        return Refused(code=REPEATED, reason=f"{call.name} has effects, and the run did not call it with these inputs")

    def measure(self, call: Call) -> Measure:
        """What a call may cost, whether it goes out or not: budgets are to have room for the same calls as then."""
        return self.inner.measure(call)

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt, from the record where a server has counted them."""
        known = self.counts.get(_identity(call))
        return await self.inner.count(call) if known is None else known


def _identity(call: Call) -> bytes:
    """What makes two calls the same: what they ask. Not how long the output may be, which is what a budget has left; nor the label, which
    says where a call may go: to answer it from the record, nothing goes anywhere."""
    return canonical(question_of(call))


async def whatif(
    project: Project,
    engine: Engine,
    troupe: Troupe | None,
    events: Sequence[Event],
    instead: Mapping[str, Card | Contract] | None,
    *,
    named: str = "",
    label: Label = "public",
) -> Rehearsal:
    """Goes through a run of these events again, with other agents, or without any with everything as it is today: `named` says which file
    the workflow is, where its name does not. Its data is labelled as the run and its workflow say, and at least with `label`.

    Raises `InputError` E025 for a run that has not ended, and what compiling it anew raises.
    """
    first = events[0]
    if not isinstance(first, RunStarted) or not isinstance(events[-1], RunFinished):
        run = first.run if isinstance(first, RunStarted) else ""
        raise InputError("E025", f"run {run} has not ended", hint=f"orchestra runs show {run}")
    old = await restored(project, engine.journal, first, asking=False)
    given: Mapping[str, Any] = first.inputs
    code, rests = Code((), ()), Covered()
    if instead is not None:
        rests = covered(project, old, instead)
        program = await restored(project, engine.journal, first, instead=project.instead(instead), held=rests.held)
        asks = any(isinstance(one, Card) and one.asks_model for one in instead.values())
    else:
        program = as_told(project.program(_today(project, first, named), accepted_by(first)), first)
        given = bound(program, (), {name: value for name, value in given.items() if name in program.inputs})
        code = await code_since(project, engine.journal, first, old)
        asks = bool(changes(old, program)) or bool(code.changed)
    if troupe is not None and asks:
        await troupe.prepare(program)
    found = await rehearse(engine, Recorded(old, first, events), program, given, instead or (), code.changed, label=label)
    after = replace(found.after, accepted=0) if rests.wanting else found.after
    return replace(found, after=after, altered=code.changed, unsure=code.unknown, uncovered=rests.wanting)


def _today(project: Project, first: RunStarted, named: str) -> Step[..., Any]:
    """What a run's workflow is today. Raises `InputError` C004 where its name does not say, or `named` is another workflow."""
    hint = f"name its file: orchestra whatif {first.run} --workflow FILE"
    try:
        step = project.find(named or first.workflow)
    except InputError as error:
        if named or error.code != "C004":
            raise
        raise InputError("C004", f"run {first.run} ran {first.workflow!r}, which is no workflow of this project", hint=hint) from error
    if step.name != first.workflow:
        raise InputError("C004", f"run {first.run} ran {first.workflow!r}, and {named} is the workflow {step.name!r}", hint=hint)
    return step


@dataclass(frozen=True, slots=True)
class Recorded:
    """A run as it was: its program, its inputs and all of its events."""

    program: Program
    first: RunStarted
    events: Sequence[Event]

    @property
    def seconds(self) -> float:
        """How long it was under way: what passed before it was resumed does not count."""
        return sum(max(0.0, two.at - one.at) for one, two in pairwise(self.events) if not isinstance(two, Resumed))


async def rehearse(
    engine: Engine,
    recorded: Recorded,
    program: Program,
    given: Mapping[str, Any],
    asked: Iterable[str],
    altered: Iterable[str] = (),
    *,
    label: Label = "public",
) -> Rehearsal:
    """Goes through a run again, with another program; the agents in `asked` are asked anew, and the pure tools in `altered` called anew.
    Nothing of it reaches the engine's journal.

    Its label is the strictest of the run's, the program's, and `label`: what goes out is data of all three."""
    first, found = recorded.first, replay(recorded.program, recorded.events)
    sealed = Sealed.of(engine.workers, program, found, asked, altered)
    stage = Engine(engine.clock, MemoryJournal(), sealed, concurrency=engine.concurrency)
    names = {node.name for node in program.nodes}
    values = {path: one for path, one in (first.given or {}).items() if first_name(path) in names}
    strictest = join((first.label, program.label, label))
    try:
        run = stage.start(program, given, graph=first.graph, label=strictest, versions=first.versions, tiers=first.tiers, values=values)
        stops = await _answered(stage, run, recorded.events)
        await run.wait()
        events = list(await run.history())
    finally:
        await stage.close()
    stops += sealed.stops.values()
    spent = _spent(events, sealed.anew)
    before, after = History.of(recorded.events), History.of(events)
    return Rehearsal(
        run=first.run,
        workflow=first.workflow,
        before=_side(before, before.usage),
        after=_side(after, sum(sealed.recalled.values(), spent)),
        changed=tuple(_changed(before, after, stops)),
        stops=tuple(stops),
        recalled=len(sealed.recalled),
        anew=len(sealed.anew),
        spent=spent,
        lost=found.reason if found.different is not None else "",
        late=tuple(dict.fromkeys((*found.late, *([""] if _overdue(recorded) else [])))),
    )


def _overdue(recorded: Recorded) -> bool:
    """Whether a run had no more time."""
    budget = recorded.program.budget
    return budget is not None and budget.seconds is not None and recorded.seconds >= budget.seconds


async def _answered(stage: Engine, run: Run, recorded: Sequence[Event]) -> list[Stop]:
    """Answers what persons were asked as they did then, until the run ends or asks something else; gives the questions of which
    nobody knows the answer."""
    questions: dict[str, Asked] = {}
    known: dict[tuple[str, str], Answered] = {}
    for event in recorded:
        if isinstance(event, Asked):
            questions[event.node] = event
        elif isinstance(event, Answered) and questions[event.node].about != "effect":
            known[questions[event.node].shown, event.node] = event
    posted: set[tuple[str, str]] = set()
    patience = PATIENCE
    while await run.pause() is None:
        fresh = [one for one in run.asked if (one.shown, one.node) not in posted]
        told = [(one, known[one.shown, one.node]) for one in fresh if (one.shown, one.node) in known]
        for one, answer in told:
            posted.add((one.shown, one.node))
            at, value, declined, by = stage.clock.now(), answer.value, answer.declined, answer.by
            letter = Letter(kind="answer", node=one.node, at=at, value=value, declined=declined, by=by, shown=one.shown)
            await stage.journal.post(run.id, letter)
        patience = PATIENCE if told else patience - TURN
        if (fresh and not told) or patience < 0:
            open_ = fresh or run.asked
            run.cancel("whatif")
            return [Stop(one.node, "a person", one.question) for one in open_]
        await stage.clock.sleep(TURN)
    return []


def _spent(events: Sequence[Event], anew: set[tuple[str, int]]) -> Usage:
    calls = (event for event in events if isinstance(event, AttemptFinished) and (event.node, event.attempt) in anew)
    return sum((event.usage for event in calls), NOTHING)


def _side(history: History, usage: Usage) -> Side:
    verdicts = [row.attempts[-1].accepted for row in history.rows if row.attempts and row.attempts[-1].accepted is not None]
    return Side(history.status, history.outcome, usage, len(verdicts), sum(verdicts))


def _changed(before: History, after: History, stops: Sequence[Stop]) -> list[Difference]:
    """The nodes that come to something else, the innermost alone, in the order of the run as it would be. Of a run that stops, only
    what it came to before: what lacks a value there tells nothing."""
    rows = {row.path: row.outcome for row in before.rows}
    found: dict[str, Difference] = {}
    for row in after.rows:
        was = rows.pop(row.path, None)
        if ASKED in row.path:
            continue
        if not same(was, row.outcome) and not (stops and not isinstance(row.outcome, Value)):
            found[row.path] = Difference(row.path, was, row.outcome)
    if not stops:
        gone = {path: outcome for path, outcome in rows.items() if outcome is not None and ASKED not in path}
        found |= {path: Difference(path, outcome, None) for path, outcome in gone.items()}
    outer: set[str] = set()
    for path in found:
        while path := parent(path):
            outer.add(path)
    return [change for path, change in found.items() if path not in outer]
