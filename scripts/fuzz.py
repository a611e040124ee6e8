"""Loads fuzzed files with new seeds until the time is over.

    python scripts/fuzz.py [--minutes 10] [--seed N] [--folder FOLDER]

Workflows, cards, journals and events, as `tests/hostile/loads.py` makes them, in processes of 2,000 loads each, one for
each core. Exits with status 1 at the first load that has side effects, raises an error without a code, or takes too
long: its bytes are kept in the folder, and one line has the command that repeats it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

LOADS = Path(__file__).resolve().parents[1] / "tests" / "hostile" / "loads.py"
FACTOR = 0.2
"""Loads of one process as a share of 10,000."""


class Found(Exception):
    """A failed load: the output of its process."""


def one(seed: int, folder: Path) -> Counter[str]:
    """Runs the loads of one seed. Raises `TableAnswer`."""
    here = folder / str(seed)
    here.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(LOADS), str(here), str(FACTOR), str(seed)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise Found(f"{done.stderr}\nagain: {' '.join(command)}")
    told: dict[str, dict[str, int]] = json.loads(done.stdout)
    for left in sorted(here.rglob("*"), reverse=True):
        left.rmdir() if left.is_dir() else left.unlink()
    here.rmdir()
    found: Counter[str] = Counter()
    for kind, codes in told.items():
        for code, count in codes.items():
            found[f"{kind}: {'accepted' if code == 'accepted' else 'refused'}"] += count
    return found


def seeds(first: int, until: float) -> Iterator[int]:
    """Yields seeds while there is time."""
    while time.monotonic() < until:
        yield first
        first += 1


def main() -> None:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()) / "orchestra-fuzz")
    asked = parser.parse_args()
    told: Counter[str] = Counter()
    cores = os.cpu_count() or 1
    source = seeds(asked.seed, time.monotonic() + 60 * asked.minutes)
    with ThreadPoolExecutor(cores) as pool:
        while batch := [seed for _, seed in zip(range(cores), source, strict=False)]:
            for done in as_completed([pool.submit(one, seed, asked.folder) for seed in batch]):
                try:
                    told += done.result()
                except Found as found:
                    sys.exit(str(found))
    print(json.dumps({"loads": told.total(), "first_seed": asked.seed, **dict(sorted(told.items()))}, indent=1))


if __name__ == "__main__":
    main()
