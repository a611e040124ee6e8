"""A recorded run as typed data: its answer with evidence and verdicts, and its nodes with what was sent and received.

The server sends these types as JSON; its OpenAPI description is generated from them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import msgspec

from orchestra.app.claims.claims import OutputClaim, Support, dropped_claims, extract_claims, is_supported
from orchestra.app.claims.locations import RunTexts, TableCell, TextSpan
from orchestra.app.inputs import run_not_found, unanswered_questions
from orchestra.app.result import Result, build_result, identity, outcome_score
from orchestra.app.snapshot_store import stored_workflows
from orchestra.app.stored_certificates import StoredCertificate, iter_guarantees, read_certificates
from orchestra.app.workflow_graph import WorkflowGraph
from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    CancelRequested,
    DroppedPart,
    Event,
    InboxMessageRejected,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
    Usage,
    Verdict,
    WithheldOutput,
    last_read_message,
    tier_name,
)
from orchestra.core.labels import Label
from orchestra.core.outcomes import AbstainedOutcome, Outcome, ValueOutcome
from orchestra.core.paths import workflow_path
from orchestra.core.protocols import Journal
from orchestra.engine.kinds.plan import is_complete
from orchestra.journal.history import ExternalEvent, History, NodeAttempt, NodeRow, usage_by_tier
from orchestra.journal.summary import summary_at

MAX_ROWS = 2000
"""Nodes in a `RunDetail` at most; the others are listed page by page."""


class UsageTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The cost of calls. All fields are always present."""

    prompt_tokens: int
    cached_tokens: int
    output_tokens: int
    calls: int
    seconds: float
    resends: int
    money: float
    estimated_tokens: int

    @classmethod
    def of(cls, usage: Usage) -> UsageTotal:
        """Returns the usage with all fields."""
        return cls(**msgspec.structs.asdict(usage))


class Question(msgspec.Struct, frozen=True, kw_only=True):
    """An open question to a person."""

    seq: int
    node: str
    kind: str
    """`answer`, `effect` or `acceptance`."""
    question: str
    schema: dict[str, Any]
    options: tuple[str, ...]
    question_digest: str
    due: float
    """The time until which it may be answered; 0 without a limit."""
    withheld: WithheldOutput | None
    """For a question about acceptance: the value that was not accepted."""
    result_schema: dict[str, Any] | None
    """For a question about an effect: the type of the call's result."""

    @classmethod
    def of(cls, asked: QuestionAsked) -> Question:
        """Returns the question of an event."""
        return cls(**{name: getattr(asked, name) for name in cls.__struct_fields__})


class RunError(msgspec.Struct, frozen=True, kw_only=True):
    """Why a run has no output."""

    code: str
    message: str
    hint: str
    node: str


class Withheld(msgspec.Struct, frozen=True, kw_only=True):
    """Why the output of a run is withheld."""

    reason: str
    node: str
    score: float | None


class Guarantee(msgspec.Struct, frozen=True, kw_only=True):
    """The guarantee of a certificate for the value of a node."""

    node: str
    guarantee: str
    certificate: dict[str, Any] | None
    """Its terms and figures; None if the certificate is missing or unreadable."""


class RunAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """A run and its output, with claims, evidence and verdicts."""

    id: str
    workflow: str
    status: str
    """`running`, `waiting`, `interrupted`, `done`, `failed`, `abstained`, `budget` or `cancelled`."""
    started: float
    finished: float | None
    label: Label
    tags: dict[str, str]
    parent: str
    """The run of which it is a fork."""
    plan_only: bool
    output: Any
    confidence: float | None
    withheld: Withheld | None
    error: RunError | None
    claims: tuple[OutputClaim, ...]
    dropped: tuple[OutputClaim, ...]
    supported: int
    """The number of supported claims."""
    left_out: dict[str, str]
    """Failed elements that are missing in their lists, with the reason."""
    guarantees: tuple[Guarantee, ...]
    usage: UsageTotal
    questions: tuple[Question, ...]
    last_seq: int
    """The number of the latest event."""


class CheckCounts(msgspec.Struct, frozen=True, kw_only=True):
    """The verdicts on the last attempt of a node, by outcome."""

    passed: int = msgspec.field(default=0, name="pass")
    fail: int = 0
    unknown: int = 0


class NodeSummary(msgspec.Struct, frozen=True, kw_only=True):
    """One node of a run."""

    path: str
    graph_node: str
    """Its node in the graph of the workflow: the path without elements and turns."""
    depth: int
    kind: str
    name: str
    """The agent or tool."""
    status: str
    display_status: str
    started: float
    finished: float | None
    seconds: float | None
    attempt_count: int
    usage: UsageTotal
    """With everything inside."""
    elements: int | None
    score: float | None
    checks: CheckCounts
    error: str
    escalated: bool
    reused: bool


class LocatedEvidence(msgspec.Struct, frozen=True, kw_only=True):
    """Evidence of a verdict, with the address of its text in the run."""

    check: str
    field: str
    quote: str
    source: str
    start: int | None
    end: int | None
    where: str
    """The address of the text (`RunDetail.sources`); empty if no text of the run has these words."""


class CheckVerdict(msgspec.Struct, frozen=True, kw_only=True):
    """The verdict of a check."""

    check: str
    outcome: str
    score: float
    reason: str
    deterministic: bool
    evidence: tuple[LocatedEvidence, ...]
    parts: tuple[CheckVerdict, ...]
    dropped: tuple[DroppedPart, ...]


class Message(msgspec.Struct, frozen=True, kw_only=True):
    """The exact bytes that were sent or received."""

    digest: str
    bytes: int | None
    """Their number; None if they are not read."""
    text: str | None
    """As UTF-8, with escapes where they are not UTF-8; None if they are not included or are missing."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One attempt of a node."""

    number: int
    name: str
    started: float
    seconds: float | None
    value: Any
    error: str
    reason: str
    hint: str
    frames: tuple[str, ...]
    usage: UsageTotal
    server: str
    model: str
    tier: int
    tier_name: str
    escalated: bool
    escalation_reason: str
    reused_from: str
    accepted: bool | None
    score: float | None
    rejection_reason: str
    guarantee: str
    verdicts: tuple[CheckVerdict, ...]
    sent: Message | None
    received: Message | None


class Correction(msgspec.Struct, frozen=True, kw_only=True):
    """The value that a person gave instead of one that the checks rejected."""

    value: Any
    by: str
    at: float


class Author(msgspec.Struct, frozen=True, kw_only=True):
    """The person who set the value of a node."""

    by: str
    run: str
    """The run in which the value was set, if it is another run."""


class SourceText(msgspec.Struct, frozen=True, kw_only=True):
    """A text of the run into which evidence points. Positions count Unicode code points."""

    where: str
    name: str
    text: str
    offset: int | None
    """For a passage: its start in the text with that name."""
    table: tuple[tuple[str, ...], ...] | None
    """For the cell of a table: the table."""


class NodeDetail(NodeSummary, frozen=True, kw_only=True):
    """One node of a run, with its attempts."""

    attempts: tuple[Attempt, ...]
    outcome: Outcome | None
    original_outcome: Outcome | None
    """Its own outcome, if its fallback replaces it."""
    fallback_reason: str
    choice_reason: str
    correction: Correction | None
    unanswered_reason: str
    overridden_by: Author | None
    guarantee: str
    certificate: dict[str, Any] | None
    sources: tuple[SourceText, ...]


class PlanRejection(msgspec.Struct, frozen=True, kw_only=True):
    """Why a line of a plan was rejected."""

    code: str
    path: str
    reason: str
    hint: str


class PlanStage(msgspec.Struct, frozen=True, kw_only=True):
    """A plan at one turn of its router. The last stage of a version is its final state."""

    node: str
    version: int
    at: float
    lines: tuple[str, ...]
    complete: bool
    repaired: int
    rejections: tuple[PlanRejection, ...]
    failed_calls: tuple[tuple[str, str], ...]
    carried_values: dict[str, str]
    escalated: bool
    reused_from: str
    agreement: float | None
    sampled: tuple[tuple[str, ...], ...]
    warning: str
    graph: WorkflowGraph | None
    """The graph of the accepted lines, at the last stage of a version."""


class TierTotal(msgspec.Struct, frozen=True, kw_only=True):
    """The calls of one model tier of a run with escalation."""

    name: str
    calls: int
    accepted: int
    skipped: dict[str, int]
    usage: UsageTotal


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """An event from outside: a resumption, an answer, a rejected message, a request to cancel."""

    seq: int
    at: float
    type: str
    node: str
    by: str
    text: str


class GivenValue(msgspec.Struct, frozen=True, kw_only=True):
    """A value that a person set for a node before the run started."""

    value: Any
    by: str
    run: str


class RunDetail(RunAnswer, frozen=True, kw_only=True):
    """A run with its graph and its nodes."""

    inputs: Any
    outcome: Outcome | None
    graph: WorkflowGraph | None
    """None if the stored workflow cannot be read."""
    graph_digest: str
    versions: dict[str, str]
    nodes: tuple[NodeSummary, ...]
    """In full they are of the type `NodeDetail`."""
    nodes_left: int
    """The number of nodes that are left out."""
    sources: tuple[SourceText, ...]
    plans: tuple[PlanStage, ...]
    tiers: tuple[TierTotal, ...]
    timeline: tuple[Incident, ...]
    cancelled_by: str | None
    overrides: dict[str, GivenValue]


GraphBuilder = Callable[[PlanDraft], WorkflowGraph | None]
"""Returns the graph of a plan; None if it cannot be compiled any more."""


@dataclass(frozen=True)
class RecordedRun:
    """Everything that the journal has about a run, folded once. `RecordedRun.read` reads it."""

    run: str
    started: RunStarted
    events: Sequence[Event]
    history: History
    status: str
    questions: tuple[QuestionAsked, ...]
    """The open questions to persons."""
    workflows: Mapping[str, bytes]
    certificates: Sequence[StoredCertificate]
    holder: str = ""
    """The process that holds the run; empty if none does."""

    @classmethod
    async def read(cls, journal: Journal, run: str, now: float) -> RecordedRun:
        """Reads a run. Raises `InputError` E020 for an unknown run."""
        summary, events = await journal.summary(run), await journal.read(run)
        if summary is None or not events or not isinstance(start_event := events[0], RunStarted):
            raise run_not_found(run)
        history, questions = History.of(events), tuple[QuestionAsked, ...]()
        if history.finished is None:
            messages = await journal.inbox(run, last_read_message(events))
            questions = tuple(unanswered_questions(history.open_questions, messages))
        status, holder = history.status, ""
        if history.finished is None:
            status, holder = summary_at(summary, now).status, summary.holder or ""
        workflow_data, certificates = (
            await stored_workflows(journal, start_event),
            await read_certificates(journal, events),
        )
        return cls(run, start_event, events, history, status, questions, workflow_data, certificates, holder)

    @classmethod
    async def of_result(cls, journal: Journal, result: Result[Any]) -> RecordedRun:
        """Returns the run of a result, whose events are known already. Raises `InputError` E020 if it has none."""
        events = result.events
        if not events or not isinstance(start_event := events[0], RunStarted):
            raise run_not_found(result.run)
        certificates = await read_certificates(journal, events)
        history = History.of(events)
        return cls(result.run, start_event, events, history, result.status, (), result.workflows, certificates)

    @cached_property
    def claims(self) -> tuple[OutputClaim, ...]:
        """The claims of the output."""
        return extract_claims(self.events, self.workflows, self.history)

    @cached_property
    def dropped(self) -> tuple[OutputClaim, ...]:
        """What nodes with back-off removed from their answers."""
        return dropped_claims(self.events)

    @cached_property
    def texts(self) -> RunTexts:
        """The texts of the run."""
        return RunTexts.of(self.history)

    @property
    def confidence(self) -> float | None:
        """The score of the output."""
        return outcome_score(self.history.outcome, self.events)

    def answer_fields(self, tags: Mapping[str, str]) -> dict[str, Any]:
        """Returns the fields of a `RunAnswer`, with these tags instead of all."""
        last, history = self.events[-1], self.history
        error, withheld_answer, left_out = None, None, dict[str, str]()
        if isinstance(last, RunFinished):
            result = build_result(last, self.events, self.run, identity, self.workflows)
            left_out = dict(result.left_out)
            if isinstance(last.outcome, AbstainedOutcome):
                withheld_answer = Withheld(reason=last.outcome.reason, node=last.outcome.origin, score=self.confidence)
            elif (fault := result.error) is not None:
                error = RunError(code=fault.code, message=fault.message, hint=fault.hint, node=fault.node)
        return {
            "id": self.run,
            "workflow": self.started.workflow,
            "status": self.status,
            "started": self.started.at,
            "finished": history.finished,
            "label": self.started.label,
            "tags": dict(tags),
            "parent": self.started.parent,
            "plan_only": self.started.plan_only,
            "output": history.outcome.value if isinstance(history.outcome, ValueOutcome) else None,
            "confidence": self.confidence,
            "withheld": withheld_answer,
            "error": error,
            "claims": self.claims,
            "dropped": self.dropped,
            "supported": sum(map(is_supported, self.claims)),
            "left_out": left_out,
            "guarantees": tuple(self.guarantees()),
            "usage": UsageTotal.of(history.usage),
            "questions": tuple(map(Question.of, self.questions)),
            "last_seq": last.seq,
        }

    def answer(self, tags: Mapping[str, str]) -> RunAnswer:
        """Returns the run and its output. `tags` are those that are shown."""
        return RunAnswer(**self.answer_fields(tags))

    def guarantees(self) -> Iterator[Guarantee]:
        """Yields the guarantees of the nodes' values, with the figures of their certificates."""
        for path, sentence, certificate in iter_guarantees(self.history, self.certificates):
            yield Guarantee(
                node=path, guarantee=sentence, certificate=None if certificate is None else dict(certificate.summary)
            )

    def detail(
        self,
        tags: Mapping[str, str],
        graph: WorkflowGraph | None,
        plan_graph: GraphBuilder,
        blobs: Mapping[str, bytes] | None = None,
        *,
        full: bool = False,
    ) -> RunDetail:
        """Returns the run with its nodes.

        Args:
            tags: The tags that are shown.
            graph: The graph of its workflow.
            plan_graph: Builds the graphs of its plans.
            blobs: What was sent and received, by digest; None leaves the texts out.
            full: Whether nodes have their attempts.
        """
        rows = self.history.rows[:MAX_ROWS]
        nodes: list[NodeSummary] = [
            self.node(row, blobs or {}, with_sources=False) if full else node_summary(row) for row in rows
        ]
        history = self.history
        return RunDetail(
            **self.answer_fields(tags),
            inputs=history.inputs,
            outcome=history.outcome,
            graph=graph,
            graph_digest=history.graph,
            versions=self.started.versions,
            nodes=tuple(nodes),
            nodes_left=max(0, len(history.rows) - MAX_ROWS),
            sources=self.sources((*self.claims, *self.dropped), rows),
            plans=tuple(self._plan_stages(plan_graph)),
            tiers=tuple(
                TierTotal(
                    name=usage.name,
                    calls=usage.calls,
                    accepted=usage.accepted,
                    skipped=usage.skipped,
                    usage=UsageTotal.of(usage.usage),
                )
                for usage in usage_by_tier(history)
            ),
            timeline=tuple(map(_incident, history.external_events)),
            cancelled_by=history.cancelled_by,
            overrides={
                path: GivenValue(value=override.value, by=override.source.by, run=override.source.run)
                for path, override in (self.started.overrides or {}).items()
            },
        )

    def node(self, row: NodeRow, blobs: Mapping[str, bytes], *, with_sources: bool = True) -> NodeDetail:
        """Returns a node with its attempts. `blobs` has what they sent and received, as far as it is included."""
        guarantee = next((item for item in self.guarantees() if item.node == row.path), None)
        override_source, correction = row.overridden_by, row.correction
        return NodeDetail(
            **msgspec.structs.asdict(node_summary(row)),
            attempts=tuple(self._attempt(attempt, blobs) for attempt in row.attempts),
            outcome=row.outcome,
            original_outcome=row.original_outcome,
            fallback_reason=row.fallback_reason,
            choice_reason=row.choice_reason,
            correction=None
            if correction is None
            else Correction(value=correction.value, by=correction.by, at=correction.at),
            unanswered_reason=row.unanswered_reason,
            overridden_by=None if override_source is None else Author(by=override_source.by, run=override_source.run),
            guarantee=guarantee.guarantee if guarantee is not None else "",
            certificate=guarantee.certificate if guarantee is not None else None,
            sources=self.sources((), (row,)) if with_sources else (),
        )

    def _attempt(self, attempt: NodeAttempt, blobs: Mapping[str, bytes]) -> Attempt:
        return Attempt(
            number=attempt.number,
            name=attempt.name,
            started=attempt.started,
            seconds=attempt.seconds,
            value=attempt.value,
            error=attempt.error,
            reason=attempt.reason,
            hint=attempt.hint,
            frames=attempt.frames,
            usage=UsageTotal.of(attempt.usage),
            server=attempt.server,
            model=attempt.model,
            tier=attempt.tier,
            tier_name=tier_name(self.history.tiers, attempt.tier),
            escalated=attempt.escalated,
            escalation_reason=attempt.escalation_reason,
            reused_from=attempt.reused_from,
            accepted=attempt.accepted,
            score=attempt.score,
            rejection_reason=attempt.rejection_reason,
            guarantee=attempt.guarantee,
            verdicts=tuple(map(self._verdict, attempt.verdicts)),
            sent=_message(attempt.sent, blobs),
            received=_message(attempt.received, blobs),
        )

    def _verdict(self, verdict: Verdict) -> CheckVerdict:
        return CheckVerdict(
            check=verdict.check,
            outcome=verdict.outcome,
            score=verdict.score,
            reason=verdict.reason,
            deterministic=verdict.deterministic,
            evidence=tuple(self._located(verdict)),
            parts=tuple(map(self._verdict, verdict.parts)),
            dropped=verdict.dropped,
        )

    def _located(self, verdict: Verdict) -> Iterator[LocatedEvidence]:
        for evidence in verdict.evidence:
            place = self.texts.locate(evidence.quote, evidence.source, evidence.start, evidence.end)
            start, end, source = evidence.start, evidence.end, evidence.source
            if isinstance(place, TextSpan):
                start, end, source = place.start, place.end, place.source
            yield LocatedEvidence(
                check=evidence.check,
                field=evidence.field,
                quote=evidence.quote,
                source=source,
                start=start,
                end=end,
                where=place.where,
            )

    def sources(self, claims: Iterable[OutputClaim], rows: Iterable[NodeRow]) -> tuple[SourceText, ...]:
        """Returns the texts into which the evidence of claims and nodes points."""
        places = [address for claim in claims for evidence in claim.evidence for address in _addresses(evidence)]
        for row in rows:
            for attempt in row.attempts:
                for verdict in _flatten(attempt.verdicts):
                    places += [located_evidence.where for located_evidence in self._located(verdict)]
        return tuple(text for location in dict.fromkeys(places) if (text := self._source(location)) is not None)

    def _source(self, location: str) -> SourceText | None:
        text = self.texts.get(location) if location else None
        if text is None:
            return None
        table = tuple(tuple(row) for row in text.table) if text.table else None
        return SourceText(where=location, name=text.name, text=text.text, offset=text.offset, table=table)

    def _plan_stages(self, plan_graph: GraphBuilder) -> Iterator[PlanStage]:
        turns = [(event, event.draft) for event in self.events if isinstance(event, TurnStarted) and event.draft]
        last = {(event.node, draft.version): index for index, (event, draft) in enumerate(turns)}
        for index, (event, draft) in enumerate(turns):
            is_last = last[event.node, draft.version] == index
            yield PlanStage(
                node=event.node,
                version=draft.version,
                at=event.at,
                lines=draft.lines,
                complete=is_complete(draft),
                repaired=draft.repaired_lines,
                rejections=tuple(
                    PlanRejection(code=code, path=path, reason=reason, hint=hint)
                    for code, path, reason, hint in draft.rejections
                ),
                failed_calls=draft.failed_calls,
                carried_values=draft.carried_values,
                escalated=draft.escalated,
                reused_from=draft.reused_from,
                agreement=draft.agreement,
                sampled=draft.sampled_plans,
                warning=draft.warning,
                graph=plan_graph(draft) if is_last else None,
            )


def sent_and_received(rows: Iterable[NodeRow]) -> list[str]:
    """Returns the digests of everything that nodes sent and received."""
    return list(
        dict.fromkeys(
            digest for row in rows for attempt in row.attempts for digest in (attempt.sent, attempt.received) if digest
        )
    )


async def read_blobs(journal: Journal, digests: Iterable[str]) -> dict[str, bytes]:
    """Reads blobs; missing ones are left out."""
    blobs = {digest: await journal.get_blob(digest) for digest in digests}
    return {digest: data for digest, data in blobs.items() if data is not None}


def node_summary(row: NodeRow) -> NodeSummary:
    """Returns a node without its attempts."""
    attempt = row.attempts[-1] if row.attempts else None
    outcomes = [verdict.outcome for verdict in row.verdicts]
    score = attempt.score if attempt is not None else None
    if score is None and isinstance(row.outcome, ValueOutcome | AbstainedOutcome):
        score = row.outcome.score
    return NodeSummary(
        path=row.path,
        graph_node=workflow_path(row.path),
        depth=row.depth,
        kind=row.kind,
        name=row.name,
        status=row.status,
        display_status=row.display_status,
        started=row.started,
        finished=row.finished,
        seconds=row.seconds,
        attempt_count=len(row.attempts),
        usage=UsageTotal.of(row.usage),
        elements=row.elements,
        score=score,
        checks=CheckCounts(
            passed=outcomes.count("pass"), fail=outcomes.count("fail"), unknown=outcomes.count("unknown")
        ),
        error=row.error,
        escalated=any(row_attempt.escalated for row_attempt in row.attempts),
        reused=any(row_attempt.reused_from for row_attempt in row.attempts),
    )


def _message(digest: str, blobs: Mapping[str, bytes]) -> Message | None:
    if not digest:
        return None
    data = blobs.get(digest)
    text = None if data is None else data.decode("utf-8", "backslashreplace")
    return Message(digest=digest, bytes=None if data is None else len(data), text=text)


def _flatten(verdicts: Iterable[Verdict]) -> Iterator[Verdict]:
    for verdict in verdicts:
        yield verdict
        yield from _flatten(verdict.parts)


def _addresses(evidence: Support) -> Iterator[str]:
    if isinstance(evidence, TextSpan | TableCell):
        yield evidence.where
        return
    yield from (place.where for operand in evidence.operands for place in operand.places)


def _incident(event: ExternalEvent) -> Incident:
    node = "" if isinstance(event, RunResumed | CancelRequested) else event.node
    by = "" if isinstance(event, InboxMessageRejected) else event.by
    text = ""
    if isinstance(event, InboxMessageRejected):
        text = event.reason
    elif isinstance(event, QuestionAnswered):
        text = event.decline_reason
    kind = str(type(event).__struct_config__.tag)
    return Incident(seq=event.seq, at=event.at, type=kind, node=node, by=by, text=text)


def graph_or_none(build: Callable[[], WorkflowGraph]) -> WorkflowGraph | None:
    """Returns a graph; None if its workflow does not compile any more."""
    try:
        return build()
    except OrchestraError:
        return None
