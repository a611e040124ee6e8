"""Plans that have served: a `plan` node asks the memo before it asks the router, and what it finds becomes a fact of the run.

The memo is looked into by the shell (`Recall`); what it holds is no fact, and untrusted: it is fitted to the node's goal here, passes the
gates, and stands in the journal as the first turn's plan (`TurnStarted.drafted`, `recalled`). A plan that gave its node's value is kept.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Drafted
from orchestra.core.outcomes import Outcome, Value
from orchestra.engine.kinds import plan as plan_module
from orchestra.engine.kinds.subworkflow import inside, result
from orchestra.engine.proposals import Enter, Proposal, Recall
from orchestra.engine.state import Phase, Scope, State, Unit
from orchestra.router import plan_cache
from orchestra.router.plan import plan_of
from orchestra.router.plan_syntax import read
from orchestra.router.validation import judge
from orchestra.router.voting import Vote


def begin(state: State, unit: Unit) -> Proposal:
    """The question whether a plan has served before; once that is known the plan, or the first question to the router."""
    said = plan_module.planning_of(unit)
    if said.router is None or not said.cache:
        return plan_module.begin(unit)
    if unit.known is not None:
        return _recalled(state, unit, unit.known)
    if keys := _keys(unit, state.label):
        plan_module.values(unit)  # what fails in them fails the node
        unit.phase = Phase.RECALLING
        return Recall(unit, keys)
    return plan_module.begin(unit)


def _recalled(state: State, unit: Unit, known: Sequence[tuple[str, Any]]) -> Proposal:
    """What the memo holds, fitted to this request; or the first question to the router, with a remark on what was none."""
    text, offer, shape = plan_module.goal_of(unit), plan_module.offer_of(unit), _shape(unit, state.label)
    given = plan_module.values(unit)
    whole = [name for name, value in given.items() if value == text]
    remark = ""
    for run, stored in known:
        try:
            if not run:
                raise plan_cache.Unfit(str(stored), foreign=True)
            plan, entry = plan_cache.recalled(stored, text, offer, shape, whole)
            return plan_module.recalled(unit, plan, offer, run, entry.cost, entry.vote.agreement if entry.vote is not None else None)
        except plan_cache.Unfit as error:
            remark = plan_cache.ignored(error.reason) if error.foreign else remark
        except OrchestraError as error:  # the compiler refuses it: with other values it was none
            remark = plan_cache.ignored(f"{error.code}: {error.message}")
    return _remarked(plan_module.first(unit), remark)


def replayed(unit: Unit, drafted: Drafted | None) -> Proposal:
    """What the engine would have begun with, had the memo held what the fact says: a plan is judged again, the first question asked."""
    if drafted is None or not drafted.recalled:
        return _remarked(plan_module.first(unit), "" if drafted is None else drafted.remark)
    lines = [read(line) for line in drafted.lines]
    plan = plan_of(lines)
    today = replace(plan_module.offer_of(unit), several=None)
    for offer in (today, plan_module.unbounded(today)):
        if plan is None or not plan.answer.values or any(judge(line, offer, plan.steps[:number]) for number, line in enumerate(lines)):
            continue
        proposal = plan_module.recalled(unit, plan, offer, drafted.recalled, drafted.saved, drafted.agreement)
        if isinstance(proposal, Enter) and proposal.drafted == drafted:
            return proposal
    return plan_module.first(unit)


def _remarked(proposal: Proposal, remark: str) -> Proposal:
    if not remark or not isinstance(proposal, Enter) or proposal.drafted is None:
        return proposal
    return Enter(proposal.unit, proposal.turn, msgspec.structs.replace(proposal.drafted, remark=remark))


@dataclass(frozen=True, slots=True)
class Keeping:
    """A plan that may serve again, and under which keys."""

    keys: tuple[str, ...]
    stored: Any


def keep(state: State, unit: Unit, outcome: Outcome) -> Keeping | None:
    """What to remember of a plan node that has its outcome: its plan, where that is what gave the value, and was made here.

    A plan that follows a failed one rests on what that has finished, and is not kept.
    """
    writing = unit.writing
    if writing is None or not isinstance(outcome, Value) or not plan_module.planning_of(unit).cache:
        return None
    drafted = writing.drafted
    plan = plan_of([read(line) for line in drafted.lines])
    refused = plan_module.unconfirmed(writing.plan)
    if plan is None or drafted.version > 1 or drafted.recalled or refused or not _gave(inside(unit), outcome):
        return None
    won = None
    if drafted.agreement is not None:
        won = Vote(0, round(drafted.agreement * len(drafted.plans)), len(drafted.plans))
    return Keeping(_keys(unit, state.label), plan_cache.entry(plan, plan_module.goal_of(unit), _shape(unit, state.label), unit.spent, won))


def _gave(body: Scope, outcome: Value) -> bool:
    """Whether a plan gave this value, and no fallback did."""
    if body.open:
        return False
    try:
        given = result(body)
    except OrchestraError:
        return False
    return isinstance(given, Value) and given.value == outcome.value


def _keys(unit: Unit, label: str) -> tuple[str, ...]:
    """Under which keys a plan is kept; none where it must not be."""
    return plan_cache.keys(plan_module.goal_of(unit), _shape(unit, label)) if plan_module.planning_of(unit).cache else ()


def _shape(unit: Unit, label: str) -> str:
    return plan_module.shape(unit.node, plan_module.goal_of(unit), label)
