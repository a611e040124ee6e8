"""The file `combination.json`: what several checks say as one probability that the value is right, fitted to rows of one agent. Pure.

    z = bias + Σ weight · log(p / (1 - p)) + (passed where the check passes, failed where it does not),  p the score of a check

and the score is read off the steps of an isotonic regression at z, straight between them; where there are none it is 1 / (1 + exp(-z)).
The weights are those of a logistic regression with an L2 penalty; without labels `passed` and `failed` are by the model of Dawid and
Skene (1979, *Maximum Likelihood Estimation of Observer Error-Rates Using the EM Algorithm*).
`orchestra.learn.certification.combination` fits both.
The file is JSON beside the card: numbers, and nothing that runs.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import ClassVar, Literal

import msgspec

from orchestra.core.events import Verdict
from orchestra.verification.certificates.file import Count, DependencyDigests
from orchestra.verification.certificates.format import CertificateFile
from orchestra.verification.certificates.row_fingerprints import RowFingerprints
from orchestra.verification.custom_checks import tool_name
from orchestra.verification.verdict import FAIL, PASS

FILE_NAME = "combination.json"
MIN_PROBABILITY = 1e-6
"""A probability below which none is counted, and above 1 minus which none is."""


class CheckWeight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much one check counts."""

    check: str
    weight: float = 0.0
    """Of the log-odds of its score."""
    passed: float = 0.0
    failed: float = 0.0

    def contribution(self, verdict: Verdict) -> float:
        """What it adds."""
        return self.weight * log_odds(verdict.score) + (self.passed if verdict.outcome == PASS else self.failed)


class IsotonicPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point of the isotonic regression: the share of right ones at a sum."""

    total: float
    share: float


class CombinationData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that it was fitted on."""

    name: str
    digest: str
    rows: Count
    """Those that could be combined: no deterministic check failed, and none could not tell."""
    correct: Count
    """How many of these are right; 0 where nobody said so."""
    seed: int
    metrics: tuple[str, ...] = ()
    """What told right answers from wrong ones; none where nobody said so."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Of their inputs, a sample: by which they are known again among others."""


class Combination(CertificateFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "combination"
    create_command: ClassVar[str] = "orchestra learn combine AGENT --data FILE"

    kind: Literal["combination"] = "combination"
    method: Literal["regression", "dawid-skene"]
    checks: tuple[str, ...]
    """The checks of the node, in their order of names. Those without a voice must pass, or not fail, and count no further."""
    bias: float
    weights: tuple[CheckWeight, ...]
    isotonic_points: tuple[IsotonicPoint, ...] = ()
    data: CombinationData
    dependencies: DependencyDigests
    judge_dependencies: Mapping[str, DependencyDigests] = {}
    """Of the agents and tools that its checks ask, by name, and as `tool(NAME)`."""
    created_at: str
    """UTC, ISO 8601."""

    def score(self, verdicts: Sequence[Verdict]) -> float | None:
        """The score in [0, 1]: 0 where a deterministic check fails, None where one cannot tell, or was not asked."""
        if any(map(is_veto, verdicts)):
            return 0.0
        by_check = {one.check: one for one in verdicts if one.outcome in (PASS, FAIL)}
        if len(by_check) < len(verdicts) or not by_check.keys() >= set(self.checks):
            return None
        total = self.bias + sum(weight.contribution(by_check[weight.check]) for weight in self.weights)
        return interpolate(self.isotonic_points, total) if self.isotonic_points else logistic(total)

    def describe(self, verdicts: Sequence[Verdict]) -> str:
        """What each check that has a voice says, in words."""
        by_check = {one.check: one for one in verdicts}
        return ", ".join(
            f"{weight.check} {by_check[weight.check].score:.3g}" for weight in self.weights if weight.check in by_check
        )

    @property
    def renew_command(self) -> str:
        """What makes a new one."""
        return f"orchestra learn combine {self.agent} --data FILE --checks '{','.join(self.checks)}'"

    def changes(self, dependencies: DependencyDigests, judges: Mapping[str, DependencyDigests]) -> list[str]:
        """What is not what it was, in words."""
        found = self.dependencies.changes(dependencies)
        for name, was in self.judge_dependencies.items():
            theirs = [what for what in was.changes(judges[name]) if what != "the code of the checks"]
            if tool_name(name):  # a tool has neither card nor arrays
                theirs = ["its types or code"] if theirs else []
            found += [f"{what.removeprefix('its ').removeprefix('the ')} of {name}" for what in theirs]
        return found

    def find_inconsistency(self) -> str:
        """Why it is no combination of its checks; empty where it is one."""
        if not {weight.check for weight in self.weights} <= set(self.checks):
            return "it weighs a check that is none of its own"
        places, shares = [step.total for step in self.isotonic_points], [step.share for step in self.isotonic_points]
        if sorted(places) != places or sorted(shares) != shares or not all(0 <= share <= 1 for share in shares):
            return "its steps do not rise from 0 to 1"
        return ""


def is_veto(verdict: Verdict) -> bool:
    """Whether a verdict alone refuses the value, whatever the others say: a check that asks nobody fails."""
    return verdict.outcome == FAIL and verdict.deterministic


def log_odds(probability: float) -> float:
    """Log-odds, within those of `MIN_PROBABILITY`."""
    clipped = min(1 - MIN_PROBABILITY, max(MIN_PROBABILITY, probability))
    return math.log(clipped / (1 - clipped))


def logistic(total: float) -> float:
    """The probability of log-odds."""
    return 1 / (1 + math.exp(-total)) if total > -700 else 0.0


def interpolate(steps: Sequence[IsotonicPoint], total: float) -> float:
    """The share at a sum: straight between two steps, and that of the first or the last beyond them."""
    if total <= steps[0].total:
        return steps[0].share
    for low, high in pairwise(steps):
        if total < high.total:
            return low.share + (high.share - low.share) * (total - low.total) / (high.total - low.total)
    return steps[-1].share
