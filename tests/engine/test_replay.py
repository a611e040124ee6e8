"""Replay: decisions of the current engine on the events of a run."""

from __future__ import annotations

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from orchestra.core.events import AttemptFinished, NodeFinished, OutputJudged, RunFinished
from orchestra.core.outcomes import ValueOutcome
from orchestra.engine.replay import replay
from orchestra.testing import Faults
from tests.engine.stage import play, program
from tests.engine.test_engine import DIAMOND


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6))
def test_replay_agrees_with_engine(seed: int) -> None:
    faults = Faults(refused=0.2, invalid=0.1, broken=0.05, slow=0.2)
    played = play(DIAMOND, {"text": "a b c"}, seed=seed, latency=(0.01, 3.0), faults=faults)
    found = replay(program(DIAMOND), played.events)
    assert (found.first_difference, found.reason) == (None, "")
    assert len(found.calls) == len(played.workers.calls)


def test_replay_reports_forged_output() -> None:
    played = play(DIAMOND, {"text": "a b"})
    last = played.events[-1]
    assert isinstance(last, RunFinished)
    forged = [*played.events[:-1], msgspec.structs.replace(last, outcome=ValueOutcome("forged"))]
    found = replay(program(DIAMOND), forged)
    assert found.first_difference == forged[-1]
    assert "otherwise" in found.reason


def test_replay_reports_unrequested_call() -> None:
    played = play(DIAMOND, {"text": "a b"})
    again = next(event for event in played.events if isinstance(event, AttemptFinished | NodeFinished))
    events = [*played.events, msgspec.structs.replace(again, seq=len(played.events) + 1)]
    assert replay(program(DIAMOND), events).first_difference is not None


DATED = """
input: {text: str}
output: ${checked}
nodes:
  checked: {verify: "${input.text}", checks: [numbers], against: ["in 1889-03-31, 5 men"]}
"""


def test_replay_old_run_without_date_spans() -> None:
    played = play(DATED, {"text": "5 men, on 31 March 1889"})
    judged = next(event for event in played.events if isinstance(event, OutputJudged))
    [said] = judged.verdicts
    assert [one.quote for one in said.evidence] == ["5", "1889-03-31"]
    for told, same in (
        (said.evidence[:1], True),
        ((), True),
        ((msgspec.structs.replace(said.evidence[0], quote="1890"),), False),
    ):
        older = msgspec.structs.replace(judged, verdicts=(msgspec.structs.replace(said, evidence=told),))
        events = [*played.events[: judged.seq - 1], older]
        assert (replay(program(DATED), events).first_difference is None) is same
