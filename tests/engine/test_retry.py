"""Retry policies as functions of facts."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.events import AttemptFinished, AttemptStarted, Event, RunResumed, RunStarted
from orchestra.core.protocols import CallError
from orchestra.engine.decide import decide
from orchestra.engine.evolve import evolve
from orchestra.engine.proposals import FinishNode, ScheduleRetry
from orchestra.engine.replay import replay
from orchestra.engine.retry import REJECTED_ATTEMPTS, TYPE_ERROR_ATTEMPTS, retry_policy
from orchestra.engine.state import RunState
from orchestra.testing import Faults
from orchestra.workflows.program import CompiledNode
from tests.engine.stage import play, program


def node(retry: str = "", kind: str = "agent: writer") -> CompiledNode:
    return program(f"output: ${{a}}\nnodes:\n  a: {{{kind}, with: {{text: x}}{retry}}}").nodes[0]


@given(attempts=st.integers(1, 10), within=st.integers(1, 100), attempt=st.integers(1, 12), seconds=st.floats(0, 200))
def test_retry_ends_at_first_of_two_limits(attempts: int, within: int, attempt: int, seconds: float) -> None:
    found = retry_policy(node(f", retry: {{attempts: {attempts}, within: {within}}}"), "F203")
    assert found.should_retry(attempt, seconds) == (attempt < attempts and seconds < within)


@given(first=st.floats(0, 10), longest=st.floats(0, 100), attempt=st.integers(1, 12))
def test_retry_backoff_grows_to_maximum_with_jitter(first: float, longest: float, attempt: int) -> None:
    low, high = retry_policy(node(f", retry: {{attempts: 3, wait: [{first}, {longest}]}}"), "F203").backoff_range(
        attempt
    )
    assert high <= longest
    assert low == high / 2
    if attempt < 12:
        assert (
            retry_policy(node(f", retry: {{wait: [{first}, {longest}]}}"), "F203").backoff_range(attempt + 1)[1] >= high
        )


def test_retry_answer_errors_without_wait_and_few() -> None:
    for code, most in (("M001", TYPE_ERROR_ATTEMPTS), ("V001", REJECTED_ATTEMPTS)):
        found = retry_policy(node(), code)
        assert found.backoff_range(1) == (0.0, 0.0)
        assert [found.should_retry(attempt, 0.0) for attempt in range(1, 4)] == [
            attempt < most for attempt in range(1, 4)
        ]


def test_retry_once_tool_has_one_attempt() -> None:
    assert not retry_policy(node(", retry: 5", "tool: send"), "T003").should_retry(1, 0.0)


@pytest.mark.parametrize(
    ("head", "retry", "permanent", "attempts"),
    [
        ("", "", False, 3),
        ("", "", True, 1),
        ("", ", retry: 3", True, 3),
        ("defaults: {retry: 3}\n", "", True, 3),
        ("defaults: {timeout: 60}\n", "", True, 1),
    ],
)
def test_retry_deterministic_failure_only_if_configured(head: str, retry: str, permanent: bool, attempts: int) -> None:
    text = f"{head}output: ${{a}}\nnodes:\n  a: {{tool: shout, with: {{text: x}}{retry}}}"
    played = play(
        text,
        answers={
            "shout": CallError(code="T003", reason="shout raised KeyError: 'n'", retryable=True, permanent=permanent)
        },
    )
    assert len(played.attempts) == attempts
    assert replay(program(text), played.events).first_difference is None


def test_retry_old_run_replays_unchanged() -> None:
    text = "output: ${a}\nnodes:\n  a: {tool: shout, with: {text: x}}"
    stored = play(text, answers={"shout": CallError(code="T003", reason="shout raised KeyError: 'n'", retryable=True)})
    assert b"permanent" not in msgspec.json.encode(stored.events)
    assert replay(program(text), stored.events).first_difference is None


def test_retry_no_attempt_after_time_limit() -> None:
    text = "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}, retry: {attempts: 10, wait: [4, 4], within: 9}}"
    played = play(text, faults=Faults(refused=1.0))
    assert all(attempt.at - played.events[0].at <= 9 + 4 for attempt in played.attempts)
    assert 3 <= len(played.attempts) <= 6


@pytest.mark.parametrize(("ended", "expected"), [(1.5, FinishNode), (0.5, ScheduleRetry)])
def test_retry_continues_after_resume(ended: float, expected: type) -> None:
    """Simulated (seed 3111): the disk was full between the end of an attempt, too late for another one, and the end of
    its node.
    """
    compiled = program(
        "output: ${a}\nnodes:\n  a: {agent: writer, with: {text: x}, retry: {attempts: 3, wait: [0, 0], within: 1}}"
    )
    before: list[Event] = [
        RunStarted(seq=1, at=1.0, run="r1", workflow="staged", graph="0" * 32, inputs={}),
        AttemptStarted(seq=2, at=1.0, node="a", attempt=1),
        AttemptFinished(seq=3, at=1.0 + ended, node="a", attempt=1, error="E007", reason="cancelled", retryable=True),
    ]
    for events in (before, [*before, RunResumed(seq=4, at=9.0, epoch=2, idle_seconds=8.0 - ended)]):
        state = RunState(keep_budgets=False)
        for event in events:
            evolve(state, event, compiled)
        assert [type(one) for one in decide(state)] == [expected]
