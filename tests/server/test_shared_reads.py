"""Concurrent callers share a read, but none gets the result of one that began before its call."""

from __future__ import annotations

import asyncio

import pytest

from orchestra.server.collections import SharedRead


class Source:
    """A value that is read slowly: each read waits until it is let go."""

    def __init__(self) -> None:
        self.value = 0
        self.reads = 0
        self.gate = asyncio.Event()

    async def read(self) -> int:
        """Returns the value at the beginning of the read."""
        self.reads += 1
        value = self.value
        await self.gate.wait()
        return value


async def begin(shared: SharedRead[int]) -> asyncio.Task[int]:
    """Begins to read, and lets the read start if it can."""
    task = asyncio.ensure_future(shared.get())
    for _ in range(5):
        await asyncio.sleep(0)
    return task


async def test_late_callers_share_a_read_that_began_after_them() -> None:
    source = Source()
    shared = SharedRead(source.read)
    first = await begin(shared)
    source.value = 1
    late = [await begin(shared) for _ in range(3)]
    source.gate.set()
    assert (await first, await asyncio.gather(*late), source.reads) == (0, [1, 1, 1], 2)


async def test_cancelled_caller_does_not_end_the_read_of_others() -> None:
    source = Source()
    shared = SharedRead(source.read)
    await begin(shared)
    waiting, other = await begin(shared), await begin(shared)
    waiting.cancel()
    source.gate.set()
    assert await other == 0
    with pytest.raises(asyncio.CancelledError):
        await waiting
