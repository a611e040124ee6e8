"""The file `claims.json`: from which score parts of an agent's answers are kept, what is promised of them, and what that is bound to.

As `orchestra.verification.certificates.file` of a threshold for whole answers; this one is bound to the agent that
judges the claims as well.
"""

from __future__ import annotations

from typing import Any, ClassVar, Literal

import msgspec

from orchestra.verification.certificates.certify import interval, percent
from orchestra.verification.certificates.conformal import Factuality, rank
from orchestra.verification.certificates.drift import Drift
from orchestra.verification.certificates.file import ASSUMED, Bonds, Count, Level, Share
from orchestra.verification.certificates.row_fingerprints import Marks
from orchestra.verification.certificates.sealed import CLAIMS, Promise

FILE = CLAIMS
SCORE = "the probability that the evidence supports the weakest claim of a part"
"""What is compared with the threshold."""


class Data(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The answers that it was made on."""

    name: str
    digest: str
    calibration: Count
    judged: Count
    seed: int
    scores: bool = False
    """Whether scores were read from a file, and not asked for."""
    marks: Marks | msgspec.UnsetType = msgspec.UNSET
    """Of inputs and outputs, a sample: by which they are known again among others. Not there in files of before."""
    copies: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers that were left out, for another one is to the same input; not there where there was none."""
    grouped: Count | msgspec.UnsetType = msgspec.UNSET
    """Answers that were left out, for another one of their group stands for them; not there where there was none."""
    group: str | msgspec.UnsetType = msgspec.UNSET
    """The input that answers of one group have in common; not there where the rows said themselves of which group they are."""

    @property
    def digests(self) -> frozenset[str]:
        """By which the rows are known again."""
        return frozenset({self.digest})


class Shares(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the threshold keeps of some answers: see `orchestra.verification.certificates.conformal.Kept`."""

    answers: Count
    parts: Count
    kept: Count
    broken: Count
    empty: Count


class Resplit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The promise, when the answers were divided anew."""

    rounds: Count
    violated: Share
    kept: Share


class ClaimsCertificate(Promise, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    file: ClassVar[str] = FILE
    what: ClassVar[str] = "certificate of claims"
    made_by: ClassVar[str] = "orchestra certify AGENT --claims --data FILE"

    format: Literal["orchestra/claims/v1"] = "orchestra/claims/v1"
    check: str
    """The check that scores claims, such as `entailment`, with the agent that it asks."""
    judge: str
    """That agent."""
    alpha: Level
    """In at most this share of answers something wrong is kept."""
    threshold: Share
    """Parts are kept from this score on."""
    score: str = SCORE
    calibrated: Shares
    judged: Shares
    low: Share
    """The 95 % interval of the share of judged answers of which something wrong is kept."""
    high: Share
    data: Data
    resplits: Resplit
    attempt: Count | msgspec.UnsetType = msgspec.UNSET
    """Which attempt on these answers it is, or on many of them; not there where it is the first."""
    bonds: Bonds
    judges: Bonds
    """What the scores follow from: the agent that judges, as `bonds` are of the one that answers."""
    made: str
    """UTC, ISO 8601."""

    @property
    def promise(self) -> str:
        """What is promised, in one line."""
        share = self.calibrated.kept / self.calibrated.parts if self.calibrated.parts else 0.0
        again = f"; attempt {self.attempt:,} on its answers" if self.attempt else ""
        return f"all that is kept is right in at least {percent(1 - self.alpha)} of answers; keeps {percent(share)} of their parts{again}"

    @property
    def terms(self) -> dict[str, Any]:
        """The promise with what an auditor asks of it, as plain JSON; it is over the draw of the answers too, and has no delta."""
        seen, judged, data = self.calibrated, self.judged, self.data
        return {
            "agent": self.agent,
            "promise": self.promise,
            "alpha": self.alpha,
            **({"attempt": self.attempt} if self.attempt else {}),
            "threshold": self.threshold,
            "coverage": seen.kept / seen.parts if seen.parts else 0.0,
            "rows": {"calibration": data.calibration, "judged": data.judged},
            "calibrated": {"accepted": seen.answers, "wrong": seen.broken},
            "judged": {"accepted": judged.answers, "wrong": judged.broken, "interval": [self.low, self.high]},
            "data": {"name": data.name, "digest": data.digest},
            "right": [f"each part, as somebody judged it; {self.check} by {self.judge} scores it"],
            "made": self.made,
            "assumed": ASSUMED,
            "certificate": self.digest,
        }

    @property
    def command(self) -> str:
        """What makes a new one."""
        return f"orchestra certify {self.agent} --claims --data FILE --alpha {self.alpha:g}"

    @property
    def drift(self) -> Drift:
        """A watch over it that begins."""
        answers = self.calibrated.answers
        return Drift.of_claims(self.alpha, answers, answers - rank(answers, self.alpha))

    def changed(self, bonds: Bonds, judges: Bonds) -> list[str]:
        """What is not what it was, in words."""
        mine = self.bonds.changed(bonds)
        theirs = [what for what in self.judges.changed(judges) if what not in mine or what != "the code of the checks"]
        return mine + [f"{what.removeprefix('its ').removeprefix('the ')} of {self.judge}" for what in theirs]

    def unsound(self) -> str:
        """Why its own figures do not carry what it promises; empty where they do."""
        seen = self.calibrated
        if not (seen.kept <= seen.parts and seen.broken <= seen.answers == self.data.calibration):
            return "its counts do not fit together"
        if seen.answers - seen.broken < rank(seen.answers, self.alpha):
            return f"{seen.broken} of {seen.answers} answers with something wrong kept do not carry what it promises"
        return ""


class Scorer(msgspec.Struct, frozen=True):
    """The check that scored the claims, and the agent that it asks."""

    check: str
    judge: str
    bonds: Bonds


def certificate(
    agent: str, bonds: Bonds, scorer: Scorer, found: Factuality, data: Data, made: str, *, attempt: int = 1
) -> ClaimsCertificate:
    """The certificate of a calibration that came to a threshold; `made` is the time, UTC, ISO 8601; `attempt` counts those on its data."""
    assert found.threshold is not None, "only of what came to a threshold"
    assert found.calibrated is not None, "what came to a threshold was calibrated"
    assert found.judged is not None, "and judged"
    low, high = interval(found.judged.broken, found.judged.answers)
    seen, rest, splits = found.calibrated, found.judged, found.resplits
    return ClaimsCertificate(
        agent=agent,
        check=scorer.check,
        judge=scorer.judge,
        alpha=found.alpha,
        threshold=found.threshold,
        calibrated=Shares(seen.answers, seen.parts, seen.kept, seen.broken, seen.empty),
        judged=Shares(rest.answers, rest.parts, rest.kept, rest.broken, rest.empty),
        low=low,
        high=high,
        data=data,
        resplits=Resplit(splits.rounds, splits.violated, splits.kept) if splits is not None else Resplit(0, 0.0, 0.0),
        attempt=attempt if attempt > 1 else msgspec.UNSET,
        bonds=bonds,
        judges=scorer.bonds,
        made=made,
    ).sealed()
