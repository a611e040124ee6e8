"""A first step reads something of what was brought along, where some skill can: the grammar and the gates say the same."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from orchestra.router import cache
from orchestra.router.gates import judge
from orchestra.router.grammar import plan_grammar, step_grammar
from orchestra.router.notation import Step, read
from orchestra.router.offer import Offer
from orchestra.router.planner import Ask, Planned, Request, go_on, start
from orchestra.values.types import Schema
from tests.agent.test_grammar import accepts
from tests.router.house import COMPARE, DOCUMENTS, READER, SEARCH, STR, SUM, contract, offer, walked

TEXT = {"question": STR, "text": STR}


def grounded(*skills: object, values: dict[str, Schema] | None = None, grounds: tuple[str, ...] = ("documents",)) -> Offer:
    return replace(offer(*skills, values=values), grounds=grounds)  # type: ignore[arg-type]


@pytest.mark.parametrize("stepwise", [True, False])
@pytest.mark.parametrize("seed", range(12))
def test_a_plan_that_is_drawn_begins_with_what_was_brought_along(seed: int, stepwise: bool) -> None:
    random, given = Random(seed), grounded()
    state, wanted = start(Request("", given, repairs=0, stepwise=stepwise))
    for _ in range(20):
        if not isinstance(wanted, Ask):
            assert isinstance(wanted, Planned) or not stepwise  # at once nobody knows the types of steps yet
            steps = wanted.plan.steps if isinstance(wanted, Planned) else wanted.steps
            assert any(one.path[:1] == ("documents",) for one in steps[0].references)
            return
        text = walked(wanted.inputs["grammar"], random, most=20_000)
        assert text is not None
        state, wanted = go_on(state, text)
        assert all(one.code != "R015" for one in state.rejected)
    raise AssertionError("the limits hold")


@pytest.mark.parametrize(
    ("line", "good"),
    [
        ("s1 = search(query=input.question, documents=input.documents)", True),
        ("s1 = reader(question=input.question, context=input.documents[0].text)", True),
        ("s1 = [reader(question=input.question, context=x.text) for x in input.documents]", True),
        ('s1 = [search(query=x, documents=input.documents) for x in ["a", "b"]]', True),
        ("s1 = calculator(question=input.question)", False),
        ("s1 = calculator(question=input.documents[0].source)", True),
        ('s1 = [calculator(question=x) for x in ["a", "b"]]', False),
        ('s1 = compare(first=1, second=2, how="more")', False),
    ],
)
def test_grammar_and_gates_agree_on_a_first_step(line: str, good: bool) -> None:
    given = grounded()
    assert accepts(step_grammar(given), line) is good
    assert accepts(plan_grammar(given), f"{line}\nreturn s1") is good
    assert [fault.code for fault in judge(read(line), given, [])] == ([] if good else ["R015"])
    assert accepts(step_grammar(offer()), line)


def test_any_other_step_reads_what_it_likes() -> None:
    first = read("s1 = search(query=input.question, documents=input.documents)")
    assert isinstance(first, Step)
    line = "s2 = calculator(question=input.question)"
    assert accepts(step_grammar(grounded(), [first]), f"\n{line}")
    assert judge(read(line), grounded(), [first]) == []
    assert accepts(plan_grammar(grounded()), f"{first}\n{line}\nreturn s2")


def test_one_of_several_values_is_enough_and_the_question_is_none_of_them() -> None:
    given = grounded(READER, SUM, values=TEXT | {"documents": DOCUMENTS}, grounds=("text", "documents"))
    assert accepts(step_grammar(given), "s1 = calculator(question=input.text)")
    assert accepts(step_grammar(given), "s1 = reader(question=input.question, context=input.text)")
    assert not accepts(step_grammar(given), "s1 = reader(question=input.question, context=input.question)")
    (fault,) = judge(read("s1 = calculator(question=input.question)"), given, [])
    assert str(fault) == "/steps/1: it reads nothing of what was brought along; the first step reads one of input.text, input.documents"


@pytest.mark.parametrize(
    "given",
    [
        grounded(COMPARE),  # nobody takes documents, nor texts
        grounded(contract("reading", "agent", {"documents": DOCUMENTS, "sums": {"type": "array", "items": DOCUMENTS}}, STR), COMPARE),
        grounded(COMPARE, grounds=()),
    ],
)
def test_where_no_skill_can_read_it_at_once_nothing_is_demanded(given: Offer) -> None:
    assert given.must_read == frozenset()
    assert accepts(step_grammar(given), 's1 = compare(first=1, second=2, how="more")')


def test_a_list_counts_where_only_its_elements_can_be_read() -> None:
    assert grounded(READER).must_read == {"documents"}
    each = contract("sizes", "tool", {"document": {**DOCUMENTS["items"], "$defs": DOCUMENTS["$defs"]}}, STR)
    assert grounded(each).must_read == {"documents"}


def test_a_plan_that_served_without_the_rule_is_not_recalled_under_it() -> None:
    assert cache.shape(grounded(SEARCH), "router") != cache.shape(offer(SEARCH), "router")
