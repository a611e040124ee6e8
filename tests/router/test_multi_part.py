"""Requests with several parts: how they are split, and that no part is dropped silently."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from orchestra.core.events import NO_USAGE
from orchestra.engine.kinds.plan import elect_plan, sample_lines
from orchestra.router.capabilities import Capabilities
from orchestra.router.multi_part import find_uncovered, next_numeric_part, split_request, with_request_parts
from orchestra.router.plan import Plan, build_plan
from orchestra.router.plan_cache import CachedPlanError, build_entry, fit_cached_plan
from orchestra.router.plan_syntax import PlanAnswer, PlanLiteral, PlanReference, PlanStep, parse_line
from orchestra.router.planner import (
    DECLINED_CODE,
    PlanFound,
    PlannerAction,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    advance_unreadable,
    start,
)
from orchestra.router.validation import PART_NOT_COVERED, validate_line
from orchestra.router.voting import VoteResult
from tests.router.sample_capabilities import STR, SUM, contract
from tests.unsafe_reference import assert_cost

DESK = contract("support_desk", "agent", {"message": STR}, STR, says="Sorts a message.")
FLIGHT, PENS = "Book me a flight to Rome.", "A box holds 12 pens. How many pens are in 5 boxes?"
BOTH = f"{FLIGHT} Also: {PENS}"
ON_PENS = f's1 = calculator(question="{PENS}")'


def offer(text: str = BOTH, *, declines: bool = True) -> Capabilities:
    return with_request_parts(
        Capabilities.of([DESK, SUM], {"request": STR}, request_text=text, may_decline=declines), text
    )


def planned(*replies: str, declines: bool = True, repairs: int = 1) -> tuple[PlannerState, PlannerAction]:
    state, wanted = start(PlanRequest(BOTH, offer(declines=declines), repairs))
    for reply in replies:
        assert isinstance(wanted, PlannerQuestion)
        state, wanted = advance(state, reply)
    return state, wanted


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        (BOTH, [FLIGHT, PENS]),
        ("Who was it? And another thing: when was it? Then: where?", ["Who was it?", "when was it?"]),
        (
            "two things pls. 1) which woman won four times 2) who was to appoint them",
            ["which woman won four times", "who was to appoint them"],
        ),
        (
            "What was it in 2018? Also, unrelated, what do 7 crates come to?",
            ["What was it in 2018?", "unrelated, what do 7 crates come to?"],
        ),
        (
            "Read the booking: for 2 at 8 pm And another thing: what do 2 pay?",
            ["Read the booking: for 2 at 8 pm", "what do 2 pay?"],
        ),
        ('Who said "I came. Then: I saw."? Also: when was it?', ['Who said "I came. Then: I saw."?', "when was it?"]),
        ('"Who was it? Also: when was it?"', ['"Who was it?', 'when was it?"']),
        ('Read "A" and tell what it is. Also: what is "B"?', ['Read "A" and tell what it is.', 'what is "B"?']),
        ("Was heißt »Haus«? Also: what does »Hof« mean?", ["Was heißt »Haus«?", "what does »Hof« mean?"]),
        ('Is 6 " enough? Also: is 8 " better?', ['Is 6 " enough?', 'is 8 " better?']),
        ('I need a 5" pipe. Also: what do two 6" pipes cost?', ['I need a 5" pipe.', 'what do two 6" pipes cost?']),
        ("Sum it up.\n\nPS: When was it built?", ["Sum it up.", "When was it built?"]),
    ],
)
def test_split_request_at_joining_phrases(text: str, parts: list[str]) -> None:
    assert list(split_request(text) or ()) == parts


@pytest.mark.parametrize(
    "text",
    [
        PENS,
        "Tom has 5 apples. Also, he has 3 pears. Then he buys 2 more. How many has he?",
        "My card is gone. Also my phone is. What do I do?",
        "Who wrote it, and when was it issued?",
        "I was told it is in the instructions. Well then: how long does it take?",
        "Check this claim: the bridge is open.",
        "Classify these:\n- my card is gone\n- my pin is blocked",
        "see b) and also h) of the lease",
        "What is 2 and 3? P.S. thank you!",
        "When was it built? Also, thanks a lot for your help.",
        "Fasse den Text zusammen. PS: Vielen Dank im Voraus!",
        "How do plants make sugar? One more thing: be brief.",
        "When was it built? Finally: please answer in one sentence.",
        'Translate this: "Where were you? Also: who was with you?"',
        'Translate this:\n"Where were you?\n\nAlso: who was with you?"',
        "Übersetze „Wo warst du? Und noch was: wer war dabei? Then: wo?“ ins Englische",
        "Shorten “We are open on Mondays. Also: we are closed on Sundays.” to one line",
        "What is the capital? a) the city of Paris b) the city of Rome",
        "What is the capital? Choose: a) the city of Paris b) the city of Rome",
        "Two trains start at 1) 5 pm and 2) 6 pm. When do they meet?",
        "",
    ],
)
def test_split_request_several_sentences_are_one_part(text: str) -> None:
    assert split_request(text) is None


@pytest.mark.parametrize(
    "text",
    [
        "\n" * 8000,
        "? and also, " * 700,
        "1) " * 2600,
        "and on " * 1100,
        "In addition " + "a, " * 2600,
        "“ " * 4000,
        ' "' * 4000,
        "“? Also: ”" * 800,
        "? Also, " + "thanks " * 1100 + "x",
    ],
)
def test_split_request_takes_bounded_time(text: str) -> None:
    assert_cost(lambda: split_request(text), at_most=100)


@pytest.mark.parametrize(
    "lines",
    [
        (ON_PENS, f's2 = support_desk(message="{FLIGHT}")', "return s1, s2"),
        ("s1 = support_desk(message=input.request)", "s2 = calculator(question=input.request)", "return s1, s2"),
        (f's1 = [support_desk(message=x) for x in ["{FLIGHT}", "{PENS}"]]', "return s1"),
        (f's1 = support_desk(message="{FLIGHT}")', "s2 = calculator(question=input.request)", "return s1, s2"),
        (
            f's1 = calculator(question="{FLIGHT}")',
            f's2 = support_desk(message="{PENS}")',
            "s3 = support_desk(s1, message=s2)",
            "return s1, s3",
        ),
        (f's1 = support_desk(message="{BOTH}")', "return s1"),
    ],
)
def test_multi_part_value_for_each_part_is_accepted(lines: tuple[str, ...]) -> None:
    *steps, answer = map(parse_line, lines)
    assert not validate_line(answer, offer(), [one for one in steps if isinstance(one, PlanStep)])


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            ("s1 = support_desk(message=input.request)", "return s1"),
            f'2 parts, 1 step: "{FLIGHT}" and "{PENS}"; write a step for each part',
        ),
        (
            ("s1 = calculator(question=input.request)", "return s1"),
            f'nothing serves "{FLIGHT}"; write a step for each part',
        ),
        (
            (f's1 = calculator(question="{BOTH}")', "return s1"),
            f'nothing serves "{FLIGHT}"; write a step for each part',
        ),
        (
            (f's1 = [calculator(question=x) for x in ["{FLIGHT}", "{PENS}"]]', "return s1"),
            f'nothing serves "{FLIGHT}"; write a step for each part',
        ),
        (
            ("s1 = calculator(question=input.request)", f's2 = support_desk(message="{FLIGHT}")', "return s1"),
            f'nothing serves "{FLIGHT}"; return s1, s2',
        ),
        ((ON_PENS, "return s1"), f'nothing serves "{FLIGHT}"; write a step for each part'),
        ((ON_PENS, f's2 = support_desk(message="{FLIGHT}")', "return s2"), f'nothing serves "{PENS}"; return s1, s2'),
        ((ON_PENS, "s2 = calculator(question=s1.expression)", "return s1, s2"), ""),
    ],
)
def test_multi_part_uncovered_part_is_named(lines: tuple[str, ...], said: str) -> None:
    *steps, answer = map(parse_line, lines)
    found = validate_line(answer, offer(), [one for one in steps if isinstance(one, PlanStep)])
    if not said:  # a computation that continues a part belongs to that part
        said = f'nothing serves "{FLIGHT}"; write a step for each part'
    assert [(one.code, str(one)) for one in found] == [(PART_NOT_COVERED, f"/steps: {said}")]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        (
            "Find the price in it. Then: convert it to euros.",
            ('s1 = support_desk(message="Find the price in it.")', "s2 = calculator(question=s1)"),
        ),
        (
            "Read the mail. Then: tell me how many pens are in 5 boxes of it.",
            (
                "s1 = support_desk(message=input.mail)",
                's2 = calculator(question="how many pens are in 5 boxes", note=s1)',
            ),
        ),
        ("Read the mail. Then: reckon it.", ("s1 = support_desk(message=input.mail)", "s2 = calculator(question=s1)")),
    ],
)
def test_multi_part_follow_up_is_served_by_dependent_step(text: str, lines: tuple[str, ...]) -> None:
    steps = [one for one in map(parse_line, lines) if isinstance(one, PlanStep)]
    several = split_request(text)
    assert several is not None
    assert find_uncovered(several, steps, PlanAnswer((PlanReference("s2"),))) is None
    assert find_uncovered(several, steps[:1], PlanAnswer((PlanReference("s1"),))) is not None


def test_multi_part_with_output_type_has_no_demand() -> None:
    one = Capabilities.of([DESK, SUM], {"request": STR}, STR)
    assert with_request_parts(one, BOTH).request_parts is None
    assert find_uncovered(None, (), PlanAnswer(())) is None
    assert not validate_line(parse_line("return s1"), offer(PENS), [PlanStep("s1", "support_desk", {})])


LAMPS = "What do 3 lamps at 20 each cost?"


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            (f's1 = [calculator(question=x) for x in ["{FLIGHT}", "{PENS}", "{LAMPS}"]]', "return s1"),
            f'nothing serves "{FLIGHT}"',
        ),
        (
            (
                "s1 = calculator(question=input.request)",
                f's2 = calculator(question="{PENS}")',
                f's3 = calculator(question="{LAMPS}")',
                "return s1, s2, s3",
            ),
            f'nothing serves "{FLIGHT}"',
        ),
        (
            ("s1 = calculator(question=input.request)", f's2 = calculator(question="{PENS}")', "return s1, s2"),
            f'2 parts, 1 step: "{FLIGHT}" and "{LAMPS}"',
        ),
    ],
)
def test_multi_part_computing_step_needs_number(lines: tuple[str, ...], said: str) -> None:
    *steps, answer = map(parse_line, lines)
    (found,) = validate_line(
        answer, offer(f"{BOTH} Then: {LAMPS}"), [one for one in steps if isinstance(one, PlanStep)]
    )
    assert found.reason == said


@pytest.mark.parametrize("given", ["input.request", '"What do 3 lamps at 20 euros cost? Then: convert it to cents."'])
def test_multi_part_follow_up_computation_belongs_to_its_step(given: str) -> None:
    text = "What do 3 lamps at 20 euros cost? Then: convert it to cents."
    assert not validate_line(
        parse_line("return s1"), offer(text), [PlanStep("s1", "calculator", read_arguments(given))]
    )


@pytest.mark.parametrize(
    ("text", "lines", "left"),
    [
        (
            f"{PENS} Also: tell my brother on WhatsApp that I'm leaving now.",
            ("calculator(question=input.request)",),
            "tell my brother",
        ),
        (
            f"Translate this letter into French. Also: {PENS}",
            ("calculator(question=input.request)",),
            "Translate this letter",
        ),
        (
            f"Please turn this into a song. Also: {PENS}",
            ("calculator(question=input.request)",),
            "Please turn this into a song.",
        ),
        (
            "Book me a flight to Rome. Also: send an email to Ann.",
            ("calculator(question=input.request)",),
            "send an email",
        ),
        (
            f"{FLIGHT} Also: {LAMPS} Then: convert it to 5 currencies.",
            ("calculator(question=input.request)", "calculator(question=s1.expression)"),
            FLIGHT,
        ),
    ],
)
def test_multi_part_computing_step_ignores_non_numeric_reference(text: str, lines: tuple[str, ...], left: str) -> None:
    steps = [parse_line(f"s{number} = {line}") for number, line in enumerate(lines, 1)]
    answer = parse_line(f"return {', '.join(f's{number}' for number in range(1, len(lines) + 1))}")
    (found,) = validate_line(answer, offer(text), [one for one in steps if isinstance(one, PlanStep)])
    assert found.code == PART_NOT_COVERED
    assert left in found.reason


def test_multi_part_answer_without_step_is_not_partial() -> None:
    _, wanted = planned("return s1", "return s1")
    assert isinstance(wanted, PlanNotFound)
    assert not wanted.is_declined


def read_arguments(given: str) -> Mapping[str, Any]:
    line = parse_line(f"s1 = calculator(question={given})")
    assert isinstance(line, PlanStep)
    return line.arguments


def test_multi_part_whole_request_sum_is_counted_once() -> None:
    several = offer().request_parts
    assert several is not None
    whole = parse_line("s1 = calculator(question=input.request)")
    assert isinstance(whole, PlanStep)
    assert next_numeric_part(several, []) == PENS
    assert next_numeric_part(several, [whole]) == ""


def test_multi_part_uncovered_after_repairs_ends_planning() -> None:
    state, wanted = start(PlanRequest(BOTH, offer(), 1))
    state, wanted = advance(state, "s1 = calculator(question=input.request)\nreturn s1")
    assert isinstance(wanted, PlannerQuestion)
    _, wanted = advance(state, f'2 = calculator(question="{FLIGHT}")')
    assert isinstance(wanted, PlanNotFound)
    assert wanted.is_declined
    assert wanted.rejections[0].reason == f'nothing serves "{FLIGHT}"'


def test_multi_part_computing_whole_request_serves_any_numeric_part() -> None:
    text = f"{PENS} Also: What do 3 lamps at 20 each cost?"
    *steps, answer = map(parse_line, ("s1 = calculator(question=input.request)", "return s1"))
    (found,) = validate_line(answer, offer(text), [one for one in steps if isinstance(one, PlanStep)])
    assert found.reason.startswith("2 parts, 1 step: ")


@pytest.mark.parametrize("skill", ["support_desk(message", "calculator(question"])
def test_multi_part_whole_request_step_is_followed_by_another(skill: str) -> None:
    state, wanted = planned(f"s1 = {skill}=input.request)\nreturn s1")
    assert isinstance(wanted, PlannerQuestion)
    if skill.startswith("calculator"):
        assert 'nothing serves "Book me a flight' in wanted.inputs["request"]
        assert isinstance(advance(state, "return s1")[1], PlanNotFound)
        assert isinstance(advance(state, f'2 = support_desk(message="{FLIGHT}")\nreturn s1, s2')[1], PlanFound)
        return
    assert wanted.inputs["plan"].endswith("\ns")
    assert "return" not in wanted.inputs["grammar"].split("start:")[1].splitlines()[0]
    _, wanted = advance(state, f'2 = calculator(question="{PENS}")\nreturn s1, s2')
    assert isinstance(wanted, PlanFound)
    _, wanted = advance(state, "return s1")  # without a grammar that demands another step
    assert isinstance(wanted, PlanFound)
    assert find_uncovered(offer().request_parts, wanted.plan.steps, wanted.plan.answer) is not None


@pytest.mark.parametrize(
    "wrong", ["2 = support_desk(message=input.request)", '2 = calculator(question="of its own")', "nonsense"]
)
def test_multi_part_rejected_extra_step_keeps_plan(wrong: str) -> None:
    state, wanted = planned("s1 = support_desk(message=input.request)\nreturn s1", wrong, repairs=2)
    assert isinstance(wanted, PlannerQuestion)
    for went_on in (advance(state, wrong), advance_unreadable(state, "M003", "cut off")):
        assert went_on is not None
        _, wanted = went_on
        assert isinstance(wanted, PlanFound)
        assert str(wanted.plan) == "s1 = support_desk(message=input.request)\nreturn s1"
    lines = f'{ON_PENS}\ns2 = support_desk(message="{FLIGHT}")\nreturn s2'
    _, wanted = planned(lines, wrong)
    assert isinstance(wanted, PlanFound)
    assert str(wanted.plan.answer) == "return s1, s2"
    _, wanted = planned(f"{ON_PENS}\nreturn s1", "nonsense")
    assert isinstance(wanted, PlanNotFound)
    _, wanted = planned(f"{ON_PENS}\nreturn s1", "nonsense", declines=False)
    assert isinstance(wanted, PlanFound)


def test_multi_part_unserved_part_needs_partial_option() -> None:
    lines = (f"{ON_PENS}\nreturn s1", "return s1")
    _, wanted = planned(*lines)
    assert isinstance(wanted, PlanNotFound)
    assert wanted.is_declined
    assert [(one.code, one.path, one.reason) for one in wanted.rejections] == [
        (DECLINED_CODE, "/steps", f'nothing serves "{FLIGHT}"')
    ]
    _, chosen, won = elect_plan(PlannerState(PlanRequest(BOTH, offer())), wanted, (sample_lines(wanted),) * 3)
    assert (chosen, won) == (wanted, VoteResult(0, 3, 3))
    _, wanted = planned(*lines, declines=False)
    assert isinstance(wanted, PlanFound)
    assert isinstance(planned(lines[0], repairs=0)[1], PlanNotFound)


def test_multi_part_computing_words_without_number_is_rejected() -> None:
    """When a step was demanded for each part, a small planner gave a flight to the calculator, which computed 10."""
    state, wanted = planned(
        "s1 = support_desk(message=input.request)", "return s1", f's2 = calculator(question="{FLIGHT}")', repairs=2
    )
    assert isinstance(wanted, PlannerQuestion)
    assert [(one.code, one.path) for one in state.rejected[-1:]] == [("R025", "/steps/2/with/question")]
    assert "has no number" in state.rejected[-1].reason
    _, wanted = advance(state, f's2 = calculator(question="{PENS}")')
    assert isinstance(wanted, PlannerQuestion)
    alone = Capabilities.of([DESK, SUM], {"request": STR}, request_text=BOTH)
    assert not validate_line(
        PlanStep("s1", "calculator", {"question": PlanLiteral(FLIGHT)}), alone, []
    )  # unchanged without request parts
    half = "How much is half a dozen eggs? Also: when was it?"
    assert not validate_line(
        PlanStep("s1", "calculator", {"question": PlanLiteral("How much is half a dozen eggs?")}), offer(half), []
    )


def test_plan_cache_computing_words_without_number_is_miss() -> None:
    def again(*lines: str) -> Plan:
        made = build_plan([parse_line(line) for line in lines])
        assert made is not None
        return fit_cached_plan(build_entry(made, BOTH, "shape", NO_USAGE), BOTH, offer(), "shape")[0]

    assert again(ON_PENS, "return s1").steps  # with the parts it leaves out, as accepted
    with pytest.raises(CachedPlanError, match="has no number"):
        again(f's1 = calculator(question="{FLIGHT}")', f's2 = calculator(question="{PENS}")', "return s1, s2")
