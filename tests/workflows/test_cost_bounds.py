"""Tests of the upper bounds of calls and tokens of a run."""

from __future__ import annotations

from typing import Any

from orchestra.agents.contract import Catalog, Contract
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.cost_bounds import compute_bounds, total
from orchestra.workflows.program import Program
from orchestra.workflows.yaml.reader import read

TEXT: dict[str, Any] = {"type": "string"}
INPUT: dict[str, Any] = {
    "type": "object",
    "properties": {"text": TEXT},
    "required": ["text"],
    "additionalProperties": False,
}
CATALOG = Catalog(
    agents={"writer": Contract("writer", "agent", INPUT, TEXT, max_output=100)},
    tools={
        "shout": Contract("shout", "tool", INPUT, TEXT),
        "send": Contract("send", "tool", INPUT, TEXT, effect="once"),
    },
)


def program(nodes: str, output: str = "${last}") -> Program:
    text = (
        f'schema: orchestra/v1\nname: p\ninput: {{text: str, texts: "list[str]"}}\noutput: "{output}"\nnodes:\n{nodes}'
    )
    return compile_graph(read(text, "p.yaml").graph, CATALOG)


def rows(nodes: str, output: str = "${last}", **contexts: int) -> dict[str, tuple[int, int, int | None]]:
    given = {"text": "a", "texts": ["a", "b", "c"]}
    return {
        row.node: (row.calls, row.output_tokens, row.tokens)
        for row in compute_bounds(program(nodes, output), given, contexts)
    }


def test_bounds_call_includes_retries() -> None:
    assert rows('  last: {agent: writer, with: {text: "${input.text}"}, retry: 4}\n', writer=1000) == {
        "last": (4, 400, 4000)
    }


def test_bounds_tool_has_no_tokens() -> None:
    nodes = (
        '  first: {tool: shout, with: {text: "${input.text}"}, retry: 2}\n'
        '  last: {tool: send, with: {text: "${first}"}, retry: 2}\n'
    )
    assert rows(nodes) == {"first": (2, 0, 0), "last": (1, 0, 0)}


def test_bounds_input_list_counted() -> None:
    nodes = '  last: {agent: writer, each: "${input.texts}", as: one, with: {text: "${one}"}, retry: 1}\n'
    assert rows(nodes, "${last.values}", writer=1000) == {"last": (3, 300, 3000)}


def test_bounds_unknown_list_uses_limit() -> None:
    nodes = (
        '  some: {tool: shout, each: "${input.texts}", as: one, with: {text: "${one}"}, retry: 1}\n'
        '  last: {agent: writer, each: "${some.values}", as: one, with: {text: "${one}"}, retry: 1, limit: 7}\n'
    )
    assert rows(nodes, "${last.values}", writer=1000) == {"some": (3, 0, 0), "last": (7, 700, 7000)}


def test_bounds_loop_counts_all_turns() -> None:
    inner = '{draft: {agent: writer, with: {text: "${input.text}"}, retry: 1}}'
    nodes = f'  last: {{loop: {{at_most: 5, until: "${{draft == \'x\'}}", output: "${{draft}}", nodes: {inner}}}}}\n'
    assert rows(nodes, writer=1000) == {"last/draft": (5, 500, 5000)}


def test_bounds_budget_limits_tokens() -> None:
    found = compute_bounds(
        program('  last: {agent: writer, with: {text: "${input.text}"}, retry: 2}\n'), {"text": "a", "texts": []}, {}
    )
    assert total(found, None) == (2, 200, None)
    assert total(found, 20_000) == (2, 200, 20_000)
