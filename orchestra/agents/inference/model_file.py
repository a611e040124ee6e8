"""Layouts: what `model.json` says of an agent's arrays. What all kinds of agents say is here; each says more in the
module
of its kind.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import array_errors, load_arrays, read_verified

if TYPE_CHECKING:
    from numpy.typing import NDArray

Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class FrozenModel(BaseModel):
    """What has no other fields than are known, and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class BaseEncoder(FrozenModel):
    """The encoder that an agent stands on."""

    licence: str
    sha256: Mapping[str, Digest]
    """Of its files, by name."""


class TrainingSource(FrozenModel):
    """Rows that an agent was trained on."""

    name: str
    licence: str
    rows: int
    digest: str


class ModelConfig(FrozenModel):
    """What all agents with arrays say."""

    arrays: str
    """The file of the arrays, beside this one."""
    sha256: Digest

    @classmethod
    def read(cls, card: Card, file: str = "", sha256: str = "") -> tuple[Self, dict[str, NDArray[Any]]]:
        """The layout of a card's folder, by its data file or by another one that is named with its digest, and the
        arrays.

        Raises `ValueError` or `KeyError` for what is damaged or does not fit, which `reading` makes an error of the
        card.
        """
        layout = cls.model_validate_json(read_verified(card, file, sha256) if sha256 else card.read(file or card.data))
        return layout, load_arrays(card, layout.arrays, layout.sha256)


class EncoderModelConfig(ModelConfig):
    """What all encoders that were trained say."""

    base: BaseEncoder
    data: tuple[TrainingSource, ...]


class EncoderSummary(BaseModel):
    """What can be read of an encoder without knowing what it does."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    format: str
    base: BaseEncoder
    labels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    data: tuple[TrainingSource, ...]
    arrays: str
    sha256: str


def base_encoder(card: Card) -> BaseEncoder:
    """The encoder that a card of kind `encoder` stands on. Raises `InputError` A011 where the card's data file says
    none.
    """
    with array_errors(card):
        return EncoderSummary.model_validate_json(card.read(card.data)).base
