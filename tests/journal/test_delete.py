"""Deleting runs from a file: what is removed, what is kept, and how space is freed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestra.core.events import AttemptFinished, Event, RunStarted
from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.files import sql
from tests.journal.stories import begun, whole

TABLES = ("runs", "events", "blobs", "inbox", "inbox_counts", "memo", "outbox")
LONG = "x" * 100_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def full(journal: SqliteJournal, run: str) -> list[Event]:
    """Returns a run that uses its own and shared blobs in every way, and sends a message."""
    graph, card = journal.put_blob(b"the graph"), journal.put_blob(b"the card")
    sent, received = journal.put_blob(f"asked by {run}".encode()), journal.put_blob(b"answered")
    return [
        RunStarted(seq=1, at=1.0, run=run, workflow="w", graph=graph, inputs={"all": LONG}, versions={"reader": card}),
        AttemptFinished(
            seq=2, at=1.0, node="a", attempt=1, value=LONG + run, sent=sent, received=received, outbox=True
        ),
    ]


async def filled(journal: SqliteJournal, *runs: str) -> None:
    for run in runs:
        journal.append(run, full(journal, run))
        journal.put_memo(f"memo of {run}", run, run)
        await journal.send(run, InboxMessage(kind="cancel"))
        await journal.release(run)
    await journal.mark_delivered([sent.number for sent in await journal.outbox()])


def size(file: Path) -> int:
    return file.stat().st_size


def counts(file: Path) -> list[object]:
    return [sql(file, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES]  # names from this file


async def test_delete_removes_everything_of_run(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        await filled(journal, "r1")
        assert 0 not in counts(file)
        await journal.delete("r1")
        assert counts(file) == [0] * len(TABLES)
        assert (await journal.read("r1"), await journal.inbox("r1"), await journal.get_memo("memo of r1")) == (
            [],
            [],
            None,
        )


async def test_delete_keeps_blobs_of_other_runs(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        await filled(journal, "r1", "r2")
        await journal.delete("r1")
        assert await journal.read("r2") == full(journal, "r2")
        assert await journal.get_memo("memo of r2") == ("r2", "r2")
        assert len(await journal.inbox("r2")) == 1
    assert counts(file) == [1, 2, 6, 1, 1, 1, 1]
    assert sql(file, "SELECT DISTINCT run FROM blobs", "SELECT count(*) FROM blob_uses") == [("r2",), (0,)]


async def test_deleted_run_may_start_again(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        await filled(journal, "r1")
        await journal.delete("r1")
        journal.append("r1", whole("r1"))
        assert await journal.read("r1") == list(whole("r1"))


async def test_delete_keeps_pinned_blob(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        await filled(one, "r1")
        name = two.put_blob(b"the graph")
        two.append("other", [begun("other")])
        await two.wait_durable("other", 1)
        await one.delete("r1")
        two.append("r2", [RunStarted(seq=1, at=1.0, run="r2", workflow="w", graph=name, inputs={})])
        await two.wait_durable("r2", 1)
        assert await one.get_blob(name) == b"the graph"
        await two.release("r2")
        await one.delete("r2")
        assert await one.get_blob(name) is None


async def test_remove_orphans_deletes_blobs_of_dead_process(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        forgotten = journal.put_blob(b"forgotten")
        journal.append("r1", full(journal, "r1"))
    async with SqliteJournal.open(file) as journal:
        mine = journal.put_blob(b"mine")
        await journal.compact()
        assert [await journal.get_blob(name) for name in (forgotten, mine)] == [None, b"mine"]
        assert await journal.read("r1") == full(journal, "r1")


@pytest.mark.parametrize(("run", "code"), [("held", "J022"), ("sending", "J024"), ("nobody", "J023")])
async def test_refused_delete_keeps_run(file: Path, run: str, code: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("held", [begun("held")])
        journal.append("sending", full(journal, "sending"))
        await journal.release("sending")
        before = counts(file)
        with pytest.raises(JournalError) as caught:
            await journal.delete(run)
        assert (caught.value.code, counts(file)) == (code, before)


async def test_delete_ended_or_interrupted_run(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("interrupted", [begun("interrupted")])
    async with SqliteJournal.open(file) as journal:
        journal.append("ended", whole("ended"))
        await journal.wait_durable("ended", 5)
        for run in ("ended", "interrupted"):
            await journal.delete(run)
        assert await journal.list_runs() == []


async def test_compact_frees_space_during_reads(file: Path) -> None:
    async with SqliteJournal.open(file) as journal, SqliteJournal.open(file) as other:
        await filled(journal, "r1", *(f"big{number}" for number in range(20)))
        await journal.compact()
        before = size(file)
        for number in range(20):
            await journal.delete(f"big{number}")
        await journal.compact()
        assert size(file) < before / 4
        assert len(await other.read("r1")) == 2
    assert sql(file, "PRAGMA integrity_check") == [("ok",)]


async def test_delete_runs_is_one_commit(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        runs = [f"r{number}" for number in range(20)]
        for run in runs:
            await filled(journal, run)
        await journal.mark_delivered([message.number for message in await journal.outbox()])
        statements: list[str] = []
        journal._connections.store.sql.set_trace_callback(statements.append)
        await asyncio.gather(*map(journal.delete, runs))
        assert statements.count("COMMIT") <= 2
        assert {table: sql(file, f"SELECT count(*) FROM {table}")[0][0] for table in TABLES} == dict.fromkeys(TABLES, 0)


async def test_delete_keeps_blob_used_in_same_commit(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append(
            "old", [begun("old"), AttemptFinished(seq=2, at=1.0, node="a", attempt=1, sent=journal.put_blob(b"asked"))]
        )
        await journal.release("old")
        deleting = asyncio.ensure_future(journal.delete("old"))
        await asyncio.sleep(0)
        named = journal.put_blob(b"asked")
        journal.append("new", [begun("new"), AttemptFinished(seq=2, at=1.0, node="a", attempt=1, sent=named)])
        await asyncio.gather(deleting, journal.wait_durable("new", 2))
        assert await journal.get_blob(named) == b"asked"
    async with SqliteJournal.open(file) as journal:
        await journal.compact()
        assert await journal.get_blob(named) == b"asked"
