"""The journal in a file: durability, sharing and faults."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import sqlite3
import stat
import threading
from collections.abc import Sequence
from contextlib import closing, nullcontext
from pathlib import Path

import pytest

from orchestra.core.events import AttemptFinished, Event, NodeFinished, encode
from orchestra.core.outcomes import ValueOutcome
from orchestra.journal import Durability
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.errors import from_sqlite
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.sqlite.reader import SqliteReader
from orchestra.journal.sqlite.store import SqliteBatch, SqliteStore
from tests.journal.files import sql
from tests.journal.stories import begun, middle, whole


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "state" / "journal.db"


async def write(file: Path, *runs: str, durability: Durability = "group") -> None:
    async with SqliteJournal.open(file, durability=durability) as journal:
        for run in runs:
            journal.append(run, whole(run))
        await asyncio.gather(*(journal.wait_durable(run, 5) for run in runs))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def content(path: Path) -> bytes:
    return path.read_bytes()


def take_away(file: Path, how: str) -> None:
    if how == "replace":
        shutil.copy(file, file.with_suffix(".copy"))
        os.replace(file.with_suffix(".copy"), file)
    else:
        file.unlink()


@pytest.mark.parametrize("durability", ["strict", "group", "off"])
async def test_events_and_blobs_survive_reopening(file: Path, durability: Durability) -> None:
    async with SqliteJournal.open(file, durability=durability) as journal:
        name = journal.put_blob(b"prompt")
        journal.append("r1", whole("r1"))
    async with SqliteJournal.open(file) as journal:
        assert await journal.read("r1") == list(whole("r1"))
        assert await journal.get_blob(name) == b"prompt"


async def test_wait_durable_returns_after_commit(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        name = journal.put_blob(b"prompt")
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        assert sql(file, "SELECT count(*) FROM events", "SELECT digest FROM blobs") == [(1,), (name,)]


async def test_put_blob_twice_is_accepted(file: Path) -> None:
    for run in ("r1", "r2"):
        async with SqliteJournal.open(file) as journal:
            names = [journal.put_blob(b"prompt"), journal.put_blob(run.encode())]
            journal.append(run, [begun(run)])
            await journal.wait_durable(run, 1)
            assert [await journal.get_blob(name) for name in names] == [b"prompt", run.encode()]
    assert sql(file, "SELECT count(*) FROM blobs") == [(3,)]


async def test_close_leaves_no_threads_or_files(file: Path) -> None:
    def held() -> tuple[set[str], int]:
        return {thread.name for thread in threading.enumerate()}, len(os.listdir("/proc/self/fd")) if os.path.isdir(
            "/proc/self/fd"
        ) else 0

    before = held()
    await write(file, "r1")
    assert held() == before
    assert sorted(os.listdir(file.parent)) == [file.name, file.name + "-mark", file.name + "-writers"]


async def test_large_value_round_trips(file: Path) -> None:
    event = NodeFinished(
        seq=2,
        at=1.0,
        node="a",
        outcome=ValueOutcome(value={"text": "ä" * 100_000, "none": None, "deep": [[1.5, True]]}),
    )
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), event])
        assert (await journal.read("r1"))[1] == event


async def test_files_are_owner_only(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        modes = {path.name: mode(path) for path in [file.parent, *file.parent.iterdir()]}
    files = {file.name + part: 0o600 for part in ("", "-wal", "-shm", "-mark")}
    assert modes == {"state": 0o700, file.name + "-writers": 0o700, **files}


async def test_open_removes_permissions_of_others(file: Path) -> None:
    await write(file, "r1")
    os.chmod(file, 0o644)
    await write(file, "r2")
    assert mode(file) == 0o600


async def test_hash_chain_covers_previous_events(file: Path) -> None:
    await write(file, "r1")
    expected, link = [], b"r1"
    for event in whole("r1"):
        link = hashlib.sha256(link + encode(event)).digest()
        expected.append((link,))
    assert sql(file, "SELECT chain FROM events WHERE run = 'r1' ORDER BY seq") == expected


@pytest.mark.parametrize(
    ("damage", "place"),
    [
        ("UPDATE events SET body = replace(CAST(body AS TEXT), 'reader', 'writer') WHERE seq = 2", "event 2"),
        ("DELETE FROM events WHERE seq = 3", "event 3"),
        ("DELETE FROM events WHERE seq = 5", "event 5"),
        ("UPDATE events SET seq = 9 WHERE seq = 5", "event 5"),
        ("DELETE FROM events WHERE run = 'r1'", "event 1"),
        ("DELETE FROM runs WHERE run = 'r1'", "end at 0"),
    ],
)
async def test_read_altered_log_is_refused_alone(file: Path, damage: str, place: str) -> None:
    await write(file, "r1", "r2")
    sql(file, damage.replace("WHERE seq", "WHERE run = 'r1' AND seq"))
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError, match=place) as caught:
            await journal.read("r1")
        assert caught.value.code == "J013"
        assert await journal.read("r2") == list(whole("r2"))


@pytest.mark.parametrize(("after", "code"), [(4, "J013"), (6, "J013"), (9, "J013"), (10, "")])
async def test_event_after_log_end_is_damage(file: Path, after: int, code: str) -> None:
    await write(file, "r1")
    sql(file, "UPDATE events SET seq = 9 WHERE seq = 5")
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError, match=code) if code else nullcontext():
            assert await journal.read("r1", after) == []


async def test_altered_blob_is_refused(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        name = journal.put_blob(b"what was said")
    sql(file, "UPDATE blobs SET data = x'00'")
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.get_blob(name)
    assert caught.value.code == "J013"


async def test_unknown_event_type_is_refused(file: Path) -> None:
    await write(file, "r1")
    body = b'{"type":"teleported","seq":1,"at":1.0}'
    chain = hashlib.sha256(b"r9" + body).digest()
    sql(
        file,
        f"INSERT INTO events VALUES ('r9', 1, x'{body.hex()}', x'{chain.hex()}', '')",
        f"INSERT INTO runs SELECT 'r9', workflow, status, started, finished, nodes, usage, 1, x'{chain.hex()}', writer,"
        " 1, NULL FROM runs",
    )
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.read("r9")
    assert caught.value.code == "J021"


# Several writers


async def test_journals_of_one_file_write_concurrently(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        for seq in range(50):
            for journal, run in ((one, "r1"), (two, "r2")):
                journal.append(run, [begun(run)] if seq == 0 else middle(seq + 1, 1))
                await journal.wait_durable(run, seq + 1)
        assert len(await one.read("r2")) == len(await two.read("r1")) == 50


async def test_run_continues_in_another_journal(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", whole("r1")[:3])
    async with SqliteJournal.open(file) as journal:
        assert await journal.lease("r1") == 2
        journal.append("r1", whole("r1")[3:])
        assert await journal.read("r1") == list(whole("r1"))
        assert [(summary.status, summary.nodes) for summary in await journal.list_runs()] == [("done", 1)]


async def test_run_of_dead_writer_is_interrupted(file: Path) -> None:
    async with SqliteJournal.open(file) as watching:
        async with SqliteJournal.open(file) as journal:
            journal.append("r1", whole("r1")[:3])
            journal.append("r2", whole("r2"))
            await asyncio.gather(journal.wait_durable("r1", 3), journal.wait_durable("r2", 5))
            assert {summary.run: summary.status for summary in await watching.list_runs()} == {
                "r1": "running",
                "r2": "done",
            }
        assert {summary.run: summary.status for summary in await watching.list_runs()} == {
            "r1": "interrupted",
            "r2": "done",
        }
        assert list((file.parent / "journal.db-writers").iterdir()) != []
    assert list((file.parent / "journal.db-writers").iterdir()) == []


# Faults


def many(first: int, count: int) -> Sequence[Event]:
    return [
        NodeFinished(seq=seq, at=1.0, node="n", outcome=ValueOutcome(value="x" * 1000))
        for seq in range(first, first + count)
    ]


async def test_full_disk_fails_waiters_and_appends(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal:
        journal.append("r0", [begun("r0")])
        await journal.wait_durable("r0", 1)
        for run in ("r1", "r2"):
            journal.append(run, [begun(run), *many(2, 300)])
        told = await asyncio.wait_for(
            asyncio.gather(*(journal.wait_durable(run, 301) for run in ("r1", "r2", "r1")), return_exceptions=True), 60
        )
        assert [getattr(error, "code", error) for error in told] == ["J010"] * 3
        assert "df -h" in str(told[0])
        with pytest.raises(JournalError) as caught:
            journal.append("r3", [begun("r3")])
        assert caught.value.code == "J010"
        assert await journal.read("r0") == [begun("r0")]
        assert await journal.read("r1") == []


async def test_close_raises_unreported_fault(file: Path) -> None:
    with pytest.raises(JournalError) as caught:
        async with SqliteJournal.open(file, max_bytes=100_000) as journal:
            journal.append("r1", [begun("r1"), *many(2, 300)])
    assert caught.value.code == "J010"


async def fill_and_fail(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=100_000) as journal:
        journal.append("r1", [begun("r1"), *many(2, 300)])
        raise ZeroDivisionError


async def test_close_keeps_error_of_block(file: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        await fill_and_fail(file)


async def test_locked_file_fails_waiters(file: Path) -> None:
    async with SqliteJournal.open(file, busy_timeout=0.05) as journal:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        journal.append("r1", [begun("r1")])
        with pytest.raises(JournalError) as caught:
            await asyncio.wait_for(journal.wait_durable("r1", 1), 60)
        other.close()
    assert caught.value.code == "J012"


def test_read_only_file_has_code(file: Path) -> None:
    file.parent.mkdir()
    presence = SqlitePresence(file.parent / "writers")
    with closing(SqliteStore(file, presence)) as store:
        store.sql.execute("PRAGMA query_only = ON")
        with pytest.raises(sqlite3.Error) as caught:
            store.commit(SqliteBatch(memos={"m1": ("r1", b"1")}))
        assert store.to_journal_error(caught.value).code == "J011"
    presence.release()


async def test_unencodable_id_is_unknown_run(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        assert (await journal.read("\udcff"), await journal.inbox("\udcff"), await journal.find_runs("\udcff")) == (
            [],
            [],
            [],
        )
        with pytest.raises(JournalError) as caught:
            journal.append("\udcff", [begun("r1")])
    assert caught.value.code == "J023"


@pytest.mark.parametrize("how", ["delete", "replace"])
async def test_removed_file_fails_waiters(file: Path, how: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        take_away(file, how)
        journal.append("r1", middle(2, 1))
        with pytest.raises(JournalError) as caught:
            await asyncio.wait_for(journal.wait_durable("r1", 2), 60)
    assert caught.value.code == "J016"


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (sqlite3.SQLITE_FULL, "J010"),
        (sqlite3.SQLITE_READONLY_ROLLBACK, "J011"),
        (sqlite3.SQLITE_BUSY_SNAPSHOT, "J012"),
        (sqlite3.SQLITE_CORRUPT, "J013"),
        (sqlite3.SQLITE_IOERR_WRITE, "J014"),
        (sqlite3.SQLITE_CANTOPEN, "J015"),
        (sqlite3.SQLITE_MISUSE, "J019"),
    ],
)
def test_sqlite_errors_have_codes_and_hints(number: int, code: str) -> None:
    error = sqlite3.OperationalError("as SQLite says it")
    error.sqlite_errorcode = number
    found = from_sqlite(error, "/folder/journal.db", "/folder")
    assert found.code == code
    assert found.hint
    assert "as SQLite says it" in str(found)


async def test_append_invalid_json_is_refused_and_run_continues(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        for value in (object(), "\ud800", {(1, 2): 3}):
            with pytest.raises(JournalError) as caught:
                journal.append("r1", [AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=value)])
            assert caught.value.code == "J004"
        journal.append("r1", middle(2, 1))
        assert len(await journal.read("r1")) == 2


async def test_cancelled_waiter_disturbs_no_other(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        waiting = [asyncio.create_task(journal.wait_durable("r1", 1)) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[1].cancel()
        await asyncio.gather(waiting[0], waiting[2])
        assert waiting[1].cancelled()


# Files that cannot be opened


async def refused(file: Path) -> JournalError:
    with pytest.raises(JournalError) as caught:
        async with SqliteJournal.open(file):
            pass
    return caught.value


async def test_open_newer_version_is_refused_unchanged(file: Path) -> None:
    await write(file, "r1")
    sql(file, "UPDATE schema_version SET version = 99")
    before = content(file)
    error = await refused(file)
    assert (error.code, "99" in error.message) == ("J020", True)
    assert content(file) == before


async def test_open_foreign_database_is_refused_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "other.db"
    sql(file, "CREATE TABLE theirs (x)")
    assert (await refused(file)).code == "J018"
    assert sql(file, "SELECT name FROM sqlite_schema", "PRAGMA journal_mode") == [("theirs",), ("delete",)]


async def test_open_non_database_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("these are my notes\n" * 500)
    assert (await refused(file)).code == "J013"


async def test_open_folder_is_refused(tmp_path: Path) -> None:
    error = await refused(tmp_path)
    assert (error.code, str(tmp_path) in error.message) == ("J015", True)


def test_concurrent_creation_of_one_file_succeeds(file: Path) -> None:
    stores = [SqliteReader(file) for _ in range(4)]
    for store in stores:
        assert store.find_runs("", 10) == []
        store.close()
