"""mypy and pyright, without a plugin, accept what is right and find every planted mistake.

A line of `typing/bad_*.py` ends with `# E: CODE`, which is mypy's, and with ` -` where pyright (basic) does not see the
mistake. There is one such: a comparison with a label that a `Literal` never has; pyright says so in its strict mode
only.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent / "typing"
GOOD = sorted(FOLDER.glob("good_*.py"))
BAD = sorted(FOLDER.glob("bad_*.py"))
_MARK = re.compile(r"# E: (?P<code>[a-z-]+?)(?P<mypy> -)?$")

pytestmark = pytest.mark.slow


def planted(path: Path) -> dict[int, re.Match[str]]:
    """The marked lines of a file."""
    lines = path.read_text("utf-8").splitlines()
    return {number: mark for number, line in enumerate(lines, 1) if (mark := _MARK.search(line))}


@pytest.fixture(scope="module")
def mypy() -> dict[str, set[tuple[int, str]]]:
    """What `mypy --strict` finds: lines and codes, by file."""
    command = [
        sys.executable,
        "-m",
        "mypy",
        "--strict",
        "--follow-imports=silent",
        "--no-error-summary",
        *map(str, (*GOOD, *BAD)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    found: dict[str, set[tuple[int, str]]] = {path.name: set() for path in (*GOOD, *BAD)}
    for name, line, code in re.findall(r"([a-z_]+\.py):(\d+): error: .*\[([a-z-]+)\]$", done.stdout, re.MULTILINE):
        found[name].add((int(line), code))
    return found


@pytest.fixture(scope="module")
def pyright(tmp_path_factory: pytest.TempPathFactory) -> dict[str, set[int]]:
    """The lines in which pyright (basic) finds an error, by file."""
    folder = tmp_path_factory.mktemp("typing")
    shutil.copytree(FOLDER, folder, dirs_exist_ok=True)
    settings = {"include": ["."], "typeCheckingMode": "basic", "pythonVersion": "3.11", "extraPaths": [str(ROOT)]}
    (folder / "pyrightconfig.json").write_text(json.dumps(settings))
    command = [sys.executable, "-m", "pyright", "--pythonpath", sys.executable, "--outputjson"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=folder)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    report = json.loads(done.stdout[done.stdout.index("{") :])
    assert report["summary"]["filesAnalyzed"] == len(GOOD) + len(BAD)
    found: dict[str, set[int]] = {path.name: set() for path in (*GOOD, *BAD)}
    for entry in report["generalDiagnostics"]:
        if entry["severity"] == "error":
            found[Path(entry["file"]).name].add(entry["range"]["start"]["line"] + 1)
    return found


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_mypy_accepts_valid_workflows(path: Path, mypy: dict[str, set[tuple[int, str]]]) -> None:
    assert mypy[path.name] == set()


@pytest.mark.parametrize("path", GOOD, ids=lambda path: path.stem)
def test_pyright_accepts_valid_workflows(path: Path, pyright: dict[str, set[int]]) -> None:
    assert pyright[path.name] == set()


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_mypy_finds_exactly_the_planted_errors(path: Path, mypy: dict[str, set[tuple[int, str]]]) -> None:
    assert mypy[path.name] == {(line, mark["code"]) for line, mark in planted(path).items()}


@pytest.mark.parametrize("path", BAD, ids=lambda path: path.stem)
def test_pyright_finds_planted_errors(path: Path, pyright: dict[str, set[int]]) -> None:
    assert pyright[path.name] == {line for line, mark in planted(path).items() if not mark["mypy"]}
