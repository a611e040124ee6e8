"""Which answers the pages of requests call right."""

from __future__ import annotations

from typing import Any

import pytest

from bench.ask import _leaves, _stands


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
        ("27", {"text": "27/100"}, True),
        ("19:00", {"start": "19:00", "end": "21:00"}, True),
        ("3", {"answer": 2, "cells": [{"row": 3, "column": 3, "text": "2"}]}, False),
    ],
)
def test_an_answer_is_right_by_what_it_says(text: str, value: Any, right: bool) -> None:
    assert _stands(text, "\n".join(_leaves(value))) is right
