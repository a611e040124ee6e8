"""The file `certificate.json`: a certified threshold, what it promises, on which figures, and what it is bound to."""

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
"""What is compared with the threshold (`orchestra.verification.acceptance.combined_score`)."""
WORKFLOW_SCORE = "how sure the least sure is of those that the output follows from"
"""And of a workflow as a whole (`orchestra.engine.kinds.confidence`)."""
COMBINED_SCORE = "what the agent's combination makes of the scores of the node's checks"
"""And where the node says `score: combined`."""

ASSUMPTION = "the rows and the inputs to come are drawn alike, and independently (exchangeability); nothing in these figures would show otherwise"
"""What every promise rests on."""

Proportion = Annotated[float, msgspec.Meta(ge=0, le=1)]
RiskLevel = Annotated[float, msgspec.Meta(gt=0, le=0.5)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class DependencyDigests(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Digests of all that an agent's answers and their scores follow from."""

    card: str
    """Of prompt, types, sampling and the like, without what says how answers are accepted."""
    model: str
    """Of the base weights and how they are served; of an endpoint's name and `revision:`. Empty for agents that ask no server."""
    adapter: str
    """Of what it has learnt: an adapter's weights, a classical agent's arrays, the version of code. Empty for nothing."""
    checks: str
    """Of the code of the checks."""
    parts: dict[str, str] | msgspec.UnsetType = msgspec.UNSET
    """Of a workflow: of all that it asks, calls and accepts by, in words. Not there for an agent."""

    def changes(self, now: DependencyDigests) -> list[str]:
        """What is not what it was, in words."""
        its = "its card or prompt" if self.parts is msgspec.UNSET else "what it says itself"
        words = {
            "card": its,
            "model": "the model",
            "adapter": "its adapter or arrays",
            "checks": "the code of the checks",
        }
        found = [text for field, text in words.items() if getattr(self, field) != getattr(now, field)]
        before, after = self.parts or {}, now.parts or {}
        return found + [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


class CertificateData(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that it was made on."""

    name: str
    digest: str
    """Of their bytes, and of recorded predictions."""
    tuning: Count
    calibration: Count
    held_out: Count
    seed: int
    metrics: tuple[str, ...]
    """The metrics that told right answers from wrong ones."""
    predictions: bool = False
    """Whether answers were read from a file, and not asked for."""
    rows_digest: str | msgspec.UnsetType = msgspec.UNSET
    """The digest of the rows alone; not there where nobody recorded answers, for it is `digest`."""
    fingerprints: RowFingerprints | msgspec.UnsetType = msgspec.UNSET
    """Of their inputs, a sample: by which they are known again among others."""
    duplicates: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows that were left out, for another one has the same input; not there where there was none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows that were left out, for another one of their group stands for them; not there where there was none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """The input that rows of one group have in common; not there where the rows said themselves of which group they are."""

    @property
    def digests(self) -> frozenset[str]:
        """Of the rows, byte by byte."""
        return frozenset({self.digest} | ({self.rows_digest} if self.rows_digest else set()))


class HeldOutResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold accepted of the rows that neither tuned nor calibrated."""

    rows: Count
    accepted: Count
    errors: Count
    low: Proportion
    high: Proportion
    """The 95 % interval of the share of wrong ones among the accepted (Clopper and Pearson)."""


class ResplitSummary(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the promise, and of the naive threshold, when the rows were divided anew."""

    rounds: Count
    certified: Count
    violations: Count
    significant_violations: Count
    naive: Count
    naive_violations: Count
    naive_significant_violations: Count


class Certificate(VoidableCertificate, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    file_name: ClassVar[str] = FILE_NAME
    title: ClassVar[str] = "certificate"
    create_command: ClassVar[str] = "orchestra certify AGENT --data FILE"

    kind: Literal["outputs"] = "outputs"
    alpha: RiskLevel
    """At most this share of what is accepted is wrong …"""
    delta: RiskLevel
    """… but for a chance of so much, over the draw of the rows that calibrated it."""
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """The number of this test of the rows. Not present if that test had all of delta."""
    threshold: Proportion
    score: str = NODE_SCORE
    checks: tuple[str, ...]
    """The checks whose score it is."""
    accepted: Count
    """Of the calibration part, and how many of these are wrong."""
    errors: Count
    base_error: Proportion
    """The share of wrong answers among all rows."""
    min_withheld: Proportion
    """The least share that any threshold would have to withhold (the feasibility bound)."""
    data: CertificateData
    held_out: HeldOutResult
    resplits: ResplitSummary
    dependencies: DependencyDigests
    created_at: str
    """UTC, ISO 8601."""
    combination: str | msgspec.UnsetType = msgspec.UNSET
    """The digest of the combination that makes the score; not there where it is the lowest of the checks."""
    subject_kind: Literal["workflow"] | msgspec.UnsetType = msgspec.UNSET
    """Whether `agent` is the name of a workflow, and this is about its output as a whole."""

    @property
    def coverage(self) -> float:
        """The share of the calibration part that is accepted."""
        return self.accepted / self.data.calibration

    @property
    def guarantee(self) -> str:
        """What is promised, in one line."""
        promise = f"at most {format_percent(self.alpha)} of what is accepted is wrong, with {format_percent(1 - self.delta)} confidence"
        once = (
            "; each group counts once"
            if self.data.grouped
            else "; each input counts once"
            if self.data.duplicates
            else ""
        )
        return f"{promise}; covers {format_percent(self.coverage)}{once}"

    @property
    def spent_delta(self) -> float:
        """The part of delta that its test had."""
        return self.delta * delta_share(self.attempt or 0)

    @property
    def summary(self) -> dict[str, Any]:
        """The promise with what an auditor asks of it, as plain JSON."""
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
        """What makes a new one."""
        more = " --combined" if self.combination else ""
        return f"orchestra certify {self.agent} --data FILE --alpha {self.alpha:g} --delta {self.delta:g}{more}"

    @property
    def drift(self) -> DriftMonitor:
        """A watch over it that begins."""
        return DriftMonitor.of(self.alpha, self.delta)

    def find_inconsistency(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        if not self.errors <= self.accepted <= self.data.calibration:
            return "its counts do not fit together"
        if binomial_tail(self.errors, self.accepted, self.alpha) > self.spent_delta:
            return f"{self.errors} errors among {self.accepted} accepted do not carry what it promises"
        return ""


class CertificationOrigin(msgspec.Struct, frozen=True):
    """Where the answers of a certification come from: name and digest of the data, metrics, and whether they were read from a file."""

    name: str
    digest: str
    metrics: tuple[str, ...]
    predictions: bool
    rows_digest: str = ""
    """The digest of the rows alone, where answers were read from a file."""
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
    """A certification as plain JSON."""
    return {**msgspec.to_builtins(found), "outcome": outcome_to_json(found.outcome)}


def outcome_to_json(found: Outcome) -> dict[str, Any]:
    """What a certification came to, as plain JSON."""
    return {"kind": type(found).__name__, **msgspec.to_builtins(found)}
