"""Refuses the whole corpus and prints, as JSON, what each refusal took: `[name, code wanted, code, place, cost, MiB]`.

Run in a process of its own. The cost is CPU time over that of the reference work (`tests/unsafe_reference.py`), the
least of up to eight rounds,
with pauses, for a shared processor is slow in bursts; MiB is by how much the process grew at its peak, in the first.
"""

from __future__ import annotations

import json
import resource
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from tests.hostile.corpus import Case, every  # noqa: E402  # the path comes first
from tests.unsafe_reference import reference_seconds  # noqa: E402

QUICK = 40.0
"""A cost that is clearly less than the limit."""
PAUSE = 0.3
"""Seconds between two rounds."""


def seconds(case: Case) -> tuple[tuple[str, str], float]:
    """What a case gives, and the CPU time that it takes."""
    began = time.process_time()
    found = case.refusal() or ("accepted", "")
    return found, time.process_time() - began


def least(case: Case, first: float) -> float:
    """The least cost of a case whose first round cost this much; it is asked again only where that was not clearly
    little.
    """
    cost = first
    for _ in range(7):
        if cost < QUICK:
            break
        time.sleep(PAUSE)
        cost = min(cost, seconds(case)[1] / reference_seconds())
    return cost


def resident() -> float:
    """The MiB that this process has in memory now."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> None:
    """Measures each case. Linux resets the peak of a process's memory on request, which is what makes it measurable a
    case.
    """
    cases = list(every())
    for case in cases[:: len(cases) // 20]:
        case.refusal()
    rows, unit = [], reference_seconds()
    for case in cases:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident()
        found, first = seconds(case)
        peak = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
        grown = int(peak.split()[1]) / 1024 - before
        rows.append([case.name, case.code, *found, least(case, first / unit), grown])
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
