"""Weights of the packaged agents are found in the second distribution or in the data folder, if of the same build."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from orchestra.core.agent_weights import (
    INDEX_FILE,
    data_folder,
    missing_weights,
    require_weights,
    resolve_agents_folder,
)
from orchestra.core.errors import FleetError

INDEX = {
    "format": "orchestra/agent-weights/v1",
    "cards": "c",
    "files": {"desk/arrays.npz": {"sha256": "a", "bytes": 7}},
}


def agents(folder: Path, index: Mapping[str, object] | None = INDEX) -> Path:
    """A folder of agents with one agent, and an index."""
    (folder / "desk").mkdir(parents=True)
    (folder / "desk" / "agent.yaml").write_text("name: desk")
    if index is not None:
        (folder / INDEX_FILE).write_text(json.dumps(index))
    return folder


def test_agents_folder_without_index_is_that_of_the_checkout(tmp_path: Path) -> None:
    assert resolve_agents_folder(agents(tmp_path / "a", None), {"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "a"


def test_agents_folder_without_weights_is_that_of_the_package(tmp_path: Path) -> None:
    assert resolve_agents_folder(agents(tmp_path / "a"), {"XDG_DATA_HOME": str(tmp_path)}) == tmp_path / "a"


def test_agents_folder_is_second_distribution_of_same_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packaged = agents(tmp_path / "a")
    installed = agents(tmp_path / "site" / "orchestra_slm_agents" / "agents")
    (installed.parent / "__init__.py").write_text("raise AssertionError('it was imported')")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert resolve_agents_folder(packaged, {"HOME": str(tmp_path)}) == installed


def test_agents_folder_ignores_second_distribution_of_other_build(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = agents(tmp_path / "a")
    agents(tmp_path / "site" / "orchestra_slm_agents" / "agents", {**INDEX, "cards": "other"})
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert resolve_agents_folder(packaged, {"HOME": str(tmp_path)}) == packaged


def test_agents_folder_is_data_folder_of_same_build(tmp_path: Path) -> None:
    packaged, environ = agents(tmp_path / "a"), {"XDG_DATA_HOME": str(tmp_path)}
    installed = agents(data_folder((packaged / INDEX_FILE).read_bytes(), environ))
    assert resolve_agents_folder(packaged, environ) == installed


def test_missing_weights_are_files_of_the_index_only(tmp_path: Path) -> None:
    desk = agents(tmp_path / "a") / "desk"
    assert missing_weights(desk) == {"arrays.npz": 7}
    (desk / "arrays.npz").write_bytes(b"1234567")
    assert missing_weights(desk) == {}
    assert missing_weights(agents(tmp_path / "mine", None) / "desk") == {}


def test_required_weights_that_are_missing_name_the_installation(tmp_path: Path) -> None:
    with pytest.raises(FleetError, match="the weights of 'desk' are not installed") as caught:
        require_weights("desk", agents(tmp_path / "a") / "desk")
    assert (caught.value.code, "orchestra agents install" in caught.value.hint) == ("A025", True)
