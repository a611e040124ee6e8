"""`plan` nodes: the router is called line by line, the plan runs, and every accepted line is in the journal."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from msgspec import structs

from orchestra.agents.contract import Catalog
from orchestra.core.errors import InputError
from orchestra.core.events import NodeFinished, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from orchestra.workflows.yaml.reader import read
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, Played, play, program, record, tool

WORK = """
input: {text: str}
output: ${solve}
nodes:
  solve: {plan: "make it loud: ${input.text}", with: {text: "${input.text}"}, tools: [shout, split, count], agents: [writer], %s}
"""  # noqa: E501
PLAN = ("s1 = split(text=input.text)", "s2 = [shout(text=x) for x in s1]", "return s2")


def router(*lines: str) -> Callable[[CallRequest], Any]:
    """A router that writes the next of these lines for the current length of its plan; the last line is repeated."""
    return lambda call: lines[min(call.inputs["plan"].count("\n") + bool(call.inputs["plan"]), len(lines) - 1)]


def planned(more: str, *lines: str, **options: Any) -> Played:
    return play(WORK % more, {"text": "a b"}, answers={"router": router(*lines)}, **options)


def drafted(played: Played) -> list[tuple[str, ...]]:
    return [event.draft.lines for event in played.of(TurnStarted) if event.draft is not None]


def test_plan_made_by_line_then_run() -> None:
    played = planned('returns: "list[str]"', *PLAN)
    assert played.outcome == ValueOutcome(["A", "B"])
    assert drafted(played) == [(), PLAN[:1], PLAN[:2], PLAN]
    assert {"solve#1/line", "solve@1/s1", "solve@1/s2"} <= set(played.outcomes)


def test_plan_prompt_has_goal_values_skills() -> None:
    played = planned('returns: "list[str]"', *PLAN)
    first = next(call for call in played.workers.calls if call.name == "router")
    assert first.inputs["request"] == "make it loud: a b"
    assert first.inputs["values"] == "input.request: str\ninput.text: str"
    assert first.inputs["skills"].startswith("writer(text: str) -> str\nshout(text: str) -> str")
    assert first.inputs["grammar"].startswith("%llguidance")


def test_plan_literal_list_mapped_within_limits() -> None:
    line = 's1 = [writer(text=x) for x in ["a", "b", "c"]]'
    assert planned('returns: "list[str]"', line, "return s1").outcome == ValueOutcome(["<a>", "<b>", "<c>"])
    refused = planned('returns: "list[str]", limits: {steps: 3, width: 2}, repairs: 0', line, "return s1")
    assert isinstance(refused.outcome, FailedOutcome)
    assert "a list has at most 2 elements, and this one has 3" in refused.outcome.reason


def test_plan_can_read_goal() -> None:
    assert planned("returns: str", "s1 = shout(text=input.request)", "return s1").outcome == ValueOutcome(
        "MAKE IT LOUD: A B"
    )


def test_plan_wrong_line_returned_and_recorded() -> None:
    def answer(call: CallRequest) -> str:
        return (
            PLAN[0]
            if "there is no 'splat'" in call.inputs["request"]
            else "s1 = splat(text=input.text)"
            if not call.inputs["plan"]
            else "return s1"
        )

    played = play(WORK % 'returns: "list[str]"', {"text": "a b"}, answers={"router": answer})
    assert played.outcome == ValueOutcome(["a", "b"])
    rejected = [event.draft.rejections for event in played.of(TurnStarted) if event.draft]
    assert [len(one) for one in rejected] == [0, 1, 0, 0]
    assert rejected[1][0][0] == "R002"


def test_plan_missing_fails_or_uses_fallback() -> None:
    played = planned("returns: str", "I would shout it")
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "R007"
    assert "/steps/1: " in played.outcome.reason
    assert planned("returns: str, fallback: quiet", "I would shout it").outcome == ValueOutcome("quiet")


def test_plan_repairs_limit_requests_of_line() -> None:
    played = planned("returns: str, repairs: 3", "no")
    assert played.workers.counts["router"] == 4


def test_plan_router_failure_fails_node() -> None:
    played = play(
        WORK % "returns: str, retry: 1",
        {"text": "a"},
        answers={"router": lambda call: CallError(code="F210", reason="the server is gone")},
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "F210"


def test_plan_unlisted_skill_refused() -> None:
    played = planned("returns: str, repairs: 0", 's1 = send(text="all of it")', "return s1")
    assert isinstance(played.outcome, FailedOutcome)
    assert "there is no 'send'" in played.outcome.reason
    assert "send" not in played.workers.counts


def test_plan_answer_has_node_type() -> None:
    played = planned("returns: int, repairs: 0", "s1 = shout(text=input.text)", "return s1")
    assert isinstance(played.outcome, FailedOutcome)
    assert "/answer: expected int, got str" in played.outcome.reason


def test_plan_lists_and_steps_within_limits() -> None:
    played = play(
        WORK % 'returns: "list[str]", limits: {steps: 3, width: 2}, replans: 0',
        {"text": "a b c"},
        answers={"router": router(*PLAN)},
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E004"
    played = planned("returns: str, limits: {steps: 1}", "s1 = shout(text=input.text)", "s2 = shout(text=s1)")
    assert isinstance(played.outcome, FailedOutcome)
    assert "at most 1 steps" in played.outcome.reason


def test_plan_in_each_element() -> None:
    text = """
input: {text: str}
output: ${all.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  all: {plan: "shout ${word}", each: "${words}", as: word, with: {text: "${word}"}, tools: [shout], returns: str}
"""
    played = play(text, {"text": "a b"}, answers={"router": router("s1 = shout(text=input.text)", "return s1")})
    assert played.outcome == ValueOutcome(["A", "B"])
    assert "all[1]@1/s1" in played.outcomes


def test_plan_timeout_covers_whole_plan() -> None:
    played = planned("returns: str, timeout: 2", "s1 = shout(text=input.text)", "return s1", latency=1.5)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "E006"


def test_plan_run_replays_from_events() -> None:
    played = planned('returns: "list[str]"', *PLAN)
    found = replay(program(WORK % 'returns: "list[str]"'), played.events)
    assert (found.first_difference, found.reason) == (None, "")
    assert found.calls["solve#2/line", 1][0].inputs["plan"] == PLAN[0]


def test_replay_reports_router_deciding_differently() -> None:
    played = planned('returns: "list[str]"', *PLAN)
    second = next(event for event in played.of(TurnStarted) if event.turn == 2)
    other = structs.replace(second, draft=structs.replace(second.draft, lines=()))
    events = [other if event is second else event for event in played.events]
    found = replay(program(WORK % 'returns: "list[str]"'), events)
    assert found.reason == "the router's machine would go on otherwise"


@pytest.mark.parametrize("end", ["", ", fallback: []"])
def test_replay_old_router_without_repair_accepted(end: str) -> None:
    told = f'returns: "list[str]"{end}, repairs: %d'
    silent = CallError(code="M003", reason="cut off", retryable=False)
    played = play(WORK % (told % 0), {"text": "a b"}, answers={"router": lambda call: silent})
    assert replay(program(WORK % (told % 2)), played.events).first_difference is None
    forged = [
        structs.replace(one, outcome=ValueOutcome(["b"])) if isinstance(one, NodeFinished) else one
        for one in played.events
    ]
    assert replay(program(WORK % (told % 2)), forged).first_difference is not None


def test_plan_with_effects_is_always_needed() -> None:
    text = "input: {text: str}\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}}\n  b: {plan: go, tools: [%s]}"
    assert any("nothing needs the node 'b'" in warning for warning in program(text % "split").warnings)
    assert not any("'b'" in warning for warning in program(text % "send").warnings)


def test_resume_keeps_accepted_plan() -> None:
    whole = planned('returns: "list[str]"', *PLAN)
    compiled = program(WORK % 'returns: "list[str]"')

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(whole.events) - 1):
            theatre = Theatre(clock, {"router": router(*PLAN)})
            theatre.put(whole.events[:cut])
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            assert (await run.wait()).outcome == ValueOutcome(["A", "B"])
            again = [event.draft.lines for event in run.log if isinstance(event, TurnStarted) and event.draft]
            before = [
                event.draft.lines for event in whole.events[:cut] if isinstance(event, TurnStarted) and event.draft
            ]
            assert [*before, *again] == drafted(whole)
            await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_refused_by_compiler_fails_node_only() -> None:
    text = """
input: {text: str}
output: ${solve}
nodes:
  odd: {tool: make, with: {text: "${input.text}"}}
  solve: {plan: go, with: {odd: "${odd}"}, tools: [shout], returns: str, repairs: 0}
"""
    name = "a" * 1_100  # longer than the limit for a reference in the language
    odd = record(**{name: {"type": "string"}})
    catalog = replace(CATALOG, tools={**CATALOG.tools, "make": tool("make", record(text={"type": "string"}), odd)})
    answers = {"make": lambda call: {name: "a"}, "router": router(f"s1 = shout(text=input.odd.{name})", "return s1")}
    played = play(text, {"text": "a"}, answers=answers, catalog=catalog)
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.origin, played.outcome.code[0]) == ("solve", "L")


def test_plan_unnameable_value_refused_at_parse() -> None:
    for name in ("Text", "in"):
        with pytest.raises(InputError) as caught:
            program(WORK.replace("with: {text:", f"with: {{{name}:") % "returns: str")
        assert caught.value.code == "L115"


def test_plan_without_planner_reported() -> None:
    played = planned("returns: str, router: missing", "return s1")
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.code, played.outcome.reason) == ("R007", "there is no agent that plans")


LOUDLY = """
schema: orchestra/v1
name: loudly
description: Makes every word loud.
input: {text: str, twice: {type: bool, default: false}}
output: ${loud.values}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {tool: shout, each: "${words}", as: word, with: {text: "${word}"}}
"""
CALLING = """
input: {text: str}
output: ${loudly}
nodes:
  loudly: {plan: "loudly: ${input.text}", with: {text: "${input.text}"}, workflows: [loudly], tools: [count], %s}
"""


def with_workflows(*texts: str) -> Catalog:
    graphs = [read(text, "called.yaml").graph for text in texts]
    return replace(CATALOG, workflows={graph.name: graph for graph in graphs})


def test_plan_calls_workflow_named_like_node() -> None:
    lines = ("s1 = loudly(text=input.text)", "s2 = count(items=s1)", "return s2")
    played = play(
        CALLING % "returns: int", {"text": "a b"}, answers={"router": router(*lines)}, catalog=with_workflows(LOUDLY)
    )
    assert played.outcome == ValueOutcome(2)
    assert {"loudly@1/s1/words", "loudly@1/s1/loud[1]", "loudly@1/s2"} <= set(played.outcomes)
    first = next(call for call in played.workers.calls if call.name == "router")
    assert (
        first.inputs["skills"].splitlines()[0] == "loudly(text: str, twice?: bool) -> list[str]: Makes every word loud."
    )
    found = replay(program(CALLING % "returns: int", with_workflows(LOUDLY)), played.events)
    assert (found.first_difference, found.reason) == (None, "")


@pytest.mark.parametrize("line", ["s1 = split(text=input.text)", "s1 = shout(text=input.text)"])
def test_plan_cannot_use_skills_of_called_workflow(line: str) -> None:
    played = play(
        CALLING % 'returns: "list[str]", repairs: 0',
        {"text": "a b"},
        answers={"router": router(line)},
        catalog=with_workflows(LOUDLY),
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert f"there is no '{line[5:10]}'" in played.outcome.reason
    assert not {"split", "shout"} & played.workers.counts.keys()


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("s1 = loudly(words=input.text)", "/steps/1/with/words: loudly takes no 'words'"),
        ("s1 = loudly(text=[])", "/steps/1/with/text: expected str"),
        ("s1 = loudly(text=input.text, twice=1)", "/steps/1/with/twice: expected bool"),
        ("s1 = loudly(twice=true)", "/steps/1/with/text: loudly needs text: str"),
    ],
)
def test_plan_workflow_arguments_checked(line: str, reason: str) -> None:
    played = play(
        CALLING % 'returns: "list[str]", repairs: 0',
        {"text": "a"},
        answers={"router": router(line)},
        catalog=with_workflows(LOUDLY),
    )
    assert isinstance(played.outcome, FailedOutcome)
    assert reason in played.outcome.reason


def test_plan_calls_listed_workflow_with_effects() -> None:
    sends = (
        "schema: orchestra/v1\n"
        "name: sends\n"
        "input: {text: str}\n"
        "output: ${a}\n"
        "nodes:\n"
        "  a: {tool: send, with: {text: '${input.text}'}}\n"
    )
    text = CALLING.replace("[loudly]", "[sends]") % "returns: str, confirm: false"
    lines = ("s1 = sends(text=input.text)", "return s1")
    played = play(text, {"text": "a b"}, answers={"router": router(*lines)}, catalog=with_workflows(sends))
    assert played.outcome == ValueOutcome("sent")
    assert played.workers.counts["send"] == 1


def test_resume_plan_calling_workflow_at_any_event() -> None:
    lines = ("s1 = loudly(text=input.text)", "s2 = count(items=s1)", "return s2")
    whole = play(
        CALLING % "returns: int", {"text": "a b"}, answers={"router": router(*lines)}, catalog=with_workflows(LOUDLY)
    )
    compiled = program(CALLING % "returns: int", with_workflows(LOUDLY))

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(whole.events) - 1):
            theatre = Theatre(clock, {"router": router(*lines)})
            theatre.put(whole.events[:cut])
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            assert (await run.wait()).outcome == ValueOutcome(2)
            await theatre.engine.close()

    run_simulated(scene, 0)
