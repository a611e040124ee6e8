"""Laws of waiting: with a slow journal, no inbox message, cancellation or close is lost, and no wait is endless."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, QuestionAnswered, RunFinished
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallEstimate, CallRequest, InboxMessage
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import Faults, SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.durable import Theatre
from tests.engine.stage import ANSWERS, play, program

ASK = """
output: ${after}
nodes:
  sure: {ask: "Well?", options: ["yes", "no"]}
  after: {agent: writer, with: {text: "${sure}"}}
"""
ONE = "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}}"
LONG = 10_000.0
"""A number of seconds longer than any test here."""


class Slow(MemoryJournal):
    """A journal whose results take ten milliseconds to arrive."""

    async def lease(self, run: str) -> int:
        await asyncio.sleep(0.01)
        return await super().lease(run)

    async def release(self, run: str) -> None:
        await asyncio.sleep(0.01)
        await super().release(run)

    async def read(self, run: str, after: int = 0) -> list[Event]:
        found = list(await super().read(run, after))
        await asyncio.sleep(0.01)
        return found

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        found = list(await super().inbox(run, after))
        await asyncio.sleep(0.01)
        return found


def engine(clock: VirtualClock, journal: MemoryJournal, workers: Any = None, **simulation: Any) -> Engine:
    return Engine(clock, journal, workers or SimulatedWorkers(ANSWERS, clock=clock, **simulation))


def start(on: Engine, text: str = ASK, workers: Any = None) -> Execution:
    return on.start(program(text), RunRequest(graph="0" * 32), workers=workers)


async def answer(journal: MemoryJournal, run: Execution, value: str = "yes") -> None:
    """Sends an answer to the only question of a run."""
    (asked,) = (event for event in journal.store.logs[run.id].events if type(event).__name__ == "QuestionAsked")
    digest = asked.question_digest  # type: ignore[union-attr]  # it is a QuestionAsked
    await journal.send(run.id, InboxMessage(kind="answer", node="sure", value=value, question_digest=digest))


ACTS = st.lists(
    st.tuples(st.floats(0.001, 0.15), st.sampled_from(["cancel", "answer", "nonsense", "resume", "watch"])), max_size=6
)


@settings(max_examples=300, deadline=None)
@given(seed=st.integers(0, 10**6), acts=ACTS, latency=st.sampled_from([0.0, 0.02]))
def test_sleep_messages_during_sleep_or_wake_processed(
    seed: int, acts: list[tuple[float, str]], latency: float
) -> None:
    async def scene(clock: VirtualClock) -> tuple[RunFinished, Sequence[Event], list[list[int]]]:
        journal = Slow()
        on = engine(clock, journal, latency=latency)
        run, seen = start(on), []

        async def act(at: float, what: str) -> None:
            await clock.sleep(at)
            match what:
                case _ if run.is_over:
                    return
                case "cancel":
                    run.cancel("a person")
                case "watch":
                    seen.append([event.seq async for event in run.events()])
                case "resume":
                    await on.resume(program(ASK), run.id)
                case _:
                    await answer(journal, run, "yes" if what == "answer" else what)

        tasks = [asyncio.ensure_future(act(at, what)) for at, what in [(0.001, "watch"), *acts]]
        await clock.sleep(1)
        if not run.is_over:
            await answer(journal, run, "no")
        finished = await asyncio.wait_for(run.wait(), LONG)
        for error in await asyncio.gather(*tasks, return_exceptions=True):
            assert error is None or (isinstance(error, OrchestraError) and error.code in ("J006", "J022"))
        history = await run.history()
        await on.close()
        return finished, history, seen

    finished, history, seen = run_simulated(scene, seed)
    kinds = {what for _, what in acts}
    assert [event.seq for event in history] == list(range(1, len(history) + 1))
    assert all(numbers == [event.seq for event in history] for numbers in seen)
    assert finished.status == "done" if "cancel" not in kinds else finished.status in ("done", "cancelled")
    assert "cancel" in kinds or finished.outcome == ValueOutcome("<yes>" if "answer" in kinds else "<no>")


@settings(max_examples=100, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.floats(0.001, 0.15), letter=st.floats(0.001, 0.15))
def test_close_at_any_time_ends_waits_releases_lease(seed: int, at: float, letter: float) -> None:
    async def scene(clock: VirtualClock) -> Any:
        journal = Slow()
        on = engine(clock, journal, latency=0.02)
        run = start(on)

        async def post() -> None:
            await clock.sleep(letter)
            await answer(journal, run)

        posting = asyncio.ensure_future(post())
        await clock.sleep(at)
        await on.close()
        try:
            return (await asyncio.wait_for(run.wait(), LONG)).outcome
        except OrchestraError as error:
            if error.code != "E017":
                raise
        await posting
        again = engine(clock, journal)
        outcome = (await (await again.resume(program(ASK), run.id)).wait()).outcome
        await again.close()
        return outcome

    assert run_simulated(scene, seed) == ValueOutcome("<yes>")


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), at=st.floats(0, 0.1))
def test_inbox_message_during_takeover_processed(seed: int, at: float) -> None:
    async def scene(clock: VirtualClock) -> Any:
        store = MemoryStore()
        before = MemoryJournal(store)
        first = engine(clock, before)
        run = start(first)
        await run.wait_until_blocked()
        await before.close()
        await first.close()
        journal = Slow(store)
        on = engine(clock, journal)
        other = start(on, 'output: ${a}\nnodes:\n  a: {ask: "Another?"}')
        await other.wait_until_blocked()

        async def post() -> None:
            await clock.sleep(at)
            await answer(journal, run)

        posting = asyncio.ensure_future(post())
        again = await on.resume(program(ASK), run.id)
        await posting
        outcome = (await asyncio.wait_for(again.wait(), LONG)).outcome
        await on.close()
        return outcome

    assert run_simulated(scene, seed) == ValueOutcome("<yes>")


def test_broken_run_resumable_in_same_process() -> None:
    def once(call: CallRequest) -> str:
        calls.append(call)
        if len(calls) == 1:
            raise LookupError("a fault of a worker")
        return "well"

    calls: list[CallRequest] = []

    async def scene(clock: VirtualClock) -> Any:
        on = engine(clock, MemoryJournal(), SimulatedWorkers({**ANSWERS, "writer": once}, clock=clock))
        run = start(on, ONE)
        with pytest.raises(LookupError):
            await run.wait()
        outcome = (await (await on.resume(program(ONE), run.id)).wait()).outcome
        await on.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("well")


def test_resume_after_wrong_workflow_with_right_one() -> None:
    async def scene(clock: VirtualClock) -> Any:
        theatre = Theatre(clock, latency=9.0)
        run = theatre.start(program(ONE))
        await clock.sleep(1)
        await theatre.crash()
        with pytest.raises(OrchestraError, match="does not have"):
            await theatre.engine.resume(program(ONE.replace("a:", "b:").replace("{a}", "{b}")), run.id)
        outcome = (await (await theatre.engine.resume(program(ONE), run.id)).wait()).outcome
        await theatre.engine.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("<x>")


BODY = """
output: {b: "${b}", s: "${s}"}
nodes:
  b: {call: {nodes: {i: {%s}}, output: "${i}"}, timeout: 60, fallback: late}
  s: {%s}
"""


def test_body_timeout_after_resume_while_person_awaited() -> None:
    compiled = program(
        'output: ${b}\nnodes:\n  b: {call: {nodes: {i: {ask: "Well?"}}, output: "${i}"}, timeout: 60, fallback: late}'
    )

    async def scene(clock: VirtualClock) -> Any:
        theatre = Theatre(clock)
        run = theatre.start(compiled)
        await clock.sleep(1)
        await theatre.crash()
        outcome = (await asyncio.wait_for((await theatre.engine.resume(compiled, run.id)).wait(), LONG)).outcome
        await theatre.engine.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("late")


def test_sleep_starts_when_only_abandoned_calls_wait() -> None:
    async def scene(clock: VirtualClock) -> float:
        on = engine(clock, MemoryJournal(), faults=Faults(refused=1.0))
        run = start(
            on, BODY % ("agent: writer, with: {text: x}, retry: {attempts: 9, wait: [1000, 2000]}", 'ask: "Well?"')
        )
        await run.wait_until_blocked()
        await on.close()
        return clock.monotonic()

    assert run_simulated(scene) == pytest.approx(60, abs=0.1)


def test_resume_cancelled_run_ends_cancelled() -> None:
    async def scene(clock: VirtualClock) -> str:
        first = Theatre(clock, latency=9.0)
        run = first.start(program(ONE))
        await clock.sleep(1)
        run.cancel()
        await run.wait()
        again = Theatre(clock)
        again.put((await first.journal.read(run.id))[:-1])
        status = (await asyncio.wait_for((await again.engine.resume(program(ONE), run.id)).wait(), LONG)).status
        await again.engine.close()
        await first.engine.close()
        return status

    assert run_simulated(scene) == "cancelled"


def test_sleeping_run_keeps_workers() -> None:
    async def scene(clock: VirtualClock) -> Any:
        journal = MemoryJournal()
        on = engine(clock, journal)
        run = start(on, workers=SimulatedWorkers({"writer": "mine"}, clock=clock))
        await run.wait_until_blocked()
        await answer(journal, run)
        outcome = (await run.wait()).outcome
        await on.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("mine")


def test_run_of_dead_holder_taken_over() -> None:
    async def scene(clock: VirtualClock) -> Any:
        store = MemoryStore()
        journal, other = MemoryJournal(store), MemoryJournal(store)
        on = engine(clock, journal)
        run = start(on)
        await run.wait_until_blocked()
        await other.lease(run.id)
        await answer(journal, run)
        await clock.sleep(5)
        await other.close()
        outcome = (await asyncio.wait_for(run.wait(), LONG)).outcome
        await on.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("<yes>")


def test_subscriber_gets_events_of_other_process() -> None:
    async def scene(clock: VirtualClock) -> float:
        store = MemoryStore()
        journal = MemoryJournal(store)
        on, other = engine(clock, journal), engine(clock, MemoryJournal(store), latency=50.0)
        run = start(on)
        await run.wait_until_blocked()
        await other.resume(program(ASK), run.id)
        await answer(journal, run)
        async for event in run.events():
            if isinstance(event, QuestionAnswered):
                break
        seen = clock.monotonic()
        await run.wait()
        await on.close()
        await other.close()
        return seen

    assert run_simulated(scene) < 2


class Odd(SimulatedWorkers):
    """Workers whose estimate fails for a while."""

    odd = False

    def estimate(self, call: CallRequest) -> CallEstimate:
        if self.odd:
            raise ValueError("a fault of the measure")
        return CallEstimate(prompt_tokens=1, max_output=1)


def test_run_failed_at_start_releases_lease() -> None:
    text = "budget: {tokens: 100}\n" + ONE

    async def scene(clock: VirtualClock) -> Any:
        theatre = Theatre(clock)
        theatre.engine.workers = workers = Odd(ANSWERS, clock=clock, latency=9.0)
        run = theatre.start(program(text))
        await clock.sleep(1)
        await theatre.crash()
        theatre.engine.workers, workers.odd = workers, True
        with pytest.raises(ValueError, match="measure"):
            await theatre.engine.resume(program(text), run.id)
        workers.odd = False
        outcome = (await (await theatre.engine.resume(program(text), run.id)).wait()).outcome
        await theatre.engine.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("<x>")


class Breaks(MemoryJournal):
    """A journal whose disk fails once `gone` is set, or that cannot read the inbox of one run."""

    gone, bad = False, ""

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        if self.gone:
            raise OrchestraError("J009", "the disk is gone")
        super().append(run, events, delivered)

    async def wait_for_messages(self) -> set[str]:
        found = await super().wait_for_messages()
        if self.gone:
            raise OrchestraError("J009", "the disk is gone")
        return found

    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        if run == self.bad:
            raise OrchestraError("J009", "this one cannot be read")
        return await super().inbox(run, after)


def test_sleeping_run_notified_of_journal_failure() -> None:
    async def scene(clock: VirtualClock) -> None:
        journal = Breaks()
        on = engine(clock, journal)
        run = start(on)
        await run.wait_until_blocked()
        journal.gone = True
        await answer(journal, run)
        with pytest.raises(OrchestraError, match="disk is gone"):
            await asyncio.wait_for(run.wait(), LONG)
        await on.close()

    run_simulated(scene)


def test_unreadable_inbox_affects_own_run_only() -> None:
    async def scene(clock: VirtualClock) -> Any:
        journal = Breaks()
        on = engine(clock, journal, latency=50.0)
        bad, good = start(on, ONE), start(on)
        await good.wait_until_blocked()
        journal.bad = bad.id
        await journal.send(bad.id, InboxMessage(kind="cancel"))
        await clock.sleep(1)
        await answer(journal, good)
        outcome = (await asyncio.wait_for(good.wait(), LONG)).outcome
        await on.close()
        return outcome

    assert run_simulated(scene) == ValueOutcome("<yes>")


def test_close_releases_all_runs_after_journal_failure() -> None:
    async def scene(clock: VirtualClock) -> list[bool]:
        journal = Breaks()
        on = engine(clock, journal, latency=50.0)
        runs = [start(on, ONE) for _ in range(3)]
        journal.gone = True
        await on.close()
        return [run.is_over for run in runs]

    assert run_simulated(scene) == [True, True, True]


def test_simultaneous_answers_respect_concurrency() -> None:
    text = (
        "output: ${a.values}\n"
        "nodes:\n"
        '  a: {tool: send, each: "${[1, 2, 3, 4, 5, 6]}", as: x, with: {text: "${string(x)}"}}'
    )

    async def scene(clock: VirtualClock) -> int:
        theatre = Theatre(clock, latency=9.0)
        run = theatre.start(program(text))
        await clock.sleep(1)
        await theatre.crash()
        theatre.engine.concurrency = 2
        again = await theatre.engine.resume(program(text), run.id)
        await again.wait_until_blocked()
        theatre.workers.max_in_flight = 0
        for asked in again.questions:
            await theatre.journal.send(
                run.id,
                InboxMessage(kind="answer", node=asked.node, value="again", question_digest=asked.question_digest),
            )
        await again.wait()
        await theatre.engine.close()
        return theatre.workers.max_in_flight

    assert run_simulated(scene) == 2


def test_once_tool_not_escalated() -> None:
    text = (
        "output: ${a}\n"
        "nodes:\n"
        "  a: {tool: send, with: {text: x}, checks: [numbers], against: none, otherwise: [retry, escalate, abstain]}"
    )
    assert len(play(text, answers={"send": "got 17"}).workers.calls) == 1


def test_events_readable_after_journal_dropped_run() -> None:
    async def scene(clock: VirtualClock) -> tuple[list[int], int]:
        on = engine(clock, MemoryJournal(max_ended_runs=2))
        run = start(on, ONE)
        finished = await run.wait()
        for _ in range(4):
            await start(on, ONE).wait()
        await on.close()
        assert not await on.journal.read(run.id)
        return [event.seq async for event in run.events()], finished.seq

    found, last = run_simulated(scene)
    assert found == list(range(1, last + 1))


def test_more_runs_than_journal_keeps_end_at_once() -> None:
    async def scene(clock: VirtualClock) -> set[str]:
        on = engine(clock, MemoryJournal(max_ended_runs=2))
        runs = [start(on, ONE) for _ in range(9)]
        ends = {(await run.wait()).status for run in runs}
        await on.close()
        return ends

    assert run_simulated(scene) == {"done"}
