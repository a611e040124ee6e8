"""History of a run for display, folded from its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, assert_never

import msgspec

from orchestra.core.error_codes import UNSENT_CODES
from orchestra.core.events import (
    NO_USAGE,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    OverrideSource,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TokensCounted,
    TurnStarted,
    Usage,
    Verdict,
    reused_plan,
    tier_name,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.core.paths import parent
from orchestra.journal.errors import damaged_event_error

NodeKind: TypeAlias = Literal["call", "each", "loop", "turn", "check", "block", "node"]
"""`call` calls an agent or a tool; `each` has elements; `loop` has turns, or is a plan; `turn` is one of them, or a
version of the plan; `check` holds the calls of a check; `block` has nodes inside; `node` is any other.
"""
ExternalEvent: TypeAlias = RunResumed | QuestionAnswered | InboxMessageRejected | CancelRequested
_EXTERNAL_EVENTS = (RunResumed, QuestionAnswered, InboxMessageRejected, CancelRequested)
NodeStatus: TypeAlias = Literal["value", "skipped", "abstained", "failed", "running", "waiting", "interrupted"]
"""How a node ended, or its current state. `waiting` is for the next attempt or for a person; `interrupted` means that
the run or the enclosing node ended without an outcome of this node.
"""

MAX_DEPTH = 200
"""Maximum nesting of nodes. Workflows nest far less."""


class NodeAttempt(msgspec.Struct, frozen=True):
    """One attempt of one node. `sent` and `received` are digests of blobs; `seconds` is None while it is open."""

    number: int
    name: str = ""
    started: float = 0.0
    seconds: float | None = None
    value: Any = None
    error: str = ""
    reason: str = ""
    hint: str = ""
    frames: tuple[str, ...] = ()
    """Traceback of the tool's own code, outermost frame first."""
    usage: Usage = NO_USAGE
    server: str = ""
    model: str = ""
    sent: str = ""
    received: str = ""
    verdicts: tuple[Verdict, ...] = ()
    accepted: bool | None = None
    """The decision of the checks; None without checks or before they finish."""
    score: float | None = None
    rejection_reason: str = ""
    """Why the checks rejected the value."""
    guarantee: str = ""
    """The guarantee of a certificate."""
    reused_from: str = ""
    """The run that the answer was reused from; no call was made."""
    escalated: bool = False
    """Whether a larger model was called."""
    tier: int = 0
    """Index of the larger model, from 1; 0 is the agent's own."""
    escalation_reason: str = ""
    """For a node with an escalation condition: why the larger model was called at once, or why not."""


class NodeRow(msgspec.Struct, frozen=True):
    """One node of a run. Times are wall-clock seconds since the epoch; `depth` is the nesting level."""

    path: str
    depth: int
    kind: NodeKind
    name: str
    """The agent or tool; empty for a node without calls of its own."""
    status: NodeStatus
    started: float
    finished: float | None
    attempts: tuple[NodeAttempt, ...]
    outcome: Outcome | None
    usage: Usage
    """Usage of its own attempts and of all nodes inside."""
    elements: int | None = None
    """For an `each` node: the number of elements."""
    correction: QuestionAnswered | None = None
    """A person's answer that replaces a value that the checks rejected."""
    choice_reason: str = ""
    """For a node that chooses its agent: the chosen agent, and the label that decided."""
    original_outcome: Outcome | None = None
    """The original outcome of the node, if its `fallback` replaces it."""
    unanswered_reason: str = ""
    """For a node with the value of its `fallback` because a person gave no answer: the reason."""
    overridden_by: OverrideSource | None = None
    """The person who set the value, if a person did."""

    @property
    def display_status(self) -> str:
        """The status as one word: `done` for a value, `fallback`, `given` if a person set it, or the status."""
        if self.original_outcome is not None:
            return "fallback"
        return self.status if self.status != "value" else "done" if self.overridden_by is None else "given"

    @property
    def seconds(self) -> float | None:
        """Time from the first event to the outcome; None while the node is open."""
        return None if self.finished is None else self.finished - self.started

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The verdicts on its last attempt."""
        return self.attempts[-1].verdicts if self.attempts else ()

    @property
    def error(self) -> str:
        """`CODE: reason` of a failure, or the reason of a skipped or withheld node; of the last attempt while the node
        is open; or empty.
        """
        match self.outcome:
            case FailedOutcome() | SkippedOutcome() | AbstainedOutcome() as outcome:
                return outcome_reason(outcome)
            case ValueOutcome():
                return ""
            case None:
                last = self.attempts[-1] if self.attempts else None
                return f"{last.error}: {last.reason}" if last and last.error else ""
            case never:
                assert_never(never)

    @property
    def fallback_reason(self) -> str:
        """Why the fallback was used; empty if it was not."""
        return (
            "" if self.original_outcome is None else f"its fallback was taken: {outcome_reason(self.original_outcome)}"
        )


def outcome_reason(outcome: Outcome) -> str:
    """Returns `CODE: reason` of a failure, or the reason of a skipped or withheld node; empty for a value."""
    match outcome:
        case FailedOutcome(code, reason):
            return f"{code}: {reason}"
        case SkippedOutcome(reason) | AbstainedOutcome(reason):
            return reason
        case ValueOutcome():
            return ""
        case never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class PlanReuse:
    """A reused plan: the run that it was made for, and its cost then."""

    run: str
    usage: Usage
    node: str = ""
    """For a `plan` node: its path."""


@dataclass(frozen=True, slots=True)
class History:
    """A run so far. `rows` are its nodes in the order of their starts, each followed by its inner nodes."""

    run: str
    workflow: str
    graph: str
    inputs: Any
    status: str
    """`running`, or the status of the last event: `done`, `failed`, `abstained`, `budget`, `cancelled`."""
    started: float
    finished: float | None
    outcome: Outcome | None
    usage: Usage
    cancelled_by: str | None
    rows: tuple[NodeRow, ...]
    parent: str = ""
    """The run that this run is a fork of."""
    open_questions: tuple[QuestionAsked, ...] = ()
    """Open questions to people, in the order of asking; empty after the end of the run."""
    external_events: tuple[ExternalEvent, ...] = ()
    """External events in order: resumptions, answers, rejected messages, cancel requests."""
    reused_plans: tuple[PlanReuse, ...] = ()
    """Plans that were reused."""
    tiers: tuple[str, ...] = ()
    """Names of the larger models of the fleet, in escalation order."""

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """Folds the events of a run, from the first one on; any prefix of them is valid.

        Raises:
            JournalError: J013 for a node nested deeper than 200 levels.
        """
        fold = _HistoryFold()
        for event in events:
            fold.add(event)
        return fold.history()

    @property
    def seconds(self) -> float | None:
        """Time from the first event of the run to its last; None while it is running."""
        return None if self.finished is None else self.finished - self.started

    @property
    def is_waiting(self) -> bool:
        """Whether only questions to people are open."""
        nodes = {question.node for question in self.open_questions}
        calls = (row for row in self.rows if row.kind == "call" and row.status in ("running", "waiting"))
        return bool(nodes) and all(row.path in nodes for row in calls)

    def subtree(self, path: str) -> History:
        """Returns the nodes inside a node, or inside one of its turns, as a separate list of rows."""
        above = f"{path}/"
        rows = [row for row in self.rows if row.path.startswith(above)]
        least = min((row.depth for row in rows), default=0)
        inner = (
            msgspec.structs.replace(row, path=row.path.removeprefix(above), depth=row.depth - least) for row in rows
        )
        return replace(self, rows=tuple(inner))

    def row(self, path: str) -> NodeRow | None:
        """Returns the node with this path, or None."""
        return next((row for row in self.rows if row.path == path), None)


def plan_reuse(start: RunStarted | None) -> tuple[PlanReuse, ...]:
    """Returns the reuse of the running plan as recorded in the first event; None if there is none or if it is
    malformed.
    """
    plan = reused_plan(start) if start is not None else None
    return () if plan is None else (PlanReuse(*plan),)


class _Node(msgspec.Struct, eq=False):
    path: str
    started: float
    depth: int
    finished: float | None = None
    attempts: dict[int, NodeAttempt] = {}
    outcome: Outcome | None = None
    retry_planned: bool = False
    correction: QuestionAnswered | None = None
    original_outcome: Outcome | None = None
    unanswered_reason: str = ""
    overridden_by: OverrideSource | None = None
    elements: int | None = None
    is_loop: bool = False
    choice_reason: str = ""
    children: list[_Node] = []
    usage: Usage = NO_USAGE


class _HistoryFold:
    def __init__(self) -> None:
        self.start: RunStarted | None = None
        self.end: RunFinished | None = None
        self.cancelled_by: str | None = None
        self.seq = 0
        self.external_events: list[ExternalEvent] = []
        self.reused_plans: list[PlanReuse] = []
        self.nodes: dict[str, _Node] = {}
        self.open_questions: dict[str, QuestionAsked] = {}
        """Open questions by node."""
        self.turns: dict[str, float] = {}
        """Start of each turn, by the path of the turn."""
        self.roots: list[_Node] = []

    def add(self, event: Event) -> None:
        """Adds the next event."""
        self.seq = event.seq
        if isinstance(event, _EXTERNAL_EVENTS):
            self.external_events.append(event)
        match event:
            case AttemptStarted():  # The first two cases are most of the events of a run.
                self._start_attempt(event)
            case AttemptFinished():
                self._finish_attempt(event)
            case RunStarted():
                self.start = event
            case RunFinished():
                self.end = event
            case CancelRequested(by=by):
                self.cancelled_by = by
            case TurnStarted():
                self._start_turn(event)
            case ChecksStarted(node=path, round=number):
                self._node(f"{path}?{number}", event.at)
            case MapExpanded(node=path, count=count):
                self._node(path, event.at).elements = count
            case NodeFinished(node=path, outcome=outcome, original_outcome=instead, overridden_by=override_source):
                node = self._node(path, event.at)
                node.original_outcome, node.overridden_by = (
                    instead,
                    override_source
                    or (node.overridden_by if instead is None and isinstance(outcome, ValueOutcome) else None),
                )
                if self.open_questions and self._close_questions(node):
                    node.unanswered_reason = "no answer in time"
                if not isinstance(outcome, ValueOutcome):
                    node.unanswered_reason = ""
                node.outcome, node.finished, node.retry_planned = outcome, event.at, False
            case RetryPlanned(node=path):
                self._node(path, event.at).retry_planned = True
            case QuestionAsked(node=path):
                self._node(path, event.at)
                self.open_questions[path] = event
            case QuestionAnswered(node=path):
                node, question = self._node(path, event.at), self.open_questions.pop(path, None)
                if question is not None and question.kind == "acceptance" and not event.decline_reason:
                    node.correction = event
                if event.decline_reason:
                    node.unanswered_reason = f"{event.by or 'a person'} declined to answer: {event.decline_reason}"
            case RunResumed() | InboxMessageRejected() | TokensCounted():
                pass
            case OutputJudged():
                node = self._node(event.node, event.at)
                node.attempts[event.attempt] = _judged_attempt(node.attempts.get(event.attempt), event)
            case never:
                assert_never(never)

    def _start_attempt(self, event: AttemptStarted) -> None:
        node = self._node(event.node, event.at)
        node.retry_planned = False
        node.attempts[event.attempt] = NodeAttempt(
            event.attempt,
            event.name,
            event.at,
            escalated=event.escalated,
            tier=event.tier or int(event.escalated),
            escalation_reason=event.escalation_reason,
        )

    def _finish_attempt(self, event: AttemptFinished) -> None:
        node = self._node(event.node, event.at)
        node.attempts[event.attempt] = _finished_attempt(node.attempts.get(event.attempt), event)
        self._add_usage(event.node, event.usage)
        node.overridden_by = event.overridden_by
        if event.final:
            node.outcome = ValueOutcome(event.value, event.confidence)
            node.finished, node.retry_planned = event.at, False

    def _start_turn(self, event: TurnStarted) -> None:
        path, draft = event.node, event.draft
        if draft is not None and draft.reused_from:
            self.reused_plans.append(PlanReuse(draft.reused_from, draft.saved_usage, path))
        if self.open_questions and draft is not None:  # questions of the replaced version are closed
            open_questions = [
                question_path
                for question_path in self.open_questions
                if question_path.startswith(f"{path}@") and not question_path.startswith(f"{path}@{draft.version}/")
            ]
            for question_path in open_questions:
                del self.open_questions[question_path]
        # Nodes of a loop's turn are in `path#turn`, of a plan's version in `path@version`, of a called body in `path`
        # itself.
        node = self._node(path, event.at)
        node.choice_reason = event.choice_reason or node.choice_reason
        self.turns[f"{path}#{event.turn}"] = event.at
        if draft is not None and draft.version:
            self.turns.setdefault(f"{path}@{draft.version}", event.at)

    def history(self) -> History:
        """Returns the history of the events so far."""
        start, end = self.start, self.end
        if end is not None and end.usage != NO_USAGE:
            usage = end.usage
        else:
            usage = sum((root.usage for root in self.roots), NO_USAGE)
        return History(
            run=start.run if start else "",
            workflow=start.workflow if start else "",
            graph=start.graph if start else "",
            inputs=start.inputs if start else None,
            status=end.status if end else "running",
            started=start.at if start else 0.0,
            finished=end.at if end else None,
            outcome=end.outcome if end else None,
            usage=usage,
            cancelled_by=self.cancelled_by,
            rows=tuple(self._rows(self.roots)),
            parent=start.parent if start else "",
            reused_plans=(*plan_reuse(start), *self.reused_plans),
            open_questions=()
            if end
            else tuple(sorted(self.open_questions.values(), key=lambda question: question.seq)),
            external_events=tuple(self.external_events),
            tiers=start.tiers if start else (),
        )

    def _node(self, path: str, at: float) -> _Node:
        if (existing_node := self.nodes.get(path)) is not None:
            return existing_node
        if not parent(path):
            node = self.nodes[path] = _Node(path, self.turns.get(path, at), 0)
            self.roots.append(node)
            return node
        missing = [path]
        while (above := parent(missing[-1])) and above not in self.nodes:
            if len(missing) > MAX_DEPTH:
                raise damaged_event_error(
                    self.start.run if self.start else "", self.seq, f"a node is nested deeper than {MAX_DEPTH} levels"
                )
            missing.append(above)
        for missing_path in reversed(missing):
            holder = self.nodes.get(parent(missing_path))
            if holder is not None and holder.depth >= MAX_DEPTH:
                raise damaged_event_error(
                    self.start.run if self.start else "", self.seq, f"a node is nested deeper than {MAX_DEPTH} levels"
                )
            node = self.nodes[missing_path] = _Node(
                missing_path, self.turns.get(missing_path, at), holder.depth + 1 if holder else 0
            )
            if holder is not None and missing_path in self.turns:
                holder.is_loop = True
            (holder.children if holder else self.roots).append(node)
        return node

    def _close_questions(self, node: _Node) -> bool:
        """Closes the questions of a finished node and of its inner nodes. Returns whether one of them was the node's
        own question.
        """
        question = self.open_questions.pop(node.path, None)
        closed_questions = self._close_nested_questions(node)
        return (question is not None and question.kind == "answer") or any(
            "@" not in path[len(node.path) :] for path in closed_questions
        )

    def _close_nested_questions(self, node: _Node) -> list[str]:
        """Returns the paths of questions inside a node and closes them, because the node has its outcome."""
        under_way = [child for child in node.children if child.outcome is None]
        closed_questions = [child.path for child in under_way if self.open_questions.pop(child.path, None) is not None]
        return closed_questions + [path for child in under_way for path in self._close_nested_questions(child)]

    def _add_usage(self, path: str, usage: Usage) -> None:
        if usage == NO_USAGE:
            return
        while path:
            self.nodes[path].usage += usage
            path = parent(path)

    def _rows(self, nodes: Iterable[_Node], *, over: bool = False) -> Iterator[NodeRow]:
        for node in nodes:
            attempts = tuple(node.attempts[number] for number in sorted(node.attempts))
            kind = _kind(node)
            yield NodeRow(
                path=node.path,
                depth=node.depth,
                kind=kind,
                name=attempts[-1].name if attempts else "",
                status=self._status(node, kind, over=over),
                started=node.started,
                finished=node.finished,
                attempts=attempts,
                outcome=node.outcome,
                usage=node.usage,
                elements=node.elements,
                correction=node.correction,
                choice_reason=node.choice_reason,
                original_outcome=node.original_outcome,
                unanswered_reason=node.unanswered_reason,
                overridden_by=node.overridden_by,
            )
            if node.children:
                yield from self._rows(node.children, over=over or node.outcome is not None)

    def _status(self, node: _Node, kind: NodeKind, *, over: bool) -> NodeStatus:
        if node.outcome is not None:
            return _STATUS[type(node.outcome)]
        if kind in ("turn", "check") and node.children and all(child.outcome is not None for child in node.children):
            return "value" if all(isinstance(child.outcome, ValueOutcome) for child in node.children) else "failed"
        if self.end is not None or over:  # the enclosing node has its outcome, so this node is not waited for
            return "interrupted"
        return "waiting" if node.retry_planned or node.path in self.open_questions else "running"


_STATUS: Mapping[type[Outcome], NodeStatus] = {
    ValueOutcome: "value",
    SkippedOutcome: "skipped",
    AbstainedOutcome: "abstained",
    FailedOutcome: "failed",
}


def _kind(node: _Node) -> NodeKind:
    if node.elements is not None:
        return "each"
    if node.is_loop:
        return "loop"
    if node.attempts:
        return "call"
    step = node.path.removeprefix(parent(node.path))
    if step.startswith(("#", "@", "?")):
        return "check" if step[0] == "?" else "turn"
    return "block" if node.children else "node"


def _finished_attempt(before: NodeAttempt | None, event: AttemptFinished) -> NodeAttempt:
    before = before or NodeAttempt(event.attempt, started=event.at)
    return NodeAttempt(
        number=event.attempt,
        name=before.name or event.name,
        started=before.started,
        seconds=event.at - before.started,
        value=event.value,
        error=event.error,
        reason=event.reason,
        hint=event.hint,
        frames=event.frames,
        usage=event.usage,
        server=event.server,
        model=event.model,
        sent=event.sent,
        received=event.received,
        reused_from=event.reused_from,
        escalated=before.escalated,
        tier=before.tier,
        escalation_reason=before.escalation_reason,
    )


def _judged_attempt(before: NodeAttempt | None, event: OutputJudged) -> NodeAttempt:
    return msgspec.structs.replace(
        before or NodeAttempt(event.attempt, started=event.at),
        verdicts=event.verdicts,
        accepted=event.accepted,
        score=event.score,
        rejection_reason="" if event.accepted else event.reason,
        guarantee=event.guarantee,
    )


PERSON = "a person"


@dataclass(slots=True)
class TierUsage:
    """One tier, over all nodes of a run that used more than one."""

    name: str
    calls: int = 0
    accepted: int = 0
    """Values accepted by checks, or answers of a person."""
    skipped: dict[str, int] = field(default_factory=dict)
    """Number of calls that were not made, by reason."""
    usage: Usage = NO_USAGE


def usage_by_tier(history: History) -> tuple[TierUsage, ...]:
    """Returns the tiers of a run: the agents' own models first, a person last; empty for a run without escalation."""
    rows = [row for row in history.rows if row.correction is not None or any(attempt.tier for attempt in row.attempts)]
    usages_by_tier: dict[int, TierUsage] = {}
    for attempt in _attempts(rows):
        tier_usage = usages_by_tier.setdefault(attempt.tier, TierUsage(tier_name(history.tiers, attempt.tier)))
        if attempt.error in UNSENT_CODES:
            tier_usage.skipped[attempt.reason] = tier_usage.skipped.get(attempt.reason, 0) + 1
        else:
            tier_usage.calls += 1
            tier_usage.accepted += bool(attempt.accepted)
            tier_usage.usage += attempt.usage
    correction_count = sum(row.correction is not None for row in rows)
    return (
        *(usages_by_tier[tier] for tier in sorted(usages_by_tier)),
        *([TierUsage(PERSON, correction_count, correction_count)] if correction_count else ()),
    )


def _attempts(rows: Iterable[NodeRow]) -> Iterable[NodeAttempt]:
    return (attempt for row in rows for attempt in row.attempts if attempt.seconds is not None)
