"""`orchestra runs tail`: prints the events of a run when they happen, one line each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import assert_never

from orchestra.app.run_text import describe_given, format_value
from orchestra.cli.output import json_line, print_note, print_text
from orchestra.cli.run import questions
from orchestra.cli.runs.find import open_journal_of, status_of, why_interrupted
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    InboxMessageRejected,
    MapExpanded,
    NodeFinished,
    OutputJudged,
    PlanDraft,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TokensCounted,
    TurnStarted,
    encode,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome, Outcome, SkippedOutcome, ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.core.quantities import format_duration, format_time
from orchestra.core.untrusted_text import escape_invisible, pluralize, shorten
from orchestra.journal.history import History

POLL_SECONDS = 0.5
"""Seconds between two reads."""
MAX_TEXT_LENGTH = 200
"""The maximum number of characters of a value or a reason on a line."""


async def tail(name: str, *, follow: bool, as_json: bool) -> None:
    """Prints the events of a run in any process, until it ends or no process continues it."""
    async with open_journal_of(name) as (journal, run):
        events: list[Event] = []
        while True:
            fresh = await journal.read(run, events[-1].seq if events else 0)
            events += fresh
            for event in fresh:
                sys.stdout.write(json_line(encode(event)) if as_json else f"{format_event(event)}\n")
            sys.stdout.flush()
            if not follow or isinstance(events[-1], RunFinished):
                return
            if not fresh and (reason := await _rest_reason(journal, run, events)):
                (print_note if as_json else print_text)(reason)
                return
            await asyncio.sleep(POLL_SECONDS)


async def _rest_reason(journal: Journal, run: str, events: Sequence[Event]) -> str:
    """Why no more events will follow; empty if some may."""
    match await status_of(journal, run):
        case "waiting":
            return f"waits for a person\n{questions.format_open_questions(run, History.of(events).open_questions)}"
        case "interrupted":
            return f"interrupted: {await why_interrupted(journal, run, events)}"
        case "":
            return f"run {run} was deleted"
        case _:
            return ""


def format_event(event: Event) -> str:
    """An event as one line with its time of day."""
    node = getattr(event, "node", "")
    return escape_invisible(
        f"{format_time(event.at).rpartition(' ')[2]}  {f'{node}: ' if node else ''}{_describe_event(event)}", keep=""
    )


def _describe_event(event: Event) -> str:  # one line for each kind of event of a closed union
    match event:
        case RunStarted():
            return f"{event.workflow} started, run {event.run}{f', forked from {event.parent}' if event.parent else ''}"
        case RunResumed():
            return f"resumed{_author_suffix(event.by)}"
        case MapExpanded():
            return pluralize(event.count, "element")
        case TurnStarted():
            if event.choice_reason:
                return f"chooses {event.choice_reason}"
            return _describe_plan(event.draft) if event.draft is not None else f"turn {event.turn} starts"
        case AttemptStarted():
            tier = f" of larger model {event.tier}" if event.tier else " of the larger model" if event.escalated else ""
            because = f", for {event.escalation_reason}" if event.escalation_reason else ""
            return f"calling {event.name}{tier}{f', attempt {event.attempt}' if event.attempt > 1 else ''}{because}"
        case AttemptFinished():
            return _describe_attempt(event)
        case ChecksStarted():
            text = ", ".join(dict.fromkeys(question.agent for question in event.questions))
            times = f", {len(event.questions)} times" if len(event.questions) > 1 else ""
            stake = event.priority
            reason = (
                ""
                if stake is None
                else f", for an uncertainty of {stake.uncertainty:.2f} with influence {stake.influence:.2f}"
            )
            return f"the check {event.check} calls {text}{times}{reason}"
        case OutputJudged():
            return "accepted by the checks" if event.accepted else f"rejected by the checks: {_shorten(event.reason)}"
        case RetryPlanned():
            return f"attempt {event.attempt} starts in {format_duration(max(0.0, event.due - event.at))}"
        case NodeFinished():
            if event.overridden_by is not None and isinstance(event.outcome, ValueOutcome):
                return describe_given(event.overridden_by)
            return (
                _describe_outcome(event.outcome)
                if event.original_outcome is None
                else f"its fallback is used: {_describe_outcome(event.original_outcome)}"
            )
        case QuestionAsked():
            return f"a person is asked: {_shorten(event.question)}"
        case QuestionAnswered() | InboxMessageRejected() | CancelRequested():
            return describe_incident(event)
        case TokensCounted():
            return f"its prompt has {event.prompt_tokens} tokens"
        case RunFinished():
            return f"the run has ended: {event.status}{_outcome_reason(event.outcome)}"
        case never:
            assert_never(never)


def describe_incident(event: RunResumed | QuestionAnswered | InboxMessageRejected | CancelRequested) -> str:
    """Describes an external event of a run."""
    match event:
        case RunResumed():
            return f"resumed{_author_suffix(event.by)}"
        case QuestionAnswered() if event.decline_reason:
            return f"declined{_author_suffix(event.by)}: {_shorten(event.decline_reason)}"
        case QuestionAnswered() if event.call_happened:
            return (
                f"{event.by or 'a person'} reports that the call happened, with the result "
                f"{_shorten(format_value(event.value))}"
            )
        case QuestionAnswered():
            return f"answered{_author_suffix(event.by)}: {_shorten(format_value(event.value))}"
        case InboxMessageRejected():
            return f"message {event.message_number} was refused: {_shorten(event.reason)}"
        case CancelRequested():
            return f"asked to end{_author_suffix(event.by)}"
        case never:
            assert_never(never)


def _describe_plan(draft: PlanDraft) -> str:
    """The progress of a plan: the failed or rejected line, or the current one; for an agent with tools, its next
    action.
    """
    sample_text = f"sample {draft.sample}: " if draft.sample else ""
    if draft.failed_calls and not draft.rejections:
        line, reason = draft.failed_calls[-1]
        return f"{sample_text}the router writes a new plan, version {draft.version}: {_shorten(f'{line}: {reason}')}"
    name, node = next(iter(draft.graph["nodes"].items()))
    if name == "answer":
        return "it is called for its answer"
    if "steps" in node.get("with", ()) and name == "line":
        return (
            f"it is called again: {_shorten(draft.rejections[-1][2])}"
            if draft.rejections
            else "it is called for its next line"
        )
    if draft.lines and name != "line" and not draft.lines[-1].startswith("return "):
        return f"calls: {_shorten(draft.lines[-1])}"
    if draft.rejections:
        _, path, reason, _ = draft.rejections[-1]
        whom = "the larger planner" if draft.escalated else "the router"
        return f"{sample_text}{whom} is called again: {_shorten(f'{path}: {reason}')}"
    if draft.reused_from:
        return f"planned, as for run {draft.reused_from}: {_shorten(draft.lines[-1])}"
    if draft.warning:
        return f"{_shorten(draft.warning)}; the router is called for a plan"
    if draft.agreement is not None:
        return (
            f"planned, {draft.agreement:.0%} of {len(draft.sampled_plans)} samples agree: {_shorten(draft.lines[-1])}"
        )
    return (
        f"{sample_text}planned: {_shorten(draft.lines[-1])}"
        if draft.lines
        else f"{sample_text}the router is called for a plan"
    )


def _describe_attempt(event: AttemptFinished) -> str:
    if event.reused_from:
        override = f", {describe_given(event.overridden_by)}" if event.overridden_by is not None else ""
        return f"recalled from run {event.reused_from}{override}"
    if event.error:
        return f"attempt {event.attempt} failed: {event.error}: {_shorten(event.reason)}"
    return "done" if event.final else "answered"


def _describe_outcome(outcome: Outcome) -> str:
    match outcome:
        case ValueOutcome():
            return "done"
        case SkippedOutcome(reason):
            return f"skipped: {_shorten(reason)}"
        case AbstainedOutcome(reason):
            return f"withheld: {_shorten(reason)}"
        case FailedOutcome(code, reason):
            return f"failed: {code}: {_shorten(reason)}"
        case never:
            assert_never(never)


def _outcome_reason(outcome: Outcome) -> str:
    return (
        ""
        if isinstance(outcome, ValueOutcome)
        else f", {f'{outcome.origin}: ' if outcome.origin else ''}{_shorten(outcome.reason)}"
    )


def _author_suffix(author: str) -> str:
    return f" by {author}" if author else ""


def _shorten(text: str) -> str:
    return shorten(" ".join(text.split()), MAX_TEXT_LENGTH)
