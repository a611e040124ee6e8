"""Combination: what the verdicts of an attempt say together."""

from __future__ import annotations

from collections.abc import Sequence

from orchestra.core.events import Verdict
from orchestra.verification.certificates.combination import Combination, is_veto
from orchestra.verification.verdict import FAIL, PASS, UNKNOWN


def combined_score(verdicts: Sequence[Verdict], combination: Combination | None = None) -> float | None:
    """One score in [0, 1]: 0 where a check fails, the lowest score where all pass, None where nothing is known.

    Where a `combination` weighs them, a check that asks agents may fail, and the score is the combination's.
    """
    if combination is not None:
        return combination.score(verdicts)
    if any(verdict.outcome == FAIL for verdict in verdicts):
        return 0.0
    if not verdicts or any(verdict.outcome != PASS for verdict in verdicts):
        return None
    return min(verdict.score for verdict in verdicts)


def rejects(verdict: Verdict, combination: Combination | None = None) -> bool:
    """Whether a verdict alone keeps a value from being accepted, whatever the others say."""
    return verdict.outcome == UNKNOWN or (is_veto(verdict) if combination is not None else verdict.outcome != PASS)


def is_accepted(verdicts: Sequence[Verdict], threshold: float, combination: Combination | None = None) -> bool:
    """Whether no verdict decides against it and the score reaches the threshold; no checks, no objection."""
    if not verdicts:
        return True
    reached = combined_score(verdicts, combination)
    return reached is not None and not any(rejects(verdict, combination) for verdict in verdicts) and reached >= threshold
