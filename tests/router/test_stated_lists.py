"""Stated lists to iterate over: several similar calls in one line, from the notation to the workflow."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.router.capabilities import Capabilities
from orchestra.router.plan import Plan, rebase_line, to_workflow
from orchestra.router.plan_grammar import MAX_ITEMS, plan_grammar, step_grammar
from orchestra.router.plan_syntax import PlanAnswer, PlanLiteral, PlanReference, PlanStep, PlanSyntaxError, parse_line
from orchestra.router.tool_turns import step_workflow
from orchestra.router.validation import validate_line
from orchestra.schema.types import Schema
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.cost_bounds import compute_bounds
from orchestra.workflows.expressions.parser import MAX_LENGTH
from orchestra.workflows.model import PlanLimits
from orchestra.workflows.yaml.reader import read as read_file
from orchestra.workflows.yaml.writer import write
from tests.agents.test_evidence_grammar import accepts
from tests.router.sample_capabilities import ALL, DOCUMENTS, STR, contract, offer, walked
from tests.router.test_plan_grammar import CATALOG, steps

READINGS = 's1 = [reader(question=x, context=input.question) for x in ["Where is it?", "How high is it?"]]'
WORDS = "Where is it? How high is it? Is 2 more than 1, or 3 less?"
TAG = contract("tag", "tool", {"text": STR, "tags": {"type": "array", "items": STR}}, STR)
DATE = contract("on", "tool", {"day": {"type": "string", "format": "date"}}, STR)


def narrow(width: int, words: str = "", steps: int = 6) -> Capabilities:
    """All capabilities, for lists of at most this many elements."""
    made = offer(*ALL, TAG, DATE, words=words)
    return Capabilities(
        made.by_name, made.inputs, made.output_type, PlanLimits(steps=steps, width=width), made.request_text
    )


def test_stated_list_round_trips() -> None:
    line = parse_line(READINGS)
    assert isinstance(line, PlanStep)
    assert line.each == PlanLiteral(["Where is it?", "How high is it?"])
    assert line.references == (PlanReference("input", ("question",)),)
    assert str(line) == READINGS


@pytest.mark.parametrize(
    ("text", "reason", "column"),
    [
        ('s1 = [a(b=x) for x in ["c", "d"]', "expected ']'", 33),
        ('s1 = [a(b=x) for x in ["c", "d"', "the text or the list that begins here does not end", 23),
        ("s1 = [a(b=x) for x in [1, 2,]]", "no JSON", 23),
        ('s1 = [a(b=x) for x in "cd"]', "expected a value", 23),
        ('s1 = [a(b=x) for x in {"c": 1}]', "expected a value", 23),
    ],
)
def test_stated_list_invalid_states_column(text: str, reason: str, column: int) -> None:
    with pytest.raises(PlanSyntaxError) as caught:
        parse_line(text)
    assert caught.value.reason.startswith(reason)
    assert caught.value.column == column


@pytest.mark.parametrize(
    ("line", "codes"),
    [
        (READINGS, []),
        ('s1 = [compare(first=x, second=1, how="more") for x in [2, 3]]', []),
        ('s1 = [compare(first=x, second=x, how="more") for x in [2, 3.5]]', []),
        ('s1 = [compare(first=2, second=1, how=x) for x in ["more", "less"]]', []),
        ('s1 = [on(day=x) for x in ["2020-01-31", "2021-12-01"]]', []),
        ('s1 = [calculator(question=x) for x in ["more", "less"]]', []),  # they occur in the request as well
        ('s1 = [calculator(question=x) for x in ["Where", "Here"]]', ["R012"]),  # not part of it
        ('s1 = [calculator(question=x) for x in ["Here", "There"]]', ["R012", "R012"]),
        ('s1 = [calculator(question=x) for x in ["Where", 2]]', ["R005"]),
        ('s1 = [compare(first=x, second=1, how="more") for x in ["Where", "is"]]', ["R005", "R005"]),
        ('s1 = [compare(first=2, second=1, how=x) for x in ["more", "most"]]', ["R005"]),
        ('s1 = [on(day=x) for x in ["2020-01-31", "2021-13-01"]]', ["R005"]),
        ('s1 = [calculator(question=x.text) for x in ["Where", "is"]]', ["R004"]),
        ('s1 = [calculator(question=input.question) for x in ["Where", "is"]]', ["R003"]),
        ("s1 = [tag(text=input.question, tags=x) for x in [2, 3]]", ["R005", "R005"]),
        ("s1 = [calculator(question=x) for x in []]", ["R005"]),
        ("s1 = [calculator(question=x) for x in [null, null]]", ["R005"]),
        ('s1 = [tag(text=input.question, tags=x) for x in [["Where"], ["is"]]]', ["R005"]),
        ('s1 = [search(query="it", documents=x) for x in [[{"source": "a", "text": "b"}]]]', ["R005"]),
        (f's1 = [calculator(question=x) for x in {json.dumps(["it"] * 5)}]', ["R006"]),
        (f"s1 = [compare(first=x, second=1, how=\"more\") for x in [1, {2**53 + 1}]]", ["R005"]),
    ],
)  # fmt: skip
def test_stated_list_grammar_and_validation_agree(line: str, codes: list[str]) -> None:
    offered = narrow(4, WORDS)
    assert [one.code for one in validate_line(parse_line(line), offered, [])] == codes
    assert accepts(step_grammar(offered), line) is (not codes)


def test_stated_list_respects_width_and_line_limits() -> None:
    for width in (1, 2, 4, 20):
        grammar = step_grammar(narrow(width, words=WORDS))
        for count in (1, 2, 4, MAX_ITEMS, MAX_ITEMS + 1):
            line = f"s1 = [calculator(question=x) for x in {json.dumps(['it'] * count)}]"
            assert accepts(grammar, line) is (2 <= count <= min(width, MAX_ITEMS)), line
            assert (validate_line(parse_line(line), narrow(width, words=WORDS), []) == []) is (count <= width)
    for width, most in ((2, 200), (4, 100), (8, 50)):
        grammar = step_grammar(narrow(width))
        for count in (most, most + 1):
            assert accepts(grammar, f's1 = [calculator(question=x) for x in ["{"a" * count}", "b"]]') is (count <= most)


def test_stated_list_inexpressible_is_refused() -> None:
    fits, longer = (
        parse_line(f's1 = [calculator(question=x) for x in ["{"a" * size}"]]')
        for size in (MAX_LENGTH - 7, MAX_LENGTH - 6)
    )
    assert validate_line(fits, offer(), []) == []
    assert [one.code for one in validate_line(longer, offer(), [])] == ["R006"]
    program(fits, offer())


@pytest.mark.parametrize(
    ("again", "otherwise"),
    [
        (READINGS, READINGS.replace("context=input.question", 'context="it"')),
        (READINGS, READINGS.replace('["Where is it?"', '["Where"')),
        (READINGS, "s1 = [reader(question=x.text, context=input.question) for x in input.documents]"),
        (
            's1 = [compare(first=x, second=1, how="more") for x in [2, 3]]',
            's1 = [compare(first=x, second=1, how="more") for x in [3, 2]]',
        ),
        (
            's1 = [compare(first=x, second=1, how="more") for x in [2, 3]]',
            's1 = [compare(first=2, second=1, how=x) for x in ["less", "more"]]',
        ),
        ("s1 = [tag(text=x, tags=[]) for x in [\"it\", \"is\"]]",
        "s1 = [tag(text=x, tags=[]) for x in [\"is\", \"it\"]]"),
    ],
)  # fmt: skip
def test_stated_list_earlier_call_is_not_repeated(again: str, otherwise: str) -> None:
    offered, taken = narrow(4, WORDS), steps(again)
    grammar = step_grammar(offered, taken)
    for line, good in ((again, False), (otherwise, True)):
        line = line.replace("s1 =", "s2 =")
        assert (validate_line(parse_line(line), offered, taken) == []) is good, line
        assert accepts(grammar, f"\n{line}") is good, line


def test_stated_list_element_types_are_kept_apart() -> None:
    """`x` is a number in `first`, so it must not be passed there if the list is of enum values."""
    offered, taken = narrow(4, WORDS), steps('s1 = [compare(first=x, second=1, how="more") for x in [2, 3]]')
    line = 's2 = [compare(first=x, second=1, how=x) for x in ["more", "less"]]'
    assert validate_line(parse_line(line), offered, taken)
    assert not accepts(step_grammar(offered, taken), f"\n{line}")


def program(line: Any, offered: Capabilities, answer: str = "s1") -> Any:
    return compile_graph(to_workflow(Plan((line,), PlanAnswer((PlanReference(answer),))), offered, "listed"), CATALOG)


@pytest.mark.parametrize("words", ["", WORDS])
def test_stated_list_random_plan_is_valid_and_compiles(words: str) -> None:
    offered, found = offer(words=words), 0
    for seed in range(150):
        text = walked(step_grammar(offered), Random(seed))
        line = parse_line(text.splitlines()[0]) if text is not None else None
        if isinstance(line, PlanStep) and isinstance(line.each, PlanLiteral):
            found += 1
            assert validate_line(line, offered, []) == []
            (node,) = program(line, offered).nodes
            assert node.each is not None
            assert node.each.evaluate({}) == line.each.value
    assert found >= 5


def test_plan_grammar_accepts_stated_list() -> None:
    text = f"{READINGS}\ns2 = cite(question=input.question, readings=s1, passages=s1)\nreturn s2"
    assert accepts(plan_grammar(offer()), text.replace(", passages=s1", "")) is False  # cite needs passages
    assert accepts(plan_grammar(offer()), f"{READINGS}\nreturn s1")
    assert not accepts(plan_grammar(offer(words="it")), f"{READINGS}\nreturn s1")


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12) | st.sampled_from(
    [
        "${input.question}",
        "$${x}",
        "a } b",
        "{",
        '"""',
        "'",
        "\\",
        "\\u0024",
        "$",
        "a\nb\t\r",
        "\u2028\x00\x7f",
        "\N{GRINNING FACE}",
        "",
    ]
)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
ANYTHING: Schema = {"anyOf": [STR, {"type": "number"}, {"type": "boolean"}]}


@given(st.lists(TEXTS, min_size=1, max_size=4) | st.lists(NUMBERS | st.booleans() | TEXTS, min_size=1, max_size=4))
def test_stated_list_any_content_survives_workflow_file(values: list[Any]) -> None:
    anything = contract("anything", "tool", {"of": ANYTHING}, STR)
    offered = Capabilities.of([anything], {})
    line = PlanStep("s1", "anything", {"of": PlanReference("x")}, PlanLiteral(values))
    assert parse_line(str(line)) == line
    assert validate_line(line, offered, []) == []
    graph = to_workflow(Plan((line,), PlanAnswer((PlanReference("s1"),))), offered, "listed")
    assert read_file(write(graph), "listed.yaml").graph == graph
    catalog = CATALOG.__class__(tools={"anything": anything}, models=CATALOG.models)
    (node,) = compile_graph(graph, catalog).nodes
    assert node.each is not None
    assert node.each.evaluate({}) == values


def test_stated_list_workflow_file() -> None:
    graph = to_workflow(Plan((parse_line(READINGS),), PlanAnswer((PlanReference("s1"),))), offer(), "listed")  # type: ignore[arg-type]
    assert 'each: ${["Where is it?", "How high is it?"]}' in write(graph).replace("'", "")
    node = graph.nodes["s1"].model_dump(by_alias=True, exclude_defaults=True)
    assert node["with"] == {"question": "${x}", "context": "${input.question}"}
    assert graph.output == "${s1.values}"


def test_stated_list_length_counts_for_budget() -> None:
    (node,) = program(parse_line(READINGS), offer()).nodes
    assert node.limit == 8
    assert [row.elements for row in compute_bounds(program(parse_line(READINGS), offer()), {}, {})] == [2]


def test_stated_list_survives_revision_and_tool_turn() -> None:
    line = parse_line(READINGS)
    assert isinstance(line, PlanStep)
    assert str(rebase_line(line, {"s9": "s9"})) == READINGS
    graph = step_workflow(line, offer(values={"question": STR, "documents": DOCUMENTS}), [], "turn")
    assert graph.nodes["s1"].each == '${["Where is it?", "How high is it?"]}'
