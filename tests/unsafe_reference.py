"""Costs as ratios: the CPU time of some work over that of reference work in the same process.

Seconds are those of the machine, so no test holds any (`tests/architecture/test_durations.py`). A limit is wide: at
least five times what was measured. It finds work that grows too fast. What a few per cent matter for is measured by the
benchmarks (`bench/`).
"""

from __future__ import annotations

import gc
import json
import re
import time
from collections.abc import Callable

ROUNDS = 4
"""Another program may disturb one round; it does not disturb the least of several."""


def reference() -> None:
    """The reference work: strings, dictionaries, sorting, JSON and a regular expression; 10 ms on a server core of
    2024.
    """
    rows = [{"name": f"row {number}", "value": number * 7919 % 1000} for number in range(8_000)]
    rows.sort(key=lambda row: str(row["value"]))
    text = json.dumps(rows)
    assert len(json.loads(text)) == len(re.findall(r"row \d+", text)) == 8_000


def cpu_seconds(work: Callable[[], object]) -> float:
    """The CPU time of some work. The collector is off, for it would look at what other tests left behind too."""
    collected = gc.isenabled()
    gc.disable()
    try:
        began = time.process_time()
        work()
        return time.process_time() - began
    finally:
        if collected:
            gc.enable()


def reference_seconds() -> float:
    """The CPU time of the reference work, the least of three."""
    return min(cpu_seconds(reference) for _ in range(3))


def assert_cost(work: Callable[[], object], at_most: float) -> None:
    """Asserts a limit of the cost of some work.

    Args:
        work: What is measured. It is done up to four times, until a round stays within the limit.
        at_most: The limit, as a multiple of the reference work.

    Raises:
        AssertionError: Each round took longer.
    """
    ratios = []
    for _ in range(ROUNDS):
        ratios.append(cpu_seconds(work) / reference_seconds())
        if ratios[-1] <= at_most:
            return
    raise AssertionError(f"{min(ratios):,.0f} times the reference work at best, and the limit is {at_most:,.0f}")
