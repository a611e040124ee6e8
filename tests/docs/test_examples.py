"""The examples of the documentation do what the pages say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.fleet import config as fleet
from tests.docs.blocks import Block, followers, marked


def orchestra(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """The command, in a folder that is no project."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("ORCHESTRA_")} | {
        "NO_COLOR": "1",
        "COLUMNS": "140",
    }
    command = [sys.executable, "-m", "orchestra.cli", *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", marked("workflow"), ids=str)
def test_a_workflow_of_the_pages_is_valid(block: Block, tmp_path: Path) -> None:
    (tmp_path / "workflow.yaml").write_text(block.text, "utf-8")
    done = orchestra("validate", "workflow.yaml", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("block", "printed"), followers("error"), ids=str)
def test_an_error_of_the_pages_is_what_the_command_prints(block: Block, printed: Block, tmp_path: Path) -> None:
    (tmp_path / "misspelt.yaml").write_text(block.text, "utf-8")
    done = orchestra("validate", "misspelt.yaml", cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (2, printed.text.strip())


@pytest.mark.parametrize("block", marked("fleet"), ids=str)
def test_a_fleet_of_the_pages_is_read(block: Block) -> None:
    assert fleet.parse(block.text, str(block)).servers


@pytest.mark.parametrize("block", marked("python"), ids=str)
def test_python_of_the_pages_runs(block: Block, tmp_path: Path) -> None:
    """Each marked block is a whole program, in a fresh interpreter."""
    program = tmp_path / "example.py"
    program.write_text(block.text, "utf-8")
    done = subprocess.run([sys.executable, "-W", "error", str(program)], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(("block", "printed"), [pair for pair in followers("python") if pair[1].language == "text"], ids=str)
def test_python_of_the_pages_prints_what_they_show(block: Block, printed: Block, tmp_path: Path) -> None:
    program = tmp_path / "example.py"
    program.write_text(block.text, "utf-8")
    done = subprocess.run([sys.executable, str(program)], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed.text.strip()
