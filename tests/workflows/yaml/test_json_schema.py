"""Tests of the JSON Schema for editors: it accepts what the reader accepts, and marks what the reader refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema  # type: ignore[import-untyped]  # its stubs are not among the development tools
import pytest
from hypothesis import HealthCheck, given, settings

from orchestra.core.errors import InputError
from orchestra.schema.strict_yaml import load_yaml
from orchestra.workflows.model import NODE_KINDS, Graph
from orchestra.workflows.yaml.json_schema import workflow_schema
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.workflows.graphs import graphs

VALIDATOR = jsonschema.Draft202012Validator(workflow_schema())

DESIGN = """\
schema: orchestra/v1
name: answer_from_documents
description: Answers a question from documents, with quotes, or says that they do not tell.
input: {question: str, documents: "list[Document]"}
output: ${answer}
budget: {tokens: 20000, seconds: 60}
nodes:
  passages:
    tool: search
    with: {query: "${input.question}", documents: "${input.documents}", top: 6}
  readings:
    agent: reader
    each: ${passages}
    as: passage
    with: {question: "${input.question}", context: "${passage.text}"}
    checks: [quote, numbers, entailment]
    against: ${passage.text}
    accept: certified
    otherwise: [retry, escalate, abstain]
  answer:
    tool: cite
    with: {question: "${input.question}", readings: "${readings.values}"}
"""

WRONG = [
    "{agent: reader, wiht: {}}",
    "{agent: reader, tool: search}",
    "{with: {}}",
    "{agent: reader, retry: 11}",
    "{agent: reader, retry: {attempts: 3, pause: 1}}",
    "{agent: reader, timeout: 0}",
    "{agent: reader, accept: 1.5}",
    "{agent: reader, accept: sure}",
    "{agent: reader, otherwise: give_up}",
    "{agent: reader, after: [Up]}",
    "{agent: [reader]}",
    "{first_of: []}",
    "{tool: search, agents: [reader]}",
    "{loop: {at_most: 101, until: '${x}', nodes: {x: {tool: t}}, output: '${x}'}}",
    "{loop: {at_most: 2, until: '${x}', nodes: {x: {tool: t, wiht: 1}}, output: '${x}'}}",
    "{call: {nodes: {}, output: 1}}",
    "{plan: go, limits: {steps: 0}}",
    "{plan: go, workflows: {a: b}}",
    "{plan: go, workflow: [a]}",
    "{tool: t, workflows: [a]}",
    "{plan: go, votes: 0}",
    "{plan: go, votes: 17}",
    "{plan: go, votes: many}",
    "{plan: go, votes: true}",
    "{plan: go, larger: Planner}",
    "{plan: go, larger: [planner]}",
    "{plan: go, cache: 1}",
    "{plan: go, cache: off}",
    "{plan: go, stepwise: 1}",
    "{plan: go, copied: yes_}",
    "{plan: go, grounded: 1}",
    "{plan: go, anyway: [true]}",
    "{plan: go, shortlist: 0}",
    "{plan: go, shortlist: 101}",
    "{plan: go, shortlist: [reader]}",
    "{agent: reader, votes: 3}",
    "{tool: search, cache: false}",
]


def workflow(node: str, head: str = "schema: orchestra/v1\nname: x\noutput: ${a}\n") -> str:
    return f"{head}nodes:\n  a: {node}\n"


def faults(text: str) -> list[str]:
    return [error.message for error in VALIDATOR.iter_errors(load_yaml(text, "x").value)]


def leaves(error: Any) -> Iterator[Any]:
    if not error.context:
        yield error
    for inner in error.context or ():
        yield from leaves(inner)


def test_workflow_schema_is_valid() -> None:
    jsonschema.Draft202012Validator.check_schema(workflow_schema())


def test_workflow_schema_accepts_sample() -> None:
    assert faults(DESIGN) == []


@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(graphs(depth=1))
def test_workflow_schema_accepts_written_graphs(graph: Graph) -> None:
    assert faults(write(graph)) == []


@pytest.mark.parametrize(
    "node",
    [
        "{agent: r, after: b, checks: quote, against: '${b}', otherwise: abstain}",
        "{agent: r, retry: 3}",
        "{agent: r, retry: {attempts: 3, wait: [0.5, 8]}}",
        "{plan: go, agents: r, tools: [t], workflows: w, limits: {steps: 3}}",
        "{plan: go, agents: r, larger: planner, votes: 16, cache: false, replans: 0, streaming: false}",
        (
            "{plan: go, agents: r, stepwise: false, copied: true, grounded: true, hearsay: a, anyway: true, shortlist:"
            " 16, returns: anything}"
        ),
        "{ask: really?, options: [yes_, no_]}",
        "{call: other, with: {}}",
        "{tool: t, each: '${b}', as: x, limit: 5, concurrency: 2, at_least: all}",
    ],
)
def test_workflow_schema_accepts_short_forms(node: str) -> None:
    read(workflow(node), "x")
    assert faults(workflow(node)) == []


@pytest.mark.parametrize("node", WRONG)
def test_workflow_schema_refuses_invalid_nodes(node: str) -> None:
    with pytest.raises(InputError):
        read(workflow(node), "x")
    assert faults(workflow(node)) != []


@pytest.mark.parametrize(
    "head",
    [
        "name: x\noutput: 1\n",
        "schema: orchestra/v1\noutput: 1\n",
        "schema: orchestra/v1\nname: x\n",
        "schema: orchestra/v2\nname: x\noutput: 1\n",
        "schema: orchestra/v1\nname: X\noutput: 1\n",
        "schema: orchestra/v1\nname: x\noutput: 1\noutputs: 1\n",
        "schema: orchestra/v1\nname: x\noutput: 1\ninput: {a: 1}\n",
        "schema: orchestra/v1\nname: x\noutput: 1\ninput: {A: str}\n",
        "schema: orchestra/v1\nname: x\noutput: 1\ninput: {a: {default: 1}}\n",
        "schema: orchestra/v1\nname: x\noutput: 1\nbudget: {tokens: 0}\n",
        "schema: orchestra/v1\nname: x\noutput: 1\nlabel: secret\n",
    ],
)
def test_workflow_schema_refuses_invalid_head(head: str) -> None:
    with pytest.raises(InputError):
        read(workflow("{tool: t}", head), "x")
    assert faults(workflow("{tool: t}", head)) != []


def test_workflow_schema_names_only_unknown_key() -> None:
    document = load_yaml(DESIGN.replace("    with: {query", "    wiht: {query"), "x").value
    found = [leaf for error in VALIDATOR.iter_errors(document) for leaf in leaves(error)]
    assert [(list(leaf.path), leaf.message) for leaf in found] == [
        (["nodes", "passages"], "Additional properties are not allowed ('wiht' was unexpected)")
    ]


def test_workflow_schema_refuses_each_without_as() -> None:
    assert faults(workflow("{tool: t, each: '${b}'}")) == ["'as' is a dependency of 'each'"]


def test_workflow_schema_describes_every_key() -> None:
    document = workflow_schema()
    parts: list[Any] = [document, *document["$defs"].values()]
    records = [choice for part in parts for choice in (part, *part.get("anyOf", ())) if "properties" in choice]
    assert [
        key for record in records for key, field in record["properties"].items() if not field.get("description")
    ] == []
    assert all(document["$defs"][name].get("description") for name in document["$defs"] if name.endswith("Node"))


def test_workflow_schema_describes_every_kind() -> None:
    conditions = workflow_schema()["$defs"]["Node"]["allOf"]
    assert [one["if"]["required"] for one in conditions] == [[kind] for kind in NODE_KINDS]
