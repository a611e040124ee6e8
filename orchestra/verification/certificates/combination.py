"""The file `combination.json`: combines the scores of checks into one probability that a value is right. Fitted on rows
of one agent. Pure.

    z = bias + Σ weight · log(p / (1 - p)) + (passed if the check passes, else failed),  p the score of a check

The score is the value at z of an isotonic regression, interpolated linearly between its points; without points it is 1
/ (1 + exp(-z)). The weights are those of a logistic regression with an L2 penalty. Without labels `passed` and `failed`
are from the model of Dawid and Skene (1979, *Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm*). `orchestra.learn.certification.combination` fits both. The file is JSON beside the card, and has only
numbers.
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
"""Probabilities are clipped to this value and to 1 minus it."""


class CheckWeight(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of one check."""

    check: str
    weight: float = 0.0
    """Weight of the log-odds of its score."""
    passed: float = 0.0
    failed: float = 0.0

    def contribution(self, verdict: Verdict) -> float:
        """Contribution to the sum."""
        return self.weight * log_odds(verdict.score) + (self.passed if verdict.outcome == PASS else self.failed)


class IsotonicPoint(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A point of the isotonic regression: the share of right values at a sum."""

    total: float
    share: float


class CombinationData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that it was fitted on."""

    name: str
    digest: str
    rows: Count
    """Rows without a failed or undetermined deterministic check."""
    correct: Count
    """Number of right rows; 0 without labels."""
    seed: int
    metrics: tuple[str, ...] = ()
    """Metrics that labelled the rows; empty without labels."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Sample of the fingerprints of their inputs."""


class Combination(CertificateFile, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The fitted combination of an agent's checks."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "combination"
    create_command: ClassVar[str] = "orchestra learn combine AGENT --data FILE"

    kind: Literal["combination"] = "combination"
    method: Literal["regression", "dawid-skene"]
    checks: tuple[str, ...]
    """All checks of the node, sorted by name. Those without a weight must pass (model checks: must not be `unknown`)
    and contribute nothing.
    """
    bias: float
    weights: tuple[CheckWeight, ...]
    isotonic_points: tuple[IsotonicPoint, ...] = ()
    data: CombinationData
    dependencies: DependencyDigests
    judge_dependencies: Mapping[str, DependencyDigests] = {}
    """Dependencies of the agents and tools that the checks call, by name or `tool(NAME)`."""
    created_at: str
    """UTC, ISO 8601."""

    def score(self, verdicts: Sequence[Verdict]) -> float | None:
        """Returns the score in [0, 1]: 0 if a deterministic check fails, None if a check is `unknown` or missing."""
        if any(map(is_veto, verdicts)):
            return 0.0
        by_check = {one.check: one for one in verdicts if one.outcome in (PASS, FAIL)}
        if len(by_check) < len(verdicts) or not by_check.keys() >= set(self.checks):
            return None
        total = self.bias + sum(weight.contribution(by_check[weight.check]) for weight in self.weights)
        return interpolate(self.isotonic_points, total) if self.isotonic_points else logistic(total)

    def describe(self, verdicts: Sequence[Verdict]) -> str:
        """Describes the scores of the weighted checks."""
        by_check = {one.check: one for one in verdicts}
        return ", ".join(
            f"{weight.check} {by_check[weight.check].score:.3g}" for weight in self.weights if weight.check in by_check
        )

    @property
    def renew_command(self) -> str:
        """Command line that makes a new file in place of this one."""
        return f"orchestra learn combine {self.agent} --data FILE --checks '{','.join(self.checks)}'"

    def changes(self, dependencies: DependencyDigests, judges: Mapping[str, DependencyDigests]) -> list[str]:
        """Describes the dependencies that changed."""
        found = self.dependencies.changes(dependencies)
        for name, was in self.judge_dependencies.items():
            theirs = [what for what in was.changes(judges[name]) if what != "the code of the checks"]
            if tool_name(name):  # a tool has neither a card nor arrays
                theirs = ["its types or code"] if theirs else []
            found += [f"{what.removeprefix('its ').removeprefix('the ')} of {name}" for what in theirs]
        return found

    def find_inconsistency(self) -> str:
        """Returns why the combination is inconsistent; empty if it is valid."""
        if not {weight.check for weight in self.weights} <= set(self.checks):
            return "it has a weight for a check that is not its own"
        places, shares = [step.total for step in self.isotonic_points], [step.share for step in self.isotonic_points]
        if sorted(places) != places or sorted(shares) != shares or not all(0 <= share <= 1 for share in shares):
            return "its points do not rise within [0, 1]"
        return ""


def is_veto(verdict: Verdict) -> bool:
    """Whether a verdict alone rejects the value: a deterministic check fails."""
    return verdict.outcome == FAIL and verdict.deterministic


def log_odds(probability: float) -> float:
    """Log-odds of a probability, clipped at `MIN_PROBABILITY`."""
    clipped = min(1 - MIN_PROBABILITY, max(MIN_PROBABILITY, probability))
    return math.log(clipped / (1 - clipped))


def logistic(total: float) -> float:
    """Probability of log-odds."""
    return 1 / (1 + math.exp(-total)) if total > -700 else 0.0


def interpolate(steps: Sequence[IsotonicPoint], total: float) -> float:
    """Share at a sum: linear between two points, constant beyond the first and the last."""
    if total <= steps[0].total:
        return steps[0].share
    for low, high in pairwise(steps):
        if total < high.total:
            return low.share + (high.share - low.share) * (total - low.total) / (high.total - low.total)
    return steps[-1].share
