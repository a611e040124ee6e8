"""The file `claims.json`: from which score parts of an agent's answers are kept, what is promised of them, and what that is bound to.

As `orchestra.verification.certificates.file` of a threshold for whole answers; this one is bound to the agent that
judges the claims as well.
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
"""What is compared with the threshold."""


class ClaimsData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answers that it was made on."""

    name: str
    digest: str
    calibration: Count
    held_out: Count
    seed: int
    recorded_scores: bool = False
    """Whether scores were read from a file, and not asked for."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Of inputs and outputs, a sample: by which they are known again among others. Not there in files of before."""
    duplicates: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers that were left out, for another one is to the same input; not there where there was none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers that were left out, for another one of their group stands for them; not there where there was none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """The input that answers of one group have in common; not there where the rows said themselves of which group they are."""

    @property
    def digests(self) -> frozenset[str]:
        """By which the rows are known again."""
        return frozenset({self.digest})


class RetentionCounts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold keeps of some answers: see `orchestra.verification.certificates.conformal.RetentionResult`."""

    answers: Count
    parts: Count
    kept: Count
    violations: Count
    empty: Count


class ClaimsResplitSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The promise, when the answers were divided anew."""

    rounds: Count
    violation_rate: Proportion
    kept_share: Proportion


class ClaimsCertificate(VoidableCertificate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "certificate of claims"
    create_command: ClassVar[str] = "orchestra certify AGENT --claims --data FILE"

    kind: Literal["claims"] = "claims"
    check: str
    """The check that scores claims, such as `entailment`, with the agent that it asks."""
    judge: str
    """That agent."""
    alpha: RiskLevel
    """In at most this share of answers something wrong is kept."""
    threshold: Proportion
    """Parts are kept from this score on."""
    score: str = PART_SCORE
    calibrated: RetentionCounts
    held_out: RetentionCounts
    low: Proportion
    """The 95 % interval of the share of judged answers of which something wrong is kept."""
    high: Proportion
    data: ClaimsData
    resplits: ClaimsResplitSummary
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """Which attempt on these answers it is, or on many of them; not there where it is the first."""
    dependencies: DependencyDigests
    judge_dependencies: DependencyDigests
    """What the scores follow from: the agent that judges, as `dependencies` are of the one that answers."""
    created_at: str
    """UTC, ISO 8601."""

    @property
    def guarantee(self) -> str:
        """What is promised, in one line."""
        share = self.calibrated.kept / self.calibrated.parts if self.calibrated.parts else 0.0
        again = f"; attempt {self.attempt:,} on its answers" if self.attempt else ""
        right = format_percent(1 - self.alpha)
        return f"all that is kept is right in at least {right} of answers; keeps {format_percent(share)} of their parts{again}"

    @property
    def summary(self) -> dict[str, Any]:
        """The promise with what an auditor asks of it, as plain JSON; it is over the draw of the answers too, and has no delta."""
        seen, held_out, data = self.calibrated, self.held_out, self.data
        return {
            "agent": self.agent,
            "guarantee": self.guarantee,
            "alpha": self.alpha,
            **({"attempt": self.attempt} if self.attempt else {}),
            "threshold": self.threshold,
            "coverage": seen.kept / seen.parts if seen.parts else 0.0,
            "rows": {"calibration": data.calibration, "held_out": data.held_out},
            "calibrated": {"accepted": seen.answers, "wrong": seen.violations},
            "held_out": {"accepted": held_out.answers, "wrong": held_out.violations, "interval": [self.low, self.high]},
            "data": {"name": data.name, "digest": data.digest},
            "metrics": [f"each part, as somebody judged it; {self.check} by {self.judge} scores it"],
            "created_at": self.created_at,
            "assumed": ASSUMPTION,
            "certificate": self.digest,
        }

    @property
    def renew_command(self) -> str:
        """What makes a new one."""
        return f"orchestra certify {self.agent} --claims --data FILE --alpha {self.alpha:g}"

    @property
    def drift(self) -> DriftMonitor:
        """A watch over it that begins."""
        answers = self.calibrated.answers
        return DriftMonitor.of_claims(self.alpha, answers, answers - quantile_rank(answers, self.alpha))

    def changes(self, dependencies: DependencyDigests, judge_dependencies: DependencyDigests) -> list[str]:
        """What is not what it was, in words."""
        mine = self.dependencies.changes(dependencies)
        theirs = [
            what
            for what in self.judge_dependencies.changes(judge_dependencies)
            if what not in mine or what != "the code of the checks"
        ]
        return mine + [f"{what.removeprefix('its ').removeprefix('the ')} of {self.judge}" for what in theirs]

    def find_inconsistency(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        seen = self.calibrated
        if not (seen.kept <= seen.parts and seen.violations <= seen.answers == self.data.calibration):
            return "its counts do not fit together"
        if seen.answers - seen.violations < quantile_rank(seen.answers, self.alpha):
            return (
                f"{seen.violations} of {seen.answers} answers with something wrong kept do not carry what it promises"
            )
        return ""


class ClaimScorer(msgspec.Struct, frozen=True):
    """The check that scored the claims, and the agent that it asks."""

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
    assert found.threshold is not None, "only of what came to a threshold"
    assert found.calibrated is not None, "what came to a threshold was calibrated"
    assert found.held_out is not None, "and judged"
    low, high = confidence_interval(found.held_out.violations, found.held_out.answers)
    seen, rest, splits = found.calibrated, found.held_out, found.resplits
    return ClaimsCertificate(
        agent=agent,
        check=scorer.check,
        judge=scorer.judge,
        alpha=found.alpha,
        threshold=found.threshold,
        calibrated=RetentionCounts(seen.answers, seen.parts, seen.kept, seen.violations, seen.empty),
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
