"""Drift: whether the guarantee of a certificate still holds, from answers that are audited one after another. Pure.

Two quantities follow from the same sequence of verdicts:

- *The evidence against the guarantee* is an e-process for “at most `alpha` of what is accepted is wrong”: a bet against
  the guarantee at fair odds, with a starting stake of 1. It is the mean, over the `ODDS_RATIOS` below, of the
  likelihood ratio of a higher error rate against `alpha`. Each ratio is a nonnegative supermartingale while the rate is
  at most `alpha`, and so is their mean. By Ville's inequality it reaches 1 / `delta` with a probability of at most
  `delta`, under continuous monitoring and optional stopping (Robbins 1970, *Statistical methods related to the law of
  the iterated logarithm*; Waudby-Smith and Ramdas 2024, *Estimating means of bounded random variables by betting*,
  https://arxiv.org/abs/2010.09686).
- *The working alpha* is a signal that moves by the step of adaptive conformal inference: `alpha + gamma (guaranteed -
  wrong)` after each audit (Gibbs and Candès 2021, *Adaptive conformal inference under distribution shift*,
  https://arxiv.org/abs/2106.00170, equation 2), bounded between 0 and the guaranteed alpha. Their long-run coverage
  holds for a threshold that moves with it. This threshold does not move, so without bounds the signal would drift for
  ever. With bounds it is a CUSUM (Page 1954, *Continuous inspection schemes*): at the guaranteed alpha while the
  guarantee holds, and lower after recent errors. It must not be used as the alpha of a new certificate.

The guarantee of a certificate of claims is also over the draw of the calibration answers: a single threshold may have a
rate above `alpha`. With half of `delta` the rate is at most `claims_bound`, and the bets are against that bound, with
the other half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from orchestra.verification.certificates.certify import confidence_interval, format_percent

GAMMA = 0.005
"""Step of the working alpha (Gibbs and Candès 2021, section 4)."""
ODDS_RATIOS = (1.5, 2.0, 3.0, 6.0, 20.0)
"""The bets: factors of the guaranteed odds of an error. Small ones detect small drifts, large ones detect broken agents
within a dozen audits. Five bets cost at most a factor of five in evidence, for any error rate.
"""
DETECTION_POWER = 0.9
"""Default detection probability of `audits_to_detect`."""
DEFAULT_DELTA = 0.05
"""Maximum probability of a false alarm for certificates without their own `delta`."""
MAX_AUDITS = 20_000
"""Maximum number of audits that `audits_to_detect` considers."""


@dataclass(frozen=True, slots=True)
class DriftMonitor:
    """The state of monitoring a certificate with `alpha` and `delta`."""

    guaranteed_alpha: float
    """Alpha of the certificate."""
    delta: float
    """Maximum probability of a false alarm."""
    alpha: float
    """Working alpha, from 0 to `guaranteed_alpha`."""
    tested_rate: float
    """Rate of wrong answers that the bets are against: the guaranteed one, or the bound for this single threshold."""
    evidence_limit: float
    """Evidence from which the guarantee is violated."""
    audited: int = 0
    wrong: int = 0
    max_evidence: float = 1.0
    """Maximum of the evidence so far. An alarm is never withdrawn."""

    @classmethod
    def of(cls, alpha: float, delta: float) -> DriftMonitor:
        """Returns a new monitor."""
        return cls(alpha, delta, alpha, alpha, 1 / delta)

    @classmethod
    def of_claims(cls, alpha: float, answers: int, violations: int, delta: float = DEFAULT_DELTA) -> DriftMonitor:
        """Returns a new monitor for a certificate of claims.

        Args:
            answers: Calibration answers.
            violations: Those whose risk may exceed the threshold.
        """
        return cls(alpha, delta, alpha, claims_bound(answers, violations, delta / 2), 2 / delta)

    def with_audit(self, *, wrong: bool, gamma: float = GAMMA) -> DriftMonitor:
        """Returns the monitor after one more audit."""
        audit_count, errors = self.audited + 1, self.wrong + wrong
        alpha = min(self.guaranteed_alpha, max(0.0, self.alpha + gamma * (self.guaranteed_alpha - wrong)))
        highest = max(self.max_evidence, e_value(audit_count, errors, self.tested_rate))
        return replace(self, audited=audit_count, wrong=errors, alpha=alpha, max_evidence=highest)

    @property
    def evidence(self) -> float:
        """Evidence against the guarantee now; 1 at the beginning."""
        return e_value(self.audited, self.wrong, self.tested_rate)

    @property
    def is_violated(self) -> bool:
        """Whether the evidence has ever reached its limit."""
        return self.max_evidence >= self.evidence_limit

    @property
    def status(self) -> str:
        """Describes the state. Audits that do not refute the guarantee do not prove it."""
        if not self.audited:
            return "not audited"
        if self.is_violated:
            return "refuted"
        return "not refuted yet, but the audits point to a violation" if self.evidence > 1 else "not refuted"

    @property
    def summary(self) -> str:
        """Counts of the audits in one line."""
        low, high = confidence_interval(self.wrong, self.audited)
        share = (
            f", {format_percent(self.wrong / self.audited)} [{format_percent(low)}, {format_percent(high)}]"
            if self.audited
            else ""
        )
        return f"{self.wrong:,} of {self.audited:,} wrong{share}"


def claims_bound(answers: int, violations: int, delta: float) -> float:
    """Upper bound of the rate of answers in which something wrong is kept, with probability `1 - delta`.

    The probability is over the draw of the calibration answers: `violations` of them have a risk above the threshold,
    so the rate has Beta(violations + 1, answers - violations) at worst (Vovk 2012, *Conditional validity of inductive
    conformal predictors*, https://arxiv.org/abs/1209.2673, proposition 2b).
    """
    return confidence_interval(violations, answers, 1 - 2 * delta)[1]


def e_value(audited: int, wrong: int, alpha: float) -> float:
    """The value of a stake of 1 that was bet on more errors than `alpha`. Depends only on the counts. Infinite on float
    overflow.
    """
    odds = alpha / (1 - alpha)
    logs = []
    for factor in ODDS_RATIOS:
        rate = factor * odds / (1 + factor * odds)
        logs.append(wrong * math.log(rate / alpha) + (audited - wrong) * math.log((1 - rate) / (1 - alpha)))
    top = max(logs)
    if top > 700:
        return math.inf
    return math.exp(top) * sum(math.exp(log - top) for log in logs) / len(ODDS_RATIOS)


def alarm_probability(alpha: float, delta: float, rate: float, audits: int) -> float:
    """Exact probability that this many audits void a certificate of `alpha` if each answer is wrong with probability
    `rate`.
    """
    return _run_until_alarm(alpha, delta, rate, audits, 1.0)[1]


def audits_to_detect(alpha: float, delta: float, rate: float, power: float = DETECTION_POWER) -> int | None:
    """Number of audits that detect an error rate of `rate` with this probability; None if `MAX_AUDITS` do not, or if
    there is no violation.
    """
    if rate <= alpha:
        return None
    audits, chance = _run_until_alarm(alpha, delta, rate, MAX_AUDITS, power)
    return audits if chance >= power else None


def _run_until_alarm(alpha: float, delta: float, rate: float, audits: int, enough: float) -> tuple[int, float]:
    """Number of audits until the alarm probability is `enough`, at most `audits`, and the probability then.

    Carries the distribution of errors without an alarm from audit to audit. The smallest number of errors that raises
    an alarm never decreases.
    """
    alarm_share, limit = 0.0, min_wrong(0, alpha, delta)
    chances = [1.0]
    for audit_count in range(1, audits + 1):
        chances = [
            (chances[wrong] * (1 - rate) if wrong < len(chances) else 0.0)
            + (chances[wrong - 1] * rate if wrong else 0.0)
            for wrong in range(len(chances) + 1)
        ]
        limit = min_wrong(audit_count, alpha, delta, limit)
        alarm_share += sum(chances[limit:])
        del chances[limit:]
        if alarm_share >= enough:
            return audit_count, alarm_share
    return audits, alarm_share


def min_wrong(audited: int, alpha: float, delta: float, least: int = 1) -> int:
    """Minimum number of errors among this many audits that voids a certificate; more than `audited` if none does. The
    search begins at `least`.
    """
    wrong = max(1, least)
    while wrong <= audited and e_value(audited, wrong, alpha) < 1 / delta:
        wrong += 1
    return wrong
