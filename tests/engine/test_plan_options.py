"""Options of a `plan` node that control how its plan is written: whole plans, copied texts, declining, shortlists."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from orchestra.core.events import TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.kinds import plan
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.kinds.test_plan import PLAN, WORK, router
from tests.engine.stage import Played, play, program
from tests.engine.test_streaming import began

LOUD = ("s1 = shout(text=input.text)", "return s1")


def planned(more: str, *lines: str, answer: Callable[[CallRequest], Any] | None = None) -> Played:
    return play(
        WORK % f"returns: {more}",
        {"text": "a b"},
        answers={"router": answer or router(*lines)},
        latency=lambda call, chance: 1.0,
    )


def questions(played: Played) -> list[CallRequest]:
    return [call for call in played.workers.calls if call.name == "router"]


def test_whole_plan_uses_one_call_before_any_step() -> None:
    played = planned('"list[str]", stepwise: false', "\n".join(PLAN))
    assert played.outcome == ValueOutcome(["A", "B"])
    (asked,) = questions(played)
    line_by_line = questions(planned('"list[str]"', *PLAN))[0]
    assert ['"s7"' in call.inputs["grammar"] for call in (asked, line_by_line)] == [True, False]
    assert began(played)["solve@1/s1"] == 1.0
    assert [event.draft.lines for event in played.of(TurnStarted) if event.draft] == [(), PLAN]


def test_whole_plan_valid_prefix_kept_rest_by_line() -> None:
    def answer(call: CallRequest) -> str:
        stand = len(call.inputs["plan"].splitlines())
        return PLAN[stand] if "Not accepted" in call.inputs["request"] or stand else f"{PLAN[0]}\nnonsense"

    played = planned('"list[str]", stepwise: false', answer=answer)
    assert played.outcome == ValueOutcome(["A", "B"])
    assert [call.inputs["plan"] for call in questions(played)] == ["", PLAN[0], "\n".join(PLAN[:2])]


def test_copied_texts_must_occur_in_goal() -> None:
    made_up = ('s1 = shout(text="hush")', "return s1")
    assert planned("str, repairs: 0", *made_up).outcome == ValueOutcome("HUSH")
    refused = planned("str, repairs: 0, copied: true", *made_up).outcome
    assert isinstance(refused, FailedOutcome)
    assert "hush" in refused.reason
    assert planned("str, copied: true", 's1 = shout(text="loud")', "return s1").outcome == ValueOutcome("LOUD")


def test_grounded_plan_must_begin_with_value() -> None:
    aside = ('s1 = shout(text="hush")', "return s1")
    assert planned("str", *aside).outcome == ValueOutcome("HUSH")
    refused = planned("str, repairs: 0, grounded: true", *aside).outcome
    assert isinstance(refused, FailedOutcome)
    assert "the first step must read one of input.text" in refused.reason

    def mending(call: CallRequest) -> str:
        return router(*LOUD)(call) if "Not accepted" in call.inputs["request"] or call.inputs["plan"] else aside[0]

    played = planned("str, repairs: 1, grounded: true", answer=mending)
    assert played.outcome == ValueOutcome("A B")
    assert "it reads none of the required inputs" in questions(played)[1].inputs["request"]


def test_grounded_replan_may_begin_otherwise() -> None:
    node = program(WORK % "returns: str, grounded: true").nodes[0]
    failed = plan.PlanHistory(failed_calls=(("s1 = shout(text=input.text)", "too loud"),))
    assert plan.all_capabilities(node, "go").grounds == {"text"}
    assert not plan.all_capabilities(node, "go", failed).grounds
    again = (WORK % "returns: str, grounded: true").replace('"make it loud: ${input.text}"', '"${input.text}"')
    assert not plan.all_capabilities(program(again).nodes[0], "go").grounds


def test_router_may_decline_unless_anyway_set() -> None:
    refused = planned("str", "return nothing").outcome
    assert isinstance(refused, FailedOutcome)
    assert "no capability serves the request" in refused.reason

    def declining(call: CallRequest) -> str:
        return (
            "return nothing"
            if "Not accepted" not in call.inputs["request"] and not call.inputs["plan"]
            else router(*LOUD)(call)
        )

    played = planned("str, anyway: true", answer=declining)
    assert played.outcome == ValueOutcome("A B")
    assert "nothing" not in questions(played)[0].inputs["grammar"]


def test_shortlist_shows_nearest_skills_only() -> None:
    played = planned("str, shortlist: 2", *LOUD)
    shown = questions(played)[0].inputs["skills"].splitlines()
    assert len(shown) == 2
    assert len(questions(planned("str", *LOUD))[0].inputs["skills"].splitlines()) == 4


def test_plan_of_any_type_may_return_several_values() -> None:
    two = (LOUD[0], "s2 = split(text=input.text)", "return s1, s2")
    assert planned("anything", *two).outcome == ValueOutcome({"s1": "A B", "s2": ["a", "b"]})
    refused = planned("str, repairs: 0", *two).outcome
    assert isinstance(refused, FailedOutcome)
    assert "expected one value" in refused.reason


def test_split_goal_gets_step_per_part_and_replays() -> None:
    text = "what is it? Also: shout more"

    def answer(call: CallRequest) -> str:
        if call.inputs["plan"].endswith("\ns"):
            return '2 = shout(text="shout more")'
        return (
            "s1 = shout(text=input.request)"
            if not call.inputs["plan"]
            else f"return {'s1, s2' if 's2' in call.inputs['plan'] else 's1'}"
        )

    work = WORK % "returns: anything, each_part: true"
    played = play(work, {"text": text}, answers={"router": answer})
    assert played.outcome == ValueOutcome({"s1": f"MAKE IT LOUD: {text}".upper(), "s2": "SHOUT MORE"})
    assert '2 parts, 1 step: "make it loud: what is it?" and "shout more"' in questions(played)[2].inputs["request"]
    assert not replay(program(work), played.events).first_difference
    alone = play(work.replace(", each_part: true", ""), {"text": text}, answers={"router": answer})
    assert alone.outcome == ValueOutcome(f"MAKE IT LOUD: {text}".upper())
    failed = plan.PlanHistory(failed_calls=(("s1 = shout(text=input.text)", "too loud"),))
    assert plan.all_capabilities(program(work).nodes[0], text).request_parts is not None
    assert plan.all_capabilities(program(work).nodes[0], text, failed).request_parts is None


@pytest.mark.parametrize("lost", [{1}, {2}, {1, 2}])
def test_failed_sample_counts_without_plan(lost: set[int]) -> None:
    def answer(call: CallRequest) -> Any:
        return CallError(code="F210", reason="the server is gone") if call.sample in lost else router(*LOUD)(call)

    played = planned("str, votes: 3", answer=answer)
    assert played.outcome == ValueOutcome("A B")
    decided = played.of(TurnStarted)[-1].draft
    assert decided is not None
    assert decided.sampled_plans == tuple(() if number in lost else LOUD for number in (1, 2, 3))
    assert decided.agreement == (3 - len(lost)) / 3


def test_all_samples_failed_reports_failure() -> None:
    played = planned("str, votes: 2", answer=lambda call: CallError(code="F210", reason="the server is gone"))
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "F210"


@pytest.mark.parametrize(
    "more",
    [
        "stepwise: false",
        "copied: true, anyway: true, shortlist: 3",
        "votes: 2, stepwise: false",
        "votes: 3, copied: true",
    ],
)
def test_plan_keys_run_replays_and_resumes_at_every_event(more: str) -> None:
    text = WORK % f'returns: "list[str]", {more}'

    def answer(call: CallRequest) -> Any:
        if call.sample == 3:
            return CallError(code="F210", reason="the server is gone")
        return "\n".join(PLAN) if "stepwise" in more else router(*PLAN)(call)

    whole = play(text, {"text": "a b"}, answers={"router": answer})
    compiled = program(text)
    assert whole.outcome == ValueOutcome(["A", "B"])
    found = replay(compiled, whole.events)
    assert (found.first_difference, found.reason) == (None, "")

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(whole.events) - 1):
            theatre = Theatre(clock, {"router": answer})
            theatre.put(whole.events[:cut])
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            assert (await run.wait()).outcome == whole.outcome
            await theatre.engine.close()

    run_simulated(scene, 0)
