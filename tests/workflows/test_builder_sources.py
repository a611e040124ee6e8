"""Tests of the bytecode analysis on every supported Python version that is installed, and of the package's public
names.
"""

from __future__ import annotations

import linecache
import pkgutil
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path
from typing import Any

import pytest

import orchestra
from orchestra import Answer, InputError, workflow
from orchestra.app.project import Project
from orchestra.core.settings import Settings
from orchestra.workflows.python import bytecode
from tests.workflows.ensemble import calculator

PROBE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bytecode", sys.argv[1])
bytecode = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bytecode)
names = []
class Step:
    def __call__(self, *args, **kwargs):
        frame = sys._getframe(1)
        names.append(bytecode.CallBindings(frame.f_code).target_name(frame.f_lasti))
        return self
    def __iter__(self):
        return iter([self, self])
step = Step()
def body(q):
    one = step(a=q)
    two = step(q); three = step(two)
    four, five = step(q), step(q)
    six: int = step(*[q], **{"a": 1})
    seven = eight = step(q)
    if (nine := step(q)): pass
    step(q)
    def inner():
        nonlocal one
        one = step(q)
    inner()
    ten = step(step(q))
    table = {}
    table["key"] = step(q)
    eleven, twelve = step(q)
    lambda: one
    return step(q)
body(1)
thirteen = step(1)
print(*names)
def identity(x):
    return lambda y: y is x
def absence(x):
    if x is None: return 1
def shape(x):
    match x:
        case [a]: return a
def value(x):
    match x:
        case "a": return 1
    return x == None
def one(x):
    with x: pass
    return 2
def several(x):
    if x: return 1
    return 2
def choice(x):
    return (1 if x else
        2)
for function in (identity, absence, shape, value):
    print(",".join(word for *_, word in bytecode.unsupported_tests(function.__code__)) or "-", end=" ")
print()
for code in (one.__code__, several.__code__, choice.__code__):
    offset = bytecode.single_return_offset(code)
    print(offset < 0 or list(code.co_positions())[offset // 2][0] - code.co_firstlineno)
"""
INTERPRETERS = [
    sys.executable,
    *(path for version in ("3.12", "3.13", "3.14") if (path := shutil.which(f"python{version}"))),
]


@pytest.mark.parametrize("interpreter", INTERPRETERS, ids=lambda path: Path(path).name)
def test_bytecode_names_and_tests_found(interpreter: str) -> None:
    command = [interpreter, "-W", "ignore", "-c", PROBE, str(bytecode.__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if interpreter != sys.executable and done.returncode != 0 and not done.stdout:
        pytest.skip(f"{interpreter} does not run")
    assert done.stdout.splitlines() == [
        "one two three None five six seven nine None one None ten None None None thirteen",
        "is is match - ",
        "2",
        "True",
        "1",
    ], done.stderr


RETURNING = """
from orchestra import Answer, agent, answered_by_model, map_, when, workflow

@agent(prompt="{{ question }}")
def calculator(question: str) -> Answer:
    return answered_by_model()

@workflow
def record(question: str) -> dict[str, Answer]:
    made = when(question == "x", calculator(question=question))
    return {"made": made}

@workflow
def shape(question: str) -> dict[str, object]:
    made = calculator(question=question)
    return {"made": made, "more": object()}

@workflow
def element(questions: list[str]) -> list[list[Answer]]:
    def body(question):
        made = when(question == "x", calculator(question=question))
        return [made]
    return map_(body, questions)

@workflow
def several(question: str, deep: bool = False) -> dict[str, object]:
    if callable(calculator):
        return {"made": calculator(question=question), "more": object()}
    return {"made": calculator(question=question)}

@workflow
def value(question: str) -> Answer:
    return calculator(question="x" if question else "y")
"""


@pytest.mark.parametrize("module", ["flows", "orchestra_flows"])
def test_own_frames_are_not_user_frames(module: str) -> None:
    """A workflow may be traced far below its own file: the line that asks for its graph is no place of a mistake."""
    space: dict[str, Any] = {"__name__": module}
    exec(compile(RETURNING, f"{module}.py", "exec"), space)
    linecache.cache[f"{module}.py"] = (len(RETURNING), None, RETURNING.splitlines(keepends=True), f"{module}.py")
    project = Project.load(Settings.load({}))
    for name, code, line in [
        ("record", "W009", 'return {"made": made}'),
        ("shape", "W007", 'return {"made": made, "more": object()}'),
        ("element", "W009", "return [made]"),
        ("several", "W007", "def several(question: str, deep: bool = False) -> dict[str, object]:"),
        ("value", "W005", 'return calculator(question="x" if question else "y")'),
    ]:
        with pytest.raises(InputError) as caught:
            project.register(space[name])
        assert caught.value.location is not None
        assert (caught.value.code, caught.value.location.file, caught.value.location.text.strip()) == (
            code,
            f"{module}.py",
            line,
        )


def test_public_names_differ_from_packages() -> None:
    packages = {module.name for module in pkgutil.iter_modules(orchestra.__path__)}
    assert packages & set(orchestra.__all__) == set()
    assert [name for name in orchestra.__all__ if not hasattr(orchestra, name)] == []


INSTALLED = """
from orchestra import Answer, agent, answered_by_model, workflow
import json

@agent(prompt="{{ question }}")
def calculator(question: str) -> Answer:
    return answered_by_model()

@workflow()
def truth(question: str) -> Answer:
    return calculator(question=question if question == "x" else "y")

@workflow()
def foreign(question: str) -> Answer:
    return calculator(question=json.dumps([question]))
"""


@pytest.mark.parametrize(("name", "code"), [("truth", "W005"), ("foreign", "W014")])
def test_installed_workflow_is_user_code(name: str, code: str) -> None:
    file = f"{sysconfig.get_paths()['purelib']}/flows/installed.py"
    linecache.cache[file] = (len(INSTALLED), None, INSTALLED.splitlines(keepends=True), file)
    space: dict[str, Any] = {"__name__": "flows.installed"}
    exec(compile(INSTALLED, file, "exec"), space)
    with pytest.raises(InputError) as caught:
        assert space[name].graph
    assert caught.value.code == code
    assert caught.value.location is not None
    assert "calculator(question=" in caught.value.location.text


def test_error_in_called_function_located_there() -> None:
    def shared(text: str) -> str:
        return text if text else "none"

    @workflow()
    def flow(question: str) -> Answer:
        return calculator(question=shared(question))

    with pytest.raises(InputError) as caught:
        assert flow.graph
    assert caught.value.location is not None
    assert caught.value.location.text.strip() == 'return text if text else "none"'


def test_star_import_has_all_names() -> None:
    space: dict[str, Any] = {}
    exec("from orchestra import *", space)
    assert {name: space[name] is getattr(orchestra, name) for name in orchestra.__all__} == dict.fromkeys(
        orchestra.__all__, True
    )
