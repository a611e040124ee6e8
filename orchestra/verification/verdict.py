"""Constructors of verdicts: `pass`, `fail` or `unknown`. `unknown` never passes."""

from __future__ import annotations

from typing import Any

from orchestra.core.events import Verdict
from orchestra.core.outcomes import Evidence

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
SAME_MODEL_REASON = "the same model with the same prompt"
"""End of the reason of a check whose judge would be the producer."""
MAX_EXCERPT = 60
"""Characters of an answer that a reason shows."""


def passed(check: str, reason: str = "", evidence: tuple[Evidence, ...] = ()) -> Verdict:
    """Returns a verdict that the check passes, with its evidence."""
    return Verdict(check, PASS, 1.0, reason, evidence=evidence)


def failed(check: str, reason: str) -> Verdict:
    """Returns a verdict that the check fails."""
    return Verdict(check, FAIL, 0.0, reason)


def unknown(check: str, reason: str, score: float = 0.5) -> Verdict:
    """Returns a verdict that the check is undetermined. `score` in [0, 1] says how close it came."""
    return Verdict(check, UNKNOWN, score, reason)


def unknown_by_model(check: str, reason: str, score: float = 0.5) -> Verdict:
    """Same as `unknown`, for a check that calls agents."""
    return Verdict(check, UNKNOWN, score, reason, deterministic=False)


def excerpt(value: Any) -> str:
    """Shows an answer in a reason, truncated to `MAX_EXCERPT`."""
    text = str(value)
    return repr(text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1] + "…")
