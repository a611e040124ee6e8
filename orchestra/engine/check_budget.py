"""Allotting: the budget for checks as the engine keeps it. What is spent and reserved follows from facts; who gets some of it is decided
here, and recorded with the numbers that decided it: `ChecksStarted.stake`, `Judged.unasked`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from orchestra.core.events import AttemptFinished, Question, Stake
from orchestra.core.protocols import Call
from orchestra.engine.kinds.checks import asked_of
from orchestra.engine.proposals import Judge
from orchestra.engine.state import Checking, Phase, Scope, State, Unit
from orchestra.verification.check_budget import UNSURE, Allotment, Coming

if TYPE_CHECKING:
    from orchestra.verification.session import Asked

# Facts


def met(allotment: Allotment, unit: Unit, stake: Stake) -> None:
    """A value's check got some of the budget, or got none."""
    allotment.met(stake, first=not unit.staked)
    if not unit.staked:
        unit.staked = True
        if unit.owner is not None and unit.owner.spreading is not None:
            unit.owner.spreading.staked += 1


def reserve(allotment: Allotment, checking: Checking, stake: Stake) -> None:
    """Questions go out that may take so much."""
    checking.reserved = stake.bound
    allotment.reserved += stake.bound


def spend(allotment: Allotment, unit: Unit, event: AttemptFinished) -> None:
    """What a question has taken; who does not say what it was is taken to have taken its part of what was reserved."""
    checking = unit.scope.unit.checking if unit.scope.unit is not None else None
    if checking is None or checking.scope is not unit.scope or checking.asked.stake is None:
        return
    used = max(0, event.usage.prompt_tokens) + max(0, event.usage.output_tokens)
    if not used and not event.error and not event.recalled:
        used = checking.asked.stake.bound // len(checking.asked.questions)
    checking.took += used
    allotment.spent += used


def release(allotment: Allotment, unit: Unit) -> None:
    """Its questions have come back, or nobody waits for them any more."""
    checking = unit.checking
    if checking is not None and checking.reserved:
        allotment.reserved -= checking.reserved
        allotment.bounds += checking.reserved
        allotment.took += checking.took
        checking.reserved = 0


# Decisions


@dataclass(slots=True)
class Wanting:
    """A value whose checks would ask, and wait for the budget."""

    judge: Judge
    asked: Asked
    stake: Stake


def wanting(state: State, allotment: Allotment, judge: Judge, asked: Asked) -> Wanting:
    """What is known of a value whose checks would ask; it waits from now on."""
    unit, sure = judge.unit, judge.situation.confidence
    bound = sum(_bound(state, unit, question) for question in asked.questions)
    stake = Stake(1.0 - (UNSURE if sure is None else sure), influence(unit), round(allotment.expected(bound), 1), bound)
    unit.phase = Phase.QUEUED
    return Wanting(judge, asked, stake)


def decided(state: State, allotment: Allotment, waiting: list[Wanting]) -> tuple[Wanting, str] | None:
    """The value that is worth most, taken from those that wait, and why it gets nothing, which is empty where it gets some. None where none
    waits, and where there is not enough as long as checks are under way: they may take less than is reserved, and others may come."""
    waiting[:] = [one for one in waiting if one.judge.unit.phase is Phase.QUEUED]
    if not waiting:
        return None
    best = max(waiting, key=lambda one: one.stake.worth)
    why = _objection(allotment, best.stake, coming(state, waiting))
    if why and allotment.reserved:
        return None
    waiting.remove(best)
    return best, why


def _objection(allotment: Allotment, stake: Stake, expected: Iterable[Coming]) -> str:
    """Why a check gets nothing; empty where it gets what it may take."""
    limit = f"{allotment.limit:,} tokens"
    if stake.bound > allotment.room:
        return f"of the budget for checks {max(0, allotment.room):,} of {limit} are left, and this one may take {stake.bound:,}"
    if allotment.fits(stake, expected):
        return ""
    return (
        f"the budget for checks goes to values that are expected and worth more: {max(0, allotment.limit - allotment.spent):,} of {limit} "
        f"are left; here the doubt is {stake.doubt:.2f}, the influence {stake.influence:.2f}, the cost about {stake.cost:,.0f} tokens"
    )


def _bound(state: State, unit: Unit, question: Question) -> int:
    """Tokens that a question may take; of an encoder of this process about those that it reads, and 0 where no model is asked."""
    contract = asked_of(unit, question)
    if contract.kind != "agent":
        return 0
    call = Call(
        run=state.run,
        node=unit.path,
        attempt=1,
        kind="agent",
        name=question.agent,
        inputs=question.inputs,
        label=state.label,
        sample=question.sample,
        version=contract.digest,
    )
    measure = state.measure(call)
    if measure.prompt_tokens:
        return measure.prompt_tokens + measure.max_output
    if not measure.reads:
        return 0
    from orchestra.verification.entailment import words

    return words(question.inputs)


def influence(unit: Unit) -> float:
    """The share of what leads to the output that rests on a unit's value: of an element, that of its node, by the number of elements."""
    found, here = 1.0, unit
    while True:
        found *= here.scope.program.influence[here.node.index]
        if here.owner is not None and here.owner.spreading is not None:
            found /= max(1, len(here.owner.spreading.items))
        if here.scope.unit is None:
            return found
        here = here.scope.unit


def coming(state: State, waiting: Sequence[Wanting]) -> Iterator[Coming]:
    """The values that are still to come and will be checked, as far as the workflow and what has run tell. Those that wait are not among
    them: they are the one that is decided about, and others that are worth less."""
    if state.root is not None:
        yield from _coming(state, state.root, 1.0, waiting)


def _coming(state: State, scope: Scope, weight: float, waiting: Sequence[Wanting]) -> Iterator[Coming]:
    program = scope.program
    for node, share in zip(program.nodes, program.influence, strict=True):
        if scope.outcomes[node.index] is not None:
            continue
        asks = node.acceptance is not None and node.acceptance.asking
        if not asks and (node.body is None or not node.body.stakes):
            continue
        unit = state.units.get(scope.path + node.name)
        spreading = unit.spreading if unit is not None else None
        count, each = 1, share * weight
        if spreading is not None and spreading.items:
            here = sum(one.judge.unit.owner is unit for one in waiting)
            count, each = spreading.pending - spreading.staked - here, each / len(spreading.items)
        elif unit is not None and (unit.staked or unit.phase is Phase.QUEUED):
            count = 0
        if asks and count > 0:
            yield Coming(each, count)
        if node.body is None:
            continue
        if unit is not None and unit.body is not None and unit.checking is None:
            yield from _coming(state, unit.body, each, waiting)
        else:
            yield from (Coming(each * inner, number * max(0, count)) for inner, number in node.body.stakes)
