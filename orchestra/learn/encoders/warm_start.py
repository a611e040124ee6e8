"""Warm starts: a training that starts from the arrays of an agent's folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors, load_arrays
from orchestra.agents.inference.model_file import BaseEncoder, EncoderSummary, TrainingSource
from orchestra.core.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.learn.encoders.tuned import AdaptedEncoder


MEMBER_ARRAY_PREFIXES = ("down.", "up.", "prototypes", "sharpness")
"""Prefixes of the arrays that each member of a committee has separately."""


@dataclass(frozen=True, slots=True)
class WarmStart:
    """The weights that a training starts from."""

    folder: Path
    format: str
    labels: tuple[str, ...]
    arrays: Mapping[str, NDArray[Any]]
    sources: tuple[TrainingSource, ...]
    """The sources of earlier trainings."""
    sha256: str
    """Digest of the arrays."""
    outputs: tuple[str, ...] = ()
    """The names of the head's outputs, if known."""
    adapters_only: bool = False
    """Whether only the adapters are used, with a new head."""

    @classmethod
    def from_folder(cls, card: Card, folder: Path, base: BaseEncoder) -> WarmStart:
        """Reads the encoder of a folder written by `orchestra learn train`.

        Raises:
            InputError: A003, A004 or A011 if the folder has no encoder, or a damaged one; N123 if it has another base.
        """
        folder_card = card.with_settings(name=card.name, folder=folder.resolve())
        with array_errors(folder_card):
            layout = EncoderSummary.model_validate_json(folder_card.read(card.data))
            arrays = load_arrays(folder_card, layout.arrays, layout.sha256)
        if layout.base.sha256 != base.sha256:
            raise InputError(
                "N123", f"{folder} has another base encoder than {card.model!r}", hint="train it from the start"
            )
        return cls(folder, layout.format, layout.labels, arrays, layout.data, layout.sha256, layout.outputs)

    def for_format(self, format: str) -> WarmStart:
        """Returns the warm start for a format: unchanged for the same format, else only its adapters."""
        if self.format == format:
            return self
        adapters = {name: array for name, array in self.arrays.items() if name.startswith(("down.", "up."))}
        return replace(self, arrays=adapters, adapters_only=True)

    def with_outputs(self, wanted: Sequence[str]) -> WarmStart:
        """Returns the warm start with other outputs: known outputs continue, new ones start from zero.

        Raises:
            InputError: N123 if the outputs of its head are unknown.
        """
        import numpy as np

        weight, bias = self.arrays.get("weight"), self.arrays.get("bias")
        if tuple(wanted) == self.outputs:
            return self
        if weight is None or bias is None or len(self.outputs) != len(weight) or len(bias) != len(weight):
            raise InputError(
                "N123", f"{self.folder} does not name the outputs of its head", hint="train it from the start"
            )
        at = {name: number for number, name in enumerate(self.outputs)}
        rows = [np.zeros_like(weight[0]) if name not in at else weight[at[name]] for name in wanted]
        bias_rows = [np.zeros_like(bias[0]) if name not in at else bias[at[name]] for name in wanted]
        arrays = {**self.arrays, "weight": np.stack(rows), "bias": np.stack(bias_rows)}
        return replace(self, arrays=arrays, outputs=tuple(wanted))

    def load_into(self, member: AdaptedEncoder) -> None:
        """Loads the arrays into a member.

        Raises:
            InputError: N123 if they belong to another kind of agent or have other shapes.
        """
        import torch

        tensors = {name: torch.as_tensor(self._single_member_array(name)).float() for name in self.arrays}
        tensors = {**member.arrays(), **tensors} if self.adapters_only else tensors
        strange = sorted(
            name
            for name in {*tensors, *member.parameters}
            if _array_shape(tensors, name) != _array_shape(member.parameters, name)
        )
        if strange:
            reason = f"the arrays of {self.folder} do not fit: {strange[0]} and {len(strange) - 1} more differ"
            raise InputError("N123", reason, hint="train it from the start")
        member.load_arrays(tensors)

    def _single_member_array(self, name: str) -> NDArray[Any]:
        """Returns an array of the only member; a committee of several has no single member to continue."""
        array = self.arrays[name]
        alone: NDArray[Any] = array[0] if name.startswith(MEMBER_ARRAY_PREFIXES) and len(array) == 1 else array
        return alone


def _array_shape(arrays: Mapping[str, Any], name: str) -> tuple[int, ...] | None:
    return tuple(arrays[name].shape) if name in arrays else None
