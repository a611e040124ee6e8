"""What-if simulation: repeats a recorded run with changes, in memory. Only changed calls are made, and no effect is
repeated.

Recorded answers are reused for the same calls, also of tools with effects. A new call is made only if nothing but its
answer can result: agents, and pure tools. A tool with effects is never called: if its inputs have changed the run stops
there. No person is asked: an answer applies as long as the question is the same.

Budgets apply: a reused call costs what it cost then. Time does not: a reused call takes none.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import Iterable, Mapping, Sequence
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
    CallRequest,
    CallResult,
    InboxMessage,
    TextCallback,
    Workers,
)
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
"""In the paths of questions of checks: the node itself has their result."""
QUIET_TURNS = 8
"""Turns of the loop without a new call, after which the consequences of an answer are known."""
POLL_INTERVAL, ANSWER_TIMEOUT = 0.01, 10.0
"""Seconds between polls of a run that was just answered, and until it counts as stopped."""

WhatifVerdict: TypeAlias = Literal["same", "changed", "withheld", "answered", "failed", "stopped", "refused"]
"""What happens to a run's output: the same or another one; withheld; failed; a new one where there was none; the run
stops before it; or its workflow is refused because no certificate applies to the replaced agent.
"""


@dataclass(frozen=True, slots=True)
class StoppedNode:
    """A node at which a run stops, because its call must not be repeated."""

    node: str
    name: str
    """The tool, or `a person`."""
    inputs: Any
    """The inputs of the call, or the question."""


@dataclass(frozen=True, slots=True)
class WhatifRun:
    """The end of a run, recorded or simulated."""

    status: str
    outcome: Outcome | None
    usage: Usage
    """Of all calls; reused ones at what they cost then."""
    judged_nodes: int
    """Nodes whose value was judged by checks."""
    accepted_nodes: int


@dataclass(frozen=True, slots=True)
class WhatifResult:
    """A run as recorded, and as simulated."""

    run: str
    workflow: str
    before: WhatifRun
    after: WhatifRun
    differences: tuple[NodeDifference, ...]
    stops: tuple[StoppedNode, ...]
    recalled_calls: int
    """Calls answered from the record."""
    new_calls: int
    """Calls that were made."""
    new_usage: Usage
    """The usage of new calls."""
    replay_gap: str = ""
    """Why today's engine cannot replay the whole record; later calls are made again."""
    timed_out: tuple[str, ...] = ()
    """Nodes that timed out then, and an empty path for the run itself. Reused calls take no time, so these may end
    differently without any other change.
    """
    changed_tools: tuple[str, ...] = ()
    """Pure tools whose code has changed: they are called again."""
    unknown_tools: tuple[str, ...] = ()
    """Pure tools whose code at the time is unknown: their answers are reused."""
    uncertified: tuple[UncertifiedNode, ...] = ()
    """Nodes whose certificate or combination does not apply to the replaced agent: the workflow would be refused with
    it. They were judged by the recorded threshold, without a guarantee, and do not count as accepted.
    """

    @property
    def verdict(self) -> WhatifVerdict:
        """What happens to the output."""
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
    """Whether two outcomes are equivalent: the same value, regardless of the confidence; both withheld; or failures
    with the same code.
    """
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
    """The recorded answer to the same calls of a node, over all of its attempts."""

    answer: AttemptFinished
    usage: Usage = NO_USAGE


@dataclass(slots=True)
class _ReplayQueue:
    """Reused answers that wait for their turn: they are returned in the recorded order, so that the same one is
    first.
    """

    waiting: list[tuple[int, int, asyncio.Future[None]]] = field(default_factory=list)
    arrivals: int = 0
    task: asyncio.Task[None] | None = None

    async def wait_turn(self, seq: int) -> None:
        """Waits until all waiting answers with a lower number have been returned."""
        loop = asyncio.get_running_loop()
        free: asyncio.Future[None] = loop.create_future()
        self.arrivals += 1
        heapq.heappush(self.waiting, (seq, self.arrivals, free))
        if self.task is None or self.task.done():
            self.task = loop.create_task(self._serve())
        await free

    async def _serve(self) -> None:
        while self.waiting:
            arrivals, still = self.arrivals, 0
            while still < QUIET_TURNS:  # The consequences of the last answer may include an earlier call.
                await asyncio.sleep(0)
                arrivals, still = self.arrivals, still + 1 if arrivals == self.arrivals else 0
            _, _, free = heapq.heappop(self.waiting)
            if not free.done():  # Otherwise the caller has given up.
                free.set_result(None)


@dataclass(slots=True)
class RecordedWorkers:
    """Workers without effects: they answer from a record, and pass on only harmless calls."""

    inner: Workers
    records: Mapping[bytes, Mapping[str, _RecordedAnswer]]
    """By the key of the call, and by node: the same question may have had two answers."""
    allowed_calls: frozenset[tuple[str, str]]
    """Kind and name of what may be called."""
    token_counts: Mapping[bytes, int] = field(default_factory=dict)
    """Prompt tokens as servers counted them."""
    recalled: dict[tuple[str, int], Usage] = field(default_factory=dict)
    """What a reused answer cost then, by node and attempt."""
    new_calls: set[tuple[str, int]] = field(default_factory=set)
    stops: dict[str, StoppedNode] = field(default_factory=dict)
    queue: _ReplayQueue = field(default_factory=_ReplayQueue)

    @classmethod
    def of(
        cls, inner: Workers, program: Program, found: ReplayResult, asked: Iterable[str], altered: Iterable[str] = ()
    ) -> RecordedWorkers:
        """Builds the workers from a replayed run. The agents in `asked` and the tools in `altered` are called again."""
        records: dict[bytes, dict[str, _RecordedAnswer]] = {}
        unknown = {("agent", name) for name in asked} | {("tool", name) for name in altered}
        for call, finish_event in found.calls.values():
            if finish_event is None or (call.kind, call.name) in unknown:
                continue
            record = records.setdefault(_call_key(call), {}).setdefault(call.node, _RecordedAnswer(finish_event))
            record.usage += finish_event.usage
            if record.answer.error:
                record.answer = finish_event
        pure = (
            (contract.kind, contract.name)
            for contract in called_contracts(program)
            if contract.kind == "agent" or contract.effect == "pure"
        )
        return cls(inner, records, frozenset(pure), {_call_key(call): tokens for call, tokens in found.token_counts})

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Answers a call or passes it on."""
        result = await self._recall(call)
        return await self.inner.call(call, on_text) if result is None else result

    async def _recall(self, call: CallRequest) -> CallResult | CallError | None:
        if (recorded_answers := self.records.get(_call_key(call))) is not None:
            record = recorded_answers.get(call.node) or next(iter(recorded_answers.values()))
            self.recalled[call.node, call.attempt] = record.usage
            then = record.answer
            await self.queue.wait_turn(then.seq)
            server, model, usage = then.server, then.model, record.usage
            if then.error:  # Another attempt would fail alike.
                return CallError(
                    code=then.error, reason=then.reason, hint=then.hint, server=server, model=model, usage=usage
                )
            fields = {
                "value": then.value,
                "confidence": then.confidence,
                "reused_from": then.reused_from,
                "overridden_by": then.overridden_by,
            }
            return CallResult(**fields, server=server, model=model, usage=usage)
        if (call.kind, call.name) in self.allowed_calls:
            self.new_calls.add((call.node, call.attempt))
            return None
        self.stops[call.node] = StoppedNode(call.node, call.name, call.inputs)
        return CallError(
            code=ALREADY_CALLED, reason=f"{call.name} has effects, and the run did not call it with these inputs"
        )

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Estimates the cost of a call, whether or not it is made: budgets must admit the same calls as in the
        recorded run.
        """
        return self.inner.estimate(call)

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the tokens of a call's prompt, from the record if a server counted them."""
        token_count = self.token_counts.get(_call_key(call))
        return await self.inner.count_tokens(call) if token_count is None else token_count


def _call_key(call: CallRequest) -> bytes:
    """Returns the key of a call: what it asks. Without the output limit, which depends on the budget, and without the
    label, which restricts where a call is sent: a recorded answer is not sent.
    """
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
    """Simulates a run again with other agents; without any, with everything as it is today.

    Args:
        project: The project.
        engine: The engine.
        workers: Start the servers that are needed; None if other workers replace the fleet.
        events: All events of the run.
        replacements: Agents by the names that the workflow has for the replaced ones.
        workflow: The file of the workflow, if its name is not known.
        label: The least label of its data, beside those of the run and its workflow.

    Raises:
        InputError: E025: the run has not ended; and the errors of compiling.
    """
    first = events[0]
    if not isinstance(first, RunStarted) or not isinstance(events[-1], RunFinished):
        run = first.run if isinstance(first, RunStarted) else ""
        raise InputError("E025", f"run {run} has not ended", hint=f"orchestra runs show {run}")
    old = await restore_program(project, engine.journal, first, will_call=False)
    inputs: Mapping[str, Any] = first.inputs
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
        asks = any(isinstance(replacement, Card) and replacement.uses_model for replacement in replacements.values())
    else:
        program = apply_run_options(
            project.program(_current_step(project, first, workflow), stored_accept(first)), first
        )
        inputs = bind_arguments(program, (), {name: value for name, value in inputs.items() if name in program.inputs})
        code = await compare_code(project, engine.journal, first, old)
        asks = bool(program_changes(old, program)) or bool(code.changed)
    if workers is not None and asks:
        await workers.prepare(program)
    result = await simulate_run(
        engine, RecordedRun(old, first, events), program, inputs, replacements or (), code.changed, label=label
    )
    after = replace(result.after, accepted_nodes=0) if rests.uncertified else result.after
    return replace(
        result, after=after, changed_tools=code.changed, unknown_tools=code.unknown, uncertified=rests.uncertified
    )


def _current_step(project: Project, first: RunStarted, workflow: str) -> Step[..., Any]:
    """Returns a run's workflow as it is today.

    Raises:
        InputError: C004 if its name is unknown, or `workflow` is the file of another one.
    """
    hint = f"name its file: orchestra whatif {first.run} --workflow FILE"
    try:
        step = project.find(workflow or first.workflow)
    except InputError as error:
        if workflow or error.code != "C004":
            raise
        raise InputError(
            "C004", f"run {first.run} ran {first.workflow!r}, which is not a workflow of this project", hint=hint
        ) from error
    if step.name != first.workflow:
        raise InputError(
            "C004", f"run {first.run} ran {first.workflow!r}, and {workflow} is the workflow {step.name!r}", hint=hint
        )
    return step


@dataclass(frozen=True, slots=True)
class RecordedRun:
    """A recorded run: its program, its inputs and all of its events."""

    program: Program
    started: RunStarted
    events: Sequence[Event]

    @property
    def active_seconds(self) -> float:
        """Seconds in which it was executed, without the time before it was resumed."""
        return sum(
            max(0.0, two.at - event.at) for event, two in pairwise(self.events) if not isinstance(two, RunResumed)
        )


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
    """Simulates a run with another program, in a journal in memory. The agents in `asked` and the pure tools in
    `altered` are called again.

    Its label is the strictest of the run's, the program's and `label`: new calls contain data of all three.
    """
    first, replay_result = recorded.started, replay(recorded.program, recorded.events)
    recorded_workers = RecordedWorkers.of(engine.workers, program, replay_result, asked, altered)
    stage = Engine(engine.clock, MemoryJournal(), recorded_workers, concurrency=engine.concurrency)
    names = {node.name for node in program.nodes}
    values = {path: override for path, override in (first.overrides or {}).items() if root_name(path) in names}
    strictest = join((first.label, program.label, label))
    try:
        request = RunRequest(
            inputs=inputs,
            graph=first.graph,
            label=strictest,
            versions=first.versions,
            tiers=first.tiers,
            overrides=values,
            plan_only=first.plan_only,
        )
        run = stage.start(program, request)
        stops = await _replay_answers(stage, run, recorded.events)
        await run.wait()
        events = list(await run.history())
    finally:
        await stage.close()
    stops += recorded_workers.stops.values()
    usage = _usage_of(events, recorded_workers.new_calls)
    before, after = History.of(recorded.events), History.of(events)
    return WhatifResult(
        run=first.run,
        workflow=first.workflow,
        before=_summarize(before, before.usage),
        after=_summarize(after, sum(recorded_workers.recalled.values(), usage)),
        differences=tuple(_differences(before, after, stops)),
        stops=tuple(stops),
        recalled_calls=len(recorded_workers.recalled),
        new_calls=len(recorded_workers.new_calls),
        new_usage=usage,
        replay_gap=replay_result.reason if replay_result.first_difference is not None else "",
        timed_out=tuple(dict.fromkeys((*replay_result.timed_out, *([""] if _is_out_of_time(recorded) else [])))),
    )


def _is_out_of_time(recorded_run: RecordedRun) -> bool:
    """Whether the budget of seconds of a run was exhausted."""
    budget = recorded_run.program.budget
    return budget is not None and budget.seconds is not None and recorded_run.active_seconds >= budget.seconds


async def _replay_answers(stage: Engine, run: Execution, events: Sequence[Event]) -> list[StoppedNode]:
    """Answers questions to persons as recorded, until the run ends or asks a new one; returns the questions without a
    recorded answer.
    """
    questions: dict[str, QuestionAsked] = {}
    answer_events: dict[tuple[str, str], QuestionAnswered] = {}
    for event in events:
        if isinstance(event, QuestionAsked):
            questions[event.node] = event
        elif isinstance(event, QuestionAnswered) and questions[event.node].kind != "effect":
            answer_events[questions[event.node].question_digest, event.node] = event
    posted_answers: set[tuple[str, str]] = set()
    patience = ANSWER_TIMEOUT
    while await run.wait_until_blocked() is None:
        fresh = [
            question for question in run.questions if (question.question_digest, question.node) not in posted_answers
        ]
        answers = [
            (question, answer_events[question.question_digest, question.node])
            for question in fresh
            if (question.question_digest, question.node) in answer_events
        ]
        for question, answer in answers:
            posted_answers.add((question.question_digest, question.node))
            at, value, decline_reason, by = stage.clock.now(), answer.value, answer.decline_reason, answer.by
            message = InboxMessage(
                kind="answer",
                node=question.node,
                at=at,
                value=value,
                decline_reason=decline_reason,
                by=by,
                question_digest=question.question_digest,
            )
            await stage.journal.send(run.id, message)
        patience = ANSWER_TIMEOUT if answers else patience - POLL_INTERVAL
        if (fresh and not answers) or patience < 0:
            open_ = fresh or run.questions
            run.cancel("whatif")
            return [StoppedNode(question.node, "a person", question.question) for question in open_]
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
    """Returns the innermost nodes with different outcomes, in the order of the simulated run. Of a run that stops, only
    nodes that ended before: a missing value after the stop means nothing.
    """
    rows = {row.path: row.outcome for row in before.rows}
    differences: dict[str, NodeDifference] = {}
    for row in after.rows:
        old_outcome = rows.pop(row.path, None)
        if CHECK_MARKER in row.path:
            continue
        if not is_same_outcome(old_outcome, row.outcome) and not (stops and not isinstance(row.outcome, ValueOutcome)):
            differences[row.path] = NodeDifference(row.path, old_outcome, row.outcome)
    if not stops:
        outcomes = {path: outcome for path, outcome in rows.items() if outcome is not None and CHECK_MARKER not in path}
        differences |= {path: NodeDifference(path, outcome, None) for path, outcome in outcomes.items()}
    outer: set[str] = set()
    for path in differences:
        while path := parent(path):
            outer.add(path)
    return [change for path, change in differences.items() if path not in outer]
