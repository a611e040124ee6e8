"""A process that appends to a journal and prints what became durable, until it is killed."""

from __future__ import annotations

import asyncio
import os
import random
import sys
from pathlib import Path

from orchestra.core.events import NodeFinished, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal.sqlite.journal import SqliteJournal


async def one(journal: SqliteJournal, run: str, chance: random.Random) -> None:
    seq = (await journal.read(run))[-1:]
    last = seq[0].seq if seq else 0
    if last:
        await journal.lease(run)
    while True:
        for _ in range(chance.randint(1, 20)):
            last += 1
            if last == 1:
                journal.append(
                    run,
                    [
                        RunStarted(
                            seq=1, at=1.0, run=run, workflow="crash", graph=journal.put_blob(run.encode()), inputs={}
                        )
                    ],
                )
            else:
                sent = journal.put_blob(f"{run} {last}".encode())
                journal.append(
                    run,
                    [
                        NodeFinished(
                            seq=last, at=1.0, node=sent, outcome=ValueOutcome(value="x" * chance.randint(0, 400))
                        )
                    ],
                )
        await journal.wait_durable(run, last)
        os.write(1, f"{run} {last}\n".encode())


async def main(file: Path, seed: int) -> None:
    chance = random.Random(seed)
    async with SqliteJournal.open(file) as journal:
        await asyncio.gather(*(one(journal, f"r{number}", chance) for number in range(3)))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
