"""Tiers: what a run has spent on each of the models that a value went through before it was accepted, and what each brought. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from orchestra.core.error_codes import UNSENT_CODES
from orchestra.core.events import NO_USAGE, Usage, tier_name
from orchestra.journal.history import History, NodeAttempt, NodeRow

PERSON = "a person"


@dataclass(slots=True)
class TierUsage:
    """One tier, over all nodes of a run that asked more than one."""

    name: str
    calls: int = 0
    accepted: int = 0
    """Values that checks accepted; a person's answers."""
    skipped: dict[str, int] = field(default_factory=dict)
    """By reason: calls for which it was not asked."""
    usage: Usage = NO_USAGE


def usage_by_tier(history: History) -> tuple[TierUsage, ...]:
    """The tiers that a run went through, the agents' own models first, a person last; empty for a run that asked no larger one."""
    rows = [row for row in history.rows if row.correction is not None or any(one.tier for one in row.attempts)]
    found: dict[int, TierUsage] = {}
    for tried in _attempts(rows):
        spent = found.setdefault(tried.tier, TierUsage(tier_name(history.tiers, tried.tier)))
        if tried.error in UNSENT_CODES:
            spent.skipped[tried.reason] = spent.skipped.get(tried.reason, 0) + 1
        else:
            spent.calls += 1
            spent.accepted += bool(tried.accepted)
            spent.usage += tried.usage
    given = sum(row.correction is not None for row in rows)
    return (*(found[tier] for tier in sorted(found)), *([TierUsage(PERSON, given, given)] if given else ()))


def _attempts(rows: Iterable[NodeRow]) -> Iterable[NodeAttempt]:
    return (tried for row in rows for tried in row.attempts if tried.seconds is not None)
