"""Scans of journals: newest first, in pages; a run that cannot be read does not prevent the others."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

import asyncpg
import pytest

from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import Scannable, ScannedRun
from orchestra.journal.errors import JournalError
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.postgres import tables
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.sqlite import reader
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.files import sql
from tests.journal.postgres_server import PostgresServer
from tests.journal.stories import SPENT, begun, whole

AnyJournal: TypeAlias = MemoryJournal | SqliteJournal | PostgresJournal
Open: TypeAlias = Callable[[], AbstractAsyncContextManager[AnyJournal]]
LONG = "x" * 40_000


@pytest.fixture(params=["memory", "sqlite", "postgres"])
def open_journal(request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    """Opens one store several times."""
    match request.param:
        case "memory":
            store = MemoryStore()

            @asynccontextmanager
            async def opened() -> AsyncIterator[AnyJournal]:
                journal = MemoryJournal(store)
                yield journal
                await journal.close()

            return opened
        case "sqlite":
            return lambda: SqliteJournal.open(tmp_path / "j.db")
        case _:
            server: PostgresServer = request.getfixturevalue("postgres")
            schema: str = request.getfixturevalue("schema")
            return lambda: PostgresJournal.open(server.dsn, schema=schema)


async def write(journal: AnyJournal, run: str, events: Sequence[Event]) -> None:
    journal.append(run, events)
    await journal.wait_durable(run, events[-1].seq)


async def skimmed(journal: Scannable, since: float = float("-inf")) -> list[ScannedRun]:
    return [found async for found in journal.scan(since)]


async def test_scan_is_newest_first_with_events(open_journal: Open) -> None:
    async with open_journal() as journal:
        for run, at in (("a", 3.0), ("c", 5.0), ("b", 5.0)):
            await write(journal, run, whole(run, at))
        await write(journal, "d", [begun("d", 4.0)])
        found = await skimmed(journal)
        assert [(one.run, one.started, one.error) for one in found] == [
            ("c", 5.0, None),
            ("b", 5.0, None),
            ("d", 4.0, None),
            ("a", 3.0, None),
        ]
        assert [list(one.events) for one in found] == [await journal.read(one.run) for one in found]
        assert isinstance(journal, Scannable)


@pytest.mark.parametrize(("since", "runs"), [(3.0, ["c", "b", "a"]), (3.5, ["c", "b"]), (5.0, ["c"]), (5.5, [])])
async def test_scan_since(open_journal: Open, since: float, runs: list[str]) -> None:
    async with open_journal() as journal:
        for run, at in (("a", 3.0), ("b", 4.0), ("c", 5.0)):
            await write(journal, run, whole(run, at))
        assert [found.run for found in await skimmed(journal, since)] == runs


async def test_scan_pages_join(open_journal: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SCAN_BATCH_EVENTS", 6)
    monkeypatch.setattr(tables, "SCAN_BATCH_EVENTS", 6)
    monkeypatch.setattr(tables, "SCAN_BATCH_RUNS", 3)
    async with open_journal() as journal:
        for number in range(20):
            await write(journal, f"r{number:02}", whole(f"r{number:02}", float(number // 4)))
        assert [found.run for found in await skimmed(journal)] == [f"r{number:02}" for number in reversed(range(20))]


async def test_scan_page_size_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "SCAN_BATCH_EVENTS", 6)
    async with SqliteJournal.open(tmp_path / "j.db") as journal:
        for number in range(5):
            await write(journal, f"r{number}", whole(f"r{number}", float(number)))
    with closing(reader.SqliteReader(tmp_path / "j.db")) as looking:
        assert [found.run for found in looking.scan(0.0, None)] == ["r4", "r3"]
        assert [found.run for found in looking.scan(0.0, (3.0, "r3"))] == ["r2", "r1"]


async def test_scan_concurrent_runs_are_consistent(open_journal: Open) -> None:
    async with open_journal() as journal, open_journal() as other:
        await write(other, "a", [begun("a", 1.0)])
        journal.append("b", whole("b", 2.0))
        found = []
        async for one in journal.scan():
            found.append(one)
            if one.run == "b":
                await write(other, "a", whole("a", 1.0)[1:])
                await write(other, "c", whole("c", 3.0))
        assert [one.run for one in found] == ["b", "a"]
        assert [len(one.events) for one in found] in ([5, 1], [5, 5])


async def test_scan_omits_only_large_values(open_journal: Open) -> None:
    events: list[Event] = [
        RunStarted(seq=1, at=1.0, run="r", workflow="w", graph="", inputs={"text": LONG}),
        AttemptFinished(seq=2, at=2.0, node="a", attempt=1, value=LONG, usage=SPENT, final=True),
        RunFinished(seq=3, at=3.0, status="done", outcome=ValueOutcome(value=LONG), usage=SPENT),
    ]
    async with open_journal() as journal:
        await write(journal, "r", events)
        [found] = await skimmed(journal)
        assert found.error is None
        if isinstance(journal, MemoryJournal):
            return
        assert LONG not in str(found.events)
        started, tried, ended = found.events
        assert isinstance(started, RunStarted)
        assert started.workflow == "w"
        assert isinstance(tried, AttemptFinished)
        assert (tried.usage, tried.final) == (SPENT, True)
        assert isinstance(ended, RunFinished)
        assert ended.status == "done"


@dataclass(frozen=True)
class Store:
    """A stored journal that can be changed directly."""

    open: Open
    change: Callable[[str, dict[str, bytes]], Awaitable[None]]
    """Executes a statement with named bytes."""


@pytest.fixture(params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "sqlite":

        async def change(statement: str, parts: dict[str, bytes]) -> None:
            sql(tmp_path / "j.db", statement.format(**{name: f"x'{part.hex()}'" for name, part in parts.items()}))

        return Store(lambda: SqliteJournal.open(tmp_path / "j.db"), change)
    server: PostgresServer = request.getfixturevalue("postgres")
    schema: str = request.getfixturevalue("schema")

    async def change_there(statement: str, parts: dict[str, bytes]) -> None:
        connection = await asyncpg.connect(server.dsn, server_settings={"search_path": schema})
        try:
            await connection.execute(statement.format(**{name: f"'\\x{part.hex()}'" for name, part in parts.items()}))
        finally:
            await connection.close()

    return Store(lambda: PostgresJournal.open(server.dsn, schema=schema), change_there)


CHANGES = {
    "a changed event": "UPDATE events SET body = {body} WHERE run = 'b' AND seq = 2",
    "a lost event": "DELETE FROM events WHERE run = 'b' AND seq = 3",
    "a lost end": "DELETE FROM events WHERE run = 'b' AND seq = 5",
    "no event at all": "DELETE FROM events WHERE run = 'b'",
}


@pytest.mark.parametrize("change", CHANGES)
async def test_scan_damaged_run_has_error(change: str, store: Store) -> None:
    async with store.open() as journal:
        for run, at in (("a", 1.0), ("b", 2.0), ("c", 3.0)):
            await write(journal, run, whole(run, at))
    await store.change(CHANGES[change], {"body": b"{}"})
    async with store.open() as journal:
        assert codes(await skimmed(journal)) == [("c", ""), ("b", "J013"), ("a", "")]


UNREADABLE = {
    "of another version": (b'{"type":"dreamt","seq":1,"at":1.0}', "J021"),
    "nested too deep": (
        b'{"type":"run_started","seq":1,"at":1.0,"run":"b","workflow":"w","graph":"","inputs":%s%s}'
        % (b"[" * 200_000, b"]" * 200_000),
        "J013",
    ),
}


@pytest.mark.parametrize("fault", UNREADABLE)
async def test_scan_unreadable_run_can_be_deleted(fault: str, store: Store) -> None:
    body, code = UNREADABLE[fault]
    chain = next_hash(b"b", body)
    async with store.open() as journal:
        await write(journal, "a", whole("a", 1.0))
        await write(journal, "b", [begun("b", 2.0)])
    await store.change(
        "UPDATE events SET body = {body}, chain = {chain} WHERE run = 'b'", {"body": body, "chain": chain}
    )
    checksum = ", checksum = NULL" if isinstance(journal, SqliteJournal) else ""
    await store.change(f"UPDATE runs SET chain = {{chain}}{checksum} WHERE run = 'b'", {"chain": chain})
    async with store.open() as journal:
        assert codes(await skimmed(journal)) == [("b", code), ("a", "")]
        with pytest.raises(JournalError) as caught:
            await journal.read("b")
        assert caught.value.code == code
        await journal.delete("b")
        assert codes(await skimmed(journal)) == [("a", "")]


def codes(found: Sequence[ScannedRun]) -> list[tuple[str, str]]:
    return [(one.run, one.error.code if one.error else "") for one in found]
