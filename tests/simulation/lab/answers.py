"""Sources of answers for the oracle: the answers of agents, tools and persons, recorded in a run's events or
invented.
"""

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
    """The answers of agents, tools and persons, which the oracle cannot derive."""

    inputs: Mapping[str, Any]
    run: str
    label: Label
    tiers: tuple[str, ...]
    """The fleet's larger models at the start of the run."""

    given: Mapping[str, Override]
    """Values that persons set instead of the results of steps, by path."""

    def attempt(self, call: CallRequest) -> AttemptFinished | None:
        """Returns how an attempt ended; None if it did not."""

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """Returns the answer of a person."""

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """Returns a person's answer to a question about a rejected value."""

    def declined_repeat(self, path: str) -> bool:
        """Whether a person refused to repeat a call that must happen once."""

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """Returns the result that a person reported for a call in doubt; None without a report."""

    def outcome(self, path: str) -> Outcome | None:
        """Returns the outcome of a unit; None if it is not recorded."""


@dataclass(slots=True)
class RunRecord:
    """The answers in a run's events. `unread` are the recorded attempts that the oracle has not asked for."""

    inputs: Mapping[str, Any] = field(default_factory=dict)
    run: str = ""
    label: Label = "internal"
    tiers: tuple[str, ...] = ()
    given: Mapping[str, Override] = field(default_factory=dict)
    attempts: dict[tuple[str, int], AttemptFinished] = field(default_factory=dict)
    answers: dict[str, list[QuestionAnswered]] = field(default_factory=dict)
    asked: dict[str, list[QuestionAsked]] = field(default_factory=dict)
    corrections: dict[str, QuestionAnswered] = field(default_factory=dict)
    """Path to the value that a person gave instead of a rejected one."""
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    ends: dict[str, Event] = field(default_factory=dict)
    """Path to the event with the outcome of a unit."""
    starts: dict[str, Event] = field(default_factory=dict)
    """Path to the first event of a unit."""
    counts: dict[str, int] = field(default_factory=dict)
    turns: dict[str, list[TurnStarted]] = field(default_factory=dict)
    checks: dict[tuple[str, int], ChecksStarted] = field(default_factory=dict)
    """Path and round to the questions of checks."""
    judged: dict[tuple[str, int], OutputJudged] = field(default_factory=dict)
    duplicate_ends: list[str] = field(default_factory=list)
    """Units with two outcomes."""
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
        """Returns the seconds from an event to a time during which no process had the run."""
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
        """Returns the recorded end of an attempt."""
        return self.attempts.get((call.node, call.attempt))

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """Returns the first recorded answer."""
        return next(iter(self.answers.get(path, ())), None)

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """Returns the recorded answer of the person."""
        return self.corrections.get(path)

    def declined_repeat(self, path: str) -> bool:
        """Whether the last recorded answer is a refusal."""
        return bool(self.answers.get(path)) and self.answers[path][-1].value != "again"

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """Returns the result in the last recorded answer, if it has one."""
        last = self.answers[path][-1] if self.answers.get(path) else None
        return last if last is not None and last.call_happened else None

    def outcome(self, path: str) -> Outcome | None:
        """Returns the recorded outcome."""
        return self.outcomes.get(path)


@dataclass(slots=True)
class FaultlessAnswers:
    """The answers of a run without faults: every call and every question is answered."""

    inputs: Mapping[str, Any]
    run: str
    label: Label
    call: Callable[[CallRequest], Any]
    person: Callable[[str, CompiledNode, str], tuple[Any, str]]
    """Returns a person's answer, and the reason of a refusal."""
    refusal_code: Callable[[CallRequest], str]
    """Returns the error code of a call for which there is no larger model; else an empty string."""
    tiers: tuple[str, ...] = ()
    given: Mapping[str, Override] = field(default_factory=dict)

    def attempt(self, call: CallRequest) -> AttemptFinished | None:
        """Returns a successful end, or the error if there is no larger model."""
        if code := self.refusal_code(call):
            return AttemptFinished(seq=0, at=0.0, node=call.node, attempt=call.attempt, error=code)
        return AttemptFinished(seq=0, at=0.0, node=call.node, attempt=call.attempt, value=self.call(call))

    def answer(self, path: str, node: CompiledNode, question: str) -> QuestionAnswered | None:
        """Returns the person's answer."""
        value, declined = self.person(path, node, question)
        return QuestionAnswered(seq=0, at=0.0, node=path, value=value, decline_reason=declined)

    def correction(self, path: str, node: CompiledNode) -> QuestionAnswered | None:
        """Returns the person's answer."""
        return self.answer(path, node, "")

    def declined_repeat(self, path: str) -> bool:
        """Returns False: no person is asked."""
        return False

    def reported_result(self, path: str) -> QuestionAnswered | None:
        """Returns None: no person is asked."""
        return None

    def outcome(self, path: str) -> Outcome | None:
        """Returns None: there is no record."""
        return None
