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
from orchestra.app.code_changes import CodeChanges, compare_code
from orchestra.app.inputs import bind_arguments
from orchestra.app.project import Project
from orchestra.app.reuse import NodeDifference, call_question, program_changes
from orchestra.app.snapshot_store import apply_run_options, called_contracts, restore_program, stored_accept
from orchestra.app.whatif_certificates import CertificateCoverage, UncertifiedNode, certificate_coverage
from orchestra.app.workers import ProjectWorkers
from orchestra.core.error_codes import ALREADY_CALLED
from orchestra.core.errors import InputError
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    Event,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    RunResumed,
    RunStarted,
    Usage,
)
from orchestra.core.labels import Label, join
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.core.paths import parent, root_name
from orchestra.core.protocols import (
    CallError,
    CallEstimate,
    CallReply,
    CallRequest,
    CallResult,
    InboxMessage,
    UnaryWorkers,
    Workers,
)
from orchestra.engine.call_results import call_streaming
from orchestra.engine.engine import Engine
from orchestra.engine.replay import ReplayResult, replay
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.history import History
from orchestra.journal.memory import MemoryJournal
from orchestra.schema.strict_json import canonical
from orchestra.workflows.program import Program
from orchestra.workflows.python.steps import Step

CHECK_MARKER = "?"
"""In the paths of what checks ask about a node: the node itself says what came of it."""
QUIET_TURNS = 8
"""Turns of the loop without another call, after which what an answer leads to has been asked for."""
POLL_INTERVAL, ANSWER_TIMEOUT = 0.01, 10.0
"""Seconds between looks at a run that was just answered, and until it is taken for one that cannot be."""

WhatifVerdict: TypeAlias = Literal["same", "changed", "withheld", "answered", "failed", "stopped", "refused"]
"""What becomes of a run's answer: it is the same or another one; it is not there any more, because it was withheld or because something
failed; it is there now and was not; the run stops before; or its workflow would not be run at all, for nothing certifies who is asked."""


@dataclass(frozen=True, slots=True)
class StoppedNode:
    """A node at which a run stops: what would be done there must not be done again."""

    node: str
    name: str
    """The tool, or `a person`."""
    inputs: Any
    """What it would be called with, or the question."""


@dataclass(frozen=True, slots=True)
class WhatifRun:
    """What a run came to, or would."""

    status: str
    outcome: Outcome | None
    usage: Usage
    """Of all its calls, recalled ones at what they cost then."""
    judged_nodes: int
    """Nodes whose value checks judged."""
    accepted_nodes: int


@dataclass(frozen=True, slots=True)
class WhatifResult:
    """A run as it was, and as it would be."""

    run: str
    workflow: str
    before: WhatifRun
    after: WhatifRun
    differences: tuple[NodeDifference, ...]
    stops: tuple[StoppedNode, ...]
    recalled_calls: int
    """Calls that were answered from the record."""
    new_calls: int
    """Calls that went out."""
    new_usage: Usage
    """By those."""
    replay_gap: str = ""
    """Why today's engine does not follow the record to its end; calls that come behind are made anew."""
    timed_out: tuple[str, ...] = ()
    """Nodes whose time was up then, and an empty path for the run itself. Recalled calls take no time: these may come to something else
    though nothing is otherwise."""
    changed_tools: tuple[str, ...] = ()
    """Pure tools whose code is another now: they are called anew."""
    unknown_tools: tuple[str, ...] = ()
    """Pure tools of which the run does not say how they were written: their answers are recalled."""
    uncertified: tuple[UncertifiedNode, ...] = ()
    """Nodes whose certificate, or combination, is not about who is asked: with that agent the workflow would be refused. They were judged
    by the threshold that the run had, which promises nothing of their values, and none of these counts as accepted."""

    @property
    def verdict(self) -> WhatifVerdict:
        """What becomes of its answer."""
        if self.uncertified:
            return "refused"
        if self.stops:
            return "stopped"
        before, after = self.before.outcome, self.after.outcome
        if is_same_outcome(before, after):
            return "same"
        if isinstance(after, ValueOutcome):
            return "changed" if isinstance(before, ValueOutcome) else "answered"
        return "failed" if isinstance(after, FailedOutcome) or after is None else "withheld"


def is_same_outcome(one: Outcome | None, other: Outcome | None) -> bool:
    """Whether two outcomes are the same to whoever uses them: the same value, however sure; withheld twice; a failure of one kind."""
    match one, other:
        case ValueOutcome(), ValueOutcome():
            return bool(one.value == other.value)
        case FailedOutcome(), FailedOutcome():
            return one.code == other.code
        case (AbstainedOutcome(), AbstainedOutcome()) | (SkippedOutcome(), SkippedOutcome()):
            return True
        case _:
            return one is other


@dataclass(slots=True)
class _RecordedAnswer:
    """What a run answered to one and the same call of a node; its attempts, the errors among them too."""

    answer: AttemptFinished
    usage: Usage = NO_USAGE


@dataclass(slots=True)
class _ReplayQueue:
    """Recalled answers that are waited for: they go out one after the other, as they came then, so that who was first is first again."""

    waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    arrivals: int = 0
    task: asyncio.Task[None] | None = None

    async def wait_turn(self, seq: int) -> None:
        """Waits until no answer is waited for that came before the one with this number."""
        loop = asyncio.get_running_loop()
        free: asyncio.Future[None] = loop.create_future()
        self.arrivals += 1
        heapq.heappush(self.waiting, (seq, self.arrivals, free))
        if self.task is None or self.task.done():
            self.task = loop.create_task(self._serve())
        await free

    async def _serve(self) -> None:
        while self.waiting:
            come, still = self.arrivals, 0
            while still < QUIET_TURNS:  # whatever follows from the last answer may ask for one that came sooner
                await asyncio.sleep(0)
                come, still = self.arrivals, still + 1 if come == self.arrivals else 0
            _, _, free = heapq.heappop(self.waiting)
            if not free.done():  # else nobody waits for it any longer
                free.set_result(None)


@dataclass(slots=True)
class RecordedWorkers:
    """Workers behind which nothing has effects: they answer from a record, and let through what can do no harm."""

    inner: Workers
    records: Mapping[bytes, Mapping[str, _RecordedAnswer]]
    """By what makes a call the same, and by node: the same question asked twice may have had two answers."""
    allowed_calls: frozenset[tuple[str, str]]
    """Kind and name of whatever may be called."""
    token_counts: Mapping[bytes, int] = field(default_factory=dict)
    """Tokens of prompts, as servers counted them."""
    recalled: dict[tuple[str, int], Usage] = field(default_factory=dict)
    """By node and attempt: what an answer cost then."""
    new_calls: set[tuple[str, int]] = field(default_factory=set)
    stops: dict[str, StoppedNode] = field(default_factory=dict)
    queue: _ReplayQueue = field(default_factory=_ReplayQueue)

    @classmethod
    def of(
        cls, inner: Workers, program: Program, found: ReplayResult, asked: Iterable[str], altered: Iterable[str] = ()
    ) -> RecordedWorkers:
        """Of a replayed run. The agents in `asked` and the tools in `altered` are asked anew, whatever they answered before."""
        records: dict[bytes, dict[str, _RecordedAnswer]] = {}
        unknown = {("agent", name) for name in asked} | {("tool", name) for name in altered}
        for call, finished in found.calls.values():
            if finished is None or (call.kind, call.name) in unknown:
                continue
            record = records.setdefault(_call_key(call), {}).setdefault(call.node, _RecordedAnswer(finished))
            record.usage += finished.usage
            if record.answer.error:
                record.answer = finished
        pure = (
            (one.kind, one.name) for one in called_contracts(program) if one.kind == "agent" or one.effect == "pure"
        )
        return cls(inner, records, frozenset(pure), {_call_key(call): tokens for call, tokens in found.token_counts})

    async def run(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        """Answers a call, or passes it on."""
        if (known := await self._recall(call)) is not None:
            yield known
            return
        async with aclosing(self.inner.run(call)) as replies:
            async for reply in replies:
                yield reply

    async def call(self, call: CallRequest) -> CallResult | CallError:
        """The same without chunks."""
        if (known := await self._recall(call)) is not None:
            return known
        return await (
            self.inner.call(call) if isinstance(self.inner, UnaryWorkers) else call_streaming(self.inner, call)
        )

    async def _recall(self, call: CallRequest) -> CallResult | CallError | None:
        if (known := self.records.get(_call_key(call))) is not None:
            record = known.get(call.node) or next(iter(known.values()))
            self.recalled[call.node, call.attempt] = record.usage
            then = record.answer
            await self.queue.wait_turn(then.seq)
            server, model, usage = then.server, then.model, record.usage
            if then.error:  # once more would be the same again: nobody waits for it
                return CallError(
                    code=then.error, reason=then.reason, hint=then.hint, server=server, model=model, usage=usage
                )
            said = {
                "value": then.value,
                "confidence": then.confidence,
                "reused_from": then.reused_from,
                "overridden_by": then.overridden_by,
            }
            return CallResult(**said, server=server, model=model, usage=usage)
        if (call.kind, call.name) in self.allowed_calls:
            self.new_calls.add((call.node, call.attempt))
            return None
        self.stops[call.node] = StoppedNode(call.node, call.name, call.inputs)
        return CallError(
            code=ALREADY_CALLED, reason=f"{call.name} has effects, and the run did not call it with these inputs"
        )

    def estimate(self, call: CallRequest) -> CallEstimate:
        """What a call may cost, whether it goes out or not: budgets are to have room for the same calls as then."""
        return self.inner.estimate(call)

    async def count_tokens(self, call: CallRequest) -> int | None:
        """The tokens of a call's prompt, from the record where a server has counted them."""
        known = self.token_counts.get(_call_key(call))
        return await self.inner.count_tokens(call) if known is None else known


def _call_key(call: CallRequest) -> bytes:
    """What makes two calls the same: what they ask. Not how long the output may be, which is what a budget has left; nor the label, which
    says where a call may go: to answer it from the record, nothing goes anywhere."""
    return canonical(call_question(call))


async def whatif(
    project: Project,
    engine: Engine,
    workers: ProjectWorkers | None,
    events: Sequence[Event],
    replacements: Mapping[str, Card | Contract] | None,
    *,
    workflow: str = "",
    label: Label = "public",
) -> WhatifResult:
    """Goes through a run of these events again, with other agents, or without any with everything as it is today: `named` says which file
    the workflow is, where its name does not. Its data is labelled as the run and its workflow say, and at least with `label`.

    Raises `InputError` E025 for a run that has not ended, and what compiling it anew raises.
    """
    first = events[0]
    if not isinstance(first, RunStarted) or not isinstance(events[-1], RunFinished):
        run = first.run if isinstance(first, RunStarted) else ""
        raise InputError("E025", f"run {run} has not ended", hint=f"orchestra runs show {run}")
    old = await restore_program(project, engine.journal, first, will_call=False)
    given: Mapping[str, Any] = first.inputs
    code, rests = CodeChanges((), ()), CertificateCoverage()
    if replacements is not None:
        rests = certificate_coverage(project, old, replacements)
        program = await restore_program(
            project,
            engine.journal,
            first,
            replacements=project.replacement_contracts(replacements),
            held=rests.certificates,
        )
        asks = any(isinstance(one, Card) and one.uses_model for one in replacements.values())
    else:
        program = apply_run_options(
            project.program(_current_step(project, first, workflow), stored_accept(first)), first
        )
        given = bind_arguments(program, (), {name: value for name, value in given.items() if name in program.inputs})
        code = await compare_code(project, engine.journal, first, old)
        asks = bool(program_changes(old, program)) or bool(code.changed)
    if workers is not None and asks:
        await workers.prepare(program)
    found = await simulate_run(
        engine, RecordedRun(old, first, events), program, given, replacements or (), code.changed, label=label
    )
    after = replace(found.after, accepted_nodes=0) if rests.uncertified else found.after
    return replace(
        found, after=after, changed_tools=code.changed, unknown_tools=code.unknown, uncertified=rests.uncertified
    )


def _current_step(project: Project, first: RunStarted, named: str) -> Step[..., Any]:
    """What a run's workflow is today. Raises `InputError` C004 where its name does not say, or `named` is another workflow."""
    hint = f"name its file: orchestra whatif {first.run} --workflow FILE"
    try:
        step = project.find(named or first.workflow)
    except InputError as error:
        if named or error.code != "C004":
            raise
        raise InputError(
            "C004", f"run {first.run} ran {first.workflow!r}, which is no workflow of this project", hint=hint
        ) from error
    if step.name != first.workflow:
        raise InputError(
            "C004", f"run {first.run} ran {first.workflow!r}, and {named} is the workflow {step.name!r}", hint=hint
        )
    return step


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A run as it was: its program, its inputs and all of its events."""

    program: Program
    started: RunStarted
    events: Sequence[Event]

    @property
    def active_seconds(self) -> float:
        """How long it was under way: what passed before it was resumed does not count."""
        return sum(max(0.0, two.at - one.at) for one, two in pairwise(self.events) if not isinstance(two, RunResumed))


async def simulate_run(
    engine: Engine,
    recorded: RecordedRun,
    program: Program,
    inputs: Mapping[str, Any],
    asked: Iterable[str],
    altered: Iterable[str] = (),
    *,
    label: Label = "public",
) -> WhatifResult:
    """Goes through a run again, with another program; the agents in `asked` are asked anew, and the pure tools in `altered` called anew.
    Nothing of it reaches the engine's journal.

    Its label is the strictest of the run's, the program's, and `label`: what goes out is data of all three."""
    first, found = recorded.started, replay(recorded.program, recorded.events)
    sealed = RecordedWorkers.of(engine.workers, program, found, asked, altered)
    stage = Engine(engine.clock, MemoryJournal(), sealed, concurrency=engine.concurrency)
    names = {node.name for node in program.nodes}
    values = {path: one for path, one in (first.overrides or {}).items() if root_name(path) in names}
    strictest = join((first.label, program.label, label))
    try:
        request = RunRequest(
            inputs=inputs,
            graph=first.graph,
            label=strictest,
            versions=first.versions,
            tiers=first.tiers,
            overrides=values,
        )
        run = stage.start(program, request)
        stops = await _replay_answers(stage, run, recorded.events)
        await run.wait()
        events = list(await run.history())
    finally:
        await stage.close()
    stops += sealed.stops.values()
    spent = _usage_of(events, sealed.new_calls)
    before, after = History.of(recorded.events), History.of(events)
    return WhatifResult(
        run=first.run,
        workflow=first.workflow,
        before=_summarize(before, before.usage),
        after=_summarize(after, sum(sealed.recalled.values(), spent)),
        differences=tuple(_differences(before, after, stops)),
        stops=tuple(stops),
        recalled_calls=len(sealed.recalled),
        new_calls=len(sealed.new_calls),
        new_usage=spent,
        replay_gap=found.reason if found.first_difference is not None else "",
        timed_out=tuple(dict.fromkeys((*found.timed_out, *([""] if _is_out_of_time(recorded) else [])))),
    )


def _is_out_of_time(recorded: RecordedRun) -> bool:
    """Whether a run had no more time."""
    budget = recorded.program.budget
    return budget is not None and budget.seconds is not None and recorded.active_seconds >= budget.seconds


async def _replay_answers(stage: Engine, run: Execution, recorded: Sequence[Event]) -> list[StoppedNode]:
    """Answers what persons were asked as they did then, until the run ends or asks something else; gives the questions of which
    nobody knows the answer."""
    questions: dict[str, QuestionAsked] = {}
    known: dict[tuple[str, str], QuestionAnswered] = {}
    for event in recorded:
        if isinstance(event, QuestionAsked):
            questions[event.node] = event
        elif isinstance(event, QuestionAnswered) and questions[event.node].kind != "effect":
            known[questions[event.node].question_digest, event.node] = event
    posted: set[tuple[str, str]] = set()
    patience = ANSWER_TIMEOUT
    while await run.wait_until_blocked() is None:
        fresh = [one for one in run.questions if (one.question_digest, one.node) not in posted]
        told = [
            (one, known[one.question_digest, one.node]) for one in fresh if (one.question_digest, one.node) in known
        ]
        for one, answer in told:
            posted.add((one.question_digest, one.node))
            at, value, declined, by = stage.clock.now(), answer.value, answer.decline_reason, answer.by
            message = InboxMessage(
                kind="answer",
                node=one.node,
                at=at,
                value=value,
                decline_reason=declined,
                by=by,
                question_digest=one.question_digest,
            )
            await stage.journal.send(run.id, message)
        patience = ANSWER_TIMEOUT if told else patience - POLL_INTERVAL
        if (fresh and not told) or patience < 0:
            open_ = fresh or run.questions
            run.cancel("whatif")
            return [StoppedNode(one.node, "a person", one.question) for one in open_]
        await stage.clock.sleep(POLL_INTERVAL)
    return []


def _usage_of(events: Sequence[Event], anew: set[tuple[str, int]]) -> Usage:
    calls = (event for event in events if isinstance(event, AttemptFinished) and (event.node, event.attempt) in anew)
    return sum((event.usage for event in calls), NO_USAGE)


def _summarize(history: History, usage: Usage) -> WhatifRun:
    verdicts = [
        row.attempts[-1].accepted for row in history.rows if row.attempts and row.attempts[-1].accepted is not None
    ]
    return WhatifRun(history.status, history.outcome, usage, len(verdicts), sum(verdicts))


def _differences(before: History, after: History, stops: Sequence[StoppedNode]) -> list[NodeDifference]:
    """The nodes that come to something else, the innermost alone, in the order of the run as it would be. Of a run that stops, only
    what it came to before: what lacks a value there tells nothing."""
    rows = {row.path: row.outcome for row in before.rows}
    found: dict[str, NodeDifference] = {}
    for row in after.rows:
        was = rows.pop(row.path, None)
        if CHECK_MARKER in row.path:
            continue
        if not is_same_outcome(was, row.outcome) and not (stops and not isinstance(row.outcome, ValueOutcome)):
            found[row.path] = NodeDifference(row.path, was, row.outcome)
    if not stops:
        gone = {path: outcome for path, outcome in rows.items() if outcome is not None and CHECK_MARKER not in path}
        found |= {path: NodeDifference(path, outcome, None) for path, outcome in gone.items()}
    outer: set[str] = set()
    for path in found:
        while path := parent(path):
            outer.add(path)
    return [change for path, change in found.items() if path not in outer]
