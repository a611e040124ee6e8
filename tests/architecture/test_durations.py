"""No test asserts a duration, because seconds depend on the machine. Tests assert ratios
(`tests/unsafe_reference.py`) and counts.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FILES = sorted([*(ROOT / "tests").rglob("*.py"), *(ROOT / "orchestra" / "testing").rglob("*.py")])
CLOCKS = {
    f"{name}{unit}" for name in ("monotonic", "perf_counter", "process_time", "thread_time") for unit in ("", "_ns")
}
HANG = 30.0
"""The minimum in seconds of a limit that ends a hanging test."""
STRICT = {"communicate", "run", "check_output"}
"""Functions of `subprocess` that wait, with a `timeout`."""


def reads_clock(node: ast.AST) -> bool:
    """True if an expression reads the machine's clock; `clock.monotonic()` belongs to a test."""
    for call in ast.walk(node):
        if isinstance(call, ast.Call):
            match call.func:
                case ast.Attribute(value=ast.Name("time"), attr=name) if name in CLOCKS:
                    return True
                case ast.Name(name) if name in CLOCKS:
                    return True
    return False


def names(function: ast.AST) -> set[str]:
    """The names of a function that are differences of two readings of the machine's clock."""
    assigned = [
        node for node in ast.walk(function) if isinstance(node, ast.Assign) and isinstance(node.value, ast.BinOp)
    ]
    return {
        target.id
        for node in assigned
        if reads_clock(node.value)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def is_limit(node: ast.AST, measured: set[str]) -> bool:
    """True if an expression only compares a duration with a number."""
    if not isinstance(node, ast.Compare):
        return False
    parts = list(ast.walk(node))
    numbers = any(isinstance(one, ast.Constant) and isinstance(one.value, int | float) for one in parts)
    return numbers and (reads_clock(node) or any(isinstance(one, ast.Name) and one.id in measured for one in parts))


def limits(call: ast.Call) -> Iterator[float]:
    """The limit of a waiting call: of a process, or of `asyncio.wait_for`."""
    if not isinstance(call.func, ast.Attribute):
        return
    given = [keyword.value for keyword in call.keywords if keyword.arg == "timeout"] if call.func.attr in STRICT else []
    if call.func.attr == "wait_for":
        given = [*call.args[1:2], *(keyword.value for keyword in call.keywords if keyword.arg == "timeout")]
    for one in given:
        if isinstance(one, ast.Constant) and isinstance(one.value, int | float):
            yield float(one.value)


def faults(source: str) -> list[str]:
    """The forbidden assertions on durations in a source text, by line."""
    tree, found = ast.parse(source), set[str]()
    for part in (tree, *(node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))):
        measured = names(part) if part is not tree else set[str]()
        for node in ast.walk(part):
            if isinstance(node, ast.Assert) and any(is_limit(one, measured) for one in ast.walk(node.test)):
                found.add(f"{node.lineno}: asserts seconds of the machine's clock")
            elif isinstance(node, ast.Call):
                found |= {
                    f"{node.lineno}: {limit:g} s are too few to tell a hang" for limit in limits(node) if limit < HANG
                }
    return sorted(found)


@pytest.mark.parametrize(
    ("source", "count"),
    [
        ("assert time.process_time() - began < 2", 1),
        ("assert perf_counter() - began <= 0.2, 'slow'", 1),
        ("assert first and not (time.monotonic() - began > 5)", 1),
        ("def test():\n  took = time.monotonic() - began\n  assert took < 2", 1),
        ("def test():\n  took = clock.monotonic() - began\n  assert took < 2", 0),
        ("assert clock.monotonic() - began < 5", 0),
        ("assert time.monotonic() < deadline", 0),
        ("assert first < 3 * second", 0),
        ("await asyncio.wait_for(done.wait(), 1)", 1),
        ("await asyncio.wait_for(done.wait(), timeout=1.5)", 1),
        ("await asyncio.wait_for(done.wait(), 60)", 0),
        ("process.communicate(timeout=20)", 1),
        ("subprocess.run(command, timeout=600)", 0),
    ],
)
def test_assertions_of_durations_are_found(source: str, count: int) -> None:
    assert len(faults(source)) == count


def test_no_test_asserts_a_duration() -> None:
    assert [f"{path.relative_to(ROOT)}:{fault}" for path in FILES for fault in faults(path.read_text())] == []
