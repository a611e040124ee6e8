"""Durable events per second of the journal: `python bench/journal.py [FOLDER] [--events N] [--postgres DSN]`.

Each run appends one event at a time, as the engine does: attempt started, attempt finished, node finished, in turn, and
waits until its run is durable every `--wait` events. The baseline is one fsync'd SQLite commit for each event. Reported
are medians of three sweeps, from the first append until the journal is closed and the file complete. CPU time of this
process over wall time shows whether the disk or the processor is the limit.
"""

from __future__ import annotations

import argparse
import asyncio
import secrets
import sqlite3
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    RunFinished,
    RunStarted,
    Usage,
    encode,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.journal import Durability
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.sqlite.journal import SqliteJournal

ANSWER = {
    "answer": "In 1889, by the company of Gustave Eiffel.",
    "quote": "completed in 1889 by the company of Gustave Eiffel",
    "score": 0.93,
}


def events_of(run: str, count: int) -> list[Event]:
    """Returns a run of `count` events of about 150 to 300 bytes each."""
    found: list[Event] = [
        RunStarted(seq=1, at=0.0, run=run, workflow="bench", graph="0" * 32, inputs={"question": "Who built it?"})
    ]
    usage = Usage(prompt_tokens=318, output_tokens=54, calls=1, seconds=1.25)
    for seq in range(2, count):
        node = f"readings[{seq // 3}]"
        match seq % 3:
            case 0:
                found.append(AttemptStarted(seq=seq, at=1.0, node=node, attempt=1, name="reader"))
            case 1:
                found.append(
                    AttemptFinished(
                        seq=seq, at=2.0, node=node, attempt=1, value=ANSWER, usage=usage, server="s1", sent="0" * 32
                    )
                )
            case _:
                found.append(NodeFinished(seq=seq, at=2.0, node=node, outcome=ValueOutcome(value=ANSWER, score=0.93)))
    return [*found, RunFinished(seq=count, at=3.0, status="done", outcome=ValueOutcome(value=ANSWER))]


async def one_run(journal: Journal, run: str, events: Sequence[Event], wait: int) -> None:
    """Appends one by one, and waits for durability after every `wait` events and at the end."""
    for event in events:
        journal.append(run, (event,))
        if event.seq % wait == 0:
            await journal.wait_durable(run, event.seq)
    await journal.wait_durable(run, len(events))


async def one_run_of_nodes(journal: Journal, run: str, count: int, wait: int) -> None:
    """Appends `count` nodes as the engine does without checks: one event with two blobs, 900 bytes in total."""
    journal.append(
        run, (RunStarted(seq=1, at=0.0, run=run, workflow="bench", graph=journal.put_blob(b"graph"), inputs={}),)
    )
    usage = Usage(prompt_tokens=318, output_tokens=54, calls=1, seconds=1.25)
    for seq in range(2, count + 2):
        node = f"readings[{seq}]"
        sent, received = (
            journal.put_blob(f"{what} {run} {node} ".encode() + b"x" * size)
            for what, size in (("sent", 600), ("received", 300))
        )
        journal.append(
            run,
            (
                AttemptFinished(
                    seq=seq,
                    at=2.0,
                    node=node,
                    attempt=1,
                    value=ANSWER,
                    usage=usage,
                    server="s1",
                    sent=sent,
                    received=received,
                    final=True,
                ),
            ),
        )
        if seq % wait == 0:
            await journal.wait_durable(run, seq)
    await journal.wait_durable(run, count + 1)


async def sweep(journal: Journal, work: Sequence[tuple[str, Sequence[Event] | int]], wait: int) -> None:
    """Writes all runs concurrently, of these events or of that many nodes, then closes the journal."""
    async with asyncio.TaskGroup() as group:
        for run, events in work:
            group.create_task(
                one_run_of_nodes(journal, run, events, wait)
                if isinstance(events, int)
                else one_run(journal, run, events, wait)
            )
    await journal.close()


@asynccontextmanager
async def opened(where: Path | str, durability: Durability | None) -> AsyncIterator[Journal]:
    """Opens a journal in a new file of a folder or a new schema of a Postgres database; in memory if `durability` is
    None.
    """
    if durability is None:
        yield MemoryJournal()
    elif isinstance(where, Path):
        with tempfile.TemporaryDirectory(dir=where) as fresh:
            async with SqliteJournal.open(Path(fresh) / "journal.db", durability=durability) as file:
                yield file
    else:
        import asyncpg  # imported here: asyncpg is an optional dependency

        from orchestra.journal.postgres.journal import PostgresJournal

        schema = f"bench_{secrets.token_hex(8)}"
        async with PostgresJournal.open(where, durability=durability, schema=schema) as journal:
            yield journal
        sql = await asyncpg.connect(where)
        await sql.execute(f"DROP SCHEMA {schema} CASCADE")
        await sql.close()


async def measure(
    where: Path | str, durability: Durability | None, runs: int, each: int, wait: int, *, nodes: bool = False
) -> tuple[float, float]:
    """Returns events (or nodes) per second and CPU seconds per wall second of one sweep on a new file; in memory if
    `durability` is None.
    """
    names = [f"run{number:05d}" for number in range(runs)]
    work: list[tuple[str, Sequence[Event] | int]] = [(run, each if nodes else events_of(run, each)) for run in names]
    async with opened(where, durability) as journal:
        wall, cpu = time.perf_counter(), time.process_time()
        await sweep(journal, work, wait)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    return runs * each / wall, cpu / wall


def floor(folder: Path, count: int) -> float:
    """Returns events per second with a separate commit for each at synchronous=FULL: the baseline of group commit."""
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        sql = sqlite3.connect(Path(fresh) / "floor.db", isolation_level=None)
        sql.execute("PRAGMA journal_mode = WAL")
        sql.execute("PRAGMA synchronous = FULL")
        sql.execute("CREATE TABLE events (run TEXT, seq INTEGER, body BLOB, PRIMARY KEY (run, seq)) WITHOUT ROWID")
        rows = [("run", event.seq, encode(event)) for event in events_of("run", count)]
        begin = time.perf_counter()
        for row in rows:
            sql.execute("INSERT INTO events VALUES (?, ?, ?)", row)
        spent = time.perf_counter() - begin
        sql.close()
        return count / spent


def main() -> None:
    """Prints one row for each way to write."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument(
        "folder",
        nargs="?",
        type=Path,
        default=None,
        help="the folder of the files; default: the system's temporary folder",
    )
    options.add_argument("--events", type=int, default=12_000)
    options.add_argument("--postgres", metavar="DSN", help="measure a journal in this database instead of files")
    given = options.parse_args()
    folder = given.folder or Path(tempfile.gettempdir())
    where = given.postgres or folder
    cases: list[tuple[str, Durability | None, int, int]] = [
        ("group, 1 run, waits at the end", "group", 1, 1 << 30),
        ("group, 40 runs, each waits every 10", "group", 40, 10),
        ("group, 200 runs, each waits every event", "group", 200, 1),
        ("off, 40 runs", "off", 40, 10),
        ("memory, 40 runs", None, 40, 10),
        ("strict, 40 runs, each waits every 10", "strict", 40, 10),
    ]
    print(
        f"{'one commit an event (floor)':42}{statistics.median(floor(folder, 500) for _ in range(3)):>12,.0f} events/s"
    )
    for name, durability, runs, wait in cases:
        each = (given.events if durability != "strict" else given.events // 10) // runs
        sweeps = [asyncio.run(measure(where, durability, runs, each, wait)) for _ in range(3)]
        rate, cpu = statistics.median(rate for rate, _ in sweeps), statistics.median(cpu for _, cpu in sweeps)
        print(f"{name:42}{rate:>12,.0f} events/s   {cpu:4.2f} CPU")
    kinds: list[tuple[str, Durability]] = [("group", "group"), ("off (NORMAL)", "off")]
    for name, kind in kinds:
        each = given.events // 200
        sweeps = [asyncio.run(measure(where, kind, 200, each, 1, nodes=True)) for _ in range(3)]
        rate, cpu = statistics.median(rate for rate, _ in sweeps), statistics.median(cpu for _, cpu in sweeps)
        print(f"{name + ', 200 runs, each waits every node':42}{rate:>12,.0f} nodes/s    {cpu:4.2f} CPU")


if __name__ == "__main__":
    main()
