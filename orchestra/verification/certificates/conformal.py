"""Conformal factuality: the score from which parts of an answer are kept, so that most answers keep only right parts.
Pure.

Back-off of V6 in VERIFICATION (Mohri and Hashimoto 2024, *Language Models with Conformal Factuality Guarantees*,
https://arxiv.org/abs/2402.10978, section 3). The risk of an answer is the highest score of a wrong part, and tau is the
ceil((n + 1)(1 - alpha))-th smallest risk of n answers. Parts with a score of tau or less are dropped. A further answer
that is exchangeable with those n has a risk of at most tau with a probability of at least 1 - alpha, and then no wrong
part of it is kept; ties only help. The probability is over the draw of the n answers and of the further one; there is
no delta.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from orchestra.core.errors import InputError

CALIBRATION_SHARE = 0.7
"""Share of answers for calibration; the rest is held out."""
RESPLIT_ROUNDS = 200
"""Number of resplits of one calibration."""


class ScoredPart(NamedTuple):
    """A part of an answer: its score in [0, 1], or None if it is kept at no threshold, and whether it is wrong."""

    score: float | None
    wrong: bool


class CalibrationAnswer(NamedTuple):
    """An answer of several labelled parts."""

    id: str
    parts: tuple[ScoredPart, ...]

    @property
    def risk(self) -> float:
        """Highest score of a wrong part; minus infinity if no wrong part could be kept."""
        return max((part.score for part in self.parts if part.wrong and part.score is not None), default=-math.inf)


@dataclass(frozen=True, slots=True)
class RetentionResult:
    """What a threshold keeps of some answers."""

    answers: int
    parts: int
    """Number of parts; `kept` is the number of those that are kept."""
    kept: int
    violations: int
    """Answers with a wrong part that is kept."""
    empty: int
    """Answers that have parts but keep none. They are withheld."""
    wrong_kept: int
    """Wrong parts that are kept."""

    @property
    def kept_share(self) -> float:
        """Share of parts that are kept."""
        return self.kept / self.parts if self.parts else 0.0

    @property
    def violation_rate(self) -> float:
        """Share of answers with a wrong part that is kept."""
        return self.violations / self.answers if self.answers else 0.0


@dataclass(frozen=True, slots=True)
class ClaimsResplitResult:
    """Outcome of the guarantee over random divisions of the answers. It is about the mean, because each division is a
    separate draw.
    """

    rounds: int
    violation_rate: float
    """Mean share of held-out answers with a wrong part that is kept."""
    kept_share: float
    """Mean share of parts that are kept."""


@dataclass(frozen=True, slots=True)
class FactualityResult:
    """The result of a calibration. `threshold` is the lowest score that is kept; None if nothing can be guaranteed or
    kept.
    """

    alpha: float
    seed: int
    answers: int
    calibration: int
    min_answers: int
    """Minimum number of calibration answers."""
    threshold: float | None
    reason: str
    """Why there is no threshold; empty if there is one."""
    unfiltered: RetentionResult
    """The answers before any part is dropped."""
    calibrated: RetentionResult | None = None
    held_out: RetentionResult | None = None
    """What is kept of the held-out answers."""
    resplits: ClaimsResplitResult | None = None


def min_answers(alpha: float) -> int:
    """Minimum number of answers for the guarantee: (n + 1)(1 - alpha) must be at most n. 9 for 10 %, 19 for 5 %."""
    exact = _exact_fraction(alpha)
    return math.ceil((1 - exact) / exact)


def quantile_rank(answers: int, alpha: float) -> int:
    """Rank of tau among the ascending risks: ceil((n + 1)(1 - alpha)), computed exactly."""
    return math.ceil((answers + 1) * (1 - _exact_fraction(alpha)))


def _exact_fraction(alpha: float) -> Fraction:
    """The decimal as written: 0.1 is a tenth, so (9 + 1)(1 - 0.1) is exactly 9."""
    return Fraction(repr(float(alpha)))


def risk_quantile(risks: Sequence[float], alpha: float) -> float | None:
    """The score up to which parts are dropped; None if there are too few answers."""
    place = quantile_rank(len(risks), alpha)
    return sorted(risks)[place - 1] if place <= len(risks) else None


def keep_threshold(dropped: float, floor: float) -> float:
    """The lowest score that is kept if everything up to `dropped` and below `floor` is dropped."""
    return max(floor, math.nextafter(dropped, math.inf))


def apply_threshold(answers: Iterable[CalibrationAnswer], threshold: float) -> RetentionResult:
    """Applies a threshold to answers."""
    count = parts = kept_count = violations = empty = wrong = 0
    for answer in answers:
        scored_parts = [part for part in answer.parts if part.score is not None and part.score >= threshold]
        false = sum(part.wrong for part in scored_parts)
        count += 1
        parts += len(answer.parts)
        kept_count += len(scored_parts)
        wrong += false
        violations += false > 0
        empty += bool(answer.parts) and not scored_parts
    return RetentionResult(count, parts, kept_count, violations, empty, wrong)


def calibrate(
    answers: Iterable[CalibrationAnswer], alpha: float, seed: int = 0, floor: float = 0.0, rounds: int = RESPLIT_ROUNDS
) -> FactualityResult:
    """Calibrates a threshold. Raises `InputError` V006 for an invalid alpha or invalid answers."""
    if not 0 < alpha <= 0.5:
        raise InputError("V006", f"alpha is {alpha}, and must be above 0 and at most 0.5", hint="--alpha 0.1")
    rows = validate(answers)
    calibration, rest = split(rows, seed)
    whole_result = RetentionResult(
        len(rows),
        parts=sum(len(row.parts) for row in rows),
        kept=sum(len(row.parts) for row in rows),
        violations=sum(any(part.wrong for part in row.parts) for row in rows),
        empty=0,
        wrong_kept=sum(part.wrong for row in rows for part in row.parts),
    )
    factuality_result = FactualityResult(
        alpha, seed, len(rows), len(calibration), min_answers(alpha), None, "", whole_result
    )
    keep_quantile = risk_quantile([row.risk for row in calibration], alpha)
    if keep_quantile is None:
        return _without_threshold(
            factuality_result,
            f"{len(calibration)} answers are for calibration, and at least {factuality_result.min_answers} are needed",
        )
    threshold = keep_threshold(keep_quantile, floor)
    calibrated_result = apply_threshold(calibration, threshold)
    if not calibrated_result.kept:
        return _without_threshold(
            factuality_result, "the wrong parts score as high as the right ones, so nothing would be kept"
        )
    return FactualityResult(
        alpha,
        seed,
        len(rows),
        len(calibration),
        factuality_result.min_answers,
        threshold,
        "",
        whole_result,
        calibrated_result,
        apply_threshold(rest, threshold),
        resplit(rows, alpha, seed, floor, rounds),
    )


def _without_threshold(factuality_result: FactualityResult, reason: str) -> FactualityResult:
    return FactualityResult(
        factuality_result.alpha,
        factuality_result.seed,
        factuality_result.answers,
        factuality_result.calibration,
        factuality_result.min_answers,
        None,
        reason,
        factuality_result.unfiltered,
    )


def validate(answers: Iterable[CalibrationAnswer]) -> list[CalibrationAnswer]:
    """Returns the answers sorted by id. Raises `InputError` V006."""
    rows = sorted(answers, key=lambda answer: answer.id)
    if not rows:
        raise InputError(
            "V006", "there is no answer to calibrate on", hint='rows {"id", "output", "claims"}, a line each'
        )
    for before, row in zip([None, *rows], rows, strict=False):
        if before is not None and before.id == row.id:
            raise InputError("V006", f"two rows have the id {row.id!r}", hint="count each answer once")
        for part in row.parts:
            if part.score is not None and not 0 <= part.score <= 1:  # also false for NaN
                raise InputError(
                    "V006",
                    f"a score of row {row.id!r} is {part.score}, and must be in [0, 1]",
                    hint="orchestra explain V006",
                )
    return rows


def split(
    rows: Sequence[CalibrationAnswer], seed: int | str
) -> tuple[list[CalibrationAnswer], list[CalibrationAnswer]]:
    """Divides the answers at random, with a seed: for calibration, and held out."""
    shuffled_rows = list(rows)
    random.Random(seed).shuffle(shuffled_rows)  # noqa: S311 - a draw, not a secret
    count = round(CALIBRATION_SHARE * len(shuffled_rows))
    return shuffled_rows[:count], shuffled_rows[count:]


def resplit(
    rows: Sequence[CalibrationAnswer], alpha: float, seed: int, floor: float, rounds: int
) -> ClaimsResplitResult | None:
    """Repeats the calibration over many random divisions; None if there are too few answers."""
    violation_count = kept_total = 0.0
    split_count = 0
    for number in range(1, rounds + 1):
        calibration, rest = split(rows, f"{seed}/{number}")
        keep_quantile = risk_quantile([row.risk for row in calibration], alpha)
        if keep_quantile is None or not rest:
            continue
        retention_result = apply_threshold(rest, keep_threshold(keep_quantile, floor))
        split_count, violation_count, kept_total = (
            split_count + 1,
            violation_count + retention_result.violation_rate,
            kept_total + retention_result.kept_share,
        )
    return (
        ClaimsResplitResult(split_count, violation_count / split_count, kept_total / split_count)
        if split_count
        else None
    )
