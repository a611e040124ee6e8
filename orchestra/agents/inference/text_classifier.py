"""Text classification by a committee of fine-tuned sentence encoders and a linear classifier over n-grams, for a text
or a pair of texts.

`model.json` has the labels, the base encoder, and the SHA-256 of the arrays beside it (`.npz`): for each linear layer
of the base the adapters of all members, `down.NAME` and `up.NAME`, and for each member its `prototypes` (one direction
a label) and its `sharpness`. A member's logits are its sharpness times the cosines of the text with the prototypes. The
linear classifier has files of its own, as in a card of kind `sklearn`. The committee's logits are the weighted sum of
its members' log-probabilities. For pairs there is no linear classifier, because n-grams of each text alone do not
represent their relation. The card may name fields for the probabilities of labels, and a calibration of them, as for a
language model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from orchestra.agents.card import Card
from orchestra.agents.computed_fields import OutputForm
from orchestra.agents.inference.array_files import array_errors
from orchestra.agents.inference.calibration import Calibration
from orchestra.agents.inference.encoder import Encoder, lora_weights
from orchestra.agents.inference.linear import LinearClassifier
from orchestra.agents.inference.model_file import Digest, EncoderModelConfig, FrozenModel

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.encoder import Array

FORMAT: Literal["orchestra/committee/v1"] = "orchestra/committee/v1"
Share = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class LinearMember(FrozenModel):
    """The classifier over n-grams: its data file in the folder, and its weight in the committee."""

    file: str
    sha256: Digest
    share: Share


class OutOfScopeLabel(FrozenModel):
    """A label for texts that have none of the others, and the field of the output with its probability.

    The probability is the logistic function of `bias` plus `slope` times the committee's log-odds of the label.
    """

    label: str
    output: str
    slope: Annotated[float, Field(gt=0, allow_inf_nan=False)] = 1.0
    bias: Annotated[float, Field(allow_inf_nan=False)] = 0.0


class TextClassifierConfig(EncoderModelConfig):
    """The configuration in `model.json`."""

    format: Literal["orchestra/committee/v1"]
    input: str
    """The input that is read."""
    beside: str = ""
    """The second input of a pair; empty for single texts."""
    output: str
    """The field of the output with the label."""
    labels: tuple[str, ...] = Field(min_length=2)
    outside: OutOfScopeLabel | None = None
    tokens: Annotated[int, Field(ge=3, le=512)] = 64
    """Maximum tokens of a text that are read."""
    members: Annotated[int, Field(ge=1, le=16)]
    share: Share
    """The weight of the members' mean."""
    linear: LinearMember | None = None


class TextClassifier:
    """A loaded committee."""

    def __init__(
        self,
        config: TextClassifierConfig,
        arrays: Mapping[str, NDArray[Any]],
        encoder: Encoder,
        linear: LinearClassifier | None,
        form: OutputForm | None = None,
        calibration: Calibration | None = None,
    ) -> None:
        """Creates the committee. `form` has the fields for the probabilities of labels.

        Raises:
            ValueError: If the arrays do not fit the configuration or the encoder.
            KeyError: If an array is missing.
        """
        import numpy as np

        self.config, self.encoder, self._linear = config, encoder, linear
        self._form, self._calibration = form, calibration
        shape, wide = encoder.shape, {name: array.astype(np.float32) for name, array in arrays.items()}
        members, width = config.members, shape.hidden_size
        self._adapters = lora_weights(wide, shape, members)
        self._prototypes, self._sharpness = wide["prototypes"], wide["sharpness"]
        if self._prototypes.shape != (members, len(config.labels), width) or self._sharpness.shape != (members,):
            raise ValueError("the arrays have other shapes than the labels and the members")
        if linear is not None and linear.config.labels != config.labels:
            raise ValueError("the linear classifier has other labels")
        if config.outside is not None and config.outside.label not in config.labels:
            raise ValueError(f"{config.outside.label!r} is not one of the labels")

    @classmethod
    def load(cls, card: Card, encoder: Encoder) -> TextClassifier:
        """Loads the committee of a card's folder, with its base encoder.

        Raises:
            InputError: A011 if its files are missing, damaged or inconsistent.
        """
        with array_errors(card):
            config, arrays = TextClassifierConfig.read(card)
            return cls(
                config, arrays, encoder, _load_linear(card, config.linear), card.output_form, card.current_calibration
            )

    def logits(self, text: str, beside: str = "") -> NDArray[Any]:
        """Returns the committee's logit of each label: a logarithm of weights that need not sum to one."""
        max_tokens = self.config.tokens
        tokens = (
            self.encoder.truncate_pair(text, beside, max_tokens)
            if self.config.beside
            else self.encoder.tokenize(text, max_tokens)
        )
        members = self.member_log_probabilities(self.encoder.embed(tokens, self._adapters, self.config.members))
        scores: NDArray[Any] = self.config.share * members.mean(axis=0)
        if self._linear is not None and self.config.linear is not None:
            import numpy as np

            scores = scores + self.config.linear.share * np.log(
                np.maximum(self._linear.probabilities(text), MIN_PROBABILITY)
            )
        return scores

    def member_log_probabilities(self, vectors: Array) -> Array:
        """Returns the log-probabilities of each member, (members, labels), from its vector of the text."""
        import numpy as np

        length = np.linalg.norm(vectors, axis=-1, keepdims=True)
        cosines = (self._prototypes @ (vectors / length)[:, :, None])[:, :, 0]
        return log_softmax(self._sharpness[:, None] * cosines)

    def predict(self, inputs: Mapping[str, Any]) -> tuple[dict[str, Any], float]:
        """Returns the output and the probability of its label."""
        import numpy as np

        config = self.config
        probabilities = np.exp(
            log_softmax(self.logits(str(inputs[config.input]), str(inputs[config.beside]) if config.beside else ""))
        )
        if config.outside is None:
            return self._calibrated_output(dict(zip(config.labels, map(float, probabilities), strict=True)), inputs)
        at = config.labels.index(config.outside.label)
        outside = _logistic(config.outside.bias + config.outside.slope * _logit(float(probabilities[at])))
        probabilities[at] = 0
        best = int(probabilities.argmax())
        confidence = (1 - outside) * float(probabilities[best] / max(probabilities.sum(), MIN_PROBABILITY))
        label, probability = (
            (config.outside.label, outside) if outside >= OUT_OF_SCOPE_THRESHOLD else (config.labels[best], confidence)
        )
        return {config.output: label, config.outside.output: outside}, probability

    def _calibrated_output(
        self, chances: Mapping[str, float], inputs: Mapping[str, Any]
    ) -> tuple[dict[str, Any], float]:
        """Returns the most probable label and the fields of probabilities, calibrated if there is a calibration."""
        if self._calibration is not None:
            chances = self._calibration.calibrate(chances, inputs)
        best = max(chances, key=lambda label: chances[label])
        output_fields = {self.config.output: best}
        return output_fields if self._form is None else self._form.fill(output_fields, chances), chances[best]


MIN_PROBABILITY = 1e-12
"""Lower bound of probabilities, so that they have a logarithm."""
OUT_OF_SCOPE_THRESHOLD = 0.5


def _load_linear(card: Card, linear_member: LinearMember | None) -> LinearClassifier | None:
    return None if linear_member is None else LinearClassifier.load(card, linear_member.file, linear_member.sha256)


def sha256_hex(data: bytes) -> str:
    """Returns the SHA-256 of bytes, in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def log_softmax(logits: NDArray[Any]) -> NDArray[Any]:
    """Returns the log-probabilities of logits along the last axis."""
    import numpy as np

    shifted_logits = logits - logits.max(axis=-1, keepdims=True)
    log_probabilities: NDArray[Any] = shifted_logits - np.log(np.exp(shifted_logits).sum(axis=-1, keepdims=True))
    return log_probabilities


def _logit(probability: float) -> float:
    bounded_probability = min(max(probability, MIN_PROBABILITY), 1 - MIN_PROBABILITY)
    return math.log(bounded_probability / (1 - bounded_probability))


def _logistic(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else 1 - 1 / (1 + math.exp(x))
