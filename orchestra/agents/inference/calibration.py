"""Calibration: the probabilities of an agent's choices set right, by what they were worth on rows that it was not
trained
on.

    z = trust.model · log p(model) + trust.wording · log p(wording) + bias,    p = softmax(z)

Without wording this is temperature scaling with a bias for each choice (Guo, Pleiss, Sun, Weinberger 2017, *On
Calibration of Modern Neural Networks*, https://arxiv.org/abs/1706.04599). With it, a linear model over the words of a
claim and its evidence (`agent.wording`) votes beside the language model. The file is JSON beside the card: numbers, and
nothing that runs.
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
"""A probability below which none is counted."""


class WordingModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A linear model over the wording of a claim and its evidence."""

    claim: str
    """The input that has the claim."""
    evidence: str
    """The input that has the evidence."""
    mean: tuple[float, ...]
    spread: tuple[float, ...]
    weights: tuple[tuple[float, ...], ...]
    """A row for each choice."""
    bias: tuple[float, ...]

    def probabilities(self, inputs: Mapping[str, Any]) -> list[float]:
        """The probability of each choice by the words alone."""
        numbers = wording_features(str(inputs.get(self.claim, "")), str(inputs.get(self.evidence, "")))
        scaled = [
            (number - mean) / spread for number, mean, spread in zip(numbers, self.mean, self.spread, strict=True)
        ]
        sums = [sum(map(float.__mul__, row, scaled)) + bias for row, bias in zip(self.weights, self.bias, strict=True)]
        return softmax(sums)


class TrustWeights(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How much each voice counts."""

    model: float
    wording: float = 0.0


class Calibration(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the file says."""

    format: str = "orchestra/calibration/v1"
    choices: tuple[str, ...]
    trust: TrustWeights
    bias: tuple[float, ...]
    """For each choice."""
    words: WordingModel | None = None
    adapter: str = ""
    """SHA-256 of the weights of the adapter whose probabilities it sets right; with another one it is void. Empty for
    none.
    """
    rows: int = 0
    """Rows that trust and bias were fitted on, with equal weight for each choice."""
    data: str = ""
    """The data set, with its digest."""
    licence: str = ""

    @classmethod
    def read(cls, data: bytes, choices: Sequence[str], place: SourceLocation | None = None) -> Calibration:
        """From a file's bytes. Raises `InputError` A014 for what is no calibration of these choices."""
        try:
            found = decode_json(data, cls)
        except JsonDecodingError as error:
            raise _calibration_error(str(error), place) from error
        if set(found.choices) != set(choices):
            raise _calibration_error(
                f"it is about {', '.join(found.choices)}, and the card's choices are {', '.join(choices) or 'none'}",
                place,
            )
        sizes = [len(found.bias)]
        if found.words is not None:
            sizes += [len(found.words.weights), len(found.words.bias)]
            if {len(row) for row in (found.words.mean, found.words.spread, *found.words.weights)} != {
                len(FEATURE_NAMES)
            }:
                raise _calibration_error(
                    f"it has other numbers of words than the {len(FEATURE_NAMES)} that are counted", place
                )
            if not all(spread > 0 for spread in found.words.spread):
                raise _calibration_error("a spread is not positive", place)
        if set(sizes) != {len(found.choices)}:
            raise _calibration_error("it has not one number for each choice", place)
        return found

    def calibrate(self, probabilities: Mapping[str, float], inputs: Mapping[str, Any]) -> dict[str, float]:
        """The probabilities, set right."""
        sums = [
            self.trust.model * math.log(max(MIN_PROBABILITY, probabilities.get(choice, 0.0))) + bias
            for choice, bias in zip(self.choices, self.bias, strict=True)
        ]
        if self.words is not None:
            said = self.words.probabilities(inputs)
            sums = [
                one + self.trust.wording * math.log(max(MIN_PROBABILITY, chance))
                for one, chance in zip(sums, said, strict=True)
            ]
        return dict(zip(self.choices, softmax(sums), strict=True))


def softmax(sums: Sequence[float]) -> list[float]:
    """Probabilities in proportion to the exponentials."""
    most = max(sums)
    shares = [math.exp(one - most) for one in sums]
    whole = sum(shares)
    return [share / whole for share in shares]


def _calibration_error(why: str, place: SourceLocation | None) -> InputError:
    return InputError("A014", f"no calibration of this agent: {why}", location=place, hint="orchestra learn calibrate")
