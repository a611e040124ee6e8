"""A file of an older version is migrated when it is opened."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from pathlib import Path

import pytest

from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.database import SCHEMA_VERSION, SqliteFile
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.journal.files import sql
from tests.journal.stories import middle, whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A journal of version 1: a run that ended, and one that was interrupted and names four blobs."""
    return Path(shutil.copy(Path(__file__).parent / "sqlite" / "version1.db", tmp_path / "journal.db"))


async def test_runs_of_version_1_are_read_and_go_on(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        assert {summary.run: summary.status for summary in await journal.list_runs()} == {"open": "interrupted", "ended": "done"}
        assert await journal.read("ended") == list(whole("ended"))
        assert len(await journal.read("open")) == 3
        assert await journal.send("open", InboxMessage(kind="cancel")) == 1
        assert await journal.lease("open") == 2
        journal.append("open", middle(4, 1))
        assert len(await journal.read("open")) == 4
        assert await journal.get_blob(digest(b"what was sent")) == b"what was sent"
    assert sql(file, "SELECT version FROM schema_version") == [(SCHEMA_VERSION,)]


async def test_blobs_that_runs_of_version_1_name_stay_until_the_run_goes(file: Path) -> None:
    names = [digest(data) for data in (b"the graph", b"the card of the reader", b"what was sent", b"what was received")]
    async with SqliteJournal.open(file) as journal:
        await journal.compact()
        await journal.delete("ended")
        assert None not in [await journal.get_blob(name) for name in names]
        await journal.delete("open")
        assert [await journal.get_blob(name) for name in names] == [None] * 4
    assert sql(file, "PRAGMA integrity_check", "PRAGMA auto_vacuum") == [("ok",), (2,)]


async def test_many_who_open_a_file_of_version_1_at_once_upgrade_it_once(file: Path) -> None:
    async def look() -> int:
        async with SqliteJournal.open(file) as journal:
            return len(await journal.read("open"))

    assert await asyncio.gather(*(look() for _ in range(5))) == [3] * 5


def test_an_upgrade_that_fails_leaves_version_1(file: Path) -> None:
    sql(file, "CREATE TABLE outbox (x)")
    before = sql(file, "SELECT sql FROM sqlite_schema ORDER BY name")
    with pytest.raises(JournalError):
        SqliteFile(file)
    assert sql(file, "SELECT sql FROM sqlite_schema ORDER BY name", "SELECT version FROM schema_version") == [*before, (1,)]


async def test_a_body_of_version_1_that_is_no_json_does_not_stop_the_upgrade(file: Path) -> None:
    sql(file, "UPDATE events SET body = x'00ff' WHERE run = 'open' AND seq = 2")
    async with SqliteJournal.open(file) as journal:
        assert await journal.read("ended") == list(whole("ended"))
        with pytest.raises(JournalError) as caught:
            await journal.read("open")
    assert caught.value.code == "J013"


def test_the_golden_file_is_of_version_1() -> None:
    connection = sqlite3.connect(f"file:{Path(__file__).parent / 'sqlite' / 'version1.db'}?immutable=1", uri=True)
    try:
        assert connection.execute("SELECT version FROM schema_version").fetchall() == [(1,)]
    finally:
        connection.close()
