"""Questions with a deadline: a run that waits only for persons keeps waiting; at the deadline the default applies."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from orchestra import Budget, InputError, Orchestra, ask, tool, workflow
from orchestra.core.events import InboxMessageRejected, NodeFinished, QuestionAnswered, QuestionAsked, RunResumed
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.core.settings import Settings
from orchestra.engine.replay import replay
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import program

QUESTION = 'output: ${a}\nnodes:\n  a: {ask: "Well?", options: ["yes", "no"], timeout: 60, fallback: "no"}'
BODY = 'output: ${b}\nnodes:\n  b: {call: {nodes: {i: {ask: "Well?"}}, output: "${i}"}, timeout: 60, fallback: "no"}'
BESIDE = """
output: {a: "${a}", b: "${b}"}
nodes:
  a: {ask: "Well?", timeout: 60, fallback: "no"}
  b: {agent: writer, with: {text: x}}
"""


def letter(asked: QuestionAsked, at: float, value: str = "yes") -> InboxMessage:
    return InboxMessage(kind="answer", node=asked.node, value=value, question_digest=asked.question_digest, at=at)


@pytest.mark.parametrize("text", [QUESTION, BODY])
def test_deadline_default_used_while_only_persons_awaited(text: str) -> None:
    compiled = program(text)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        began = clock.now()
        assert await run.wait_until_blocked() is None
        assert clock.now() - began < 1
        (asked,) = run.questions
        assert asked.due == pytest.approx(began + 60, abs=0.1)
        summary = await theatre.journal.summary(run.id)
        assert summary is not None
        assert (summary.status, summary.due) == ("waiting", asked.due)
        assert (await run.wait()).outcome == ValueOutcome("no")
        assert clock.now() - began == pytest.approx(60, abs=0.1)
        events = await theatre.journal.read(run.id)
        assert [event.by for event in events if isinstance(event, RunResumed)] == ["a deadline"]
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


@pytest.mark.parametrize("text", [QUESTION, BODY])
def test_deadline_is_wall_clock_and_never_restarts(text: str) -> None:
    """The deadline is independent of the process and of the number of takeovers."""
    compiled = program(text)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        began = clock.now()
        for _ in range(5):
            await clock.sleep(3)
            await theatre.crash()
            await clock.sleep(7)
            again = await theatre.engine.resume(compiled, run.id)
        assert (await again.wait()).outcome == ValueOutcome("no")
        assert clock.now() - began == pytest.approx(60, abs=0.1)
        await theatre.engine.close()

    run_simulated(scene)


def test_deadline_kept_beside_other_calls() -> None:
    compiled = program(BESIDE)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=100.0)
        run = theatre.start(compiled)
        began = clock.now()
        finished = await run.wait()
        assert finished.outcome == ValueOutcome({"a": "no", "b": "<x>"})
        ends = {event.node: event.at - began for event in run.log if isinstance(event, NodeFinished)}
        assert ends["a"] == pytest.approx(60, abs=0.1)
        await theatre.engine.close()

    run_simulated(scene)


@pytest.mark.parametrize(("late", "value"), [(-1.0, "yes"), (0.0, "no"), (5.0, "no")])
def test_deadline_only_answers_sent_in_time_count(late: float, value: str) -> None:
    compiled = program(QUESTION)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        await run.wait_until_blocked()
        (asked,) = run.questions
        await theatre.crash()
        await clock.sleep(100)
        await theatre.journal.send(run.id, letter(asked, asked.due + late))
        again = await theatre.engine.resume(compiled, run.id)
        assert (await again.wait()).outcome == ValueOutcome(value)
        events = await theatre.journal.read(run.id)
        assert any(isinstance(event, QuestionAnswered if value == "yes" else InboxMessageRejected) for event in events)
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


def test_deadline_end_seen_by_two_processes() -> None:
    compiled = program(QUESTION)

    async def scene(clock: VirtualClock) -> None:
        one, two = Theatre(clock), Theatre(clock)
        two.store = one.store
        two.journal = MemoryJournal(one.store)
        two.engine.journal = two.journal
        run = one.start(compiled)
        await run.wait_until_blocked()
        other = await two.engine.resume(compiled, run.id)
        ends = await asyncio.gather(run.wait(), other.wait())
        assert [end.outcome for end in ends] == [ValueOutcome("no"), ValueOutcome("no")]
        await one.engine.close()
        await two.engine.close()

    run_simulated(scene)


def test_deadline_timer_removed_after_answer_or_close() -> None:
    compiled = program('output: ${b}\nnodes:\n  a: {ask: "Well?", timeout: 60, fallback: "no"}\n  b: {ask: "${a}?"}')

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        await run.wait_until_blocked()
        await theatre.journal.send(run.id, letter(run.questions[0], clock.now()))
        await clock.sleep(100)
        assert [asked.node for asked in run.questions] == ["b"]
        assert sum(isinstance(event, RunResumed) for event in await theatre.journal.read(run.id)) == 1
        theatre.start(compiled)
        await clock.sleep(1)
        await theatre.engine.close()

    run_simulated(scene)


@tool(effect="pure")
def same(text: str) -> str:
    """The same."""
    return text


@workflow(budget=Budget(seconds=60))
def deadline(text: str) -> str:
    """Asks, with a deadline and a default."""
    return ask("Well, " + same(text=text) + "?", options=["yes", "no"], timeout=3600, fallback="no")


@workflow
def week(text: str) -> str:
    """Takes a week."""
    return ask("Well, " + text + "?", timeout=7 * 86_400, fallback="no")


@workflow
def slow(text: str) -> str:
    """Calls for a week."""
    return same.options(timeout=7 * 86_400)(text=text)


def opened(clock: VirtualClock, store: MemoryStore) -> Any:
    workers = SimulatedWorkers({"same": lambda call: call.inputs["text"]}, clock=clock)
    return Orchestra.open(Settings.load({}), workers=workers, journal=MemoryJournal(store), clock=clock)


def test_budget_seconds_exclude_question_with_deadline() -> None:
    async def scene(clock: VirtualClock) -> None:
        async with opened(clock, MemoryStore()) as orchestra:
            run = await orchestra.start(deadline, text="x")
            assert await run.wait_until_blocked() is None
            assert (await orchestra.view(run.id)).status == "waiting"
            await clock.sleep(1800)
            await orchestra.answer(run.id, "yes")
            assert (await run.wait()).value == "yes"

    run_simulated(scene)


def test_deadline_passed_without_lease_holder_refuses_answer() -> None:
    async def scene(clock: VirtualClock) -> None:
        store = MemoryStore()
        async with opened(clock, store) as orchestra:
            run = await orchestra.start(deadline, text="x")
            await run.wait_until_blocked()
        async with opened(clock, store) as orchestra:
            orchestra.program(deadline)
            assert [seen.status for seen in await orchestra.runs()] == ["waiting"]
            await clock.sleep(3600)
            assert (await orchestra.view(run.id)).status == "interrupted"
            (seen,) = await orchestra.runs(status="interrupted")
            with pytest.raises(InputError) as told:
                await orchestra.answer(run.id, "yes")
            assert told.value.code == "E031"
            assert f"orchestra runs resume {run.id}" in told.value.hint
            assert (await (await orchestra.resume(seen.run)).wait()).value == "no"

    run_simulated(scene)


def test_deadline_week_for_question_not_for_call() -> None:
    async def scene(clock: VirtualClock) -> None:
        async with opened(clock, MemoryStore()) as orchestra:
            began = clock.now()
            assert (await orchestra.run(week, text="x")).value == "no"
            assert clock.now() - began == pytest.approx(7 * 86_400, abs=1)

    run_simulated(scene)
    with pytest.raises(InputError, match="86400"):
        _ = slow.graph


def test_deadline_default_is_not_a_human_answer() -> None:
    async def scene(clock: VirtualClock) -> None:
        async with opened(clock, MemoryStore()) as orchestra:
            silent = await orchestra.run(deadline, text="x")
            declining = await orchestra.start(deadline, text="y")
            await declining.wait_until_blocked()
            await orchestra.answer(declining.id, None, decline_reason="I was not there", by="ada")
            declined, answered = await declining.wait(), await orchestra.start(deadline, text="z")
            await answered.wait_until_blocked()
            await orchestra.answer(answered.id, "no")
            said = [
                [claim.unsupported or claim.person for claim in result.claims]
                for result in (silent, declined, await answered.wait())
            ]
            assert said == [
                ["no answer in time; the default applies (asked)"],
                ["ada declined to answer: I was not there; the default applies (asked)"],
                ["answered by a person (asked)"],
            ]

    run_simulated(scene)
