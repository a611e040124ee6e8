"""Tests of drawings: complete, no wider than the terminal, and with escaped labels."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra.workflows.analysis import (
    MAX_SHOWN_NODES,
    callee_name,
    critical_path,
    layers,
    max_shown_depth,
    to_networkx,
)
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.cost_bounds import compute_bounds, total
from orchestra.workflows.drawing import draw, mermaid
from orchestra.workflows.model import Graph
from orchestra.workflows.program import CompiledNode, Program
from orchestra.workflows.yaml.reader import read
from tests.unsafe_reference import assert_cost
from tests.workflows.catalog import CATALOG, called_in_a_row
from tests.workflows.graphs import graphs, program_of

pytestmark = pytest.mark.slow

quick = settings(
    max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None
)

REFINE = """\
schema: orchestra/v1
name: refine
input: {text: str}
output: ${answer}
nodes:
  parts: {tool: split, with: {text: "${input.text}"}}
  notes:
    agent: reader
    with: {text: "${part}", all: "${input.text}"}
    each: ${parts}
    as: part
    limit: 7
    checks: [quote]
    against: ${part}
    otherwise: [retry, escalate]
  better:
    loop:
      at_most: 4
      until: ${judged}
      nodes:
        draft: {agent: writer, with: {notes: "${notes.values}"}, retry: 5}
        judged: {tool: judge, with: {text: "${draft}"}}
      output: ${draft}
  answer: {first_of: ["${better}", "nothing [\\"found\\"]"]}
"""


def compiled(text: str) -> Program:
    return program_of(read(text, "x").graph)


def chain(count: int) -> str:
    """A workflow of nodes where each needs the one before it, and every fifth needs many."""
    lines = [
        "schema: orchestra/v1",
        "name: long",
        "input: {text: str}",
        f"output: ${{step_number_{count - 1}}}",
        "nodes:",
    ]
    for index in range(count):
        needs = range(max(0, index - 12), index) if index % 5 == 4 else range(index - 1, index)
        given = ", ".join(f'a{need}: "${{step_number_{need}}}"' for need in needs if need >= 0)
        lines.append(f"  step_number_{index}: {{agent: writer, with: {{{given}}}}}")
    return "\n".join(lines)


def columns(line: str) -> int:
    return sum(
        0 if unicodedata.combining(char) else 2 if unicodedata.east_asian_width(char) in "WF" else 1 for char in line
    )


def every(program: Program) -> list[CompiledNode]:
    return [found for node in program.nodes for found in (node, *(every(node.body) if node.body else ()))]


def test_to_networkx_has_attributes() -> None:
    graph = to_networkx(compiled(REFINE))
    assert {name: (data["kind"], data["callee"]) for name, data in graph.nodes.items()} == {
        "parts": ("tool", "split"),
        "notes": ("agent", "reader"),
        "better": ("loop", ""),
        "answer": ("first_of", ""),
    }
    assert {(a, b): data["soft"] for a, b, data in graph.edges(data=True)} == {
        ("parts", "notes"): False,
        ("notes", "better"): False,
        ("better", "answer"): True,
    }
    assert list(graph.nodes["better"]["body"].edges) == [("draft", "judged")]


def test_critical_path_spans_program() -> None:
    assert critical_path(compiled(REFINE)) == ["parts", "notes", "better", "answer"]


@quick
@given(graphs(depth=1))
def test_critical_path_is_longest(graph: Graph) -> None:
    import networkx as nx

    program = program_of(graph)
    found, drawn = critical_path(program), to_networkx(program)
    assert nx.is_path(drawn, found)
    assert len(found) == nx.dag_longest_path_length(drawn, default_weight=1) + 1


@quick
@given(graphs(depth=1))
def test_layers_need_earlier_layers(graph: Graph) -> None:
    program = program_of(graph)
    place = {node.index: depth for depth, layer in enumerate(layers(program)) for node in layer}
    assert sorted(place) == list(range(len(program.nodes)))
    assert all(place[need] < place[node.index] for node in program.nodes for need in node.needs)


def test_bounds_count_elements_turns_attempts() -> None:
    rows = compute_bounds(compiled(REFINE), {}, {})
    assert {row.node: (row.calls, row.output_tokens) for row in rows} == {
        "parts": (3, 0),
        "notes": (7 * 4, 7 * 4 * 50),
        "better/draft": (4 * 5, 4 * 5 * 50),
        "better/judged": (4 * 3, 0),
    }
    assert total(rows, None)[:2] == (3 + 28 + 32, 1400 + 1000)


DEPTH = 30


def doubled() -> Program:
    """A program of two calls of a program of two calls, and so on: half a thousand million calls of one tool, of three
    attempts each.
    """
    workflows = called_in_a_row(DEPTH, width=2)
    return compile_graph(workflows["w0"], replace(CATALOG, workflows=workflows))


def test_to_networkx_shared_body_is_one_graph() -> None:
    graph = to_networkx(doubled())
    assert graph.nodes["a0"]["body"] is graph.nodes["a1"]["body"]


@pytest.mark.parametrize("drawn", [draw, mermaid])
def test_draw_doubling_calls_truncated(drawn: Callable[[Program], str]) -> None:
    assert len(drawn(doubled()).splitlines()) < 8 * MAX_SHOWN_NODES
    assert_cost(lambda: drawn(doubled()), at_most=500)


def test_draw_all_levels_if_they_fit() -> None:
    workflows = called_in_a_row(6, width=2)
    program = compile_graph(workflows["w0"], replace(CATALOG, workflows=workflows))
    assert max_shown_depth(program) == 5


def test_draw_order_is_inputs_to_output() -> None:
    assert (
        draw(compiled(REFINE), 80) == "refine(text: str) -> str\n"
        "│\n"
        "├─ parts   tool split  ← input\n"
        "▼\n"
        "├─ notes   agent reader\n"
        "│          each part of ${parts}, at most 7\n"
        "│          checks quote; accept 0.5; otherwise retry, escalate  ← input, parts\n"
        "▼\n"
        "├─ better  loop, at most 4 turns, until ${judged}  ← notes\n"
        "│  ├─ draft   agent writer\n"
        "│  │          retry 5\n"
        "│  ▼\n"
        "│  ├─ judged  tool judge  ← draft\n"
        "│  ▼\n"
        "│  output ← draft\n"
        "▼\n"
        '├─ answer  first of ${better}, nothing ["found"]  ← better?\n'
        "▼\n"
        "output ← answer\n"
        "\n"
        "name?  runs all the same where that node gives no value\n"
    )


@quick
@given(graphs(depth=1), st.integers(40, 120))
def test_draw_lines_fit_width(graph: Graph, width: int) -> None:
    assert [line for line in draw(program_of(graph), width).splitlines() if columns(line) > width] == []


@pytest.mark.parametrize("width", [60, 100])
@pytest.mark.parametrize("count", [3, 60])
def test_draw_contains_all_nodes_and_needs(count: int, width: int) -> None:
    program = compiled(chain(count))
    text = draw(program, width)
    assert max(map(len, text.splitlines())) <= width
    entries = re.split(r"^├─ ", text.partition("▼\noutput")[0], flags=re.MULTILINE)[1:]
    drawn = {entry.split()[0]: set(re.findall(r"step_number_\d+", entry.partition("←")[2])) for entry in entries}
    assert drawn == {node.name: {program.nodes[need].name for need in node.needs} for node in program.nodes}


def test_draw_longest_name_fits_width() -> None:
    name = "n" * 64
    text = draw(
        compiled(f"schema: orchestra/v1\nname: {name}\noutput: ${{{name}}}\nnodes:\n  {name}: {{agent: {'a' * 200}}}"),
        60,
    )
    assert max(map(len, text.splitlines())) <= 60
    assert text.count("n") >= 3 * 64
    assert text.count("a") >= 200


def test_draw_deep_body_counted() -> None:
    inner = "{agent: writer}"
    for _ in range(12):
        inner = f'{{call: {{nodes: {{x: {inner}}}, output: "${{x}}"}}}}'
    text = draw(compiled(f"schema: orchestra/v1\nname: deep\noutput: ${{x}}\nnodes:\n  x: {inner}"), 60)
    assert "… 1 node\n" in text
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize(("at_least", "said"), [("all", ", all needed"), (3, ", at least 3")])
def test_draw_shows_at_least(at_least: str | int, said: str) -> None:
    text = REFINE.replace("each: ${parts}", f"each: ${{parts}}\n    at_least: {at_least}")
    assert f"each part of ${{parts}}, at most 7{said}" in draw(compiled(text), width=120)


def test_draw_removes_control_sequences() -> None:
    text = draw(
        compiled("schema: orchestra/v1\nname: x\noutput: ${a}\nnodes:\n  a: {agent: w, when: \"${input == '\u202e'}\"}")
    )
    assert "\u202e" not in text
    assert "\\u202e" in text


@quick
@given(graphs(depth=1))
def test_mermaid_labels_escaped(graph: Graph) -> None:
    program = program_of(graph)
    lines = mermaid(program).splitlines()
    label = r'"(?:[A-Za-z0-9 _.,()/=+-]|<br/>|#(?:quot|\d+);|[^\x00-\x7f])*"'
    allowed = (
        rf"flowchart TD|\s+(?:end|subgraph n[\d_]+\[{label}\]|n[\d_]+(?:in|out)?\W{{1,2}}{label}\W{{1,2}}|\w+"
        r" (?:-->|-\.->) \w+)"
    )
    assert [line for line in lines if not re.fullmatch(allowed, line)] == []
    ids = re.findall(r"^\s+(?:subgraph )?(n\w+)\W*\"", mermaid(program), flags=re.MULTILINE)
    assert len(ids) == len(set(ids))
    assert sum(not one.endswith(("in", "out")) for one in ids) == len(every(program))


def test_mermaid_soft_needs_dashed() -> None:
    text = mermaid(compiled(REFINE))
    assert "  n0 --> n1\n" in text
    assert "  n2 -.-> n3\n" in text
    assert '  subgraph n2["better<br/>loop, at most 4 turns, until #36;#123;judged#125;"]\n' in text
    assert "first of #36;#123;better#125;, nothing #91;#quot;found#quot;#93;" in text


def test_draw_block_and_call_labels() -> None:
    block = (
        "schema: orchestra/v1\n"
        "name: b\n"
        "output: ${b}\n"
        "nodes:\n"
        "  b: {call: {nodes: {x: {agent: w}}, output: '${x}'}}\n"
        "  c: {call: other}"
    )
    assert [callee_name(node) for node in compiled(block).nodes] == ["", "other"]
    assert {"├─ b  block", "├─ c  call other"} <= set(draw(compiled(block)).splitlines())
