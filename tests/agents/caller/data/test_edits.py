"""Edits of answered questions: question and calls change together."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest

from agents.caller.data.edits import Values, chained, listed, repeated, respectively, retold, slots
from agents.caller.data.items import Item

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
            "year": WHOLE,
            "discount": SHARE,
            "unit": UNIT,
            "stops": {"type": "array", "items": {"type": "integer"}},
        },
        "required": [],
    },
}


def item(question: str, *calls: dict[str, Any], id: str = "a") -> Item:
    return Item(id, question, (FIND,), tuple({"name": "find", "arguments": call} for call in calls))


YEAR = item("News of 1871", {"year": 1871})
CITIES = [item(f"Find one in {city}.", {"city": city}, id=city) for city in ("Oslo", "Rome", "Lima", "Bern")]
VALUES = Values(CITIES)


@pytest.mark.parametrize(
    ("question", "call", "texts"),
    [
        ("Within 5 km of Oslo", {"city": "Oslo", "radius": 5}, ["Oslo", "5"]),
        ("Within 5 km of Oslo, 5 of them", {"city": "Oslo", "radius": 5}, ["Oslo"]),
        ("Within 15 km of Oslo", {"city": "Oslo", "radius": 5}, []),
        ("Within five km of Oslo", {"city": "Oslo", "radius": 5}, ["Oslo"]),
        ("I am 49, and Jane a year older", {"radius": 50, "stops": [49]}, []),
        ("News of 2022-06-01", {"city": "2022-06-01", "radius": 2022}, []),
        ("Room 5", {"radius": 5, "city": "5"}, []),
        ("At Oslo Central, in Oslo", {"city": "Oslo Central"}, ["Oslo Central"]),
        ("In Oslo", {"city": "Oslo", "discount": 0.5}, []),
        ("The 5 in Oslo", {"city": "Norway", "radius": 5}, []),
        ("On June 1st 2022, within 5 km", {"city": "2022-06-01", "radius": 5}, ["5"]),
        ("By 1,500 km", {"city": "500"}, []),
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
def test_slots_need_single_occurrence(question: str, call: dict[str, Any], texts: list[str]) -> None:
    assert [slot.text for slot in slots(item(question, call))] == texts


def test_slots_skip_shared_values() -> None:
    assert slots(item("Find 5 in Oslo", {"radius": 5, "stops": [5]})) == []
    assert [slot.text for slot in slots(item("5 and 10", {"radius": 5}, {"radius": 10}))] == ["5", "10"]


def test_retold_changes_question_and_calls() -> None:
    asked = item("Within 5 km of Oslo, with 20% off, 2.5 and 2,000", {"city": "Oslo", "radius": 5, "discount": 0.2})
    made = retold(asked, VALUES, "again")
    assert made is not None
    call = made.calls[0]["arguments"]
    assert (
        made.question
        == f"Within {call['radius']} km of {call['city']}, with {call['discount'] * 100:g}% off, 2.5 and 2,000"
    )
    assert made.question != asked.question
    assert retold(asked, VALUES, "again") == made, "by rule, and not by chance"
    assert asked.calls[0]["arguments"] == {"city": "Oslo", "radius": 5, "discount": 0.2}, "the item is left as it was"
    assert retold(item("In Oslo", {"city": "Rome"}), VALUES, "again") is None


def test_listed_gives_one_call_per_value() -> None:
    made = [
        one
        for mark in "abcdefgh"
        if (one := listed(item("Within 5 km of Oslo.", {"city": "Oslo", "radius": 5}), VALUES, mark))
    ]
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


@pytest.mark.parametrize(
    "question",
    ["In 'Oslo'.", "In Oslo and around", "From 3 to Oslo", "In Oslo, Norway", 'In "Oslo", please', "At 3, Oslo"],
)
def test_listed_skips_quoted_and_enumerated_values(question: str) -> None:
    assert listed(item(question, {"city": "Oslo"}), VALUES, "a") is None
    assert retold(item(question, {"city": "Oslo"}), VALUES, "a") is not None


def test_retold_number_keeps_kind() -> None:
    years = [one.calls[0]["arguments"]["year"] for mark in "abcdefgh" if (one := retold(YEAR, VALUES, mark))]
    assert all(1950 <= year <= 2025 for year in years)
    shares = [one for mark in "abcdefgh" if (one := retold(item("With 60% off", {"discount": 0.6}), VALUES, mark))]
    assert all(0 < one.calls[0]["arguments"]["discount"] < 1 for one in shares)
    small = [one for mark in "abcdefgh" if (one := retold(item("At 0.01 off", {"discount": 0.01}), VALUES, mark))]
    assert all(one.calls[0]["arguments"]["discount"] > 0 for one in small)


def test_respectively_keeps_order() -> None:
    made = respectively(item("Within 5 km of Oslo?", {"city": "Oslo", "radius": 5}), VALUES, "a")
    assert made is not None
    first, second = (call["arguments"] for call in made.calls)
    assert (first["city"], first["radius"]) == ("Oslo", 5)
    assert made.question == f"Within 5 and {second['radius']} km of Oslo and {second['city']}, respectively?"


def test_chained_questions_have_all_calls() -> None:
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
    behind = chained([CITIES[1], item("Oslo is where", {"city": "Oslo"}), item("I'm in it", {})], chance, "x")
    assert behind is not None
    assert "Oslo is where" in behind.question, "and so does a value"
    assert "I'm in it" in behind.question
    told = [replace(CITIES[0], system="Be kind."), replace(CITIES[1], system="Be kind.")]
    kind = chained(told, chance, "x")
    assert kind is not None
    assert kind.system == "Be kind."
    assert chained([told[0], CITIES[1]], chance, "x") is None, "what is said of one question is not said of both"
    other = {**FIND, "description": "another of that name"}
    assert chained([CITIES[1], Item("o", "And?", (other,), ())], chance, "x") is None
