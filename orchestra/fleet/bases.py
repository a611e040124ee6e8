"""Bases: which base model an adapter in a card's own folder was trained on. Another one answers without it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchestra.agent.card import Card
from orchestra.fleet.config import Endpoint, LocalServer

MANIFEST = "manifest.json"


class _Made(msgspec.Struct):
    """What is read of an adapter's manifest (`orchestra.learn.adapter.Made`)."""

    base: str


@dataclass(slots=True)
class Bases:
    """The bases of cards' adapters, each read once."""

    _known: dict[str, str] = field(default_factory=dict)
    """By the card's digest; empty where nothing says it."""

    def adapted(self, card: Card, server: LocalServer | Endpoint) -> bool:
        """Whether a server is asked for a card's adapter: where it has one, and nothing says that it is for another base.

        So a packaged specialist runs on any fleet: tuned where its base is, with its prompt alone elsewhere. An adapter that the fleet
        file names itself is always asked for.
        """
        if card.adapter is None or card.folder is None:
            return card.adapter is not None
        if isinstance(server, LocalServer) and card.adapter in server.adapters:
            return True
        if card.digest not in self._known:
            self._known[card.digest] = _base(card.folder / card.adapter / MANIFEST)
        return self._known[card.digest] in ("", server.model)


def _base(manifest: Path) -> str:
    try:
        return msgspec.json.decode(manifest.read_bytes(), type=_Made).base
    except (OSError, msgspec.MsgspecError):
        return ""
