"""Tiers: what a run has spent on each of the models that a value went through before it was accepted, and what each brought. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestra.core.error_codes import UNSENT
from orchestra.core.events import NOTHING, Usage, tier_name
from orchestra.journal.history import Attempt, History, Row

PERSON = "a person"


@dataclass(slots=True)
class Spent:
    """One tier, over all nodes of a run that asked more than one."""

    name: str
    calls: int = 0
    accepted: int = 0
    """Values that checks accepted; a person's answers."""
    passed_over: dict[str, int] = field(default_factory=dict)
    """By reason: calls for which it was not asked."""
    usage: Usage = NOTHING


def spent_by_tier(history: History) -> tuple[Spent, ...]:
    """The tiers that a run went through, the agents' own models first, a person last; empty for a run that asked no larger one."""
    rows = [row for row in history.rows if row.corrected is not None or any(one.tier for one in row.attempts)]
    found: dict[int, Spent] = {}
    for tried in _attempts(rows):
        spent = found.setdefault(tried.tier, Spent(tier_name(history.tiers, tried.tier)))
        if tried.error in UNSENT:
            spent.passed_over[tried.reason] = spent.passed_over.get(tried.reason, 0) + 1
        else:
            spent.calls += 1
            spent.accepted += bool(tried.accepted)
            spent.usage += tried.usage
    given = sum(row.corrected is not None for row in rows)
    return (*(found[tier] for tier in sorted(found)), *([Spent(PERSON, given, given)] if given else ()))


def _attempts(rows: Iterable[Row]) -> Iterable[Attempt]:
    return (tried for row in rows for tried in row.attempts if tried.seconds is not None)
