"""Variants: what `--agent NAME@OTHER` puts in the place of an agent."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from orchestra.agents.card import CARD_FILE, Card
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.agents.contract import Contract
from orchestra.agents.ensemble import join_members
from orchestra.agents.registry import Registry
from orchestra.cli.inputs import read_text
from orchestra.core.errors import InputError
from orchestra.core.suggestions import closest_match

MODEL_PREFIX = "model:"
ADAPTER_FILES = ("manifest.json", "adapter_config.json")
"""Files by which a folder is known for an adapter's."""


@dataclass(frozen=True, slots=True)
class AgentVariant:
    """An agent, and who is asked instead."""

    agent: str
    option_text: str
    """In words."""
    replacement: Card | Contract


def parse_variant(registry: Registry, text: str) -> AgentVariant:
    """What an option says: `reader`, which is the agent as it is today, or `reader@OTHER`. Raises `InputError` C041."""
    name, _, other = text.partition("@")
    if not other:
        return AgentVariant(name, f"{name} as it is today", _find_agent(registry, name))
    if other in registry.agents:
        return AgentVariant(name, other, _find_agent(registry, other))
    if other.startswith(MODEL_PREFIX):
        return AgentVariant(
            name,
            f"{name} on {other.removeprefix(MODEL_PREFIX)}",
            _standalone_card(registry, name).with_settings(model=other.removeprefix(MODEL_PREFIX)),
        )
    path = Path(other)
    if os.path.isdir(path):
        return AgentVariant(
            name, f"{name} of {other}", _with_distinct_name(registry, _load_folder(registry, name, path))
        )
    if os.path.isfile(path):
        return AgentVariant(
            name, f"{name} with {other}", _standalone_card(registry, name).with_prompt(read_text(path), path)
        )
    near = closest_match(other, registry.agents)
    hint = f"did you mean {name}@{near}?" if near else "orchestra explain C041"
    raise InputError("C041", f"{other!r} is no agent, no file and no folder", hint=hint)


def _find_agent(registry: Registry, name: str) -> Card | Contract:
    """An agent of the project. Raises `InputError` A001."""
    coded = registry.agents.get(name) if name not in registry.cards else None
    return coded or registry.card(name)


def _standalone_card(registry: Registry, name: str) -> Card:
    """A card with a model, a prompt or arrays of its own. Raises `InputError` A001, C041."""
    card = registry.card(name)
    if card.kind == "ensemble":
        reason = f"{name} is an ensemble, and has no model, prompt or adapter of its own"
        raise InputError(
            "C041",
            reason,
            hint=f"{name}@OTHER with another agent, or a run of one of its members: {', '.join(card.members)}",
        )
    return card


def _load_folder(registry: Registry, name: str, path: Path) -> Card:
    if (path / CARD_FILE).is_file():
        own = registry.cards.get(name)
        members = {part.name: part for part in own.member_cards} if own is not None else {}
        return join_members(Card.load(path.resolve(), registry.models), {**registry.cards, **members})
    card, folder = _standalone_card(registry, name), path.resolve()
    if card.kind in KINDS_WITH_ARRAYS:
        return card.with_settings(folder=folder)
    if any((path / file).is_file() for file in ADAPTER_FILES):
        return card.with_settings(adapter=folder.name, elsewhere=None, calibration=None, folder=folder.parent)
    raise InputError("C041", f"{path} has no {CARD_FILE} and no adapter", hint="orchestra explain C041")


def _with_distinct_name(registry: Registry, card: Card) -> Card:
    """The card under another name, where it cannot be told from the project's own: digests do not cover an adapter's weights."""
    own = registry.cards.get(card.name)
    same = own is not None and own.digest == card.digest and own.folder != card.folder
    return card.with_settings(name=f"{card.name}_other"[-64:]) if same else card
