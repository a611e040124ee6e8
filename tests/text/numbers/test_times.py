"""Times of day in text: one value each."""

from __future__ import annotations

from datetime import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.times import find_times
from orchestra.verification import equivalence
from orchestra.verification.evidence_numbers import EvidenceIndex
from orchestra.verification.standalone import verify_answer
from tests.unsafe_reference import assert_cost

FORMS = ["%H:%M", "%-I:%M %p", "%I.%M%p", "%-H:%M:%S", "%-I:%M:%S %p"]


def outcome(answer: object, evidence: str) -> str:
    [verdict] = verify_answer(answer, (EvidenceSource(evidence),), ["numbers"]).verdicts
    return verdict.outcome


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("at 17:45.", (17, 45, "", "24")), ("5:45 pm", (5, 45, "", "pm")), ("6.30 p.m. then", (6, 30, "", "pm")),
        ("5 PM", (5, None, "", "pm")),
        ("2026-01-05T10:00:00Z", (10, 0, "00", "24")), ("05 10:00:30+02:00", (10, 0, "30", "")),
        ("05:45", (5, 45, "", "24")), ("5:45", (5, 45, "", "")), ("07:30 pm", (7, 30, "", "pm")),
        ("24:00", (24, 0, "", "24")), ("1:02:03.50", (1, 2, "03.5", "")),
    ],
)  # fmt: skip
def test_find_times_values(text: str, found: tuple[int, int | None, str, str]) -> None:
    [one] = find_times(text)
    assert (one.hour, one.minute, one.second, one.clock_format) == found
    assert text[one.start : one.end] == one.text


@pytest.mark.parametrize(
    "text",
    ["61:30", "1:02.5", "17:60", "I am 10", "5 amps", "13 pm", "3.5", "192.168.1.1:80", "1:50,000", "24:10", "+02:00"],
)
def test_find_times_ignores_non_times(text: str) -> None:
    assert find_times(text) == []


@pytest.mark.parametrize(
    "text", ["9:30-10:30", "9:30–10:30", "2026-01-05T09:30:00-02:00 to 2026-01-05T10:30:00-02:00", "9.30 am / 10.30 am"]
)
def test_find_times_several(text: str) -> None:
    assert [(one.hour, one.minute) for one in find_times(text)] == [(9, 30), (10, 30)]


@pytest.mark.parametrize(
    ("answer", "evidence", "says"),
    [
        ("at 17:45", "It left at 5:45 pm.", "pass"), ("at 5:45 pm", "departure 17:45", "pass"),
        ("at 5:45 p.m.", "5.45pm", "pass"), ("at 17:45", "17 men took 45 minutes", "unknown"),
        ("at 17:45", "17 men", "fail"), ("at 17:45", "It left at 17:54.", "fail"), ("at 17:45", "45:17", "unknown"),
        ("at 10:00", "2026-01-05T10:00:00Z", "pass"), ("at 11:00", "2026-01-05T10:00:00Z", "fail"),
        ("at 10:00", "logged 10:00:30", "pass"), ("at 10:00:30", "logged 10:00", "fail"),
        ("at 10:00:30", "10:00:31", "fail"), ("at 10:00:30", "10 men for 30 s", "unknown"),
        # am or pm
        ("at 5:45", "5:45 pm", "pass"), ("at 5:45 am", "5:45 pm", "fail"), ("at 5:45 pm", "5:45", "unknown"),
        ("at 5:45", "17:45", "unknown"),
        ("at 05:45", "5:45", "pass"), ("at 05:45", "5:45 pm", "fail"), ("at 5 pm", "17:00", "pass"),
        ("at 5 pm", "from 9 to 5", "unknown"), ("at 12:15 am", "00:15", "pass"), ("at 12:15 pm", "00:15", "fail"),
        ("at 24:00", "12:00 am", "pass"),
        # a part of a time may be a number by itself, and two numbers are not a time
        ("45 men", "It left at 17:45.", "pass"), ("45 men", "45 men left at 17:45.", "pass"),
        ("46 men", "at 17:45", "fail"), ("9 to 5", "9 am to 5 pm", "pass"),
        ({"minutes": 115, "expression": "11*60+40 - (9*60+45)"}, "9:45 to 11:40, 60 minutes", "pass"),
        ({"hour": 17, "minute": 45}, "We meet at 17:45.", "pass"), ("21 to 15", "It ended 21:15.", "pass"),
        ("It ended 21:15", "21 to 15", "unknown"), ("at 17:45", "17:30 and 18:45", "fail"),
        # in any context
        ("at 17:45", "train,departs\nIC 12,17:45,5", "pass"), ("at 17:45", "Departure:17:45", "pass"),
        ("at 17:45", "17:45Uhr", "pass"), ("at 17:45", "17:45Z", "pass"), ("at 17:45", "会议17:45开始", "pass"),
        ("at 17:45", "2026-05-01_17:45", "pass"), ("Departure:17:45", "17 and 45", "unknown"),
        ("at 17:45", "117:45", "fail"), ("at 17:45", "17:450", "fail"),
        ("at 02:00", "2026-05-01 10:00+02:00", "unknown"), ("at 5", "Zimmer 5 am Ende", "pass"),
        ("at 5 am", "5 am Sunday", "pass"),
        # before a word with a capital
        ("at 17:00", "at 5 pm Eastern time", "pass"), ("at 5:30 pm", "at 5:30 am Eastern", "fail"),
        ("at 8 am", "At 8 pm Anna called", "unknown"),
        # fewer seconds, and am instead of pm
        ("at 10:15:30", "10:15:30,123 ERROR", "pass"), ("at 10:15:30.2", "10:15:30.25", "pass"),
        ("at 10:15:00", "10:15:30", "fail"), ("10:00", "10 pm", "unknown"), ("10:00", "10 am", "pass"),
        ("12:00", "12 am", "unknown"),
        # not a time of day
        ("It took 0:30", "It began at 12:30 am", "unknown"), ("The score was 20:10", "at 8:10 pm", "unknown"),
        ("The ratio is 24:10", "it left at 0:10", "fail"), ("9:00-17:00", "from 9 am to 5 pm", "pass"),
        ("verse 3:16", "John 3:16", "pass"), ("verse 3:16", "John 3:17", "fail"),
    ],
)  # fmt: skip
def test_numbers_check_time_in_evidence_passes(answer: object, evidence: str, says: str) -> None:
    assert outcome(answer, evidence) == says


def test_find_times_has_positions() -> None:
    ruling = verify_answer("at 17:45", (EvidenceSource("It left at 5:45 pm.", "a"),), ["numbers"])
    assert [(one.quote, one.source, one.start, one.end) for one in ruling.evidence] == [("5:45 pm", "a", 11, 18)]


@given(st.times(), st.times(), st.sampled_from(FORMS), st.sampled_from(FORMS[:3]))
def test_times_are_equal_in_any_form(one: time, other: time, form: str, written: str) -> None:
    one, other = one.replace(second=0, microsecond=0), other.replace(second=0, microsecond=0)
    said, halves = f"at {one.strftime(form)}", "%p" in form and "%p" in written
    assert outcome(said, f"It left at {one.strftime(written)} sharp.") == "pass" or (not halves and 0 < one.hour <= 12)
    if one != other:
        passes = outcome(said, f"It left at {other.strftime(written)} sharp.") == "pass"
        assert not passes or (not halves and one.hour % 12 == other.hour % 12 and one.minute == other.minute)


@given(st.text(st.sampled_from("0123456789:.,apmTZ+- "), max_size=16))
def test_time_matches_itself_at_its_position(text: str) -> None:
    end = 0
    for one in find_times(text):
        assert one.matches(one)
        assert not one.text or text[one.start : one.end] == one.text
        assert one.start >= end
        end = one.end


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("at 17:45", "at 5:45 pm", True), ("17:45", "17:45:00", True), ("5:45", "5:45 pm", False),
        ("17:45", "17:54", False), ("17:45", "17", False),
    ],
)  # fmt: skip
def test_same_answers_with_times(one: str, other: str, same: bool) -> None:
    assert equivalence.is_equivalent(one, other) is same
    assert equivalence.is_equivalent(other, one) is same


def test_many_times_of_one_minute_are_fast() -> None:
    evidence = "\n".join(f"at 1:05:{at % 60:02d}.{at + 10_001} go" for at in range(4_000))
    held = EvidenceIndex([EvidenceSource(evidence)])
    answers = find_times(" ".join(f"1:05:{at % 60:02d}.{at + 10_001}" for at in range(3_000, 4_000)))
    assert all(held.find_time(one) for one in answers)
    assert_cost(lambda: [held.find_time(one) for one in answers], at_most=100)
