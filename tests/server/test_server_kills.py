"""Kill -9 of the server while runs go on, and the audit of what readers have received. `make crash-server` kills 100
times.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.server.kills.scene import Stream, kill_often, stream_violations
from tests.server.kills.serve import STEPS, CallRecord

STORED = [
    {"type": "run_started", "seq": 1},
    {"type": "attempt_finished", "seq": 2, "node": "n0"},
    {"type": "run_finished", "seq": 3, "status": "done"},
]
CALLS = [CallRecord(1, "r", f"n{place}") for place in range(STEPS)]


async def test_killed_server_loses_and_repeats_no_event(tmp_path: Path) -> None:
    scene, violations = await kill_often(tmp_path, kills=3, lanes=25, seed=5)
    assert violations == []
    assert len(scene.in_progress) == 3
    assert min(scene.in_progress) > 0
    assert all(stream.has_ended for stream in scene.streams)
    assert sum(stream.continued for stream in scene.streams) >= min(scene.in_progress)


async def test_kills_end_after_a_time(tmp_path: Path) -> None:
    reported = list[int]()
    scene, violations = await kill_often(
        tmp_path, kills=1000, lanes=5, seed=5, seconds=0.0, report=lambda scene: reported.append(len(scene.in_progress))
    )
    assert violations == []
    assert len(scene.in_progress) == 1
    assert reported == [1]
    assert all(stream.has_ended for stream in scene.streams)


def received() -> Stream:
    """What a reader has, if nothing went wrong."""
    events = [(number, json.dumps(event)) for number, event in enumerate(STORED, 1)]
    return Stream("key", "r", events, {"n0": 2}, has_ended=True)


def test_audit_of_an_undisturbed_stream_finds_nothing() -> None:
    assert list(stream_violations(received(), STORED, CALLS)) == []


def changed(change: Callable[[Stream], Any]) -> Stream:
    """The same with a change."""
    stream = received()
    change(stream)
    return stream


@pytest.mark.parametrize(
    ("stream", "stored", "calls", "violation"),
    [
        (changed(lambda one: one.events.pop(1)), STORED, CALLS, "the numbers of its events are [1, 3]"),
        (changed(lambda one: one.events.extend(one.events)), STORED, CALLS, "the numbers of its events are [1, 2"),
        (changed(lambda one: one.events.reverse()), STORED, CALLS, "the numbers of its events are [3, 2, 1]"),
        (received(), STORED[:2], CALLS, "it has other events than the journal"),
        (received(), [*STORED[:2], {**STORED[2], "status": "failed"}], CALLS, "its run has not ended well"),
        (received(), STORED, [*CALLS, CALLS[0]], "n0 was called 2 times by process 1"),
        (received(), STORED, [*CALLS, CallRecord(3, "r", "n0")], "n0 was called again by process 3"),
        (received(), STORED, CALLS[1:], "only 5 steps were called"),
    ],
)  # fmt: skip
def test_audit_finds_what_is_lost_or_repeated(
    stream: Stream, stored: list[Any], calls: list[CallRecord], violation: str
) -> None:
    assert any(found.startswith(violation) for found in stream_violations(stream, stored, calls))
