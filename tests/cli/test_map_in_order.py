"""`map_in_order`: order, concurrency limit and clean-up."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.cli.signals import WINDOW_SLACK, map_in_order


@given(
    turns=st.lists(st.integers(min_value=0, max_value=9), max_size=40),
    concurrency=st.integers(min_value=1, max_value=8),
)
def test_results_keep_the_order_of_rows(turns: list[int], concurrency: int) -> None:
    async def ask(row: tuple[int, int]) -> int:
        for _ in range(row[1]):
            await asyncio.sleep(0)
        return row[0]

    async def main() -> list[int]:
        return [result async for result in map_in_order(list(enumerate(turns)), ask, concurrency)]

    assert asyncio.run(main()) == list(range(len(turns)))


async def test_concurrency_is_limited() -> None:
    here = most = 0

    async def ask(row: int) -> int:
        nonlocal here, most
        here += 1
        most = max(most, here)
        await asyncio.sleep(0)
        here -= 1
        return row

    assert [result async for result in map_in_order(range(50), ask, 3)] == list(range(50))
    assert most == 3


async def test_rows_are_read_only_up_to_the_window() -> None:
    read = 0
    gate = asyncio.Event()

    def rows() -> Iterator[int]:
        nonlocal read
        while read < 1000:
            read += 1
            yield read

    async def ask(row: int) -> int:
        if row == 1:
            await gate.wait()
        return row

    results = map_in_order(rows(), ask, 5)
    first = asyncio.ensure_future(anext(results))
    for _ in range(100):
        await asyncio.sleep(0)
    assert read == 5 * WINDOW_SLACK
    gate.set()
    assert await first == 1
    await results.aclose()


async def test_row_error_ends_the_stream_and_cancels_tasks() -> None:
    async def ask(row: int) -> int:
        if row == 3:
            raise ValueError("no")
        await asyncio.sleep(0)
        return row

    with pytest.raises(ValueError, match="no"):
        _ = [result async for result in map_in_order(range(100), ask, 4)]
    assert asyncio.all_tasks() == {asyncio.current_task()}
