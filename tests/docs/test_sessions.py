"""The sessions of the pages: their commands are typed in one folder, and print what the page shows but for ids, times
and sizes.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.docs.blocks import ROOT, Block, blocks

pytestmark = pytest.mark.slow

RUNS, CERTIFICATES = ROOT / "docs" / "how-to" / "runs.md", ROOT / "docs" / "concepts" / "certificates.md"
VARIES = (
    (r"\b[0k][0-9a-z]{19}\b", "RUN"),
    (r"--to [0-9a-f]{12}\b", "--to WORD"),
    (r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d:\d\d(\+00:00)?", "MOMENT"),
    (r"(?m)^\d\d:\d\d:\d\d", "TIME"),
    (r"[\d.]+ s\b", "SECONDS"),
    (r"\d+ events", "N events"),
    (r"[\d.]+ (bytes|kB|MB) freed", "SIZE freed"),
    (r"[ ]+", " "),
    (r"(?m) $", ""),
)
"""Patterns of texts that differ between runs, and their replacements. Spaces in tables depend on the widths of such
texts.
"""


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
    """An empty project."""
    (tmp_path / "workflows").mkdir()
    (tmp_path / "orchestra.toml").write_text("")
    return tmp_path


def about_runs(folder: Path) -> None:
    """The page's workflow and a document."""
    workflow = next(block for block in blocks(RUNS) if block.mark == "workflow")
    (folder / "workflows" / "publish.yaml").write_text(workflow.text, "utf-8")
    (folder / "tower.txt").write_text("The tower was built in 1889.\n")


def span(text: str, part: str) -> dict[str, Any]:
    """A part of a text with its place."""
    return {"value": part, "start": text.index(part), "end": text.index(part) + len(part)}


WORDS = ("please", "thank you", "if you have one", "please, thank you", "please, if you have one")
"""So that no two messages are alike."""


def about_certificates(folder: Path) -> None:
    """The page's workflow, messages whose right answers are known, and requests, every fourth of which is unlike
    them.
    """
    workflow = next(block for block in blocks(CERTIFICATES) if block.mark == "session workflow")
    (folder / "workflows" / "table.yaml").write_text(workflow.text, "utf-8")
    rows: list[dict[str, Any]] = []
    for number in range(180):
        people, time = f"{2 + number % 8} people", f"{17 + number % 5}:{number * 15 % 60:02}"
        usual = number < 140 or number % 4
        text = (
            f"A table for {people} at {time}, {WORDS[number // 40]}."
            if usual
            else f"{time} {number} so, {people}? as if it were not so, Ada 7"
        )
        spans = {name: span(text, part) for name, part in (("people", people), ("time", time))}
        rows.append({"id": f"{number}", "input": {"text": text, "requested": []}, "expected": {"slots": spans}})
    asked = [{"id": row["id"], "input": {"text": row["input"]["text"]}} for row in rows[140:]]
    (folder / "guests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[:140]))
    (folder / "requests.jsonl").write_text("".join(json.dumps(row) + "\n" for row in asked))


PAGES = [(RUNS, about_runs), (CERTIFICATES, about_certificates)]


@pytest.mark.parametrize(("page", "furnish"), PAGES, ids=["runs", "certificates"])
def test_the_sessions_of_a_page_print_what_it_shows(page: Path, furnish: Callable[[Path], None], folder: Path) -> None:
    furnish(folder)
    homes = {
        name: str(folder / "home")
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR")
    }
    environment = {**os.environ, **homes, "NO_COLOR": "1", "PYTHONPATH": str(ROOT)}
    shell = f'orchestra() {{ "{sys.executable}" -m orchestra.cli "$@"; }}\n'
    shown, printed = [], []
    for block in blocks(page):
        for command, output in typed(block) if block.mark == "session" else ():
            script = ["bash", "-c", shell + command]
            done = subprocess.run(
                script,
                cwd=folder,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                check=False,
            )
            shown.append((command, steady(output)))
            printed.append((command, steady(done.stdout.decode())))
    assert printed == shown
