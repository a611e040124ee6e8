"""Kill -9 at any time: everything that `wait_durable` returned for is there, numbers have no gap, the chain is valid,
and the run can continue.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from orchestra.core.events import NodeFinished
from orchestra.journal.sqlite.journal import SqliteJournal

SEED = 20_261
POINTS = int(os.environ.get("ORCHESTRA_TEST_CRASH_POINTS", "20"))
CHILD = Path(__file__).with_name("crashing.py")


def crash(file: Path, chance: random.Random) -> dict[str, int]:
    """Kills a writer at a random point; returns what it reported as durable, by run."""
    child = subprocess.Popen(
        [sys.executable, str(CHILD), str(file), str(chance.randrange(1 << 30))], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    said = [child.stdout.readline() for _ in range(chance.randint(0, 40))]
    # Busy waiting: a point within a millisecond, anywhere in the writer.
    until = time.perf_counter() + chance.uniform(0, 0.004)
    while time.perf_counter() < until:
        pass
    child.send_signal(signal.SIGKILL)
    said += child.stdout.read().splitlines()
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL
    pairs = [line.split() for line in said if line.strip()]
    return {run.decode(): int(seq) for run, seq in pairs}


async def test_crash_at_any_point_loses_no_durable_event(tmp_path: Path) -> None:
    chance, file, durable = random.Random(SEED), tmp_path / "journal.db", dict[str, int]()
    for point in range(POINTS):
        # The same file repeatedly: each writer continues after the killed one.
        durable |= crash(file, chance)
        async with SqliteJournal.open(file) as journal:
            for run, seq in durable.items():
                events = await journal.read(run)  # checks numbers and chain
                where = f"run {run} after crash {point} of seed {SEED}"
                assert len(events) >= seq, f"lost: {where}"
                for event in events[-5:]:
                    if isinstance(event, NodeFinished):
                        assert await journal.get_blob(event.node) == f"{run} {event.seq}".encode(), (
                            f"blob lost: {where}"
                        )
            assert all(summary.status == "interrupted" for summary in await journal.list_runs())
    assert sum(durable.values()) > 20 * POINTS // 4
