"""One journal at a time writes a run: leases between journals and between processes."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.events import AttemptStarted, QuestionAsked
from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.files import holder, sql
from tests.journal.stories import begun, middle, whole

LETTER = InboxMessage(kind="cancel")
QUESTION = QuestionAsked(seq=2, at=2.0, node="q", question="Well?", schema={"type": "string"}, question_digest="4" * 32)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def statuses(journal: SqliteJournal) -> dict[str, str]:
    return {summary.run: summary.status for summary in await journal.list_runs()}


async def test_open_run_status_follows_lease_and_questions(file: Path) -> None:
    async with SqliteJournal.open(file) as watching:
        async with SqliteJournal.open(file) as journal:
            for run in ("held", "asking", "released", "busy"):
                journal.append(run, [begun(run)])
            journal.append("asking", [QUESTION])
            journal.append("busy", [QUESTION, AttemptStarted(seq=3, at=2.0, node="a", attempt=1)])
            for run in ("asking", "released", "busy"):
                await journal.release(run)
            await journal.wait_durable("held", 1)
            let_go = {"asking": "waiting", "released": "interrupted", "busy": "interrupted"}
            assert await statuses(watching) == {"held": "running"} | let_go
        assert await statuses(watching) == {"held": "interrupted"} | let_go


@pytest.mark.parametrize(
    "damage", ["DELETE FROM events WHERE run = 'broken' AND seq = 1", "UPDATE inbox_counts SET messages = 7"]
)
async def test_list_runs_includes_damaged_released_run(file: Path, damage: str) -> None:
    async with SqliteJournal.open(file) as journal:
        for run in ("sound", "broken"):
            journal.append(run, [begun(run), QUESTION])
            await journal.release(run)
        await journal.send("broken", LETTER)
    sql(file, damage)
    async with SqliteJournal.open(file) as journal:
        assert await statuses(journal) == {"sound": "waiting", "broken": "interrupted"}


async def test_release_waits_for_queued_events(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), *middle(2, 500)])
        await journal.release("r1")
        assert sql(file, "SELECT last, writer FROM runs", "SELECT count(*) FROM events") == [(501, ""), (501,)]


async def test_append_after_release_needs_lease(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        await journal.release("r1")
        with pytest.raises(JournalError) as caught:
            journal.append("r1", middle(2, 1))
        assert caught.value.code == "J005"
        assert await journal.lease("r1") == 2
        journal.append("r1", middle(2, 1))
        assert len(await journal.read("r1")) == 2


async def test_two_starts_of_one_run_first_commit_wins(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        two.append("r1", [begun("r1", at=2.0)])
        await two.wait_durable("r1", 1)
        one.append("other", [begun("other")])
        with pytest.raises(JournalError) as caught:
            one.append("r1", [begun("r1", at=1.0)])
        assert caught.value.code == "J005"
        await one.wait_durable("other", 1)
        assert await one.read("r1") == [begun("r1", at=2.0)]


async def test_concurrent_starts_of_one_run_one_wins(file: Path) -> None:
    async def begin(journal: SqliteJournal, number: int) -> str:
        try:  # a late one is refused at once
            journal.append("shared", [begun("shared", at=float(number))])
        except JournalError as error:
            journal.append(f"own{number}", [begun(f"own{number}")])
            await journal.wait_durable(f"own{number}", 1)
            return error.code
        journal.append(f"own{number}", [begun(f"own{number}")])
        await journal.wait_durable(f"own{number}", 1)
        try:
            await journal.wait_durable("shared", 1)
        except JournalError as error:
            return error.code
        return "won"

    async with SqliteJournal.open(file) as a, SqliteJournal.open(file) as b, SqliteJournal.open(file) as c:
        told = await asyncio.gather(*(begin(journal, number) for number, journal in enumerate((a, b, c))))
        assert sorted(told) == ["J005", "J005", "won"]
        assert await a.read("shared") == [begun("shared", at=float(told.index("won")))]


@pytest.mark.parametrize(
    ("what", "code"), [("held", "J022"), ("ended", "J006"), ("nobody", "J023"), ("\udcff", "J023")]
)
async def test_lease_refusals_have_codes(file: Path, what: str, code: str) -> None:
    async with SqliteJournal.open(file) as journal, SqliteJournal.open(file) as other:
        journal.append("held", [begun("held")])
        journal.append("ended", whole("ended"))
        await asyncio.gather(journal.wait_durable("held", 1), journal.wait_durable("ended", 5))
        for asks in (journal, other):
            with pytest.raises(JournalError) as caught:
                await asks.lease(what)
            assert caught.value.code == code


async def test_concurrent_leases_one_wins(file: Path) -> None:
    async def fight(journal: SqliteJournal) -> str:
        try:
            return str(await journal.lease("r1"))
        except JournalError as error:
            return error.code

    async with SqliteJournal.open(file) as first:
        first.append("r1", [begun("r1")])
        await first.release("r1")
        async with SqliteJournal.open(file) as a, SqliteJournal.open(file) as b, SqliteJournal.open(file) as c:
            assert sorted(await asyncio.gather(*map(fight, (a, b, c, a, b, c)))) == [
                "2",
                "J022",
                "J022",
                "J022",
                "J022",
                "J022",
            ]


async def test_cancelled_lease_is_released(file: Path) -> None:
    async with SqliteJournal.open(file) as journal, SqliteJournal.open(file) as other:
        journal.append("r1", [begun("r1")])
        await journal.release("r1")
        asking = asyncio.create_task(journal.lease("r1"))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        await journal.send("r1", LETTER)  # queued after it
        await journal.send("r1", LETTER)
        assert await other.lease("r1") == 3


async def test_two_processes_leasing_only_winner_writes(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
    with holder(file, "r1") as one, holder(file, "r1") as two:
        one.go()
        two.go()
        told = {one.heard(): one, two.heard(): two}
        assert set(told) == {"2", "J022"}
        assert [told["2"].ask(), told["J022"].ask(), told["2"].ask(), told["J022"].ask()] == ["2", "J005", "3", "J005"]
    async with SqliteJournal.open(file) as journal:
        assert await journal.read("r1") == [begun("r1"), *middle(2, 2)]


async def test_two_processes_starting_one_run_one_wins(file: Path) -> None:
    with holder(file, "r1") as one, holder(file, "r1") as two:
        one.go()
        two.go()
        assert {one.heard(), two.heard()} in ({"1", "J005"}, {"1", "J022"})


async def test_stopped_process_with_lost_lease_is_fenced(file: Path) -> None:
    with holder(file, "r1") as old:
        assert [old.ask(), old.ask()] == ["1", "2"]
        old.process.send_signal(signal.SIGSTOP)
        async with SqliteJournal.open(file) as journal:
            with pytest.raises(JournalError) as caught:
                await journal.lease("r1")
            assert caught.value.code == "J022"
            # The lock folder is cleaned up, so the stopped process seems dead.
            (writer,) = sql(file, "SELECT writer FROM runs")[0]
            (file.parent / "journal.db-writers" / str(writer)).unlink()
            assert await journal.lease("r1") == 2
            journal.append("r1", middle(3, 1))
            await journal.wait_durable("r1", 3)
            old.process.send_signal(signal.SIGCONT)
            assert [old.ask(), old.ask()] == ["J005", "J005"]
            journal.append("r1", middle(4, 1))
            assert await journal.read("r1") == [begun("r1"), *middle(2, 3)]


async def test_lost_lease_can_be_taken_again(file: Path) -> None:
    async with SqliteJournal.open(file) as old:
        old.append("r1", [begun("r1")])
        await old.wait_durable("r1", 1)
        os.unlink(file.parent / "journal.db-writers" / str(sql(file, "SELECT writer FROM runs")[0][0]))
        async with SqliteJournal.open(file) as new:
            await new.lease("r1")
            new.append("r1", middle(2, 1))
            await new.release("r1")
        old.append("r1", middle(2, 2))
        with pytest.raises(JournalError) as caught:
            await old.wait_durable("r1", 3)
        assert caught.value.code == "J005"
        assert await old.lease("r1") == 3
        old.append("r1", middle(3, 1))
        assert await old.read("r1") == [begun("r1"), *middle(2, 2)]


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EMFILE])
async def test_unreadable_presence_counts_as_alive(file: Path, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    """It belongs to another user, or this process has no descriptors left."""
    presences = file.with_name(file.name + "-writers")
    opened = os.open
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        (theirs,) = presences.iterdir()

        def refused(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
            if Path(path) == theirs:
                raise OSError(fault, os.strerror(fault))
            return opened(path, flags, mode, **more)

        monkeypatch.setattr(os, "open", refused)
        async with SqliteJournal.open(file) as other:
            assert theirs.exists()
            assert await statuses(other) == {"r1": "running"}
            with pytest.raises(JournalError) as caught:
                await other.lease("r1")
            assert caught.value.code == "J022"
            assert (str(theirs) in caught.value.message) == (fault == errno.EACCES)
            assert ("remove that file" in caught.value.hint) == (fault == errno.EACCES)
        journal.append("r1", middle(2, 1))
        await journal.wait_durable("r1", 2)


async def test_removed_foreign_presence_frees_run(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As older versions created them, readable only for their owner."""
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
    (writer,) = sql(file, "SELECT writer FROM runs")[0]
    left = file.with_name(file.name + "-writers") / str(writer)
    left.touch()
    opened = os.open

    def refused(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
        if Path(path) == left and left.exists():
            raise PermissionError(errno.EACCES, "Permission denied")
        return opened(path, flags, mode, **more)

    monkeypatch.setattr(os, "open", refused)
    async with SqliteJournal.open(file) as other:
        for wish in (other.lease("r1"), other.delete("r1")):
            with pytest.raises(JournalError, match=str(left)) as caught:
                await wish
            assert f"process {os.getpid()} " in caught.value.hint
        left.unlink()
        assert await other.lease("r1") == 2


@pytest.mark.skipif(sys.platform == "win32", reason="Windows knows no such modes")
async def test_presence_is_readable_by_other_users(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    presences = file.with_name(file.name + "-writers")
    mask = os.umask(0o077)
    try:
        async with SqliteJournal.open(file) as journal:
            (ours,) = presences.iterdir()
            assert (presences.stat().st_mode & 0o777, ours.stat().st_mode & 0o777) == (0o700, 0o644)
            asked: list[int] = []
            opened = os.open

            def seen(path: Any, flags: int, mode: int = 0o777, **more: Any) -> int:
                asked.extend([flags] if Path(path) == ours else [])
                return opened(path, flags, mode, **more)

            monkeypatch.setattr(os, "open", seen)
            journal.append("r1", [begun("r1")])
            await journal.wait_durable("r1", 1)
            async with SqliteJournal.open(file) as other:
                assert await statuses(other) == {"r1": "running"}
            assert asked
            assert not any(flags & (os.O_RDWR | os.O_WRONLY) for flags in asked)
    finally:
        os.umask(mask)


async def test_stale_presence_files_are_removed(file: Path) -> None:
    presences = file.with_name(file.name + "-writers")
    async with SqliteJournal.open(file):
        (presences / "1-abc").touch()
        async with SqliteJournal.open(file):
            assert len(list(presences.iterdir())) == 2
