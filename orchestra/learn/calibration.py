"""Calibration of an agent's probabilities on held-out rows, as a file beside its card."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.inference.calibration import MIN_PROBABILITY, Calibration, TrustWeights, WordingModel
from orchestra.agents.inference.overlap_features import wording_features
from orchestra.core.errors import InputError
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.evaluation.metrics import Case

if TYPE_CHECKING:
    import numpy

MIN_ROWS_PER_CHOICE = 5
"""Minimal number of answered rows of each choice."""
REGULARIZATION = 0.05
"""Weight of the penalty that keeps vote weights near 1 and biases near 0."""


@dataclass(frozen=True, slots=True)
class CalibrationRow:
    """A row, the model's probability of each choice, and the correct choice."""

    inputs: Mapping[str, Any]
    probabilities: Mapping[str, float]
    target: str


def without_calibration(card: Card) -> Card:
    """Returns the card without its calibration."""
    return card.with_settings(name=f"{card.name}_uncalibrated", calibration=None)


def calibration_rows(card: Card, rows: Sequence[DatasetRow], cases: Sequence[Case]) -> list[CalibrationRow]:
    """Returns the answered rows.

    Raises:
        InputError: N160 if the output of the agent has no probabilities of its choices.
    """
    form = card.output_form
    fields = {str(rule.probability): name for name, rule in form.rules.items() if rule.probability is not None}
    missing = [choice for choice in form.choices if choice not in fields]
    if card.calibration is None or not fields or len(missing) > 1:
        reason = (
            f"the output has no probability of {' and '.join(missing)}" if fields else "the output has no probabilities"
        )
        reason = reason if card.calibration is not None else "its card has no key `calibration`"
        raise InputError("N160", f"{card.name} cannot be calibrated: {reason}", hint="orchestra explain N160")
    usable_rows = []
    for row, case in zip(rows, cases, strict=True):
        values_by_choice = {
            choice: None if case.output is None else case.output.get(name) for choice, name in fields.items()
        }
        odds = {choice: float(value) for choice, value in values_by_choice.items() if value is not None}
        if len(odds) == len(fields):
            odds |= {choice: max(0.0, 1 - sum(odds.values())) for choice in missing}
            usable_rows.append(CalibrationRow(row.input, odds, str(row.output[form.choice_field])))
    return usable_rows


def fit_calibration(
    card: Card, data: Dataset, held: Sequence[CalibrationRow], inputs: tuple[str, str] | None = None
) -> Calibration:
    """Returns the calibration with the best likelihood on held-out rows; every choice has the same total weight.

    Args:
        inputs: The inputs with the claim and the evidence. If given, their wording votes too; that vote is fitted on
        the training split.

    Raises:
        InputError: N161 if a choice has fewer than five held-out rows.
    """
    import numpy as np
    from scipy.optimize import minimize

    choices = card.output_form.choices
    rare_choices = [choice for choice in choices if sum(row.target == choice for row in held) < MIN_ROWS_PER_CHOICE]
    if rare_choices:
        raise InputError(
            "N161",
            f"fewer than {MIN_ROWS_PER_CHOICE} answered rows of {', '.join(rare_choices)}",
            hint="a larger tune part: orchestra learn data --tune",
        )
    words = None if inputs is None else _fit_wording_model(card, data.rows["train"], inputs)
    voices = [
        np.log([[max(MIN_PROBABILITY, row.probabilities.get(choice, 0.0)) for choice in choices] for row in held])
    ]
    if words is not None:
        voices.append(
            np.log([[max(MIN_PROBABILITY, chance) for chance in words.probabilities(row.inputs)] for row in held])
        )
    right = np.array([choices.index(row.target) for row in held])
    counts = np.bincount(right, minlength=len(choices))
    weights = 1 / (len(choices) * counts[right])

    def loss(values: numpy.ndarray) -> float:
        trust, bias = values[: len(voices)], values[len(voices) :]
        sums = sum(share * voice for share, voice in zip(trust, voices, strict=True)) + bias
        sums = sums - sums.max(1, keepdims=True)
        chances = sums - np.log(np.exp(sums).sum(1, keepdims=True))
        pull = REGULARIZATION * float(((trust - 1 / len(voices)) ** 2).sum() + (bias**2).sum())
        return float(-(weights * chances[np.arange(len(right)), right]).sum()) + pull

    start = np.concatenate([np.full(len(voices), 1 / len(voices)), np.zeros(len(choices))])
    best = minimize(
        loss, start, method="L-BFGS-B", bounds=[(0.0, None)] * len(voices) + [(None, None)] * len(choices)
    ).x
    rounded_values = [round(float(value), 6) for value in best]
    trust = TrustWeights(rounded_values[0], rounded_values[1] if words is not None else 0.0)
    name = f"{data.manifest.name} {data.manifest.digest}"
    return Calibration(
        choices=choices,
        trust=trust,
        bias=tuple(rounded_values[len(voices) :]),
        words=words,
        adapter=card.weights_digest,
        rows=len(held),
        data=name,
        licence=data.manifest.licence,
    )


def encode_calibration(calibration: Calibration) -> bytes:
    """Encodes the calibration file."""
    return msgspec.json.format(msgspec.json.encode(calibration)) + b"\n"


def _fit_wording_model(card: Card, rows: Sequence[DatasetRow], inputs: tuple[str, str]) -> WordingModel:
    """Fits a linear model over the wording: multinomial logistic regression, balanced by choice."""
    import numpy as np
    from sklearn.linear_model import LogisticRegression

    claim, evidence = inputs
    numbers = np.array([wording_features(str(row.input[claim]), str(row.input[evidence])) for row in rows])
    right = [str(row.output[card.output_form.choice_field]) for row in rows]
    mean, spread = numbers.mean(0), numbers.std(0) + 1e-6
    model = LogisticRegression(C=1.0, class_weight="balanced", max_iter=2_000).fit((numbers - mean) / spread, right)
    order = [list(model.classes_).index(choice) for choice in card.output_form.choices]

    def rounded(values: numpy.ndarray) -> tuple[float, ...]:
        return tuple(round(float(value), 6) for value in values)

    return WordingModel(
        claim=claim,
        evidence=evidence,
        mean=rounded(mean),
        spread=rounded(spread),
        weights=tuple(rounded(model.coef_[at]) for at in order),
        bias=rounded(model.intercept_[order]),
    )
