"""`plan` nodes with a cached plan: the router is not called, the plan is journaled, and resume and replay need no
cache.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace as replaced
from typing import Any

import pytest
from msgspec import structs

from orchestra.core.events import AttemptFinished, Event, RunStarted, TurnStarted
from orchestra.core.outcomes import FailedOutcome, Outcome, ValueOutcome
from orchestra.core.protocols import CallError
from orchestra.engine.engine import Engine
from orchestra.engine.replay import replay
from orchestra.journal.errors import damaged_rows_error
from orchestra.journal.history import History
from orchestra.journal.memory import MemoryJournal
from orchestra.router.plan_cache import FORMAT
from orchestra.testing import VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, program

TEXT = """
input: {text: str}
output: ${solve}
nodes:
  solve: {plan: "%s", with: {text: "${input.text}"}, tools: [shout, split, count, grow], agents: [writer], returns: str%s}
"""  # noqa: E501
LOUD = ("s1 = shout(text=input.text)", "return s1")


def router(*lines: str) -> Any:
    return lambda call: lines[min(len(str(call.inputs["plan"]).splitlines()), len(lines) - 1)]


async def one(
    theatre: Theatre, goal: str = "Make it loud.", more: str = "", text: str = "a b"
) -> tuple[Outcome, list[Event]]:
    run = theatre.start(program(TEXT % (goal, more)), {"text": text})
    finished = await run.wait()
    return finished.outcome, list(run.log)


def asked(theatre: Theatre) -> int:
    return theatre.workers.counts["router"]


def turns(events: list[Event]) -> list[Any]:
    return [event.draft for event in events if isinstance(event, TurnStarted)]


def staged(scene: Any, answers: Mapping[str, Any] | None = None) -> Any:
    async def play(clock: VirtualClock) -> Any:
        theatre = Theatre(clock, answers or {"router": router(*LOUD)})
        try:
            return await scene(theatre)
        finally:
            await theatre.engine.close()

    return run_simulated(play, 0)


def test_plan_cache_second_run_skips_router() -> None:
    async def scene(theatre: Theatre) -> None:
        _, first = await one(theatre)
        outcome, second = await one(theatre, "make it LOUD", text="c")
        assert (outcome, asked(theatre)) == (ValueOutcome("C"), 2)
        (drafted,) = turns(second)
        assert isinstance(first[0], RunStarted)
        assert (drafted.lines, drafted.reused_from, drafted.saved_usage.calls) == (LOUD, first[0].run, 2)
        assert drafted.saved_usage.prompt_tokens > 0
        assert [(saved.run, saved.node, saved.usage) for saved in History.of(second).reused_plans] == [
            (drafted.reused_from, "solve", drafted.saved_usage)
        ]
        assert History.of(first).reused_plans == ()

    staged(scene)


def test_plan_cache_literals_of_goal_refilled() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre, "Write 'hello there' loudly.")
        outcome, events = await one(theatre, "write 'good night' loudly")
        assert outcome == ValueOutcome("GOOD NIGHT")
        assert turns(events)[0].lines == ('s1 = shout(text="good night")', "return s1")
        assert asked(theatre) == 2

    staged(scene, {"router": router('s1 = shout(text="hello there")', "return s1")})


@pytest.mark.parametrize(
    ("goal", "more"),
    [
        ("Make it quiet.", ""),
        ("Make it loud.", ", cache: false"),
        ("Make it loud.", ", votes: 2"),
        ("Make it loud.", ", limits: {steps: 3}"),
    ],
)
def test_plan_cache_other_intent_or_shape_asks_router(goal: str, more: str) -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        before = asked(theatre)
        _, events = await one(theatre, goal, more)
        assert asked(theatre) > before
        assert turns(events)[-1].reused_from == ""

    staged(scene)


def test_plan_cache_disabled_stores_nothing() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre, more=", cache: false")
        await one(theatre)
        assert asked(theatre) == 4

    staged(scene)


def test_plan_cache_failed_plan_not_stored() -> None:
    async def scene(theatre: Theatre) -> None:
        for more in (", replans: 0", ", replans: 0, fallback: quiet") * 2:
            outcome, events = await one(theatre, more=more)
            assert isinstance(outcome, FailedOutcome) if "fallback" not in more else outcome == ValueOutcome("quiet")
            assert turns(events)[-1].lines == LOUD
            assert turns(events)[-1].reused_from == ""

    gone = CallError(code="F210", reason="it is gone")
    staged(scene, {"router": router(*LOUD), "shout": lambda call: gone})


def test_plan_cache_resume_and_replay_need_no_cache() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        outcome, events = await one(theatre)
        compiled = program(TEXT % ("Make it loud.", ""))
        found = replay(compiled, events)
        assert (found.first_difference, found.reason) == (None, "")
        theatre.store.memos.clear()
        for cut in range(2, len(events) - 1):
            fresh = Theatre(theatre.clock, {"router": router("no")})
            fresh.put(events[:cut])
            assert isinstance(events[0], RunStarted)
            run = await fresh.engine.resume(compiled, events[0].run)
            assert (await run.wait()).outcome == outcome
            assert fresh.workers.counts["router"] == 0
            await fresh.engine.close()

    staged(scene)


def test_plan_cache_replay_validates_plan() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        _, events = await one(theatre)
        compiled = program(TEXT % ("Make it loud.", ""))
        turn = next(event for event in events if isinstance(event, TurnStarted))
        assert turn.draft is not None
        wrong = structs.replace(turn.draft, lines=("s1 = send(text=input.text)", "return s1"))
        changed = [structs.replace(turn, draft=wrong) if event is turn else event for event in events]
        assert replay(compiled, changed).reason == "the router's machine would go on otherwise"

    staged(scene)


@pytest.mark.parametrize(
    "stored", [None, 7, {"lines": ["import os"]}, {"format": FORMAT, "context_digest": "", "request": "", "lines": []}]
)
def test_plan_cache_invalid_entry_ignored_and_journaled(stored: Any) -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        theatre.store.memos.update({key: (run, stored) for key, (run, _) in theatre.store.memos.items()})
        outcome, events = await one(theatre)
        assert (outcome, asked(theatre)) == (ValueOutcome("A B"), 4)
        assert turns(events)[0].warning.startswith("R011: a stored plan is ignored: ")
        assert replay(program(TEXT % ("Make it loud.", "")), events).reason == ""

    staged(scene)


class Damaged(MemoryJournal):
    """A journal whose memo cannot be read."""

    async def get_memo(self, memo: str) -> tuple[str, Any] | None:
        raise damaged_rows_error("an answer", "it was altered")


def test_plan_cache_unreadable_memo_ignored() -> None:
    async def scene(theatre: Theatre) -> None:
        theatre.engine = Engine(theatre.clock, Damaged(theatre.store), theatre.workers)
        outcome, events = await one(theatre)
        assert outcome == ValueOutcome("A B")
        assert "R011: a stored plan is ignored: J" in turns(events)[0].warning

    staged(scene)


def test_plan_cache_changed_skill_contract_misses() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        shout = CATALOG.tools["shout"]
        changed = replaced(CATALOG, tools={**CATALOG.tools, "shout": replaced(shout, version="2")})
        run = theatre.start(program(TEXT % ("Make it loud.", ""), changed), {"text": "a"})
        await run.wait()
        assert asked(theatre) == 4

    staged(scene)


def test_plan_cache_plan_calls_listed_effect() -> None:
    """The author has listed the effect; a stored plan can call only skills that the node lists."""
    text = TEXT.replace("grow]", "send]")

    async def scene(theatre: Theatre) -> None:
        for _ in range(2):
            run = theatre.start(program(text % ("Send it.", ", confirm: false")), {"text": "a"})
            assert (await run.wait()).outcome == ValueOutcome("sent")
        assert (asked(theatre), theatre.workers.counts["send"]) == (2, 2)
        _, events = await one(theatre, "Send it.", more=", confirm: false")
        assert turns(events)[-1].reused_from == ""

    staged(scene, {"router": router("s1 = send(text=input.text)", "return s1")})


def test_plan_cache_stores_votes() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre, more=", votes: 3")
        _, events = await one(theatre, more=", votes: 3")
        (drafted,) = turns(events)
        assert (drafted.agreement, drafted.saved_usage.calls) == (1.0, 6)

    staged(scene)


AROUND = ("s1 = split(text=input.text)", "s2 = shout(text=input.text)", "return s2")


def other_way(call: Any) -> Any:
    """Writes `QUIET`, in which the writer fails, and avoids the writer once the prompt has the failure."""
    return router(*(LOUD if "These calls failed" in call.inputs["request"] else QUIET))(call)


QUIET = ("s1 = writer(text=input.text)", "return s1")
FAILS = {"router": other_way, "writer": lambda call: CallError(code="T009", reason="the pen is dry")}


def test_plan_cache_replanned_plan_not_stored() -> None:
    async def scene(theatre: Theatre) -> None:
        for count in (4, 8):
            outcome, events = await one(theatre, more=", streaming: false")
            assert (outcome, asked(theatre), turns(events)[-1].version) == (ValueOutcome("A B"), count, 2)
        assert theatre.store.memos == {}

    staged(scene, FAILS)


def test_plan_cache_failed_plan_replanned_by_router() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        kept = dict(theatre.store.memos)
        assert len(kept) == 2
        gone = Theatre(theatre.clock, FAILS)
        gone.store.memos.update(kept)
        outcome, events = await one(gone)
        assert outcome == ValueOutcome("A B")
        first, *others = turns(events)
        assert (first.lines, first.version, first.reused_from != "") == (QUIET, 1, True)
        assert {(drafted.version, drafted.reused_from) for drafted in others} == {(2, "")}
        assert (asked(gone), gone.store.memos) == (2, kept)
        found = replay(program(TEXT % ("Make it loud.", "")), events)
        assert (found.first_difference, found.reason) == (None, "")
        await gone.engine.close()

    staged(scene, {"router": router(*QUIET)})


def test_plan_cache_plan_starts_as_whole() -> None:
    async def scene(theatre: Theatre) -> None:
        await one(theatre)
        _, events = await one(theatre)
        (drafted,) = turns(events)
        assert (drafted.lines[-1], drafted.plan, drafted.version) == ("return s1", None, 1)
        assert [event.node for event in events if isinstance(event, AttemptFinished)] == ["solve@1/s1"]

    staged(scene)


def test_plan_cache_timeout_abandons_steps() -> None:
    """The run continues for longer than the step would have taken."""
    text = (
        TEXT.replace("output: ${solve}", 'output: {said: "${solve}", late: "${late}"}')
        + "  late: {tool: count, with: {items: [a]}, after: [solve]}\n"
    )
    compiled = program(text % ("Make it loud.", ", timeout: 2, fallback: none"))
    slow = {"seconds": 0.1}

    async def scene(clock: VirtualClock) -> None:
        pace = {"shout": lambda: slow["seconds"], "count": lambda: 30.0}
        theatre = Theatre(
            clock, {"router": router(*LOUD)}, latency=lambda call, chance: pace.get(call.name, lambda: 0.1)()
        )
        await theatre.start(compiled, {"text": "a"}).wait()
        slow["seconds"] = 9.0
        finished = await theatre.start(compiled, {"text": "b"}).wait()
        assert asked(theatre) == 2, "the plan was known"
        assert finished.outcome == ValueOutcome({"said": "none", "late": 1})
        assert [call.node for call in theatre.workers.cancelled] == ["solve@1/s1"]
        await theatre.engine.close()

    run_simulated(scene, 0)


def test_plan_cache_return_nothing_never_stored_or_used() -> None:
    said = ["return nothing"]

    async def scene(theatre: Theatre) -> None:
        outcome, _ = await one(theatre)
        assert isinstance(outcome, FailedOutcome)
        assert "no capability serves the request" in outcome.reason
        assert theatre.store.memos == {}
        said[:] = LOUD
        await one(theatre)
        nothing = {
            key: (run, {**entry, "lines": ["return nothing"]}) for key, (run, entry) in theatre.store.memos.items()
        }
        theatre.store.memos.update(nothing)
        outcome, events = await one(theatre)
        assert (outcome, turns(events)[0].warning) == (
            ValueOutcome("A B"),
            "R011: a stored plan is ignored: it is not a plan: it returns nothing",
        )

    staged(scene, {"router": lambda call: router(*said)(call)})


def test_plan_cache_streamed_plan_reused() -> None:
    async def scene(theatre: Theatre) -> None:
        _, first = await one(theatre)
        assert turns(first)[-2].plan is not None
        _, second = await one(theatre)
        assert turns(second)[0].lines == AROUND

    staged(scene, {"router": router(*AROUND)})
