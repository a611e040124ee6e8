"""Runs every peer several times, interleaved, and prints Markdown tables: medians, ratios to the asyncio baseline,
spread.

    python -m bench.peers.run_all [--rounds 3] [--only orchestra,asyncio] [--workloads abc] [--table]

Creates missing environments. Results go to results.jsonl in the cache folder (see `bench/machine.py`), a line for each
process and workload; those of the previous call are kept in results-before.jsonl. `--table` only prints. Exits with 1
if an installed peer gave no result.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench import machine
from bench.peers import environments, importing, tables
from bench.peers.tables import ARMS, Arm

HERE = Path(__file__).parent
LIMIT_S = 240
"""Timeout of one process in seconds."""


def environment() -> dict[str, str]:
    """Returns the environment variables of all peers: no network access, and deterministic hashing."""
    silent = {
        "OTEL_SDK_DISABLED": "true",
        "HAYSTACK_TELEMETRY_ENABLED": "false",
        "BURR_TELEMETRY": "false",
        "LANGSMITH_TRACING": "false",
    }
    return {**os.environ, **silent, "PYTHONHASHSEED": "0", "PYTHONWARNINGS": "ignore"}


def results() -> Path:
    """Returns the file of results."""
    return machine.folder() / "results.jsonl"


def measured(arm: Arm, letters: str) -> Iterator[dict[str, Any]]:
    """Returns the results of one process of a peer; a process that fails or times out gives its partial results."""
    command = [
        str(environments.python(arm.environment)),
        str(HERE / f"bench_{arm.script}.py"),
        "--workload",
        letters,
        *arm.arguments,
    ]
    fault = ""
    try:
        done = subprocess.run(
            command, env=environment(), cwd=machine.folder(), capture_output=True, text=True, timeout=LIMIT_S
        )
        printed = done.stdout
        if done.returncode:
            fault = (done.stderr.splitlines() or ["?"])[-1][:200]
    except subprocess.TimeoutExpired as late:
        printed = late.stdout.decode() if isinstance(late.stdout, bytes) else ""
        fault = f"not done within {LIMIT_S} s"
    seen = set()
    for line in printed.splitlines():
        if line.startswith("{"):
            found: dict[str, Any] = json.loads(line)
            seen.add(found["workload"])
            yield found
    for letter in letters:
        if letter not in seen:
            yield {"workload": letter, "n": 0, "error": fault or "no result"}


def sweep(arms: list[Arm], rounds: int, letters: str, seconds: float, add: bool) -> None:
    """Runs all peers in turn, as often as requested, and writes results as they arrive."""
    if results().exists() and not add:
        results().replace(results().with_name("results-before.jsonl"))
    end, of = time.monotonic() + seconds, f"{machine.now()}; {machine.code()}"
    with results().open("a", encoding="utf-8") as file:
        for number in range(rounds):
            at = number * len(arms) // rounds
            for arm in arms[at:] + arms[:at]:  # rotates the order in each round, so that growing load favours no peer
                wanted = "".join(letter for letter in arm.workloads if letter in letters)
                if not wanted:
                    continue
                if time.monotonic() > end:
                    print(f"# the time is up in round {number}, before {arm.label}", file=sys.stderr, flush=True)
                    return
                began, load = time.monotonic(), os.getloadavg()[0]
                # Memory is measured only in a process that has done nothing else.
                alone = (wanted.replace("i", ""), "i" if "i" in wanted else "")
                for found in (row for letters_of in alone if letters_of for row in measured(arm, letters_of)):
                    told = {**found, "label": arm.label, "round": number, "load": load, "of": of}
                    file.write(json.dumps(told) + "\n")
                file.flush()
                print(
                    f"# round {number}, {arm.label}: {time.monotonic() - began:.1f} s (load {load:.1f})",
                    file=sys.stderr,
                    flush=True,
                )
            if "h" in letters:
                for told in importing.measured({arm.environment for arm in arms}):
                    file.write(json.dumps({**told, "round": number}) + "\n")


def main() -> int:
    """The command line."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--only", default="", help="names of environments, separated by commas; all by default")
    options.add_argument("--workloads", default="abcdefghi")
    options.add_argument("--seconds", type=float, default=3600, help="no process is started after this time")
    options.add_argument("--add", action="store_true", help="add to the results of the last run")
    options.add_argument("--table", action="store_true", help="print the tables of the last run")
    given = options.parse_args()
    if not given.table:
        only = {name for name in given.only.split(",") if name}
        arms = [arm for arm in ARMS if not only or arm.environment in only]
        faults = environments.prepare(sorted({arm.environment for arm in arms}))
        sweep(
            [arm for arm in arms if arm.environment not in faults],
            given.rounds,
            given.workloads,
            given.seconds,
            given.add,
        )
        (machine.folder() / "faults.json").write_text(json.dumps(faults), "utf-8")
    if not results().exists():
        print("nothing was measured yet: make bench-peers", file=sys.stderr)
        return 1
    rows = tables.rows(results())
    print(tables.report(rows, machine.folder()))
    return 1 if not given.table and any("error" in row for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
