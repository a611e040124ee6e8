"""Numbers in words, fractions, ordinals and dozens match numbers in digits; ambiguous words are `unknown`."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.protocols import EvidenceSource
from orchestra.text.numbers.numbers import find_numbers
from orchestra.verification.deterministic import check_numbers
from orchestra.verification.number_match import stated_numbers
from orchestra.verification.standalone import verify_answer

LOW = (
    "zero one two three four five six seven eight nine ten "
    "eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen nineteen"
)
HIGH = "twenty thirty forty fifty sixty seventy eighty ninety"
ORDER = "zeroth first second third fourth fifth sixth seventh eighth ninth tenth eleventh twelfth"
UNITS, TENS, PLACES = LOW.split(), HIGH.split(), ORDER.split()
PARTS = {
    2: "half",
    3: "third",
    4: "quarter",
    5: "fifth",
    6: "sixth",
    7: "seventh",
    8: "eighth",
    9: "ninth",
    10: "tenth",
    20: "twentieth",
}


def outcome(answer: str, evidence: str) -> str:
    [verdict] = verify_answer(answer, (EvidenceSource(evidence),), ["numbers"]).verdicts
    return verdict.outcome


def spelled(number: int) -> str:
    """A number from 0 to 999,999 in words."""
    if number >= 1000:
        below = spelled(number % 1000) if number % 1000 else ""
        joint = " and " if 0 < number % 1000 < 100 else " "
        return f"{spelled(number // 1000)} thousand{joint if below else ''}{below}"
    hundreds, rest = divmod(number, 100)
    low = (
        UNITS[rest]
        if rest < 20
        else "-".join(filter(None, (TENS[rest // 10 - 2], UNITS[rest % 10] if rest % 10 else "")))
    )
    return low if not hundreds else f"{UNITS[hundreds]} hundred" + (f" and {low}" if rest else "")


def placed(number: int) -> str:
    """An ordinal from 1 to 999 in words."""
    rest = number % 100
    if number >= 100:
        return f"{UNITS[number // 100]} hundred" + (f" and {placed(rest)}" if rest else "th")
    if rest <= 12:
        return PLACES[rest]
    if rest < 20:
        return f"{UNITS[rest]}th"
    return f"{TENS[rest // 10 - 2]}-{PLACES[rest % 10]}" if rest % 10 else f"{TENS[rest // 10 - 2][:-1]}ieth"


def ending(number: int) -> str:
    """An ordinal in digits."""
    last = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{last}"


@given(st.integers(0, 999_999), st.integers(0, 999_999) | st.integers(0, 40))
def test_numbers_in_words_match_only_same_digits(number: int, other: int) -> None:
    assert [one.value for one in find_numbers(spelled(number), words=True)] == [number]
    for answer in (f"there were {number} men", f"there were {spelled(number)} men"):
        for evidence in (f"They were {other}.", f"They were {spelled(other)}."):
            unsure = number in (0, 1) and spelled(number) in answer
            assert outcome(answer, evidence) == ("pass" if number == other else "unknown" if unsure else "fail"), (
                answer,
                evidence,
            )


@pytest.mark.parametrize("number", range(41))
def test_numbers_small_ones_are_distinct(number: int) -> None:
    for other in range(41):
        answer, evidence = f"It ran for {spelled(number)} years.", f"It ran for {spelled(other)} years."
        assert outcome(answer, evidence) == ("pass" if number == other else "fail"), (answer, evidence)
    assert outcome(f"It ran for {spelled(number)} years.", "") == "fail"


@given(st.integers(1, 999), st.integers(1, 999) | st.integers(1, 40))
def test_ordinals_in_words_match_only_same_digits(number: int, other: int) -> None:
    assert [one.value for one in stated_numbers(f"the {placed(number)} edition")] == [number]
    for answer in (f"the {placed(number)} edition", f"the {ending(number)} edition"):
        for evidence in (f"It is the {placed(other)}.", f"It is the {ending(other)}."):
            unsure = number <= 2 and answer == f"the {placed(number)} edition"
            assert outcome(answer, evidence) == ("pass" if number == other else "unknown" if unsure else "fail"), (
                answer,
                evidence,
            )


@given(st.sampled_from(sorted(PARTS)), st.integers(1, 19), st.sampled_from(sorted(PARTS)), st.integers(1, 19))
def test_fractions_match_same_words_digits_and_percentages_only(under: int, over: int, other: int, many: int) -> None:
    mine, theirs = Fraction(over, under), Fraction(many, other)
    said = [f"{UNITS[over]} {PARTS[under].replace('half', 'halve') + 's' if over > 1 else PARTS[under]} of them"]
    if over == 1:
        said.append(f"{'a' if under != 8 else 'an'} {PARTS[under]} of them")
    if over < under:
        said.append(f"{over}/{under} of them")
    held = [f"{UNITS[many]} {PARTS[other].replace('half', 'halve') + 's' if many > 1 else PARTS[other]} of all"]
    if (theirs * 10_000).denominator == 1:
        held += [f"it is {float(theirs * 100):g}%", f"a share of {float(theirs):g}"]
    for answer in said:
        for evidence in held:
            assert (outcome(answer, evidence) == "pass") == (mine == theirs), (answer, evidence)


@given(st.integers(2, 19), st.integers(2, 19))
def test_numbers_dozen_is_twelve(number: int, other: int) -> None:
    assert outcome(f"{UNITS[number]} dozen eggs", f"{12 * other} eggs") == ("pass" if number == other else "fail")
    assert outcome(f"{12 * number} eggs", f"{UNITS[other]} dozen eggs") == ("pass" if number == other else "fail")


@pytest.mark.parametrize(
    ("answer", "evidence", "says"),
    [
        ("The contract runs for seven years.", "It is about something else.", "fail"),
        ("The contract runs for seven years.", "", "fail"),
        ("seven", "nine years.", "fail"), ("7 years", "nine years.", "fail"),
        ("A third of them left.", "They left.", "fail"),
        ("Half of it burned.", "It burned.", "fail"), ("the seventh edition", "an edition", "fail"),
        ("two people", "people", "fail"),
        ("three quarters", "25%", "fail"), ("1/2", "0.5", "pass"), ("3/4", "75%", "pass"), ("12", "a dozen", "pass"),
        ("0.5", "half of them", "pass"), ("6 eggs", "half a dozen eggs", "pass"), ("ten years", "a decade", "pass"),
        ("two people", "both people", "pass"), ("2 people", "both people", "fail"),
        ("Louis the fourteenth", "Louis XIV", "pass"),
        ("Louis the fifteenth", "Louis XIV", "fail"), ("1 hour", "an hour", "pass"),
        ("the fourth quarter of 2023", "Q4 2023", "pass"), ("the Second Quarter", "Q2", "pass"),
        ("the third quarter", "Q4", "fail"),
        ("four people", "Q4", "fail"), ("the fourth man", "Q4", "fail"),
        ("the fourth quarter", "the fourth man", "pass"),
        ("the 19th century", "the nineteenth century", "pass"),
        ("twenty per cent", "20%", "pass"), ("twenty per cent", "one fifth", "pass"),
        ("twenty per cent", "30%", "fail"),
        # may be no number
        ("one way to do it", "a way", "unknown"), ("the first way", "a way", "unknown"),
        ("wait a second", "wait", "unknown"),
        ("the two agreed", "they agreed", "unknown"), ("all three agreed", "they agreed", "unknown"),
        ("a third man", "a man", "unknown"),
        ("a third man", "the 3rd man", "pass"), ("cut by half", "cut", "unknown"),
        ("the seven years", "the years", "fail"),
        ("1/2 cup", "1 cup and 2 eggs", "unknown"), ("24/7", "24 hours, 7 days", "pass"),
        # is no number
        ("No one knew it at first.", "It was not known.", "pass"), ("one of the reasons", "a reason", "pass"),
        ("First of all, they like one another.", "They like each other.", "pass"), ("half past", "later", "pass"),
        ("the other half of it", "the rest", "pass"), ("half-hearted", "it", "pass"),
    ],
)  # fmt: skip
def test_numbers_words_are_looked_up_when_numeric(answer: str, evidence: str, says: str) -> None:
    assert outcome(answer, evidence) == says


def test_numbers_words_of_enum_are_not_looked_up() -> None:
    schema = {"type": "object", "properties": {"side": {"enum": ["the second", "two sides"]}}}
    assert check_numbers({"side": "two sides"}, schema, ()).outcome == "pass"
