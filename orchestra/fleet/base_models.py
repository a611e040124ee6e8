"""Bases: which base model an adapter in a card's own folder was trained on. Another one answers without it where the card says so."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError
from orchestra.fleet.config import Endpoint, LocalServer
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.weights.adapter_checks import MANIFEST, read_manifest


@dataclass(slots=True)
class AdapterBases:
    """The bases of cards' adapters, each read once, and again where its manifest was replaced."""

    _cache: dict[Path, tuple[tuple[int, int], str]] = field(default_factory=dict)
    """By manifest: what changes when it is replaced, and the base; empty where nothing says it."""

    def uses_adapter(self, card: Card, server: LocalServer | Endpoint) -> bool:
        """Whether a server is asked for a card's adapter: where it has one, and nothing says that it is for another base.

        An adapter that the fleet file names itself is always asked for.
        """
        if card.adapter is None or card.folder is None:
            return card.adapter is not None
        if isinstance(server, LocalServer) and card.adapter in server.adapters:
            return True
        return self._base(card.folder / card.adapter / MANIFEST) in ("", server.model)

    def base_mismatch(self, card: Card, name: str, server: LocalServer | Endpoint) -> RequestError | None:
        """F222 of a server that is not asked for a card's adapter; None where there is none, and where the card has its prompt alone asked
        there. So a packaged specialist runs on any fleet: tuned where its base is, by its prompt elsewhere."""
        if card.adapter is None or card.folder is None or card.elsewhere == "prompt":
            return None
        base = self._base(card.folder / card.adapter / MANIFEST)
        reason = f"the adapter {card.adapter!r} of {card.name!r} is for the base {base!r}, and the server {name!r} has {server.model!r}"
        hint = "train it on this base; or `elsewhere: prompt` in agent.yaml: its prompt alone is asked there"
        return RequestError.not_reached("F222", reason, hint)

    def _base(self, manifest: Path) -> str:
        try:
            now = os.stat(manifest)
            stamp = now.st_mtime_ns, now.st_ino
            if (known := self._cache.get(manifest)) is None or known[0] != stamp:
                known = self._cache[manifest] = stamp, read_manifest(manifest.parent).base
            return known[1]
        except (OSError, FleetError):
            return ""  # one that cannot be read is refused when the adapter is loaded
