"""Seconds in the budget of a called workflow: they apply to each call of it, like the seconds of a run to the run."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.events import QuestionAsked, RunResumed, TurnStarted
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import CallRequest, InboxMessage
from orchestra.engine.replay import replay
from orchestra.testing import VirtualClock, run_simulated
from orchestra.workflows.yaml.reader import read
from tests.engine.durable import Theatre
from tests.engine.stage import CATALOG, Played, play, program
from tests.engine.test_checks import WITH, chance

CHAIN = "output: ${b}\nnodes:\n  a: {agent: writer, with: {text: x}}\n  b: {agent: writer, with: {text: '${a}'}}\n"
ASKING = 'output: ${b}\nnodes:\n  a: {ask: "Well?"}\n  b: {agent: writer, with: {text: "${a}"}}\n'
CALLING = "output: ${c}\nnodes:\n  c: {call: inner}\n"


def calling(inner: str, seconds: float = 5) -> Catalog:
    head = f"schema: orchestra/v1\nname: inner\nbudget: {{seconds: {seconds:g}}}\n"
    return dataclasses.replace(CATALOG, workflows={"inner": read((head + inner).encode(), "inner.yaml").graph})


def called(text: str, inner: str = CHAIN, seconds: float = 5, **simulation: Any) -> Played:
    catalog = calling(inner, seconds)
    played = play(text, catalog=catalog, **simulation)
    assert replay(program(text, catalog), played.events).reason == ""
    return played


@pytest.mark.parametrize("latency", [2.0, 3.0])
def test_budget_seconds_limit_called_workflow(latency: float) -> None:
    played = called(CALLING, latency=latency)
    if latency == 2.0:
        assert played.outcome == ValueOutcome("<<x>>")
    else:
        assert isinstance(failed := played.outcome, FailedOutcome)
        assert (failed.code, failed.origin, failed.reason) == ("E005", "c", "inner was not done within 5 s")
        assert "of inner" in failed.hint
        assert played.finished.status == "budget"
        assert played.finished.at - played.events[0].at == pytest.approx(5.0)
        assert [call.node for call in played.workers.cancelled] == ["c/b"]


def test_budget_seconds_used_up_uses_fallback() -> None:
    played = called(
        "output: ${d}\nnodes:\n  c: {call: inner, fallback: late}\n  d: {tool: shout, with: {text: '${c}'}}\n",
        latency=3.0,
    )
    assert (played.finished.status, played.outcome) == ("done", ValueOutcome("LATE"))


@pytest.mark.parametrize(("timeout", "seconds", "code"), [(4, 5, "E006"), (5, 4, "E005")])
def test_budget_seconds_or_timeout_smaller_applies(timeout: int, seconds: int, code: str) -> None:
    played = called(f"output: ${{c}}\nnodes:\n  c: {{call: inner, timeout: {timeout}}}\n", seconds=seconds, latency=3.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert played.outcome.code == code
    assert played.finished.at - played.events[0].at == pytest.approx(4.0)


def test_budget_seconds_per_element_exclude_wait_for_slot() -> None:
    text = (
        "input: {words: 'list[str]'}\n"
        "output: ${all.values}\n"
        "nodes:\n"
        "  all: {each: '${input.words}', as: word, call: inner}\n"
    )
    catalog = calling(CHAIN, 2.5)
    played = play(text, {"words": ["w"] * 12}, catalog=catalog, latency=1.0, concurrency=2)
    assert played.outcome == ValueOutcome(["<<x>>"] * 12)


def test_budget_seconds_outer_end_stops_inner_workflow() -> None:
    """Budgets nest: the outer one ends first, and the inner one has time left."""
    middle = (
        "schema: orchestra/v1\n"
        "name: middle\n"
        "budget: {seconds: 4}\n"
        "output: ${m}\n"
        "nodes:\n"
        "  m: {call: inner, fallback: late}\n"
    )
    catalog = calling(CHAIN, 60)
    catalog = dataclasses.replace(
        catalog, workflows={**catalog.workflows, "middle": read(middle.encode(), "middle.yaml").graph}
    )
    played = play("output: ${c}\nnodes:\n  c: {call: middle}\n", catalog=catalog, latency=3.0)
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.outcome.code, played.outcome.reason) == ("E005", "middle was not done within 4 s")


def test_budget_seconds_exclude_checks_on_result() -> None:
    text = 'output: ${c}\nnodes:\n  c: {call: inner, checks: [entailment], against: "x"}\n'
    catalog = dataclasses.replace(WITH, workflows=calling(CHAIN).workflows)
    answers = {"entailment": chance(0.9)}
    played = play(
        text, {}, answers, catalog=catalog, latency=lambda call, _: 60.0 if call.name == "entailment" else 1.0
    )
    assert isinstance(played.outcome, ValueOutcome)
    assert (played.outcome.value, played.finished.status) == ("<<x>>", "done")


@pytest.mark.parametrize(("latency", "value"), [(1.0, "<Ada>"), (9.0, None)])
def test_budget_seconds_exclude_wait_for_person(latency: float, value: str | None) -> None:
    """A run that waits for a person is released; after an answer a week later it has the same time left."""
    catalog = calling(ASKING)
    compiled = program(CALLING, catalog)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=latency)
        run = theatre.start(compiled)
        await run.wait_until_blocked()
        await clock.sleep(600_000)
        question = next(event for event in await run.history() if isinstance(event, QuestionAsked))
        await theatre.journal.send(
            run.id,
            InboxMessage(kind="answer", node=question.node, value="Ada", question_digest=question.question_digest),
        )
        finished = await run.wait()
        if value is not None:
            assert finished.outcome == ValueOutcome(value)
        else:
            assert isinstance(finished.outcome, FailedOutcome)
            assert finished.outcome.code == "E005"
        events = await theatre.journal.read(run.id)
        assert [event.by for event in events if isinstance(event, RunResumed)] == ["a message"]
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


@pytest.mark.parametrize(("last", "code"), [(1.5, ""), (3.5, "E005")])
def test_budget_seconds_exclude_time_without_lease_holder(last: float, code: str) -> None:
    catalog = calling(CHAIN)
    compiled = program(CALLING, catalog)

    def latency(call: CallRequest, _: Any) -> float:
        return last if call.node == "c/b" else 2.0

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=latency)
        run = theatre.start(compiled)
        await clock.sleep(2.1)
        await theatre.crash()
        await clock.sleep(100_000)
        again = await theatre.engine.resume(compiled, run.id)
        finished = await again.wait()
        assert getattr(finished.outcome, "code", "") == code
        events = await theatre.journal.read(run.id)
        assert len([event for event in events if isinstance(event, TurnStarted)]) == 1
        assert replay(compiled, events).reason == ""
        await theatre.engine.close()

    run_simulated(scene)


def test_budget_seconds_old_run_without_limit_replays() -> None:
    """The run took longer than the seconds allow, and ended with a value."""
    told = play(CALLING, catalog=calling(CHAIN, 60), latency=3.0)
    compiled = program(CALLING, calling(CHAIN))
    assert replay(compiled, told.events).reason == ""

    async def scene(clock: VirtualClock) -> None:
        for cut in range(1, len(told.events)):
            theatre = Theatre(clock, latency=0.1)
            theatre.put(told.events[:cut])
            run = await theatre.engine.resume(compiled, told.events[0].run)  # type: ignore[union-attr]  # the first is a RunStarted
            finished = await run.wait()
            assert finished.outcome == ValueOutcome("<<x>>") or getattr(finished.outcome, "code", "") == "E005"
            assert replay(compiled, await theatre.journal.read(run.id)).reason == ""
            await theatre.engine.close()

    run_simulated(scene)
