"""Follow-ups of a conversation: which ones are recognised, what they mean, and what a full request may contain."""

from __future__ import annotations

import pytest

from bench.conversations.__main__ import FollowUp, judge, read_follow_ups, world_vocabulary
from orchestra.router.follow_ups import MAX_TURNS, EarlierTurn, check_full_request, resolve_follow_up
from orchestra.router.typed_values import Vocabulary, find_values
from orchestra.schema.builtin_models import Table

FOLLOW_UPS = read_follow_ups()
SALES = Vocabulary.of(
    [Table(name="sales", cells=[["Quarter", "Town", "Net sales"], ["Q1", "Sligo", "12"], ["Q1", "Galway", "7"]])]
)
REVENUE = EarlierTurn("What were the net sales of Galway in Q1?", ("7",), "7.")


@pytest.mark.parametrize("follow_up", FOLLOW_UPS, ids=lambda one: one.id)
def test_follow_up_of_evaluation_has_expected_meaning(follow_up: FollowUp) -> None:
    resolution = resolve_follow_up(follow_up.text, follow_up.turns, world_vocabulary(follow_up.world))
    assert judge(follow_up, resolution) == "right", resolution


def test_evaluation_has_enough_follow_ups_and_full_requests() -> None:
    assert len(FOLLOW_UPS) >= 40
    assert sum(one.expected == (one.text,) for one in FOLLOW_UPS) >= 10


def test_follow_up_names_turn_and_replaced_value() -> None:
    resolution = resolve_follow_up("and in Q2?", [REVENUE], SALES)
    assert (resolution.request, resolution.turn) == ("What were the net sales of Galway in Q2?", 1)
    assert [(one.kind, one.before, one.after) for one in resolution.replacements] == [("quarter", "Q1", "Q2")]


def test_follow_up_replaces_cell_of_same_column_only() -> None:
    assert resolve_follow_up("What about Sligo?", [REVENUE], SALES).request == "What were the net sales of Sligo in Q1?"
    unknown = resolve_follow_up("What about Fiona?", [REVENUE], SALES)
    assert (unknown.status, unknown.request) == ("unresolved", "What about Fiona?")


def test_follow_up_with_two_places_is_ambiguous() -> None:
    turn = EarlierTurn("How did net sales change from Q1 to Q2?", ("5",))
    resolution = resolve_follow_up("and Q3?", [turn], SALES)
    assert resolution.status == "ambiguous"
    assert set(resolution.options) == {
        "How did net sales change from Q3 to Q2?",
        "How did net sales change from Q1 to Q3?",
    }
    assert not resolution.can_run


def test_follow_up_without_turns_is_not_run_if_a_fragment() -> None:
    fragment, sentence = (resolve_follow_up(text, []) for text in ("and in Q2?", "Do they deliver on Sundays?"))
    assert (fragment.status, fragment.can_run) == ("unresolved", False)
    assert (sentence.status, sentence.can_run) == ("unresolved", True)


def test_follow_up_reads_last_turns_only() -> None:
    others = [EarlierTurn(f"Who wrote the letter {number}?", ("Ann Lee",)) for number in range(MAX_TURNS)]
    assert resolve_follow_up("and in Q2?", [REVENUE, *others[1:]], SALES).status == "resolved"
    assert (
        resolve_follow_up("and in Q2?", [REVENUE, *others], SALES).request != "What were the net sales of Galway in Q2?"
    )


def test_follow_up_per_month_needs_known_period() -> None:
    yearly = EarlierTurn("What is the yearly rent?", ("1200",))
    assert resolve_follow_up("How much is that per month?", [yearly]).request == "What is 1200 / 12?"
    assert resolve_follow_up("How much is that per month?", [REVENUE]).status == "unresolved"


@pytest.mark.parametrize(
    ("request_text", "fault"),
    [
        ("What were the net sales of Galway in Q2?", ""),
        ("What were the net sales of Dublin in Q2?", "no turn has the words dublin"),
        ("What were the net sales of Galway in Q1?", "it lacks Q2"),
        ("What were they in Q2?", "no turn has the words they"),
        ("and in Q2?", "“in Q2” is no full request"),
        ("", "it is empty or too long"),
        ("What were the net sales of Galway in Q2 times 99?", "no turn has the words times, 99"),
    ],
)
def test_full_request_check_accepts_words_of_turns_only(request_text: str, fault: str) -> None:
    faults = check_full_request("and in Q2?", request_text, [REVENUE], SALES)
    assert fault in faults if fault else not faults, faults


def test_typed_values_have_kinds_of_tables_and_periods() -> None:
    found = find_values("Net sales of Sligo in Q1 and on 3 May 2025 at 10:30 for 40 km and 12 %", SALES)
    assert [(one.kind, one.text) for one in found] == [
        ("column", "Net sales"),
        ("value of Town", "Sligo"),
        ("quarter", "Q1"),
        ("date", "3 May 2025"),
        ("time", "10:30"),
        ("quantity of km", "40 km"),
        ("percentage", "12 %"),
    ]
