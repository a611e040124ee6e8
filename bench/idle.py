"""The cost of waiting runs: `python -m bench.idle ours|floor [RUNS]` prints one line of JSON. A separate process, to
measure memory.

Each run has 8 nodes, and waits in the first; then all continue. `kib` is resident memory per run, seconds are processor
time.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.floor import DIAMOND, by_tasks
from bench.ours import opened, workflow_of


def resident() -> float:
    """Returns the resident memory of this process in KiB; Linux only."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4.0


async def measure(who: str, runs: int) -> dict[str, float]:
    """Returns KiB per waiting run, and the seconds to start and to finish all."""
    gate, full_house, waiting = asyncio.Event(), asyncio.Event(), 0

    async def body(v: int) -> None:
        nonlocal waiting
        if v == 0:
            waiting += 1
            if waiting == runs:
                full_house.set()
            await gate.wait()

    async def measured(run: Callable[[], Awaitable[object]]) -> dict[str, float]:
        nonlocal waiting
        gate.set()
        await run()
        gate.clear()
        waiting = 0
        gc.collect()
        empty, began = resident(), time.process_time()
        tasks = [asyncio.ensure_future(run()) for _ in range(runs)]
        await full_house.wait()
        started = time.process_time() - began
        full, draining = resident(), time.process_time()
        gate.set()
        await asyncio.gather(*tasks)
        return {
            "kib": (full - empty) / runs,
            "started_s": started,
            "drained_s": started + time.process_time() - draining,
        }

    if who == "floor":
        return await measured(lambda: by_tasks(DIAMOND, body))
    with tempfile.TemporaryDirectory() as folder:
        async with opened(Path(folder)) as orchestra:
            step = workflow_of(DIAMOND, body, "idle")
            return await measured(lambda: orchestra.run(step))


if __name__ == "__main__":
    print(json.dumps(asyncio.run(measure(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 2000))))
