"""The sessions of the pages: their commands are typed in one folder, and print what the page shows but for ids, times and sizes."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, Block, blocks

PAGE = ROOT / "docs" / "runs.md"
VARIES = (
    (r"\b0[0-9a-z]{19}\b", "RUN"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "MOMENT"),
    (r"(?m)^\d\d:\d\d:\d\d", "TIME"),
    (r"[\d.]+ s\b", "SECONDS"),
    (r"\d+ events", "N events"),
    (r"[\d.]+ (bytes|kB|MB) freed", "SIZE freed"),
    (r"[ ]+", " "),
    (r"(?m) $", ""),
)
"""What is another each time: by pattern, what stands for it. Spaces of tables follow from the widths of the others."""


def steady(text: str) -> str:
    """A text without what varies."""
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return text.strip()


def typed(block: Block) -> list[tuple[str, str]]:
    """The commands of a session, each with what it prints."""
    parts = re.split(r"(?m)^\$ (.*)\n", block.text)[1:]
    return list(zip(parts[::2], parts[1::2], strict=True))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project with the page's workflow and a document."""
    workflow = next(block for block in blocks(PAGE) if block.mark == "workflow")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "publish.yaml").write_text(workflow.text, "utf-8")
    (tmp_path / "orchestra.toml").write_text("")
    (tmp_path / "tower.txt").write_text("The tower was built in 1889.\n")
    return tmp_path


def test_the_sessions_of_the_page_print_what_it_shows(folder: Path) -> None:
    homes = {name: str(folder / "home") for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")}
    environment = {**os.environ, **homes, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shell = f'orchestra() {{ "{sys.executable}" -m orchestra.cli "$@"; }}\n'
    shown, printed = [], []
    for block in blocks(PAGE):
        for command, output in typed(block) if block.mark == "session" else ():
            script = ["bash", "-c", shell + command]
            done = subprocess.run(
                script, cwd=folder, env=environment, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
            )
            shown.append((command, steady(output)))
            printed.append((command, steady(done.stdout.decode())))
    assert printed == shown
