"""Runs the commands of `examples/learn_your_own.md` and compares their output, except digests and times."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT, blocks
from tests.docs.test_sessions import typed

pytestmark = pytest.mark.slow

pytest.importorskip("sklearn")
PAGE = ROOT / "examples" / "learn_your_own.md"
VARIES = (
    (r"\b[0-9a-f]{32}\b", "DIGEST"),
    (r"has [0-9a-f]{12} now", "has DIGEST now"),
    (r"\b0[0-9a-z]{19}\b", "RUN"),
    (r"[\d.]+ s\b", "TIME"),
)


def steady(text: str) -> str:
    """Returns a text without digests, times, run names and the spaces of tables, which depend on them."""
    for pattern, word in VARIES:
        text = re.sub(pattern, word, text)
    return re.sub(r"[ \t]+", " ", re.sub(r"(?m)\s+$", "", text)).strip()


def test_learn_your_own_page_commands_match_output(tmp_path: Path) -> None:
    shutil.copytree(ROOT / "examples" / "learn_your_own", tmp_path / "examples" / "learn_your_own")
    home = {
        name: str(tmp_path / "home")
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    }
    environment = {**os.environ, **home, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shell = f'orchestra() {{ "{sys.executable}" -m orchestra.cli "$@"; }}\n'
    folder, shown, printed = tmp_path, [], []
    for block in blocks(PAGE):
        for command, output in typed(block) if block.text.startswith("$ ") else ():
            done = subprocess.run(
                ["bash", "-c", shell + command],
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout}{done.stderr}"
            shown.append((command, steady(output)))
            printed.append(
                (command, steady(done.stdout + (done.stderr if command.startswith("orchestra run ") else "")))
            )
            if "cd my_tickets" in command:
                folder = tmp_path / "my_tickets"
    assert len(shown) >= 6
    assert printed == shown
    assert 'failures="0"' in (folder / "report.xml").read_text("utf-8")
