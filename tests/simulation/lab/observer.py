"""Compares the observations of the outside world (calls, answers, effects, messages, memo) with the record of a run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from orchestra.core.events import AttemptFinished, AttemptStarted, QuestionAnswered
from orchestra.core.protocols import CallError, CallRequest, CallResult, OutboxMessage
from orchestra.workflows.program import Program
from tests.simulation.lab.answers import RunRecord
from tests.simulation.lab.oracle import TIMED_OUT, Oracle


@dataclass(slots=True)
class ObservedCall:
    """A call as the outside world saw it. `durable` events were on disk at that time; `stale` means that the caller had
    lost its lease.
    """

    call: CallRequest
    durable: int
    stale: bool = False
    reply: CallResult | CallError | None = None
    fault: str = ""
    process: int = 0
    cancelled: bool = False
    """Whether the caller cancelled it."""


UNSEEN_CODES = ("F202", "F220")
"""Refusals of calls that no worker saw: a forbidden label, and no larger model."""


def check_calls(recorded: RunRecord, oracle: Oracle, seen: Sequence[ObservedCall]) -> list[str]:
    """I2, I5, I9: each call is allowed, for a unit without an outcome, with the run's label and key.

    A pure call may be sent before its dependencies are on disk, and a crash may lose these. An effect waits for the
    disk.
    """
    found: list[str] = []
    wanted: dict[tuple[str, int], list[bool]] = {}
    for one in seen:
        call = one.call
        ended = recorded.ends.get(call.node)
        if ended is not None and one.durable >= ended.seq and not one.stale:
            found.append(
                f"I2 attempt {call.attempt} of {call.node} was made although its end, event {ended.seq}, was on disk"
            )
        attempt = recorded.attempts.get((call.node, call.attempt))
        if attempt is not None and one.durable >= attempt.seq and not one.stale:
            found.append(
                f"I2 attempt {call.attempt} of {call.node} was repeated "
                f"although its end, event {attempt.seq}, was on disk"
            )
        if call.label != recorded.label:
            found.append(f"I9 a call for {call.node} had label {call.label}; the run has {recorded.label}")
        if call.idempotency_key != f"{recorded.run}/{call.node}":
            found.append(f"I3 a call for {call.node} had the key {call.idempotency_key}")
        known = oracle.calls.get((call.node, call.attempt))
        if known is None or attempt is None or attempt.reused_from or attempt.error in UNSEEN_CODES:
            continue  # a dead or fenced process may have known answers that are lost; a memo needs no call
        wanted.setdefault((call.node, call.attempt), []).append(_is_same_request(call, known))
    for (path, number), fits in wanted.items():
        contract = oracle.places[path].node.contract
        acts = contract is not None and contract.effect != "pure"
        if not (all(fits) if acts else any(fits)):
            found.append(f"I5 attempt {number} of {path} was made with wrong inputs, feedback or tier")
    return found


def _is_same_request(call: CallRequest, known: CallRequest) -> bool:
    parts = ("name", "inputs", "evidence", "feedback", "tier")
    return all(getattr(call, part) == getattr(known, part) for part in parts)


def check_answers(recorded: RunRecord, oracle: Oracle, seen: Sequence[ObservedCall]) -> list[str]:
    """I5: recorded answers were given."""
    replies: dict[tuple[str, int], list[ObservedCall]] = {}
    for one in seen:
        replies.setdefault((one.call.node, one.call.attempt), []).append(one)
    found: list[str] = []
    for key, event in recorded.attempts.items():
        if event.reused_from or event.error in (TIMED_OUT, "E007", *UNSEEN_CODES):
            continue
        if not any(_is_same_reply(one, event) for one in replies.get(key, ())):
            found.append(
                f"I5 attempt {key[1]} of {key[0]} has a recorded end that no worker returned: "
                f"{event.error or event.value!r}"
            )
    return found


def _is_same_reply(one: ObservedCall, event: AttemptFinished) -> bool:
    match one.reply:
        case CallResult(value=value):
            return event.error == "E009" if one.fault == "wrong_type" else not event.error and event.value == value
        case CallError(code=code):
            return event.error == code
        case None:
            return False


def check_effects(recorded: RunRecord, oracle: Oracle, seen: Sequence[ObservedCall]) -> list[str]:
    """I3: a call with an effect is on disk before it is made. A `once` call is made once, or as often as a person
    allowed.
    """
    found: list[str] = []
    starts: dict[str, list[int]] = {}
    again: Counter[str] = Counter()
    for event in recorded.events:
        if isinstance(event, AttemptStarted):
            starts.setdefault(event.node, []).append(event.seq)
        elif isinstance(event, QuestionAnswered) and event.value == "again":
            again[event.node] += 1
    made: Counter[str] = Counter()
    acting = set(_effect_tools(oracle.program))
    for one in seen:
        place = oracle.places.get(one.call.node)
        contract = place.node.contract if place is not None else None
        if one.call.kind != "tool" or contract is None or contract.effect == "pure":
            if place is None and one.call.name in acting:
                found.append(f"I3 {one.call.node} had an effect that the run does not record")
            continue
        made[one.call.node] += 1
        if sum(seq <= one.durable for seq in starts.get(one.call.node, ())) < made[one.call.node]:
            found.append(f"I3 call {made[one.call.node]} of {one.call.node} was made before its start was on disk")
        if contract.effect == "once" and made[one.call.node] > 1 + again[one.call.node]:
            found.append(f"I3 {one.call.node} must be called once, and was called {made[one.call.node]} times")
    return found


def _effect_tools(program: Program) -> Iterable[str]:
    for node in program.nodes:
        if node.contract is not None and node.contract.effect != "pure":
            yield node.contract.name
        if node.body is not None:
            yield from _effect_tools(node.body)
        if node.plan_settings is not None:
            yield from (one.name for one in node.plan_settings.capabilities if one.effect != "pure")


def check_outbox(recorded: RunRecord, oracle: Oracle, messages: Sequence[OutboxMessage]) -> list[str]:
    """I3: one message for each successful call of a `transactional` tool, and no other."""
    found: list[str] = []
    sent = Counter(message.node for message in messages)
    given = {event.node for event in recorded.attempts.values() if not event.error}
    for path, place in oracle.places.items():
        contract = place.node.contract
        if contract is None or contract.effect != "transactional":
            continue
        if (count := sent.pop(path, 0)) != (path in given):
            found.append(
                f"I3 {path} {'gave a value' if path in given else 'gave none'}, "
                f"and the outbox has {count} messages of it"
            )
    found += [f"I3 the outbox has a message of {path}, which sent none" for path in sent]
    values = [(event.node, event.value) for event in recorded.attempts.values() if event.outbox]
    return found + [
        f"I3 the message of {one.node} is not what the tool returned"
        for one in messages
        if (one.node, one.value) not in values
    ]


def check_memo(recorded: RunRecord, memo: Mapping[str, tuple[str, Any]]) -> list[str]:
    """I8: memo values were accepted."""
    found: list[str] = []
    by_key: dict[str, list[AttemptFinished]] = {}
    for event in recorded.attempts.values():
        if event.memo_key:
            by_key.setdefault(event.memo_key, []).append(event)
    for key, (run, value) in memo.items():
        if run != recorded.run or key not in by_key:
            # answers of a process whose events are lost were accepted too, so only recorded ones can be checked
            continue
        good = [event for event in by_key[key] if event.value == value and not event.error]
        if (
            good
            and not any(event.final or _was_accepted(recorded, event) for event in good)
            and not _is_unjudged(recorded, good)
        ):
            found.append(f"I8 an answer of {good[0].node} is in the memo, and was not accepted")
    return found


def _was_accepted(recorded: RunRecord, event: AttemptFinished) -> bool:
    said = recorded.judged.get((event.node, event.attempt))
    return said is not None and said.accepted


def _is_unjudged(recorded: RunRecord, events: Sequence[AttemptFinished]) -> bool:
    return any((event.node, event.attempt) not in recorded.judged and not event.final for event in events)
