"""All test suites run and are reported, even if one fails."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = [sys.executable, str(ROOT / "scripts" / "suites.py")]


def suites(*arguments: str) -> tuple[int, dict[str, str], str]:
    """The exit status, the result of each suite, and the whole output."""
    done = subprocess.run([*PROGRAM, *arguments], capture_output=True, text=True, timeout=60, check=False)
    rows = re.findall(r"^(\w+) +(passed|failed \(.*?\)) +\d+$", done.stdout, re.MULTILINE)
    return done.returncode, dict(rows), done.stdout + done.stderr


def ended(pid: int) -> bool:
    """True if a process has ended; a process without a waiting parent remains as a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except (FileNotFoundError, ProcessLookupError):
        return True


def test_all_suites_run_where_one_fails() -> None:
    status, results, said = suites("first=exit 3", "second=echo two suites", "third=kill -9 $$")
    assert (status, results) == (1, {"first": "failed (status 3)", "second": "passed", "third": "failed (signal 9)"})
    assert "two suites" in said


def test_suites_that_pass_exit_with_zero() -> None:
    assert suites("first=true", "second:60=true")[:2] == (0, {"first": "passed", "second": "passed"})


def test_hanging_suite_is_killed_and_the_next_one_runs(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    status, results, _ = suites(f"first:0.5=sleep 600 & echo $! > {pid}; wait", "second=true")
    assert (status, results) == (1, {"first": "failed (time limit)", "second": "passed"})
    assert ended(int(pid.read_text()))


def test_an_interruption_ends_the_suite_that_runs(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    command = [
        *PROGRAM,
        "first=true",
        f"second=sleep 600 & echo $! > {pid}.new; mv {pid}.new {pid}; wait",
        "third=true",
    ]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not pid.exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGTERM
    assert "first   passed" in re.sub(" +", "   ", said)
    assert "third" not in said
    assert ended(int(pid.read_text()))


@pytest.mark.parametrize("argument", ["lint", "=true", "lint=", "lint:soon=true"])
def test_a_suite_that_is_written_wrongly_is_refused(argument: str) -> None:
    assert suites(argument)[0] == 2


def seconds(name: str) -> int:
    """The sum of the time limits in a file."""
    return sum(map(int, re.findall(r'"\w[\w-]*:(\d+)=', (ROOT / name).read_text())))


def test_the_limits_of_ci_end_before_its_own() -> None:
    text = (ROOT / ".ci" / "run").read_text()
    assert re.findall(r'"([\w-]+):\d+=make \1"', text) == ["test", "simulate", "crash"]
    assert 60 * 60 < seconds(".ci/run") <= 85 * 60
    limit = re.search(r'"test:(\d+)=', text)
    assert limit is not None
    assert 0 < seconds("Makefile") <= int(limit[1])
