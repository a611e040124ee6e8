"""The check `support`: answers in the words of their quotes."""

from __future__ import annotations

import pytest

from orchestra.verification.deterministic import check_support

SCHEMA = {
    "type": "object",
    "properties": {
        "answer": {"anyOf": [{"type": "string"}, {"type": "null"}]},
        "quote": {"anyOf": [{"type": "string", "format": "quote"}, {"type": "null"}]},
    },
    "required": ["answer", "quote"],
}


@pytest.mark.parametrize(
    ("answer", "quote", "outcome"),
    [
        ("1889", "completed in 1889", "pass"),
        ("It was completed in 1889", "completed in 1889", "pass"),
        ("The Edict of Fontainebleau", "They", "fail"),
        ("Gustave Eiffel and his engineers", "Eiffel built it", "fail"),
        ("Eiffel", None, "fail"),
        (None, None, "pass"),
        (None, "They", "pass"),
        ("it is", "They", "pass"),
        ("EIFFEL’s", "eiffel’s tower", "pass"),
    ],
)
def test_support_needs_most_words_in_quote(answer: str | None, quote: str | None, outcome: str) -> None:
    assert check_support({"answer": answer, "quote": quote}, SCHEMA, ()).outcome == outcome


def test_support_score_is_lowest_share() -> None:
    assert check_support({"answer": "old Eiffel", "quote": "Eiffel"}, SCHEMA, ()).score == pytest.approx(0.5)


def test_support_type_without_quotes_is_unknown() -> None:
    assert (
        check_support({"answer": "x"}, {"type": "object", "properties": {"answer": {"type": "string"}}}, ()).outcome
        == "unknown"
    )
