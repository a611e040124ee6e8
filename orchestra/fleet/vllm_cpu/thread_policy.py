"""The number of threads of a CPU server's step: all cores while they are free, one while other programs need them.

The threads of a step meet at about five hundred barriers. If another program has the core of one thread, the others
wait for it, and the step takes many times as long. So this module measures after each step how long threads were ready
but had no core. If that is long it switches to one thread, and back to all when the other cores are idle.

`ThreadPolicy` decides; `read_clocks` reads Linux's counters. vLLM's worker uses them through `StepThreads`.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

MAX_WAIT_SHARE = 0.4
"""The share of a step's time spent waiting for a core from which on one thread is faster than all."""
MIN_IDLE_SHARE = 0.6
"""The idle share of the unused cores from which on they are used again."""
MIN_PAUSE = 0.5
"""Minimum seconds with one thread after a switch. Doubled by each switch that follows soon, up to `MAX_PAUSE`."""
MAX_PAUSE = 16.0


@dataclass(frozen=True, slots=True)
class ClockReading:
    """A reading of the clocks, in seconds."""

    now: float
    """A monotonic clock."""
    waited: float
    """Time that this process's threads were ready but had no core, in total."""
    idle: float
    """Idle time of all cores of the machine, in total."""


@dataclass(slots=True)
class ThreadPolicy:
    """Decides the number of threads of the next step."""

    max_threads: int
    threads: int = field(init=False)
    _pause: float = field(default=MIN_PAUSE, init=False)
    _dropped_at: ClockReading | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self.threads = self.max_threads

    def update(self, start: ClockReading, end: ClockReading) -> int:
        """Returns the number of threads of the next step, from the readings around a step."""
        duration = end.now - start.now
        if self.threads > 1:
            if end.waited - start.waited > MAX_WAIT_SHARE * duration:
                soon = self._dropped_at is not None and end.now - self._dropped_at.now < 4 * self._pause
                self._pause = min(2 * self._pause, MAX_PAUSE) if soon else MIN_PAUSE
                self.threads, self._dropped_at = 1, end
        elif self._dropped_at is not None and (alone := end.now - self._dropped_at.now) >= self._pause:
            if end.idle - self._dropped_at.idle >= MIN_IDLE_SHARE * (self.max_threads - 1) * alone:
                self.threads, self._dropped_at = self.max_threads, end
            else:
                self._dropped_at = end  # still busy: measure the next interval only
        return self.threads


def has_scheduler_statistics(process: Path = Path("/proc/self")) -> bool:
    """Whether the system reports how long a process waits for a core. Some kernels and container runtimes do not."""
    return (process / "schedstat").exists()


def read_clocks() -> ClockReading:
    """Returns the clocks. Needs `has_scheduler_statistics`. Raises `OSError` if Linux's /proc cannot be read."""
    wait_time = 0
    for task in os.scandir("/proc/self/task"):
        try:
            with open(f"{task.path}/schedstat", encoding="ascii") as file:
                wait_time += int(file.read().split()[1])
        except FileNotFoundError:  # a thread that has ended meanwhile
            continue
    with open("/proc/stat", encoding="ascii") as file:
        idle = int(file.readline().split()[4])
    return ClockReading(time.monotonic(), wait_time / 1e9, idle / os.sysconf("SC_CLK_TCK"))


class StepThreads:
    """Sets the number of threads before each step."""

    def __init__(
        self, policy: ThreadPolicy, set_threads: Callable[[int], None], read: Callable[[], ClockReading] = read_clocks
    ) -> None:
        self._policy, self._set, self._read = policy, set_threads, read
        self._current = policy.threads
        set_threads(self._current)
        self._start = read()

    def begin(self) -> None:
        """Reads the clocks before a step."""
        self._start = self._read()

    def end(self) -> None:
        """Updates the number of threads after a step."""
        thread_count = self._policy.update(self._start, self._read())
        if thread_count != self._current:
            self._current = thread_count
            self._set(thread_count)
