"""The file `claims.json`: the score from which parts of an agent's answers are kept, the guarantee, and its
dependencies.

It differs from `orchestra.verification.certificates.file`, which has a threshold for whole answers, in that it also
depends on the agent that judges the claims.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from orchestra.verification.certificates.certify import confidence_interval, format_percent
from orchestra.verification.certificates.conformal import FactualityResult, quantile_rank
from orchestra.verification.certificates.drift import DriftMonitor
from orchestra.verification.certificates.file import ASSUMPTION, Count, DependencyDigests, Proportion, RiskLevel
from orchestra.verification.certificates.format import CLAIMS_FILE, VoidableCertificate
from orchestra.verification.certificates.row_fingerprints import RowFingerprints

FILE_NAME = CLAIMS_FILE
PART_SCORE = "the probability that the evidence supports the weakest claim of a part"
"""The score that is compared with the threshold."""


class ClaimsData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answers that it was made from."""

    name: str
    digest: str
    calibration: Count
    held_out: Count
    seed: int
    recorded_scores: bool = False
    """Whether the scores were read from a file."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Sample of the fingerprints of inputs and outputs. Not present in older files."""
    duplicates: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers left out because another one has the same input. Not present if there were none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers left out because another one represents their group. Not present if there were none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """Input whose value defines a group. Not present if the rows state their groups themselves."""

    @property
    def digests(self) -> frozenset[str]:
        """Digests that identify the rows."""
        return frozenset({self.digest})


class RetentionCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold keeps of some answers (`orchestra.verification.certificates.conformal.RetentionResult`)."""

    answers: Count
    parts: Count
    kept: Count
    violations: Count
    empty: Count


class ClaimsResplitSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outcome of the guarantee over random divisions of the answers."""

    rounds: Count
    violation_rate: Proportion
    kept_share: Proportion


class ClaimsCertificate(VoidableCertificate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate of claims."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "certificate of claims"
    create_command: ClassVar[str] = "orchestra certify AGENT --claims --data FILE"

    kind: Literal["claims"] = "claims"
    check: str
    """The check that scores the claims, such as `entailment`, with its judge."""
    judge: str
    """Name of the judge."""
    alpha: RiskLevel
    """Maximum share of answers with a wrong part that is kept."""
    threshold: Proportion
    """Score from which parts are kept."""
    score: str = PART_SCORE
    calibrated: RetentionCounts
    held_out: RetentionCounts
    low: Proportion
    """95 % confidence interval of the share of held-out answers with a wrong part that is kept."""
    high: Proportion
    data: ClaimsData
    resplits: ClaimsResplitSummary
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """Number of this attempt on these answers, or on many of them. Not present for the first attempt."""
    dependencies: DependencyDigests
    judge_dependencies: DependencyDigests
    """Dependencies of the scores: those of the judge, as `dependencies` are those of the agent that answers."""
    created_at: str
    """UTC, ISO 8601."""

    @property
    def guarantee(self) -> str:
        """The guarantee in one line."""
        share = self.calibrated.kept / self.calibrated.parts if self.calibrated.parts else 0.0
        again = f"; attempt {self.attempt:,} on its answers" if self.attempt else ""
        right = format_percent(1 - self.alpha)
        text = f"keeps {format_percent(share)} of their parts"
        return f"all that is kept is right in at least {right} of answers; {text}{again}"

    @property
    def summary(self) -> dict[str, Any]:
        """The guarantee and its figures as plain JSON. It is also over the draw of the answers, so it has no delta."""
        retention_counts, held_out, data = self.calibrated, self.held_out, self.data
        return {
            "agent": self.agent,
            "guarantee": self.guarantee,
            "alpha": self.alpha,
            **({"attempt": self.attempt} if self.attempt else {}),
            "threshold": self.threshold,
            "coverage": retention_counts.kept / retention_counts.parts if retention_counts.parts else 0.0,
            "rows": {"calibration": data.calibration, "held_out": data.held_out},
            "calibrated": {"accepted": retention_counts.answers, "wrong": retention_counts.violations},
            "held_out": {"accepted": held_out.answers, "wrong": held_out.violations, "interval": [self.low, self.high]},
            "data": {"name": data.name, "digest": data.digest},
            "metrics": [f"the label of each part, by a person; {self.check} by {self.judge} scores it"],
            "created_at": self.created_at,
            "assumed": ASSUMPTION,
            "certificate": self.digest,
        }

    @property
    def renew_command(self) -> str:
        """Command line that makes a new file in place of this one."""
        return f"orchestra certify {self.agent} --claims --data FILE --alpha {self.alpha:g}"

    @property
    def drift(self) -> DriftMonitor:
        """A new drift monitor for it."""
        answers = self.calibrated.answers
        return DriftMonitor.of_claims(self.alpha, answers, answers - quantile_rank(answers, self.alpha))

    def changes(self, dependencies: DependencyDigests, judge_dependencies: DependencyDigests) -> list[str]:
        """Describes the dependencies that changed."""
        changes = self.dependencies.changes(dependencies)
        judge_changes = [
            change
            for change in self.judge_dependencies.changes(judge_dependencies)
            if change not in changes or change != "the code of the checks"
        ]
        return changes + [
            f"{change.removeprefix('its ').removeprefix('the ')} of {self.judge}" for change in judge_changes
        ]

    def find_inconsistency(self) -> str:
        """Returns why the figures do not support the guarantee; empty if they do."""
        counts = self.calibrated
        if not (counts.kept <= counts.parts and counts.violations <= counts.answers == self.data.calibration):
            return "its counts are inconsistent"
        if counts.answers - counts.violations < quantile_rank(counts.answers, self.alpha):
            wrong = f"{counts.violations} of {counts.answers} answers with something wrong kept"
            return f"{wrong} do not support its guarantee"
        return ""


class ClaimScorer(msgspec.Struct, frozen=True):
    """The check that scored the claims, and its judge."""

    check: str
    judge: str
    dependencies: DependencyDigests


def build_claims_certificate(
    agent: str,
    dependencies: DependencyDigests,
    scorer: ClaimScorer,
    found: FactualityResult,
    data: ClaimsData,
    created_at: str,
    *,
    attempt: int = 1,
) -> ClaimsCertificate:
    """Builds the certificate of a calibration that found a threshold.

    Args:
        created_at: UTC, ISO 8601.
        attempt: Number of the attempt on this data, from 1.
    """
    assert found.threshold is not None, "only results with a threshold have a certificate"
    assert found.calibrated is not None, "a result with a threshold is calibrated"
    assert found.held_out is not None, "and has held-out answers"
    low, high = confidence_interval(found.held_out.violations, found.held_out.answers)
    retention_result, rest, splits = found.calibrated, found.held_out, found.resplits
    return ClaimsCertificate(
        agent=agent,
        check=scorer.check,
        judge=scorer.judge,
        alpha=found.alpha,
        threshold=found.threshold,
        calibrated=RetentionCounts(
            retention_result.answers,
            retention_result.parts,
            retention_result.kept,
            retention_result.violations,
            retention_result.empty,
        ),
        held_out=RetentionCounts(rest.answers, rest.parts, rest.kept, rest.violations, rest.empty),
        low=low,
        high=high,
        data=data,
        resplits=ClaimsResplitSummary(splits.rounds, splits.violation_rate, splits.kept_share)
        if splits is not None
        else ClaimsResplitSummary(0, 0.0, 0.0),
        attempt=attempt if attempt > 1 else msgspec.UNSET,
        dependencies=dependencies,
        judge_dependencies=scorer.dependencies,
        created_at=created_at,
    ).with_digest()
