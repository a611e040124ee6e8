"""The engine stays within twice what it took for an empty node, against asyncio in the same process, when that was last recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import limits
from bench.engine import SHAPES, empty

TRIES = 3
"""Another program may disturb one measurement; it does not disturb the least of three."""


@pytest.mark.slow  # not for what it takes (a second), but because it measures: once in `make test` is enough
@pytest.mark.parametrize("shape", SHAPES)
async def test_an_empty_node_costs_no_more_than_the_limit_of_its_shape(shape: str, tmp_path: Path) -> None:
    parents, _ = SHAPES[shape]
    limit, ratios = limits.limit(shape), []
    for attempt in range(TRIES):
        (tmp_path / str(attempt)).mkdir()
        ours, floor = await empty(shape, parents, 3, tmp_path / str(attempt))
        ratios.append(ours / floor)
        if ratios[-1] <= limit:
            return
    pytest.fail(f"{shape}: {min(ratios):.2f} times the floor at best, and the limit is {limit}; python -m bench.engine tells more")
