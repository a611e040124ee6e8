"""`bench.ask`: correct answers."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from bench.ask import Asked, Told, _leaves, _stands, page


@pytest.mark.parametrize(
    ("text", "value", "right"),
    [
        ("supported", {"label": "supported", "p_supported": 0.9}, True),
        ("supported", {"label": "not stated", "p_supported": 0.1}, False),
        ("Shen Kuo", {"text": "the polymath shen kuo"}, True),
        ("15", {"answer": 18.461538}, False),
        ("15", {"answer": 15.0}, True),
        ("15", {"answer": 150}, False),
        ("15", {"answer": -15}, False),
        ("12.5", {"answer": 112.5}, False),
        ("12.5", [{"answer": 12.5}], True),
        ("153.70", {"answer": 153.7}, True),
        ("1.38", {"answer": 1.3833333333333333}, True),
        ("1.38", {"answer": 1.3888}, False),
        ("1.38", {"answer": -1.3833}, False),
        ("62.50", {"answer": 62}, False),
        ("27", {"text": "27/100"}, True),
        ("19:00", {"start": "19:00", "end": "21:00"}, True),
        ("3", {"answer": 2, "cells": [{"row": 3, "column": 3, "text": "2"}]}, False),
        ("9 March", {"answer": ["Vienna"], "cells": [{"text": "Vienna", "row_heading": "9 March"}]}, False),
        ("1685", {"text": "the Edict", "quote": "the Edict of 1685"}, False),
        ("1685", [{"quote": "the Edict of 1685"}], True),
        ("balance", {"intent": "balance_not_updated_after_bank_transfer"}, False),
        ("disciples", {"text": "their disciples."}, True),
    ],
)
def test_ask_answer_correct_by_content(text: str, value: Any, right: bool) -> None:
    assert _stands(text, "\n".join(_leaves(value))) is right


@pytest.mark.parametrize(
    ("status", "value", "expect", "nothing", "verdict"),
    [
        ("done", {"label": "supported"}, ("supported",), False, "Right"),
        ("done", {"label": "contradicted"}, ("supported",), False, "Wrong"),
        ("abstained", None, ("7",), False, "No answer"),
        ("failed", None, ("7",), False, "No answer"),
        ("done", None, ("7",), False, "No answer"),
        ("done", {"text": None, "quote": None}, ("7",), False, "No answer"),
        ("done", {"text": None, "quote": None}, (), True, "Right"),
        ("done", {"text": "8", "quote": "8"}, (), True, "Wrong"),
        ("done", [None, {"text": None}], ("7",), False, "No answer"),
        ("done", [None, {"answer": 8}], ("7",), False, "Wrong"),
        ("done", [None, {"answer": 7}], ("7",), False, "Right"),
        ("done", {"s1": {"text": None, "quote": "8"}, "s2": None}, ("7",), False, "No answer"),
        ("done", {"s1": {"text": None}, "s2": {"label": "supported"}}, ("7",), False, "Wrong"),
        ("done", {"answer": None, "scale": "million"}, ("7",), False, "No answer"),
        ("done", {"answer": 0}, ("7",), False, "Wrong"),
        ("done", {}, ("7",), False, "No answer"),
        ("", None, ("7",), False, "No answer"),
    ],
)
def test_ask_withheld_is_neither_correct_nor_wrong(
    status: str, value: Any, expect: tuple[str, ...], nothing: bool, verdict: str
) -> None:
    result: Any = SimpleNamespace(status=status, value=value) if status else None
    draft: Any = None
    assert Told(Asked("?", {}, expect, nothing), draft, result, "", 0.0).verdict == verdict


def test_ask_page_counts_verdicts() -> None:
    def told(status: str, value: Any) -> Told:
        result: Any = SimpleNamespace(status=status, value=value, error=None, evidence=[])
        draft: Any = SimpleNamespace(plan="return s1", rejections=())
        return Told(Asked("What is it?", {}, ("7",), False), draft, result, "", 1.0)

    text = page([told("done", 7), told("done", 8), told("abstained", None), told("done", [None])], "# Page", "today")
    assert "**1 of 4 are right**, 1 wrong, and 2 without an answer; 4 were planned. today." in text
    assert [line.partition(",")[0] for line in text.splitlines() if line.startswith("## ")] == [
        "## 1. Right", "## 2. Wrong", "## 3. No answer", "## 4. No answer",
    ]  # fmt: skip
