"""Digests of the weights, settings and adapters of models. An answer of a model without a digest is never memoized.

Each digest is read once: from a manifest of some kilobytes, or from an adapter's weights, again after a promotion
replaced them.
"""

from __future__ import annotations

from dataclasses import dataclass

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError
from orchestra.fleet import adapters, cpu
from orchestra.fleet.config import Endpoint, LocalServer
from orchestra.fleet.weights import weights
from orchestra.fleet.weights.weights import ModelStore
from orchestra.schema.strict_json import canonical, digest

DIGEST_SETTINGS = frozenset(
    {"model", "device", "dtype", "quantization", "kv_cache_dtype", "max_model_len", "structured_outputs"}
)
"""Settings of a local server that affect its output."""


@dataclass(frozen=True, slots=True)
class _CachedDigest:
    """The digest of an adapter, and its location."""

    files: tuple[str, str]
    stamps: adapters.FileStamps | None
    digest: str


class ModelDigests:
    """The digests of a fleet's servers and adapters, computed on demand."""

    def __init__(self, model_store: ModelStore) -> None:
        self._model_store = model_store
        self._servers: dict[str, str] = {}
        self._adapters: dict[tuple[str, str], _CachedDigest] = {}

    def server_digest(self, name: str, target: LocalServer | Endpoint, card: Card) -> str:
        """Returns the digest of a server with a card's adapter; empty if the answering model is unknown.

        It is empty for an endpoint without a `revision:`, weights that are not installed yet, and a missing adapter.
        """
        if isinstance(target, Endpoint):
            content = [target.endpoint, target.model, target.revision, card.adapter]
            return digest(canonical(content)) if target.revision else ""
        server, adapter = self._base_digest(name, target), self._adapter_digest(name, target, card)
        return digest(canonical([server, adapter])) if server and adapter else ""

    def base_digest(self, name: str, target: LocalServer | Endpoint) -> str:
        """Returns the digest of a server's base model; empty if unknown."""
        if isinstance(target, Endpoint):
            return digest(canonical([target.endpoint, target.model, target.revision])) if target.revision else ""
        return self._base_digest(name, target)

    def adapter_digest(self, name: str, target: LocalServer | Endpoint, card: Card) -> str:
        """Returns the digest of a card's adapter on a server: of its files, or of its name on an endpoint; empty if it
        is missing.
        """
        return card.adapter or "none" if isinstance(target, Endpoint) else self._adapter_digest(name, target, card)

    def _base_digest(self, name: str, target: LocalServer) -> str:
        if not (server_digest := self._servers.get(name, "")) and (contents := self._weights_digest(target)):
            settings = cpu.resolve_auto(target, self._model_store.folders.cache).model_dump(
                mode="json", include=set(DIGEST_SETTINGS)
            )
            server_digest = self._servers[name] = digest(canonical([contents, settings]))
        return server_digest

    def _weights_digest(self, target: LocalServer) -> str:
        """Returns the digest of a model's files, including the chat template; empty if they are missing or their
        manifest is damaged.
        """
        # The supervisor finds the weights in the same way.
        folder = weights.find_weights(target.weights, ModelStore(self._model_store.folders))
        return "" if folder is None else weights.quick_digest(folder)

    def _adapter_digest(self, name: str, target: LocalServer, card: Card) -> str:
        if card.adapter is None:
            return "none"
        cached_digest = self._adapters.get((name, card.digest))
        if cached_digest is None or cached_digest.stamps != adapters.file_stamps(cached_digest.files):
            try:
                folder = adapters.find_adapter(card, target)
                files = adapters.adapter_files(folder)
                # before the files are read, so that a change meanwhile is noticed at the next call
                stamp = adapters.file_stamps(files)
                binding = adapters.binding_digest(folder)
            except (FleetError, OSError):
                return ""
            cached_digest = self._adapters[name, card.digest] = _CachedDigest(files, stamp, binding)
        return cached_digest.digest
