"""Lost durable commits: detected at opening, accepted by a command, and no `once` call is repeated without a
confirmation.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite import commit_mark as marks
from orchestra.journal.sqlite.commit_loss import CommitLoss, accept_loss, find_loss
from orchestra.journal.sqlite.commit_mark import CommitMark, MarkContent, mark_path, read_mark
from orchestra.journal.sqlite.database import read_commit_count
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.queries import ReadOnlyJournal
from orchestra.journal.sqlite.wal import WalFile, has_valid_transaction, log_path
from orchestra.testing.conformance.scenarios import append_durably, error_code, run_finished
from tests.journal.files import holder
from tests.journal.lost import check_all, cut_checkpoint
from tests.journal.stories import begun, middle, whole
from tests.sizes import sample_size

ONE = bytes(range(16))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "here" / "journal.db"


def content(file: Path) -> bytes:
    return file.read_bytes()


def replace(file: Path, data: bytes | None) -> None:
    """Replaces the content of a file; None removes it."""
    if data is None:
        file.unlink()
    else:
        file.write_bytes(data)


async def opening(file: Path) -> str | None:
    """Returns the error code of opening a journal."""
    try:
        async with SqliteJournal.open(file, busy_timeout=0.05):
            return None
    except JournalError as error:
        return error.code if error.hint else "no hint"


async def fill(file: Path, runs: int) -> None:
    """Writes a journal with open runs that another process does not hold."""
    async with SqliteJournal.open(file) as journal:
        for number in range(runs):
            await append_durably(journal, f"r{number}", [begun(f"r{number}"), *middle(2, 3)])


async def copied(file: Path, target: Path) -> Path:
    """Copies the files of an open journal, as after the end of its process; its log has the last runs."""
    async with SqliteJournal.open(file) as journal:
        await append_durably(journal, "last", whole("last"))
        await append_durably(journal, "more", [begun("more"), *middle(2, 600)])
        shutil.copytree(file.parent, target, ignore=shutil.ignore_patterns("*-writers"))
    return target / file.name


async def test_damage_after_kill_is_reported_or_harmless() -> None:
    told = await check_all(18)
    assert not told.wrong
    assert told.reported["J025"] > 4
    assert told.reported["after accepting: J026"]


@pytest.mark.slow
async def test_many_damages_after_kill_are_reported_or_harmless() -> None:
    number = sample_size(2_000, 10)
    told = await check_all(number)
    assert not told.wrong
    assert told.harmless > number // 20
    assert told.reported["J025"] > number // 5


# The mark


@given(st.integers(0, 1 << 40), st.permutations(range(40)))
def test_mark_late_write_hides_no_later_commit(
    tmp_path_factory: pytest.TempPathFactory, first: int, order: list[int]
) -> None:
    path = tmp_path_factory.mktemp("mark") / "mark"
    with closing(CommitMark(path)) as one, closing(CommitMark(path)) as two:
        for place, number in enumerate(order):
            (one, two)[place % 2].note_commit(ONE, first + number)
    assert read_mark(path) == MarkContent(ONE, first + 39, in_checkpoint=False)


@given(st.integers(0, 8 * marks.SIZE - 1))
def test_mark_flipped_bit_claims_no_commit(tmp_path_factory: pytest.TempPathFactory, bit: int) -> None:
    path = tmp_path_factory.mktemp("mark") / "mark"
    with closing(CommitMark(path)) as mark:
        for number in range(1, 70):
            mark.note_commit(ONE, number)
    data = bytearray(path.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    noted = read_mark(path)
    assert noted is not None
    assert noted.commit_number in (68, 69)
    assert noted.journal_id == ONE


@pytest.mark.parametrize(("synced", "claimed"), [(True, 7), (False, None)])
def test_mark_unsynced_commit_is_valid_until_reboot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, synced: bool, claimed: int | None
) -> None:
    path, boot = tmp_path / "mark", tmp_path / "boot"
    monkeypatch.setattr(marks, "_BOOT", boot)
    boot.write_text("00000000-0000-0000-0000-000000000001")
    with closing(CommitMark(path, synced=synced)) as mark:
        mark.note_commit(ONE, 7)
    assert read_mark(path) == MarkContent(ONE, 7, in_checkpoint=False)
    boot.write_text("00000000-0000-0000-0000-000000000002")
    noted = read_mark(path)
    assert (noted.commit_number if noted else None) == claimed


def test_mark_unsynced_commit_needs_boot_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(marks, "_BOOT", tmp_path / "none")
    with closing(CommitMark(tmp_path / "mark", synced=False)) as mark:
        mark.note_commit(ONE, 7)
    assert read_mark(tmp_path / "mark") is None


async def test_mark_is_written_before_wait_durable_returns(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        for seq in range(1, 70):
            await append_durably(journal, "r", [begun("r")] if seq == 1 else middle(seq, 1))
            noted = read_mark(mark_path(file))
            assert noted is not None
            assert noted.commit_number == seq


class FailingCommit:
    """A connection whose commits fail."""

    def __init__(self, sql: sqlite3.Connection) -> None:
        self._sql = sql

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sql, name)

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        """Raises at a commit."""
        if statement == "COMMIT":
            raise sqlite3.OperationalError("disk I/O error")
        return self._sql.execute(statement, *values)


async def test_mark_ignores_failed_commit(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with SqliteJournal.open(file) as journal:
        await append_durably(journal, "r", [begun("r")])
        before, store = read_mark(mark_path(file)), journal._connections.store
        monkeypatch.setattr(store, "sql", FailingCommit(store.sql))
        journal.append("r", middle(2, 1))
        assert await error_code(journal.wait_durable("r", 2)) == "J019"
        assert read_mark(mark_path(file)) == before
        monkeypatch.undo()
        with suppress(JournalError):
            await journal.close()
    assert find_loss(file, 1.0) is None


# Opening


async def test_any_process_end_leaves_no_loss(file: Path) -> None:
    for number in range(3):
        with holder(file, f"r{number}") as other:
            assert other.ask() == "1"
            assert await opening(file) is None
        assert await opening(file) is None


async def test_missing_log_is_reported_until_restored(file: Path, tmp_path: Path) -> None:
    await fill(file, 2)
    copy = await copied(file, tmp_path / "copy")
    log = log_path(copy)
    kept = log.read_bytes()
    log.unlink()
    before = copy.read_bytes()
    assert await opening(copy) == "J025"
    assert copy.read_bytes() == before
    log.write_bytes(kept)
    assert await opening(copy) is None


async def test_damaged_log_is_not_changed(file: Path, tmp_path: Path) -> None:
    copy = await copied(file, tmp_path / "copy")
    data = bytearray(log_path(copy).read_bytes())
    data[len(data) // 2] ^= 1
    log_path(copy).write_bytes(data)
    assert await opening(copy) == "J025"
    assert log_path(copy).read_bytes() == data


@pytest.mark.parametrize("what", ["gone", "empty", "older", "another"])
async def test_replaced_database_is_reported(file: Path, tmp_path: Path, what: str) -> None:
    await fill(file, 1)
    older = content(file)
    await fill_more(file)
    match what:
        case "gone":
            replace(file, None)
        case "empty":
            replace(file, b"")
        case "older":
            replace(file, older)
        case _:
            await fill(tmp_path / "another.db", 9)
            replace(file, content(tmp_path / "another.db"))
    assert await opening(file) == "J025"
    assert accept_loss(file) is not None
    assert await opening(file) is None


async def fill_more(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        await append_durably(journal, "later", whole("later"))


async def test_journal_moved_with_mark_starts_anew(file: Path, tmp_path: Path) -> None:
    await fill(file, 1)
    (tmp_path / "old").mkdir()
    for part in file.parent.glob("journal.db*"):
        part.rename(tmp_path / "old" / part.name)
    assert await opening(file) is None


async def test_file_without_commit_counter_gets_one(file: Path) -> None:
    await fill(file, 1)
    mark_path(file).unlink()
    with closing(sqlite3.connect(file)) as sql:
        sql.execute("DROP TABLE commits")
        sql.commit()
    await fill_more(file)
    assert read_mark(mark_path(file)) is not None
    assert find_loss(file, 1.0) is None


async def test_altered_commit_counter_is_damage(file: Path) -> None:
    await fill(file, 1)
    with closing(sqlite3.connect(file)) as sql:
        sql.execute("UPDATE commits SET number = number + 1")
        sql.commit()
    assert await opening(file) == "J013"


async def test_read_only_folder_reports_loss(file: Path, tmp_path: Path) -> None:
    await fill(file, 1)
    older = content(file)
    await fill_more(file)
    replace(file, older)
    with pytest.raises(JournalError, match="commits are missing") as caught:
        async with ReadOnlyJournal.open(file):
            pass
    assert caught.value.code == "J025"


# Checkpoints


@pytest.mark.parametrize("part", [0.1, 0.3, 0.5, 0.7, 0.9])
async def test_log_lost_during_checkpoint_is_reported(file: Path, tmp_path: Path, part: float) -> None:
    await fill(file, 1)
    async with SqliteJournal.open(file) as journal:  # free pages: SQLite itself detects a file that is too short
        await append_durably(journal, "room", [begun("room"), *middle(2, 1500), run_finished(1502)])
        await journal.delete("room")
    await copied(file, tmp_path / "copy")
    cut_checkpoint(tmp_path / "copy", tmp_path / "cut", part)
    cut = tmp_path / "cut" / file.name
    kept = log_path(cut).read_bytes()
    assert find_loss(cut, 1.0) is None  # the log is there
    flipped = [
        kept[:place] + bytes([kept[place] ^ 1]) + kept[place + 1 :] for place in (0, 5, 9, 14, 18, 25, 40, 50, 1000)
    ]
    for spoilt in (b"", kept[:40], *flipped):
        log_path(cut).write_bytes(spoilt)
        assert await opening(cut) in ("J025", "J013")  # SQLite itself may report such a database as damaged
    log_path(cut).write_bytes(kept)
    assert await opening(cut) is None
    noted = read_mark(mark_path(cut))
    assert noted is not None
    assert not noted.in_checkpoint


async def test_long_log_is_checkpointed(file: Path, tmp_path: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        for number in range(40):
            await append_durably(journal, f"r{number}", [begun(f"r{number}"), *middle(2, 400)])
        assert len(content(file)) > 500_000
        assert len(content(log_path(file))) < 20_000_000
        shutil.copytree(file.parent, tmp_path / "copy")
    assert has_valid_transaction(log_path(tmp_path / "copy" / file.name))
    with closing(WalFile(log_path(tmp_path / "copy" / file.name))) as log:
        assert log.has_frames(1)
        assert not log.has_frames(100_000)
    assert not has_valid_transaction(tmp_path / "none")


# Accepting a loss


async def test_confirm_loss_allows_run_to_continue(file: Path) -> None:
    await fill(file, 2)
    older = content(file)
    await fill_more(file)
    replace(file, older)
    accepted = accept_loss(file)
    assert accepted is not None
    assert accepted.runs == ["r0", "r1"]
    assert accepted.loss.commits
    async with SqliteJournal.open(file) as journal:
        assert {row.run: row.status for row in await journal.list_runs()} == {"r0": "interrupted", "r1": "interrupted"}
        assert await error_code(journal.lease("r0")) == "J026"
        assert await journal.confirm_loss("r0")
        assert not await journal.confirm_loss("r0")
        assert await journal.lease("r0") == 2
        assert await error_code(journal.lease("r1")) == "J026"
        assert await error_code(journal.confirm_loss("none")) == "J023"
        await append_durably(journal, "r0", middle(5, 1))
        assert len(await journal.read("r0")) == 5
    async with SqliteJournal.open(file) as journal:
        assert await error_code(journal.lease("r1")) == "J026"


async def test_accept_loss_needs_exclusive_use(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        await append_durably(journal, "r", [begun("r")])
        noted = read_mark(mark_path(file))
        assert noted is not None
        with closing(CommitMark(mark_path(file))) as mark:
            mark.note_commit(noted.journal_id, noted.commit_number + 5)
        assert find_loss(file, 1.0) == CommitLoss(f"5 of {noted.commit_number + 5} commits are missing", 5)
        with pytest.raises(JournalError, match="another process") as caught:
            accept_loss(file)
        assert caught.value.code == "J027"
    assert accept_loss(file) is not None
    assert accept_loss(file) is None


async def test_accept_loss_of_damaged_database_is_coded(file: Path) -> None:
    await fill(file, 2)
    older = bytearray(content(file))
    with closing(sqlite3.connect(file)) as sql:
        (size,) = sql.execute("PRAGMA page_size").fetchone()
        (page,) = sql.execute("SELECT rootpage FROM sqlite_schema WHERE name = 'runs'").fetchone()
    await fill_more(file)
    older[(page - 1) * size : page * size] = bytes(size)  # the commit counter is on another page
    replace(file, bytes(older))
    assert await opening(file) == "J025"
    with pytest.raises(JournalError) as caught:
        accept_loss(file)
    assert caught.value.code == "J013"
    assert caught.value.hint


async def test_accept_loss_keeps_copy_of_log(file: Path, tmp_path: Path) -> None:
    await fill(file, 1)
    copy = await copied(file, tmp_path / "copy")
    data = bytearray(log_path(copy).read_bytes())
    data[-2000] ^= 1
    log_path(copy).write_bytes(data)
    accepted = accept_loss(copy)
    assert accepted is not None
    assert accepted.log_copy is not None
    assert accepted.log_copy.read_bytes() == data
    assert accepted.log_copy.stat().st_mode & 0o777 == 0o600
    with closing(sqlite3.connect(copy)) as sql:
        found, noted = read_commit_count(sql), read_mark(mark_path(copy))
    assert noted == MarkContent(found.journal_id, found.commit_number, in_checkpoint=False)
