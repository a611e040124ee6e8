"""The file `certificate.json`: a certified threshold, its guarantee, its figures and its dependencies."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from orchestra.verification.certificates.binomial import binomial_tail, delta_share
from orchestra.verification.certificates.certify import (
    CONFIDENCE_LEVEL,
    Certification,
    Certified,
    Outcome,
    confidence_interval,
    format_percent,
)
from orchestra.verification.certificates.drift import DriftMonitor
from orchestra.verification.certificates.format import CERTIFICATE_FILE, VoidableCertificate
from orchestra.verification.certificates.row_fingerprints import RowFingerprints

FILE_NAME = CERTIFICATE_FILE
NODE_SCORE = "the lowest score of the node's checks, each of which passes"
"""The score that is compared with the threshold (`orchestra.verification.acceptance.combined_score`)."""
WORKFLOW_SCORE = "the lowest confidence of the nodes that the output depends on"
"""The same for a workflow (`orchestra.engine.kinds.confidence`)."""
COMBINED_SCORE = "the scores of the node's checks, combined by the agent's combination"
"""The same for a node with `score: combined`."""

ASSUMPTION = (
    "the rows and future inputs are exchangeable (drawn independently from one distribution); "
    "these figures cannot show a violation"
)
"""Assumption of every guarantee."""

Proportion = Annotated[float, msgspec.Meta(ge=0, le=1)]
RiskLevel = Annotated[float, msgspec.Meta(gt=0, le=0.5)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class DependencyDigests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digests of everything that an agent's answers and their scores depend on."""

    card: str
    """Digest of prompt, types, sampling and the like, without the acceptance settings."""
    model: str
    """Digest of the base weights and serving options, or of an endpoint's name and `revision:`. Empty for agents
    without a server.
    """
    adapter: str
    """Digest of what was trained: an adapter's weights, a classical agent's arrays, or the version of code. Empty for
    none.
    """
    checks: str
    """Digest of the code of the checks."""
    parts: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Digests of everything that a workflow calls and accepts by, with a description as key. Not present for an agent.
    """

    def changes(self, now: DependencyDigests) -> list[str]:
        """Describes what changed."""
        its = "its card or prompt" if self.parts is msgspec.UNSET else "its own definition"
        words = {
            "card": its,
            "model": "the model",
            "adapter": "its adapter or arrays",
            "checks": "the code of the checks",
        }
        changed_fields = [text for field, text in words.items() if getattr(self, field) != getattr(now, field)]
        before, after = self.parts or {}, now.parts or {}
        return changed_fields + [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


class CertificateData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that it was made from."""

    name: str
    digest: str
    """Digest of the rows' bytes, and of recorded predictions."""
    tuning: Count
    calibration: Count
    held_out: Count
    seed: int
    metrics: tuple[str, ...]
    """Metrics that labelled the answers."""
    predictions: bool = False
    """Whether the answers were read from a file."""
    rows_digest: str | msgspec.UnsetType = msgspec.UNSET
    """Digest of the rows alone. Not present without recorded answers, when it is `digest`."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Sample of the fingerprints of their inputs."""
    duplicates: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows left out because another one has the same input. Not present if there were none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows left out because another one represents their group. Not present if there were none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """Input whose value defines a group. Not present if the rows state their groups themselves."""

    @property
    def digests(self) -> frozenset[str]:
        """Digests of the rows' bytes."""
        return frozenset({self.digest} | ({self.rows_digest} if self.rows_digest else set()))


class HeldOutResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold accepts of the held-out rows."""

    rows: Count
    accepted: Count
    errors: Count
    low: Proportion
    high: Proportion
    """Upper end of the 95 % confidence interval of the share of wrong answers among the accepted ones (Clopper and
    Pearson).
    """


class ResplitSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Outcome of the guarantee, and of the naive threshold, over random divisions of the rows."""

    rounds: Count
    certified: Count
    violations: Count
    significant_violations: Count
    naive: Count
    naive_violations: Count
    naive_significant_violations: Count


class Certificate(VoidableCertificate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A certificate of outputs."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "certificate"
    create_command: ClassVar[str] = "orchestra certify AGENT --data FILE"

    kind: Literal["outputs"] = "outputs"
    alpha: RiskLevel
    """Maximum share of wrong answers among the accepted ones."""
    delta: RiskLevel
    """Maximum probability that the guarantee is false, over the draw of the calibration rows."""
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """Number of this test of the rows. Not present if the test had all of delta."""
    threshold: Proportion
    score: str = NODE_SCORE
    checks: tuple[str, ...]
    """Checks that make the score."""
    accepted: Count
    """Accepted calibration rows; `errors` is the number of wrong ones."""
    errors: Count
    base_error: Proportion
    """Share of wrong answers among all rows."""
    min_withheld: Proportion
    """Minimum share that any threshold must withhold (the feasibility bound)."""
    data: CertificateData
    held_out: HeldOutResult
    resplits: ResplitSummary
    dependencies: DependencyDigests
    created_at: str
    """UTC, ISO 8601."""
    combination: str | msgspec.UnsetType = msgspec.UNSET
    """Digest of the combination that computes the score. Not present if the score is the lowest of the checks."""
    subject_kind: Literal["workflow"] | msgspec.UnsetType = msgspec.UNSET
    """Present if `agent` is the name of a workflow, and the certificate is about its output."""

    @property
    def coverage(self) -> float:
        """Share of the calibration rows that are accepted."""
        return self.accepted / self.data.calibration

    @property
    def guarantee(self) -> str:
        """The guarantee in one line."""
        confidence = f"with {format_percent(1 - self.delta)} confidence"
        guarantee = f"at most {format_percent(self.alpha)} of what is accepted is wrong, {confidence}"
        once = (
            "; each group counts once"
            if self.data.grouped
            else "; each input counts once"
            if self.data.duplicates
            else ""
        )
        return f"{guarantee}; covers {format_percent(self.coverage)}{once}"

    @property
    def spent_delta(self) -> float:
        """Part of delta that the test had."""
        return self.delta * delta_share(self.attempt or 0)

    @property
    def summary(self) -> dict[str, Any]:
        """The guarantee and its figures as plain JSON."""
        data = self.data
        return {
            self.subject_kind or "agent": self.agent,
            "guarantee": self.guarantee,
            "alpha": self.alpha,
            "delta": self.delta,
            "attempt": self.attempt or None,
            "tested_at": self.spent_delta,
            "threshold": self.threshold,
            "coverage": self.coverage,
            "rows": {"tuning": data.tuning, "calibration": data.calibration, "held_out": data.held_out},
            "left_out": {"duplicates": data.duplicates or 0, "grouped": data.grouped or 0},
            "calibrated": {"accepted": self.accepted, "wrong": self.errors},
            "held_out": {
                "accepted": self.held_out.accepted,
                "wrong": self.held_out.errors,
                "interval": [self.held_out.low, self.held_out.high],
            },
            "data": {"name": data.name, "digest": data.digest},
            "metrics": list(data.metrics),
            "created_at": self.created_at,
            "assumed": ASSUMPTION,
            "certificate": self.digest,
        }

    @property
    def renew_command(self) -> str:
        """Command line that makes a new file in place of this one."""
        suffix = " --combined" if self.combination else ""
        return f"orchestra certify {self.agent} --data FILE --alpha {self.alpha:g} --delta {self.delta:g}{suffix}"

    @property
    def drift(self) -> DriftMonitor:
        """A new drift monitor for it."""
        return DriftMonitor.of(self.alpha, self.delta)

    def find_inconsistency(self) -> str:
        """Returns why the figures do not support the guarantee; empty if they do."""
        if not self.errors <= self.accepted <= self.data.calibration:
            return "its counts are inconsistent"
        if binomial_tail(self.errors, self.accepted, self.alpha) > self.spent_delta:
            return f"{self.errors} errors among {self.accepted} accepted do not support its guarantee"
        return ""


class CertificationOrigin(msgspec.Struct, frozen=True):
    """Origin of the answers: name and digest of the data, metrics, and whether the answers were read from a file."""

    name: str
    digest: str
    metrics: tuple[str, ...]
    predictions: bool
    rows_digest: str = ""
    """Digest of the rows alone, if answers were read from a file."""
    fingerprints: RowFingerprints | None = None
    duplicates: int = 0
    grouped: int = 0
    group: str = ""


def build_certificate(
    agent: str,
    checks: tuple[str, ...],
    found: Certification,
    origin: CertificationOrigin,
    dependencies: DependencyDigests,
    created_at: str,
    combination: str = "",
) -> Certificate:
    """Builds the certificate of a certification with the outcome `Certified`.

    Args:
        created_at: UTC, ISO 8601.
        combination: Digest of the combination that computes the score; empty if none does.
    """
    outcome, held_out, splits = found.outcome, found.held_out, found.resplits
    assert isinstance(outcome, Certified), "only of what was certified"
    assert held_out is not None, "what was certified was judged"
    low, high = confidence_interval(held_out.errors, held_out.accepted, CONFIDENCE_LEVEL)
    return Certificate(
        agent=agent,
        alpha=found.terms.alpha,
        delta=found.terms.delta,
        attempt=found.terms.attempt or msgspec.UNSET,
        threshold=outcome.threshold_test.threshold,
        score=WORKFLOW_SCORE
        if dependencies.parts is not msgspec.UNSET
        else COMBINED_SCORE
        if combination
        else NODE_SCORE,
        subject_kind="workflow" if dependencies.parts is not msgspec.UNSET else msgspec.UNSET,
        checks=tuple(sorted(checks)),
        combination=combination or msgspec.UNSET,
        accepted=outcome.threshold_test.accepted,
        errors=outcome.threshold_test.errors,
        base_error=found.bound.base_error,
        min_withheld=found.bound.min_withheld,
        data=CertificateData(
            name=origin.name,
            digest=origin.digest,
            tuning=found.tuning,
            calibration=found.calibration,
            held_out=held_out.rows,
            seed=found.terms.seed,
            metrics=origin.metrics,
            predictions=origin.predictions,
            rows_digest=origin.rows_digest or msgspec.UNSET,
            fingerprints=origin.fingerprints or msgspec.UNSET,
            duplicates=origin.duplicates or msgspec.UNSET,
            grouped=origin.grouped or msgspec.UNSET,
            group=origin.group or msgspec.UNSET,
        ),
        held_out=HeldOutResult(held_out.rows, held_out.accepted, held_out.errors, low, high),
        resplits=ResplitSummary(
            splits.rounds,
            splits.certified,
            splits.violations,
            splits.significant_violations,
            splits.naive,
            splits.naive_violations,
            splits.naive_significant_violations,
        ),
        dependencies=dependencies,
        created_at=created_at,
    ).with_digest()


def certification_to_json(found: Certification) -> dict[str, Any]:
    """Converts a certification to plain JSON."""
    return {**msgspec.to_builtins(found), "outcome": outcome_to_json(found.outcome)}


def outcome_to_json(found: Outcome) -> dict[str, Any]:
    """Converts an outcome to plain JSON."""
    return {"kind": type(found).__name__, **msgspec.to_builtins(found)}
