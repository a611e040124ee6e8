"""Examining: a value is judged by its checks, and what comes of that is recorded: questions to agents, or a ruling."""

from __future__ import annotations

from collections.abc import Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.events import ChecksStarted, Judged, Stake
from orchestra.engine import check_budget
from orchestra.engine.kinds.checks import examined, rounds
from orchestra.engine.proposals import Judge
from orchestra.engine.state import Phase

if TYPE_CHECKING:
    from orchestra.engine.driver import Driver
    from orchestra.verification.acceptance import Ruling
    from orchestra.verification.session import Asked


def examine(driver: Driver, judge: Judge) -> Coroutine[Any, Any, None] | None:
    """The checks speak, or have questions first; under a budget for checks these wait until it is known who gets some of it.

    What reads a great deal is given back, to be done in a task: beside the loop, so that other runs go on.
    """
    from orchestra.verification.acceptance import heavy

    if heavy(judge.situation):
        judge.unit.phase = Phase.QUEUED
        return _beside(driver, judge)
    _go_on(driver, judge, examined(judge))
    return None


async def _beside(driver: Driver, judge: Judge) -> None:
    """A run that ends, or a time that is up meanwhile, does not wait for what the checks say."""
    unit = judge.unit
    found = await driver.clock.work(partial(examined, judge))
    if unit.phase is Phase.QUEUED and unit.attempt == judge.attempt and not driver.ending:
        _go_on(driver, judge, found)
        driver.pump()


def _go_on(driver: Driver, judge: Judge, found: Asked | Ruling) -> None:
    from orchestra.verification.session import Asked

    match found:
        case Asked() as asked:
            allotment = driver.state.allotment
            if allotment is None:
                _ask(driver, judge, asked)
            else:
                if not driver.turning:
                    driver.await_the_turn()
                driver.wanting = driver.wanting or []
                driver.wanting.append(check_budget.wanting(driver.state, allotment, judge, asked))
        case ruling:
            _judge(driver, judge, ruling)


def allot(driver: Driver) -> bool:
    """Gives of the budget for checks to those that wait for some, or tells them that they get none; whether there was such a one."""
    allotment, happened = driver.state.allotment, False
    while allotment is not None and (found := check_budget.decided(driver.state, allotment, driver.wanting or [])) is not None:
        one, why = found
        happened = True
        if why:
            from orchestra.verification.session import unasked

            ruling = unasked(one.judge.situation, one.asked, why)
            _judge(driver, one.judge, ruling, msgspec.structs.replace(one.stake, why=why))
        else:
            _ask(driver, one.judge, one.asked, one.stake)
    return happened


def _ask(driver: Driver, judge: Judge, asked: Asked, stake: Stake | None = None) -> None:
    driver.record(
        ChecksStarted(
            **driver.stamp(),
            node=judge.unit.path,
            attempt=judge.attempt,
            check=asked.check,
            round=rounds(judge.unit) + 1,
            questions=asked.questions,
            verdicts=asked.verdicts,
            stake=stake,
        )
    )


def _judge(driver: Driver, judge: Judge, ruling: Ruling, unasked: Stake | None = None) -> None:
    accepted, answer = ruling.accepted, judge.unit.answer
    driver.record(
        Judged(
            **driver.stamp(),
            node=judge.unit.path,
            attempt=judge.attempt,
            verdicts=ruling.verdicts,
            accepted=accepted,
            score=ruling.score,
            reason=ruling.reason,
            promise=ruling.promise,
            unasked=unasked,
            told=ruling.told,
        )
    )
    # What was not accepted as a whole is no answer for other runs.
    if accepted and answer is not None and answer.memo and not answer.recalled and not ruling.dropped:
        driver.remember(answer)
