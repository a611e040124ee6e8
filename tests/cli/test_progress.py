"""Progress without a terminal: few lines, with rate and remaining time."""

from __future__ import annotations

import pytest

from orchestra.cli.output import ProgressMeter, StatusLine
from orchestra.fleet.progress import Progress


class Time:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_batch_says_a_line_every_few_seconds(capsys: pytest.CaptureFixture[str]) -> None:
    time = Time()
    with ProgressMeter(total=100, done=40, monotonic=time) as meter:
        for row in range(24):
            time.now += 0.5
            meter.advance(failed=row == 0, abstained=row == 1)
    assert capsys.readouterr().err.splitlines() == [
        "50 of 100 rows, 2.0 rows/s, 25 s left, 1 abstained, 1 failed",
        "60 of 100 rows, 2.0 rows/s, 20 s left, 1 abstained, 1 failed",
    ]


def test_waiting_says_each_new_step_once_and_a_long_one_again(capsys: pytest.CaptureFixture[str]) -> None:
    time = Time()
    waiting = StatusLine(monotonic=time)
    for done in range(0, 12, 2):
        waiting(Progress("download", "fetching", done * 1e6, 12e6, "bytes"))
        time.now += 2
    waiting(Progress("ready", "the fleet is \x1b[31mready"))
    assert capsys.readouterr().err.splitlines() == [
        "fetching: 0 bytes of 12 MB",
        "fetching: 6 MB of 12 MB",
        "the fleet is \\x1b[31mready",
    ]


def test_status_line_late_start_says_longer_than_usual(capsys: pytest.CaptureFixture[str]) -> None:
    time = Time()
    waiting = StatusLine(monotonic=time)
    for done, phase in ((12.0, "loading weights"), (39.0, "loading weights"), (87.0, "loading weights"), (88.0, "")):
        waiting(Progress("wait", "vLLM is starting with m", done, 40.0, "seconds", phase))
        time.now += 30
    assert capsys.readouterr().err.splitlines() == [
        "vLLM is starting with m: 12 s of about 40 s; loading weights",
        "vLLM is starting with m: 39 s of about 40 s; loading weights",
        "vLLM is starting with m: 87 s, longer than usual (about 40 s); loading weights",
        "vLLM is starting with m: 88 s, longer than usual (about 40 s)",
    ]


def test_status_line_new_phase_is_shown_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    waiting = StatusLine(monotonic=Time())
    for phase in ("loading weights", "loading weights", "warming up"):
        waiting(Progress("wait", "vLLM is starting", 3.0, 40.0, "seconds", phase))
    assert [line.partition("; ")[2] for line in capsys.readouterr().err.splitlines()] == [
        "loading weights",
        "warming up",
    ]
