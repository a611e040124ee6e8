"""Variants: what `--agent NAME@OTHER` puts in the place of an agent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestra.agents.card import FILE, Card
from orchestra.agents.card_file import WITH_ARRAYS
from orchestra.agents.contract import Contract
from orchestra.agents.ensemble import joined
from orchestra.agents.registry import Registry
from orchestra.cli.inputs import read_text
from orchestra.core.errors import InputError
from orchestra.core.suggestions import nearest

MODEL = "model:"
ADAPTER = ("manifest.json", "adapter_config.json")
"""Files by which a folder is known for an adapter's."""


@dataclass(frozen=True, slots=True)
class Variant:
    """An agent, and who is asked instead."""

    agent: str
    said: str
    """In words."""
    other: Card | Contract


def variant(registry: Registry, text: str) -> Variant:
    """What an option says: `reader`, which is the agent as it is today, or `reader@OTHER`. Raises `InputError` C041."""
    name, _, other = text.partition("@")
    if not other:
        return Variant(name, f"{name} as it is today", _named(registry, name))
    if other in registry.agents:
        return Variant(name, other, _named(registry, other))
    if other.startswith(MODEL):
        return Variant(name, f"{name} on {other.removeprefix(MODEL)}", _alone(registry, name).varied(model=other.removeprefix(MODEL)))
    path = Path(other)
    if os.path.isdir(path):
        return Variant(name, f"{name} of {other}", _apart(registry, _folder(registry, name, path)))
    if os.path.isfile(path):
        return Variant(name, f"{name} with {other}", _alone(registry, name).prompted(read_text(path), path))
    near = nearest(other, registry.agents)
    hint = f"did you mean {name}@{near}?" if near else "orchestra explain C041"
    raise InputError("C041", f"{other!r} is no agent, no file and no folder", hint=hint)


def _named(registry: Registry, name: str) -> Card | Contract:
    """An agent of the project. Raises `InputError` A001."""
    coded = registry.agents.get(name) if name not in registry.cards else None
    return coded or registry.card(name)


def _alone(registry: Registry, name: str) -> Card:
    """A card with a model, a prompt or arrays of its own. Raises `InputError` A001, C041."""
    card = registry.card(name)
    if card.kind == "ensemble":
        reason = f"{name} is an ensemble, and has no model, prompt or adapter of its own"
        raise InputError("C041", reason, hint=f"{name}@OTHER with another agent, or a run of one of its members: {', '.join(card.members)}")
    return card


def _folder(registry: Registry, name: str, path: Path) -> Card:
    if (path / FILE).is_file():
        own = registry.cards.get(name)
        members = {part.name: part for part in own.parts} if own is not None else {}
        return joined(Card.load(path.resolve(), registry.models), {**registry.cards, **members})
    card, folder = _alone(registry, name), path.resolve()
    if card.kind in WITH_ARRAYS:
        return card.varied(folder=folder)
    if any((path / file).is_file() for file in ADAPTER):
        return card.varied(adapter=folder.name, elsewhere=None, calibration=None, folder=folder.parent)
    raise InputError("C041", f"{path} has no {FILE} and no adapter", hint="orchestra explain C041")


def _apart(registry: Registry, card: Card) -> Card:
    """The card under another name, where it cannot be told from the project's own: digests do not cover an adapter's weights."""
    own = registry.cards.get(card.name)
    same = own is not None and own.digest == card.digest and own.folder != card.folder
    return card.varied(name=f"{card.name}_other"[-64:]) if same else card
