"""Tests of alternatives in Python and YAML, which run only if nothing else has a value: `otherwise` and `fallback`."""

from __future__ import annotations

import linecache
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import orchestra as words
from orchestra import InputError, Orchestra, RunFailed, Workflow, accepted, first_of, when, workflow
from orchestra.core.settings import Settings
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.program import Program
from orchestra.workflows.python.trace import to_python
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.workflows import fallback_workflows
from tests.workflows.ensemble import catalog
from tests.workflows.fallback_workflows import STANDING, branched, echo, fine, pay, refuse

CASES: list[tuple[Workflow[..., Any], dict[str, Any], Any, int]] = [
    (branched, {"n": 5, "text": "a"}, "refused", 0),
    (branched, {"n": 1, "text": "a"}, "paid a", 1),
    (fallback_workflows.contrary, {"n": 5, "text": "a"}, "refused", 0),
    (fallback_workflows.contrary, {"n": 1, "text": "a"}, "paid a", 1),
    (fallback_workflows.chained, {"n": 5, "text": "a"}, "refused", 0),
    (fallback_workflows.chained, {"n": 3, "text": "a"}, "a", 0),
    (fallback_workflows.chained, {"n": 1, "text": "a"}, "paid chained", 1),
    (fallback_workflows.chained, {"n": 1, "text": ""}, "nothing", 0),
    (fallback_workflows.withheld, {"text": "ok"}, "got ok", 0),
    (fallback_workflows.withheld, {"text": "bad"}, "got paid bad", 1),
    (fallback_workflows.nested, {"n": 5, "text": "ok"}, "refused", 0),
    (fallback_workflows.nested, {"n": 5, "text": "a"}, "paid a", 1),
    (fallback_workflows.nested, {"n": 1, "text": "a"}, "paid a", 1),
    (fallback_workflows.fallen, {"text": "a"}, "got a", 0),
    (fallback_workflows.fallen, {"text": "boom"}, "got paid instead", 1),
    (fallback_workflows.mapped, {"texts": ["a", "boom"]}, ["a", "paid instead"], 1),
    (fallback_workflows.listed, {"n": 1, "texts": ["a", "b"]}, ["paid a", "paid b"], 2),
    (fallback_workflows.listed, {"n": 5, "texts": ["a", "b"]}, ["refused", "refused"], 0),
    (fallback_workflows.turned, {"n": 1, "text": "a"}, "refused", 1),
    (fallback_workflows.turned, {"n": 2, "text": "a"}, "paid paid -", 2),
    (fallback_workflows.other, {"n": 5, "text": "a"}, "refused", 0),
    (fallback_workflows.other, {"n": 1, "text": "boom"}, "-", 0),
    (fallback_workflows.elif_, {"n": 5, "m": 5}, "refused", 0),
    (fallback_workflows.elif_, {"n": 1, "m": 5}, "paid b", 1),
    (fallback_workflows.elif_, {"n": 1, "m": 1}, "c", 0),
    (fallback_workflows.plain, {"n": 1, "text": "ok"}, "ok", 0),
    (fallback_workflows.plain, {"n": 1, "text": "a"}, "no a", 0),
]


@pytest.fixture
async def orchestra(tmp_path: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(tmp_path / "runs.db")}), fleet="none") as opened:
        yield opened


def compiled(flow: Workflow[..., Any]) -> Program:
    """The workflow, compiled; its tools are those of `fallback_workflows`."""
    known = catalog(flow, echo, fine, pay, refuse)  # type: ignore[arg-type]  # it takes tools as well
    return compile_graph(flow.graph, replace(known, checks=known.checks | {"tool"}))


def paid(result: Any) -> int:
    """How often it was paid."""
    return sum(path.rpartition("/")[2].startswith("pay") for path in result.usage_by_node)


async def test_fallback_runs_iff_no_option_exists(orchestra: Orchestra) -> None:
    for flow, inputs, value, times in CASES:
        result = await orchestra.run(flow, **inputs)
        assert (flow.name, inputs, result.value, paid(result)) == (flow.name, inputs, value, times)


@pytest.mark.parametrize("flow", [branched, fallback_workflows.other], ids=lambda flow: flow.name)
async def test_fallback_not_run_after_failure(orchestra: Orchestra, flow: Workflow[..., Any]) -> None:
    run = await orchestra.start(flow, n=5, text="boom")
    result = await run.wait()
    assert (result.status, paid(result)) == ("failed", 0)
    with pytest.raises(RunFailed, match="refuse raised ZeroDivisionError"):
        assert result.output


@pytest.mark.parametrize("flow", STANDING, ids=lambda flow: flow.name)
def test_fallback_equals_yaml(flow: Workflow[..., Any]) -> None:
    assert [one for one in compiled(flow).warnings if "where it failed too" not in one] == []
    graph = read(write(flow.graph), "flow.yaml").graph
    assert graph == flow.graph
    source = to_python(graph)
    space: dict[str, Any] = (
        {name: getattr(words, name) for name in words.__all__}
        | vars(fallback_workflows)
        | {"Any": Any, "orchestra": words}
    )
    linecache.cache["<fallback_workflows>"] = (
        len(source),
        None,
        source.splitlines(keepends=True),
        "<fallback_workflows>",
    )
    exec(compile(source, "<fallback_workflows>", "exec"), space)
    assert space[flow.name].graph == graph


def test_fallback_negated_condition_in_yaml() -> None:
    nodes = branched.graph.nodes
    assert [nodes[name].when for name in ("refuse", "echo", "pay")] == [
        "${input.n > 3}",
        "${!(input.n > 3)}",
        "${!(input.n > 3)}",
    ]
    nodes = fallback_workflows.withheld.graph.nodes
    assert list(nodes) == ["maybe", "has_maybe", "pay", "done", "echo"]
    assert nodes["pay"].when == "${!has_maybe}"


UNSURE = """schema: orchestra/v1
name: unsure
input: {n: int, text: str}
output: ${last}
nodes:
  first: {tool: echo, with: {text: "${input.text}"}, when: "${input.n > 3}"}
  second: {tool: echo, with: {text: "${input.text}"}, when: "WHEN"}
  has: {first_of: ["ASKED", false]}
  chosen: {first_of: ["${first}", "${second}"]}
  last: {tool: echo, with: {text: "${chosen}"}}
"""
"""A choice of two, of which `second` may be missing together with `first`, or not."""


@pytest.mark.parametrize(
    ("when", "asked", "sure"),
    [
        ("${!(input.n > 3)}", "${size([first]) > 0}", True),
        ("${!has}", "${size([first]) > 0}", True),
        ("${!has && !(input.n > 3)}", "${size([first]) > 0}", True),
        ("${!(input.n > 3 && input.n > 4)}", "${size([first]) > 0}", True),
        ("${!(input.n > 3 || input.n > 4)}", "${size([first]) > 0}", False),
        ("${!(input.n > 4)}", "${size([first]) > 0}", False),
        ("${input.n > 3}", "${size([first]) > 0}", False),
        ("${!has && input.n > 1}", "${size([first]) > 0}", False),
        ("${!has}", "${size([input.text]) > 0}", False),
        ("${!has}", "${size(first) > 0}", False),
        ("${has}", "${size([first]) > 0}", False),
    ],
)
def test_exhaustive_choice_is_sure(when: str, asked: str, sure: bool) -> None:
    graph = read(UNSURE.replace("WHEN", when).replace("ASKED", asked), "unsure.yaml").graph
    flow = Workflow.from_graph(graph)
    if sure:
        assert compiled(flow).nodes
    else:
        with pytest.raises(InputError, match="all arms of 'chosen' may be without a value"):
            compiled(flow)


def test_invalid_presence_test_refused() -> None:
    graph = read(UNSURE.replace("WHEN", "${!has}").replace("ASKED", "${size([first second]) > 0}"), "unsure.yaml").graph
    with pytest.raises(InputError, match="not an expression"):
        compiled(Workflow.from_graph(graph))


def eager_otherwise(n: int) -> str:
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=pay(text="b"))


def eager_fallback(n: int) -> str:
    return echo.options(fallback=pay(text="b"))(text="a")


@pytest.mark.parametrize("function", [eager_otherwise, eager_fallback])
def test_unconditional_effect_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError) as caught:
        assert workflow(function).graph
    word = function.__name__.removeprefix("eager_")
    assert (caught.value.code, caught.value.hint) == ("W029", f"{word}=lambda: pay(...)")


def accepted_first(text: str) -> str:
    return first_of(
        accepted(refuse(text=text), checks=fine, otherwise=[words.abstain]), otherwise=lambda: pay(text=text)
    )


def accepted_pure(text: str) -> str:
    return first_of(
        accepted(refuse(text=text), checks=fine, otherwise=[words.abstain]), otherwise=lambda: echo(text=text)
    )


def fallen(text: str) -> str:
    return refuse.options(fallback=lambda: pay(text=text))(text=text)


@pytest.mark.parametrize(("function", "count"), [(accepted_first, 1), (accepted_pure, 0), (fallen, 0)])
def test_effect_after_failure_warns(function: Callable[..., Any], count: int) -> None:
    warnings = [str(one) for one in compiled(workflow(function)).warnings]
    assert len(warnings) == count
    assert all(
        "'pay' has effects and runs where 'refuse' is withheld, and where it failed too" in one for one in warnings
    )


def bound(n: int) -> str:
    receipt = pay(text="b")
    return first_of(when(n > 3, lambda: refuse(text="a")), otherwise=receipt)


def bound_fallback(n: int) -> str:
    receipt = pay(text="b")
    return echo.options(fallback=receipt)(text="a")


def used(n: int) -> str:
    receipt = pay(text="b")
    return echo(text=receipt + first_of(when(n > 3, lambda: refuse(text="a")), otherwise=receipt))


@pytest.mark.parametrize(("function", "count"), [(bound, 1), (bound_fallback, 1), (used, 0)])
def test_unconditional_fallback_effect_warns(function: Callable[..., Any], count: int) -> None:
    warnings = [str(one) for one in compiled(workflow(function)).warnings]
    assert len(warnings) == count
    assert all("'receipt' has effects and always runs" in one for one in warnings)


def guarded_whole(n: int) -> str:
    return first_of(when(n > 3, echo.options(fallback=lambda: pay(text="b"))(text="a")), otherwise="")


def accepted_whole(n: int) -> str:
    return accepted(echo.options(fallback=lambda: pay(text="b"))(text="a"), checks=fine)


@pytest.mark.parametrize("function", [guarded_whole, accepted_whole])
def test_call_with_fallback_is_not_one_call(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="is a call with a fallback") as caught:
        assert workflow(function).graph
    assert caught.value.code == "W016"


def test_fallback_has_type_of_call() -> None:
    def other(text: str) -> str:
        return echo.options(fallback=lambda: fine(text="b"))(text=text)  # type: ignore[arg-type, unused-ignore]

    with pytest.raises(InputError, match=r"echo\.options\(fallback=\.\.\.\) takes str") as caught:
        assert workflow(other).graph
    assert caught.value.code == "W011"
