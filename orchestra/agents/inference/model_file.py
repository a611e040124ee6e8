"""Layouts: what `model.json` says of an agent's arrays. What all kinds of agents say is here; each says more in the module of its kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Self, TypeAlias

from pydantic import BaseModel, ConfigDict, Field

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import bound, reading, unpacked

if TYPE_CHECKING:
    from numpy.typing import NDArray

Digest: TypeAlias = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class Closed(BaseModel):
    """What has no other fields than are known, and never changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Base(Closed):
    """The encoder that an agent stands on."""

    licence: str
    sha256: Mapping[str, Digest]
    """Of its files, by name."""


class Source(Closed):
    """Rows that an agent was trained on."""

    name: str
    licence: str
    rows: int
    digest: str


class ArraysLayout(Closed):
    """What all agents with arrays say."""

    arrays: str
    """The file of the arrays, beside this one."""
    sha256: Digest

    @classmethod
    def read(cls, card: Card, file: str = "", sha256: str = "") -> tuple[Self, dict[str, NDArray[Any]]]:
        """The layout of a card's folder, by its data file or by another one that is named with its digest, and the arrays.

        Raises `ValueError` or `KeyError` for what is damaged or does not fit, which `reading` makes an error of the card.
        """
        layout = cls.model_validate_json(bound(card, file, sha256) if sha256 else card.read(file or card.data))
        return layout, unpacked(card, layout.arrays, layout.sha256)


class EncoderLayout(ArraysLayout):
    """What all encoders that were trained say."""

    base: Base
    data: tuple[Source, ...]


class Outline(BaseModel):
    """What can be read of an encoder without knowing what it does."""

    model_config = ConfigDict(frozen=True, extra="ignore", defer_build=True)

    format: str
    base: Base
    labels: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()
    data: tuple[Source, ...]
    arrays: str
    sha256: str


def base_of(card: Card) -> Base:
    """The encoder that a card of kind `encoder` stands on. Raises `InputError` A011 where the card's data file says none."""
    with reading(card):
        return Outline.model_validate_json(card.read(card.data)).base
