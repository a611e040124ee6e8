"""Mutants: the engine and its journal with one fault each. They show that the simulation detects faults.

    python -m tests.simulation.mutants                  # all of them, with a table
    python -m tests.simulation.mutants "lost cancel"    # those whose name contains these words

Each is a change of the source text in a copy of the package, run in a process of its own until the first violation.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from tests.mutation.mutant import ROOT, Mutant, load, patched

RUNS = 2_400
"""Runs within which a mutant must be detected."""
STEPS = (120, 600, RUNS)
"""A mutant is run with a few seeds first, and with more if these do not detect it."""


MUTANTS = load(Path(__file__).with_name("mutants.toml"))


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether a mutant was detected, after how many runs, and by which violation."""

    mutant: Mutant
    runs: int
    found: str
    seconds: float


def judge(mutant: Mutant | None, steps: Sequence[int] = STEPS, seed: int = 0) -> Verdict:
    """Runs the simulation of a mutant; of the correct package if it is None."""
    began = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(ROOT / "orchestra", Path(folder) / "orchestra", ignore=shutil.ignore_patterns("__pycache__"))
        if mutant is not None:
            (Path(folder) / mutant.file).write_text(patched(mutant, Path(folder)))
        before = 0
        for runs in steps:
            command = [
                sys.executable,
                "-m",
                "tests.simulation.lab.simulate",
                "--seed",
                str(seed + before),
                "--runs",
                str(runs - before),
            ]
            done = subprocess.run(
                [*command, "--jobs", "1", "--stop"],
                cwd=folder,
                capture_output=True,
                text=True,
                check=False,
                timeout=900,
            )
            before = runs
            if done.returncode:
                return Verdict(mutant or SOUND, runs, _finding(done), time.perf_counter() - began)
    return Verdict(mutant or SOUND, before, "", time.perf_counter() - began)


SOUND = Mutant("(no change)", "", "", "")


def _finding(done: subprocess.CompletedProcess[str]) -> str:
    lines = done.stdout.splitlines()
    at = next((number for number, line in enumerate(lines) if "--runs 1 -v" in line), 0)
    return lines[at - 1] if at else (done.stderr.strip().splitlines() or ["it ended without a word"])[-1]


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulation.mutants", description="faults that the simulation must find"
    )
    parser.add_argument("name", nargs="*", help="only those whose name has these words")
    parser.add_argument("--jobs", type=int, default=2)
    options = parser.parse_args()
    wanted = " ".join(options.name)
    chosen = [mutant for mutant in MUTANTS if wanted in mutant.name]
    missed = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for verdict in pool.map(judge, chosen):
            missed += not verdict.found
            found = f"within {verdict.runs:>5,} runs  {verdict.found[:90]}" if verdict.found else "NOT FOUND"
            print(f"{verdict.mutant.name:<46} {found}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} mutants found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
