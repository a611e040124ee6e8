"""Refuses the whole corpus and prints the measurements as JSON: `[name, expected code, code, position, cost, MiB]`.

Run it in a separate process. The cost is CPU time relative to the reference work (`tests/unsafe_reference.py`): the
minimum of up to eight rounds with pauses, because a shared processor has slow periods. MiB is the growth of the
process's peak memory in the first round.
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
"""A cost clearly below the limit."""
PAUSE = 0.3
"""Seconds between two rounds."""


def seconds(case: Case) -> tuple[tuple[str, str], float]:
    """Returns the result of a case and its CPU time."""
    began = time.process_time()
    found = case.refusal() or ("accepted", "")
    return found, time.process_time() - began


def least(case: Case, first: float) -> float:
    """Returns the minimum cost of a case with this cost in the first round. Measures again only if that was not clearly
    low.
    """
    cost = first
    for _ in range(7):
        if cost < QUICK:
            break
        time.sleep(PAUSE)
        cost = min(cost, seconds(case)[1] / reference_seconds())
    return cost


def resident() -> float:
    """Returns the resident memory of this process in MiB."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize() / (1 << 20)


def main() -> None:
    """Measures each case. Linux resets the peak memory of a process on request, so that it can be measured per case."""
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
