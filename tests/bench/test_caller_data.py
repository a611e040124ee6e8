"""Rows of function calls: one right answer each, of the values that are accepted; what is made of them by rule."""

from __future__ import annotations

from typing import Any

import pytest

from bench.caller_data import Item, NoAnswer, among, answered, chosen, joined, unanswerable


def function(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {"name": name, "description": "", "parameters": {"type": "dict", "properties": properties, "required": list(required)}}


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
SUM = function("sum", ("a",), a=WHOLE, b=WHOLE)


@pytest.mark.parametrize(
    ("accepted", "declared", "needed", "value"),
    [
        (["NY", "New York"], TEXT, True, "New York"),
        (["NY", "new york"], TEXT, True, "new york"),
        (["NY", "NYC"], TEXT, True, "NY"),
        (["", "New York"], TEXT, False, ""),
        (["", "New York"], TEXT, True, "New York"),
        (["x", 3], WHOLE, True, 3),
        ([{"w": [1, 2], "h": ["", 5]}], {"type": "dict", "properties": {"h": WHOLE, "w": WHOLE}}, True, {"w": 2}),
        ([[{"n": ["a"]}]], {"type": "array", "items": {"type": "dict", "properties": {"n": TEXT}}}, True, [{"n": "a"}]),
    ],
)
def test_of_the_accepted_values_one_is_taken(accepted: Any, declared: Any, needed: bool, value: Any) -> None:
    assert chosen(accepted, declared, "Is New York 2 or 7?", needed) == value


def test_values_of_another_type_are_no_answer() -> None:
    with pytest.raises(NoAnswer):
        chosen(["x"], WHOLE, "x", True)
    with pytest.raises(NoAnswer):
        answered({"sum": {"a": [1], "c": [2]}}, [SUM], "1 and 2")


def test_arguments_stand_in_the_order_of_their_declaration() -> None:
    made = answered({"sum": {"b": [2, ""], "a": [1]}}, [SUM], "1")
    assert made == {"name": "sum", "arguments": {"a": 1}}
    assert list(answered({"sum": {"b": [2], "a": [1]}}, [SUM], "1 2")["arguments"]) == ["a", "b"]


def item(number: int, name: str, *, more: tuple[Any, ...] = (), calls: int = 1) -> Item:
    tool = function(name, x=TEXT)
    made = tuple({"name": name, "arguments": {"x": f"value {number}"}} for _ in range(calls))
    return Item(f"{name}-{number}", f"What of value {number}?", (tool, *more), made)


ITEMS = [item(number, f"tool{number}") for number in range(300)]


def test_a_question_among_other_functions_keeps_its_own_and_its_answer() -> None:
    made = among(ITEMS)
    assert made == among(ITEMS), "by rule, and not by chance"
    assert {len(one.functions) for one in made} == {1, 2, 3}
    for before, after in zip(ITEMS, made, strict=True):
        assert (after.question, after.calls) == (before.question, before.calls)
        names = [one["name"] for one in after.functions]
        assert before.functions[0]["name"] in names
        assert len(set(names)) == len(names)


def test_without_its_function_a_question_has_no_answer() -> None:
    several = item(1, "tool1", more=(SUM,))
    (made,) = (one for one in unanswerable([several]) if one.id.endswith("without"))
    assert (made.functions, made.calls) == ((SUM,), ())
    assert all(one.calls == () for one in unanswerable(ITEMS))
    assert all(not {"tool"} & {call["name"] for call in one.calls} for one in unanswerable(ITEMS))


def test_two_questions_together_have_both_answers() -> None:
    pairs = [one for one in joined(ITEMS) if "-and-" in one.id]
    assert len(pairs) == 100
    for pair in pairs:
        assert {call["name"] for call in pair.calls} == {one["name"] for one in pair.functions}
        assert [pair.question.index(call["arguments"]["x"]) for call in pair.calls] == sorted(
            pair.question.index(call["arguments"]["x"]) for call in pair.calls
        )
