"""Adapters of cards: where their files are, which base model they need, and on which servers they are loaded."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import TypeAlias

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError, InputError
from orchestra.core.protocols import Clock
from orchestra.fleet.config import Endpoint, FleetConfig, LocalServer
from orchestra.fleet.http.model_server import ModelClient
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.request_errors import RequestError
from orchestra.fleet.supervisor.folders import is_disk_full
from orchestra.fleet.vllm_cpu import plugin
from orchestra.fleet.weights.adapter_checks import CONFIG, MANIFEST, WEIGHTS, check_adapter, check_base, read_manifest
from orchestra.fleet.weights.download import file_sha256
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.fleet.weights.weights import ModelStore
from orchestra.fleet.weights.weights import find_weights as find_weights
from orchestra.schema.strict_json import canonical, digest

LISTING_INTERVAL = 60.0
"""Seconds between the questions for an adapter that an endpoint does not list: it may be loaded there later."""


@dataclass(slots=True)
class AdapterBases:
    """The base model of each adapter, cached until the adapter's manifest is replaced."""

    _cache: dict[Path, tuple[tuple[int, int], str]] = field(default_factory=dict)
    """Manifest to (modification time and inode, base). The base is empty if the manifest does not state it."""

    def uses_adapter(self, card: Card, server: LocalServer | Endpoint) -> bool:
        """Returns whether a server is asked for a card's adapter.

        It is if the card has one, and its manifest does not name another base. An adapter of the fleet file is always
        asked for.
        """
        if card.adapter is None or card.folder is None:
            return card.adapter is not None
        if isinstance(server, LocalServer) and card.adapter in server.adapters:
            return True
        return self._base(card.folder / card.adapter / MANIFEST) in ("", server.model)

    def base_mismatch(self, card: Card, name: str, server: LocalServer | Endpoint) -> RequestError | None:
        """Returns F222 for a local server that is not asked for a card's adapter; None if the card allows its prompt
        without the adapter.

        So a packaged specialist runs on any fleet: tuned where its base is, and by its prompt elsewhere. An endpoint
        gets the prompt of every card, because its base is not the user's choice.
        """
        if card.adapter is None or card.folder is None or card.elsewhere == "prompt" or isinstance(server, Endpoint):
            return None
        base = self._base(card.folder / card.adapter / MANIFEST)
        reason = f"the adapter {card.adapter!r} of {card.name!r} is for the base {base!r}, "
        reason += f"and the server {name!r} has {server.model!r}"
        hint = "train it on this base; or `elsewhere: prompt` in agent.yaml: then only its prompt is used there"
        return RequestError.not_reached("F222", reason, hint)

    def _base(self, manifest: Path) -> str:
        try:
            now = os.stat(manifest)
            stamp = now.st_mtime_ns, now.st_ino
            if (cached_base := self._cache.get(manifest)) is None or cached_base[0] != stamp:
                cached_base = self._cache[manifest] = stamp, read_manifest(manifest.parent).base
            return cached_base[1]
        except (OSError, FleetError):
            return ""  # loading the adapter refuses a manifest that cannot be read


FileStamps: TypeAlias = tuple[tuple[int, int, int], ...]
"""Modification time, inode and size of both files of an adapter. They change when a file is replaced."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA adapter that a server can load.

    `name` is the model name in requests; it contains the digest of the files.
    """

    name: str
    folder: Path


def find_adapter(card: Card, server: LocalServer) -> Path:
    """Returns the folder of a card's adapter: the fleet's folder of that name, else the one in the card's own folder.

    Raises:
        FleetError: F212, there is no such folder; A025, its weights are not installed.
    """
    assert card.adapter is not None, "only for cards with an adapter"
    if card.adapter in server.adapters:
        return Path(server.adapters[card.adapter])
    path = (card.folder / card.adapter).resolve() if card.folder else None
    # `isdir` is False for a folder that may not be entered.
    if path and card.folder and path.is_relative_to(card.folder.resolve()) and os.path.isdir(path):
        card.require_weights()
        return path
    hint = (
        f"put it into {card.folder / card.adapter}"
        if card.folder
        else "name its folder under `adapters:` of the server"
    )
    raise FleetError("F212", f"the adapter {card.adapter!r} of {card.name!r} is not there", hint=hint)


def load_adapter_files(card: Card, server: LocalServer, model_store: ModelStore) -> Adapter:
    """Checks the files of a card's adapter and copies them to the model store.

    Raises:
        FleetError: F007 (not safe to load), F212 (missing, unreadable, or the store is not writable), F222 (does not
            fit the base) or F004 (disk full).
    """
    store = model_store.folders.adapters
    try:
        return _load_adapter_files(card, server, model_store)
    except OSError as error:
        reason = f"the adapter {card.adapter!r} of {card.name!r} cannot be read, or kept in {store}: {error}"
        if is_disk_full(error):
            raise FleetError("F004", reason, hint="free some space, then try again") from error
        raise FleetError("F212", reason, hint=f"look at the rights of {store}") from error


def _load_adapter_files(card: Card, server: LocalServer, model_store: ModelStore) -> Adapter:
    folder = find_adapter(card, server)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise FleetError(
                "F212", f"{folder} is no adapter: it has no {name}", hint="save it with peft's `save_pretrained`"
            )
    check_folder(folder)
    check_adapter(folder)
    # The supervisor finds the weights in the same way.
    if (base := find_weights(server.weights, ModelStore(model_store.folders))) is not None:
        check_base(folder, base)
    digest = adapter_digest(folder)
    return Adapter(f"{card.adapter}-{digest[:12]}", store_adapter(folder, digest, model_store.folders.adapters))


def adapter_digest(folder: Path) -> str:
    """Returns the digest of an adapter: of its weights and of its LoRA configuration."""
    return digest(" ".join(_file_digests(folder)).encode())


def binding_digest(folder: Path) -> str:
    """Returns the digest of the same two files in the form that memos and certificates store.

    Another form would invalidate all stored memos and certificates.
    """
    return digest(canonical(_file_digests(folder)))


def _file_digests(folder: Path) -> list[str]:
    return [file_sha256(Path(file)) for file in adapter_files(folder)]


def store_adapter(folder: Path, file_digest: str, store: Path) -> Path:
    """Copies an adapter's files to a folder of the store that is named by their digest, and returns the folder.

    The copy is never changed. A server reads it again if another adapter took the slot meanwhile.

    Raises:
        OSError: The files cannot be written.
    """
    place = store / file_digest
    if not (place / WEIGHTS).is_file():
        store.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{file_digest[:12]}-", dir=store))
        try:
            for name in (WEIGHTS, CONFIG):
                shutil.copyfile(folder / name, partial / name)
            os.replace(partial, place)
        except OSError:
            shutil.rmtree(partial)
            if not (place / WEIGHTS).is_file():  # else another process stored it first
                raise
    return place


def adapter_files(folder: Path) -> tuple[str, str]:
    """Returns the paths of an adapter's weights and configuration. They are strings because each call asks for their
    stamps.
    """
    return str(folder / WEIGHTS), str(folder / CONFIG)


def file_stamps(files: tuple[str, str]) -> FileStamps | None:
    """Returns the stamps of an adapter's two files; None if one is missing."""
    try:
        weights, config = os.stat(files[0]), os.stat(files[1])
    except OSError:
        return None
    return (weights.st_mtime_ns, weights.st_ino, weights.st_size), (config.st_mtime_ns, config.st_ino, config.st_size)


def check_slots(config: FleetConfig, cards: Iterable[Card]) -> None:
    """Refuses a fleet with too few slots for the adapters of its cards.

    On a CPU one slot stays free unless the plugin `vllm_cpu.plugin` fixes this version of vLLM: its kernels there read
    “no adapter” as the last slot, so with all slots in use an adapter would silently answer for the base model.

    Raises:
        InputError: F102.
    """
    card_list = list(cards)
    for name, server in config.local_servers.items():
        card_adapters = {
            c.name
            for c in card_list
            if c.adapter and c.adapter not in server.adapters and name in config.servers_for(c.model)
        }
        adapter_names = [*server.adapters, *card_adapters]
        spare = plugin.spare_slots() if adapter_names and server.device == "cpu" else 0
        if server.max_loras < len(adapter_names) + spare:
            raise _slots_error(name, server.max_loras, len(adapter_names), spare)


def _slots_error(name: str, slots: int, adapters: int, spare: int) -> InputError:
    slots_text = f"{slots} adapter slot{'' if slots == 1 else 's'} (max_loras: {slots})"
    needs_text = "one for its adapter" if adapters == 1 else f"one for each of its {adapters} adapters"
    message = f"server {name!r} has {slots_text} and needs {adapters + spare}: {needs_text}"
    reason = ""
    if spare:
        message += f", and {spare} that must stay empty"
        reason = "on CPUs this version of vLLM answers requests without an adapter from the last slot"
        reason += ", so an adapter there would answer for the base model"
    return InputError(
        "F102", message, why=reason, hint=f"set max_loras: {adapters + spare} under servers.{name} in the fleet file"
    )


@dataclass(frozen=True, slots=True)
class _CachedAdapter:
    """An adapter that was read, and the stamps of its files at that time."""

    files: tuple[str, str]
    stamps: FileStamps | None
    adapter: Adapter


class AdapterManager:
    """The adapters that are loaded on each server. A restarted server has a new address and no adapters.

    An adapter whose files were replaced by a promotion is read again at the next call and loaded beside the old one.
    The old one is unloaded afterwards. Calls in flight finish with the adapter that they started with.
    """

    def __init__(
        self,
        client: ModelClient,
        model_store: ModelStore,
        spare_slots: Callable[[str], int],
        clock: Clock,
        progress: ProgressCallback = ignore_progress,
    ) -> None:
        """Creates a manager without loaded adapters.

        Args:
            client: The client of the servers.
            model_store: The store into which adapters are copied.
            spare_slots: Returns how many slots of a server must stay free.
            clock: The clock.
            progress: Called once for each adapter that an endpoint does not list.
        """
        self._client, self._model_store, self._spare_slots = client, model_store, spare_slots
        self._clock, self._progress = clock, progress
        self._unlisted: set[tuple[str, str]] = set()
        """Servers and agents whose missing adapter was reported."""
        self._next_listing: dict[str, float] = {}
        """Endpoint to the earliest time at which it is asked again for an adapter that it did not list."""
        self._loaded: dict[str, set[str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._cache: dict[tuple[str, str], _CachedAdapter] = {}

    def is_loaded(self, server: str, card: Card) -> bool:
        """Whether a card has no adapter, or its adapter is known to be loaded on a server."""
        if card.adapter is None:
            return True
        cached_adapter = self._cache.get((server, card.digest))
        return cached_adapter is not None and cached_adapter.adapter.name in self._loaded.get(server, ())

    def is_listed(self, server: str, card: Card) -> bool:
        """Whether an endpoint lists a card's adapter, as far as it was asked."""
        return card.adapter in self._loaded.get(server, ())

    async def ensure(
        self, server: str, card: Card, target: LocalServer | Endpoint, *, once: bool = False
    ) -> str | RequestError:
        """Loads a card's adapter on a server, and returns the model name for its requests; empty for the server's own
        model. An endpoint that does not list the adapter answers with its own model and the card's prompt.

        Args:
            server: The name of the server.
            card: The card.
            target: The server.
            once: Whether to give up after one try, because the caller can use another server.
        """
        if card.adapter is None:
            return ""
        if isinstance(target, Endpoint):
            return await self._listed_adapter(server, card, once)
        cached_adapter = self._cache.get((server, card.digest))
        if (
            cached_adapter is not None
            and cached_adapter.adapter.name in self._loaded.get(server, ())
            and cached_adapter.stamps == file_stamps(cached_adapter.files)
        ):
            return cached_adapter.adapter.name
        async with self._locks.setdefault(server, asyncio.Lock()):
            try:
                adapter = await self._refresh(server, card, target)
            except FleetError as error:
                return RequestError.from_error(error)
            if (
                adapter.name not in self._loaded.get(server, ())
                and (fault := await self._load(server, adapter, target, once)) is not None
            ):
                return fault
            if cached_adapter is not None and cached_adapter.adapter.name != adapter.name:
                await self._unload(server, cached_adapter.adapter.name)
        return adapter.name

    async def _listed_adapter(self, server: str, card: Card, once: bool) -> str:
        """Returns a card's adapter if an endpoint lists it; else an empty name, and reports that once."""
        if not self.is_listed(server, card) and self._clock.monotonic() >= self._next_listing.get(server, -inf):
            models = await self._client.list_models(server, once=once)
            if isinstance(models, RequestError):
                if models.retryable:
                    return ""  # the call itself reports what is wrong
                models = ()  # an endpoint without a list of models
            self._loaded[server] = {model.id for model in models}
            self._next_listing[server] = self._clock.monotonic() + LISTING_INTERVAL
        if self.is_listed(server, card):
            return card.adapter or ""
        self.report_unlisted(server, card)
        return ""

    def report_unlisted(self, server: str, card: Card) -> None:
        """Reports once that an agent answers by its prompt, because the endpoint does not have its adapter."""
        if (server, card.name) not in self._unlisted:
            self._unlisted.add((server, card.name))
            message = f"{card.name} is called on {server} without its adapter: it answers by its prompt"
            self._progress(Progress("adapter", message))

    async def _refresh(self, server: str, card: Card, target: LocalServer) -> Adapter:
        """Returns the adapter with its current files. Raises `FleetError`."""
        cached_adapter = self._cache.get((server, card.digest))
        if cached_adapter is None or cached_adapter.stamps != file_stamps(cached_adapter.files):
            files = adapter_files(find_adapter(card, target))
            # before the files are read, so that a change meanwhile is noticed at the next call
            stamps = file_stamps(files)
            cached_adapter = self._cache[server, card.digest] = _CachedAdapter(
                files, stamps, await asyncio.to_thread(load_adapter_files, card, target, self._model_store)
            )
        return cached_adapter.adapter

    async def _unload(self, server: str, name: str) -> None:
        """Unloads an adapter that no card uses any more."""
        if all(
            cached_adapter.adapter.name != name
            for (server_name, _), cached_adapter in self._cache.items()
            if server_name == server
        ):
            self._loaded.get(server, set()).discard(name)
            # a server that cannot unload it keeps it, which does no harm
            await self._client.unload_adapter(server, name)

    async def _load(self, server: str, adapter: Adapter, target: LocalServer, once: bool) -> RequestError | None:
        models = await self._client.list_models(server, once=once)
        if isinstance(models, RequestError):
            return models
        ids = self._loaded[server] = {model.id for model in models if model.id != target.model}
        if adapter.name in ids:
            return None
        spare = self._spare_slots(server)
        if spare and len(ids) + spare >= target.max_loras:
            reason = f"{server} holds {len(ids)} adapters of other commands, and on the CPU its last slot stays free"
            return RequestError.not_reached(
                "F219", reason, "orchestra fleet stop, or raise `max_loras` in the fleet file"
            )
        if (fault := await self._client.load_adapter(server, adapter.name, str(adapter.folder))) is None:
            # if the server has restarted meanwhile, all adapters are loaded again
            self._loaded.get(server, set()).add(adapter.name)
        return fault

    def forget(self, server: str) -> None:
        """Forgets the adapters of a server that restarted or does not know an adapter.

        They are loaded again on demand.
        """
        self._loaded.pop(server, None)
        self._next_listing.pop(server, None)
