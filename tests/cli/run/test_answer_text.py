"""Answers of requests as text: sentences with evidence, and no JSON."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.cli.run.answer_text import answer_text, is_reply
from orchestra.schema.builtin_models import Cell, Citation
from orchestra.tools.replies import Reply

ASKED = "How much do I get back?"
QUOTE = Citation(quote="You get 0.32 euros\nper kilometre.", source="travel.md", start=0, end=34)
CELL = Cell(row=1, column=2, text="5", row_heading="North", column_heading="Q1", location="sales.csv row 2")


def reply(**fields: Any) -> dict[str, Any]:
    return Reply(**{"text": "€80.", **fields}).model_dump(mode="json")


def test_reply_is_text_computation_and_evidence() -> None:
    value = reply(citations=[QUOTE], cells=[CELL], computation="250 * 0.32 = 80")
    assert is_reply(value)
    assert answer_text(value, ASKED).splitlines() == [
        "€80.",
        "  250 * 0.32 = 80",
        "  “You get 0.32 euros per kilometre.”  travel.md",
        "  5  North, Q1  sales.csv row 2",
    ]


def test_missing_parts_are_named() -> None:
    value = reply(text=None, missing=["Who is our CEO?"])
    assert answer_text(value, ASKED) == "The sources do not say: Who is our CEO?"


def test_replies_of_several_steps_are_separate() -> None:
    value = {"s1": reply(), "s2": reply(text="Yes: Dogs may enter.")}
    assert is_reply(value)
    assert answer_text(value, ASKED) == "€80.\n\nYes: Dogs may enter."


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ({"expression": "7*6", "answer": 42.0}, "42  (7*6)"),
        ({"label": "contradicted", "p_support": 0.1, "p_refute": 0.9}, "No, the text contradicts it."),
        ({"answer": ["West"], "scale": "", "expression": None, "cells": []}, "West."),
        ({"answer": 19.612590799, "scale": "percent", "expression": "1", "cells": []}, "19.6126 %."),
        ({"answer": None, "scale": "", "expression": None, "cells": []}, f"The sources do not say: {ASKED}"),
        ({"answer": None}, f"The sources do not say: {ASKED}"),
        ({"text": None, "citations": []}, "The documents do not contain the answer."),
        ({"slots": {"people": {"value": "4", "start": 1, "end": 2}}}, "slots:\n  people: 4"),
        ({"intent": "card_arrival", "missing": []}, "intent: card_arrival"),
        ([{"text": "A passage.", "source": "a.md", "start": 0}], "- A passage.  a.md"),
        (["a", 2], "- a\n- 2"),
        ("as it is", "as it is"),
    ],
)
def test_other_values_are_shown_without_json(value: Any, text: str) -> None:
    assert not is_reply(value)
    assert answer_text(value, ASKED) == text
