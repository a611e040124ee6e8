"""Calibration of an agent's choice probabilities on held-out rows.

    z = trust.model · log p(model) + trust.wording · log p(wording) + bias,    p = softmax(z)

Without wording this is temperature scaling with a bias for each choice (Guo, Pleiss, Sun, Weinberger 2017, *On
Calibration of Modern Neural Networks*, https://arxiv.org/abs/1706.04599). With wording, a linear model over the words
of a claim and its evidence (`orchestra.agents.inference.overlap_features`) is combined with the language model. The
file is JSON beside the card and contains only numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from orchestra.agents.inference.overlap_features import FEATURE_NAMES, wording_features
from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import JsonDecodingError, decode_json

MIN_PROBABILITY = 1e-6
"""Lower bound of probabilities."""


class WordingModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A linear model over the wording of a claim and its evidence."""

    claim: str
    """The input with the claim."""
    evidence: str
    """The input with the evidence."""
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    """One row per choice."""
    bias: tuple[float, ...]

    def probabilities(self, inputs: Mapping[str, Any]) -> list[float]:
        """Returns the probability of each choice by the words alone."""
        numbers = wording_features(str(inputs.get(self.claim, "")), str(inputs.get(self.evidence, "")))
        scaled_numbers = [
            (number - mean) / spread for number, mean, spread in zip(numbers, self.mean, self.spread, strict=True)
        ]
        sums = [
            sum(map(float.__mul__, row, scaled_numbers)) + bias
            for row, bias in zip(self.weights, self.bias, strict=True)
        ]
        return softmax(sums)


class TrustWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The weights of the language model and of the wording model."""

    model: float
    wording: float = 0.0


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The contents of the calibration file."""

    format: str = "orchestra/calibration/v1"
    choices: tuple[str, ...]
    trust: TrustWeights
    bias: tuple[float, ...]
    """One per choice."""
    words: WordingModel | None = None
    adapter: str = ""
    """SHA-256 of the weights of the calibrated adapter; empty for none. The calibration is not used for other
    weights.
    """
    rows: int = 0
    """Number of rows that trust and bias were fitted on, with equal weight for each choice."""
    data: str = ""
    """The dataset, with its digest."""
    licence: str = ""

    @classmethod
    def read(cls, data: bytes, choices: Sequence[str], location: SourceLocation | None = None) -> Calibration:
        """Reads a calibration from a file's bytes.

        Raises:
            InputError: A014 if it is not a calibration of these choices.
        """
        try:
            calibration = decode_json(data, cls)
        except JsonDecodingError as error:
            raise _calibration_error(str(error), location) from error
        if set(calibration.choices) != set(choices):
            raise _calibration_error(
                f"its choices are {', '.join(calibration.choices)}, but those of the card are "
                f"{', '.join(choices) or 'none'}",
                location,
            )
        sizes = [len(calibration.bias)]
        if calibration.words is not None:
            sizes += [len(calibration.words.weights), len(calibration.words.bias)]
            if {len(row) for row in (calibration.words.mean, calibration.words.spread, *calibration.words.weights)} != {
                len(FEATURE_NAMES)
            }:
                raise _calibration_error(f"its wording model does not have {len(FEATURE_NAMES)} features", location)
            if not all(spread > 0 for spread in calibration.words.spread):
                raise _calibration_error("a spread is not positive", location)
        if set(sizes) != {len(calibration.choices)}:
            raise _calibration_error("it does not have one number for each choice", location)
        return calibration

    def calibrate(self, probabilities: Mapping[str, float], inputs: Mapping[str, Any]) -> dict[str, float]:
        """Returns the calibrated probabilities."""
        sums = [
            self.trust.model * math.log(max(MIN_PROBABILITY, probabilities.get(choice, 0.0))) + bias
            for choice, bias in zip(self.choices, self.bias, strict=True)
        ]
        if self.words is not None:
            word_probabilities = self.words.probabilities(inputs)
            sums = [
                score + self.trust.wording * math.log(max(MIN_PROBABILITY, chance))
                for score, chance in zip(sums, word_probabilities, strict=True)
            ]
        return dict(zip(self.choices, softmax(sums), strict=True))


def softmax(sums: Sequence[float]) -> list[float]:
    """Returns probabilities in proportion to the exponentials."""
    peak = max(sums)
    shares = [math.exp(score - peak) for score in sums]
    total = sum(shares)
    return [share / total for share in shares]


def _calibration_error(reason: str, location: SourceLocation | None) -> InputError:
    return InputError(
        "A014", f"not a calibration of this agent: {reason}", location=location, hint="orchestra learn calibrate"
    )
