"""`is` and `match` in functions that a workflow hands placeholders to are refused where they stand; other functions say what they like."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Workflow, map_, or_else, tool, when, workflow
from orchestra.workflow import bytecode


@tool(effect="pure")
def echo(x: str) -> str:
    """The text."""
    return x


def chosen(s: Any, other: Any) -> Any:
    return other if s is None else s


def bound_later(s: Any) -> Any:
    text = or_else(s, "")
    found = echo(x=text)
    if found is None:
        return text
    return found


def shaped(s: Any) -> Any:
    match s:
        case [first, *_]:
            return first
    return s


def identical(s: Any, other: Any) -> Any:
    return s is other.x


def in_parts(parts: Any) -> Any:
    return [part for part in parts if part is not None]


class Chooser:
    """An object that decides."""

    other = "no"

    def __call__(self, s: Any) -> Any:
        return self.pick(s)

    def pick(self, s: Any) -> Any:
        return self.other if s is None else s


def through(s: Any) -> Any:
    return chosen(s, "no")


def around(s: Any) -> Any:
    def inner() -> Any:
        return "no" if s is None else s

    return inner()


LOOKING: dict[str, Callable[[Any], Any]] = {
    "helper": lambda s: chosen(s, "no"),
    "through another": through,
    "made of it": bound_later,
    "match": shaped,
    "identity": lambda s: identical("a", s),
    "in a list": lambda s: in_parts([s, "a"])[0],
    "method": lambda s: Chooser().pick(s),
    "object": lambda s: Chooser()(s),
    "closure": around,
    "partial": lambda s: partial(chosen, other="no")(s),
    "guarded": lambda s: chosen(when(s != "", lambda: echo(x=or_else(s, ""))), "no"),
}


def traced(helper: Callable[[Any], Any]) -> Workflow[..., str]:
    @workflow(name="flow")
    def flow(s: str | None) -> str:
        helper(s)
        return echo(x=or_else(s, ""))

    return flow


@pytest.mark.parametrize("helper", LOOKING.values(), ids=list(LOOKING))
def test_what_looks_past_a_placeholder_is_refused_where_it_stands(helper: Callable[[Any], Any]) -> None:
    with pytest.raises(InputError, match="looks past a placeholder") as caught:
        assert traced(helper).graph
    assert caught.value.code == "W013"
    assert caught.value.place is not None
    assert caught.value.place.file == "tests/workflow/test_watching.py"
    assert any(word in caught.value.place.text for word in (" is ", "case ["))


def test_a_partial_is_a_body_like_any_other() -> None:
    @workflow()
    def flow(texts: list[str]) -> list[str]:
        return map_(partial(_echoed, prefix=None), texts)

    @workflow()
    def past(texts: list[str]) -> list[str]:
        return map_(partial(_looked, other="no"), texts)

    assert flow.graph.nodes
    with pytest.raises(InputError, match="looks past a placeholder"):
        assert past.graph


def _echoed(text: str, prefix: str | None) -> str:
    return echo(x=text if prefix is None else prefix + text)


def _looked(text: str, other: str) -> str:
    return echo(x=other if text is None else text)


SETTINGS: dict[str, str] = {}


def styled(s: Any, style: str | None = None, **more: Any) -> Any:
    """A choice about what is known, beside a placeholder."""
    if style is None:
        style = "short"
    mode = SETTINGS.get("mode")
    size = 1 if mode is None else 2
    return echo(x=or_else(s, style + "x" * size if more.get("y") is None else style))


def known(text: str | None) -> str:
    return "none" if text is None else text


def test_a_choice_about_what_is_known_stays() -> None:
    @workflow()
    def flow(s: str | None) -> list[str]:
        known(None)
        return [styled(s), styled(s, "long"), styled(s, y=None), styled("x")]

    assert [*flow.graph.nodes] == ["echo", "echo_2", "echo_3", "echo_4"]


def test_a_debugger_keeps_its_hook() -> None:
    def debugger(*event: object) -> None:
        return None

    sys.settrace(debugger)
    try:
        with pytest.raises(InputError, match="looks past a placeholder"):
            assert traced(through).graph
        assert sys.gettrace() is debugger
    finally:
        sys.settrace(None)
    assert sys.getprofile() is None


def test_without_a_test_in_reach_nothing_is_watched() -> None:
    hooks: list[object] = []

    @workflow()
    def flow(s: str) -> str:
        hooks.append(sys.gettrace())
        return echo(x=s)

    before = sys.gettrace()
    assert flow.graph.nodes
    assert hooks == [before]


PROBE = """
import importlib.util, sys
spec = importlib.util.spec_from_file_location("bytecode", sys.argv[1])
bytecode = importlib.util.module_from_spec(spec)
spec.loader.exec_module(bytecode)
def direct(s, k): return k if s is None else s
def other(s, k): return s if k is None else k
def twice(s, k): return f(s, 1 if k is None else 2)
def bound(s, k):
    t = f(s, k)
    return t is not None
def unpacked(s, k):
    a, (b, c) = k, s
    return c is k
def identity(s, k): return k is s
def known(s, k):
    t = k
    u = f(s)
    return t is None
for one in (direct, other, twice, bound, unpacked, identity, known):
    print(one.__name__, bytecode.looked_past(one.__code__, ["s"]) is not None)
"""
INTERPRETERS = [sys.executable, *(path for version in ("3.12", "3.13", "3.14") if (path := shutil.which(f"python{version}")))]


@pytest.mark.parametrize("interpreter", INTERPRETERS, ids=lambda path: Path(path).name)
def test_operands_are_read_from_bytecode(interpreter: str) -> None:
    command = [interpreter, "-W", "ignore", "-c", PROBE, str(bytecode.__file__)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0 and not done.stdout:
        pytest.skip(f"{interpreter} does not run")
    said = dict(line.split() for line in done.stdout.splitlines())
    seen = {"direct", "bound", "unpacked", "identity"}
    assert said == {name: str(name in seen) for name in ("direct", "other", "twice", "bound", "unpacked", "identity", "known")}, done.stderr
