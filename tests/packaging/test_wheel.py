"""The wheel: built from the sdist, installed with core dependencies only, and run from another folder."""

from __future__ import annotations

import configparser
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from orchestra.fleet.vllm_cpu import plugin

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.slow


def run(*command: str | Path, cwd: Path = ROOT, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command without environment variables that could hide missing parts."""
    clean = {
        key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "ORCHESTRA_", "VIRTUAL_ENV"))
    }
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env={**clean, **(env or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return next(folder.glob("*.tar.gz")), next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, str]]:
    """The `bin` folder of a new environment with only the wheel, and the variables of a user without settings."""
    home = tmp_path_factory.mktemp("home")
    folder = home / "venv"
    run(sys.executable, "-m", "venv", folder)
    pins = home / "pins.txt"
    pins.write_text(
        "\n".join(re.findall(r"^[\w.-]+==\S+", (ROOT / "requirements" / "base.lock").read_text("utf-8"), re.MULTILINE))
    )
    run(folder / "bin" / "python", "-m", "pip", "install", "--quiet", "--no-input", "-c", pins, built[1])
    return folder / "bin", {"HOME": str(home), "XDG_CONFIG_HOME": "", "XDG_STATE_HOME": "", "XDG_CACHE_HOME": ""}


def test_the_wheel_holds_the_library_and_its_data(built: tuple[Path, Path]) -> None:
    names = set(zipfile.ZipFile(built[1]).namelist())
    assert {"orchestra/__init__.py", "orchestra/py.typed", "orchestra/core/error_texts/language.toml"} <= names
    for kind in ("agents", "workflows", "configs"):
        source = {
            str(path.relative_to(ROOT))
            for path in (ROOT / kind).rglob("*")
            if path.is_file() and not path.name.startswith(".") and "data" not in path.relative_to(ROOT).parts
        }
        assert source
        assert {f"orchestra/_builtin/{name}" for name in source} <= names


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
    run(folder / "orchestra", "validate", "answer_from_documents", cwd=Path("/"), env=environment)


def test_an_installed_user_can_have_a_code_explained(installed: tuple[Path, dict[str, str]]) -> None:
    folder, environment = installed
    assert "L001" in run(folder / "orchestra", "explain", "L001", cwd=Path("/"), env=environment).stdout


def test_the_core_brings_no_model_library(installed: tuple[Path, dict[str, str]]) -> None:
    listed = run(installed[0] / "python", "-m", "pip", "list", "--format=freeze").stdout.lower()
    assert re.findall(r"^(torch|vllm.*|transformers|ray|numpy|scipy|scikit-learn)==", listed, re.MULTILINE) == []
