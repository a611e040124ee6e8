"""Edits of answered questions: what the question says and what the calls say change together."""

from __future__ import annotations

import random
from typing import Any

import pytest

from bench.caller_edits import Values, chained, listed, repeated, respectively, retold, slots
from bench.caller_items import Item

CITY, WHOLE, SHARE = {"type": "string"}, {"type": "integer"}, {"type": "float"}
UNIT = {"type": "string", "enum": ["miles", "km"]}
FIND = {
    "name": "find",
    "description": "",
    "parameters": {
        "type": "dict",
        "properties": {
            "city": CITY,
            "radius": WHOLE,
            "discount": SHARE,
            "unit": UNIT,
            "stops": {"type": "array", "items": {"type": "integer"}},
        },
        "required": [],
    },
}


def item(question: str, *calls: dict[str, Any], id: str = "a") -> Item:
    return Item(id, question, (FIND,), tuple({"name": "find", "arguments": call} for call in calls))


CITIES = [item(f"Find one in {city}.", {"city": city}, id=city) for city in ("Oslo", "Rome", "Lima", "Bern")]
VALUES = Values(CITIES)


@pytest.mark.parametrize(
    ("question", "call", "texts"),
    [
        ("Within 5 km of Oslo", {"city": "Oslo", "radius": 5}, ["Oslo", "5"]),
        ("Within 5 km of Oslo, 5 of them", {"city": "Oslo", "radius": 5}, ["Oslo"]),
        ("Within 15 km of Oslo", {"city": "Oslo", "radius": 5}, ["Oslo"]),
        ("Within 5.5 km", {"radius": 5}, []),
        ("By 1,500 km", {"radius": 500}, []),
        ("With 25% off", {"discount": 0.25}, ["25"]),
        ("With 0.25 off", {"discount": 0.25}, ["0.25"]),
        ("In km", {"unit": "km"}, []),
        ("From 10 to 20", {"stops": [10, 20]}, ["10", "20"]),
        ("On 2022-06-01", {"city": "2022-06-01"}, []),
        ("Off or on", {"radius": True}, []),
        ("In Oslo", {"city": "Rome"}, []),
    ],
)
def test_a_value_can_be_told_otherwise_where_it_stands_once(question: str, call: dict[str, Any], texts: list[str]) -> None:
    assert [slot.text for slot in slots(item(question, call))] == texts


def test_a_value_that_two_arguments_share_stays() -> None:
    assert slots(item("Find 5 in Oslo", {"radius": 5, "stops": [5]})) == []
    assert [slot.text for slot in slots(item("5 and 10", {"radius": 5}, {"radius": 10}))] == ["5", "10"]


def test_a_question_is_told_with_other_values() -> None:
    asked = item("Within 5 km of Oslo, with 20% off, 2.5 and 2,000", {"city": "Oslo", "radius": 5, "discount": 0.2})
    made = retold(asked, VALUES, "again")
    assert made is not None
    call = made.calls[0]["arguments"]
    assert made.question == f"Within {call['radius']} km of {call['city']}, with {call['discount'] * 100:g}% off, 2.5 and 2,000"
    assert made.question != asked.question
    assert retold(asked, VALUES, "again") == made, "by rule, and not by chance"
    assert asked.calls[0]["arguments"] == {"city": "Oslo", "radius": 5, "discount": 0.2}, "the item is left as it was"
    assert retold(item("In Oslo", {"city": "Rome"}), VALUES, "again") is None


def test_several_values_are_as_many_calls() -> None:
    made = [one for mark in "abcdefgh" if (one := listed(item("Within 5 km of Oslo.", {"city": "Oslo", "radius": 5}), VALUES, mark))]
    for one in made:
        calls = [call["arguments"] for call in one.calls]
        several = [key for key in ("city", "radius") if len({call[key] for call in calls}) > 1]
        assert len(several) == 1
        texts = [str(call[several[0]]) for call in calls]
        assert f"{', '.join(texts[:-1])} and {texts[-1]}" in one.question
    assert {len(one.calls) for one in made} >= {2, 3}
    shares = listed(item("With 20% off.", {"discount": 0.2}), VALUES, "a")
    assert shares is not None
    assert all(f"{call['arguments']['discount'] * 100:g}%" in shares.question for call in shares.calls)
    assert listed(item("From 10 to 20", {"stops": [10, 20]}), VALUES, "a") is None, "a list is one value of one call"


def test_two_values_that_belong_together_stand_in_one_order() -> None:
    made = respectively(item("Within 5 km of Oslo?", {"city": "Oslo", "radius": 5}), VALUES, "a")
    assert made is not None
    first, second = (call["arguments"] for call in made.calls)
    assert (first["city"], first["radius"]) == ("Oslo", 5)
    assert made.question == f"Within 5 and {second['radius']} km of Oslo and {second['city']}, respectively?"


def test_questions_behind_one_another_have_all_answers() -> None:
    made = repeated(CITIES[0], VALUES, "a")
    assert made is not None
    cities = [call["arguments"]["city"] for call in made.calls]
    assert len(set(cities)) == len(cities) >= 2
    assert [made.question.count(city) for city in cities] == [1] * len(cities)
    assert made.question.startswith("Find one in Oslo")
    chance = random.Random(0)
    two = chained([CITIES[1], item("NASA is where", {"radius": 3})], chance, "x")
    assert two is not None
    assert "NASA" in two.question, "what is in capitals stays"
    other = {**FIND, "description": "another of that name"}
    assert chained([CITIES[1], Item("o", "And?", (other,), ())], chance, "x") is None
