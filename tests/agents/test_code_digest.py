"""Tests digests of code: equal for equivalent functions, different if the function or its dependencies change."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType

import pytest

from orchestra.agents.code_digest import code_digest

SOURCE = '''
import math
import beside
from orchestra import tool

RATE = 2
NAMES = frozenset({"a", "b", "c"})

def helper(number, more=1):
    return number * RATE + more

class Counter:
    def count(self, items):
        return len(items)

@tool(effect="pure")
def inner(number: int) -> int:
    """A tool."""
    return number + 10

def outer(number: int) -> int:
    """Says what it is."""
    found = [helper(one) for one in range(number) if one in {1, 2, 3}]
    return sum(found) + Counter().count(NAMES) + beside.other(3) + math.floor(1.5) + inner.function(1)
'''
BESIDE = "def other(number):\n    return number - 1\n"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "beside", raising=False)
    return tmp_path


def made(folder: Path, source: str = SOURCE, beside: str = BESIDE) -> str:
    """Returns the digest of `outer` in a module with this source."""
    for name, text in (("beside", beside), ("main", source)):
        module = ModuleType(name)
        module.__file__ = str(folder / f"{name}.py")
        sys.modules["beside" if name == "beside" else "main_of_code"] = module
        exec(compile(text, module.__file__, "exec"), vars(module))
    del sys.modules["main_of_code"]
    return code_digest(module.outer)


def test_code_digest_of_equivalent_code_is_equal(folder: Path) -> None:
    before = made(folder)
    assert before
    assert made(folder) == before
    assert made(folder, "# a comment\n\n" + SOURCE.replace("    return sum", "\n    # so\n    return sum")) == before
    assert made(folder, SOURCE + "\ndef another():\n    return 3\n") == before


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("sum(found)", "2 * sum(found)"),
        ("{1, 2, 3}", "{1, 2, 4}"),
        ("number * RATE", "number + RATE"),
        ("more=1", "more=2"),
        ("RATE = 2", "RATE = 3"),
        ('"c"}', '"d"}'),
        ("len(items)", "len(items) + 1"),
        ("number + 10", "number + 11"),
    ],
)
def test_code_digest_of_different_code_differs(folder: Path, old: str, new: str) -> None:
    assert old in SOURCE
    assert made(folder, SOURCE.replace(old, new)) != made(folder)


def test_code_digest_includes_modules_of_the_folder(folder: Path) -> None:
    assert made(folder, beside=BESIDE.replace("- 1", "- 2")) != made(folder)


def test_code_digest_handles_mutual_calls_and_native_code() -> None:
    def ping(number: int) -> int:
        return pong(number - 1) if number else 0

    def pong(number: int) -> int:
        return ping(number - 1) if number else 1

    assert code_digest(ping) not in ("", code_digest(pong))
    assert code_digest(len) == ""


def test_code_digest_calls_no_method_of_proxies(folder: Path) -> None:
    source = """
class Proxy:
    def __getattr__(self, name):
        raise RuntimeError("not bound")
    @property
    def __class__(self):
        raise RuntimeError("not bound")

LAZY, TREE, LARGE = Proxy(), {}, dict.fromkeys(range(400_000), 1)
TREE["root"] = TREE

def outer(text: str) -> str:
    return f"{text}{LAZY}{TREE}{LARGE}"
"""
    assert made(folder, source) == made(folder, source)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("class Rates:\n    VAT = 1", "class Rates:\n    VAT = 2"),
        (
            "class Rates:\n    @staticmethod\n    def VAT(): return 1",
            "class Rates:\n    @staticmethod\n    def VAT(): return 2",
        ),
        ("class Base:\n    VAT = 1\nclass Rates(Base): ...", "class Base:\n    VAT = 2\nclass Rates(Base): ..."),
        ("import enum\nclass Rates(enum.Enum):\n    VAT = 1", "import enum\nclass Rates(enum.Enum):\n    VAT = 2"),
        ("import re\nRates = re.compile('1')", "import re\nRates = re.compile('2')"),
        ("from decimal import Decimal\nRates = Decimal(1)", "from decimal import Decimal\nRates = Decimal(2)"),
        ("Rates = {'VAT': 1}", "Rates = {'VAT': 2}"),
    ],
)
def test_code_digest_changes_with_constants_and_classes(folder: Path, before: str, after: str) -> None:
    outer = "\n\ndef outer(text: str) -> str:\n    return f'{text}{Rates}'\n"
    assert made(folder, before + outer) != made(folder, after + outer)


def test_code_digest_includes_module_functions_it_uses(folder: Path) -> None:
    source = """
import beside

def inner():
    return beside.one()

def outer(text: str) -> str:
    return f"{text}{inner()}{beside.two()}"
"""
    before, after = (f"def one(): return 1\ndef two(): return {number}" for number in (1, 2))
    assert made(folder, source, before) != made(folder, source, after)


@pytest.mark.parametrize(("place", "noticed"), [("beside.py", True), (".venv/lib/site-packages/beside.py", False)])
def test_code_digest_excludes_library_installed_in_folder(folder: Path, place: str, noticed: bool) -> None:
    def told(source: str) -> str:
        beside, main = ModuleType("beside"), ModuleType("main")
        beside.__file__, main.__file__ = str(folder / place), str(folder / "main.py")
        exec(compile(source, beside.__file__, "exec"), vars(beside))
        vars(main)["beside"] = beside
        exec(compile("def outer(text: str) -> str:\n    return beside.one()", main.__file__, "exec"), vars(main))
        return code_digest(main.outer)

    assert (told("def one(): return 1") != told("def one(): return 2")) is noticed
