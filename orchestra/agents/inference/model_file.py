"""Configuration of agents with arrays (`model.json`): the common fields. The module of each kind adds its own."""

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
    """An immutable model that forbids unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class BaseEncoder(FrozenModel):
    """The base encoder of an agent."""

    licence: str
    sha256: Mapping[str, Digest]
    """Of its files, by name."""


class TrainingSource(FrozenModel):
    """The rows that an agent was trained on."""

    name: str
    licence: str
    rows: int
    digest: str


class ModelConfig(FrozenModel):
    """The fields of all agents with arrays."""

    arrays: str
    """The file of the arrays, beside this one."""
    sha256: Digest

    @classmethod
    def read(cls, card: Card, file: str = "", sha256: str = "") -> tuple[Self, dict[str, NDArray[Any]]]:
        """Reads the configuration and the arrays of a card's folder, by the card's data file or by another one with its
        digest.

        Raises:
            ValueError: If a file is damaged or inconsistent; `array_errors` converts it to an error of the card.
            KeyError: If an array is missing; likewise.
        """
        layout = cls.model_validate_json(read_verified(card, file, sha256) if sha256 else card.read(file or card.data))
        return layout, load_arrays(card, layout.arrays, layout.sha256)


class EncoderModelConfig(ModelConfig):
    """The fields of all trained encoders."""

    base: BaseEncoder
    data: tuple[TrainingSource, ...]


class EncoderSummary(BaseModel):
    """The fields of an encoder that do not depend on its task."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    format: str
    base: BaseEncoder
    labels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    data: tuple[TrainingSource, ...]
    arrays: str
    sha256: str


def base_encoder(card: Card) -> BaseEncoder:
    """Returns the base encoder of a card of kind `encoder`.

    Raises:
        InputError: A011 if the card's data file states none.
    """
    with array_errors(card):
        return EncoderSummary.model_validate_json(card.read(card.data)).base
