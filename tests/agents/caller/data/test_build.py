"""Rows of function calls: one correct answer each from the accepted values; derived rows."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

import pytest

from agents.caller.data.build import NoAnswer, among, answered, chosen, edited, unanswerable
from agents.caller.data.items import Item
from orchestra.agents.card import Card
from orchestra.agents.registry import builtin_folder
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator


def function(name: str, required: tuple[str, ...] = (), **properties: Any) -> dict[str, Any]:
    return {
        "name": name,
        "description": "",
        "parameters": {"type": "dict", "properties": properties, "required": list(required)},
    }


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
def test_caller_takes_one_accepted_value(accepted: Any, declared: Any, needed: bool, value: Any) -> None:
    assert chosen(accepted, declared, "Is New York 2 or 7?", needed) == value


def test_caller_values_of_other_type_refused() -> None:
    with pytest.raises(NoAnswer):
        chosen(["x"], WHOLE, "x", True)
    with pytest.raises(NoAnswer):
        answered({"sum": {"a": [1], "c": [2]}}, [SUM], "1 and 2")


def test_caller_arguments_in_declared_order() -> None:
    made = answered({"sum": {"b": [2, ""], "a": [1]}}, [SUM], "1")
    assert made == {"name": "sum", "arguments": {"a": 1}}
    assert list(answered({"sum": {"b": [2], "a": [1]}}, [SUM], "1 2")["arguments"]) == ["a", "b"]


def item(number: int, name: str, *, more: tuple[Any, ...] = (), calls: int = 1) -> Item:
    tool = function(name, x=TEXT)
    made = tuple({"name": name, "arguments": {"x": f"value {number}"}} for _ in range(calls))
    return Item(f"{name}-{number}", f"What has n{number} of value {number}?", (tool, *more), made)


ITEMS = [item(number, f"tool{number}") for number in range(300)]


def test_caller_among_keeps_function_and_answer() -> None:
    made = among(ITEMS)
    assert made == among(ITEMS), "by rule, and not by chance"
    assert {len(one.functions) for one in made} == {1, 2, 3}
    for before, after in zip(ITEMS, made, strict=True):
        assert (after.question, after.calls) == (before.question, before.calls)
        names = [one["name"] for one in after.functions]
        assert before.functions[0]["name"] in names
        assert len(set(names)) == len(names)


def test_caller_without_function_has_no_answer() -> None:
    several = item(1, "tool1", more=(SUM,))
    (made,) = (one for one in unanswerable([several]) if one.id.endswith("without"))
    assert (made.functions, made.calls) == ((SUM,), ())
    assert all(one.calls == () for one in unanswerable(ITEMS))
    assert {one.id.split("-")[2] for one in unanswerable(ITEMS)} == {"strange"}
    assert {one.system for one in unanswerable([replace(item, system="Be kind.") for item in (several, *ITEMS)])} == {
        "Be kind."
    }
    assert all(not {"tool"} & {call["name"] for call in one.calls} for one in unanswerable(ITEMS))


def test_caller_edited_keeps_functions() -> None:
    made = list(edited(ITEMS))
    assert made == list(edited(ITEMS)), "by rule, and not by chance"
    assert {"chain", "retold0", "listed0", "repeated1"} <= {one.id.split("-")[2] for one in made}
    for one in made:
        called, offered = {call["name"] for call in one.calls}, {function["name"] for function in one.functions}
        assert called <= offered
        assert len(offered - called) <= 1
        assert re.findall(r"value \d+", one.question) == [call["arguments"]["x"] for call in one.calls]
    assert {len(one.calls) for one in made} == {1, 2, 3, 4}
    assert len({one.question for one in made} | {one.question for one in ITEMS}) == len(made) + len(ITEMS), (
        "none says what another says"
    )
    assert digest(canonical([one.row().input for one in made])) == "1ce83f544369dc02130e32de11af129b", (
        "by rule, in every process"
    )


def test_caller_system_text_is_optional_input() -> None:
    fits = Validator(Card.load(builtin_folder("agents") / "caller").input_schema)
    told = replace(ITEMS[0], system="Today is Monday.")
    assert fits.check(ITEMS[0].row().input) is None
    assert told.row().input["system"] == "Today is Monday."
    assert fits.check(told.row().input) is None
