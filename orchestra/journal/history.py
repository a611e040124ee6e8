"""History: what a person wants to see of a run, folded from its events. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeAlias, assert_never

from orchestra.core.events import (
    NOTHING,
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    Expanded,
    Given,
    Judged,
    LetterRefused,
    Measured,
    NodeFinished,
    Resumed,
    RetryPlanned,
    RunFinished,
    RunStarted,
    TurnStarted,
    Usage,
    Verdict,
)
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value
from orchestra.core.paths import parent
from orchestra.journal.errors import damaged
from orchestra.journal.summary import planned

RowKind: TypeAlias = Literal["call", "each", "loop", "turn", "check", "block", "node"]
"""`call` asked an agent or a tool; `each` has elements; `loop` has turns, or is a plan, and `turn` is one of them, or one of its versions;
`check` has the questions of a check of what it stands in; `block` has nodes inside; `node` is any other."""
Incident: TypeAlias = Resumed | Answered | LetterRefused | CancelRequested
Status: TypeAlias = Literal["value", "skipped", "abstained", "failed", "running", "waiting", "interrupted"]
"""How a node ended, or what it does: `waiting` for the time of its next attempt or for a person;
`interrupted` where the run, or what it stands in, ended without its outcome."""

MAX_DEPTH = 200
"""What a node may stand in: workflows nest far less."""


@dataclass(frozen=True, slots=True)
class Attempt:
    """One try of one node. `sent` and `received` are digests of blobs; `seconds` is None while it goes on."""

    number: int
    name: str = ""
    started: float = 0.0
    seconds: float | None = None
    value: Any = None
    error: str = ""
    reason: str = ""
    hint: str = ""
    frames: tuple[str, ...] = ()
    """Where a tool's own code raised, the outermost first."""
    usage: Usage = NOTHING
    server: str = ""
    model: str = ""
    sent: str = ""
    received: str = ""
    verdicts: tuple[Verdict, ...] = ()
    accepted: bool | None = None
    """What the checks said; None where there were none, or none yet."""
    score: float | None = None
    refused: str = ""
    """Why the checks did not accept it."""
    promise: str = ""
    """What a certificate promises of it."""
    recalled: str = ""
    """The run whose answer this is; no call went out."""
    escalated: bool = False
    """Whether a larger model was asked."""
    tier: int = 0
    """Which one, from 1; 0 for its own."""
    because: str = ""
    """Why it was asked at once, or why not, where the node has a condition for that."""


@dataclass(frozen=True, slots=True)
class Row:
    """One node of a run. Times are wall-clock seconds since the epoch; `depth` counts what it stands in."""

    path: str
    depth: int
    kind: RowKind
    name: str
    """The agent or tool that was asked; empty for what asks nobody itself."""
    status: Status
    started: float
    finished: float | None
    attempts: tuple[Attempt, ...]
    outcome: Outcome | None
    usage: Usage
    """Its own attempts' and those of everything inside it."""
    elements: int | None = None
    """Of an `each` node: how many there are."""
    corrected: Answered | None = None
    """A person's answer, where that stands for what its checks did not accept."""
    because: str = ""
    """Of a node that chooses its agent: the one that it chose, and for which label."""
    instead: Outcome | None = None
    """What the node itself came to, where its `fallback` stands for that."""
    unanswered: str = ""
    """Of a node whose value is its `fallback`, because a person gave no answer: why there was none."""
    given: Given | None = None
    """Where a person said what it gave: who."""

    @property
    def came_to(self) -> str:
        """How it stands, in a word: its status, `done` for a value, `fallback` where that was taken, `given` where a person gave it."""
        if self.instead is not None:
            return "fallback"
        return self.status if self.status != "value" else "done" if self.given is None else "given"

    @property
    def seconds(self) -> float | None:
        """From its first event to its outcome; None while it goes on."""
        return None if self.finished is None else self.finished - self.started

    @property
    def verdicts(self) -> tuple[Verdict, ...]:
        """The checks' results on its last attempt."""
        return self.attempts[-1].verdicts if self.attempts else ()

    @property
    def error(self) -> str:
        """`CODE: reason` of its failure, or why it was skipped or withheld; of the last attempt while it goes on; or empty."""
        match self.outcome:
            case Failed() | Skipped() | Abstained() as outcome:
                return said(outcome)
            case Value():
                return ""
            case None:
                last = self.attempts[-1] if self.attempts else None
                return f"{last.error}: {last.reason}" if last and last.error else ""
            case never:
                assert_never(never)

    @property
    def rescued(self) -> str:
        """Why its fallback was taken; empty where it was not."""
        return "" if self.instead is None else f"its fallback was taken: {said(self.instead)}"


def said(outcome: Outcome) -> str:
    """`CODE: reason` of a failure, or why a node was skipped or withheld; empty for a value."""
    match outcome:
        case Failed(code, reason):
            return f"{code}: {reason}"
        case Skipped(reason) | Abstained(reason):
            return reason
        case Value():
            return ""
        case never:
            assert_never(never)


@dataclass(frozen=True, slots=True)
class Saving:
    """A plan that was not made again: the run that it was made for, and what it cost then."""

    run: str
    usage: Usage
    node: str = ""
    """Of a `plan` node: its path."""


@dataclass(frozen=True, slots=True)
class History:
    """A run as far as it has come; `rows` are its nodes in the order of their starts, each followed by what is inside it."""

    run: str
    workflow: str
    graph: str
    inputs: Any
    status: str
    """`running`, or what the last event says: `done`, `failed`, `abstained`, `budget`, `cancelled`."""
    started: float
    finished: float | None
    outcome: Outcome | None
    usage: Usage
    cancelled_by: str | None
    rows: tuple[Row, ...]
    parent: str = ""
    """The run that it was forked from."""
    asked: tuple[Asked, ...] = ()
    """What persons are asked, in the order of asking; empty once the run has ended."""
    incidents: tuple[Incident, ...] = ()
    """What happened to the run from outside, in order: resumptions, answers, letters refused, requests to end."""
    saved: tuple[Saving, ...] = ()
    """Plans that nobody was asked for, because they had served before."""
    tiers: tuple[str, ...] = ()
    """The larger models that the fleet had, by name, in the order in which they are asked."""

    @classmethod
    def of(cls, events: Iterable[Event]) -> History:
        """The history of a run's events, from the first one on; any prefix of them will do.

        Raises `JournalError` J013 for a node that stands in more than 200 others.
        """
        fold = _Fold()
        for event in events:
            fold.add(event)
        return fold.history()

    @property
    def seconds(self) -> float | None:
        """From the run's first event to its last; None while it goes on."""
        return None if self.finished is None else self.finished - self.started

    @property
    def rests(self) -> bool:
        """Whether persons are asked, and nothing else is under way."""
        asked = {question.node for question in self.asked}
        calls = (row for row in self.rows if row.kind == "call" and row.status in ("running", "waiting"))
        return bool(asked) and all(row.path in asked for row in calls)

    def inside(self, path: str) -> History:
        """What stands in a node, or in one of its turns, as if that were the run."""
        above = f"{path}/"
        rows = [row for row in self.rows if row.path.startswith(above)]
        least = min((row.depth for row in rows), default=0)
        return replace(self, rows=tuple(replace(row, path=row.path.removeprefix(above), depth=row.depth - least) for row in rows))

    def row(self, path: str) -> Row | None:
        """The node of that path, or None."""
        return next((row for row in self.rows if row.path == path), None)


def saved(start: RunStarted | None) -> tuple[Saving, ...]:
    """What the first event says of the plan that runs; nothing where it says what nobody understands."""
    plan = planned(start) if start is not None else None
    return () if plan is None else (Saving(*plan),)


@dataclass(slots=True)
class _Node:
    path: str
    started: float
    depth: int
    finished: float | None = None
    attempts: dict[int, Attempt] = field(default_factory=dict)
    outcome: Outcome | None = None
    due: bool = False
    corrected: Answered | None = None
    instead: Outcome | None = None
    unanswered: str = ""
    given: Given | None = None
    elements: int | None = None
    loop: bool = False
    because: str = ""
    children: list[_Node] = field(default_factory=list)
    usage: Usage = NOTHING


class _Fold:
    def __init__(self) -> None:
        self.start: RunStarted | None = None
        self.end: RunFinished | None = None
        self.cancelled_by: str | None = None
        self.seq = 0
        self.incidents: list[Incident] = []
        self.saved: list[Saving] = []
        self.nodes: dict[str, _Node] = {}
        self.asked: dict[str, Asked] = {}
        """What persons are asked, by the node that asks."""
        self.turns: dict[str, float] = {}
        """When each turn began, by the path that a loop gives it."""
        self.roots: list[_Node] = []

    def add(self, event: Event) -> None:
        self.seq = event.seq
        if isinstance(event, Resumed | Answered | LetterRefused | CancelRequested):
            self.incidents.append(event)
        match event:
            case RunStarted():
                self.start = event
            case RunFinished():
                self.end = event
            case CancelRequested(by=by):
                self.cancelled_by = by
            case TurnStarted():
                self._turn(event)
            case ChecksStarted(node=path, round=number):
                self._node(f"{path}?{number}", event.at)
            case Expanded(node=path, count=count):
                self._node(path, event.at).elements = count
            case NodeFinished(node=path, outcome=outcome, instead=instead, given=given):
                node = self._node(path, event.at)
                node.instead, node.given = instead, given or (node.given if instead is None and isinstance(outcome, Value) else None)
                if self.asked and self._drop(node):
                    node.unanswered = "nobody answered in time"
                if not isinstance(outcome, Value):
                    node.unanswered = ""
                node.outcome, node.finished, node.due = outcome, event.at, False
            case RetryPlanned(node=path):
                self._node(path, event.at).due = True
            case AttemptStarted():
                node = self._node(event.node, event.at)
                node.due = False
                node.attempts[event.attempt] = Attempt(
                    event.attempt,
                    event.name,
                    event.at,
                    escalated=event.escalated,
                    tier=event.tier or int(event.escalated),
                    because=event.because,
                )
            case AttemptFinished():
                node = self._node(event.node, event.at)
                node.attempts[event.attempt] = _finished(node.attempts.get(event.attempt), event)
                self._spend(event.node, event.usage)
                node.given = event.given
                if event.settled:
                    node.outcome, node.finished, node.due = Value(event.value, event.confidence), event.at, False
            case Asked(node=path):
                self._node(path, event.at)
                self.asked[path] = event
            case Answered(node=path):
                node, asked = self._node(path, event.at), self.asked.pop(path, None)
                if asked is not None and asked.about == "acceptance" and not event.declined:
                    node.corrected = event
                if event.declined:
                    node.unanswered = f"{event.by or 'a person'} declined to answer: {event.declined}"
            case Resumed() | LetterRefused() | Measured():
                pass
            case Judged():
                node = self._node(event.node, event.at)
                node.attempts[event.attempt] = _judged(node.attempts.get(event.attempt), event)
            case never:
                assert_never(never)

    def _turn(self, event: TurnStarted) -> None:
        path, drafted = event.node, event.drafted
        if drafted is not None and drafted.recalled:
            self.saved.append(Saving(drafted.recalled, drafted.saved, path))
        if self.asked and drafted is not None:  # nobody waits for the version that this one follows
            left = [one for one in self.asked if one.startswith(f"{path}@") and not one.startswith(f"{path}@{drafted.version}/")]
            for one in left:
                del self.asked[one]
        # Of a loop's turn the nodes stand in `path#turn`, of a plan's version in `path@version`; of a called body in `path` itself.
        node = self._node(path, event.at)
        node.because = event.because or node.because
        self.turns[f"{path}#{event.turn}"] = event.at
        if drafted is not None and drafted.version:
            self.turns.setdefault(f"{path}@{drafted.version}", event.at)

    def history(self) -> History:
        start, end = self.start, self.end
        spent = sum((root.usage for root in self.roots), NOTHING)
        return History(
            run=start.run if start else "",
            workflow=start.workflow if start else "",
            graph=start.graph if start else "",
            inputs=start.inputs if start else None,
            status=end.status if end else "running",
            started=start.at if start else 0.0,
            finished=end.at if end else None,
            outcome=end.outcome if end else None,
            usage=end.usage if end and end.usage != NOTHING else spent,
            cancelled_by=self.cancelled_by,
            rows=tuple(self._rows(self.roots)),
            parent=start.parent if start else "",
            saved=(*saved(start), *self.saved),
            asked=() if end else tuple(sorted(self.asked.values(), key=lambda asked: asked.seq)),
            incidents=tuple(self.incidents),
            tiers=start.tiers if start else (),
        )

    def _node(self, path: str, at: float) -> _Node:
        if (known := self.nodes.get(path)) is not None:
            return known
        missing = [path]
        while (above := parent(missing[-1])) and above not in self.nodes:
            if len(missing) > MAX_DEPTH:
                raise damaged(self.start.run if self.start else "", self.seq, f"a node stands in more than {MAX_DEPTH} others")
            missing.append(above)
        for one in reversed(missing):
            holder = self.nodes.get(parent(one))
            if holder is not None and holder.depth >= MAX_DEPTH:
                raise damaged(self.start.run if self.start else "", self.seq, f"a node stands in more than {MAX_DEPTH} others")
            node = self.nodes[one] = _Node(one, self.turns.get(one, at), holder.depth + 1 if holder else 0)
            if holder is not None and one in self.turns:
                holder.loop = True
            (holder.children if holder else self.roots).append(node)
        return node

    def _drop(self, node: _Node) -> bool:
        """Nobody waits any more for what a node that has come to its end asks, nor for what is asked in it. Whether that is an answer that
        the node wanted: the steps of a plan may be dropped."""
        own = self.asked.pop(node.path, None)
        gone = self._dropped(node)
        return (own is not None and own.about == "answer") or any("@" not in path[len(node.path) :] for path in gone)

    def _dropped(self, node: _Node) -> list[str]:
        """The paths of what was asked in a node; nothing is open in what has its outcome."""
        under_way = [child for child in node.children if child.outcome is None]
        gone = [child.path for child in under_way if self.asked.pop(child.path, None) is not None]
        return gone + [path for child in under_way for path in self._dropped(child)]

    def _spend(self, path: str, usage: Usage) -> None:
        if usage == NOTHING:
            return
        while path:
            self.nodes[path].usage += usage
            path = parent(path)

    def _rows(self, nodes: Iterable[_Node], *, over: bool = False) -> Iterator[Row]:
        for node in nodes:
            attempts = tuple(node.attempts[number] for number in sorted(node.attempts))
            yield Row(
                path=node.path,
                depth=node.depth,
                kind=_kind(node),
                name=attempts[-1].name if attempts else "",
                status=self._status(node, over=over),
                started=node.started,
                finished=node.finished,
                attempts=attempts,
                outcome=node.outcome,
                usage=node.usage,
                elements=node.elements,
                corrected=node.corrected,
                because=node.because,
                instead=node.instead,
                unanswered=node.unanswered,
                given=node.given,
            )
            yield from self._rows(node.children, over=over or node.outcome is not None)

    def _status(self, node: _Node, *, over: bool) -> Status:
        if node.outcome is not None:
            return _STATUS[type(node.outcome)]
        if _kind(node) in ("turn", "check") and node.children and all(child.outcome is not None for child in node.children):
            return "value" if all(isinstance(child.outcome, Value) for child in node.children) else "failed"
        if self.end is not None or over:  # what it stands in has its outcome: nobody waits for it any more
            return "interrupted"
        return "waiting" if node.due or node.path in self.asked else "running"


_STATUS: Mapping[type[Outcome], Status] = {Value: "value", Skipped: "skipped", Abstained: "abstained", Failed: "failed"}


def _kind(node: _Node) -> RowKind:
    if node.elements is not None:
        return "each"
    if node.loop:
        return "loop"
    if node.attempts:
        return "call"
    step = node.path.removeprefix(parent(node.path))
    if step.startswith(("#", "@", "?")):
        return "check" if step[0] == "?" else "turn"
    return "block" if node.children else "node"


def _finished(before: Attempt | None, event: AttemptFinished) -> Attempt:
    before = before or Attempt(event.attempt, started=event.at)
    return Attempt(
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
        recalled=event.recalled,
        escalated=before.escalated,
        tier=before.tier,
        because=before.because,
    )


def _judged(before: Attempt | None, event: Judged) -> Attempt:
    return replace(
        before or Attempt(event.attempt, started=event.at),
        verdicts=event.verdicts,
        accepted=event.accepted,
        score=event.score,
        refused="" if event.accepted else event.reason,
        promise=event.promise,
    )
