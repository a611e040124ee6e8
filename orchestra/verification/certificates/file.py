"""The file `certificate.json`: a certified threshold, what it promises, on which figures, and what it is bound to."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

import msgspec

from orchestra.verification.certificates.binomial import binomial_tail, share
from orchestra.verification.certificates.certify import SURE, Certification, Certified, Outcome, interval, percent
from orchestra.verification.certificates.drift import Drift
from orchestra.verification.certificates.row_fingerprints import Marks
from orchestra.verification.certificates.sealed import CERTIFICATE, Promise

FILE = CERTIFICATE
SCORE = "the lowest score of the node's checks, each of which passes"
"""What is compared with the threshold (`orchestra.verification.combine_verdicts.score`)."""
WHOLE = "how sure the least sure is of those that the output follows from"
"""And of a workflow as a whole (`orchestra.engine.kinds.confidence`)."""
COMBINED = "what the agent's combination makes of the scores of the node's checks"
"""And where the node says `score: combined`."""

ASSUMED = (
    "the rows and the inputs to come are drawn alike, and independently (exchangeability); nothing in these figures would show otherwise"
)
"""What every promise rests on."""

Share = Annotated[float, msgspec.Meta(ge=0, le=1)]
Level = Annotated[float, msgspec.Meta(gt=0, le=0.5)]
Count = Annotated[int, msgspec.Meta(ge=0, le=10_000_000)]


class Bonds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
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

    def changed(self, now: Bonds) -> list[str]:
        """What is not what it was, in words."""
        its = "its card or prompt" if self.parts is msgspec.UNSET else "what it says itself"
        words = {"card": its, "model": "the model", "adapter": "its adapter or arrays", "checks": "the code of the checks"}
        found = [said for field, said in words.items() if getattr(self, field) != getattr(now, field)]
        before, after = self.parts or {}, now.parts or {}
        return found + [name for name in sorted({*before, *after}) if before.get(name) != after.get(name)]


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The rows that it was made on."""

    name: str
    digest: str
    """Of their bytes, and of recorded predictions."""
    tuning: Count
    calibration: Count
    judged: Count
    seed: int
    right: tuple[str, ...]
    """The metrics that told right answers from wrong ones."""
    predictions: bool = False
    """Whether answers were read from a file, and not asked for."""
    rows: str | msgspec.UnsetType = msgspec.UNSET
    """The digest of the rows alone; not there where nobody recorded answers, for it is `digest`."""
    marks: Marks | msgspec.UnsetType = msgspec.UNSET
    """Of their inputs, a sample: by which they are known again among others. Not there in files of before."""
    copies: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows that were left out, for another one has the same input; not there where there was none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Rows that were left out, for another one of their group stands for them; not there where there was none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """The input that rows of one group have in common; not there where the rows said themselves of which group they are."""

    @property
    def digests(self) -> frozenset[str]:
        """Of the rows, byte by byte."""
        return frozenset({self.digest} | ({self.rows} if self.rows else set()))


class Judged(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold accepted of the rows that neither tuned nor calibrated."""

    rows: Count
    accepted: Count
    errors: Count
    low: Share
    high: Share
    """The 95 % interval of the share of wrong ones among the accepted (Clopper and Pearson)."""


class Resplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What became of the promise, and of the naive threshold, when the rows were divided anew."""

    rounds: Count
    certified: Count
    broken: Count
    refuted: Count
    naive: Count
    naive_broken: Count
    naive_refuted: Count


class Certificate(Promise, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    file: ClassVar[str] = FILE
    what: ClassVar[str] = "certificate"
    made_by: ClassVar[str] = "orchestra certify AGENT --data FILE"

    format: Literal["orchestra/certificate/v1"] = "orchestra/certificate/v1"
    alpha: Level
    """At most this share of what is accepted is wrong …"""
    delta: Level
    """… but for a chance of so much, over the draw of the rows that calibrated it."""
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """Which test of these rows came to it. Not there where that had all of delta, as in files of before."""
    threshold: Share
    score: str = SCORE
    checks: tuple[str, ...]
    """The checks whose score it is."""
    accepted: Count
    """Of the calibration part, and how many of these are wrong."""
    errors: Count
    base_error: Share
    """The share of wrong answers among all rows."""
    withheld: Share
    """The least share that any threshold would have to withhold (the feasibility bound)."""
    data: Data
    judged: Judged
    resplits: Resplit
    bonds: Bonds
    made: str
    """UTC, ISO 8601."""
    combination: str | msgspec.UnsetType = msgspec.UNSET
    """The digest of the combination that makes the score; not there where it is the lowest of the checks."""
    of: Literal["workflow"] | msgspec.UnsetType = msgspec.UNSET
    """Whether `agent` is the name of a workflow, and this is about its output as a whole."""

    @property
    def coverage(self) -> float:
        """The share of the calibration part that is accepted."""
        return self.accepted / self.data.calibration

    @property
    def promise(self) -> str:
        """What is promised, in one line."""
        said = f"at most {percent(self.alpha)} of what is accepted is wrong, with {percent(1 - self.delta)} confidence"
        once = "; each group counts once" if self.data.grouped else "; each input counts once" if self.data.copies else ""
        return f"{said}; covers {percent(self.coverage)}{once}"

    @property
    def spent(self) -> float:
        """The part of delta that its test had."""
        return self.delta * share(self.attempt or 0)

    @property
    def terms(self) -> dict[str, Any]:
        """The promise with what an auditor asks of it, as plain JSON."""
        data = self.data
        return {
            self.of or "agent": self.agent,
            "promise": self.promise,
            "alpha": self.alpha,
            "delta": self.delta,
            "attempt": self.attempt or None,
            "tested_at": self.spent,
            "threshold": self.threshold,
            "coverage": self.coverage,
            "rows": {"tuning": data.tuning, "calibration": data.calibration, "judged": data.judged},
            "left_out": {"copies": data.copies or 0, "grouped": data.grouped or 0},
            "calibrated": {"accepted": self.accepted, "wrong": self.errors},
            "judged": {"accepted": self.judged.accepted, "wrong": self.judged.errors, "interval": [self.judged.low, self.judged.high]},
            "data": {"name": data.name, "digest": data.digest},
            "right": list(data.right),
            "made": self.made,
            "assumed": ASSUMED,
            "certificate": self.digest,
        }

    @property
    def command(self) -> str:
        """What makes a new one."""
        more = " --combined" if self.combination else ""
        return f"orchestra certify {self.agent} --data FILE --alpha {self.alpha:g} --delta {self.delta:g}{more}"

    @property
    def drift(self) -> Drift:
        """A watch over it that begins."""
        return Drift.of(self.alpha, self.delta)

    def unsound(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        if not self.errors <= self.accepted <= self.data.calibration:
            return "its counts do not fit together"
        if binomial_tail(self.errors, self.accepted, self.alpha) > self.spent:
            return f"{self.errors} errors among {self.accepted} accepted do not carry what it promises"
        return ""


class Origin(msgspec.Struct, frozen=True):
    """Where the answers of a certification come from: name and digest of the data, metrics, and whether they were read from a file."""

    name: str
    digest: str
    right: tuple[str, ...]
    predictions: bool
    rows: str = ""
    """The digest of the rows alone, where answers were read from a file."""
    marks: Marks | None = None
    copies: int = 0
    grouped: int = 0
    group: str = ""


def certificate(
    agent: str, checks: tuple[str, ...], found: Certification, origin: Origin, bonds: Bonds, made: str, combination: str = ""
) -> Certificate:
    """The certificate of a certification that came to one; `made` is the time, UTC, ISO 8601; `combination` the digest of the one that
    makes the score, where one does."""
    outcome, judged, splits = found.outcome, found.judged, found.resplits
    assert isinstance(outcome, Certified), "only of what was certified"
    assert judged is not None, "what was certified was judged"
    low, high = interval(judged.errors, judged.accepted, SURE)
    return Certificate(
        agent=agent,
        alpha=found.terms.alpha,
        delta=found.terms.delta,
        attempt=found.terms.attempt or msgspec.UNSET,
        threshold=outcome.step.threshold,
        score=WHOLE if bonds.parts is not msgspec.UNSET else COMBINED if combination else SCORE,
        of="workflow" if bonds.parts is not msgspec.UNSET else msgspec.UNSET,
        checks=tuple(sorted(checks)),
        combination=combination or msgspec.UNSET,
        accepted=outcome.step.accepted,
        errors=outcome.step.errors,
        base_error=found.bound.base_error,
        withheld=found.bound.withheld,
        data=Data(
            name=origin.name,
            digest=origin.digest,
            tuning=found.tuning,
            calibration=found.calibration,
            judged=judged.rows,
            seed=found.terms.seed,
            right=origin.right,
            predictions=origin.predictions,
            rows=origin.rows or msgspec.UNSET,
            marks=origin.marks or msgspec.UNSET,
            copies=origin.copies or msgspec.UNSET,
            grouped=origin.grouped or msgspec.UNSET,
            group=origin.group or msgspec.UNSET,
        ),
        judged=Judged(judged.rows, judged.accepted, judged.errors, low, high),
        resplits=Resplit(
            splits.rounds, splits.certified, splits.broken, splits.refuted, splits.naive, splits.naive_broken, splits.naive_refuted
        ),
        bonds=bonds,
        made=made,
    ).sealed()


def as_data(found: Certification) -> dict[str, Any]:
    """A certification as plain JSON."""
    return {**msgspec.to_builtins(found), "outcome": as_outcome(found.outcome)}


def as_outcome(found: Outcome) -> dict[str, Any]:
    """What a certification came to, as plain JSON."""
    return {"kind": type(found).__name__, **msgspec.to_builtins(found)}
