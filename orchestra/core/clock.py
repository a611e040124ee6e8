"""The production `Clock`: system time, event-loop sleep, system randomness, and ids that sort by time."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
"""Crockford's base 32 in lower case: no i, l, o, u (https://www.crockford.com/base32.html)."""
_RANDOM_BITS = 50


class RunIdGenerator:
    """Generates run ids of 20 characters: 10 for milliseconds since the epoch, 10 random, as in ULID
    (https://github.com/ulid/spec).

    Ids of one generator are strictly increasing, even within a millisecond or when the clock steps back. The first 8
    characters identify a second, so a prefix of 9 or 10 is nearly always unique.
    """

    def __init__(self, random_bits: Callable[[int], int]) -> None:
        """`random_bits(bits)` returns a random integer of that many bits."""
        self._random_bits = random_bits
        self._last = 0

    def new(self, now: float) -> str:
        """Returns the id of a run that starts at `now`, in seconds since the epoch."""
        fresh = (int(now * 1000) << _RANDOM_BITS) | self._random_bits(_RANDOM_BITS)
        self._last = fresh if fresh > self._last else self._last + 1
        return _base32(self._last)


def _base32(number: int) -> str:
    return "".join(ALPHABET[(number >> shift) & 31] for shift in range(95, -1, -5))


class SystemClock:
    """The `Clock` of production."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()
        self._ids = RunIdGenerator(self._random.getrandbits)

    now = staticmethod(time.time)
    """Returns wall-clock seconds since the epoch."""

    monotonic = staticmethod(time.monotonic)
    """Returns monotonic seconds."""

    async def sleep(self, seconds: float) -> None:
        """Waits in the running event loop; zero seconds yields once."""
        await asyncio.sleep(seconds)

    async def run_in_thread(self, task: Callable[[], T]) -> T:
        """Runs a pure function in a thread and returns its result."""
        return await asyncio.to_thread(task)

    def random(self) -> float:
        """Returns a number in [0, 1)."""
        return self._random.random()

    def new_id(self) -> str:
        """Returns a new run id of 20 characters, greater than every earlier one of this clock."""
        return self._ids.new(time.time())
