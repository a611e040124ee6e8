"""The memo and the outbox in a file."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import pytest

from orchestra.core.events import AttemptFinished
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.journal.files import holder, sql
from tests.journal.stories import begun


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


def sends(seq: int, node: str, value: object = "hello") -> AttemptFinished:
    return AttemptFinished(seq=seq, at=1.0, node=node, attempt=1, name="mailer", value=value, outbox=True)


async def test_memo_keeps_first_answer(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.put_memo("m1", "r1", {"a": [1, None, "ä"]})
        journal.put_memo("m1", "r2", "later")
        assert await journal.get_memo("m1") == ("r1", {"a": [1, None, "ä"]})
    async with SqliteJournal.open(file) as journal:
        journal.put_memo("m1", "r3", "much later")
        assert await journal.get_memo("m1") == ("r1", {"a": [1, None, "ä"]})
        assert await journal.get_memo("m2") is None


async def test_memo_is_durable_with_next_commit(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.put_memo("m1", "r1", 7)
        journal.append("r1", [begun("r1")])
        await journal.wait_durable("r1", 1)
        assert sql(file, "SELECT memo, run FROM memo") == [("m1", "r1")]


async def test_memo_invalid_json_is_refused(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            journal.put_memo("m1", "r1", object())
        assert caught.value.code == "J004"
        assert await journal.get_memo("m1") is None


async def test_memo_altered_answer_is_refused(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.put_memo("m1", "r1", "true")
    sql(file, "UPDATE memo SET value = replace(value, 'true', 'false')")
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.get_memo("m1")
    assert caught.value.code == "J013"


async def test_outbox_is_in_commit_order_until_delivered(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        one.append("r1", [begun("r1"), sends(2, "a", {"to": "ann"}), sends(3, "b")])
        await one.wait_durable("r1", 3)
        two.append("r2", [begun("r2"), sends(2, "a", None)])
        await two.wait_durable("r2", 2)
        found = await one.outbox()
        assert [(sent.number, sent.run, sent.node, sent.name, sent.key, sent.value) for sent in found] == [
            (1, "r1", "a", "mailer", "r1/a", {"to": "ann"}),
            (2, "r1", "b", "mailer", "r1/b", "hello"),
            (3, "r2", "a", "mailer", "r2/a", None),
        ]
        assert [sent.number for sent in await two.outbox(1, 1)] == [2]
        await two.mark_delivered([1, 3, 99])
        assert [sent.number for sent in await one.outbox()] == [2]
        await one.mark_delivered([])
    async with SqliteJournal.open(file) as journal:
        assert [sent.number for sent in await journal.outbox()] == [2]


async def test_outbox_message_of_node_is_unique(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), sends(2, "a", "first"), sends(3, "a", "second")])
        await journal.wait_durable("r1", 3)
        (sent,) = await journal.outbox()
        assert sent.value == "first"
        await journal.mark_delivered([sent.number])
        journal.append("r1", [sends(4, "a", "third")])
        await journal.wait_durable("r1", 4)
        assert await journal.outbox() == []


async def test_outbox_message_is_atomic_with_event(file: Path) -> None:
    async with SqliteJournal.open(file) as one, SqliteJournal.open(file) as two:
        two.append("r1", [begun("r1")])
        one.append("r1", [begun("r1"), sends(2, "a")])
        told = await asyncio.gather(two.wait_durable("r1", 1), one.wait_durable("r1", 2), return_exceptions=True)
        written = len(await one.read("r1"))
        assert [getattr(error, "code", None) for error in told].count("J005") == 1
        assert len(await one.outbox()) == written - 1


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE outbox SET value = replace(value, 'hello', 'hullo') WHERE number = 2",
        "UPDATE outbox SET number = 7 WHERE number = 2",
        "UPDATE outbox SET run = 'r2' WHERE number = 2",
    ],
)
async def test_outbox_altered_message_is_refused(file: Path, damage: str) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), sends(2, "a"), sends(3, "b")])
    sql(file, damage)
    async with SqliteJournal.open(file) as journal:
        with pytest.raises(JournalError) as caught:
            await journal.outbox()
    assert caught.value.code == "J013"


async def test_outbox_killed_before_mark_redelivers(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1"), sends(2, "a")])
    with holder(file, "r1") as taken:
        assert taken.ask() == "2"
        taken.process.send_signal(signal.SIGKILL)
    async with SqliteJournal.open(file) as journal:
        assert [sent.key for sent in await journal.outbox()] == ["r1/a"]


async def test_remove_orphans_deletes_answers_of_unstarted_run(file: Path) -> None:
    async with SqliteJournal.open(file) as journal:
        journal.append("r1", [begun("r1")])
        for memo, run in (("m1", "r1"), ("m2", "refused"), ("m3", "")):
            journal.put_memo(memo, run, True)
        async with SqliteJournal.open(file):
            await journal.compact()
            assert await journal.get_memo("m2") == ("refused", True)
        await journal.compact()
        assert [await journal.get_memo(memo) for memo in ("m1", "m2", "m3")] == [("r1", True), None, ("", True)]
