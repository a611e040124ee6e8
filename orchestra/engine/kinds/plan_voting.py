"""Votes of a `plan` node: so many plans, each made line by line as the only one would be, side by side; the most frequent one runs.

Every question of every sample is a turn of the node, with its place in the journal: `solve#4/line` is the question of the sample that its
`TurnStarted.drafted` names. Which sample goes on next hangs on the order in which their answers came, which is the journal's; so whoever
resumes or replays a run goes on as it did. The plan that won is one more turn, and has the lines of all samples.
"""

from __future__ import annotations

from typing import TypeAlias

from msgspec import structs

from orchestra.core.error_codes import NO_BUDGET
from orchestra.core.events import Drafted
from orchestra.core.outcomes import Failed, Outcome, Value
from orchestra.engine.kinds import plan
from orchestra.engine.kinds.subworkflow import result
from orchestra.engine.proposals import Finish, Proposal
from orchestra.engine.state import Phase, Sample, Unit
from orchestra.router.planner import Ask, Drafting, Request, Unplanned, Wanted, go_on, start

Ended: TypeAlias = tuple[Drafting, Wanted, Outcome | None]
"""What the router's machine makes of an answer; and what the question came to, where it came to none."""


def under_way(unit: Unit) -> bool:
    """Whether samples are being made side by side."""
    return unit.writing is not None and unit.writing.drafted.beside and not plan.whole(unit.writing.drafted)


def waits(unit: Unit) -> bool:
    """Whether there is more to decide than the question that was just opened: a sample that has not begun, or one that has its answer."""
    writing = plan.writing_of(unit)
    return len(writing.samples) < plan.planning_of(unit).votes or bool(writing.answered)


def emerged(unit: Unit) -> Proposal | None:
    """The next question of a sample, the plan that has won, or nothing for now: the first question of each comes before any second one,
    and of those that were answered the one that was answered first."""
    writing, votes = plan.writing_of(unit), plan.planning_of(unit).votes
    request = plan.request_of(unit, plan.past(writing))
    before = Drafted(None, version=writing.drafted.version, beside=True)
    if (number := len(writing.samples) + 1) <= votes:
        return plan.following(unit, *start(request), structs.replace(before, sample=number))
    for number in writing.answered:
        state, wanted, failure = _ended(request, writing.samples[number])
        if isinstance(failure, Failed) and failure.code == NO_BUDGET:
            return Finish(unit, failure)
        if isinstance(wanted, Ask):
            return plan.following(unit, state, wanted, structs.replace(before, lines=writing.samples[number].drafted.lines, sample=number))
    if len(writing.answered) < votes:
        unit.phase = Phase.INSIDE
        return None
    return _counted(unit, [_ended(request, writing.samples[number]) for number in range(1, votes + 1)], before)


def _ended(request: Request, sample: Sample) -> Ended:
    """What the answer to a sample's last question leads to; a question that came to none ends its sample, which has no plan."""
    if sample.ended is None:
        state, answer = plan.drafting(request, sample.drafted), result(sample.body)
        if isinstance(answer, Value):
            sample.ended = (*go_on(state, str(answer.value)), None)
        else:
            other = plan.without(state, answer)
            sample.ended = (state, Unplanned(()), answer) if other is None else (*other, None)
    found: Ended = sample.ended
    return found


def _counted(unit: Unit, ended: list[Ended], before: Drafted) -> Proposal:
    """The plan that most samples agree on. Without one it is told what the last of them came to; where nobody was answered, the failure."""
    plans = tuple(plan.sample_of(wanted) for _, wanted, _ in ended if not isinstance(wanted, Ask))
    heard = [one for one in ended if one[2] is None]
    if not heard and ended[0][2] is not None:
        return Finish(unit, ended[0][2])
    state, wanted, _ = heard[-1]
    if isinstance(wanted, Ask):
        raise TypeError("a sample that is not done has no vote")
    state, wanted, won = plan.elected(state, wanted, plans)
    return plan.following(unit, state, wanted, structs.replace(before, plans=plans), won)
