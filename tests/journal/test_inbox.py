"""The inbox in a file: messages of other journals and processes, waiting callers, and killed processes."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.files import holder, sql
from tests.journal.stories import begun, whole

CANCEL = InboxMessage(kind="cancel", by="ann", at=5.0)
ANSWER = InboxMessage(
    kind="answer",
    by="bob",
    node="approve",
    value={"ok": True, "why": ["ä", 1.5, None]},
    question_digest="0" * 32,
    at=6.0,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def test_send_is_durable(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        assert [await journal.send("r1", letter) for letter in (CANCEL, ANSWER)] == [1, 2]
        assert sql(file, "SELECT run, number FROM inbox") == [("r1", 1), ("r1", 2)]
    async with SqliteJournal.open(file) as journal:
        first, second = await journal.inbox("r1")
        assert (first.by, first.number, second.value, second.question_digest, second.number) == (
            "ann",
            1,
            ANSWER.value,
            ANSWER.question_digest,
            2,
        )
        assert await journal.inbox("r1", 1) == [second]
        assert await journal.inbox("r1", 2) == await journal.inbox("other") == []


async def test_concurrent_sends_have_consecutive_numbers(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        one.append("r1", [begun("r1")])
        await one.wait_durable("r1", 1)
        numbers = await asyncio.gather(*(journal.send("r1", CANCEL) for _ in range(50) for journal in (one, two)))
        assert sorted(numbers) == list(range(1, 101))
        assert len(await two.inbox("r1")) == 100


@pytest.mark.parametrize(("run", "code"), [("ended", "J006"), ("nobody", "J023"), ("\udcff", "J023")])
async def test_send_to_unknown_or_ended_run_is_refused(file: Path, run: str, code: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("ended", whole("ended"))
        with pytest.raises(JournalError) as caught:
            await journal.send(run, CANCEL)
    assert caught.value.code == code


async def test_send_invalid_json_is_refused(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        with pytest.raises(JournalError) as caught:
            await journal.send("r1", InboxMessage(kind="answer", value=object()))
        assert caught.value.code == "J004"
        assert await journal.send("r1", CANCEL) == 1


async def test_wait_for_messages_names_each_run_once(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        for run in ("r1", "r2", "r3"):
            one.append(run, [begun(run)])
        await one.wait_durable("r3", 1)
        waiting = asyncio.create_task(one.wait_for_messages())
        await two.send("r2", CANCEL)
        assert await asyncio.wait_for(waiting, 60) == {"r2"}
        await asyncio.gather(one.send("r1", CANCEL), two.send("r3", CANCEL), two.send("r1", CANCEL))
        assert await asyncio.wait_for(one.wait_for_messages(), 60) == {"r1", "r3"}
        await one.send("r2", CANCEL)
        assert await asyncio.wait_for(one.wait_for_messages(), 60) == {"r2"}


async def test_wait_for_messages_ignores_earlier_messages(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        for run in ("r1", "r2"):
            journal.append(run, [begun(run)])
        await journal.send("r1", CANCEL)
    async with SqliteJournal.open(file) as journal:
        await journal.send("r2", CANCEL)
        assert await asyncio.wait_for(journal.wait_for_messages(), 60) == {"r2"}


async def test_wait_for_messages_survives_deletion_of_newer_ones(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        for run in ("r1", "r2"):
            journal.append(run, [begun(run)])
        await journal.release("r2")
        await journal.send("r2", CANCEL)
        assert await asyncio.wait_for(journal.wait_for_messages(), 60) == {"r2"}
        await journal.delete("r2")
        await journal.send("r1", CANCEL)
        assert await asyncio.wait_for(journal.wait_for_messages(), 60) == {"r1"}


async def test_cancelled_wait_for_messages_loses_none(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        threads = {thread.name for thread in threading.enumerate()}
        for turns in range(8):
            waiting = asyncio.create_task(journal.wait_for_messages())
            for _ in range(turns):
                await asyncio.sleep(0)
            if turns == 4:
                await journal.send("r1", CANCEL)
            waiting.cancel()
            with suppress(asyncio.CancelledError):
                assert await waiting == {"r1"}
                await journal.send("r1", CANCEL)  # it was faster, so there are messages again
        assert await asyncio.wait_for(journal.wait_for_messages(), 60) == {"r1"}
        assert {thread.name for thread in threading.enumerate()} == threads
        assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_close_wakes_wait_for_messages(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        waiting = [asyncio.create_task(journal.wait_for_messages()) for _ in range(2)]
        await asyncio.sleep(0)
    told = await asyncio.wait_for(asyncio.gather(*waiting, return_exceptions=True), 60)
    assert [getattr(error, "code", error) for error in told] == ["J002", "J002"]


async def test_message_of_killed_process_is_kept(file: Path) -> None:
    with holder(file, "r1") as old:
        assert old.ask() == "1"
        async with SqliteJournal.open(file) as outsider:
            assert await outsider.send("r1", CANCEL) == 1
        old.process.send_signal(signal.SIGKILL)
        old.process.wait()
        async with SqliteJournal.open(file) as journal:
            assert await journal.lease("r1") == 2
            assert [letter.by for letter in await journal.inbox("r1")] == ["ann"]


async def test_send_on_full_disk_is_durable_or_refused(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal:
        journal.append("r1", [begun("r1")])
        told = await asyncio.gather(
            *(journal.send("r1", InboxMessage(kind="answer", value="x" * 1000)) for _ in range(400)),
            return_exceptions=True,
        )
        assert {getattr(answer, "code", "") for answer in told} == {"J010"}
        assert await journal.inbox("r1") == []


@pytest.mark.parametrize(
    "damage",
    [
        "DELETE FROM inbox WHERE number = 2",
        "UPDATE inbox SET body = replace(body, 'ann', 'bob')",
        "DELETE FROM inbox_counts",
    ],
)
async def test_altered_inbox_is_refused(file: Path, damage: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        for _ in range(2):
            await journal.send("r1", CANCEL)
    sql(file, damage)
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.inbox("r1")
    assert caught.value.code == "J013"


async def test_send_to_removed_file_is_error(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        os.unlink(file)
        with pytest.raises(JournalError) as caught:
            await asyncio.wait_for(journal.send("r1", CANCEL), 60)
    assert caught.value.code == "J016"
