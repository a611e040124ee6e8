"""The examples of the documentation behave as documented."""

from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from orchestra.fleet import config as fleet
from tests.docs.blocks import Block, followers, following, marked

pytestmark = pytest.mark.slow


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
    assert (done.returncode, done.stderr.replace(f"{tmp_path}/", "").strip()) == (2, printed.text.strip())


@pytest.mark.parametrize("block", marked("fleet"), ids=str)
def test_a_fleet_of_the_pages_is_read(block: Block) -> None:
    assert fleet.parse_config(block.text, str(block)).servers


@pytest.mark.parametrize("block", marked("agent"), ids=str)
def test_an_agent_of_the_pages_is_valid(block: Block, tmp_path: Path) -> None:
    folder = tmp_path / "agents" / "judge"
    folder.mkdir(parents=True)
    (folder / "agent.yaml").write_text(block.text, "utf-8")
    names = yaml.safe_load(block.text)["input"]
    (folder / "prompt.md").write_text("\n".join(f"{name}: {{{{ {name} }}}}" for name in names), "utf-8")
    done = orchestra("validate", "agents/judge", cwd=tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr


def python(block: Block, folder: Path) -> subprocess.CompletedProcess[str]:
    """Runs a block, which is a whole program, in a fresh interpreter and a folder that is no project."""
    program = folder / "example.py"
    program.write_text(block.text, "utf-8")
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_RUNTIME_DIR")}
    command = [sys.executable, "-W", "error", str(program)]
    return subprocess.run(command, cwd=folder, env={**os.environ, **homes}, capture_output=True, text=True, check=False)


@pytest.mark.parametrize("block", marked("python"), ids=str)
def test_python_of_the_pages_runs_and_prints_what_they_show(block: Block, tmp_path: Path) -> None:
    done = python(block, tmp_path)
    after = following(block)
    shown = after.text if after and after.language == "text" else ""
    assert (done.returncode, done.stdout.strip()) == (0, shown.strip()), done.stdout + done.stderr


@pytest.mark.parametrize(
    "block", [block for block in marked("python") if "def answer_from_documents" in block.text], ids=str
)
def test_the_python_form_of_the_packaged_workflow_gives_its_graph(block: Block, tmp_path: Path) -> None:
    compare = """
import asyncio
from orchestra import Orchestra

async def same() -> None:
    async with Orchestra.open(fleet="none") as orchestra:
        print(orchestra.find("answer_from_documents").graph == answer_from_documents.graph)

asyncio.run(same())
"""
    done = python(dataclasses.replace(block, text=block.text + compare), tmp_path)
    assert done.stdout.strip() == "True", done.stdout + done.stderr
