"""Property tests of the Python writer: every field of a node is written, or the graph is refused."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra import Graph, InputError
from orchestra.workflows import model
from orchestra.workflows.python.trace import to_python
from tests.workflows.test_builder_python import traced

BLOCK = {"nodes": {"inner": {"tool": "shout"}}, "output": "${inner}"}
NODES: dict[type[model.Node], dict[str, Any]] = {
    model.AgentNode: {"agent": "reader"},
    model.ToolNode: {"tool": "shout"},
    model.CallNode: {"call": "flow"},
    model.FirstOfNode: {"first_of": ["${first}", "none"]},
    model.LoopNode: {"loop": {**BLOCK, "at_most": 3, "until": "${inner > 3}"}},
    model.PlanNode: {"plan": "think"},
    model.VerifyNode: {"verify": "${first}", "checks": ["quote"]},
    model.AskNode: {"ask": "Really?"},
}
"""Of each kind, the least that it has."""
OTHERS: dict[str, Any] = {
    "when": "${input.sure}",
    "each": "${input.texts}",
    "as": "text",
    "limit": 5,
    "concurrency": 2,
    "at_least": "all",
    "after": ["first"],
    "retry": {"attempts": 4},
    "timeout": 7.0,
    "fallback": "nothing",
    "checks": ["numbers"],
    "against": "${input.texts}",
    "score": "combined",
    "accept": 0.5,
    "otherwise": ["retry"],
    "agent": "writer",
    "tool": "whisper",
    "call": "other",
    "first_of": ["${first}", "-"],
    "loop": {**BLOCK, "at_most": 4, "until": "${inner > 3}"},
    "plan": "think twice",
    "verify": "${first.text}",
    "ask": "Why?",
    "with": {"question": "why"},
    "escalate": "${input.sure}",
    "tools": ["send"],
    "agents": ["reader"],
    "workflows": ["flow"],
    "returns": "int",
    "limits": {"steps": 3},
    "repairs": 3,
    "replans": 4,
    "streaming": False,
    "router": "planner",
    "larger": "large",
    "votes": 3,
    "cache": False,
    "stepwise": False,
    "copied": True,
    "literals": True,
    "confirm": False,
    "grounded": True,
    "each_part": True,
    "rules": True,
    "hearsay": ["question"],
    "anyway": True,
    "shortlist": 7,
    "options": ["yes", "no"],
}
"""Of each field another value than it has by itself."""
WITH: dict[str, dict[str, Any]] = {
    "each": {"as": "text"},
    **{key: {"each": "${input.texts}", "as": "item"} for key in ("as", "limit", "concurrency", "at_least")},
    **{key: {"checks": ["quote"]} for key in ("against", "score", "accept", "otherwise")},
}
"""What a field goes with."""


def written(node: dict[str, Any]) -> str:
    inputs = {"sure": {"type": "bool"}, "texts": {"type": "list[str]"}}
    graph = {"name": "law", "input": inputs, "output": "${node}", "nodes": {"first": {"tool": "shout"}, "node": node}}
    try:
        return to_python(Graph.model_validate(graph, strict=False))
    except InputError as error:
        return error.message


FIELDS = [(kind, info.alias or name) for kind in NODES for name, info in kind.model_fields.items()]


@pytest.mark.parametrize(("kind", "field"), FIELDS, ids=[f"{kind.__name__}.{field}" for kind, field in FIELDS])
def test_to_python_every_field_written_or_refused(kind: type[model.Node], field: str) -> None:
    plain = {**NODES[kind], **WITH.get(field, {})}
    assert written({**plain, field: OTHERS[field]}) != written(plain)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("${input.n}", "n"),
        ("${input.n} x", "as_text(n) + ' x'"),
        ("${input.n}${input.m}", "as_text(n) + as_text(m)"),
        ("${input.n + input.m}: ${size(input.name)}", "as_text(n + m) + ': ' + as_text(length(name))"),
        ("${string(input.n)}, ${input.name}", "as_text(n) + ', ' + name"),
        ("${first.a}${first.b}", "as_text(first.a) + first.b"),
        ("${first.a} of ${input.name}", "first.a + ' of ' + name"),
    ],
)
def test_to_python_values_in_text_converted(text: str, said: str) -> None:
    inputs = {"n": {"type": "int"}, "m": {"type": "float"}, "name": {"type": "str"}}
    nodes = {"first": {"tool": "shout"}, "node": {"tool": "shout", "with": {"text": text}}}
    source = to_python(
        Graph.model_validate({"name": "law", "input": inputs, "output": "${node}", "nodes": nodes}, strict=False)
    )
    assert f"shout(text={said})" in source


def test_to_python_input_description_written() -> None:
    inputs = {
        "n": {"type": "str", "description": 'It\'s the "name".'},
        "m": {"type": "int", "default": 3, "optional": True},
    }
    nodes = {"node": {"agent": "calculator", "with": {"question": "${input.n}"}}}
    graph = Graph.model_validate({"name": "law", "input": inputs, "output": "${node}", "nodes": nodes}, strict=False)
    assert traced(to_python(graph)).input == graph.input
