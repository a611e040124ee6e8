"""Each mutant can be applied to the current source, and names an existing test. `make mutants` runs them."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.mutation.mutant import ROOT, Mutant, load, patched
from tests.mutation.run import FAILED, FILES, PASSED, judge, run_tests, unsound

MUTANTS = [pytest.param(mutant, id=f"{file.stem}: {mutant.name}") for file in FILES for mutant in load(file)]


def functions(file: Path) -> set[str]:
    """Returns the names of a file's tests."""
    return {
        node.name
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }


@pytest.mark.parametrize("mutant", MUTANTS)
def test_mutant_changes_source_once_and_has_test(mutant: Mutant) -> None:
    assert patched(mutant) != (ROOT / mutant.file).read_text()
    assert mutant.test
    for test in mutant.test.split():
        file, _, name = test.partition("::")
        assert (ROOT / file).exists(), test
        assert not name or name.partition("[")[0] in functions(ROOT / file), test


def test_mutant_names_are_unique_per_file() -> None:
    names = [param.id for param in MUTANTS]
    assert len(names) == len(set(names)) > 100


MODULE = "def double(number):\n    return 2 * number\n"
TEST = """from module import double


def test_double():
    assert double(3) == 6


def test_zero():
    assert double(0) == 0
"""


def mutant(old: str = "2 * number", new: str = "3 * number", test: str = "test_module.py") -> Mutant:
    return Mutant("another factor", "module.py", old, new, test)


def test_mutant_result_is_caught_survived_or_unjudged(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE)
    (tmp_path / "test_module.py").write_text(TEST)
    assert judge(mutant(), tmp_path).result == "caught"
    assert judge(mutant(test="test_module.py::test_zero"), tmp_path).result == "SURVIVES"
    assert judge(mutant(old="4 * number"), tmp_path).result.startswith("NOT APPLIED")
    assert judge(mutant(test="test_module.py::test_missing"), tmp_path).result.startswith("NOT RUN")
    assert (tmp_path / "module.py").read_text() == MODULE


def test_mutant_failing_baseline_is_reported(tmp_path: Path) -> None:
    (tmp_path / "module.py").write_text(MODULE.replace("2", "3"))
    (tmp_path / "test_module.py").write_text(TEST)
    each = [mutant(test=f"test_module.py::{name}") for name in ("test_double", "test_zero")]
    assert unsound(each, tmp_path) == ["test_module.py::test_double"]
    assert (run_tests(tmp_path, ["test_module.py::test_zero"]), run_tests(tmp_path, ["test_module.py"])) == (
        PASSED,
        FAILED,
    )
