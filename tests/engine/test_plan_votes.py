"""`plan` nodes with votes and with a larger planner: their calls and their events."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from random import Random
from typing import Any

import pytest

from orchestra.core.events import AttemptFinished, Event, PlanDraft, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallError, CallRequest
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.kinds.test_plan import PLAN, WORK
from tests.engine.stage import CATALOG, TEXT, Played, agent, play, program, record

PLANNER = agent("planner", record(request=TEXT, skills=TEXT, values=TEXT, plan=TEXT, grammar=TEXT), TEXT)
WITH_LARGER = replace(CATALOG, agents={**CATALOG.agents, "planner": PLANNER})
LOUD = ("s1 = shout(text=input.text)", "return s1")
LOUD_AGAIN = ("s1 = split(text=input.text)", "s2 = shout(text=input.text)", "return s2")
QUIET = ("s1 = writer(text=input.text)", "return s1")


def line(lines: tuple[str, ...], call: CallRequest) -> str:
    """Returns the next line of a plan at its current length."""
    stand = len(str(call.inputs["plan"]).splitlines())
    return lines[min(stand, len(lines) - 1)]


def voted(*plans: tuple[str, ...], more: str = "", **options: Any) -> Played:
    """Runs a vote in which each sample writes its own plan."""
    answer = {"router": lambda call: line(plans[call.sample - 1], call)}
    return play(
        WORK % f"returns: str, repairs: 0, votes: {len(plans)}{more}", {"text": "a b"}, answers=answer, **options
    )


def decided(played: Played) -> Any:
    return played.of(TurnStarted)[-1].draft


def test_votes_majority_ignores_step_names() -> None:
    played = voted(QUIET, LOUD, LOUD_AGAIN)
    assert played.outcome == ValueOutcome("A B")
    assert (decided(played).lines, decided(played).agreement) == (LOUD, 2 / 3)
    assert decided(played).sampled_plans == (QUIET, LOUD, LOUD_AGAIN)


def test_votes_tie_to_first_missing_plans_count() -> None:
    played = voted(("no",), QUIET, LOUD, ("no",))
    assert played.outcome == ValueOutcome("<a b>")
    assert decided(played).agreement == 0.25


def test_votes_seed_per_sample_none_for_steps() -> None:
    played = voted(QUIET, QUIET)
    assert sorted(call.sample for call in played.workers.calls) == [0, 1, 1, 2, 2]


@pytest.mark.parametrize("votes", [2, 5])
def test_votes_samples_run_concurrently(votes: int) -> None:
    played = voted(*[LOUD] * votes, latency=1.0)
    assert played.outcome == ValueOutcome("A B")
    last = played.of(TurnStarted)[-1]
    assert last.at - played.events[0].at == pytest.approx(2.0)  # two lines, for any number of samples
    begun = [event.draft.sample for event in played.of(TurnStarted)]
    assert begun[:votes] == [*range(1, votes + 1)]
    assert [*sorted(begun[votes:-1]), begun[-1]] == [*range(1, votes + 1), 0]


def test_votes_slow_sample_delays_no_other() -> None:
    def seconds(call: CallRequest, chance: Random) -> float:
        return {1: 10.0, 2: 1.0, 3: 1.5}.get(call.sample, 0.0)

    played = voted(QUIET, LOUD, LOUD_AGAIN, latency=seconds)
    turns = [(event.draft.sample, event.at - played.events[0].at) for event in played.of(TurnStarted)]
    assert turns == [(1, 0.0), (2, 0.0), (3, 0.0), (2, 1.0), (3, 1.5), (3, 3.0), (1, 10.0), (0, 20.0)]
    assert decided(played).sampled_plans == (QUIET, LOUD, LOUD_AGAIN)


def test_votes_unneeded_samples_cancelled_with_node() -> None:
    played = voted(QUIET, LOUD, more=", fallback: quiet, timeout: 5", latency=20.0)
    assert played.outcome == ValueOutcome("quiet")
    assert played.events[-1].at - played.events[0].at == pytest.approx(5.0)


def test_votes_server_down_loses_vote_all_down_fails_node() -> None:
    gone = CallError(code="F210", reason="the server is gone")

    def of(*without: int) -> Played:
        answer = {"router": lambda call: gone if call.sample in without else line(LOUD, call)}
        return play(WORK % "returns: str, repairs: 0, votes: 3", {"text": "a b"}, answers=answer)

    assert (of(1).outcome, decided(of(1)).agreement) == (ValueOutcome("A B"), 2 / 3)
    assert of(2, 3).outcome == ValueOutcome("A B")
    lost = of(1, 2, 3).outcome
    assert isinstance(lost, FailedOutcome)
    assert lost.code == "F210"


@pytest.mark.parametrize("code", ["M001", "M003", "M004", "F205", "F210", "F217"])
def test_unreadable_router_answers_go_to_larger_planner(code: str) -> None:
    silent = CallError(code=code, reason="nothing to read", retryable=False)

    def of(more: str, *, planner: Any = None) -> Played:
        answers = {"router": lambda call: silent, "planner": planner or (lambda call: line(PLAN, call))}
        played = play(
            text := WORK % f'returns: "list[str]", {more}', {"text": "a b"}, answers=answers, catalog=WITH_LARGER
        )
        assert replay(program(text, WITH_LARGER), played.events).first_difference is None
        return played

    played = of("larger: planner, repairs: 1")
    assert played.outcome == ValueOutcome(["A", "B"])
    assert (played.workers.counts["router"], played.workers.counts["planner"]) == (2, 3)
    told = next(call.inputs["request"] for call in played.workers.calls if call.name == "planner")
    assert f"/steps/1: no readable line ({code}: nothing to read)" in told
    assert of("larger: planner, repairs: 0, votes: 2").outcome == ValueOutcome(["A", "B"])
    for alone in (of("repairs: 1"), of("larger: planner, repairs: 0", planner=lambda call: silent)):
        assert isinstance(alone.outcome, FailedOutcome)
        assert alone.outcome.code == code
    assert of("repairs: 1, fallback: []").outcome == ValueOutcome([])


def test_router_down_not_repaired() -> None:
    answers = {
        "router": lambda call: CallError(code="F203", reason="gone", retryable=False),
        "planner": lambda call: line(PLAN, call),
    }
    played = play(WORK % "returns: str, larger: planner", {"text": "a"}, answers=answers, catalog=WITH_LARGER)
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.code, played.workers.counts["router"]) == ("F203", 1)


def test_without_votes_card_sampling_used() -> None:
    played = play(WORK % "returns: str", {"text": "a"}, answers={"router": lambda call: line(LOUD, call)})
    assert {call.sample for call in played.workers.calls} == {0}
    assert decided(played).agreement is None


def test_votes_no_plan_fails_or_uses_fallback() -> None:
    played = voted(("no",), ("no",))
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "R007"
    assert voted(("no",), ("no",), more=", fallback: quiet").outcome == ValueOutcome("quiet")


def larger(router: tuple[str, ...], planner: tuple[str, ...], more: str = "repairs: 1") -> Played:
    answers = {"router": lambda call: line(router, call), "planner": lambda call: line(planner, call)}
    return play(
        WORK % f'returns: "list[str]", larger: planner, {more}', {"text": "a b"}, answers=answers, catalog=WITH_LARGER
    )


def test_larger_planner_continues_after_repairs() -> None:
    played = larger((PLAN[0], "I cannot"), PLAN)
    assert played.outcome == ValueOutcome(["A", "B"])
    assert (played.workers.counts["router"], played.workers.counts["planner"]) == (3, 2)
    first = next(call for call in played.workers.calls if call.name == "planner")
    assert first.inputs["plan"] == PLAN[0]
    assert "Not accepted, write another line:" in first.inputs["request"]
    asked = [(event.draft.escalated, event.draft.lines) for event in played.of(TurnStarted)]
    assert asked == [
        (False, ()),
        (False, PLAN[:1]),
        (False, PLAN[:1]),
        (True, PLAN[:1]),
        (True, PLAN[:2]),
        (True, PLAN),
    ]


def test_larger_planner_has_same_repair_limit() -> None:
    played = larger(("no",), ("never",), "repairs: 2")
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == "R007"
    assert (played.workers.counts["router"], played.workers.counts["planner"]) == (3, 3)
    assert larger(("no",), ("never",), "repairs: 0, fallback: []").outcome == ValueOutcome([])


def test_larger_planner_not_asked_after_success() -> None:
    assert "planner" not in larger(PLAN, ("no",)).workers.counts


def test_votes_failed_samples_go_to_larger_planner() -> None:
    played = larger((PLAN[0], "I cannot"), PLAN, "repairs: 0, votes: 2")
    assert played.outcome == ValueOutcome(["A", "B"])
    assert sorted(call.sample for call in played.workers.calls if call.name == "planner") == [1, 1, 2, 2]


def by_sample(events: Sequence[Event]) -> dict[int, list[PlanDraft]]:
    """Returns the questions of each sample in order; the interleaving of samples depends on the order of answers."""
    found: dict[int, list[PlanDraft]] = {}
    for event in events:
        if isinstance(event, TurnStarted) and event.draft is not None:
            found.setdefault(event.draft.sample, []).append(event.draft)
    return found


@pytest.mark.parametrize("latency", [0.0, 1.0])
@pytest.mark.parametrize(
    "more", ["votes: 3, repairs: 1", "larger: planner, repairs: 1", "larger: planner, repairs: 0, votes: 2"]
)
def test_votes_run_replays_and_resumes_at_every_event(more: str, latency: float) -> None:
    text = WORK % f'returns: "list[str]", {more}'
    answers = {
        "router": lambda call: line((PLAN[0], "I cannot") if call.sample < 2 else PLAN, call),
        "planner": lambda call: line(PLAN, call),
    }
    whole = play(text, {"text": "a b"}, answers=answers, catalog=WITH_LARGER, latency=latency)
    compiled = program(text, WITH_LARGER)
    assert isinstance(whole.outcome, ValueOutcome)
    found = replay(compiled, whole.events)
    assert (found.first_difference, found.reason) == (None, "")

    async def scene(clock: VirtualClock) -> None:
        for cut in range(2, len(whole.events) - 1):
            theatre = Theatre(clock, answers, latency=latency)
            theatre.put(whole.events[:cut])
            run = await theatre.engine.resume(compiled, whole.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            assert (await run.wait()).outcome == whole.outcome
            log = [*whole.events[:cut], *run.log]
            assert by_sample(log) == by_sample(whole.events)
            again = replay(compiled, log)
            assert (again.first_difference, again.reason) == (None, "")
            await theatre.engine.close()

    run_simulated(scene, 0)


def test_ledger_includes_cost_of_votes() -> None:
    played = voted(QUIET, LOUD)
    asked = [event.usage for event in played.of(AttemptFinished) if event.node.endswith("/line")]
    assert [usage.calls for usage in asked] == [1, 1, 1, 1]
    assert played.finished.usage.calls == 4 + 1  # and the writer of the winning plan


def test_votes_return_nothing_counts() -> None:
    nothing = ("return nothing",)
    played = voted(LOUD, nothing, nothing)
    assert isinstance(played.outcome, FailedOutcome)
    assert "no capability serves the request" in played.outcome.reason
    assert voted(LOUD, nothing, LOUD_AGAIN).outcome == ValueOutcome("A B")
    assert decided(voted(LOUD, nothing, LOUD_AGAIN)).sampled_plans == (LOUD, nothing, LOUD_AGAIN)


def test_votes_counted_before_first_step() -> None:
    played = voted(LOUD_AGAIN, LOUD_AGAIN)
    assert [event.draft.plan for event in played.of(TurnStarted)] == [None] * 7
    last = played.of(TurnStarted)[-1].seq
    assert all(event.seq > last for event in played.of(AttemptFinished) if event.node.startswith("solve@"))


def test_votes_apply_to_replanned_plan() -> None:
    def written(call: CallRequest) -> str:
        return line(LOUD if "These calls failed" in call.inputs["request"] else QUIET, call)

    text = WORK % "returns: str, repairs: 0, votes: 2"
    played = play(
        text,
        {"text": "a b"},
        answers={"router": written, "writer": lambda call: CallError(code="T009", reason="the pen is dry")},
    )
    assert played.outcome == ValueOutcome("A B")
    whole = [event.draft for event in played.of(TurnStarted) if event.draft.agreement is not None]
    assert [(drafted.version, drafted.sampled_plans) for drafted in whole] == [(1, (QUIET, QUIET)), (2, (LOUD, LOUD))]
    found = replay(program(text), played.events)
    assert (found.first_difference, found.reason) == (None, "")
