"""Runs `orchestra` in separate processes with simulated workers, with or without a terminal, and sends signals."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Self

ROOT = Path(__file__).parents[2]
PATIENCE = 30.0
"""Seconds to wait for output of a process."""

PROGRAM = """
import asyncio, sys
from orchestra.cli.main import build_app
from tests.cli.stage import GOOD, Simulated

async def forever(call):
    print("called", flush=True, file=sys.stderr)
    await asyncio.sleep(3600)

async def deaf(call):
    print("called", flush=True, file=sys.stderr)
    while True:
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            print("asked to end", flush=True, file=sys.stderr)

def router(call):
    return "return s1" if call.inputs["plan"] else "s1 = answerer(question=input.request, context=input.text)"

build_app(Simulated({"answerer": {SCRIPT}, "router": {ROUTER}}))(prog_name="orchestra")
"""


def environment() -> dict[str, str]:
    """The environment of the processes; `shell` has set the folders."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "200"}


def _command(arguments: tuple[str, ...], script: str = "GOOD", router: str = "router") -> list[str]:
    program = PROGRAM.replace("{SCRIPT}", script).replace("{ROUTER}", router)
    return [sys.executable, "-c", program, *arguments]


def started(*arguments: str, script: str = "GOOD", router: str = "router") -> subprocess.Popen[str]:
    """A process without a terminal. `script` is the behaviour of its model: `GOOD`, `forever` or `deaf`; `router` that
    of its router: `router` or `forever`.
    """
    command = _command(arguments, script, router)
    return subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    )


class Terminal:
    """A process on its own terminal, for typing. `script` is the behaviour of its model."""

    def __init__(self, *arguments: str, script: str = "GOOD") -> None:
        self._ours, theirs = pty.openpty()
        command = _command(arguments, script)
        self.process = subprocess.Popen(
            command, stdin=theirs, stdout=theirs, stderr=theirs, env=environment(), start_new_session=True
        )
        os.close(theirs)
        self.seen = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)

    def until(self, text: str) -> str:
        """The output since the last call, up to the text."""
        end = time.monotonic() + PATIENCE
        while text not in self.seen:
            ready, _, _ = select.select([self._ours], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"{text!r} did not come: {self.seen!r}"
            self.seen += self._read()
        before, _, self.seen = self.seen.partition(text)
        return before + text

    def press(self, keys: str) -> None:
        """Types a text."""
        os.write(self._ours, keys.encode())

    def ended(self) -> tuple[int, str]:
        """The exit code, and the output since the last call."""
        while more := self._read():
            self.seen += more
        return self.process.wait(PATIENCE), self.seen

    def _read(self) -> str:
        try:
            return os.read(self._ours, 1 << 16).decode().replace("\r\n", "\n")
        except OSError:  # the other end is closed: the process has ended
            return ""
