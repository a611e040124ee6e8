"""Resume: no finished call is repeated, and the output equals the output of an uninterrupted run."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    CancelRequested,
    Event,
    InboxMessageRejected,
    NodeFinished,
    OverrideSource,
    QuestionAnswered,
    QuestionAsked,
    RunResumed,
)
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.engine.engine import POLL_INTERVAL, Engine
from orchestra.engine.replay import replay
from orchestra.engine.request import RunRequest
from orchestra.journal.history import History
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import Faults, VirtualClock, run_simulated
from tests.engine.durable import Theatre, resumed
from tests.engine.stage import play, program
from tests.simulation.lab.answers import RunRecord
from tests.simulation.lab.oracle import Oracle

EVERYTHING = """
input: {text: str}
output: {a: "${joined}", b: "${grown}", c: "${chosen}"}
nodes:
  words: {tool: split, with: {text: "${input.text}"}}
  loud: {agent: writer, each: "${words}", as: word, concurrency: 2, with: {text: "${word}"}}
  n: {tool: count, with: {items: "${loud.values}"}}
  grown:
    loop:
      nodes: {next: {tool: grow, with: {text: "${previous}"}}}
      output: ${next}
      until: ${size(next) > 2}
      at_most: 5
  maybe: {agent: writer, when: "${n > 100}", with: {text: never}}
  chosen: {first_of: ["${maybe}", "${words[0]}"]}
  block: {call: {nodes: {inner: {tool: shout, with: {text: "${words[0]}"}}}, output: "${inner}"}}
  joined: {agent: writer, with: {text: "${block} and ${string(n)}"}}
"""
FAULTS = Faults(refused=0.15, invalid=0.1, slow=0.1, attempts=1)


def whole(seed: int) -> Any:
    return play(EVERYTHING, {"text": "a b c"}, seed=seed, latency=(0.1, 2.0), faults=FAULTS)


@settings(max_examples=150, deadline=None)
@given(seed=st.integers(0, 10**6), cut=st.floats(0, 1))
def test_resume_at_any_event_gives_same_end(seed: int, cut: float) -> None:
    played = whole(seed)
    before = list(played.events[: max(1, int(cut * (len(played.events) - 1)))])
    compiled = program(EVERYTHING)

    finished, events, theatre = resumed(compiled, before, latency=(0.1, 2.0), faults=FAULTS, seed=seed)
    assert finished.outcome == played.finished.outcome
    assert events[: len(before)] == before
    assert isinstance(events[len(before)], RunResumed)
    ended = {
        event.node
        for event in before
        if isinstance(event, NodeFinished) or (isinstance(event, AttemptFinished) and event.final)
    }
    assert not ended & {call.node for call in theatre.workers.calls}
    found = replay(compiled, events)
    assert (found.first_difference, found.reason) == (None, "")


def test_resume_asks_about_once_call_in_doubt() -> None:
    compiled = program("output: ${a}\nnodes:\n  a: {tool: send, with: {text: x}}")

    async def scene(clock: VirtualClock) -> None:
        for answer, outcome in (("again", ValueOutcome("sent")), ("fail", FailedOutcome)):
            theatre = Theatre(clock, latency=10.0)
            run = theatre.start(compiled)
            await clock.sleep(1)
            await theatre.crash()
            again = await theatre.engine.resume(compiled, run.id)
            assert await again.wait_until_blocked() is None
            assert len(theatre.workers.calls) == 1
            (asked,) = again.questions
            assert asked.kind == "effect"
            await theatre.journal.send(run.id, letter("a", answer, asked))
            finished = await again.wait()
            assert (
                finished.outcome == outcome
                if isinstance(outcome, ValueOutcome)
                else isinstance(finished.outcome, outcome)
            )
            assert len(theatre.workers.calls) == (2 if answer == "again" else 1)
            await theatre.engine.close()

    run_simulated(scene)


def test_resume_continues_with_given_result_of_call() -> None:
    compiled = program(
        "output: ${b}\nnodes:\n  a: {tool: send, with: {text: x}}\n  b: {tool: shout, with: {text: '${a}'}}"
    )

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=10.0)
        run = theatre.start(compiled)
        await clock.sleep(1)
        await theatre.crash()
        again = await theatre.engine.resume(compiled, run.id)
        assert await again.wait_until_blocked() is None
        (asked,) = again.questions
        assert asked.result_schema == {"type": "string"}
        wrong = InboxMessage(
            kind="answer", node="a", value=7, question_digest=asked.question_digest, call_happened=True
        )
        assert "str" in theatre.engine.rejection_reason(asked, wrong)
        both = InboxMessage(
            kind="answer",
            node="a",
            value="sent then",
            question_digest=asked.question_digest,
            call_happened=True,
            decline_reason="unknown",
        )
        assert "declined" in theatre.engine.rejection_reason(asked, both)
        before = InboxMessage(
            kind="answer", node="a", value="again", question_digest=asked.question_digest, question_seq=asked.seq - 1
        )
        assert "asked again" in theatre.engine.rejection_reason(asked, before)
        for number in (0, asked.seq):  # older versions wrote none
            assert theatre.engine.rejection_reason(asked, msgspec.structs.replace(before, question_seq=number)) == ""
        await theatre.journal.send(run.id, wrong)
        await clock.sleep(1)
        said = InboxMessage(
            kind="answer",
            node="a",
            value="sent then",
            question_digest=asked.question_digest,
            call_happened=True,
            by="ann",
        )
        await theatre.journal.send(run.id, said)
        await theatre.crash()  # the message is in the inbox, and the next lease holder processes it
        finished = await (await theatre.engine.resume(compiled, run.id)).wait()
        assert finished.outcome == ValueOutcome("SENT THEN")
        assert [call.name for call in theatre.workers.calls] == ["send", "shout"]
        events = await theatre.journal.read(run.id)
        assert [event.value for event in events if isinstance(event, QuestionAnswered) and event.call_happened] == [
            "sent then"
        ]
        (ended,) = [event for event in events if isinstance(event, NodeFinished) and event.node == "a"]
        assert (ended.outcome, ended.overridden_by) == (ValueOutcome("sent then"), OverrideSource("ann"))
        row = History.of(events).row("a")
        assert row is not None
        assert row.display_status == "given"
        assert replay(compiled, events).first_difference is None
        assert Oracle(compiled, RunRecord.from_events(events)).evaluate().objections == []
        await theatre.engine.close()

    run_simulated(scene)


def letter(node: str, value: Any, asked: QuestionAsked, shown: str = "") -> Any:
    return InboxMessage(kind="answer", node=node, value=value, by="ann", question_digest=shown or asked.question_digest)


ASK = """
input: {text: str}
output: ${after}
nodes:
  before: {agent: writer, with: {text: "${input.text}"}}
  sure: {ask: "Is ${before} right?", options: ["yes", "no"]}
  after: {tool: shout, with: {text: "${sure}"}}
"""


def test_waiting_run_has_no_task_or_lease() -> None:
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled, {"text": "x"})
        assert await run.wait_until_blocked() is None
        (asked,) = run.questions
        assert (asked.question, asked.options) == ("Is <x> right?", ("yes", "no"))
        assert (await theatre.journal.list_runs())[0].status == "waiting"
        await clock.sleep(3 * 86_400)
        assert await theatre.journal.lease(run.id) == 2  # any process may take it over
        await theatre.journal.release(run.id)
        await theatre.journal.send(run.id, letter("sure", "yes", asked))
        finished = await run.wait()
        assert finished.outcome == ValueOutcome("YES")
        assert [call.name for call in theatre.workers.calls] == ["writer", "shout"]
        await theatre.engine.close()

    run_simulated(scene)


BUSY = """
input: {text: str}
output: {sure: "${sure}", slow: "${slow}"}
nodes:
  sure: {ask: "Is it right?"}
  slow: {agent: writer, with: {text: "${input.text}"}}
"""


@pytest.mark.parametrize("text", [ASK, BUSY])
def test_closed_engine_releases_running_run(text: str) -> None:
    """A closed engine releases the lease, also of a run in progress, so that another process can resume it."""

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=60.0)
        run = theatre.start(program(text), {"text": "x"})
        await clock.sleep(5)
        assert (await theatre.journal.list_runs())[0].status == "running"
        await theatre.engine.close()
        assert [(one.run, one.status) for one in await theatre.journal.list_runs()] == [(run.id, "interrupted")]

    run_simulated(scene)


def test_answer_without_lease_holder_used_at_resume() -> None:
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled, {"text": "x"})
        await run.wait_until_blocked()
        (asked,) = run.questions
        await theatre.crash()
        await theatre.journal.send(run.id, letter("sure", "no", asked))
        assert (await (await theatre.engine.resume(compiled, run.id)).wait()).outcome == ValueOutcome("NO")
        await theatre.engine.close()

    run_simulated(scene)


@pytest.mark.parametrize(("value", "shown"), [("perhaps", ""), ("yes", "another question"), (7, "")])
def test_invalid_inbox_message_recorded_and_ignored(value: Any, shown: str) -> None:
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock)
        run = theatre.start(compiled, {"text": "x"})
        await run.wait_until_blocked()
        (asked,) = run.questions
        await theatre.journal.send(run.id, letter("sure", value, asked, shown))
        await theatre.journal.send(run.id, letter("nothing", "yes", asked))
        await theatre.journal.send(run.id, letter("sure", "yes", asked))
        assert (await run.wait()).outcome == ValueOutcome("YES")
        refused = [event for event in await theatre.journal.read(run.id) if isinstance(event, InboxMessageRejected)]
        assert [event.message_number for event in refused] == [1, 2]
        await theatre.engine.close()

    run_simulated(scene)


def test_inbox_message_cancels_run_of_other_process() -> None:
    compiled = program("output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}}")

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=60.0)
        run = theatre.start(compiled)
        await clock.sleep(1)
        await MemoryJournal(theatre.store).send(run.id, InboxMessage(kind="cancel", by="the neighbour"))
        finished = await run.wait()
        assert finished.status == "cancelled"
        assert any(isinstance(event, CancelRequested) and event.by == "the neighbour" for event in run.log)
        await theatre.engine.close()

    run_simulated(scene)


def test_lease_excludes_second_engine() -> None:
    compiled = program("output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}}")

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=60.0)
        run = theatre.start(compiled)
        await clock.sleep(1)
        other = Engine(clock, MemoryJournal(theatre.store), theatre.workers)
        with pytest.raises(OrchestraError, match="is running"):
            await other.resume(compiled, run.id)
        await other.close()
        await theatre.engine.close()

    run_simulated(scene)


def test_run_deadline_excludes_interruption() -> None:
    compiled = program("budget: {seconds: 100}\noutput: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}}")

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=70.0)
        run = theatre.start(compiled)
        await clock.sleep(60)
        await theatre.crash()
        await clock.sleep(10_000)
        began = clock.monotonic()
        again = await theatre.engine.resume(compiled, run.id)
        assert (await again.wait()).status == "done"
        assert clock.monotonic() - began == pytest.approx(70, abs=0.1)
        await theatre.engine.close()

    run_simulated(scene)


def test_question_timeout_uses_fallback() -> None:
    text = 'output: ${a}\nnodes:\n  a: {ask: "Well?", timeout: 60, fallback: "none left"}'
    played = play(text)
    assert played.outcome == ValueOutcome("none left")
    assert played.finished.at - played.events[0].at == pytest.approx(60)


def test_body_timeout_cancels_inner_calls() -> None:
    text = """
output: ${b}
nodes:
  b:
    call: {nodes: {x: {agent: writer, with: {text: x}}, y: {agent: writer, with: {text: "${x}"}}}, output: "${y}"}
    timeout: 5
    fallback: "too late"
"""
    played = play(text, latency=60.0)
    assert played.outcome == ValueOutcome("too late")
    assert len(played.workers.cancelled) == 1
    assert played.finished.at - played.events[0].at == pytest.approx(5)


def test_close_ends_wait_for_run_of_other_process() -> None:
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> None:
        theatre = Theatre(clock, latency=100.0)
        run = theatre.start(compiled, {"text": "x"})
        await run.wait_until_blocked()
        (asked,) = run.questions
        journal = MemoryJournal(theatre.store)
        other = Engine(clock, journal, theatre.workers)
        theirs = await other.resume(compiled, run.id)
        await theatre.journal.send(run.id, letter("sure", "yes", asked))
        await clock.sleep(10)  # one of the two has woken the run, and the other follows it
        waits = [asyncio.ensure_future(handle.wait()) for handle in (run, theirs)]
        await clock.sleep(1)
        await theatre.engine.close()
        await other.close()
        ends = await asyncio.gather(*waits, return_exceptions=True)
        assert [getattr(end, "code", "") for end in ends] == ["E017", "E017"]

    run_simulated(scene)


@pytest.mark.parametrize("freed", range(9))
@pytest.mark.parametrize("second", range(6))
def test_run_woken_by_two_messages_not_followed_by_holder(second: int, freed: int) -> None:
    """Both parameters count loop iterations after the first message: until the second message, and until the lease
    holder releases the run.
    """
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> tuple[list[Event], list[Event]]:
        theatre = Theatre(clock, latency=100.0)
        run = theatre.start(compiled, {"text": "x"})
        await run.wait_until_blocked()
        (asked,) = run.questions

        async def watch() -> list[Event]:
            return [event async for event in run.events()]

        watching = asyncio.ensure_future(watch())
        other = MemoryJournal(theatre.store)
        await other.lease(run.id)
        await other.send(run.id, letter("sure", "yes", asked))
        for turn in range(9):
            if turn == second:
                await other.send(run.id, letter("sure", "no", asked))
            if turn == freed:
                await other.release(run.id)
            await asyncio.sleep(0)
        await run.wait()
        await theatre.engine.close()
        return await watching, await theatre.journal.read(run.id)

    seen, told = run_simulated(scene)
    assert seen == told


class Slow(MemoryJournal):
    """A remote store: a lease takes time."""

    def __init__(self, store: MemoryStore, clock: VirtualClock) -> None:
        super().__init__(store)
        self._clock = clock

    async def lease(self, run: str) -> int:
        await self._clock.sleep(POLL_INTERVAL / 2)
        return await super().lease(run)


@pytest.mark.parametrize("later", [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0])
def test_followed_run_resumed_elsewhere_ends_for_all_waiters(later: float) -> None:
    """The holder has died; another process resumes the run between two polls of the follower."""
    compiled = program(ASK)

    async def scene(clock: VirtualClock) -> tuple[list[Any], list[Event], list[Event]]:
        theatre = Theatre(clock, latency=100.0)
        engine = Engine(clock, Slow(theatre.store, clock), theatre.workers)
        run = engine.start(compiled, RunRequest(inputs={"text": "x"}, graph="0" * 32))
        await run.wait_until_blocked()
        (asked,) = run.questions

        async def watch() -> list[Event]:
            return [event async for event in run.events()]

        watching = asyncio.ensure_future(watch())
        other = MemoryJournal(theatre.store)
        await other.lease(run.id)
        await other.send(run.id, letter("sure", "yes", asked))
        await clock.sleep(2 * POLL_INTERVAL)  # it woke up, found the run held by another process, and follows it
        await other.release(run.id)
        await clock.sleep(later * POLL_INTERVAL)
        again = await engine.resume(compiled, run.id)
        ends = list(await asyncio.wait_for(asyncio.gather(run.wait(), again.wait()), 1000))
        told = await theatre.journal.read(run.id)
        seen = await watching
        await engine.close()
        return ends, seen, told

    ends, seen, told = run_simulated(scene)
    assert [end.status for end in ends] == ["done", "done"]
    assert seen == told
