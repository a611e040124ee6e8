"""Tests of values between nodes: typed dicts, dataclasses, local models, long texts, nested lists."""

from __future__ import annotations

from dataclasses import dataclass

import pytest
from pydantic import BaseModel, Field
from typing_extensions import TypedDict

from orchestra import (
    Answer,
    Document,
    InputError,
    Reading,
    accepted,
    agent,
    build,
    length,
    map_,
    numbers,
    or_else,
    require,
    tool,
    values,
    when,
    workflow,
)
from orchestra.schema.json_schema import format_type
from orchestra.workflows.model import CallNode, NodeBlock
from tests.workflows.ensemble import calculator, cite, compiled, graph_of, reader


class Info(TypedDict):
    name: str
    count: int


@dataclass
class Point:
    x: float
    y: float


@tool(effect="pure")
def info(text: str) -> Info:
    return {"name": text, "count": len(text)}


@tool(effect="pure")
def norm(point: Point) -> float:
    return point.x * point.x + point.y * point.y


@tool(effect="pure")
def found(text: str) -> str | None:
    return text or None


def test_fallback_null_is_reference() -> None:
    @workflow()
    def flow(text: str) -> str:
        said = found.options(fallback=None)(text=text)
        return or_else(said, "nothing")

    assert flow.graph.nodes["said"].fallback == "${null}"
    fallback = compiled(flow).nodes[0].fallback
    assert fallback is not None
    assert fallback.evaluate({}) is None


def test_workflow_returns_list_of_outputs() -> None:
    @workflow
    def flow(text: str) -> list[str]:
        first = found(text=text)
        return [info(text=text)["name"], or_else(first, "nothing")]

    assert flow.graph.output == ["${info.name}", '${first != null ? first : "nothing"}']
    assert [format_type(part) for part in compiled(flow).output_schema["prefixItems"]] == ["str", "str"]


class Tree(BaseModel):
    weight: float
    left: Tree | None = None
    children: list[Tree] | None = None


@tool(effect="pure")
def grafted(trees: list[Tree], sums: list[float]) -> Tree:
    return Tree(weight=sum(sums), children=trees)


def test_recursive_model_is_input() -> None:
    @workflow()
    def flow(tree: Tree) -> Tree:
        children = or_else(tree.children, [])
        sums = map_(lambda one: one.weight + 1.0, children)
        return grafted(trees=children, sums=sums)

    inputs = compiled(flow).nodes[0].inputs
    assert inputs is not None
    given = {"input": {"tree": {"weight": 1, "children": [{"weight": 2, "children": [{"weight": 3}]}]}}}
    assert inputs.evaluate(given)["sums"] == [3.0]


def test_typed_dict_and_dataclass_are_records() -> None:
    def odd(text: str) -> float:
        found = info(text=text)
        name = found["name"]
        name += "!"
        first = norm(point=build(Point, x=-found["count"], y=length(name)))
        return first + norm(point=Point(1, 2))

    nodes = graph_of(odd).nodes
    assert nodes["first"].with_ == {"point": {"x": "${0 - found.count}", "y": '${size(found.name + "!")}'}}  # type: ignore[union-attr]
    assert nodes["norm"].with_ == {"point": {"x": 1, "y": 2}}  # type: ignore[union-attr]


def test_long_text_concatenation_accepted() -> None:
    def long(question: str) -> Answer:
        text = question
        for _ in range(100):
            text = text + " and " + question
        return calculator(question=text)

    text = graph_of(long).nodes["calculator"].with_["question"]  # type: ignore[union-attr]
    assert text == "${input.question}" + " and ${input.question}" * 100


def test_nested_maps_traced() -> None:
    def table(question: str, rows: list[list[str]]) -> list[list[Reading]]:
        return map_(lambda row: map_(lambda cell: reader(question=question, context=cell), row), rows)

    node = graph_of(table).nodes["mapped"]
    assert isinstance(node, CallNode)
    assert isinstance(node.call, NodeBlock)
    assert (node.each, node.call.nodes["reader"].each, node.call.output) == (
        "${input.rows}",
        "${row}",
        "${reader.values}",
    )


def test_local_types_resolved() -> None:
    class Own(BaseModel):
        value: int

    @tool(effect="pure")
    def same(own: Own) -> Own:
        return own

    @workflow()
    def local(own: Own) -> Own:
        return same(own=own)

    compiled(local)
    assert local.graph.input["own"].type == "Own"
    assert [*local.models] == ["Own"]
    assert local.read({"value": 3}) == Own(value=3)


def test_aliases_name_inputs() -> None:
    class Aliased(BaseModel):
        text: str = Field(alias="content")

    step = agent("aliased", Aliased, str)

    def wired(question: str) -> str:
        return step(content=question)

    assert graph_of(wired).nodes["aliased"].with_ == {"content": "${input.question}"}  # type: ignore[union-attr]


def test_build_accepts_model() -> None:
    @workflow()
    def none(question: str) -> int:
        calculator(question=question)
        return build(int, question)

    with pytest.raises(InputError, match=r"build\(\) takes the fields by name"):
        assert none.graph


def test_workflow_models_include_callees() -> None:
    class Inner(BaseModel):
        value: int

    class Outer(BaseModel):
        inner: Inner

    @tool(effect="pure")
    def take(inner: Inner) -> str:
        return str(inner.value)

    @workflow()
    def below(inner: Inner) -> str:
        return take(inner=inner)

    @workflow()
    def middle(text: str) -> str:
        return below(inner=Inner(value=len("text")))

    @workflow()
    def above(outer: Outer) -> str:
        first = middle(text="x")
        return below(inner=build(Inner, value=length(first)))

    assert [*middle.models] == ["Inner"]
    assert sorted(above.models) == ["Inner", "Outer"]


def test_referenced_node_keeps_name() -> None:
    def late(question: str) -> Answer:
        drafts = [calculator(question=question)]
        again = calculator(question=or_else(drafts[0].text, ""))
        final = accepted(drafts[0], checks=numbers, against=question)
        return cite(question=or_else(final.text, "") + or_else(again.text, ""), readings=[])

    graph = graph_of(late)
    assert [*graph.nodes] == ["calculator", "again", "cite"]
    assert graph.nodes["calculator"].checks == ("numbers",)


def test_guarded_map_keeps_element_conditions() -> None:
    def guarded(question: str, documents: list[Document], short: bool) -> list[Reading]:
        found = when(
            short,
            lambda: values(
                map_(lambda one: when(one.text != "", reader(question=question, context=one.text)), documents)
            ),
        )
        return require(found)

    node = graph_of(guarded).nodes["found"]
    assert isinstance(node, CallNode)
    assert isinstance(node.call, NodeBlock)
    assert (node.when, node.call.nodes["reader"].when) == ("${input.short}", '${one.text != ""}')
