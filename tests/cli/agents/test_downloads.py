"""What an agent needs is listed before it is downloaded, and nothing is downloaded for a plan on an endpoint."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestra.core.agent_weights import INDEX_FILE
from orchestra.core.resources import builtin_folder
from orchestra.fleet.config import SplitSource
from orchestra.fleet.weights import encoders
from tests.cli.shell import Shell

CARD = "name: desk\nkind: sklearn\ninput: {text: str}\noutput: {label: str}\n"


@pytest.fixture
def without_weights(shell: Shell) -> None:
    """An agent of a project whose index lists weights that are not there, as in a plain installation."""
    folder = Path("agents/desk")
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(CARD)
    model = {"format": "orchestra/linear/v1", "arrays": "weights.npz", "sha256": "0" * 64}
    (folder / "model.json").write_text(json.dumps(model))
    index = {"desk/weights.npz": {"sha256": "a", "bytes": 7_000_000}}
    Path("agents", INDEX_FILE).write_text(json.dumps({"format": "1", "cards": "c", "files": index}))


@pytest.mark.usefixtures("without_weights")
def test_list_shows_weights_that_are_not_installed(shell: Shell) -> None:
    listed = {agent["name"]: agent["missing_bytes"] for agent in shell("agents", "list", "--json").json}
    assert listed["desk"] == 7_000_000
    assert listed["generative_reader"] == 0
    said = shell("agents", "list")
    assert "not installed (7 MB)" in said.out
    assert "orchestra agents install" in said.err


def test_list_shows_encoders_that_are_not_installed(shell: Shell) -> None:
    listed = {agent["name"]: agent["missing_bytes"] for agent in shell("agents", "list", "--json").json}
    (mpnet,) = encoders.KNOWN_ENCODERS["mpnet"].sources
    assert isinstance(mpnet, SplitSource)
    assert listed["extractive_reader"] == mpnet.download_bytes
    assert listed["reader"] == listed["extractive_reader"]
    said = shell("agents", "list")
    assert "not installed (405 MB)" in said.out
    assert "orchestra agents install" not in said.err


@pytest.mark.usefixtures("without_weights")
def test_run_of_agent_without_weights_names_the_installation(shell: Shell) -> None:
    said = shell("run", "desk", "-i", "text=a")
    assert said.code == 1
    assert "the weights of 'desk' are not installed (7 MB)" in said.out + said.err
    assert "orchestra agents install" in said.out + said.err


def test_install_in_checkout_names_the_folder(shell: Shell) -> None:
    said = shell("agents", "install")
    assert (said.code, str(builtin_folder("agents")) in said.out.replace("\n", "")) == (0, True)


@pytest.mark.usefixtures("without_weights")
def test_run_without_weights_fetches_no_encoder(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    Path("agents/desk/agent.yaml").write_text(CARD.replace("sklearn", "encoder\nmodel: mpnet"))
    said = shell("run", "desk", "-i", "text=a")
    assert "the weights of 'desk' are not installed" in said.out + said.err
    assert "mpnet" not in said.err
