"""The auditor: one list of invariants of every run, for simulations and for tests that kill real processes.

    audit(AuditCase(program, events))                            # an empty list: no findings
    audit(AuditCase(program, events, calls=…, messages=…))       # also checks the observations of the outside world

Findings start with the number of the violated invariant (docs/concepts/simulation.md): I1 a run ends or can be resumed,
I2 no call for finished units, I3 effects as declared, I4 dependencies first, I5 the outcome follows from the answers,
I6 budgets, I7 one log of events without gaps, I8 checks, I9 labels.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    CancelRequested,
    ChecksStarted,
    Event,
    InboxMessageRejected,
    NodeFinished,
    OutputJudged,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunFinished,
    RunResumed,
    RunStarted,
    TurnStarted,
)
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.paths import is_inside
from orchestra.core.protocols import OutboxMessage
from orchestra.engine.replay import replay
from orchestra.schema.types import Validator
from orchestra.workflows.program import CompiledNode, Program
from tests.simulation.lab import observer
from tests.simulation.lab.answers import FaultlessAnswers, RunRecord
from tests.simulation.lab.forks import RelatedRun, check_descent
from tests.simulation.lab.observer import ObservedCall
from tests.simulation.lab.oracle import Oracle
from tests.simulation.lab.oracle_rules import is_short, same_outcome

TIME_TOLERANCE = 1e-3
"""Tolerance of times in seconds."""


@dataclass(slots=True)
class AuditCase:
    """A run to be audited, with the known observations of the outside world."""

    program: Program
    events: Sequence[Event]
    calls: Sequence[ObservedCall] | None = None
    """All calls of all processes for the run, in order."""
    messages: Sequence[OutboxMessage] | None = None
    """The outbox messages of the run."""
    memo: Mapping[str, tuple[str, Any]] = field(default_factory=dict)
    """The memo of the journal."""
    subscriptions: Sequence[tuple[int, Sequence[Event]]] = ()
    """The first event and the received events of each subscriber."""
    clock_jumped: bool = False
    """Whether the wall clock was set during the run, which makes times unreliable."""
    cancel_times: Sequence[float] = ()
    """Wall-clock times at which a cancellation had certainly reached the run."""
    cancelled: bool = False
    """Whether a cancellation was requested."""
    left_waiting: bool = False
    """Whether the run was left waiting for a person."""
    faultless_answers: Callable[[], FaultlessAnswers] | None = None
    """Returns the answers of the run without faults."""
    related_run: RelatedRun | None = None
    """The parent of a fork, or a run that stored memos."""


def audit(case: AuditCase) -> list[str]:
    """Returns the findings; empty if all invariants hold."""
    if not case.events:
        return ["I1 the run left no events"]
    book = RunRecord.from_events(case.events)
    oracle = Oracle(case.program, book).evaluate()
    found = [f"I5 two ends: {what}" for what in book.duplicate_ends] + oracle.objections
    for look in (
        _check_log,
        _check_end,
        _check_places,
        _check_order,
        _check_concurrency,
        _check_short_lists,
        _check_budgets,
        _check_verification_budget,
        _check_times,
        _check_answers,
        _check_replay,
    ):
        found += look(case, book, oracle)
    if case.calls is not None:
        for glance in (observer.check_calls, observer.check_answers, observer.check_effects):
            found += glance(book, oracle, case.calls)
    found += observer.check_memo(book, case.memo)
    found += check_descent(book, oracle, case.related_run, case.calls or ())
    if case.messages is not None:
        found += observer.check_outbox(book, oracle, case.messages)
    if not found and case.faultless_answers is not None:
        found += _check_without_faults(case, book, oracle, case.faultless_answers)
    return found


def _check_log(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I7: one log without gaps, one start and at most one end; subscribers received a part of it."""
    found: list[str] = []
    events = case.events
    if [event.seq for event in events] != list(range(1, len(events) + 1)):
        found.append("I7 the events are not numbered 1, 2, 3, …")
    if not isinstance(events[0], RunStarted) or any(isinstance(event, RunStarted) for event in events[1:]):
        found.append("I7 a run has one beginning")
    if any(isinstance(event, RunFinished) for event in events[:-1]):
        found.append("I7 events after the end")
    epochs = [event.epoch for event in events if isinstance(event, RunResumed)]
    if epochs != sorted(set(epochs)) or (epochs and epochs[0] < 2):
        found.append(f"I7 the epochs of a run do not increase: {epochs}")
    for after, seen in case.subscriptions:
        if list(seen) != list(events[after : after + len(seen)]):
            found.append(f"I7 a subscriber after {after} received other events than the journal has")
    return found


def _check_end(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I1, I5: how the run ended, and that every unit has an outcome."""
    last = case.events[-1]
    if not isinstance(last, RunFinished):
        if not case.left_waiting:
            return [f"I1 the run neither ended nor waits for a person; its last event is {type(last).__name__}"]
        open_questions = {event.node for event in case.events if isinstance(event, QuestionAsked)} - set(
            recorded.outcomes
        )
        return [] if open_questions else ["I1 the run waits without a question"]
    if last.status == "cancelled":
        asked = any(isinstance(event, CancelRequested) for event in case.events)
        return [] if asked and case.cancelled else ["I5 cancelled without a request"]
    budget = case.program.budget
    if not case.clock_jumped and any(last.at > heard for heard in case.cancel_times):
        return [f"I1 the run was to be cancelled, and ended as {last.status}"]
    if _ended_for_time(last) and budget is not None and budget.seconds is not None:
        return []
    spared = oracle.timed_out | oracle.dropped | oracle.short_lists
    untold = [path for path in oracle.missing_outcomes if path not in oracle.dropped and not _is_within(path, spared)]
    found = [f"I5 {path} has no outcome, although its answers determine it" for path in untold]
    if oracle.outcome is None:
        return [*found, "I5 the run ended, and some of its nodes did not"]
    if last.status != oracle.status or not same_outcome(last.outcome, oracle.outcome):
        found.append(f"I5 the run ended {last.status} in {last.outcome}; expected {oracle.status} in {oracle.outcome}")
    used = sum(event.usage.calls for event in case.events if isinstance(event, AttemptFinished))
    if last.usage.calls != used:
        found.append(f"I6 the run reports {last.usage.calls} calls, and {used} are recorded")
    return found


def _ended_for_time(last: Event) -> bool:
    """Whether a run ended because its time budget was used up."""
    return (
        isinstance(last, RunFinished)
        and last.status == "budget"
        and isinstance(last.outcome, FailedOutcome)
        and not last.outcome.origin
    )


def _is_within(path: str, units: set[str]) -> bool:
    return any(is_inside(path, unit) for unit in units)


def _check_places(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I5: no recorded unit is unknown to the workflow, and no attempt is unnecessary."""
    found = [
        f"I5 {path} is recorded, and the run cannot have it" for path in recorded.starts if path not in oracle.places
    ]
    for (path, number), event in recorded.attempts.items():
        if (path, number) not in oracle.calls and path in oracle.places:
            found.append(f"I5 attempt {number} of {path} is unnecessary ({event.error or 'with a value'})")
    return found


def _check_order(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I4: a unit starts when all that its node needs has an outcome, in an open scope, with its `each` expanded."""
    found: list[str] = []
    for path, begun in recorded.starts.items():
        place = oracle.places.get(path)
        if place is None:
            continue
        for need in _needed_paths(place.node, place.scope, oracle):
            ended = recorded.ends.get(need)
            if ended is None or ended.seq >= begun.seq:
                found.append(f"I4 {path} began at {begun.seq}, before {need} had ended")
        if path in oracle.earliest_starts or place.owner in oracle.earliest_starts:
            after = oracle.earliest_starts[place.owner if place.owner in oracle.earliest_starts else path]
            if after is None or begun.seq <= after:
                found.append(f"I4 {path} began at {begun.seq}, and its plan allows it after {after}")
        elif place.scope:
            owner, turn = place.scope[:-1], 1
            if "?" in owner.rpartition("/")[2]:
                asked = _checks_event(recorded, owner)
                if asked is None or asked.seq >= begun.seq:
                    found.append(f"I4 {path} began at {begun.seq}, before a check requested it")
                continue
            if "#" in (name := owner.rpartition("/")[2]):
                owner, turn = owner[: len(owner) - len(name)] + name.partition("#")[0], int(name.partition("#")[2])
            turns = [event.seq for event in recorded.turns.get(owner, ()) if event.turn == turn]
            if len(turns) != 1 or turns[0] >= begun.seq:
                found.append(f"I4 {path} began at {begun.seq}, and the {turn}. turn of {owner} at {turns}")
    return found


def _checks_event(recorded: RunRecord, scope: str) -> ChecksStarted | None:
    """Returns the event that opened the questions of a scope such as `a[2]?1`."""
    owner, _, number = scope.rpartition("?")
    return recorded.checks.get((owner, int(number)))


def _check_concurrency(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I4: the elements of an `each` that run at once do not exceed its `concurrency`."""
    found: list[str] = []
    changes: dict[str, list[tuple[int, int]]] = {}
    for path, begun in recorded.starts.items():
        place = oracle.places.get(path)
        if place is not None and place.owner and place.node.concurrency is not None:
            ended = recorded.ends.get(path)
            if ended is not begun:
                changes.setdefault(place.owner, []).append((begun.seq, 1))
                changes[place.owner] += [(ended.seq, -1)] if ended is not None else []
    for owner, steps in changes.items():
        most = oracle.places[owner].node.concurrency or 0
        under_way = 0
        for _, step in sorted(steps):
            under_way += step
            if under_way > most:
                found.append(f"I4 {under_way} elements of {owner} run, and at most {most} may")
                break
    return found


def _check_short_lists(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I4: a list that cannot satisfy `at_least` ends at once, and none of its units starts afterwards."""
    found: list[str] = []
    for owner in oracle.short_lists & recorded.ends.keys():
        end, outcomes = recorded.ends[owner], dict.fromkeys(range(recorded.counts[owner]))
        elements = sorted(
            (one.seq, path)
            for path, one in recorded.ends.items()
            if path in oracle.places and oracle.places[path].owner == owner
        )
        lost = end
        for number, (seq, path) in enumerate(elements):
            outcomes[number] = recorded.outcomes[path]
            if is_short(oracle.places[owner].node, [*outcomes.values()]):
                lost = case.events[seq - 1]
                break
        taken_over = any(isinstance(one, RunResumed) for one in case.events[lost.seq : end.seq])
        if end.at > lost.at + TIME_TOLERANCE and not case.clock_jumped and not taken_over:
            found.append(f"I4 {owner} was short at {lost.seq}, and went on until {end.seq}")
        found += [
            f"I4 {path} began at {begun.seq}, and {owner}, which is short, had ended at {end.seq}"
            for path, begun in recorded.starts.items()
            if begun.seq > end.seq and _is_within(path, {owner})
        ]
    return found


def _needed_paths(node: CompiledNode, scope: str, oracle: Oracle) -> list[str]:
    siblings = oracle.siblings[scope]
    return [scope + siblings[need].name for need in node.needs]


def _check_budgets(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I6: when a call was sent, the spent and reserved amounts left enough for it. Only a call above its bound exceeds
    the budget.
    """
    found: list[str] = []
    for scope, program in oracle.programs.items():
        budget = program.budget
        if budget is None or (budget.tokens is None and budget.calls is None):
            continue
        spent = excess = calls = 0
        under_way: dict[str, int] = {}
        for event in case.events:
            if isinstance(event, RunResumed):
                under_way.clear()
            elif isinstance(event, AttemptStarted) and event.node.startswith(scope) and _asks_model(oracle, event.node):
                under_way[event.node] = event.reserved
                held = sum(under_way.values())
                if budget.tokens is not None and spent - excess + held > budget.tokens:
                    found.append(
                        f"I6 {spent} tokens spent ({excess} beyond bounds), "
                        f"{held} in flight, of {budget.tokens} in {scope!r}"
                    )
                if budget.calls is not None and calls + len(under_way) > budget.calls:
                    found.append(
                        f"I6 {calls} calls made and {len(under_way)} in flight, of {budget.calls} in {scope!r}"
                    )
            elif (
                isinstance(event, AttemptFinished) and event.node.startswith(scope) and _asks_model(oracle, event.node)
            ):
                reserved = under_way.pop(event.node, 0)
                cost = max(0, event.usage.prompt_tokens) + max(0, event.usage.output_tokens)
                if not (cost or event.error or event.reused_from):
                    cost = reserved  # a worker that reports no cost may have spent its bound
                spent += cost
                excess += max(0, cost - reserved)
                calls += event.usage.calls
            elif isinstance(event, NodeFinished):
                for node in [node for node in under_way if node == event.node or _is_within(node, {event.node})]:
                    del under_way[node]
            elif isinstance(event, TurnStarted) and event.draft is not None:
                for node in [node for node in under_way if _is_abandoned(node, event)]:
                    del under_way[node]
    return found


def _check_verification_budget(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I6: if checks have a budget of their own, the spent and reserved amounts left enough for their calls."""
    budget = case.program.budget
    if budget is None or budget.check_tokens is None:
        return []
    found: list[str] = []
    scopes = _question_scopes(recorded)
    spent = 0
    open_: dict[str, tuple[int, int]] = {}
    for event in case.events:
        match event:
            case ChecksStarted() if event.priority is not None:
                held = sum(bound for bound, _ in open_.values())
                if spent + held + event.priority.max_tokens > budget.check_tokens:
                    more = event.priority.max_tokens
                    found.append(
                        f"I6 checks have spent {spent}, {held} are reserved and {more} more, of {budget.check_tokens}"
                    )
                open_[f"{event.node}?{event.round}"] = (event.priority.max_tokens, len(event.questions))
            case ChecksStarted():
                found.append(f"I6 {event.node} called agents above the check budget")
            case AttemptFinished() if (scope := event.node.rpartition("/")[0]) in scopes:
                used = max(0, event.usage.prompt_tokens) + max(0, event.usage.output_tokens)
                bound, questions = scopes[scope]
                spent += used if used or event.error or event.reused_from else bound // questions
                if event.final:
                    _close_question(open_, scope)
            case NodeFinished():
                _close_question(open_, event.node.rpartition("/")[0])
                for scope in [scope for scope in open_ if _is_within(scope, {event.node})]:
                    del open_[scope]
            case TurnStarted() if event.draft is not None:
                for scope in [scope for scope in open_ if _is_abandoned(scope, event)]:
                    del open_[scope]
            case _:
                pass
    return found


def _question_scopes(recorded: RunRecord) -> dict[str, tuple[int, int]]:
    """Returns the reserved amount and the number of questions of each scope."""
    return {
        f"{path}?{turn}": (said.priority.max_tokens if said.priority else 0, len(said.questions))
        for (path, turn), said in recorded.checks.items()
    }


def _close_question(open_: dict[str, tuple[int, int]], scope: str) -> None:
    """Ends a question of a scope. The last one releases the reserved amount."""
    if scope in open_:
        bound, left = open_[scope]
        if left > 1:
            open_[scope] = (bound, left - 1)
        else:
            del open_[scope]


def _is_abandoned(node: str, event: TurnStarted) -> bool:
    """Whether a call of a plan was abandoned: because of a new version, or because the answer does not depend on it."""
    drafted, rest = event.draft, node.removeprefix(event.node)
    if drafted is None or rest == node or not rest.startswith("@"):
        return drafted is not None and rest.startswith("#")
    version, _, step = rest[1:].partition("/")
    whole = drafted.lines and drafted.lines[-1].startswith("return ")
    return version != str(drafted.version) or bool(whole and step.partition("[")[0] not in drafted.graph["nodes"])


def _asks_model(oracle: Oracle, path: str) -> bool:
    place = oracle.places.get(path)
    return place is not None and place.node.kind == "agent"


def _check_times(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I5, I6: no timeout is early, and a run is not active for longer than its budget."""
    if case.clock_jumped:
        return []
    found: list[str] = []
    for path in oracle.timed_out:
        limit = _time_limit(oracle.places[path].node)
        begun: Sequence[Event] = recorded.turns[path] if path in recorded.turns else recorded.asked.get(path, ())
        if limit is None or not begun or recorded.ends[path].at < begun[0].at + limit - TIME_TOLERANCE:
            found.append(f"I5 the timeout of {path} was too early")
    for path, ended in recorded.ends.items():
        place = oracle.places.get(path)
        limit = _time_limit(place.node) if place is not None else None
        if limit is not None and path in recorded.turns:
            active = _active_seconds(case.events, recorded.turns[path][0], ended)
            if active > limit + 1.0:
                found.append(f"I5 {path} was active for {active:.1f} s of {limit:g}")
    for asked in (one for questions in recorded.asked.values() for one in questions if one.kind == "answer"):
        place = oracle.places.get(asked.node)
        limit = place.node.timeout if place is not None else None
        if limit is not None and not 0 < asked.due <= asked.at + limit + TIME_TOLERANCE:
            found.append(f"I5 {asked.node} has {limit:g} s for an answer, and its deadline is {asked.due}")
    due: dict[tuple[str, int], float] = {}
    for event in case.events:
        if isinstance(event, RetryPlanned):
            due[event.node, event.attempt] = event.due
        elif (
            isinstance(event, AttemptStarted | AttemptFinished)
            and event.at < due.get((event.node, event.attempt), 0.0) - TIME_TOLERANCE
        ):
            found.append(f"I5 attempt {event.attempt} of {event.node} was too early")
    budget = case.program.budget
    last = case.events[-1]
    if budget is not None and budget.seconds is not None:
        active = _active_seconds(case.events, case.events[0], last)
        if active > budget.seconds + TIME_TOLERANCE:
            found.append(f"I6 active for {active:.3f} s of {budget.seconds:g}")
        if _ended_for_time(last) and active < budget.seconds - TIME_TOLERANCE:
            found.append(f"I6 ended by its time budget after {active:.3f} s of {budget.seconds:g}")
    return found


def _time_limit(node: CompiledNode) -> float | None:
    """Returns the time limit of a unit with a body or a question: its `timeout`, and the budget of the called
    workflow.
    """
    stated = [
        limit for limit in (node.timeout, node.body.time_limit if node.body is not None else None) if limit is not None
    ]
    return min(stated, default=None)


def _active_seconds(events: Sequence[Event], start: Event, end: Event) -> float:
    """Returns the seconds between two events in which the run was active."""
    active, at = 0.0, start.at
    for event in events[start.seq : end.seq]:
        if not isinstance(event, RunResumed):
            active += max(0.0, event.at - at)
        at = max(at, event.at)
    return active


def _check_answers(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """I5: an answer is for the question as it was shown; each inbox message is read once, in order."""
    found: list[str] = []
    asked: dict[str, QuestionAsked] = {}
    last_message = 0
    for event in case.events:
        match event:
            case QuestionAsked():
                asked[event.node] = event
            case NodeFinished():
                asked.pop(event.node, None)
            case QuestionAnswered():
                question = asked.pop(event.node, None)
                if question is None:
                    found.append(f"I5 {event.node} was answered at {event.seq} without a question")
                elif event.decline_reason:
                    if event.value is not None or question.kind == "effect" or event.call_happened or event.by == "bob":
                        found.append(f"I5 {event.node} accepted {event.decline_reason!r} as an answer")
                elif event.call_happened:
                    fault = (
                        "no call"
                        if question.result_schema is None
                        else Validator(question.result_schema).check(event.value)
                    )
                    if fault or event.by == "bob":
                        found.append(
                            f"I5 {event.node} is reported to have returned {event.value!r}: {fault or 'by bob'}"
                        )
                elif question.options and event.value not in question.options:
                    found.append(f"I5 {event.node} has options, and {event.value!r} is not one")
                elif question.schema.get("type") == "integer" and type(event.value) is not int:
                    found.append(f"I5 {event.node} asks for a number, and got {event.value!r}")
                elif question.schema.get("type") == "string" and type(event.value) is not str:
                    found.append(f"I5 {event.node} asks for a text, and got {event.value!r}")
                elif event.by == "bob":
                    found.append(f"I5 {event.node} accepted an answer to another question")
            case _:
                pass
        if isinstance(event, QuestionAnswered | InboxMessageRejected | CancelRequested) and event.message_number:
            if event.message_number <= last_message:
                found.append(f"I3 message {event.message_number} was read twice, or late")
            last_message = event.message_number
    return found


def _check_replay(case: AuditCase, recorded: RunRecord, oracle: Oracle) -> list[str]:
    """Replays the run with the current engine, which must decide the same."""
    try:
        found = replay(case.program, case.events)
    except OrchestraError as error:
        return [f"I7 the events cannot be folded: {error.code} {error.message}"]
    if found.first_difference is None:
        return []
    place = oracle.places.get(getattr(found.first_difference, "node", ""))
    if (
        place is not None
        and place.has_budget
        and isinstance(found.first_difference, AttemptStarted | AttemptFinished | NodeFinished)
    ):
        return []  # a budget depends on the number of calls in flight at the decision, which is not recorded
    known = (
        case.clock_jumped
        and isinstance(found.first_difference, NodeFinished)
        and found.first_difference.node in oracle.timed_out
    )
    return (
        []
        if known
        else [
            f"I5 replay: at event {found.first_difference.seq} ({type(found.first_difference).__name__}) {found.reason}"
        ]
    )


def _check_without_faults(
    case: AuditCase, recorded: RunRecord, oracle: Oracle, quiet: Callable[[], FaultlessAnswers]
) -> list[str]:
    """I5: a run that recovered from all its faults ends like a run without faults."""
    last = case.events[-1]
    if (
        not isinstance(last, RunFinished)
        or last.status not in ("done", "abstained")
        or oracle.timed_out
        or oracle.budget_failures
    ):
        return []
    for (path, _), event in recorded.attempts.items():
        # A fault that used up an attempt may leave one too few for the checks, and a permanently failed call has no
        # value.
        if event.error and (
            not isinstance(recorded.outcomes.get(path), ValueOutcome) or oracle.places[path].node.fallback is not None
        ):
            return []
        if event.error and oracle.places[path].node.acceptance is not None:
            return []
    if any(
        oracle.places[event.node].node.retry.within is not None
        for event in case.events
        if isinstance(event, OutputJudged) and not event.accepted
    ):
        return []  # another attempt depended on the elapsed time, which runs without faults do not have
    if any(isinstance(event, OutputJudged) and event.skipped_checks is not None for event in case.events):
        return []  # the shares of a check budget depend on the order; the run without faults makes all of the calls
    if any(isinstance(outcome, FailedOutcome) for outcome in recorded.outcomes.values()) or any(
        map(recorded.declined_repeat, recorded.answers)
    ):
        return []
    if any(said.skipped_checks is not None for said in recorded.judged.values()):
        return []  # which values the check budget did not cover depends on the order
    if any(turn.draft is not None and turn.draft.reused_from for turns in recorded.turns.values() for turn in turns):
        return []  # a plan that served a similar request need not be the one that the router would write now
    if any(
        place.node.acceptance is not None and place.node.acceptance.whole_workflow for place in oracle.places.values()
    ):
        # the oracle reads the confidence of a whole workflow from the record, and a run without faults has none
        return []
    calm = Oracle(case.program, quiet()).evaluate()
    if calm.status == last.status and same_outcome(calm.outcome, last.outcome):
        return []
    return [
        f"I5 the run recovered from its faults and ended in {last.outcome}; without faults it ends in {calm.outcome}"
    ]
