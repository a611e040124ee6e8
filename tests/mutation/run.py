"""Runs the mutants of this folder: with each of them, its test must fail.

    python -m tests.mutation.run                      # all of them, with a table
    python -m tests.mutation.run "lost commit" tags   # those whose name or file contains one of these texts
    python -m tests.mutation.run --jobs 4

Each job works in a copy of the repository. First the tests run without a mutant, and must pass. Exits with 1 if a test
failed then, a mutant survived, or one could not be applied.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from tests.mutation.mutant import ROOT, Mutant, load, patched

FILES = sorted(Path(__file__).parent.glob("*.toml"))
LIMIT = 300.0
"""Timeout of a mutant's test in seconds. A mutant that makes it hang is caught too."""
LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "site", "dist", "build", "shared")
PASSED, FAILED = 0, 1
"""Exit codes of pytest. Others mean that the test was not run."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """The result of a mutant: `caught`, `hangs`, `SURVIVES`, or why it could not be judged."""

    mutant: Mutant
    result: str
    seconds: float

    @property
    def caught(self) -> bool:
        return self.result in {"caught", "hangs"}


@contextmanager
def copied() -> Iterator[Path]:
    """Copies the repository. Its compiled files are validated by content, because several mutants are written in one
    second.
    """
    with tempfile.TemporaryDirectory(prefix="mutants-") as made:
        folder = Path(made) / "copy"
        shutil.copytree(ROOT, folder, ignore=LEFT_OUT, symlinks=True)
        compiling = [sys.executable, "-m", "compileall", "-q", "--invalidation-mode", "checked-hash", "orchestra"]
        subprocess.run(compiling, cwd=folder, check=True)
        yield folder


def run_tests(folder: Path, tests: Sequence[str]) -> int | None:
    """Returns the exit code of pytest in a copy; None if it hangs."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as home:
        own = {f"XDG_{name}_HOME": home for name in ("STATE", "CONFIG")} | {
            "XDG_RUNTIME_DIR": home,
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        environ = {**os.environ, **own, "PYTHONPATH": str(folder), "CI": "true"}
        command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *tests]
        with (Path(home) / "output").open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=folder,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
            try:
                return process.wait(LIMIT)
            except subprocess.TimeoutExpired:
                return None
            finally:
                with ExitStack() as gone:
                    gone.callback(process.wait)
                    if process.poll() is None:
                        os.killpg(process.pid, signal.SIGKILL)


def judge(mutant: Mutant, folder: Path) -> Verdict:
    """Runs the test of a mutant in a copy, and restores the copy."""
    began, file = time.monotonic(), folder / mutant.file
    before = file.read_text()
    try:
        file.write_text(patched(mutant, folder))
        code = run_tests(folder, mutant.test.split())
    except LookupError as error:
        return Verdict(mutant, f"NOT APPLIED: {error}", 0.0)
    finally:
        file.write_text(before)
    results = {None: "hangs", FAILED: "caught", PASSED: "SURVIVES"}
    return Verdict(mutant, results.get(code, f"NOT RUN: pytest ended with {code}"), time.monotonic() - began)


def unsound(mutants: Sequence[Mutant], folder: Path) -> list[str]:
    """Returns the tests that fail without a mutant. The tests of one file run together, and each alone if they fail."""
    files: dict[str, list[str]] = {}
    for test in sorted({test for mutant in mutants for test in mutant.test.split()}):
        files.setdefault(test.partition("::")[0], []).append(test)
    failed = [tests for tests in files.values() if run_tests(folder, tests) != PASSED]
    return [test for tests in failed for test in tests if len(tests) == 1 or run_tests(folder, [test]) != PASSED]


def judge_all(mutants: Sequence[Mutant], jobs: int) -> int:
    """Prints the table, and returns the exit code."""
    with ExitStack() as stack:
        folders = SimpleQueue[Path]()
        for _ in range(jobs):
            folders.put(stack.enter_context(copied()))

        def in_a_copy(mutant: Mutant) -> Verdict:
            folder = folders.get()
            try:
                return judge(mutant, folder)
            finally:
                folders.put(folder)

        def checked(part: Sequence[Mutant]) -> list[str]:
            folder = folders.get()
            try:
                return unsound(part, folder)
            finally:
                folders.put(folder)

        with ThreadPoolExecutor(jobs) as pool:
            names = sorted({mutant.test.partition("::")[0] for mutant in mutants})
            parts = [
                [one for one in mutants if names.index(one.test.partition("::")[0]) % jobs == number]
                for number in range(jobs)
            ]
            broken = [test for found in pool.map(checked, parts) for test in found]
            for test in broken:
                print(f"FAILS WITHOUT A MUTANT  {test}", flush=True)
            chosen = [one for one in mutants if not set(one.test.split()) & set(broken)]
            verdicts = []
            for verdict in pool.map(in_a_copy, chosen):
                verdicts.append(verdict)
                print(f"{verdict.mutant.name:<76} {verdict.seconds:>5.0f} s  {verdict.result}", flush=True)
    caught = sum(verdict.caught for verdict in verdicts)
    print(f"{caught} of {len(mutants)} mutants caught")
    return 0 if caught == len(mutants) else 1


def main() -> int:
    """Runs the command."""
    parser = argparse.ArgumentParser(prog="python -m tests.mutation.run", description="faults that tests must find")
    parser.add_argument("name", nargs="*", help="only those whose name or file has one of these texts")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--sample", type=int, help="so many of them, drawn at random")
    options = parser.parse_args()
    mutants = [
        mutant
        for file in FILES
        for mutant in load(file)
        if not options.name or any(text in mutant.name or text in mutant.file for text in options.name)
    ]
    if options.sample is not None:
        mutants = random.Random(0).sample(mutants, min(options.sample, len(mutants)))
    return judge_all(mutants, max(1, options.jobs))


if __name__ == "__main__":
    sys.exit(main())
