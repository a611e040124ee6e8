"""Certification: finds an acceptance threshold on labelled answers, with a statistical guarantee. Pure.

Fixed-sequence testing of V5 in VERIFICATION (Angelopoulos, Bates, Candès, Jordan, Lei 2021, *Learn then Test*,
https://arxiv.org/abs/2110.01052, with the exact binomial tail as the p-value). The thresholds come from the tuning
rows, strict ones first. On separate calibration rows each is tested for “more than `alpha` of what it accepts is
wrong”, and the sequence ends at the first test that cannot reject this. If the answers are exchangeable with future
ones, the share of wrong answers among the accepted ones is at most `alpha` with probability at least 1 - `delta` over
the draw of the calibration rows.
"""

from __future__ import annotations

import math
import random
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, TypeAlias

from orchestra.core.errors import InputError
from orchestra.verification.certificates.binomial import binomial_tail, delta_share, min_accepted

START_COVERAGE = 0.15
"""Share of answers that the strictest threshold accepts."""
COVERAGE_STEP = 0.05
"""Increase of that share from one threshold to the next."""
NONE_ACCEPTED_HINT = (
    "look at the check results of some answers (orchestra run AGENT --json, orchestra check), "
    "or use other checks (--checks)"
)
"""Hint if no answer passes its checks."""
SAFETY_FACTOR = 1.25
"""The first test should accept this many times the minimum number of answers, as far as the tuning rows predict."""
P_VALUE_MARGIN = 0.2
"""The p-value of the first test, predicted from the tuning rows, should be below this share of delta."""
RESPLIT_ROUNDS = 200
"""Number of resplits of one certification."""
CONFIDENCE_LEVEL = 0.95
"""Confidence level of the intervals that are shown."""


class ScoredAnswer(NamedTuple):
    """An answer to a labelled row."""

    id: str
    score: float | None
    """Score of the result in [0, 1]; None if it is accepted at no threshold: withheld, failed, or rejected by a check.
    """
    wrong: bool


@dataclass(frozen=True, slots=True)
class CertificationTerms:
    """The guarantee to certify, and the division of the rows. Rows that neither tune nor calibrate are held out."""

    alpha: float = 0.05
    """Maximum share of wrong answers among the accepted ones."""
    delta: float = 0.05
    """Maximum probability that the guarantee is false."""
    tuning: float = 0.2
    calibration: float = 0.5
    seed: int = 0
    attempt: int = 0
    """Number of this test among those of the same rows that share delta; 0 for a test that has all of delta."""

    def __post_init__(self) -> None:
        """Raises `InputError` V006."""
        for name, value in (("alpha", self.alpha), ("delta", self.delta)):
            if not 0 < value <= 0.5:
                raise InputError(
                    "V006", f"{name} is {value}, and must be above 0 and at most 0.5", hint=f"--{name} 0.05"
                )
        if not (self.tuning > 0 and self.calibration > 0 and self.tuning + self.calibration < 1):
            reason = f"{self.tuning} of the rows to tune and {self.calibration} to calibrate leave no held-out rows"
            raise InputError("V006", reason, hint="0.2 and 0.5")

    @property
    def spent_delta(self) -> float:
        """Part of delta for this test: four fifths for the first; the others share the rest."""
        return self.delta * delta_share(self.attempt)

    @property
    def next_attempt(self) -> CertificationTerms:
        """Returns the terms of another test on the same rows."""
        return replace(self, attempt=self.attempt + 1) if self.attempt else self

    @property
    def min_accepted(self) -> int:
        """Minimum number of accepted answers without an error that supports the guarantee: 59 for 5 % and 5 %, if the
        test has all of delta.
        """
        return min_accepted(0.0, self.alpha, self.spent_delta)

    def calibration_size(self, rows: int) -> int:
        """Number of calibration rows among this many rows."""
        return round(self.calibration * rows)

    @property
    def min_calibration(self) -> int:
        """Minimum number of calibration rows with which the strictest threshold accepts enough answers."""
        return math.ceil(SAFETY_FACTOR * self.min_accepted / START_COVERAGE)


@dataclass(frozen=True, slots=True)
class ThresholdTest:
    """A tested threshold: what it accepts of the calibration rows, and the p-value of so few errors."""

    threshold: float
    accepted: int
    errors: int
    p_value: float


@dataclass(frozen=True, slots=True)
class ThresholdResult:
    """What a threshold accepts of some rows."""

    rows: int
    accepted: int
    errors: int

    @property
    def coverage(self) -> float:
        """Share of rows that are accepted."""
        return self.accepted / self.rows if self.rows else 0.0

    @property
    def risk(self) -> float | None:
        """Share of wrong answers among the accepted ones; None if none is accepted."""
        return self.errors / self.accepted if self.accepted else None

    def exceeds(self, alpha: float) -> bool:
        """Whether more than `alpha` of the accepted answers are wrong."""
        return self.errors > alpha * self.accepted

    def refutes(self, alpha: float) -> bool:
        """Whether chance does not explain the excess: P(Bin(accepted, alpha) >= errors) is at most 1/20."""
        return 1 - binomial_tail(self.errors - 1, self.accepted, alpha) <= 1 - CONFIDENCE_LEVEL


@dataclass(frozen=True, slots=True)
class Certified:
    """A threshold has the guarantee: the loosest one that passed."""

    threshold_test: ThresholdTest
    coverage: float
    """Share of the calibration rows that are accepted."""


@dataclass(frozen=True, slots=True)
class InsufficientData:
    """No certificate: the data does not suffice."""

    rows_needed: int
    """Estimate of the total rows needed, with tuning and held-out rows, if further ones are like these."""
    reason: str


@dataclass(frozen=True, slots=True)
class Infeasible:
    """No certificate: even the answers with the highest scores are wrong too often, beyond chance. More data would not
    help.
    """

    reason: str
    remedy: str = "a better agent would, or a larger --alpha"
    """What would help."""


Outcome: TypeAlias = Certified | InsufficientData | Infeasible


@dataclass(frozen=True, slots=True)
class FeasibilityBound:
    """The feasibility bound: with a share `base_error` of wrong answers, at least this share must be withheld with any
    score.
    """

    base_error: float
    min_withheld: float


@dataclass(frozen=True, slots=True)
class ResplitResult:
    """Outcome of the guarantee over many random divisions of the same rows, each judged on its held-out rows."""

    rounds: int
    certified: int
    """Rounds with a certificate."""
    violations: int
    """Rounds in which more than alpha of what the certificate accepted of the held-out rows was wrong. With few rows
    this also happens by chance: a threshold with a true risk just under alpha exceeds it on some samples.
    """
    significant_violations: int
    """Those of them that chance does not explain: at a risk of alpha, so many errors have a probability of at most
    1/20.
    """
    coverage: float
    """Mean over the rounds with a certificate; 0 without any."""
    naive: int
    """Rounds with a naive threshold."""
    naive_violations: int
    naive_significant_violations: int
    naive_coverage: float


@dataclass(frozen=True, slots=True)
class NaiveThreshold:
    """The naive choice: the loosest threshold whose observed error on the calibration rows is at most alpha."""

    threshold: float
    calibration: ThresholdResult
    held_out: ThresholdResult


@dataclass(frozen=True, slots=True)
class Certification:
    """The result of certification, with all intermediate results."""

    terms: CertificationTerms
    rows: int
    tuning: int
    calibration: int
    bound: FeasibilityBound
    outcome: Outcome
    threshold_tests: tuple[ThresholdTest, ...]
    """The sequence of tests. All but the last passed; the last one passed too if it is the loosest."""
    held_out: ThresholdResult | None
    """What the certified threshold accepts of the held-out rows."""
    naive: NaiveThreshold | None
    resplits: ResplitResult


@dataclass(frozen=True, slots=True)
class DataSplit:
    """Rows divided into three parts."""

    tuning: Sequence[ScoredAnswer]
    calibration: Sequence[ScoredAnswer]
    held_out: Sequence[ScoredAnswer]


@dataclass(frozen=True)
class RankedAnswers:
    """Answers sorted by descending score, for lookups by threshold. Ties are accepted together."""

    items: Sequence[ScoredAnswer]
    _keys: list[float] = field(init=False, repr=False)
    _errors: list[int] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        ranked_items = sorted((-item.score, item.wrong) for item in self.items if item.score is not None)
        errors = [0]
        for _, wrong in ranked_items:
            errors.append(errors[-1] + wrong)
        object.__setattr__(self, "_keys", [key for key, _ in ranked_items])
        object.__setattr__(self, "_errors", errors)

    def result_at(self, threshold: float) -> ThresholdResult:
        """What a minimum score accepts."""
        count = bisect_right(self._keys, -threshold)
        return ThresholdResult(len(self.items), count, self._errors[count])

    @property
    def scores(self) -> list[float]:
        """Distinct scores in descending order."""
        return [-key for key in self._keys]


def certify(
    items: Iterable[ScoredAnswer],
    terms: CertificationTerms,
    rounds: int = RESPLIT_ROUNDS,
    on_round: Callable[[], None] = lambda: None,
) -> Certification:
    """Certifies labelled answers.

    Args:
        on_round: Called before each resplit.

    Raises:
        InputError: V006 for invalid answers.
    """
    rows = validate(items)
    parts = split(rows, terms, terms.seed)
    calibration, rest = RankedAnswers(parts.calibration), RankedAnswers(parts.held_out)
    steps = fixed_sequence(calibration, candidate_thresholds(parts.tuning, len(parts.calibration), terms), terms)
    outcome = _outcome(calibration, steps, len(rows), terms)
    loosest = naive_threshold(calibration, terms.alpha)
    return Certification(
        terms=terms,
        rows=len(rows),
        tuning=len(parts.tuning),
        calibration=len(parts.calibration),
        bound=feasibility_bound(rows, terms.alpha),
        outcome=outcome,
        threshold_tests=tuple(steps),
        held_out=rest.result_at(outcome.threshold_test.threshold) if isinstance(outcome, Certified) else None,
        naive=None
        if loosest is None
        else NaiveThreshold(loosest, calibration.result_at(loosest), rest.result_at(loosest)),
        resplits=resplit(rows, terms, rounds, on_round),
    )


def check_sample_size(rows: int, terms: CertificationTerms) -> InsufficientData | None:
    """Returns `InsufficientData` if the calibration rows are too few for any outcome to support the guarantee, before
    any call; else None.
    """
    size = terms.calibration_size(rows)
    if size >= terms.min_accepted:
        return None
    return InsufficientData(
        _rows_needed(terms.min_calibration, rows, terms),
        f"{size:,} of {rows:,} rows are for calibration, and {terms.min_accepted:,} accepted answers are needed",
    )


def validate(items: Iterable[ScoredAnswer]) -> list[ScoredAnswer]:
    """Returns the answers sorted by id, so that the order of a file has no effect. Raises `InputError` V006."""
    rows = sorted(items, key=lambda item: item.id)
    if not rows:
        raise InputError("V006", "there is no row to certify on", hint='rows {"id", "input", "expected"}, a line each')
    for before, item in zip([None, *rows], rows, strict=False):
        if before is not None and before.id == item.id:
            raise InputError("V006", f"two rows have the id {item.id!r}", hint="count each row once")
        if item.score is not None and not 0 <= item.score <= 1:  # also false for NaN
            raise InputError(
                "V006",
                f"the score of row {item.id!r} is {item.score}, and must be in [0, 1]",
                hint="orchestra explain V006",
            )
    return rows


def split(rows: Sequence[ScoredAnswer], terms: CertificationTerms, seed: int | str) -> DataSplit:
    """Divides the rows into three parts at random, with a seed."""
    shuffled_rows = list(rows)
    random.Random(seed).shuffle(shuffled_rows)  # noqa: S311 - a draw, not a secret
    tuning = round(terms.tuning * len(shuffled_rows))
    calibration = tuning + terms.calibration_size(len(shuffled_rows))
    return DataSplit(shuffled_rows[:tuning], shuffled_rows[tuning:calibration], shuffled_rows[calibration:])


def candidate_thresholds(tuning: Sequence[ScoredAnswer], calibration: int, terms: CertificationTerms) -> list[float]:
    """Returns the thresholds to test, strict ones first: quantiles of the tuning scores, of which the strictest accepts
    `START_COVERAGE`.

    The sequence ends at the first failed test, and a strict threshold accepts few answers. So it begins at the
    strictest one that should pass according to the tuning rows, or else at one that accepts enough answers for any to
    pass. The thresholds depend on the calibration rows only by their number, so the tests stay valid.
    """
    ranked_answers = RankedAnswers(tuning)
    scores = ranked_answers.scores
    if not scores or not calibration:
        return []
    thresholds: list[float] = []
    share = START_COVERAGE
    while not thresholds or thresholds[-1] > scores[-1]:
        rank = min(math.ceil(share * len(tuning)), len(scores))
        if not thresholds or scores[rank - 1] < thresholds[-1]:
            thresholds.append(scores[rank - 1])
        share += COVERAGE_STEP
    hopeful = (
        at
        for at, threshold in enumerate(thresholds)
        if _expected_p_value(ranked_answers.result_at(threshold), calibration, terms)
        <= P_VALUE_MARGIN * terms.spent_delta
    )
    enough = (
        at
        for at, threshold in enumerate(thresholds)
        if ranked_answers.result_at(threshold).coverage * calibration >= SAFETY_FACTOR * terms.min_accepted
    )
    return thresholds[next(hopeful, next(enough, len(thresholds) - 1)) :]


def _expected_p_value(threshold_result: ThresholdResult, calibration: int, terms: CertificationTerms) -> float:
    """Predicted p-value on the calibration rows if they are like the tuning rows, with half an error more than
    observed.
    """
    accepted_count = round(threshold_result.coverage * calibration)
    return binomial_tail(
        round((threshold_result.errors + 0.5) / (threshold_result.accepted + 1) * accepted_count),
        accepted_count,
        terms.alpha,
    )


def fixed_sequence(calibration: RankedAnswers, grid: Sequence[float], terms: CertificationTerms) -> list[ThresholdTest]:
    """Tests thresholds in order, up to the first whose risk may exceed alpha."""
    steps = []
    for threshold in grid:
        threshold_result = calibration.result_at(threshold)
        steps.append(
            ThresholdTest(
                threshold,
                threshold_result.accepted,
                threshold_result.errors,
                binomial_tail(threshold_result.errors, threshold_result.accepted, terms.alpha),
            )
        )
        if steps[-1].p_value > terms.spent_delta:
            break
    return steps


def certified_test(steps: Sequence[ThresholdTest], delta: float) -> ThresholdTest | None:
    """The loosest threshold that passed."""
    return next((step for step in reversed(steps) if step.p_value <= delta), None)


def _outcome(
    calibration: RankedAnswers, steps: Sequence[ThresholdTest], rows: int, terms: CertificationTerms
) -> Outcome:
    test = certified_test(steps, terms.spent_delta)
    if test is not None:
        return Certified(test, calibration.result_at(test.threshold).coverage)
    return _explain_failure(calibration, rows, terms)


def _explain_failure(calibration: RankedAnswers, rows: int, terms: CertificationTerms) -> InsufficientData | Infeasible:
    """Explains why no threshold passed, by a look at all calibration rows that has no guarantee.

    The outcome is `Infeasible` if the rows reject alpha at every possible coverage, each test beyond chance. Then they
    do so jointly (an intersection-union test), and more rows would not help.
    """
    size, after = len(calibration.items), terms.next_attempt
    scores = calibration.scores
    ranks = (
        range(math.ceil(START_COVERAGE * size), len(scores) + 1, max(1, round(COVERAGE_STEP * size))) if scores else ()
    )
    threshold_results = [
        calibration.result_at(scores[rank - 1]) for rank in (*ranks, len(scores)) if 0 < rank <= len(scores)
    ]
    best = min(
        threshold_results,
        key=lambda threshold_result: (threshold_result.errors / threshold_result.accepted, -threshold_result.accepted),
        default=None,
    )
    if best is None:
        # Beyond chance, fewer pass than the strictest threshold should accept.
        if (1 - START_COVERAGE) ** size <= terms.delta:
            return Infeasible(f"none of {size:,} answers passes its checks", NONE_ACCEPTED_HINT)
        return InsufficientData(
            _rows_needed(after.min_calibration, rows, terms), f"of {size:,} answers none passes its checks"
        )
    wrong = f"{best.errors:,} {'is' if best.errors == 1 else 'are'} wrong"
    observation = f"of the {best.accepted:,} highest-scoring of {size:,} answers {wrong}"
    if size >= terms.min_calibration and all(
        threshold_result.refutes(terms.alpha) for threshold_result in threshold_results
    ):
        return Infeasible(f"{observation}, {format_percent(best.errors / best.accepted)}")
    if best.exceeds(terms.alpha) or best.errors == terms.alpha * best.accepted:
        reason = f"{observation}, which neither supports nor rejects {format_percent(terms.alpha)}"
        return InsufficientData(
            _rows_needed(
                max(after.min_calibration, 2 * size, SAFETY_FACTOR * after.min_accepted * size / best.accepted),
                rows,
                terms,
            ),
            reason,
        )
    needed_count = min(
        (_calibration_needed(threshold_result, size, after) for threshold_result in threshold_results), default=math.inf
    )
    return InsufficientData(
        _rows_needed(needed_count if needed_count < math.inf else 2 * size, rows, terms), observation
    )


def _calibration_needed(threshold_result: ThresholdResult, size: int, terms: CertificationTerms) -> float:
    """Calibration rows with which such a threshold would pass with half an error more; infinite if it never would."""
    rate = (threshold_result.errors + 0.5) / (threshold_result.accepted + 1)
    return (
        min_accepted(rate, terms.alpha, terms.spent_delta) * size / threshold_result.accepted
        if rate < terms.alpha
        else math.inf
    )


def _rows_needed(calibration: float, rows: int, terms: CertificationTerms) -> int:
    """Total rows for this many calibration rows; more than there are now."""
    return max(math.ceil(1.1 * rows), math.ceil(calibration / terms.calibration), rows + 1)


def resplit(
    items: Iterable[ScoredAnswer],
    terms: CertificationTerms,
    rounds: int = RESPLIT_ROUNDS,
    on_round: Callable[[], None] = lambda: None,
) -> ResplitResult:
    """Divides the rows at random many times, and judges each division on its held-out rows.

    A round without a threshold violates nothing. Raises `InputError` V006.
    """
    rows = validate(items)
    threshold_results, naive = [], []
    for number in range(rounds):
        on_round()
        parts = split(rows, terms, f"{terms.seed}/{number}")
        calibration, rest = RankedAnswers(parts.calibration), RankedAnswers(parts.held_out)
        step = certified_test(
            fixed_sequence(calibration, candidate_thresholds(parts.tuning, len(parts.calibration), terms), terms),
            terms.spent_delta,
        )
        if step is not None:
            threshold_results.append(rest.result_at(step.threshold))
        if (loosest := naive_threshold(calibration, terms.alpha)) is not None:
            naive.append(rest.result_at(loosest))
    return ResplitResult(
        rounds=rounds,
        certified=len(threshold_results),
        violations=sum(threshold_result.exceeds(terms.alpha) for threshold_result in threshold_results),
        significant_violations=sum(threshold_result.refutes(terms.alpha) for threshold_result in threshold_results),
        coverage=_mean([threshold_result.coverage for threshold_result in threshold_results]),
        naive=len(naive),
        naive_violations=sum(threshold_result.exceeds(terms.alpha) for threshold_result in naive),
        naive_significant_violations=sum(threshold_result.refutes(terms.alpha) for threshold_result in naive),
        naive_coverage=_mean([threshold_result.coverage for threshold_result in naive]),
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def naive_threshold(calibration: RankedAnswers, alpha: float) -> float | None:
    """The loosest threshold whose observed error is at most alpha, or None. It has no guarantee."""
    threshold = None
    for score in dict.fromkeys(calibration.scores):
        if not calibration.result_at(score).exceeds(alpha):
            threshold = score
    return threshold


def feasibility_bound(items: Sequence[ScoredAnswer], alpha: float) -> FeasibilityBound:
    """The feasibility bound: with a share mu of wrong answers, at least (mu - alpha) / (1 - alpha) must be withheld.

    It follows from mu <= alpha · coverage + (1 - coverage), which holds even if everything withheld is wrong.
    """
    error = sum(item.wrong for item in items) / len(items) if items else 0.0
    return FeasibilityBound(error, max(0.0, (error - alpha) / (1 - alpha)))


def confidence_interval(errors: int, accepted: int, confidence: float = CONFIDENCE_LEVEL) -> tuple[float, float]:
    """Exact two-sided confidence interval of a share (Clopper and Pearson 1934); (0, 1) without data."""
    if not accepted:
        return 0.0, 1.0
    tail = (1 - confidence) / 2
    low = 0.0 if not errors else _bisect(lambda p: 1 - binomial_tail(errors - 1, accepted, p) < tail)
    high = 1.0 if errors == accepted else _bisect(lambda p: binomial_tail(errors, accepted, p) > tail)
    return low, high


def _bisect(below: Callable[[float], bool]) -> float:
    """Bisects for the largest share with a property."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if below(middle) else (low, middle)
    return (low + high) / 2


def format_percent(share: float) -> str:
    """Formats a share: `5 %`."""
    return f"{100 * share:.3g} %"
