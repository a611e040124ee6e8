"""The spans of one run: a fold of its events. Pure; the same events give the same spans in every process.

A run has one span, `invoke_workflow NAME`. Its children are one span for each attempt of a node (`invoke_agent NAME` or
`execute_tool NAME`), one `plan` for each version of a plan, and one `ask` for each question to a person. A request to a
model is `chat MODEL` below its attempt. Calls to the router are below `plan`; calls of a check are below the attempt
whose value is checked. An attempt ends when its value is judged, so the verdicts are events of its span.

Spans have no content of the run unless `content` is set: no inputs, prompts, outputs or reasons.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    NodeFinished,
    OutputJudged,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, ValueOutcome, outcome_kind
from orchestra.core.paths import is_inside, parent
from orchestra.telemetry import conventions
from orchestra.telemetry.conventions import Attributes
from orchestra.telemetry.trace_context import TraceContext, caller_context, own_trace_id, span_id

MAX_RUN_EVENTS = 128
"""Maximum number of events on the span of a run."""
INTERRUPTED, CANCELLED = "interrupted", "cancelled"
"""Error types of attempts without an end: the process ended, or the enclosing node or the run did."""


@dataclass(frozen=True, slots=True)
class SpanEvent:
    """An event of a span."""

    name: str
    at: float
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Span:
    """A span that has ended. Times are seconds since the epoch."""

    name: str
    trace_id: int
    span_id: int
    parent: TraceContext | None
    start: float
    end: float
    attributes: Attributes
    events: tuple[SpanEvent, ...] = ()
    error: str = ""
    """The error code of a failure; empty for success."""
    reason: str = ""
    """The reason of the failure; only with content."""
    is_request: bool = False
    """Whether it is a request to another process."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """The exact bytes of a call."""

    sent: bytes = b""
    received: bytes = b""


NO_EXCHANGE = Exchange()


@dataclass(slots=True)
class _Attempt:
    """An open attempt of a node."""

    node: str
    number: int
    name: str
    start: float
    resumptions: int
    """How often the run had been resumed when it started: an interrupted attempt is repeated under its number."""
    started: AttemptStarted | None = None
    finished: AttemptFinished | None = None
    verdicts: tuple[Verdict, ...] = ()
    """Verdicts of the checks so far."""


@dataclass(slots=True)
class _Plan:
    """An open version of a plan."""

    version: int
    start: float
    end: float
    """Time of the latest event of the planning."""
    attributes: Attributes = field(default_factory=dict)


class RunSpans:
    """The open spans of one run."""

    def __init__(self, started: RunStarted, *, content: bool = False) -> None:
        """`content` adds inputs, prompts, outputs and reasons."""
        self.run, self.started, self._content = started.run, started, content
        self.caller = caller_context(started)
        """The span of the caller; None for a root."""
        self.trace_id = self.caller.trace_id if self.caller is not None else own_trace_id(started.run)
        self.root_id = span_id(started.run, conventions.INVOKE_WORKFLOW)
        self.last_seq = started.seq
        self._resumptions = 0
        self._attempts: dict[str, _Attempt] = {}
        self._plans: dict[str, _Plan] = {}
        self._questions: dict[str, QuestionAsked] = {}
        self._events: list[SpanEvent] = []
        self._dropped_events = 0

    @property
    def name(self) -> str:
        """The name of the span of the run."""
        return f"{conventions.INVOKE_WORKFLOW} {self.started.workflow}"

    def attempt_context(self, node: str, attempt: int, *, sampled: bool = True) -> TraceContext:
        """Returns the span of an attempt that is about to start."""
        return TraceContext(self.trace_id, self._attempt_id(node, attempt, self._resumptions), sampled)

    def request_context(self, node: str, attempt: int, *, sampled: bool = True) -> TraceContext:
        """Returns the span of the request to a model in an attempt that is about to start."""
        own_id = self._attempt_id(node, attempt, self._resumptions, conventions.CHAT)
        return TraceContext(self.trace_id, own_id, sampled)

    def apply(self, event: Event, exchange: Exchange = NO_EXCHANGE) -> list[Span]:
        """Applies the next event. Returns the spans that it ends, inner ones first.

        Args:
            event: The event.
            exchange: For an `AttemptFinished`: the bytes of the call.
        """
        self.last_seq = event.seq
        match event:
            case AttemptStarted():
                self._attempts[event.node] = _Attempt(
                    event.node, event.attempt, event.name, event.at, self._resumptions, started=event
                )
                return []
            case AttemptFinished():
                return self._finish_attempt(event, exchange)
            case ChecksStarted(node=node, verdicts=verdicts):
                if (attempt := self._attempts.get(node)) is not None:
                    attempt.verdicts = verdicts
                return []
            case OutputJudged(node=node):
                judged_attempt = self._attempts.pop(node, None)
                return [] if judged_attempt is None else [self._attempt_span(judged_attempt, event.at, judgement=event)]
            case TurnStarted(node=node, draft=draft) if draft is not None:
                return self._plan_turn(event)
            case NodeFinished(node=node, outcome=outcome):
                return [*self._close_within(node, event.at, outcome), *self._close_plan(node, outcome)]
            case QuestionAsked():
                self._questions[event.node] = event
                return []
            case QuestionAnswered():
                question = self._questions.pop(event.node, None)
                return [] if question is None else [self._question_span(question, event)]
            case RetryPlanned():
                self._add_event("orchestra.retry_planned", event.at, node=event.node, attempt=event.attempt)
                return []
            case CancelRequested():
                self._add_event("orchestra.cancel_requested", event.at)
                return []
            case RunResumed():
                self._add_event("orchestra.run_resumed", event.at, epoch=event.epoch)
                open_attempts = [attempt for attempt in self._attempts.values() if attempt.finished is None]
                self._resumptions += 1
                return [
                    self._drop_attempt(attempt, event.at - event.idle_seconds, INTERRUPTED) for attempt in open_attempts
                ]
            case RunFinished():
                return self._finish_run(event)
            case _:
                return []

    # Attempts

    def _finish_attempt(self, event: AttemptFinished, exchange: Exchange) -> list[Span]:
        attempt = self._attempts.get(event.node)
        if attempt is None or attempt.number != event.attempt:
            name = event.name or (attempt.name if attempt is not None else "")
            attempt = _Attempt(event.node, event.attempt, name, event.at, self._resumptions)
            self._attempts[event.node] = attempt
        attempt.finished = event
        spans = [self._chat_span(attempt, event, exchange)] if _reached_model(event) and self._is_agent(attempt) else []
        if (plan := self._planning(event.node)) is not None:
            plan.end = event.at
        if event.error or event.final:
            del self._attempts[event.node]
            spans.append(self._attempt_span(attempt, event.at, exchange=exchange))
        return spans

    def _chat_span(self, attempt: _Attempt, event: AttemptFinished, exchange: Exchange) -> Span:
        attributes = {
            **self._common(conventions.CHAT),
            **conventions.chat(event.model, exchange.received),
            **conventions.usage(event.usage),
            **self._node(attempt),
            "orchestra.server": event.server,
            "orchestra.resends": event.usage.resends,
        }
        if self._content and (exchange.sent or exchange.received):
            attributes |= conventions.chat_content(exchange.sent, exchange.received)
        return self._span(
            f"{conventions.CHAT} {event.model}",
            self._attempt_id(attempt.node, attempt.number, attempt.resumptions, conventions.CHAT),
            self._attempt_id(attempt.node, attempt.number, attempt.resumptions),
            (attempt.start, event.at),
            attributes,
            error=event.error,
            reason=event.reason,
            is_request=True,
        )

    def _attempt_span(
        self,
        attempt: _Attempt,
        end: float,
        *,
        error: str = "",
        outcome: Outcome | None = None,
        judgement: OutputJudged | None = None,
        exchange: Exchange = NO_EXCHANGE,
    ) -> Span:
        """Returns the span of an attempt that ends with its call, the judgement of its value, or its node."""
        call, start_event = attempt.finished, attempt.started
        is_agent = self._is_agent(attempt)
        operation = conventions.INVOKE_AGENT if is_agent else conventions.EXECUTE_TOOL
        attributes = {**self._common(operation), **self._node(attempt)}
        if is_agent:
            attributes |= conventions.agent(attempt.name, self.started.versions.get(f"card/{attempt.name}", ""))
        else:
            attributes |= conventions.tool(attempt.name, f"{self.run}/{attempt.node}/{attempt.number}")
        if start_event is not None and start_event.escalated:
            attributes["orchestra.tier"] = start_event.tier or 1
        reason = ""
        if call is not None:
            attributes |= conventions.usage(call.usage) if is_agent else {}
            attributes["orchestra.call.seconds"] = call.usage.seconds
            if call.reused_from:
                attributes["orchestra.reused_from"] = call.reused_from
            if call.confidence is not None:
                attributes["orchestra.confidence"] = call.confidence
            error, reason = error or call.error, call.reason
            if self._content:
                attributes |= (
                    conventions.value_content(None, call.value)
                    if is_agent
                    else conventions.tool_content(exchange.sent.decode("utf-8", "replace") or None, call.value)
                )
        verdicts = attempt.verdicts
        if judgement is not None:
            verdicts = judgement.verdicts
            attributes["orchestra.accepted"] = judgement.accepted
            if judgement.score is not None:
                attributes["orchestra.score"] = judgement.score
        elif outcome is not None:
            attributes["orchestra.outcome"] = outcome_kind(outcome)
        return self._span(
            f"{operation} {attempt.name}",
            self._attempt_id(attempt.node, attempt.number, attempt.resumptions),
            self._parent_id(attempt.node),
            (attempt.start, end),
            attributes,
            events=tuple(self._evaluations(verdicts, end)),
            error=error,
            reason=reason,
        )

    def _drop_attempt(self, attempt: _Attempt, end: float, error: str) -> Span:
        """Returns the span of an attempt that ends without a result."""
        del self._attempts[attempt.node]
        return self._attempt_span(attempt, end, error=error if attempt.finished is None else "")

    def _close_within(self, node: str, at: float, outcome: Outcome) -> list[Span]:
        """Ends the attempts of a node and of what is inside it."""
        inner = [attempt for path, attempt in self._attempts.items() if is_inside(path, node)]
        spans = [self._drop_attempt(attempt, at, CANCELLED) for attempt in inner]
        if (own_attempt := self._attempts.pop(node, None)) is not None:
            error = (
                outcome.code
                if isinstance(outcome, FailedOutcome)
                else CANCELLED
                if own_attempt.finished is None
                else ""
            )
            spans.append(self._attempt_span(own_attempt, at, error=error, outcome=outcome))
        if (question := self._questions.pop(node, None)) is not None:
            spans.append(self._question_span(question, None, at))
        return spans

    def _evaluations(self, verdicts: Iterable[Verdict], at: float, check: str = "") -> Iterable[SpanEvent]:
        """Yields an event for each verdict, and for each verdict of a combined check."""
        for verdict in verdicts:
            attributes = {
                **conventions.evaluation(verdict, explain=self._content),
                "orchestra.check.deterministic": verdict.deterministic,
            }
            if check:
                attributes["orchestra.check.combined"] = check
            yield SpanEvent(conventions.EVALUATION_EVENT, at, attributes)
            yield from self._evaluations(verdict.parts, at, verdict.check)

    # Plans and questions

    def _plan_turn(self, event: TurnStarted) -> list[Span]:
        draft, plan = event.draft, self._plans.get(event.node)
        assert draft is not None, "the caller has checked it"
        spans: list[Span] = []
        if plan is not None and plan.version != draft.version:
            spans = [
                self._drop_attempt(attempt, event.at, CANCELLED)
                for path, attempt in list(self._attempts.items())
                if is_inside(path, f"{event.node}@{plan.version}")
            ]
            spans += self._close_plan(event.node, None)
            plan = None
        if plan is None:
            plan = self._plans[event.node] = _Plan(draft.version, event.at, event.at)
        plan.end = event.at
        plan.attributes = {
            "orchestra.plan.version": draft.version,
            "orchestra.plan.lines": len(draft.lines),
            "orchestra.plan.repaired_lines": draft.repaired_lines,
            "orchestra.plan.escalated": draft.escalated,
            **({"orchestra.plan.agreement": draft.agreement} if draft.agreement is not None else {}),
            **({"orchestra.reused_from": draft.reused_from} if draft.reused_from else {}),
            **({"orchestra.plan.content": "\n".join(draft.lines)} if self._content else {}),
        }
        return spans

    def _close_plan(self, node: str, outcome: Outcome | None) -> list[Span]:
        plan = self._plans.pop(node, None)
        if plan is None:
            return []
        failed_outcome = outcome if isinstance(outcome, FailedOutcome) else None
        span = self._span(
            conventions.PLAN,
            self._plan_id(node, plan.version),
            self._parent_id(node),
            (plan.start, plan.end),
            {**self._common(conventions.PLAN), "orchestra.node.path": node, **plan.attributes},
            error=failed_outcome.code if failed_outcome is not None and failed_outcome.code.startswith("R") else "",
            reason=failed_outcome.reason if failed_outcome is not None else "",
        )
        return [span]

    def _planning(self, path: str) -> _Plan | None:
        """Returns the plan to which a call to the router belongs; None for another call."""
        if not self._plans:
            return None
        inner = path
        while inner:
            outer = parent(inner)
            if outer in self._plans and inner[len(outer)] == "#":
                return self._plans[outer]
            inner = outer
        return None

    def _question_span(self, question: QuestionAsked, answer: QuestionAnswered | None, at: float = 0.0) -> Span:
        answer_text = "no answer" if answer is None else "declined" if answer.decline_reason else "answered"
        return self._span(
            "ask",
            span_id(self.run, "ask", question.node, question.seq),
            self._parent_id(question.node),
            (question.at, at if answer is None else answer.at),
            {
                **self._common("ask"),
                "orchestra.node.path": question.node,
                "orchestra.question.kind": question.kind,
                "orchestra.question.outcome": answer_text,
            },
        )

    # The run

    def _finish_run(self, event: RunFinished) -> list[Span]:
        spans = [self._drop_attempt(attempt, event.at, CANCELLED) for attempt in list(self._attempts.values())]
        for node in list(self._plans):
            spans += self._close_plan(node, None)
        spans += [self._question_span(question, None, event.at) for question in self._questions.values()]
        self._questions.clear()
        outcome, start_event = event.outcome, self.started
        attributes = {
            **self._common(conventions.INVOKE_WORKFLOW),
            **conventions.usage(event.usage),
            "orchestra.run.id": self.run,
            "orchestra.run.status": event.status,
            "orchestra.run.label": start_event.label,
            "orchestra.run.calls": event.usage.calls,
            "orchestra.run.money": event.usage.money,
            "orchestra.run.resumptions": self._resumptions,
        }
        if start_event.parent:
            attributes["orchestra.run.parent"] = start_event.parent
        if start_event.options.get("purpose"):
            attributes["orchestra.run.purpose"] = str(start_event.options["purpose"])
        if isinstance(outcome, AbstainedOutcome) and outcome.score is not None:
            attributes["orchestra.score"] = outcome.score
        if self._dropped_events:
            attributes["orchestra.run.dropped_events"] = self._dropped_events
        if self._content:
            output = outcome.value if isinstance(outcome, ValueOutcome) else None
            attributes |= conventions.value_content(start_event.inputs, output)
        failed_outcome = outcome if isinstance(outcome, FailedOutcome) else None
        root = self._span(
            self.name,
            self.root_id,
            None,
            (start_event.at, event.at),
            attributes,
            events=tuple(self._events),
            error="" if failed_outcome is None else failed_outcome.code,
            reason="" if failed_outcome is None else failed_outcome.reason,
        )
        return [*spans, root]

    def _add_event(self, name: str, at: float, **attributes: Any) -> None:
        if len(self._events) < MAX_RUN_EVENTS:
            values = {f"orchestra.{'node.path' if key == 'node' else key}": value for key, value in attributes.items()}
            self._events.append(SpanEvent(name, at, values))
        else:
            self._dropped_events += 1

    # Parts of spans

    def _span(
        self,
        name: str,
        own_id: int,
        parent_id: int | None,
        times: tuple[float, float],
        attributes: Mapping[str, Any],
        *,
        events: tuple[SpanEvent, ...] = (),
        error: str = "",
        reason: str = "",
        is_request: bool = False,
    ) -> Span:
        start, end = times
        return Span(
            name=name,
            trace_id=self.trace_id,
            span_id=own_id,
            parent=self.caller if parent_id is None else TraceContext(self.trace_id, parent_id),
            start=start,
            end=max(start, end),
            attributes={**attributes, **({conventions.ERROR_TYPE: error} if error else {})},
            events=events,
            error=error,
            reason=conventions.shorten(reason) if self._content and error else "",
            is_request=is_request,
        )

    def _common(self, operation: str) -> Attributes:
        return conventions.operation(operation, self.started.workflow)

    def _node(self, attempt: _Attempt) -> Attributes:
        return {"orchestra.node.path": attempt.node, "orchestra.attempt": attempt.number}

    def _attempt_id(self, node: str, number: int, resumptions: int, operation: str = "") -> int:
        return span_id(self.run, "attempt", node, number, resumptions, operation)

    def _plan_id(self, node: str, version: int) -> int:
        return span_id(self.run, conventions.PLAN, node, version)

    def _parent_id(self, path: str) -> int:
        """Returns the enclosing span of a node: the attempt that a check is about, the plan of a call to the router, or
        the run.
        """
        inner = path
        while outer := parent(inner):
            mark = inner[len(outer)]
            if mark == "?" and (attempt := self._attempts.get(outer)) is not None:
                return self._attempt_id(outer, attempt.number, attempt.resumptions)
            if mark == "#" and (plan := self._plans.get(outer)) is not None:
                return self._plan_id(outer, plan.version)
            inner = outer
        return self.root_id

    def _is_agent(self, attempt: _Attempt) -> bool:
        """Whether an agent is called: the run names its agents and tools; else agents have tokens."""
        versions, name = self.started.versions, attempt.name
        if f"card/{name}" in versions or f"contract/agent/{name}" in versions:
            return True
        usage = attempt.finished.usage if attempt.finished is not None else None
        return f"contract/tool/{name}" not in versions and usage is not None and usage.prompt_tokens > 0


def _reached_model(event: AttemptFinished) -> bool:
    """Whether a request was sent to a model server. Agents in this process send none."""
    return bool(event.model and event.sent and not event.reused_from)
