"""The built files of the studio are those of its sources, and need nothing from elsewhere."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.app.html.saved_run import FOLDER

ROOT = Path(__file__).parents[2]


def test_built_page_loads_only_its_own_files() -> None:
    page = (FOLDER / "index.html").read_text("utf-8")
    assert sorted(re.findall(r'(?:src|href)="([^"]+)"', page)) == ["./favicon.svg", "./studio.css", "./studio.js"]
    assert re.findall(r"<script[^>]*>(.*?)</script>", page, re.DOTALL) == [""], "the policy permits no inline script"
    assert not re.search(r"url\(\s*['\"]?(?:https?:)?//|@import", (FOLDER / "studio.css").read_text("utf-8"))


def test_lock_file_names_no_registry() -> None:
    lock = (ROOT / "studio" / "package-lock.json").read_text("utf-8")
    assert '"resolved"' not in lock
    assert '"integrity"' in lock


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not on PATH; only a build of the studio needs Node")
def test_built_files_are_those_of_the_sources() -> None:
    command = [sys.executable, str(ROOT / "scripts" / "build_studio.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
