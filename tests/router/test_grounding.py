"""Grounding: the first step reads a required input if some capability can; grammar and validation agree."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest

from orchestra.agents.contract import Contract
from orchestra.router import plan_cache
from orchestra.router.capabilities import Capabilities
from orchestra.router.grounding import grounded
from orchestra.router.plan_grammar import NoValidStepError, plan_grammar, step_grammar
from orchestra.router.plan_syntax import PlanStep, parse_line
from orchestra.router.planner import PlanFound, PlannerQuestion, PlanRequest, advance, start
from orchestra.router.shortlist import shortlist
from orchestra.router.validation import validate_line
from tests.agents.test_evidence_grammar import accepts
from tests.router.sample_capabilities import (
    COMPARE,
    DOCUMENTS,
    READER,
    SEARCH,
    STR,
    SUM,
    contract,
    offer,
    record,
    walked,
)

TEXT = {"question": STR, "text": STR}


def brought(*skills: Contract, grounds: tuple[str, ...] = ("documents",), **more: Any) -> Capabilities:
    return grounded(offer(*skills, **more), grounds)


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_grounding_random_plan_reads_required_input_first(seed: int, stepwise: bool) -> None:
    random, given = Random(seed), brought()
    state, wanted = start(PlanRequest("", given, repairs=0, stepwise=stepwise))
    for _ in range(20):
        if not isinstance(wanted, PlannerQuestion):
            assert isinstance(wanted, PlanFound) or not stepwise  # in one-shot mode the types of steps are unknown
            steps = wanted.plan.steps if isinstance(wanted, PlanFound) else wanted.steps
            assert any(one.path[:1] == ("documents",) for one in steps[0].references)
            return
        text = walked(wanted.inputs["grammar"], random, most=20_000)
        assert text is not None
        state, wanted = advance(state, text)
        assert all(one.code != "R015" for one in state.rejected)
    raise AssertionError("the limits hold")


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("s1 = search(query=input.question, documents=input.documents)", True),
        ("s1 = reader(question=input.question, context=input.documents[0].text)", False),  # one of them is not enough
        ("s1 = [reader(question=input.question, context=x.text) for x in input.documents]", True),
        ('s1 = [search(query=x, documents=input.documents) for x in ["a", "b"]]', True),
        ("s1 = calculator(question=input.question)", False),
        ("s1 = calculator(question=input.documents[0].source)", False),
        ('s1 = [calculator(question=x) for x in ["a", "b"]]', False),
        ('s1 = compare(first=1, second=2, how="more")', False),
    ],
)
def test_grounding_grammar_and_validation_agree_on_first_step(line: str, good: bool) -> None:
    given = brought()
    assert accepts(step_grammar(given), line) is good
    assert accepts(plan_grammar(given), f"{line}\nreturn s1") is good
    assert [fault.code for fault in validate_line(parse_line(line), given, [])] == ([] if good else ["R015"])
    assert accepts(step_grammar(offer()), line)


def test_grounding_later_steps_are_not_restricted() -> None:
    first = parse_line("s1 = search(query=input.question, documents=input.documents)")
    assert isinstance(first, PlanStep)
    line = "s2 = calculator(question=input.question)"
    assert accepts(step_grammar(brought(), [first]), f"\n{line}")
    assert validate_line(parse_line(line), brought(), [first]) == []
    assert accepts(plan_grammar(brought()), f"{first}\n{line}\nreturn s2")


def test_grounding_one_of_several_inputs_suffices() -> None:
    given = brought(READER, SUM, values=TEXT | {"documents": DOCUMENTS}, grounds=("text", "documents"))
    assert accepts(step_grammar(given), "s1 = calculator(question=input.text)")
    assert accepts(step_grammar(given), "s1 = reader(question=input.question, context=input.text)")
    assert not accepts(step_grammar(given), "s1 = reader(question=input.question, context=input.question)")
    (fault,) = validate_line(parse_line("s1 = calculator(question=input.question)"), given, [])
    assert (
        str(fault)
        == "/steps/1: it reads none of the required inputs; the first step must read one of input.text, input.documents"
    )


@pytest.mark.parametrize(
    "given",
    [
        brought(COMPARE),  # no capability takes documents or texts
        brought(
            contract("reading", "agent", {"documents": DOCUMENTS, "sums": {"type": "array", "items": DOCUMENTS}}, STR),
            COMPARE,
        ),
        brought(COMPARE, grounds=()),
    ],
)
def test_grounding_unreadable_input_is_not_required(given: Capabilities) -> None:
    assert given.grounds == frozenset()
    assert accepts(step_grammar(given), 's1 = compare(first=1, second=2, how="more")')


def test_grounding_list_counts_when_elements_are_readable() -> None:
    assert brought(READER).grounds == {"documents"}
    each = contract("sizes", "tool", {"document": {**DOCUMENTS["items"], "$defs": DOCUMENTS["$defs"]}}, STR)
    assert brought(each).grounds == {"documents"}


ROWS: dict[str, Any] = {"type": "array", "items": {"type": "array", "items": STR, "minItems": 1}}
PAIR = contract("pair", "tool", {"first": STR, "second": STR}, STR)
CELLS = contract("cells", "tool", {"row": ROWS["items"], "cell": STR}, STR)
LOOK = contract("look", "agent", {"question": STR, "table": ROWS}, STR)


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("s1 = look(question=input.question, table=input.table)", True),
        (
            "s1 = [calculator(question=x[0]) for x in input.table]",
            False,
        ),  # the rows of a table do not count
        ('s1 = [cells(row=x, cell="a") for x in input.table]', False),
        ("s1 = [pair(first=x[0], second=input.question) for x in input.table]", False),
        ("s1 = [pair(first=x[0], second=input.text) for x in input.table]", True),  # it reads the text
        ('s1 = [pair(first=x, second="a") for x in input.names]', False),  # not a required input
    ],
)
def test_grounding_iterating_table_rows_does_not_read_it(line: str, good: bool) -> None:
    values = {"question": STR, "table": ROWS, "text": STR, "names": {"type": "array", "items": STR}}
    given = brought(SUM, PAIR, CELLS, LOOK, values=values, grounds=("table", "text"))
    assert given.grounds == {"table", "text"}
    assert accepts(step_grammar(given), line) is good
    assert accepts(plan_grammar(given), f"{line}\nreturn s1") is good
    assert [fault.code for fault in validate_line(parse_line(line), given, [])] == ([] if good else ["R015"])


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("s1 = [calculator(question=x.name) for x in input.sheets]", True),
        ("s1 = [calculator(question=x.notes[0]) for x in input.sheets]", False),  # one element of a list is not enough
        ("s1 = [pair(first=x.notes[0], second=x.name) for x in input.sheets]", True),
    ],
)
def test_grounding_single_nested_element_is_not_enough(line: str, good: bool) -> None:
    sheets: dict[str, Any] = {
        "type": "array",
        "items": record({"name": STR, "notes": {"type": "array", "items": STR, "minItems": 1}}),
    }
    given = brought(SUM, PAIR, values={"question": STR, "sheets": sheets}, grounds=("sheets",))
    assert given.grounds == {"sheets"}
    assert accepts(step_grammar(given), line) is good
    assert [fault.code for fault in validate_line(parse_line(line), given, [])] == ([] if good else ["R015"])


def test_grounding_list_without_whole_argument_is_not_required() -> None:
    note = record({"name": STR})
    sheets: dict[str, Any] = {
        "type": "array",
        "items": record({"notes": {"type": "array", "items": note, "minItems": 1}}),
    }
    first = contract("first", "tool", {"note": note}, STR)
    assert (
        brought(first, COMPARE, values={"question": STR, "sheets": sheets}, grounds=("sheets",)).grounds == frozenset()
    )


def test_grounding_nested_list_reads_both() -> None:
    mark = record({"name": STR})
    notes = {"type": "array", "items": record({"mark": mark}), "minItems": 1}
    two = contract("two", "tool", {"all": notes, "first": mark}, STR)
    values = {"question": STR, "sheets": {"type": "array", "items": record({"notes": notes})}}
    given = brought(two, COMPARE, values=values, grounds=("sheets",))
    line = "s1 = [two(all=x.notes, first=x.notes[0].mark) for x in input.sheets]"
    assert given.grounds == {"sheets"}
    assert accepts(step_grammar(given), line)
    assert validate_line(parse_line(line), given, []) == []


def test_grounding_hint_says_to_pass_whole_table() -> None:
    given = brought(SUM, CELLS, LOOK, values={"question": STR, "table": ROWS}, grounds=("table",))
    (fault,) = validate_line(parse_line("s1 = [cells(row=x, cell=x[0]) for x in input.table]"), given, [])
    assert fault.hint == "pass all of input.table to a capability, not row by row"


def test_grounding_table_without_reader_is_not_required() -> None:
    assert brought(SUM, PAIR, CELLS, values={"question": STR, "table": ROWS}, grounds=("table",)).grounds == frozenset()


def test_grounding_separates_plan_cache_contexts() -> None:
    assert plan_cache.context_digest(brought(SEARCH), "router") != plan_cache.context_digest(offer(SEARCH), "router")


def test_grounding_line_without_input_is_refused() -> None:
    faults = validate_line(parse_line("s1 = calculator(question=input)"), brought(), [])
    assert [fault.code for fault in faults] == ["R015", "R004"]


def test_grounding_other_list_is_not_enough() -> None:
    texts = {"type": "array", "items": STR}
    given = brought(SUM, READER, values=TEXT | {"texts": texts}, grounds=("text",))
    line = "s1 = [calculator(question=x) for x in input.texts]"
    assert not accepts(step_grammar(given), line)
    assert [fault.code for fault in validate_line(parse_line(line), given, [])] == ["R015"]
    both = "s1 = [reader(question=x, context=input.text) for x in input.texts]"
    assert accepts(step_grammar(given), both)
    assert validate_line(parse_line(both), given, []) == []


def test_grounding_record_field_or_its_list_suffices() -> None:
    report = record({"title": STR, "rows": {"type": "array", "items": record({"name": STR})}})
    given = brought(SUM, values={"question": STR, "report": report}, grounds=("report",))
    for line in (
        "s1 = calculator(question=input.report.title)",
        "s1 = [calculator(question=x.name) for x in input.report.rows]",
    ):
        assert accepts(step_grammar(given), line)
        assert validate_line(parse_line(line), given, []) == []


def test_grounding_one_step_plan_requires_only_answering_reads() -> None:
    truth = {"type": "boolean"}
    assert brought(SEARCH, COMPARE, steps=2, returns=truth).grounds == {"documents"}
    given = brought(SEARCH, COMPARE, steps=1, returns=truth)
    assert accepts(step_grammar(given), 's1 = compare(first=1, second=2, how="more")')
    assert not given.grounds
    with pytest.raises(NoValidStepError):
        step_grammar(brought(SEARCH, steps=1, returns=truth))


def test_shortlist_keeps_reader_of_required_input() -> None:
    sums = [
        contract(f"calc{number}", "agent", {"question": STR}, STR, says="Computes a sum of numbers.")
        for number in range(6)
    ]
    given = shortlist(brought(*sums, SEARCH), "the sum of these numbers", 3)
    assert "search" in given.by_name
    assert len(given.by_name) == 3
    assert given.grounds == {"documents"}, "what was settled on the whole offer holds of the shortlist too"
    assert "search" not in shortlist(offer(*sums, SEARCH), "the sum of these numbers", 3).by_name
