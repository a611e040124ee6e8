"""Tests of the reader of workflow files: accepted forms, and typed errors for invalid files."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError, InputErrors
from orchestra.workflows.model import CallNode, LoopNode, Retry
from orchestra.workflows.yaml.reader import MAX_ERRORS, MAX_NODES, read
from tests.workflows.catalog import whole

NODE = "{tool: shout, with: {text: x}}"


def test_read_expands_short_forms() -> None:
    graph = read(
        whole(
            "input: {text: str, n: {type: int, default: 3}}\n"
            "output: ${a}\n"
            "nodes:\n"
            f"  a: {NODE[:-1]}, retry: 2, after: b}}\n"
            f"  b: {NODE}"
        ),
        "w",
    ).graph
    assert graph.input["text"].type == "str"
    assert (graph.input["text"].optional, graph.input["n"].optional) == (False, True)
    assert graph.nodes["a"].retry == Retry(attempts=2)
    assert graph.nodes["a"].after == ("b",)


def test_read_expands_short_forms_in_bodies() -> None:
    inner = f"{NODE[:-1]}, retry: 2}}"
    graph = read(
        whole(
            "defaults: {retry: 4}\n"
            "output: ${a}\n"
            "nodes:\n"
            f"  a: {{call: {{nodes: {{b: {inner}}}, output: '${{b}}'}}}}\n"
            f"  c: {{loop: {{at_most: 2, until: '${{turn > 1}}', nodes: {{d: {inner}}}, output: '${{d}}'}}}}"
        ),
        "w",
    ).graph
    assert graph.defaults is not None
    assert graph.defaults.retry == Retry(attempts=4)
    call, loop = graph.nodes["a"], graph.nodes["c"]
    assert isinstance(call, CallNode)
    assert isinstance(loop, LoopNode)
    assert not isinstance(call.call, str)
    assert call.call.nodes["b"].retry == loop.loop.nodes["d"].retry == Retry(attempts=2)


def test_read_keeps_order() -> None:
    text = whole("output: ${z}\nnodes:\n" + "".join(f"  {name}: {NODE}\n" for name in "zaymb"))
    assert "".join(read(text, "w").graph.nodes) == "zaymb"


def test_read_uses_yaml_1_2_scalars() -> None:
    with_ = read(
        whole(
            "output: ${a}\nnodes:\n  a: {tool: t, with: {a: no, b: 22:22, c: 0x1F, d: 2026-01-01, e: 1_000, f: 1e3}}"
        ),
        "w",
    ).graph.nodes["a"]
    assert with_.model_dump()["with_"] == {
        "a": "no",
        "b": "22:22",
        "c": "0x1F",
        "d": "2026-01-01",
        "e": "1_000",
        "f": 1000.0,
    }


def test_read_locations_of_keys_and_values() -> None:
    source = read(whole(f"output: ${{a}}\nnodes:\n  a: {NODE}"), "w.yaml")
    value, key = (
        source.places.location_of("nodes", "a", "with", "text"),
        source.places.location_of("nodes", "a", "with", "text", key=True),
    )
    assert (str(value), str(key)) == ("w.yaml:5:33", "w.yaml:5:27")
    assert source.places.location_of("nodes", "a", "with", "nothing") == source.places.location_of("nodes", "a", "with")


def test_read_reports_all_errors_in_order() -> None:
    text = whole("output: ${a}\nnodes:\n  a: {tool: t, timeout: 0, retry: 11}\n  b: {tool: t, accept: 2}")
    with pytest.raises(InputErrors) as caught:
        read(text, "w.yaml")
    assert [str(error.location) for error in caught.value.errors] == ["w.yaml:5:25", "w.yaml:5:35", "w.yaml:6:24"]


def test_read_limits_number_of_errors() -> None:
    with pytest.raises(InputErrors) as caught:
        read(whole("output: ${a}\nnodes:\n" + "".join(f"  n{number}: {{tol: t}}\n" for number in range(1000))), "w")
    assert len(caught.value.errors) == MAX_ERRORS


@pytest.mark.parametrize("text", ["", "a", "[a]", "3", "null", "# nothing"])
def test_read_non_mapping_refused(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read(text, "w.yaml")
    assert caught.value.code == "L100"


def test_read_too_many_nodes_refused() -> None:
    half = "".join(f"  n{number}: {{ask: x}}\n" for number in range(MAX_NODES // 2 + 1))
    body = half.replace("  n", "          n")
    text = whole(f"output: ${{n0}}\nnodes:\n{half}  last:\n    call:\n      output: ${{n1}}\n      nodes:\n{body}")
    with pytest.raises(InputError) as caught:
        read(text, "w.yaml")
    assert caught.value.code == "L106"


words = st.sampled_from(
    [
        "schema",
        "name",
        "nodes",
        "output",
        "input",
        "types",
        "budget",
        "agent",
        "tool",
        "call",
        "loop",
        "first_of",
        "with",
        "each",
        "as",
        "when",
    ]
)
values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-5, 200)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["${a}", "x", "str"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(words | st.sampled_from(["a", "b", "at_most", "until"]), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(values, values, values)
def test_read_any_data_read_or_refused(nodes: object, output: object, more: object) -> None:
    document = {"schema": "orchestra/v1", "name": "w", "nodes": nodes, "output": output, "input": more}
    try:
        read(json.dumps(document), "w.yaml")
    except InputError as error:
        refusal = error
    else:
        return
    assert refusal.location is not None
    assert "pydantic" not in str(refusal)


def test_read_hostile_files_have_no_side_effects() -> None:
    """2,000 mutated and random files are read and compiled in a process whose audit hook stops at the first thing
    done.
    """
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("hostile_files.py"))],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout)
    assert said["files"] == 2000
    assert said["accepted"] > 20
    assert said["refused"] > 1000
