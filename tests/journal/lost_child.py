"""A process with finished runs and two that are under way, one of them in a call with the effect `once`; it waits to be killed."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

from orchestra import Orchestra, tool, workflow
from orchestra.config import Settings

CALLS = "calls"
"""The environment variable with the file that has a line for each call of a tool with the effect `once`."""
MODULE = "tests.journal.lost_child"
WAITS = "waits"
"""The environment variable that says whether tools wait for the end of the process."""


async def _called(name: str) -> None:
    with Path(os.environ[CALLS]).open("a") as file:
        file.write(f"{name}\n")
    await asyncio.sleep(0)


async def _hold() -> None:
    while os.environ.get(WAITS):
        await asyncio.sleep(3600)


@tool(effect="once")
async def book(name: str) -> str:
    """Books, and says so."""
    await _called(name)
    return f"booked {name}"


@tool(effect="once")
async def book_slowly(name: str) -> str:
    """Books, and its result is never known."""
    await _called(name)
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


@workflow
def finished(name: str, size: int) -> list[str]:
    """A run that ends."""
    return [book(name=name), text(size=size)]


@workflow
def booked(name: str) -> str:
    """A run whose `once` call has its result."""
    return wait(after=book(name=name))


@workflow
def doubtful(name: str) -> str:
    """A run whose `once` call has no result."""
    return book_slowly(name=name)


async def main(journal: Path, runs: int, size: int, stays: bool) -> None:
    async with Orchestra.open(Settings.load({"journal": str(journal), "modules": [MODULE]}), fleet="none") as orchestra:
        for number in range(runs):
            await orchestra.run(finished, name=f"finished {number}", size=size + number)
        if not stays:
            return
        begun = [await orchestra.start(booked, name="booked"), await orchestra.start(doubtful, name="doubtful")]
        calls = Path(os.environ[CALLS])
        while len(calls.read_text().splitlines() if calls.exists() else ()) < runs + 2:
            await asyncio.sleep(0.005)
        for one in begun:  # what is in line is on disk before anybody is told
            await orchestra.journal.read(one.id)
        while "wait" not in str(await orchestra.journal.read(begun[0].id)):
            await asyncio.sleep(0.005)
        events = await orchestra.journal.read(begun[0].id)
        await orchestra.journal.durable(begun[0].id, len(events))
        await orchestra.journal.ready()
        print(json.dumps([one.id for one in begun]), flush=True)
        await asyncio.Event().wait()


def begin() -> None:
    """Entry of the process: journal, finished runs, bytes of their text, and whether it stays."""
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == "stays"))
