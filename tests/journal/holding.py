"""A process that competes for the lease of a run, prints the result, and appends one event for each input line."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.stories import begun, middle


def say(word: object) -> None:
    os.write(1, f"{word}\n".encode())


async def main(file: Path, run: str) -> None:
    async with SqliteJournal.open(file) as journal:
        say("open")
        sys.stdin.readline()
        last = len(await journal.read(run))
        try:
            if last:
                say(await journal.lease(run))
            else:
                journal.append(run, [begun(run)])
                await journal.wait_durable(run, 1)
                last = 1
                say(1)
        except JournalError as error:
            say(error.code)
        while sys.stdin.readline():
            try:
                last += 1
                journal.append(run, middle(last, 1))
                await journal.wait_durable(run, last)
                say(last)
            except JournalError as error:
                say(error.code)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2]))
