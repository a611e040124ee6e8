"""Adapters: which folder stands behind a card's adapter, and where it is loaded already."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from orchestra.agents.card import Card
from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.config import FleetConfig, LocalServer
from orchestra.fleet.http.model_server import Client
from orchestra.fleet.request_errors import Fault
from orchestra.fleet.supervisor.folders import is_full
from orchestra.fleet.vllm_cpu import plugin
from orchestra.fleet.weights.adapter_checks import CONFIG, WEIGHTS, check_adapter, check_base
from orchestra.fleet.weights.download import sha256
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.fleet.weights.weights import Pantry
from orchestra.fleet.weights.weights import find as find_weights
from orchestra.schema.strict_json import canonical, digest

Stamp: TypeAlias = tuple[tuple[int, int, int], ...]
"""What changes when one of an adapter's two files is replaced: of each its time, its inode, its size."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """A LoRA that a server can load: the name that requests carry, and its folder. The name holds its digest."""

    name: str
    folder: Path


def find(card: Card, server: LocalServer) -> Path:
    """The folder of a card's adapter: the fleet's of that name, else the one in the card's own folder.

    Raises `FleetError` F212 where there is none.
    """
    assert card.adapter is not None, "only for cards with an adapter"
    if card.adapter in server.adapters:
        return Path(server.adapters[card.adapter])
    own = (card.folder / card.adapter).resolve() if card.folder else None
    if own and card.folder and own.is_relative_to(card.folder.resolve()) and os.path.isdir(own):  # not in a folder that may not be entered
        return own
    hint = f"put it into {card.folder / card.adapter}" if card.folder else "name its folder under `adapters:` of the server"
    raise FleetError("F212", f"the adapter {card.adapter!r} of {card.name!r} is not there", hint=hint)


def read(card: Card, server: LocalServer, pantry: Pantry) -> Adapter:
    """The adapter of a card, its files checked, and kept in the pantry's store.

    Raises `FleetError` F007 (not safe to load), F212 (no adapter, or one that cannot be read or kept), F222 (one that does not fit) or F004
    (disk full).
    """
    store = pantry.folders.adapters
    try:
        return _read(card, server, pantry)
    except OSError as error:
        reason = f"the adapter {card.adapter!r} of {card.name!r} cannot be read, or kept in {store}: {error}"
        if is_full(error):
            raise FleetError("F004", reason, hint="free some space, then try again") from error
        raise FleetError("F212", reason, hint=f"look at the rights of {store}") from error


def _read(card: Card, server: LocalServer, pantry: Pantry) -> Adapter:
    folder = find(card, server)
    for name in (WEIGHTS, CONFIG):
        if not (folder / name).is_file():
            raise FleetError("F212", f"{folder} is no adapter: it has no {name}", hint="save it with peft's `save_pretrained`")
    check_folder(folder)
    check_adapter(folder)
    if (base := find_weights(server.weights, Pantry(pantry.folders))) is not None:  # as the supervisor finds them
        check_base(folder, base)
    mark = mark_of(folder)
    return Adapter(f"{card.adapter}-{mark[:12]}", kept(folder, mark, pantry.folders.adapters))


def mark_of(folder: Path) -> str:
    """The digest of an adapter: of its weights, and of how they are scaled and where they sit."""
    return digest(" ".join(_sums(folder)).encode())


def bond_of(folder: Path) -> str:
    """The digest of the same two files that memos and certificates have kept from the beginning, which another one would void."""
    return digest(canonical(_sums(folder)))


def _sums(folder: Path) -> list[str]:
    return [sha256(Path(file)) for file in files(folder)]


def kept(folder: Path, mark: str, store: Path) -> Path:
    """An adapter's files under its digest, where nobody changes them: servers read them again when its slot was needed meanwhile.

    Raises `OSError` where they cannot be written.
    """
    place = store / mark
    if not (place / WEIGHTS).is_file():
        store.mkdir(parents=True, exist_ok=True)
        partial = Path(tempfile.mkdtemp(prefix=f".{mark[:12]}-", dir=store))
        try:
            for name in (WEIGHTS, CONFIG):
                shutil.copyfile(folder / name, partial / name)
            os.replace(partial, place)
        except OSError:
            shutil.rmtree(partial)
            if not (place / WEIGHTS).is_file():  # else another process was faster
                raise
    return place


def files(folder: Path) -> tuple[str, str]:
    """An adapter's weights, and how they are scaled and where they sit: as strings, for each call asks for their stamp."""
    return str(folder / WEIGHTS), str(folder / CONFIG)


def stamp(files: tuple[str, str]) -> Stamp | None:
    """Of an adapter's two files; None where one of them is not there."""
    try:
        weights, config = os.stat(files[0]), os.stat(files[1])
    except OSError:
        return None
    return (weights.st_mtime_ns, weights.st_ino, weights.st_size), (config.st_mtime_ns, config.st_ino, config.st_size)


def check_slots(config: FleetConfig, cards: Iterable[Card]) -> None:
    """Refuses a fleet with too few slots for the adapters of its cards. Raises `InputError` F102.

    On the CPU one slot stays free where vLLM is not one that `lora_cpu` mends: its kernels there read “no adapter” as the last slot,
    and with all in use the base model would silently answer with an adapter.
    """
    listed = list(cards)
    for name, server in config.local.items():
        own = {c.name for c in listed if c.adapter and c.adapter not in server.adapters and name in config.serving(c.model)}
        wanted = [*server.adapters, *own]
        spare = plugin.spare_slots() if wanted and server.device == "cpu" else 0
        if server.max_loras < len(wanted) + spare:
            raise _too_few(name, server.max_loras, len(wanted), spare)


def _too_few(name: str, slots: int, adapters: int, spare: int) -> InputError:
    has = f"{slots} adapter slot{'' if slots == 1 else 's'} (max_loras: {slots})"
    each = "one for its adapter" if adapters == 1 else f"one for each of its {adapters} adapters"
    message = f"server {name!r} has {has} and needs {adapters + spare}: {each}"
    why = ""
    if spare:
        message += f", and {spare} that must stay empty"
        why = "on CPUs this version of vLLM answers requests without an adapter from the last slot"
        why += ", so an adapter there would answer for the base model"
    return InputError("F102", message, why=why, hint=f"set max_loras: {adapters + spare} under servers.{name} in the fleet file")


@dataclass(frozen=True, slots=True)
class _Known:
    """An adapter that was read, and from where."""

    files: tuple[str, str]
    stamp: Stamp | None
    adapter: Adapter


class Residency:
    """Which adapters are loaded where. A server that restarted has none: its address is new.

    An adapter whose files were replaced, by a promotion, is read anew at the next call and loaded beside the old one, which goes when
    the new one is there; calls under way end with the one that they began with.
    """

    def __init__(self, client: Client, pantry: Pantry, spare_slots: Callable[[str], int]) -> None:
        """`spare_slots` says of a server how many slots must stay free."""
        self._client, self._pantry, self._spare_slots = client, pantry, spare_slots
        self._loaded: dict[str, set[str]] = {}
        self._locks: dict[str, asyncio.Lock] = {}
        self._read: dict[tuple[str, str], _Known] = {}

    def holds(self, server: str, card: Card) -> bool:
        """Whether a card's adapter, where it has one, is known to be loaded on a server."""
        if card.adapter is None:
            return True
        known = self._read.get((server, card.digest))
        return known is not None and known.adapter.name in self._loaded.get(server, ())

    async def ensure(self, server: str, card: Card, servers: Mapping[str, object], *, once: bool = False) -> str | Fault:
        """The model's name for a card's requests to a server, its adapter loaded; empty for the server's own model.

        `once` is for a caller that has another server to ask.
        """
        if card.adapter is None:
            return ""
        target = servers[server]
        if not isinstance(target, LocalServer):
            return card.adapter  # an endpoint has it under that name, or answers that it has not
        known = self._read.get((server, card.digest))
        if known is not None and known.adapter.name in self._loaded.get(server, ()) and known.stamp == stamp(known.files):
            return known.adapter.name
        async with self._locks.setdefault(server, asyncio.Lock()):
            try:
                adapter = await self._current(server, card, target)
            except FleetError as error:
                return Fault.of(error)
            if adapter.name not in self._loaded.get(server, ()) and (fault := await self._load(server, adapter, target, once)) is not None:
                return fault
            if known is not None and known.adapter.name != adapter.name:
                await self._give_up(server, known.adapter.name)
        return adapter.name

    async def _current(self, server: str, card: Card, target: LocalServer) -> Adapter:
        """The adapter as its files are now. Raises `FleetError`."""
        known = self._read.get((server, card.digest))
        if known is None or known.stamp != stamp(known.files):
            found = files(find(card, target))
            mark = stamp(found)  # before the files are read: a change meanwhile is seen at the next call
            known = self._read[server, card.digest] = _Known(found, mark, await asyncio.to_thread(read, card, target, self._pantry))
        return known.adapter

    async def _give_up(self, server: str, name: str) -> None:
        """Unloads an adapter that no card has any more."""
        if all(known.adapter.name != name for (where, _), known in self._read.items() if where == server):
            self._loaded.get(server, set()).discard(name)
            await self._client.unload_adapter(server, name)  # a server that cannot keeps it: it does no harm there

    async def _load(self, server: str, adapter: Adapter, target: LocalServer, once: bool) -> Fault | None:
        listed = await self._client.adapters(server, once=once)
        if isinstance(listed, Fault):
            return listed
        self._loaded[server] = set(listed)
        if adapter.name in listed:
            return None
        spare = self._spare_slots(server)
        if spare and len(listed) + spare >= target.max_loras:
            reason = f"{server} holds {len(listed)} adapters of other commands, and on the CPU its last slot stays free"
            return Fault.unseen("F219", reason, "orchestra fleet stop, or raise `max_loras` in the fleet file")
        if (fault := await self._client.load_adapter(server, adapter.name, str(adapter.folder))) is None:
            self._loaded.get(server, set()).add(adapter.name)  # it may have moved meanwhile: then all are loaded anew
        return fault

    def forget(self, server: str) -> None:
        """A server restarted, or says that it does not know an adapter: all are loaded again when they are needed."""
        self._loaded.pop(server, None)
