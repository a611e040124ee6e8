"""Verdicts, and how they are made: `pass`, `fail` or `unknown`. `unknown` never passes."""

from __future__ import annotations

from orchestra.events import Verdict
from orchestra.values.outcome import Evidence

PASS, FAIL, UNKNOWN = "pass", "fail", "unknown"
SAME = "the same model with the same prompt"
"""What the reason ends with of a check that would ask whoever gave the value."""


def passed(check: str, reason: str = "", evidence: tuple[Evidence, ...] = ()) -> Verdict:
    """The check holds; `evidence` says by what."""
    return Verdict(check, PASS, 1.0, reason, evidence=evidence)


def failed(check: str, reason: str) -> Verdict:
    """The check is broken."""
    return Verdict(check, FAIL, 0.0, reason)


def unknown(check: str, reason: str, score: float = 0.5) -> Verdict:
    """The check cannot tell; `score` in [0, 1] says how near it came."""
    return Verdict(check, UNKNOWN, score, reason)
