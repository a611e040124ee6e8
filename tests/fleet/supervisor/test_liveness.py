"""The decision whether a running server is dead, on a clock without waiting."""

from __future__ import annotations

from orchestra.fleet.supervisor.liveness import Liveness

STALL, FAILURE = 600.0, 90.0


def idle() -> Liveness:
    return Liveness(STALL, FAILURE, 0.0)


def busy() -> Liveness:
    """Returns the observations of a server that got requests at the time 0."""
    made = idle()
    made.observe_load(busy=True, progressed=False, now=0.0)
    return made


def test_liveness_late_health_is_no_failure() -> None:
    slow = idle()
    for now in range(0, 10_000, 60):
        slow.observe_health("late", now)
        assert slow.failure(now) is None


def test_liveness_failed_health_is_failure_after_limit() -> None:
    sick = idle()
    for now in (10.0, 50.0, 100.0):
        sick.observe_health("failed", now)
        assert sick.failure(now) is None
    error = sick.failure(10 + FAILURE + 1)
    assert error is not None
    assert error.code == "F216"
    for health in ("ok", "late"):
        sick.observe_health(health, 101.0)
        assert sick.failure(500.0) is None
        sick.observe_health("failed", 102.0)
        assert sick.failure(102 + FAILURE + 1) is not None


def test_liveness_requests_without_progress_are_failure_after_limit() -> None:
    hung = busy()
    hung.observe_health("ok", STALL)
    hung.observe_load(busy=True, progressed=False, now=STALL)
    assert hung.failure(STALL) is None
    error = hung.failure(STALL + 1)
    assert error is not None
    assert (error.code, "stall_timeout" in error.hint) == ("F216", True)


def test_liveness_progress_postpones_failure() -> None:
    working = busy()
    working.observe_load(busy=True, progressed=True, now=500.0)
    assert working.failure(500 + STALL) is None
    working.observe_log(["compiled a kernel"], 1000.0)
    assert working.failure(1000 + STALL) is None
    assert working.failure(1001 + STALL) is not None


def test_liveness_repeated_log_lines_are_no_progress() -> None:
    hung = busy()
    waiting = "Avg prompt throughput: 0.0 tokens/s, Avg generation throughput: 0.0 tokens/s, Running: 3 reqs"
    hung.observe_log([waiting, "", "No available shared memory broadcast block found in 60 seconds"], 500.0)
    assert hung.failure(STALL + 1) is not None


def test_liveness_idle_server_never_fails() -> None:
    quiet = idle()
    assert quiet.failure(100_000.0) is None
    quiet.observe_load(busy=False, progressed=False, now=200_000.0)
    quiet.observe_load(busy=True, progressed=False, now=200_001.0)
    assert quiet.failure(200_001 + STALL - 2) is None, "the time without requests does not count"


def test_liveness_suspected_server_gets_whole_limit() -> None:
    """A request of a client timed out, and the load does not show it."""
    frozen = idle()
    frozen.suspect(5000.0)
    frozen.suspect(5300.0)
    frozen.observe_load(busy=False, progressed=False, now=5400.0)
    assert frozen.failure(5000 + STALL) is None
    assert frozen.failure(5001 + STALL) is not None
    frozen.observe_progress(5700.0)
    assert (frozen.suspected, frozen.failure(50_000.0)) == (False, None)
