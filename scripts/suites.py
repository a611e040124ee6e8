"""Runs several suites one after the other, all of them even if some fail, and reports the result of each.

    python scripts/suites.py "lint=make lint" "quick:1200=pytest -m 'not slow'"

A suite is NAME[:SECONDS]=COMMAND. One that exceeds its time limit is ended, with all processes of its group. The exit
status is 1 if a suite failed. It needs only Python, so it can set up what the suites need.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from types import FrameType

GRACE = 30.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass(frozen=True, slots=True)
class Suite:
    """A command with a name and an optional time limit in seconds."""

    name: str
    limit: float | None
    command: str


@dataclass(frozen=True, slots=True)
class Result:
    """The outcome of a suite: `passed`, `failed (status N)`, `failed (signal N)` or `failed (time limit)`."""

    suite: Suite
    result: str
    seconds: float


def parse(argument: str) -> Suite:
    """Parses a suite from the command line. Raises `ValueError`."""
    head, found, command = argument.partition("=")
    name, _, limit = head.partition(":")
    if not (found and name and command):
        raise ValueError(f"{argument!r} is not NAME[:SECONDS]=COMMAND")
    return Suite(name, float(limit) if limit else None, command)


def end(process: subprocess.Popen[bytes]) -> None:
    """Ends a process and its group."""
    for number, patience in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(patience)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def run(suite: Suite) -> Result:
    """Runs a suite in its own process group, which ends with this function."""
    print(f"--- {suite.name}: {suite.command}", flush=True)
    began = time.monotonic()
    process = subprocess.Popen(["/bin/sh", "-c", suite.command], stdin=subprocess.DEVNULL, process_group=0)
    try:
        status = process.wait(suite.limit)
        result = (
            "passed" if status == 0 else f"failed (status {status})" if status > 0 else f"failed (signal {-status})"
        )
    except subprocess.TimeoutExpired:
        result = "failed (time limit)"
    finally:
        end(process)
    return Result(suite, result, time.monotonic() - began)


def table(results: Sequence[Result]) -> str:
    """Returns the summary."""
    width = max(len(one.suite.name) for one in results)
    lines = [f"{one.suite.name:<{width}}  {one.result:<20}  {one.seconds:>7.0f}" for one in results]
    return "\n".join([f"{'suite':<{width}}  {'result':<20}  seconds", *lines])


def interrupt(number: int, _: FrameType | None) -> None:
    """Ends this program, and with it the running suite."""
    raise SystemExit(128 + number)


def main(arguments: Sequence[str]) -> int:
    """The command."""
    try:
        suites = [parse(argument) for argument in arguments]
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    if not suites:
        print(__doc__, file=sys.stderr)
        return 2
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupt)
    results: list[Result] = []
    try:
        for suite in suites:
            results.append(run(suite))
    finally:
        if results:
            print(f"\n{table(results)}", flush=True)
    return 0 if all(one.result == "passed" for one in results) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
