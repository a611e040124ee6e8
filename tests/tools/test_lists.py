"""Lists in documents, and the one that a request asks for."""

from __future__ import annotations

import pytest

from orchestra.schema.builtin_models import Document
from orchestra.tools.lists import choose_list, find_lists
from orchestra.tools.replies import Reply

MINUTES = Document(
    source="meeting_2025-03-11.md",
    text=(
        "# Team meeting, 11 March 2025\n\nPresent: Ann Lee, Bob Ray, Cid Fox.\n\n## Actions\n\n"
        "- **Boiler.** Ann Lee gets three offers\n  by 4 April.\n- Bob Ray writes the letter by 7 April.\n\n"
        "The waiver never covers tyres, chains and keys.\n"
    ),
)


def test_bullets_labelled_lines_and_enumerations_are_lists() -> None:
    found = find_lists.function([MINUTES])
    whole = {entry.items[0].text: entry.whole for entry in found.lists}
    bullets = next(entry for entry in found.lists if len(entry.items) == 2)
    assert bullets.items[0].text == "**Boiler.** Ann Lee gets three offers by 4 April."
    assert bullets.label.startswith("Actions")
    assert whole["Ann Lee, Bob Ray, Cid Fox."]
    assert whole["The waiver never covers tyres, chains and keys."]
    assert len(found.texts) == len(found.lists)


def choose(request: str, *scores: float) -> str | None:
    found = find_lists.function([MINUTES])
    given = [*scores, *[0.0] * len(found.lists)][: len(found.lists)]
    reply: Reply = choose_list.function(request, found.lists, given)
    return reply.text


def test_items_of_the_nearest_list_are_lines() -> None:
    found = find_lists.function([MINUTES])
    scores = [0.5 if len(entry.items) == 2 else 0.1 for entry in found.lists]
    assert choose("List the actions.", *scores) == (
        "- Boiler. Ann Lee gets three offers by 4 April.\n- Bob Ray writes the letter by 7 April."
    )


@pytest.mark.parametrize(
    ("request_", "lines", "sentences", "begins"),
    [
        ("List the points.", 0.5, 0.5, "- Boiler."),
        ("List the tyres that are left out.", 0.49, 0.5, "The waiver"),
        ("List the action items.", 0.3, 0.5, "- Boiler."),
    ],
)
def test_list_of_two_near_ones_is_chosen(request_: str, lines: float, sentences: float, begins: str) -> None:
    found = find_lists.function([MINUTES])
    scores = [lines if len(entry.items) == 2 else sentences for entry in found.lists]
    assert (choose(request_, *scores) or "").startswith(begins)


def test_no_list_is_near() -> None:
    assert choose("List the complaints.", 0.1, 0.1) is None


def test_list_of_another_day_is_not_the_one_asked_for() -> None:
    found = find_lists.function([MINUTES])
    scores = [0.5] * len(found.lists)
    assert choose("List the decisions of the meeting on 8 April.", *scores) is None
    assert choose("List the decisions of the meeting on 11 March.", *scores) is not None


def test_what_was_left_to_be_done_is_a_list_of_tasks() -> None:
    found = find_lists.function([MINUTES])
    scores = [0.3 if len(entry.items) == 2 else 0.5 for entry in found.lists]
    assert (choose("List what was left to be done.", *scores) or "").startswith("- Boiler.")
