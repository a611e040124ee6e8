"""Journal files in tests: inspected and changed directly, and written by other processes."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


def sql(file: Path, *statements: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(file, isolation_level=None)
    try:
        return [row for statement in statements for row in connection.execute(statement)]
    finally:
        connection.close()


class Holder:
    """A process of `holding.py`: `ask` lets it continue and returns its next line."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        assert self.heard() == "open"

    def go(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(b"\n")
        self.process.stdin.flush()

    def heard(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().decode().strip()

    def ask(self) -> str:
        self.go()
        return self.heard()


@contextmanager
def holder(file: Path, run: str) -> Iterator[Holder]:
    """Another process that wants to write a run; killed at the end."""
    script = str(Path(__file__).with_name("holding.py"))
    process = subprocess.Popen([sys.executable, script, str(file), run], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    try:
        yield Holder(process)
    finally:
        process.kill()
        for pipe in (process.stdin, process.stdout):
            if pipe is not None:
                pipe.close()
        process.wait()
