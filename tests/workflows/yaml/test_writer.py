"""Tests of the YAML writer: its output reads back and is readable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.schema.strict_yaml import load_yaml
from orchestra.workflows.model import AskNode, Defaults, Graph, Input, Retry, ToolNode
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import MAX_WIDTH, write
from tests.workflows.graphs import AWKWARD, graphs

SAMPLE = """\
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
    with: {question: "${input.question}", context: "${passage.text}"}
    each: ${passages}
    as: passage
    checks: [quote, numbers, entailment]
    against: ${passage.text}
    accept: certified
    otherwise: [retry, escalate, abstain]
  refined:
    loop:
      at_most: 5
      until: ${judged.good}
      nodes:
        draft:
          agent: writer
          with: {text: "${turn == 1 ? readings.values[0].answer : previous}"}
          when: '${kind.label == "math"}'
          retry: 3
        judged:
          agent: judge
          with: {text: "${draft}"}
          retry: {attempts: 5, wait: [1, 20]}
          timeout: 30
      output: ${draft}
  answer:
    first_of: ["${refined}", nothing found]
"""


def tool_with(inputs: dict[str, Any]) -> ToolNode:
    return ToolNode.model_validate({"tool": "t", "with": inputs})


def one(node: ToolNode | AskNode) -> Graph:
    return Graph(name="one", nodes={"a": node}, output="${a}")


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(graphs())
def test_write_reads_back_equal(graph: Graph) -> None:
    assert repr(read(write(graph), "x").graph) == repr(graph)


@given(st.sampled_from(AWKWARD) | st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t\r")))
def test_write_text_reads_back_everywhere(text: str) -> None:
    long: dict[str, Any] = {"first": "word " * 30, "then": [text, [text, "word " * 30]], text: text}
    data: dict[str, Any] = {"short": {text: [text, text]}, "long": long, "output": text}
    graph = Graph(name="one", types={"t": data}, nodes={"a": AskNode(ask=text)}, output="${a}")
    found = load_yaml(write(graph), "x").value
    assert found["types"]["t"] == data
    assert found["nodes"]["a"]["ask"] == text


def test_write_sample_unchanged() -> None:
    graph = read(SAMPLE, "x").graph
    assert write(graph) == SAMPLE.replace("""'${kind.label == "math"}'""", '${kind.label == "math"}')


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], deadline=None)
@given(graphs())
def test_write_is_canonical(graph: Graph) -> None:
    text = write(graph)
    assert write(read(text, "x").graph) == text


@pytest.mark.parametrize(
    "text", ["no", "on", "it's", "a${b}c", "${a.b}", '${a == "b"}', "don't", "café", "list[str]", "orchestra/v1"]
)
def test_write_plain_text_unquoted(text: str) -> None:
    assert f"ask: {text}\n" in write(one(AskNode(ask=text)))


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("010", '"010"'),
        ("1.5", '"1.5"'),
        ("0x1F", '"0x1F"'),
        ("true", '"true"'),
        ("", '""'),
        ("a: b", '"a: b"'),
        ("${a ? b : c}", '"${a ? b : c}"'),
        ('"x"', "'\"x\"'"),
        ('"it\'s"', '"\\"it\'s\\""'),
        ("a\nb", '"a\\nb"'),
        ("a\u00a0b", '"a\\xa0b"'),
        ("\u2028", '"\\u2028"'),
        ("\ufeffa", '"\\ufeffa"'),
    ],
)
def test_write_ambiguous_text_quoted(text: str, written: str) -> None:
    assert f"ask: {written}\n" in write(one(AskNode(ask=text)))


def test_write_inline_reference_quoted() -> None:
    assert 'with: {a: "${x}", b: \'${x == "y"}\'}\n' in write(one(tool_with({"a": "${x}", "b": '${x == "y"}'})))


def test_write_mapping_inline_up_to_width() -> None:
    room = MAX_WIDTH - len("    with: {a: }")
    assert f"    with: {{a: {'x' * room}}}\n" in write(one(tool_with({"a": "x" * room})))
    assert f"    with:\n      a: x{'x' * room}\n" in write(one(tool_with({"a": "x" * (room + 1)})))


def test_write_long_key_reads_back() -> None:
    graph = one(tool_with({"k" * 3000: {"k" * 2000: [{"k" * 1500: 1}]}, '"' * 1020: 2}))
    assert read(write(graph), "x").graph == graph


def test_write_input_with_only_type_is_short() -> None:
    inputs = {
        "a": Input(type="str"),
        "b": Input(type="int", default=5, optional=True),
        "c": Input(type="str | null", optional=True),
    }
    graph = Graph(name="one", input=inputs, nodes={"a": AskNode(ask="?")}, output="${a}")
    assert "input: {a: str, b: {type: int, default: 5}, c: {type: str | null, default: null}}\n" in write(graph)


@pytest.mark.parametrize(
    ("retry", "written"),
    [
        (Retry(attempts=4), "4"),
        (Retry(attempts=2, wait=(0.5, 9.0)), "{attempts: 2, wait: [0.5, 9]}"),
        (Retry(attempts=2, within=60), "{attempts: 2, within: 60}"),
        (Retry(attempts=2, wait=(0.5, 9.0), within=2.5), "{attempts: 2, wait: [0.5, 9], within: 2.5}"),
    ],
)
def test_write_default_retry_is_number(retry: Retry, written: str) -> None:
    for graph in (
        one(AskNode(ask="x", retry=retry)),
        one(AskNode(ask="x")).model_copy(update={"defaults": Defaults(retry=retry)}),
    ):
        assert f"retry: {written}" in write(graph)
        assert read(write(graph), "x").graph == graph


def test_write_infinite_number_refused() -> None:
    with pytest.raises(InputError, match="not a finite number"):
        write(one(tool_with({"a": float("nan")})))
