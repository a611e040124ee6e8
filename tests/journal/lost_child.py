"""A process with finished runs and two open ones, one of them in a call with effect `once`; it waits to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from orchestra import Orchestra, tool, workflow
from orchestra.app.run import Run
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, RunStarted
from orchestra.core.settings import Settings
from orchestra.journal.sqlite.journal import SqliteJournal

CALLS = "calls"
"""The environment variable with the file that has a line for each call of a tool with the effect `once`."""
MODULE = "tests.journal.lost_child"
WAITS = "waits"
"""The environment variable that decides whether tools wait for the end of the process."""


def _note(name: str) -> None:
    with Path(os.environ[CALLS]).open("a") as file:
        file.write(f"{name}\n")


async def _hold() -> None:
    if os.environ.get(WAITS):
        await asyncio.Event().wait()


@tool(effect="once")
async def book(name: str) -> str:
    """Books, and says so."""
    _note(name)
    return f"booked {name}"


@tool(effect="once")
async def book_slowly(name: str) -> str:
    """Books, and its result is never known."""
    _note(name)
    if os.environ.get(WAITS):
        print("under way", flush=True)
    await _hold()
    return f"booked {name}"


@tool(effect="pure")
async def wait(after: str) -> str:
    """Ends when nothing waits."""
    await _hold()
    return after


@tool(effect="pure")
def text(size: int) -> str:
    """Gives a text."""
    return "x" * size


GATE = asyncio.Event()
"""Set once the two runs may make their calls."""


@tool(effect="pure")
async def enter(name: str) -> str:
    """Returns the name, once the gate is open."""
    if os.environ.get(WAITS):
        await GATE.wait()
    return name


@workflow
def finished(name: str, size: int) -> list[str]:
    """A run that ends."""
    return [book(name=name), text(size=size)]


@workflow
def booked(name: str) -> str:
    """A run whose `once` call has its result."""
    return wait(after=book(name=enter(name=name)))


@workflow
def doubtful(name: str) -> str:
    """A run whose `once` call has no result."""
    return book_slowly(name=enter(name=name))


async def _reached(run: Run[str], kind: type[Event]) -> None:
    """Waits until an event of this type is on disk."""
    async for event in run:
        if isinstance(event, kind):
            return


async def main(journal: Path, runs: int, size: int, how: str) -> None:
    async with Orchestra.open(Settings.load({"journal": str(journal), "modules": [MODULE]}), fleet="none") as orchestra:
        for number in range(runs):
            await orchestra.run(finished, name=f"finished {number}", size=size + number)
        if how == "ends":
            return
        begun = [await orchestra.start(booked, name="booked"), await orchestra.start(doubtful, name="doubtful")]
        if how == "parted":  # the database has the beginning of the runs, and the log has their calls
            await asyncio.gather(*[_reached(one, RunStarted) for one in begun])
            assert isinstance(orchestra.journal, SqliteJournal)
            await orchestra.journal.compact()
        GATE.set()
        await asyncio.gather(_reached(begun[0], AttemptFinished), _reached(begun[1], AttemptStarted))
        for _ in range(100):  # later events are queued then
            await asyncio.sleep(0)
        await orchestra.journal.check_writable()
        print(json.dumps([one.id for one in begun]), flush=True)
        await asyncio.Event().wait()


def begin() -> None:
    """Entry point of the process: journal, finished runs, bytes of their text, and how it ends."""
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4]))
