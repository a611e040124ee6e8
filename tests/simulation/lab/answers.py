"""Books: what no recursion over a workflow can know, the answers of agents, tools and persons. Those of a run's events, or made up."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    ChecksStarted,
    Event,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    Override,
    QuestionAnswered,
    QuestionAsked,
    RunResumed,
    RunStarted,
    TurnStarted,
)
from orchestra.core.labels import Label
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.workflows.program import CompiledNode


class AnswerSource(Protocol):
    """Where the oracle finds what no recursion can know: what agents, tools and persons answered."""

    inputs: Mapping[str, Any]
    run: str
    label: Label
    tiers: tuple[str, ...]
    """The fleet's larger models, as the run began."""

    given: Mapping[str, Override]
    """What persons gave in the place of what steps would come to, by path."""

    def attempt(self, call: CallRequest) -> AttemptFinished | None:
        """How an attempt ended; None where it never did."""

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """What a person answered."""

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """What a person answered who was shown a value that was not accepted."""

    def declined_repeat(self, path: str) -> bool:
        """Whether a person said not to call again what must happen once."""

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """What a person says that a call in doubt gave; None where nobody says so."""

    def outcome(self, path: str) -> Outcome | None:
        """What a unit ended in; None where that is not on record."""


@dataclass(slots=True)
class RunRecord:
    """The book of a run's events. Of attempts on record, those are left in `unread` that nobody asked for."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    label: Label = "internal"
    tiers: tuple[str, ...] = ()
    given: Mapping[str, Override] = field(default_factory=dict)
    attempts: dict[tuple[str, int], AttemptFinished] = field(default_factory=dict)
    answers: dict[str, list[QuestionAnswered]] = field(default_factory=dict)
    asked: dict[str, list[QuestionAsked]] = field(default_factory=dict)
    corrections: dict[str, QuestionAnswered] = field(default_factory=dict)
    """By path: what a person gave in the place of a value that was not accepted."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ends: dict[str, Event] = field(default_factory=dict)
    """By path: the event that gave a unit its outcome."""
    starts: dict[str, Event] = field(default_factory=dict)
    """By path: the first event that says that a unit has begun."""
    counts: dict[str, int] = field(default_factory=dict)
    turns: dict[str, list[TurnStarted]] = field(default_factory=dict)
    checks: dict[tuple[str, int], ChecksStarted] = field(default_factory=dict)
    """By path and round: what checks asked."""
    judged: dict[tuple[str, int], OutputJudged] = field(default_factory=dict)
    duplicate_ends: list[str] = field(default_factory=list)
    """What has two ends."""
    resumed: list[RunResumed] = field(default_factory=list)
    events: Sequence[Event] = ()

    @classmethod
    def from_events(cls, events: Sequence[Event]) -> RunRecord:
        """Sorts a run's events."""
        book = cls(events=events)
        for event in events:
            match event:
                case AttemptFinished():
                    book._record_start(event)
                    if (event.node, event.attempt) in book.attempts:
                        book.duplicate_ends.append(f"attempt {event.attempt} of {event.node}")
                    book.attempts[event.node, event.attempt] = event
                    if event.final:
                        book._record_end(event, ValueOutcome(event.value, event.confidence))
                case AttemptStarted():
                    book._record_start(event)
                case NodeFinished():
                    book._record_start(event)
                    book._record_end(event, event.outcome)
                case ChecksStarted():
                    book._record_start(event)
                    if (event.node, event.round) in book.checks:
                        book.duplicate_ends.append(f"the {event.round}. questions of {event.node}")
                    book.checks[event.node, event.round] = event
                case OutputJudged():
                    book.judged[event.node, event.attempt] = event
                case MapExpanded():
                    book._record_start(event)
                    book.counts[event.node] = event.count
                case TurnStarted():
                    book._record_start(event)
                    book.turns.setdefault(event.node, []).append(event)
                case QuestionAsked():
                    book._record_start(event)
                    book.asked.setdefault(event.node, []).append(event)
                case QuestionAnswered() if book.is_correction(event):
                    book.corrections[event.node] = event
                case QuestionAnswered():
                    book.answers.setdefault(event.node, []).append(event)
                case RunResumed():
                    book.resumed.append(event)
                case RunStarted():
                    book.inputs, book.run, book.label, book.tiers = event.inputs, event.run, event.label, event.tiers
                    book.given = event.overrides or {}
                case _:
                    pass
        return book

    def unattended_seconds(self, since: Any, until: float) -> float:
        """Seconds from an event to a time in which nobody had the run in hand."""
        return sum(event.idle_seconds for event in self.resumed if event.seq > since.seq and event.at <= until)

    def is_correction(self, event: QuestionAnswered) -> bool:
        """Whether an answer is to a question about acceptance."""
        asked = self.asked.get(event.node)
        return asked is not None and asked[-1].kind == "acceptance"

    def _record_start(self, event: Any) -> None:
        self.starts.setdefault(event.node, event)

    def _record_end(self, event: Any, outcome: Outcome) -> None:
        if event.node in self.outcomes:
            self.duplicate_ends.append(event.node)
        self.outcomes[event.node], self.ends[event.node] = outcome, event

    def attempt(self, call: CallRequest) -> AttemptFinished | None:
        """The end of an attempt, as it is on record."""
        return self.attempts.get((call.node, call.attempt))

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """The first answer on record."""
        return next(iter(self.answers.get(path, ())), None)

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """The person's answer on record."""
        return self.corrections.get(path)

    def declined_repeat(self, path: str) -> bool:
        """Whether the last answer on record is a no."""
        return bool(self.answers.get(path)) and self.answers[path][-1].value != "again"

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """What stands in the last answer on record, where that says so."""
        last = self.answers[path][-1] if self.answers.get(path) else None
        return last if last is not None and last.call_happened else None

    def outcome(self, path: str) -> Outcome | None:
        """The outcome on record."""
        return self.outcomes.get(path)


@dataclass(slots=True)
class FaultlessAnswers:
    """The book of a run in which nothing goes wrong: every call is answered, and every question."""

    inputs: Mapping[str, Any]
    run: str
    label: Label
    call: Callable[[CallRequest], Any]
    person: Callable[[str, CompiledNode, str], tuple[Any, str]]
    """What a person answers, and why he does not, where he declines."""
    refusal_code: Callable[[CallRequest], str]
    """Why no larger model answers a call that asks for one, as a code; empty where it does."""
    tiers: tuple[str, ...] = ()
    given: Mapping[str, Override] = field(default_factory=dict)

    def attempt(self, call: CallRequest) -> AttemptFinished | None:
        """An end with a value; without one where there is no larger model."""
        if code := self.refusal_code(call):
            return AttemptFinished(seq=0, at=0.0, node=call.node, attempt=call.attempt, error=code)
        return AttemptFinished(seq=0, at=0.0, node=call.node, attempt=call.attempt, value=self.call(call))

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """The person's answer."""
        value, declined = self.person(path, node, question)
        return QuestionAnswered(seq=0, at=0.0, node=path, value=value, decline_reason=declined)

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """The person's answer."""
        return self.answer(path, node, "")

    def declined_repeat(self, path: str) -> bool:
        """Nobody is asked."""
        return False

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """Nobody is asked."""
        return None

    def outcome(self, path: str) -> Outcome | None:
        """There is no record."""
        return None
