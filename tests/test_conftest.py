"""Tests of the settings of all tests."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

FLOATS = """
from hypothesis import given, strategies as st

{imports}

@given(st.floats(), st.integers(), st.text())
def test_floats(one, two, three):
    print(repr((one, two, three)))
"""


def examples(folder: Path, imports: str, **variables: str) -> str:
    """Returns the examples of a property test that runs beside the given imports."""
    (folder / "test_floats.py").write_text(FLOATS.format(imports=imports), encoding="utf-8")
    (folder / "constants.py").write_text("A, B, C = 271.828, 123457, 'constant'\n" * 40, encoding="utf-8")
    ours = ("CI", "ORCHESTRA_TEST", "PYTEST")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    command = [sys.executable, "-m", "pytest", "-q", "-s", "-p", "tests.conftest", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*command, "--rootdir", str(folder), str(folder / "test_floats.py")],
        cwd=Path(__file__).parents[1],
        env=environment | {"PYTHONPATH": str(folder)} | variables,
        capture_output=True,
        text=True,
        check=True,
    )
    return "\n".join(line for line in done.stdout.splitlines() if line.startswith("("))


@pytest.mark.parametrize("mode", ["ci", "nightly"])
def test_ci_examples_do_not_depend_on_imports(tmp_path: Path, mode: str) -> None:
    variables = {"CI": "true"} | ({"ORCHESTRA_TEST_RANDOM": "1"} if mode == "nightly" else {})
    alone = examples(tmp_path, "", **variables)
    assert len(alone.splitlines()) >= 50
    assert (examples(tmp_path, "import constants", **variables) == alone) is (mode == "ci")
