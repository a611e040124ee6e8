"""Combination of an agent's checks into one score, fitted to rows with or without labels. Pure functions.

With labels: logistic regression with an L2 penalty over the log-odds of the checks' scores, and isotonic regression of
its out-of-fold predictions (ten folds). Without labels: the model of Dawid and Skene over pass and fail.
"""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from orchestra.core.errors import InputError
from orchestra.core.events import Verdict
from orchestra.learn.evaluation.metrics import auroc
from orchestra.verification.certificates.combination import (
    CheckWeight,
    Combination,
    CombinationData,
    IsotonicPoint,
    is_veto,
    log_odds,
)
from orchestra.verification.certificates.file import DependencyDigests
from orchestra.verification.verdict import PASS, UNKNOWN

if TYPE_CHECKING:
    from numpy.typing import NDArray

    FloatArray: TypeAlias = NDArray[Any]

PACKAGES = ("numpy", "sklearn")
MIN_LABELLED_ROWS = 300
"""Minimal number of labelled rows for a regression (VERIFICATION, V4)."""
MIN_ROWS_PER_CLASS = 20
"""Minimal number of correct rows, and of wrong rows."""
FOLD_COUNT = 10
L2_PENALTY = 10.0
"""The L2 penalty on weights of standardised log-odds: half of it times their squares."""
PASS_RATE_RANGE = (0.05, 0.95)
"""A check with a pass rate outside this range gives the model of Dawid and Skene no reliable information."""
MIN_CHECKS = 3
"""Minimal number of checks for that model: of two checks that always differ, each could be the correct one."""
MAX_ITERATIONS = 500
NO_DEPENDENCIES = DependencyDigests("", "", "", "")


@dataclass(frozen=True, slots=True)
class CombinationRow:
    """The verdicts and scores of the checks on an answer, and its correctness; None if unknown."""

    id: str
    verdicts: tuple[Verdict, ...]
    is_correct: bool | None = None


@dataclass(frozen=True, slots=True)
class ScoreRanking:
    """The ranking quality of a score on the rows: area under the risk-coverage curve, and area under the ROC curve."""

    name: str
    aurc: float
    auroc: float


@dataclass(frozen=True, slots=True)
class CombinationFit:
    """The result of a fit."""

    method: str
    bias: float
    weights: tuple[CheckWeight, ...]
    isotonic_points: tuple[IsotonicPoint, ...]
    row_count: int
    correct_count: int
    left_out: Counter[str]
    """Number of unused rows, by reason."""
    excluded_checks: dict[str, str]
    """Checks without weight, with the reason."""
    score_rankings: tuple[ScoreRanking, ...]
    """Rankings of the combination, of the lowest score, and of the combination without each check; for labelled rows,
    by out-of-fold scores.
    """


def empty_combination(agent: str, checks: Sequence[str]) -> Combination:
    """Returns a combination that runs every check and gives 0.5 to an answer that no check refutes. It is used to
    collect rows.
    """
    nothing = CombinationData("", "", 0, 0, 0)
    return Combination(
        agent=agent,
        method="regression",
        checks=tuple(sorted(checks)),
        bias=0.0,
        weights=(),
        data=nothing,
        dependencies=NO_DEPENDENCIES,
        created_at="",
    )


def usable_rows(rows: Sequence[CombinationRow], checks: Sequence[str]) -> tuple[list[CombinationRow], Counter[str]]:
    """Returns the rows that a combination applies to, and the number of other rows by reason. An answer that a check
    refutes or cannot judge is accepted at no score.
    """
    combination_rows, left_out = list[CombinationRow](), Counter[str]()
    for row in rows:
        verdicts = {verdict.check: verdict for verdict in row.verdicts}
        if vetoing_check := next((verdict.check for verdict in row.verdicts if is_veto(verdict)), ""):
            left_out[f"{vetoing_check} fails"] += 1
        elif unknown := next(
            (name for name in checks if name not in verdicts or verdicts[name].outcome == UNKNOWN), ""
        ):
            left_out[f"{unknown} gave no verdict"] += 1
        else:
            combination_rows.append(row)
    return combination_rows, left_out


def fit_combination(
    rows: Sequence[CombinationRow], checks: Sequence[str], *, unlabelled: bool = False, seed: int = 0
) -> CombinationFit:
    """Fits the weight of each check.

    Raises:
        InputError: N162 if there are too few rows; N163 if the checks carry no information to combine.
    """
    combination_rows, left_out = usable_rows(rows, checks)
    if unlabelled:
        return _fit_dawid_skene(combination_rows, checks, left_out, seed)
    labelled_rows = [row for row in combination_rows if row.is_correct is not None]
    if len(labelled_rows) < len(combination_rows):
        left_out["it has no label"] += len(combination_rows) - len(labelled_rows)
    _check_row_counts(labelled_rows, left_out)
    return _fit_regression(labelled_rows, checks, left_out, seed)


def _check_row_counts(rows: Sequence[CombinationRow], left_out: Counter[str]) -> None:
    right = sum(bool(row.is_correct) for row in rows)
    omission_text = (
        f" ({'; '.join(f'{count:,}: {omission}' for omission, count in left_out.items())})" if left_out else ""
    )
    hint = "more rows; or --unlabelled, which needs no labels"
    if len(rows) < MIN_LABELLED_ROWS:
        needed_text = f"{MIN_LABELLED_ROWS - len(rows):,} more are needed, {MIN_LABELLED_ROWS} in all"
        raise InputError(
            "N162", f"{len(rows):,} labelled rows can be combined{omission_text}: {needed_text}", hint=hint
        )
    if min(right, len(rows) - right) < MIN_ROWS_PER_CLASS:
        reason = (
            f"{right:,} of {len(rows):,} rows are correct{omission_text}: "
            f"at least {MIN_ROWS_PER_CLASS} must be correct, and at least {MIN_ROWS_PER_CLASS} wrong"
        )
        raise InputError("N162", reason, hint="use rows that represent the agent's inputs")


def _fit_regression(
    rows: Sequence[CombinationRow], checks: Sequence[str], left_out: Counter[str], seed: int
) -> CombinationFit:
    import numpy as np

    right = np.array([bool(row.is_correct) for row in rows], dtype=float)
    places = np.array([[log_odds(verdict.score) for verdict in _ordered_verdicts(row, checks)] for row in rows])
    mean, spread = places.mean(0), places.std(0)
    silent = {
        check: "it gives every row the same score" for check, wide in zip(checks, spread, strict=True) if wide < 1e-9
    }
    loud = [at for at, check in enumerate(checks) if check not in silent]
    if not loud:
        raise InputError("N163", "every check gives every row the same score", hint="--checks confidence,entailment")
    scaled_scores = (places[:, loud] - mean[loud]) / spread[loud]
    scores = _cross_validated_scores(scaled_scores, right, seed)
    lowest = np.array(
        [
            min(verdict.score if verdict.outcome == PASS else 0.0 for verdict in _ordered_verdicts(row, checks))
            for row in rows
        ]
    )
    rankings = [_rank_score("all checks", scores, right), _rank_score("the lowest score", lowest, right)]
    for place, at in enumerate(loud if len(loud) > 1 else ()):
        rankings.append(
            _rank_score(
                f"without {checks[at]}",
                _cross_validated_scores(np.delete(scaled_scores, place, axis=1), right, seed),
                right,
            )
        )
    weights = _fit_logistic(scaled_scores, right)[:-1] / spread[loud]
    voices = tuple(CheckWeight(checks[at], weight=float(weight)) for at, weight in zip(loud, weights, strict=True))
    bias = -float(weights @ mean[loud])
    return CombinationFit(
        "regression",
        bias,
        voices,
        isotonic_regression(scores, right),
        len(rows),
        int(right.sum()),
        left_out,
        silent,
        tuple(rankings),
    )


def _ordered_verdicts(row: CombinationRow, checks: Sequence[str]) -> list[Verdict]:
    by_check = {verdict.check: verdict for verdict in row.verdicts}
    return [by_check[check] for check in checks]


def _cross_validated_scores(places: FloatArray, right: FloatArray, seed: int) -> FloatArray:
    """Returns the sum of weighted log-odds of each row, with weights fitted on the other folds.

    The intercept is left out: it is lower if a fold holds back more correct answers, and would rank folds against each
    other.
    """
    import numpy as np

    order = list(range(len(right)))
    random.Random(seed).shuffle(order)  # noqa: S311 - a draw, not a secret
    sums = np.zeros(len(right))
    for fold in range(FOLD_COUNT):
        held_indexes = order[fold::FOLD_COUNT]
        rest = np.setdiff1d(order, held_indexes)
        sums[held_indexes] = places[held_indexes] @ _fit_logistic(places[rest], right[rest])[:-1]
    return sums


def _fit_logistic(places: FloatArray, right: FloatArray) -> FloatArray:
    """Returns the weights and, last, the intercept of a logistic regression with an L2 penalty on the weights."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=1 / L2_PENALTY, solver="newton-cholesky", tol=1e-9).fit(places, right)
    weights: FloatArray = np.append(model.coef_[0], model.intercept_)
    return weights


def isotonic_regression(
    sums: Sequence[float] | FloatArray, right: Sequence[float] | FloatArray
) -> tuple[IsotonicPoint, ...]:
    """Returns the isotonic regression of correctness on the sum, as points of a piecewise linear function: pool
    adjacent violators (Ayer et al. 1955).
    """
    rows_at: dict[float, list[float]] = {}  # rows with one sum are one point: they have one score
    for at, good in zip(map(float, sums), map(float, right), strict=True):
        rows_at.setdefault(at, []).append(good)
    blocks: list[list[float]] = []  # [sum of positions, sum of correct rows, number of rows]
    ranges: list[tuple[float, float]] = []
    for at, goods in sorted(rows_at.items()):
        blocks.append([at * len(goods), sum(goods), float(len(goods))])
        ranges.append((at, at))
        while len(blocks) > 1 and blocks[-2][1] * blocks[-1][2] >= blocks[-1][1] * blocks[-2][2]:
            last, (_, highest) = blocks.pop(), ranges.pop()
            blocks[-1] = [value + other_value for value, other_value in zip(blocks[-1], last, strict=True)]
            ranges[-1] = (ranges[-1][0], highest)
    # A rounded mean can lie outside of its own rows; the points must still rise.
    return tuple(
        IsotonicPoint(min(max(at / count, lowest), highest), good / count)
        for (at, good, count), (lowest, highest) in zip(blocks, ranges, strict=True)
    )


def _fit_dawid_skene(
    rows: Sequence[CombinationRow], checks: Sequence[str], left_out: Counter[str], seed: int
) -> CombinationFit:
    """Estimates the accuracy of each check from its agreement with the others: expectation maximisation, starting from
    the majority vote.
    """
    import numpy as np

    if len(rows) < MIN_LABELLED_ROWS:
        needed_text = f"{MIN_LABELLED_ROWS - len(rows):,} more are needed, {MIN_LABELLED_ROWS} in all"
        raise InputError("N162", f"{len(rows):,} rows can be combined: {needed_text}", hint="more rows")
    votes = np.array(
        [[verdict.outcome == PASS for verdict in _ordered_verdicts(row, checks)] for row in rows], dtype=float
    )
    shares, (low, high) = votes.mean(0), PASS_RATE_RANGE
    silent = {
        check: f"it passes {share:.1%} of the rows"
        for check, share in zip(checks, shares, strict=True)
        if not low <= float(share) <= high
    }
    loud = [at for at, check in enumerate(checks) if check not in silent]
    if len(loud) < MIN_CHECKS:
        reasons = "; ".join(f"{check}: {silence_reason}" for check, silence_reason in silent.items())
        reason = f"{len(loud)} checks are informative, and {MIN_CHECKS} are needed{f' ({reasons})' if reasons else ''}"
        raise InputError("N163", reason, hint=f"{MIN_LABELLED_ROWS} labelled rows")
    share, good, bad = _estimate_accuracies(votes[:, loud])
    voices = tuple(
        CheckWeight(checks[at], passed=math.log(yes / wrong), failed=math.log((1 - yes) / (1 - wrong)))
        for at, yes, wrong in zip(loud, map(float, good), map(float, bad), strict=True)
    )
    bias, rankings = math.log(share / (1 - share)), tuple[ScoreRanking, ...]()
    labels = [row for row in rows if row.is_correct is not None]
    if labels:
        right = np.array([bool(row.is_correct) for row in labels], dtype=float)
        sums = np.array(
            [
                bias + sum(voice.contribution(verdict) for voice, verdict in _weighted_verdicts(row, voices))
                for row in labels
            ]
        )
        rankings = (_rank_score("all checks", sums, right),)
    return CombinationFit(
        "dawid-skene",
        bias,
        voices,
        (),
        len(rows),
        sum(bool(row.is_correct) for row in labels),
        left_out,
        silent,
        rankings,
    )


def _weighted_verdicts(row: CombinationRow, voices: Sequence[CheckWeight]) -> list[tuple[CheckWeight, Verdict]]:
    return list(zip(voices, _ordered_verdicts(row, [voice.check for voice in voices]), strict=True))


def _estimate_accuracies(votes: FloatArray) -> tuple[float, FloatArray, FloatArray]:
    """Returns the share of correct rows, and the pass rate of each check on correct and on wrong rows; no rate is 0 or
    1.
    """
    import numpy as np

    chances = votes.mean(1)
    share, good, bad = 0.5, votes.mean(0), votes.mean(0)
    for _ in range(MAX_ITERATIONS):
        right_total, wrong_total = chances.sum(), (1 - chances).sum()
        good, bad = (chances @ votes + 1) / (right_total + 2), ((1 - chances) @ votes + 1) / (wrong_total + 2)
        share = float((right_total + 1) / (len(votes) + 2))
        logs = math.log(share / (1 - share)) + votes @ np.log(good / bad) + (1 - votes) @ np.log((1 - good) / (1 - bad))
        before, chances = chances, 1 / (1 + np.exp(-np.clip(logs, -500, 500)))
        if float(np.abs(chances - before).max()) < 1e-9:
            break
    return share, good, bad


def _rank_score(name: str, scores: FloatArray, right: FloatArray) -> ScoreRanking:
    parts = list(zip(map(float, scores), map(bool, right), strict=True))
    return ScoreRanking(name, area_under_risk_coverage(*zip(*parts, strict=True)), auroc(parts))


def area_under_risk_coverage(scores: Sequence[float], right: Sequence[bool]) -> float:
    """Returns the area under the risk-coverage curve: the risk at each score times the coverage that it adds; rows with
    equal scores are accepted together.
    """
    ranked_scores = sorted(zip(scores, right, strict=True), key=lambda item: -item[0])
    area, before, wrong = 0.0, 0, 0
    for number, (score, good) in enumerate(ranked_scores, 1):
        wrong += not good
        if number == len(ranked_scores) or ranked_scores[number][0] != score:
            area += wrong / number * (number - before) / len(ranked_scores)
            before = number
    return area
