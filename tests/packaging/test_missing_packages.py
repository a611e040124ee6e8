"""Tests that the commands work, or end with a coded error, where the packages of training are not installed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

PACKAGES = ("torch", "transformers", "peft", "safetensors", "sklearn", "scipy", "tokenizers", "pycrfsuite", "vllm")
WITHOUT = f"import sys\nfor name in {PACKAGES}:\n    sys.modules[name] = None  # import and find_spec: not installed\n"
IMPORT_ALL = """
import importlib, pkgutil, orchestra.app, orchestra.cli
for package in (orchestra.app, orchestra.cli):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
"""
RUN = "from orchestra.cli.main import main\nsys.argv = ['orchestra', *sys.argv[1:]]\nmain()\n"


def run_without(code: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs Python code in a process that does not have the packages."""
    command = [sys.executable, "-c", WITHOUT + code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=300)


def test_commands_import_without_training_packages(tmp_path: Path) -> None:
    done = run_without(IMPORT_ALL, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("agent", ["assistant_intent", "table_reader", "extractive_reader"])
def test_training_without_packages_has_coded_error(agent: str, tmp_path: Path) -> None:
    done = run_without(RUN, tmp_path, "learn", "train", agent, "--data", "set")
    assert done.returncode == 2, done.stderr
    assert "N101" in done.stderr
    assert "orchestra-slm[cpu,learn]" in done.stderr
    assert "Traceback" not in done.stderr


def test_calibration_without_packages_has_coded_error(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    done = run_without(RUN, tmp_path, "learn", "calibrate", "entailment", "--data", "set")
    assert done.returncode == 2, done.stderr
    assert "N101" in done.stderr
