"""Drift: whether the promise of a certificate still holds, told from answers that are audited one after the other. Pure.

Two things follow from the same verdicts, in their order:

- *the evidence against the promise*, an e-process for “at most `alpha` of what is accepted is wrong”: somebody bets against the promise
  at fair odds, and what a stake of 1 has become is the evidence. It is the mean, over the `ODDS_RATIOS` below, of the likelihood ratio of a
  higher error rate against `alpha`; each is a nonnegative supermartingale while the rate is at most `alpha`, and so is their mean. By
  Ville's inequality it reaches 1 / `delta` with a chance of at most `delta`, however often anybody looks and whenever he stops
  (Robbins 1970, *Statistical methods related to the law of the iterated logarithm*; Waudby-Smith and Ramdas 2024, *Estimating means
  of bounded random variables by betting*, https://arxiv.org/abs/2010.09686).
- *the working alpha*, a signal by the step of adaptive conformal inference: `alpha + gamma (promised - wrong)` after each audit (Gibbs and
  Candès 2021, *Adaptive conformal inference under distribution shift*, https://arxiv.org/abs/2106.00170, equation 2), kept between 0 and
  what was promised. Their long-run coverage is that of a threshold which moves with it. This one does not move, so unbounded it would
  drift for ever; bounded it is a CUSUM (Page 1954, *Continuous inspection schemes*): at rest at what was promised while the promise is
  kept, the lower the more was wrong of late. It is nothing to make a certificate at.

The promise of a certificate of claims is over the draw of the answers that calibrated it as well: of one threshold the rate may be higher
than `alpha`. By half of `delta` it is at most `claims_bound`, and the bets are against that, with the other half.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from orchestra.verification.certificates.certify import confidence_interval, format_percent

GAMMA = 0.005
"""The step of the working alpha (Gibbs and Candès 2021, section 4)."""
ODDS_RATIOS = (1.5, 2.0, 3.0, 6.0, 20.0)
"""The bets: by how much the odds of an error are higher than promised. Small ones find small drifts, great ones find broken agents
within a dozen audits; five of them cost at most a factor of five in evidence, whichever is right."""
DETECTION_POWER = 0.9
"""The share of watches that `audits_to_detect` speaks of."""
DEFAULT_DELTA = 0.05
"""The chance of a false alarm, of certificates that have no `delta` of their own."""
MAX_AUDITS = 20_000
"""Audits that `audits_to_detect` looks ahead, at most."""


@dataclass(frozen=True, slots=True)
class DriftMonitor:
    """A watch over a certificate of `alpha` and `delta`, after some audits."""

    promised: float
    """The certificate's alpha."""
    delta: float
    """The chance of a false alarm, at most."""
    alpha: float
    """The working alpha, from 0 to `promised`."""
    tested_rate: float
    """The rate of wrong answers that the bets are against: what was promised, or what the rate of this one threshold may be."""
    evidence_limit: float
    """The evidence from which on the promise is broken."""
    audited: int = 0
    wrong: int = 0
    max_evidence: float = 1.0
    """The most evidence that there was: who has alarmed once does not take it back."""

    @classmethod
    def of(cls, alpha: float, delta: float) -> DriftMonitor:
        """A watch that begins."""
        return cls(alpha, delta, alpha, alpha, 1 / delta)

    @classmethod
    def of_claims(cls, alpha: float, answers: int, violations: int, delta: float = DEFAULT_DELTA) -> DriftMonitor:
        """A watch over a certificate of claims that begins: it was calibrated by so many answers, of which so many are above the threshold
        that it had to stay under."""
        return cls(alpha, delta, alpha, claims_bound(answers, violations, delta / 2), 2 / delta)

    def with_audit(self, *, wrong: bool, gamma: float = GAMMA) -> DriftMonitor:
        """The watch after one more audit."""
        audited, errors = self.audited + 1, self.wrong + wrong
        alpha = min(self.promised, max(0.0, self.alpha + gamma * (self.promised - wrong)))
        highest = max(self.max_evidence, e_value(audited, errors, self.tested_rate))
        return replace(self, audited=audited, wrong=errors, alpha=alpha, max_evidence=highest)

    @property
    def evidence(self) -> float:
        """Against the promise, now; 1 at the beginning."""
        return e_value(self.audited, self.wrong, self.tested_rate)

    @property
    def is_violated(self) -> bool:
        """Whether the evidence has ever reached its limit."""
        return self.max_evidence >= self.evidence_limit

    @property
    def status(self) -> str:
        """What the audits say of the promise, in words. That they do not refute it does not show that it is kept."""
        if not self.audited:
            return "not audited"
        if self.is_violated:
            return "refuted"
        return "not refuted yet; the audits speak against it" if self.evidence > 1 else "not refuted"

    @property
    def summary(self) -> str:
        """What the audits say, in one line."""
        low, high = confidence_interval(self.wrong, self.audited)
        share = (
            f", {format_percent(self.wrong / self.audited)} [{format_percent(low)}, {format_percent(high)}]"
            if self.audited
            else ""
        )
        return f"{self.wrong:,} of {self.audited:,} wrong{share}"


def claims_bound(answers: int, violations: int, delta: float) -> float:
    """Upper bound of the rate of answers in which something wrong is kept, with probability `1 - delta`.

    The probability is over the draw of the calibration answers: `violations` of them have a risk above the threshold, so
    the rate has Beta(violations + 1, answers - violations) at worst (Vovk 2012, *Conditional validity of inductive
    conformal predictors*, https://arxiv.org/abs/1209.2673, proposition 2b).
    """
    return confidence_interval(violations, answers, 1 - 2 * delta)[1]


def e_value(audited: int, wrong: int, alpha: float) -> float:
    """What a stake of 1 has become that was put on more errors than `alpha`; it depends on the counts alone. Infinite where it is
    more than a float holds."""
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
    """The chance that so many audits void a certificate of `alpha` where each answer is wrong with a chance of `rate`; exact."""
    return _run_until_alarm(alpha, delta, rate, audits, 1.0)[1]


def audits_to_detect(alpha: float, delta: float, rate: float, power: float = DETECTION_POWER) -> int | None:
    """How many audits find, in so great a share of watches, that the error rate is `rate`; None where `MAX_AUDITS` does not, or where
    there is nothing to find."""
    if rate <= alpha:
        return None
    audits, chance = _run_until_alarm(alpha, delta, rate, MAX_AUDITS, power)
    return audits if chance >= power else None


def _run_until_alarm(alpha: float, delta: float, rate: float, audits: int, enough: float) -> tuple[int, float]:
    """After how many audits the chance of an alarm is `enough`, or `audits`, and the chance then.

    The errors of watches without an alarm, by their probability, are carried from audit to audit; the least number that alarms only grows.
    """
    alarmed, limit = 0.0, min_wrong(0, alpha, delta)
    chances = [1.0]
    for audited in range(1, audits + 1):
        chances = [
            (chances[wrong] * (1 - rate) if wrong < len(chances) else 0.0)
            + (chances[wrong - 1] * rate if wrong else 0.0)
            for wrong in range(len(chances) + 1)
        ]
        limit = min_wrong(audited, alpha, delta, limit)
        alarmed += sum(chances[limit:])
        del chances[limit:]
        if alarmed >= enough:
            return audited, alarmed
    return audits, alarmed


def min_wrong(audited: int, alpha: float, delta: float, least: int = 1) -> int:
    """The fewest errors among so many audits that void a certificate; `least` is where the search begins. More than `audited` where
    nothing would."""
    wrong = max(1, least)
    while wrong <= audited and e_value(audited, wrong, alpha) < 1 / delta:
        wrong += 1
    return wrong
