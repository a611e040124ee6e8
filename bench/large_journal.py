"""Duration of commands that read many runs: `python -m bench.large_journal [--runs 100000] [--postgres [DSN]] [--folder
FOLDER]`.

The journal is filled directly, without an engine. Complete commands of `orchestra runs` are timed, each in a separate
process, and the same queries in Python. A full SQL scan of the events and a command on an empty journal are references
for comparing machines. The exit code is 1 if a goal is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import secrets
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bench import machine
from orchestra.app.costs import costs
from orchestra.app.run_status import RunListQuery, latest_runs
from orchestra.core.events import AttemptFinished, AttemptStarted, Event, NodeFinished, RunFinished, RunStarted, Usage
from orchestra.core.outcomes import FailedOutcome, ValueOutcome
from orchestra.core.protocols import Journal
from orchestra.journal.sqlite.journal import SqliteJournal

BEGAN = 1_760_000_000.0
CUSTOMER = 100
"""Runs with the same `customer` tag."""
WORKFLOWS = ("answers", "mails", "orders")
SERVERS = (("local", "small", 0.0), ("gateway", "large", 0.002))
ANSWER = {
    "answer": "In 1889, by the company of Gustave Eiffel.",
    "quote": "completed in 1889 by the company of Gustave Eiffel",
}
BLOB = 300
"""Bytes of each request and each response."""
COMMAND = (sys.executable, "-c", "from orchestra.cli.main import main; main()")


@dataclass(frozen=True)
class Goal:
    """A command and its time limit in seconds; None for a reference."""

    name: str
    arguments: tuple[str, ...]
    seconds: float | None


def goals(runs: int) -> tuple[Goal, ...]:
    """Returns the commands in order: the last two delete runs."""
    return (
        Goal("runs list", ("runs", "list"), 1.0),
        Goal("runs list --tag", ("runs", "list", "--tag", "customer=7"), 2.0),
        Goal("runs list --status failed", ("runs", "list", "--status", "failed"), 2.0),
        Goal("runs costs", ("runs", "costs"), 5.0),
        Goal("runs costs --by agent,model", ("runs", "costs", "--by", "agent,model"), 5.0),
        Goal("runs costs --tag", ("runs", "costs", "--tag", "customer=7"), 2.0),
        Goal(f"runs delete --tag, {CUSTOMER} runs", ("runs", "delete", "--tag", "customer=3", "--yes"), 2.0),
        Goal(f"runs gc, {runs // 2} runs", ("runs", "gc", "--older", "0d", "--keep", str(runs // 2), "--yes"), 30.0),
    )


def events_of(number: int, runs: int, journal: Journal) -> list[Event]:
    """Returns the events of a run of two calls, as the engine writes them; each fortieth run failed."""
    at, run = BEGAN + number, f"01m{number:017d}"
    server, model, price = SERVERS[number % len(SERVERS)]
    tags = {"customer": str(number % max(1, runs // CUSTOMER)), "release": f"2026-{number % 12 + 1:02d}"}
    workflow, graph = WORKFLOWS[number % len(WORKFLOWS)], journal.put_blob(b"the frozen workflow " * 40)
    made: list[Event] = [
        RunStarted(
            seq=1,
            at=at,
            run=run,
            workflow=workflow,
            graph=graph,
            inputs={"question": "Who built it?"},
            options={"tags": tags},
        )
    ]
    for node in ("reading", "writing"):
        sent, received = (
            journal.put_blob(f"{what} {run} {node} ".encode() + b"x" * BLOB) for what in ("sent", "received")
        )
        made.append(AttemptStarted(seq=len(made) + 1, at=at, node=node, attempt=1, name=f"{node}_agent"))
        made.append(
            AttemptFinished(
                seq=len(made) + 1,
                at=at + 1,
                node=node,
                attempt=1,
                value=ANSWER,
                usage=Usage(prompt_tokens=318, output_tokens=54, calls=1, seconds=1.25, money=price),
                server=server,
                model=model,
                sent=sent,
                received=received,
                final=node == "reading",
            )
        )
    outcome = FailedOutcome("F203", "no server answers", "writing") if number % 40 == 39 else ValueOutcome(value=ANSWER)
    made.append(NodeFinished(seq=len(made) + 1, at=at + 2, node="writing", outcome=outcome))
    made.append(
        RunFinished(
            seq=len(made) + 1,
            at=at + 2,
            status="done" if isinstance(outcome, ValueOutcome) else "failed",
            outcome=outcome,
        )
    )
    return made


async def fill(journal: Journal, runs: int) -> None:
    """Writes the runs, and waits for durability after each 1,000 of them."""
    for number in range(runs):
        made = events_of(number, runs, journal)
        run = f"01m{number:017d}"
        journal.append(run, made)
        if number % 1000 == 999 or number == runs - 1:
            await journal.wait_durable(run, len(made))


@dataclass(frozen=True)
class Place:
    """A journal's location: a setting for the commands, and functions to open and scan it."""

    setting: str
    open: Callable[[], Any]
    scan: Callable[[], Awaitable[int]]


@contextmanager
def in_a_file(folder: Path) -> Iterator[Place]:
    """A journal in a file."""
    file = folder / "journal.db"

    async def scan() -> int:
        connection = sqlite3.connect(file)
        try:
            return int(connection.execute("SELECT sum(length(body)) FROM events").fetchone()[0])
        finally:
            connection.close()

    yield Place(str(file), partial(SqliteJournal.open, file, durability="off"), scan)


@contextmanager
def in_postgres(dsn: str) -> Iterator[Place]:
    """A journal in its own schema of a database; if `dsn` is empty, on a server that is started for it."""
    import asyncpg

    from orchestra.journal.postgres.journal import PostgresJournal
    from tests.journal.postgres_server import running

    schema = f"bench_{secrets.token_hex(8)}"

    async def ask(address: str, statement: str) -> Any:
        sql = await asyncpg.connect(address)
        try:
            return await sql.fetchval(statement)
        finally:
            await sql.close()

    @contextmanager
    def at(address: str) -> Iterator[Place]:
        os.environ["ORCHESTRA_BENCH_DSN"] = f"{address}{'&' if '?' in address else '?'}schema={schema}"
        # the schema name is generated by this function
        scan = partial(ask, address, f"SELECT sum(length(body)) FROM {schema}.events")
        yield Place("env:ORCHESTRA_BENCH_DSN", partial(PostgresJournal.open, address, schema=schema), scan)
        asyncio.run(ask(address, f"DROP SCHEMA {schema} CASCADE"))

    if dsn:
        with at(dsn) as place:
            yield place
    else:
        with running() as server, at(server.dsn) as place:
            yield place


def timed(place: str, folder: Path, arguments: Sequence[str]) -> float:
    """Returns the seconds of a complete command in its own project."""
    homes = {f"XDG_{name}_HOME": str(folder / name.lower()) for name in ("STATE", "CONFIG", "CACHE")}
    environment = {**os.environ, **homes, "PYTHONPATH": str(machine.ROOT), "ORCHESTRA_JOURNAL": place}
    begin = time.perf_counter()
    done = subprocess.run(
        [*COMMAND, *arguments], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    spent = time.perf_counter() - begin
    if done.returncode:
        raise SystemExit(f"orchestra {' '.join(arguments)} ended with {done.returncode}:\n{done.stderr}")
    return spent


@asynccontextmanager
async def stopwatch(name: str, told: list[tuple[str, float, float | None]]) -> AsyncIterator[None]:
    """Records the duration of a block."""
    begin = time.perf_counter()
    yield
    told.append((name, time.perf_counter() - begin, None))


async def in_python(place: Place) -> list[tuple[str, float, float | None]]:
    """Runs the same queries in Python."""
    told: list[tuple[str, float, float | None]] = []
    now = time.time()
    async with place.open() as journal:
        async with stopwatch("Python: list", told):
            await latest_runs(journal, now, RunListQuery())
        async with stopwatch("Python: list by tag", told):
            await latest_runs(journal, now, RunListQuery(tags={"customer": "7"}))
        async with stopwatch("Python: costs", told):
            await costs(journal, {})
    return told


async def built(place: Place, runs: int) -> None:
    """Writes the journal."""
    async with place.open() as journal:
        await fill(journal, runs)


async def scanned(place: Place, told: list[tuple[str, float, float | None]]) -> None:
    """Times a full scan of the events, the second of two."""
    await place.scan()
    async with stopwatch("reference: full scan of the events", told):
        await place.scan()


def measure(place: Place, folder: Path, runs: int) -> bool:
    """Builds the journal and prints a line for each command; returns whether all goals are met."""
    begin = time.perf_counter()
    asyncio.run(built(place, runs))
    print(f"{runs} runs written in {time.perf_counter() - begin:.1f} s; load {os.getloadavg()[0]:.1f}", flush=True)
    told: list[tuple[str, float, float | None]] = []
    asyncio.run(scanned(place, told))
    told.append(
        ("reference: a command without runs", timed(str(folder / "empty" / "none.db"), folder, ("runs", "list")), None)
    )
    for line in told:
        show(*line)
    met = True
    for goal in goals(runs):
        spent = timed(place.setting, folder, goal.arguments)
        show(goal.name, spent, goal.seconds)
        met = met and spent <= (goal.seconds or spent)
        if goal.name == "runs costs --tag":
            for line in asyncio.run(in_python(place)):
                show(*line)
    return met


def show(name: str, spent: float, goal: float | None) -> None:
    """Prints a line of the table."""
    stated = "" if goal is None else f"{goal:8.1f} s  {'met' if spent <= goal else 'MISSED'}"
    print(f"{name:40} {spent:8.2f} s {stated}", flush=True)


def main() -> int:
    """Parses the command line, measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument(
        "--postgres", nargs="?", const="", metavar="DSN", help="a database; without a DSN a server is started"
    )
    parser.add_argument("--folder", type=Path, help="the folder of the journal")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=asked.folder) as made:
        folder = Path(made)
        (folder / "empty").mkdir()
        with in_a_file(folder) if asked.postgres is None else in_postgres(asked.postgres) as place:
            return int(not measure(place, folder, asked.runs))


if __name__ == "__main__":
    sys.exit(main())
