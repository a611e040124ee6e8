"""The planner state machine: stepwise and one-shot mode, repairs, and termination."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from orchestra.router.plan_syntax import parse_plan
from orchestra.router.planner import (
    PlanFound,
    PlannerAction,
    PlannerQuestion,
    PlannerState,
    PlanNotFound,
    PlanRequest,
    advance,
    start,
)
from orchestra.router.prompt import DEFAULT_REQUEST_TOKENS, MAX_REQUEST_LENGTH, estimate_tokens
from orchestra.router.tool_turns import parse_next_line
from tests.agents.test_evidence_grammar import accepts
from tests.router.sample_capabilities import CITE, STR, SUM, contract, offer, walked

PLAN = (
    "s1 = search(query=input.question, documents=input.documents)",
    "s2 = [reader(question=input.question, context=x.text) for x in s1]",
    "return s2",
)


def request(*, repairs: int = 1, stepwise: bool = True, text: str = "Where?", steps: int = 6) -> PlanRequest:
    return PlanRequest(text, offer(steps=steps), repairs, stepwise)


def talk(wish: PlanRequest, *replies: str) -> tuple[PlannerState, PlannerAction]:
    """The action after these replies."""
    state, wanted = start(wish)
    for reply in replies:
        assert isinstance(wanted, PlannerQuestion)
        state, wanted = advance(state, reply)
    return state, wanted


def test_planner_stepwise_forces_accepted_lines() -> None:
    state, wanted = start(request())
    for number, line in enumerate(PLAN):
        assert isinstance(wanted, PlannerQuestion)
        assert wanted.inputs["plan"] == "\n".join(PLAN[:number])
        assert accepts(wanted.inputs["grammar"], ("\n" if number else "") + line)
        state, wanted = advance(state, line)
    assert isinstance(wanted, PlanFound)
    assert str(wanted.plan) == "\n".join(PLAN)
    assert wanted.repair_count == 0


def test_planner_reply_ends_with_answer_or_next_prefix() -> None:
    state, wanted = start(request())
    replies = [f"{PLAN[0]}\ns", f"{PLAN[1][1:]}\n{PLAN[2]}"]
    for number, reply in enumerate(replies):
        assert isinstance(wanted, PlannerQuestion)
        assert wanted.inputs["plan"] == "\n".join([*PLAN[:number], *["s"] * bool(number)])
        assert accepts(wanted.inputs["grammar"], reply)
        state, wanted = advance(state, reply)
    assert isinstance(wanted, PlanFound)
    assert str(wanted.plan) == "\n".join(PLAN)


def test_planner_without_next_step_asks_for_answer() -> None:
    _, wanted = talk(PlanRequest("When?", offer(contract("now", "tool", {}, STR))), "s1 = now()\ns")
    assert isinstance(wanted, PlannerQuestion)
    assert wanted.inputs["plan"] == "s1 = now()"
    assert accepts(wanted.inputs["grammar"], "\nreturn s1")


def declining() -> PlanRequest:
    return replace(request(), capabilities=replace(offer(), may_decline=True))


@pytest.mark.parametrize("stepwise", [True, False])
def test_planner_may_decline(stepwise: bool) -> None:
    state, wanted = start(replace(declining(), stepwise=stepwise))
    assert isinstance(wanted, PlannerQuestion)
    assert accepts(wanted.inputs["grammar"], "return nothing")
    _, wanted = advance(state, "return nothing")
    assert isinstance(wanted, PlanNotFound)
    assert [one.code for one in wanted.rejections] == ["R014"]


def test_planner_may_not_decline_after_step_or_without_option() -> None:
    for state, wanted in (talk(declining(), PLAN[0]), start(request())):
        assert isinstance(wanted, PlannerQuestion)
        assert not any(accepts(wanted.inputs["grammar"], begin + "return nothing") for begin in ("", "\n"))
        said = (
            "returns the value of one; return s1"
            if state.steps
            else "/answer: `return nothing` is not allowed here: plan what can be done; s1 = "
        )
        _, wanted = advance(state, "return nothing")
        assert isinstance(wanted, PlannerQuestion)
        assert said in wanted.inputs["request"]


def test_planner_one_shot_is_one_question() -> None:
    _, wanted = talk(request(stepwise=False), "\n".join(PLAN))
    assert isinstance(wanted, PlanFound)


def test_planner_extra_lines_are_used() -> None:
    _, wanted = talk(request(), "```\n" + "\n".join(PLAN) + "\n```\n")
    assert isinstance(wanted, PlanFound)


def test_planner_repeated_accepted_lines_are_ignored() -> None:
    _, wanted = talk(request(), PLAN[0], "\n".join(PLAN[:2]), PLAN[2])
    assert isinstance(wanted, PlanFound)


def test_planner_only_repeated_lines_ends() -> None:
    _, wanted = talk(request(), PLAN[0], PLAN[0], PLAN[0])
    assert isinstance(wanted, PlanNotFound)
    assert "already written" in str(wanted.rejections[-1])


def test_planner_wrong_line_is_returned_and_earlier_kept() -> None:
    state, wanted = talk(request(), PLAN[0], "s2 = reader(question=input.question, context=s1)")
    assert isinstance(wanted, PlannerQuestion)
    assert wanted.inputs["plan"] == PLAN[0]
    assert wanted.feedback == (
        "/steps/2/with/context: expected str, got list[Passage]; "
        "did you mean s1[0].source or s1[0].text or input.question?; "
        "in 's2 = reader(question=input.question, context=s1)'; "
        "write for example: s2 = reader(question=input.question, context=s1[0].text)",
    )
    state, wanted = advance(state, PLAN[1])
    assert isinstance(wanted, PlannerQuestion)
    assert wanted.feedback == ()
    _, wanted = advance(state, PLAN[2])
    assert isinstance(wanted, PlanFound)
    assert wanted.repair_count == 1


def test_planner_one_shot_error_continues_stepwise() -> None:
    _, wanted = talk(request(stepwise=False), f"{PLAN[0]}\ns2 = delete_all()\nreturn s2")
    assert isinstance(wanted, PlannerQuestion)
    assert wanted.inputs["plan"] == PLAN[0]
    assert "delete_all" in wanted.feedback[0]


def test_planner_repairs_are_limited() -> None:
    _, wanted = talk(request(repairs=2), "no", "never", "stop asking")
    assert isinstance(wanted, PlanNotFound)
    assert [rejection.code for rejection in wanted.rejections] == ["R001", "R001", "R001"]


@pytest.mark.parametrize("sign", ["\x85", "\u2028", "\u2029"])
@pytest.mark.parametrize("stepwise", [True, False])
def test_split_lines_json_separators_end_no_line(sign: str, stepwise: bool) -> None:
    asked = f"who{sign}is it"
    line = f's1 = calculator(question="{asked}")'
    wish = PlanRequest(asked, offer(words=asked), repairs=0, stepwise=stepwise)
    _, wanted = talk(wish, f"```\r\n{line}\r\nreturn s1\r\n```")
    assert isinstance(wanted, PlanFound)
    assert str(wanted.plan) == f"{line}\nreturn s1"
    assert [str(one) for one in parse_plan(f"{line}\r\nreturn s1\n")] == [line, "return s1"]
    assert str(parse_next_line(f"{line}\nreturn", wish.capabilities, [])) == line


def test_planner_empty_reply_is_rejected() -> None:
    _, wanted = talk(request(repairs=0), "  \n")
    assert isinstance(wanted, PlanNotFound)


def test_planner_repeated_call_is_rejected() -> None:
    _, wanted = talk(request(), PLAN[0], PLAN[0].replace("s1", "s2"))
    assert isinstance(wanted, PlannerQuestion)
    assert wanted.feedback == ("/steps/2: it is the same call as s1; use s1",)


def test_planner_unservable_request_states_wanted_and_available() -> None:
    _, wanted = start(PlanRequest("Where?", offer(CITE, values={"question": {"type": "string"}})))
    assert isinstance(wanted, PlanNotFound)
    assert wanted.rejections[0].code == "R006"
    assert wanted.rejections[0].hint == "wanted: anything; available: question"


def test_planner_step_limit_ends_planning() -> None:
    given = offer(SUM, values={"question": {"type": "string"}}, returns={"type": "boolean"}, steps=2)
    _, wanted = start(PlanRequest("Where?", given))
    assert isinstance(wanted, PlannerQuestion)
    _, wanted = talk(PlanRequest("Where?", given), "s1 = calculator(question=input.question)")
    assert isinstance(wanted, PlanNotFound)


def test_planner_long_request_shows_beginning_and_end() -> None:
    _, wanted = start(request(text="a" * 50_000 + "b" * 50_000))
    assert isinstance(wanted, PlannerQuestion)
    assert len(wanted.inputs["request"]) < MAX_REQUEST_LENGTH + 20
    assert wanted.inputs["request"].startswith("aaa")
    assert wanted.inputs["request"].endswith("bbb")


@pytest.mark.parametrize(
    "text", ["塔" * 4_000, "塔在哪里。" * 2_000, "#!%&" * 25_000, "🙂" * 5_000, "Where is it? " * 5_000]
)
@pytest.mark.parametrize("room", [0, 1_500, 7_000])
def test_planner_request_is_truncated_to_token_budget(text: str, room: int) -> None:
    _, wanted = start(replace(request(text=text), token_budget=room))
    assert isinstance(wanted, PlannerQuestion)
    shown = wanted.inputs["request"]
    assert (shown[:4], shown[-4:]) == (text[:4], text[-4:])
    assert "[…]" in shown
    told = sum(estimate_tokens(wanted.inputs[name]) for name in ("request", "skills", "values", "plan"))
    assert (
        0.9 * min(room, estimate_tokens(text), 4_000 if text.isascii() else room) < told <= room
        if room
        else estimate_tokens(shown) <= DEFAULT_REQUEST_TOKENS
    )


def test_planner_plain_request_is_not_truncated() -> None:
    _, wanted = start(replace(request(text="Where is it " * 600), token_budget=7_000))
    assert isinstance(wanted, PlannerQuestion)
    assert "[…]" not in wanted.inputs["request"]


@pytest.mark.parametrize("seed", range(20))
def test_planner_random_model_ends_with_plan(seed: int) -> None:
    random = Random(seed)
    state, wanted = start(request(repairs=0, steps=4))
    for _ in range(10):
        if not isinstance(wanted, PlannerQuestion):
            break
        text = walked(wanted.inputs["grammar"], random)
        assert text is not None
        state, wanted = advance(state, text)
    assert isinstance(wanted, PlanFound) or (
        isinstance(wanted, PlanNotFound) and "the same call" in str(wanted.rejections[-1])
    )


@pytest.mark.parametrize(
    "line",
    [
        "s1 = search(query=input.question, documents=input.documents)",
        "s1 = search(documents=input.documents, query=input.question)",
        "s1=search( documents=input.documents,query=input.question )",
    ],
)
@pytest.mark.parametrize("of", ["failed", "made"])
def test_planner_failed_call_in_any_argument_order_is_rejected(of: str, line: str) -> None:
    call = ((PLAN[0], "gone"),)
    wish = replace(request(), failed_calls=call) if of == "failed" else replace(request(), completed_calls=call)
    state, _ = talk(wish, line)
    assert [fault.code for fault in state.rejected] == ["R009"]
    assert not state.steps


def test_planner_that_only_repeats_a_call_gets_the_plan_so_far() -> None:
    wish = replace(request(repairs=1), capabilities=replace(offer(), output_type={}))
    first = "s1 = search(query=input.question, documents=input.documents)"
    again = first.replace("s1", "s2", 1)
    _, wanted = talk(wish, first, again, again)
    assert isinstance(wanted, PlanFound)
    assert str(wanted.plan) == f"{first}\nreturn s1"
    _, wanted = talk(wish, first, again, "s2 = nothing_known()")
    assert isinstance(wanted, PlanNotFound)
