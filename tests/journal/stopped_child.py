"""A process that is inside a transaction of a journal until it reads a line; with `handled`, Ctrl-Z is handled as the
CLI does.
"""

from __future__ import annotations

import asyncio
import os
import sys
from contextlib import nullcontext
from pathlib import Path

from orchestra.cli.signals import suspend_between_commits
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.store import SqliteStore


def inside(store: SqliteStore) -> None:
    """Holds the transaction until a line is read."""
    os.write(1, b"inside\n")
    sys.stdin.readline()


async def main(file: Path, handled: bool) -> None:
    async with SqliteJournal.open(file) as journal:
        with suspend_between_commits(journal) if handled else nullcontext():
            await journal._submit("", inside)
            os.write(1, b"committed\n")
            await asyncio.to_thread(sys.stdin.readline)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), sys.argv[2] == "handled"))
