"""Combination: what the verdicts of an attempt say together."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.events import Verdict
from orchestra.verify.verdict import FAIL, PASS


def score(verdicts: Sequence[Verdict]) -> float | None:
    """One score in [0, 1]: 0 where a check fails, the lowest score where all pass, None where nothing is known."""
    if any(verdict.outcome == FAIL for verdict in verdicts):
        return 0.0
    if not verdicts or any(verdict.outcome != PASS for verdict in verdicts):
        return None
    return min(verdict.score for verdict in verdicts)


def accepted(verdicts: Sequence[Verdict], threshold: float) -> bool:
    """Whether every check passes and the score reaches the threshold; no checks, no objection."""
    if not verdicts:
        return True
    reached = score(verdicts)
    return reached is not None and all(verdict.outcome == PASS for verdict in verdicts) and reached >= threshold
