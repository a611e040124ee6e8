"""The wheel: built from the sdist, installed with core dependencies only, and run from another folder."""

from __future__ import annotations

import configparser
import json
import os
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents.registry import Registry
from orchestra.core.agent_weights import INDEX_FILE
from orchestra.fleet.config import SplitSource
from orchestra.fleet.vllm_cpu import plugin
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS
from tests.packaging.conftest import ROOT, run

CHECKOUT = {name: contract.digest for name, contract in Registry.load([ROOT / "agents"]).agents.items()}
"""The digests of the agents of the checkout, by name."""
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel of the second distribution."""
    folder = tmp_path_factory.mktemp("weights")
    source = ROOT / "distributions" / "agents"
    run(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source)
    return next(folder.glob("*.whl"))


def source_files(kind: str) -> set[str]:
    """The files of a folder of the checkout that are packaged."""
    return {
        str(path.relative_to(ROOT))
        for path in (ROOT / kind).rglob("*")
        if path.is_file() and not path.name.startswith(".") and "data" not in path.relative_to(ROOT).parts
    }


def is_weights(path: Path) -> bool:
    return path.suffix in (".npz", ".safetensors") or path.name == "learnt_from.json"


def test_the_wheel_holds_the_library_and_its_data(built: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(built[1]).namelist())
    assert {"orchestra/__init__.py", "orchestra/py.typed", "orchestra/core/error_texts/language.toml"} <= names
    for kind in ("agents", "workflows", "configs"):
        source = {name for name in source_files(kind) if not is_weights(ROOT / name)}
        assert source
        assert {f"orchestra/_builtin/{name}" for name in source} <= names
    assert {"orchestra/_builtin/documents/LICENSE", "orchestra/_builtin/documents/questions.json"} <= names


def test_wheel_has_at_most_three_megabytes_and_no_weights(built: tuple[Path, Path]) -> None:
    assert built[1].stat().st_size <= 3_000_000
    assert built[0].stat().st_size <= 3_000_000
    assert [name for name in zipfile.ZipFile(built[1]).namelist() if is_weights(Path(name))] == []


def test_second_wheel_holds_all_agents_and_no_code(weights: Path) -> None:
    names = zipfile.ZipFile(weights).namelist()
    assert {f"orchestra_slm_agents/{name}" for name in source_files("agents")} <= set(names)
    assert [name for name in names if Path(name).suffix in (".py", ".so") or name.endswith("entry_points.txt")] == []


def test_both_wheels_have_one_version_and_one_index(built: tuple[Path, Path], weights: Path) -> None:
    version = built[1].name.split("-")[1]
    assert weights.name.split("-")[1] == version
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert f"orchestra-slm-agents=={version}" in project["optional-dependencies"]["agents"]
    index = zipfile.ZipFile(built[1]).read(f"orchestra/_builtin/agents/{INDEX_FILE}")
    assert index == zipfile.ZipFile(weights).read(f"orchestra_slm_agents/agents/{INDEX_FILE}")
    listed = {f"agents/{name}" for name in json.loads(index)["files"]}
    assert listed == {name for name in source_files("agents") if is_weights(ROOT / name)}


def test_the_wheel_tells_vllm_of_its_plugin(built: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(built[1]) as archive:
        (name,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
        told = configparser.ConfigParser()
        told.read_string(archive.read(name).decode())
    assert dict(told[plugin.ENTRY_POINT_GROUP]) == {plugin.PLUGIN_NAME: "orchestra.fleet.vllm_cpu.plugin:register"}


def test_the_wheel_holds_nothing_else(built: tuple[Path, Path]) -> None:
    tops = {name.partition("/")[0] for name in zipfile.ZipFile(built[1]).namelist()}
    assert {top for top in tops if not re.fullmatch(r"orchestra|orchestra_slm-[\d.]+\.dist-info", top)} == set()


def test_distributions_without_builders_of_training_data(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        sources = archive.getnames()
    assert [name for name in sources if re.match(r"[^/]+/agents/\w+/(data\b|.*\.py$)", name)] == []
    packed = zipfile.ZipFile(built[1]).namelist()
    assert [name for name in packed if re.match(r"orchestra/_builtin/agents/\w+/(data\b|.*\.py$)", name)] == []


def test_the_sdist_holds_what_the_wheel_is_built_from_and_the_licence(built: tuple[Path, Path]) -> None:
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {
        "LICENSE",
        "README.md",
        "pyproject.toml",
        "orchestra/py.typed",
        "workflows/answer_from_documents.yaml",
    } <= names


def test_the_installed_command_says_its_version(
    installed: tuple[Path, dict[str, str]], built: tuple[Path, Path]
) -> None:
    folder, environment = installed
    version = built[1].name.split("-")[1]
    assert run(folder / "orchestra", "--version", cwd=Path("/"), env=environment).stdout.split() == [
        "orchestra",
        version,
    ]


def test_a_packaged_workflow_is_valid_from_any_folder(installed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installed
    validated = run(folder / "orchestra", "validate", "answer_from_documents", cwd=Path("/"), env=environment)
    assert validated.stdout.startswith("ok  answer_from_documents: ")


def test_an_installed_user_can_have_a_code_explained(installed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installed
    assert "L001" in run(folder / "orchestra", "explain", "L001", cwd=Path("/"), env=environment).stdout


def listed_agents(folder: Path, environment: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The agents that an installation lists, by name."""
    said = run(folder / "orchestra", "agents", "list", "--json", cwd=Path("/"), env=environment)
    return {agent["name"]: agent for agent in json.loads(said.stdout)}


def test_plain_installation_has_all_agents_with_digests_of_checkout(installed: tuple[Path, dict[str, str]]) -> None:
    found = listed_agents(*installed)
    assert {name: agent["digest"] for name, agent in found.items()} == CHECKOUT
    assert found["generative_reader"]["missing_bytes"] >= 9_000_000
    assert found["reader"]["missing_bytes"] > found["extractive_reader"]["missing_bytes"]


def test_plain_installation_answers_nothing_without_weights(installed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installed
    said = subprocess.run(
        [folder / "orchestra", "run", "difficulty", "-i", "question=Why?"],
        cwd="/",
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    assert said.returncode != 0
    assert "the weights of 'difficulty' are not installed" in said.stdout + said.stderr
    assert "orchestra agents install" in said.stdout + said.stderr


def agents_finding(folder: Path, environment: dict[str, str]) -> dict[str, str]:
    """What `orchestra doctor` reports of the packaged agents; other findings may be problems here."""
    said = subprocess.run(
        [folder / "orchestra", "doctor", "--json"],
        cwd="/",
        env={**environment, "PATH": os.environ["PATH"]},
        capture_output=True,
        text=True,
        check=False,
    )
    (finding,) = [each for each in json.loads(said.stdout)["findings"] if each["subject"] == "agents"]
    return dict(finding)


def test_doctor_reports_weights_that_are_not_installed(installed: tuple[Path, dict[str, str]]) -> None:
    assert "not installed" in agents_finding(*installed)["message"]


def test_plain_installation_searches_documents(installed: tuple[Path, dict[str, str]]) -> None:
    program = (
        "from orchestra.schema.builtin_models import Document; from orchestra.tools.search import search; "
        "print(search('word', [Document(source='a', text='a word')]))"
    )
    assert "a word" in run(installed[0] / "python", "-c", program, cwd=Path("/"), env=installed[1]).stdout


def test_installed_weights_keep_digests_of_checkout(
    installed: tuple[Path, dict[str, str]], weights: Path, tmp_path: Path
) -> None:
    folder, environment = installed
    data = {**environment, "XDG_DATA_HOME": str(tmp_path)}
    run(folder / "orchestra", "agents", "install", "--from", weights, cwd=Path("/"), env=data)
    assert_complete(listed_agents(folder, data), str(tmp_path))
    assert str(tmp_path) in agents_finding(folder, data)["message"]
    run(folder / "python", "-m", "pip", "install", "--quiet", "--no-input", "--no-deps", weights)
    try:
        assert_complete(listed_agents(folder, environment), "orchestra_slm_agents")
        answer = run(folder / "orchestra", "run", "difficulty", "-i", "question=Why?", cwd=Path("/"), env=environment)
        assert "done" in answer.stdout + answer.stderr
    finally:
        run(folder / "python", "-m", "pip", "uninstall", "--quiet", "--yes", "orchestra-slm-agents")


def assert_complete(agents: dict[str, dict[str, Any]], place: str) -> None:
    """Asserts that all agents have their weights, and are those of the checkout."""
    assert {name: agent["digest"] for name, agent in agents.items()} == CHECKOUT
    assert all(place in agent["folder"] for agent in agents.values())
    (mpnet,) = KNOWN_ENCODERS["mpnet"].sources
    assert isinstance(mpnet, SplitSource)
    encoders = {
        "extractive_reader": mpnet.download_bytes,
        "difficulty": 0,
        "generative_reader": 0,
    }
    assert {name: agents[name]["missing_bytes"] for name in encoders} == encoders


def test_the_core_brings_no_model_library(installed: tuple[Path, dict[str, str]]) -> None:
    listed = run(installed[0] / "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    assert re.findall(r"^(torch|vllm.*|transformers|ray|scipy|scikit-learn)==", listed, re.MULTILINE) == []
