"""Suggestions: the capability closest to a request that no plan serves."""

from __future__ import annotations

import pytest

from orchestra.router.capabilities import Capability
from orchestra.router.suggestions import nearest
from tests.unsafe_reference import assert_cost

TEXT = {"type": "string"}
TOLD = {
    "table_reader": "Answers a question about a table and the text around it.",
    "delete_all": "Removes every record.",
    "assistant_intent": "Tells which of 150 intents a message has, such as alarm or book_flight.",
    "translator": "Says the same in another language.",
    "caller": "Answers a question with functions.",
}
SKILLS = [
    Capability(name, "agent", {"text": TEXT, "message": TEXT}, frozenset({"text"}), TEXT, said)
    for name, said in TOLD.items()
]


@pytest.mark.parametrize(
    ("request_", "name"),
    [
        ("Book me a flight", "assistant_intent"),
        ("Delete all data", "delete_all"),
        ("please translate this into Latin", "translator"),
        ("What stands in the table?", "table_reader"),  # prose: ok
    ],
)
def test_nearest_shares_content_words(request_: str, name: str) -> None:
    found = nearest(SKILLS, request_)
    assert found is not None
    assert found.name == name


@pytest.mark.parametrize(
    "request_",
    [
        "Write a poem about autumn",
        "Call my mother",
        "Send this message to Ann",
        "Wie wird das Wetter?",
        "What is it with you",
        "",
        "?",
    ],
)
def test_nearest_ignores_stray_words_and_argument_names(request_: str) -> None:
    assert nearest(SKILLS, request_) is None


def test_nearest_without_capabilities_is_none() -> None:
    assert nearest([], "Delete all data") is None


def test_nearest_long_request_takes_bounded_time() -> None:
    def word(number: int) -> str:
        return "".join(chr(97 + number // 26**at % 26) for at in range(4)) + "ing"

    told = [
        Capability(f"one_{at}", "agent", {}, frozenset(), TEXT, " ".join(word(at * 97 + more) for more in range(15)))
        for at in range(80)
    ]
    asked = " ".join(word(at * 13) for at in range(1000))
    assert_cost(lambda: nearest(told, asked), at_most=500)
