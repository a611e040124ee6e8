"""Checks that call agents, in streamed plans and in agents with tools."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.errors import InputError, InputErrors
from orchestra.core.events import ChecksStarted, OutputJudged, TurnStarted
from orchestra.core.outcomes import AbstainedOutcome, ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.kinds.test_plan import LOUDLY, with_workflows
from tests.engine.kinds.test_tool_use import LINES, helper, model
from tests.engine.stage import CATALOG, READING, Played, play, program
from tests.engine.test_checks import JUDGE, WITH, chance
from tests.engine.test_streaming import paced, router
from tests.simulation.lab.invariants import AuditCase, audit

PLAN = """
input: {text: str}
output: ${solve}
nodes:
  solve: {plan: go, with: {text: "${input.text}"}, tools: [shout], agents: [writer], returns: str, repairs: 0%s}
"""
CAREFUL = replace(CATALOG.agents["writer"], checks=("entailment",), evidence="text")
SKILLED: Catalog = replace(WITH, agents={**WITH.agents, "writer": CAREFUL})
CHAIN = ("s1 = writer(text=input.text)", "s2 = shout(text=s1)", "return s2")
SIDE = ("s1 = writer(text=input.text)", "s2 = shout(text=input.text)", "return s2")


def planned(more: str, *lines: str, judge: Any = None, **options: Any) -> Played:
    answers = {"router": router(*lines), "entailment": chance(0.9) if judge is None else judge}
    return play(PLAN % more, {"text": "a"}, answers, catalog=SKILLED, **{"latency": paced(), **options})


def sound(played: Played, text: str, known: Catalog) -> None:
    compiled = program(text, known)
    assert audit(AuditCase(compiled, played.events)) == []
    found = replay(compiled, played.events)
    assert (found.first_difference, found.reason) == (None, "")


def everywhere(played: Played, text: str, known: Catalog, answers: dict[str, Any]) -> None:
    """Asserts that a run interrupted after any of its events has the same end."""
    compiled = program(text, known)

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(played.events) - 1):
            theatre = Theatre(clock, answers)
            theatre.put(played.events[:cut])
            run = await theatre.engine.resume(compiled, played.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            assert (await run.wait()).outcome == played.outcome, cut
            found = replay(compiled, [*played.events[:cut], *(event for event in run.log if event.seq > cut)])
            assert (found.first_difference, found.reason) == (None, ""), cut
            await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_step_judged_by_agent_of_card_check() -> None:
    played = planned("", *CHAIN)
    assert played.outcome == ValueOutcome("<A>")
    assert [(event.node, event.check) for event in played.of(ChecksStarted)] == [("solve@1/s1", "entailment")]
    assert "solve@1/s1?1/entailment_0" in played.outcomes
    sound(played, PLAN % "", SKILLED)
    everywhere(played, PLAN % "", SKILLED, {"router": router(*CHAIN), "entailment": chance(0.9)})


def test_abandoned_step_cancels_its_check_calls() -> None:
    played = planned("", *SIDE, latency=paced(entailment=60.0))
    assert played.outcome == ValueOutcome("A")
    assert [call.node for call in played.workers.cancelled] == ["solve@1/s1?1/entailment_0"]
    assert played.events[-1].at - played.events[0].at == 3.0
    sound(played, PLAN % "", SKILLED)


def test_abandoned_workflow_cancels_its_calls() -> None:
    """The plan runs for longer than the abandoned calls would have taken."""
    text = PLAN.replace("agents: [writer]", "workflows: [loudly]") % ""
    known = with_workflows(LOUDLY)
    lines = ("s1 = loudly(text=input.text)", "s2 = shout(text=input.text)", "return s2")
    answers = {"router": router(*lines), "shout": lambda call: call.inputs["text"].upper()}

    def latency(call: CallRequest, chance: Random) -> float:
        return 2.5 if call.name == "split" else 4.0 if call.name == "shout" else 1.0

    played = play(text, {"text": "a"}, answers, catalog=known, latency=latency)
    assert played.outcome == ValueOutcome("A")
    assert [call.node for call in played.workers.cancelled] == ["solve@1/s1/words"]
    found = replay(program(text, known), played.events)
    assert (found.first_difference, found.reason) == (None, "")


def test_unsupported_plan_step_leads_to_new_plan() -> None:
    played = planned("", *CHAIN, judge=chance(0.1, 0.9))
    assert not isinstance(played.outcome, ValueOutcome)
    assert [event.accepted for event in played.of(OutputJudged)] == [False]
    assert [event.draft.version for event in played.of(TurnStarted) if event.draft is not None][-1] == 2
    sound(played, PLAN % "", SKILLED)


def test_plan_answer_judged() -> None:
    more = ', checks: [entailment], against: "${input.text}", timeout: 60'
    played = planned(more, "s1 = shout(text=input.text)", "return s1")
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value, played.outcome.score) == ("A", 0.9)
    assert [event.node for event in played.of(ChecksStarted)] == ["solve"]
    sound(played, PLAN % more, SKILLED)
    everywhere(
        played,
        PLAN % more,
        SKILLED,
        {"router": router("s1 = shout(text=input.text)", "return s1"), "entailment": chance(0.9)},
    )


WORK = """
input: {text: str}
output: ${found}
nodes:
  found: {agent: helper, with: {text: "${input.text}"}, %s}
"""


def tooled(checks: str, judge: Any) -> tuple[Played, str, Catalog, dict[str, Any]]:
    known = replace(WITH, agents={**WITH.agents, "helper": helper(READING).contract})
    answer: Callable[[CallRequest], Any] = model(*LINES, answer=lambda call: {"answer": "b", "quote": "b"})
    answers = {"helper": answer, "entailment": judge}
    text = WORK % f"checks: {checks}, otherwise: [abstain]"
    return play(text, {"text": "a b"}, answers, catalog=known), text, known, answers


@pytest.mark.parametrize(
    "checks", ["[quote, entailment]", "['quote & entailment']", "[quote, 'entailment | agree(2)']"]
)
def test_tool_use_answer_judged_by_other_agent(checks: str) -> None:
    played, text, known, answers = tooled(checks, chance(0.8))
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value["answer"], played.outcome.score) == ("b", 0.8)
    asked = played.of(ChecksStarted)
    assert asked
    assert all(event.node == "found#6/answer" for event in asked)
    found = replay(program(text, known), played.events)
    assert (found.first_difference, found.reason) == (None, "")
    everywhere(played, text, known, answers)


def test_tool_use_agent_retried_after_check() -> None:
    played, *_ = tooled("['agree(3)']", None)
    assert isinstance(played.outcome, ValueOutcome)
    assert sorted(call.sample for call in played.workers.calls if call.name == "helper" and call.sample) == [1, 2, 3]


def test_tool_use_unsupported_answer_withheld() -> None:
    played, *_ = tooled("[quote, entailment]", chance(0.1, 0.9))
    assert isinstance(played.outcome, AbstainedOutcome)


def test_agent_with_tools_refused_as_judge() -> None:
    known = replace(WITH, agents={**WITH.agents, "entailment": replace(JUDGE, tool_use=helper().contract.tool_use)})
    text = WORK.replace("helper", "writer") % 'checks: [entailment], against: "${input.text}"'
    with pytest.raises((InputError, InputErrors), match="L071"):
        program(text, known)
