"""`orchestra runs tail`: the events of a run as they come, a readable line each."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import assert_never

from orchestra.cli.output import json_line, moment, note, say, seconds
from orchestra.cli.run import questions
from orchestra.cli.run.result_view import as_text
from orchestra.cli.runs.find import opened_at, status_of, why_interrupted
from orchestra.core.events import (
    Answered,
    Asked,
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Drafted,
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
    encode,
)
from orchestra.core.outcomes import Abstained, Failed, Outcome, Skipped, Value
from orchestra.core.protocols import Journal
from orchestra.core.untrusted_text import counted, shortened, visible
from orchestra.journal.history import Attempt, History, Row

POLL = 0.5
"""Seconds between two looks."""
LONG = 200
"""Characters of a value or a reason that a line shows at most."""


async def tail(name: str, *, follow: bool, as_json: bool) -> None:
    """Prints the events of a run, also of one that another process has in hand, until it ends or nobody goes on with it."""
    async with opened_at(name) as (journal, run):
        events: list[Event] = []
        while True:
            fresh = await journal.read(run, events[-1].seq if events else 0)
            events += fresh
            for event in fresh:
                sys.stdout.write(json_line(encode(event)) if as_json else f"{line_of(event)}\n")
            sys.stdout.flush()
            if not follow or isinstance(events[-1], RunFinished):
                return
            if not fresh and (why := await _at_rest(journal, run, events)):
                (note if as_json else say)(why)
                return
            await asyncio.sleep(POLL)


async def _at_rest(journal: Journal, run: str, events: Sequence[Event]) -> str:
    """Why nothing more will come; empty where something may."""
    match await status_of(journal, run):
        case "waiting":
            return f"waits for a person\n{questions.waiting_text(run, History.of(events).asked)}"
        case "interrupted":
            return f"interrupted: {await why_interrupted(journal, run, events)}"
        case "":
            return f"run {run} was deleted"
        case _:
            return ""


def line_of(event: Event) -> str:
    """An event as one line for a person, with its time of day."""
    node = getattr(event, "node", "")
    return visible(f"{moment(event.at).rpartition(' ')[2]}  {f'{node}: ' if node else ''}{_said(event)}", keep="")


def _said(event: Event) -> str:  # one line a kind of event, of a closed union
    match event:
        case RunStarted():
            return f"{event.workflow} begins, run {event.run}{f', forked from {event.parent}' if event.parent else ''}"
        case Resumed():
            return f"resumed{_by(event.by)}"
        case Expanded():
            return counted(event.count, "element")
        case TurnStarted():
            if event.because:
                return f"chooses {event.because}"
            return _drafted(event.drafted) if event.drafted is not None else f"turn {event.turn} begins"
        case AttemptStarted():
            tier = f" of larger model {event.tier}" if event.tier else " of the larger model" if event.escalated else ""
            because = f", for {event.because}" if event.because else ""
            return f"{event.name} is asked{tier}{f', attempt {event.attempt}' if event.attempt > 1 else ''}{because}"
        case AttemptFinished():
            return _answered(event)
        case ChecksStarted():
            asked = ", ".join(dict.fromkeys(question.agent for question in event.questions))
            times = f", {len(event.questions)} times" if len(event.questions) > 1 else ""
            stake = event.stake
            why = "" if stake is None else f", for a doubt of {stake.doubt:.2f} with influence {stake.influence:.2f}"
            return f"the check {event.check} asks {asked}{times}{why}"
        case Judged():
            return "the checks accept it" if event.accepted else f"the checks do not accept it: {_short(event.reason)}"
        case RetryPlanned():
            return f"attempt {event.attempt} follows in {seconds(max(0.0, event.due - event.at))}"
        case NodeFinished():
            if event.given is not None and isinstance(event.outcome, Value):
                return given_text(event.given)
            return _came_to(event.outcome) if event.instead is None else f"its fallback was taken: {_came_to(event.instead)}"
        case Asked():
            return f"a person is asked: {_short(event.question)}"
        case Answered() | LetterRefused() | CancelRequested():
            return incident(event)
        case Measured():
            return f"its prompt has {event.prompt_tokens} tokens"
        case RunFinished():
            return f"the run is over: {event.status}{_reason(event.outcome)}"
        case never:
            assert_never(never)


def incident(event: Resumed | Answered | LetterRefused | CancelRequested) -> str:
    """What happened to a run from outside."""
    match event:
        case Resumed():
            return f"resumed{_by(event.by)}"
        case Answered() if event.declined:
            return f"declined{_by(event.by)}: {_short(event.declined)}"
        case Answered() if event.gave:
            return f"it happened, as {event.by or 'a person'} says, and gave {_short(as_text(event.value))}"
        case Answered():
            return f"answered{_by(event.by)}: {_short(as_text(event.value))}"
        case LetterRefused():
            return f"letter {event.letter} was refused: {_short(event.reason)}"
        case CancelRequested():
            return f"asked to end{_by(event.by)}"
        case never:
            assert_never(never)


def given_text(given: Given) -> str:
    """That a person said what a step gave: who, and in which run."""
    return f"given by {given.by or 'a person'}{f', in run {given.run}' if given.run else ''}"


def chosen_text(tried: Attempt) -> str:
    """Which model a condition chose, and why."""
    return f"{'the larger model at once' if tried.escalated else 'its own model'}, for {tried.because}"


def choices(rows: Iterable[Row]) -> Iterator[str]:
    """Which agents, and which models, were chosen, and why."""
    for row in rows:
        if row.because:
            yield f"{row.path}: chose {row.because}"
        yield from (f"{row.path}: {chosen_text(tried)}" for tried in row.attempts if tried.because)


def _drafted(drafted: Drafted) -> str:
    """How far a plan is: what failed or was not accepted, or the line that stands now; or what an agent with tools does next."""
    which = f"sample {drafted.sample}: " if drafted.sample else ""
    if drafted.failed and not drafted.rejected:
        line, reason = drafted.failed[-1]
        return f"{which}the router is asked for another plan, version {drafted.version}: {_short(f'{line}: {reason}')}"
    name, node = next(iter(drafted.graph["nodes"].items()))
    if name == "answer":
        return "it is asked for its answer"
    if "steps" in node.get("with", ()) and name == "line":
        return f"it is asked again: {_short(drafted.rejected[-1][2])}" if drafted.rejected else "it is asked for its next line"
    if drafted.lines and name != "line" and not drafted.lines[-1].startswith("return "):
        return f"calls: {_short(drafted.lines[-1])}"
    if drafted.rejected:
        _, path, reason, _ = drafted.rejected[-1]
        whom = "the larger planner" if drafted.larger else "the router"
        return f"{which}{whom} is asked again: {_short(f'{path}: {reason}')}"
    if drafted.recalled:
        return f"planned, as for run {drafted.recalled}: {_short(drafted.lines[-1])}"
    if drafted.remark:
        return f"{_short(drafted.remark)}; the router is asked for a plan"
    if drafted.agreement is not None:
        return f"planned, {drafted.agreement:.0%} of {len(drafted.plans)} samples agree: {_short(drafted.lines[-1])}"
    return f"{which}planned: {_short(drafted.lines[-1])}" if drafted.lines else f"{which}the router is asked for a plan"


def _answered(event: AttemptFinished) -> str:
    if event.recalled:
        return f"recalled from run {event.recalled}{f', {given_text(event.given)}' if event.given is not None else ''}"
    if event.error:
        return f"attempt {event.attempt} failed: {event.error}: {_short(event.reason)}"
    return "done" if event.settled else "an answer came"


def _came_to(outcome: Outcome) -> str:
    match outcome:
        case Value():
            return "done"
        case Skipped(reason):
            return f"skipped: {_short(reason)}"
        case Abstained(reason):
            return f"withheld: {_short(reason)}"
        case Failed(code, reason):
            return f"failed: {code}: {_short(reason)}"
        case never:
            assert_never(never)


def _reason(outcome: Outcome) -> str:
    return "" if isinstance(outcome, Value) else f", {f'{outcome.by}: ' if outcome.by else ''}{_short(outcome.reason)}"


def _by(who: str) -> str:
    return f" by {who}" if who else ""


def _short(text: str) -> str:
    return shortened(" ".join(text.split()), LONG)
