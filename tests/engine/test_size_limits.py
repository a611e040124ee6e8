"""Values too large for any journal: a node that composes too much fails, and earlier work is kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import pytest

from orchestra.app import inputs
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunStarted, encode
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.engine import size_limits
from orchestra.engine.engine import Engine
from orchestra.engine.replay import replay
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.errors import too_large_error
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers, VirtualClock, run_simulated
from tests.engine.stage import ANSWERS, play, program

LISTED = """
input: {words: "list[str]"}
output: %s
nodes:
  all: {each: "${input.words}", as: word, tool: shout, with: {text: "${word}"}%s}
  n: {tool: count, with: {items: "${all.values}"}}
"""
WORDS = {"words": ["a" * 100] * 30}


class Narrow(MemoryJournal):
    """A journal with a size limit for events; it takes all events of a batch or none."""

    most = 1_000

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        for event in events:
            if (size := len(encode(event))) > self.most:
                raise too_large_error(f"event {event.seq} of run {run}", size)
        super().append(run, events, delivered)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(size_limits, "MAX_VALUE_BYTES", 3_000)
    monkeypatch.setattr(size_limits, "SAFE_TEXT_LENGTH", 500)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("output", ["${all.values}", "${n}"])
def test_size_limit_list_too_large_fails_node(output: str) -> None:
    played = play(LISTED % (output, ""), WORDS)
    assert isinstance(played.outcome, FailedOutcome)
    assert (played.finished.status, played.outcome.code) == ("failed", "E026")
    assert len(played.attempts) == 30
    assert replay(program(LISTED % (output, "")), played.events).reason == ""
    assert play(LISTED % (output, ""), {"words": ["a" * 100] * 28}).finished.status == "done"


@pytest.mark.parametrize(
    "value", [["é" * 100] * 30, {"é" * 100: 1}, {f"{'é' * 100}{number}": number for number in range(30)}]
)
def test_size_limit_counts_json_with_keys(monkeypatch: pytest.MonkeyPatch, value: Any) -> None:
    size = len(encode(value))
    monkeypatch.setattr(size_limits, "MAX_VALUE_BYTES", size)
    assert size_limits.limit_size(ValueOutcome(value), "n") == ValueOutcome(value)
    monkeypatch.setattr(size_limits, "MAX_VALUE_BYTES", size - 2)
    assert isinstance(size_limits.limit_size(ValueOutcome(value), "n"), FailedOutcome)


@pytest.mark.usefixtures("small")
def test_size_limit_applies_to_blocks_and_output() -> None:
    head = """
input: {word: str}
nodes:
  a: {tool: shout, with: {text: "${input.word}"}}
  b: {tool: shout, with: {text: "${input.word}"}}
"""
    block = (
        '  both: {call: {nodes: {c: {tool: shout, with: {text: "${a}"}}}, output: {b: "${b}", c: "${c}"}}}\n'
        "output: ${both.b}\n"
    )
    for rest, node in ((block, "both"), ('output: {a: "${a}", b: "${b}"}\n', "output")):
        played = play(head + rest, {"word": "x" * 1_600})
        assert isinstance(played.outcome, FailedOutcome)
        assert (played.outcome.code, played.outcome.origin) == ("E026", node)


@pytest.mark.usefixtures("small")
def test_size_limit_fallback_replaces_large_value() -> None:
    text = """
input: {word: str}
output: ${size(%s)}
nodes:
  both: {call: {nodes: {c: {tool: shout, with: {text: "${input.word}"}}}, output: "${[c, c]}"}, fallback: "%s"}
"""
    assert play(text % ("both", "${['x', 'y']}"), {"word": "x" * 1_600}).outcome == ValueOutcome(2)
    played = play(text % ("both", "${[input.word, input.word]}"), {"word": "x" * 1_600})
    outcome = played.outcome
    assert [event.original_outcome for event in played.of(NodeFinished)] == [None] * len(played.of(NodeFinished)), (
        "there was none"
    )
    assert isinstance(outcome, FailedOutcome)
    assert outcome.code == "E026"
    assert outcome.reason.startswith("its fallback: ")


async def test_size_limit_earlier_events_kept() -> None:
    run = Execution("r1", journal := Narrow())
    run.log += [
        RunStarted(seq=1, at=1.0, run="r1", workflow="w", graph="0" * 32, inputs={}),
        *(
            AttemptFinished(seq=seq, at=1.0, node=f"a[{seq}]", attempt=1, value="x" * (2_000 if seq == 4 else 1))
            for seq in range(2, 7)
        ),
    ]
    for _ in range(2):  # the failure repeats
        with pytest.raises(OrchestraError) as caught:
            run.flush()
        assert caught.value.code == "J004"
        assert [event.seq for event in await journal.read("r1")] == [1, 2, 3]


def test_size_limit_resume_repeats_nothing_kept() -> None:
    large: dict[str, Any] = {"shout": lambda call: "X" * 2_000 if call.node == "all[9]" else "X"}
    compiled = program(LISTED % ("${all.values}", ""))

    async def scene(clock: VirtualClock) -> None:
        workers = SimulatedWorkers({**ANSWERS, **large}, clock=clock)
        engine = Engine(clock, journal := Narrow(), workers, concurrency=2)
        run = engine.start(compiled, RunRequest(inputs={"words": ["w"] * 10}, graph="0" * 32))
        with pytest.raises(OrchestraError) as caught:
            await run.wait()
        assert caught.value.code == "J004"
        kept = {event.node for event in await journal.read(run.id) if isinstance(event, AttemptFinished)}
        assert len(kept) >= 8
        journal.most, workers.calls = 10_000, []
        again = await engine.resume(compiled, run.id)  # the lease was released
        assert (await again.wait()).status == "done"
        assert kept & {call.node for call in workers.calls} == set()
        await engine.close()

    run_simulated(scene)


def test_size_limit_value_lost_at_end_reported() -> None:
    async def scene(clock: VirtualClock) -> None:
        engine = Engine(clock, journal := Narrow(), SimulatedWorkers({**ANSWERS, "shout": "X" * 2_000}, clock=clock))
        compiled = program('output: ${size(a)}\nnodes:\n  a: {tool: shout, with: {text: "x"}}')
        run = engine.start(compiled, RunRequest(graph="0" * 32))
        with pytest.raises(OrchestraError) as caught:
            await run.wait()
        assert caught.value.code == "J004"
        assert isinstance((await journal.read(run.id))[0], RunStarted)
        assert await journal.lease(run.id) == 2
        await engine.close()

    run_simulated(scene)


def test_size_limit_inputs_refused_before_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inputs, "MAX_INPUT_BYTES", 3_000)
    compiled = program('input: {a: str, b: str}\noutput: ${a}\nnodes:\n  a: {tool: shout, with: {text: "${input.a}"}}')
    assert inputs.bind_arguments(compiled, (), {"a": "x" * 1_000, "b": "y" * 1_000})
    with pytest.raises(InputError) as caught:
        inputs.bind_arguments(compiled, (), {"a": "x" * 1_500, "b": "y" * 1_500})
    assert caught.value.code == "E013"
