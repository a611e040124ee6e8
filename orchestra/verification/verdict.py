"""Verdicts, and how they are made: `pass`, `fail` or `unknown`. `unknown` never passes."""

from __future__ import annotations

from typing import Any

from orchestra.core.events import Verdict
from orchestra.core.outcomes import Evidence

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
SAME_MODEL_REASON = "the same model with the same prompt"
"""What the reason ends with of a check that would ask whoever gave the value."""
MAX_EXCERPT = 60
"""Characters of an answer that a reason shows."""


def passed(check: str, reason: str = "", evidence: tuple[Evidence, ...] = ()) -> Verdict:
    """The check holds; `evidence` says by what."""
    return Verdict(check, PASS, 1.0, reason, evidence=evidence)


def failed(check: str, reason: str) -> Verdict:
    """The check is broken."""
    return Verdict(check, FAIL, 0.0, reason)


def unknown(check: str, reason: str, score: float = 0.5) -> Verdict:
    """The check cannot tell; `score` in [0, 1] says how near it came."""
    return Verdict(check, UNKNOWN, score, reason)


def unknown_by_model(check: str, reason: str, score: float = 0.5) -> Verdict:
    """The same of a check that asks agents."""
    return Verdict(check, UNKNOWN, score, reason, deterministic=False)


def excerpt(value: Any) -> str:
    """A part of an answer as reasons show it, cut where it is long."""
    text = str(value)
    return repr(text if len(text) <= MAX_EXCERPT else text[: MAX_EXCERPT - 1] + "…")
