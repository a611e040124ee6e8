"""Behaviour that all journals share."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest

from orchestra.core.events import AttemptFinished
from orchestra.core.protocols import InboxMessage
from orchestra.journal import encoding
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.schema.strict_json import digest
from tests.journal.stories import SPENT, begun, middle, whole

AnyJournal: TypeAlias = MemoryJournal | SqliteJournal


@asynccontextmanager
async def opened(kind: str, folder: Path) -> AsyncIterator[AnyJournal]:
    match kind:
        case "memory":
            yield MemoryJournal()
        case _:
            async with SqliteJournal.open(folder / "j.db", durability=kind) as journal:  # type: ignore[arg-type]  # a parameter of these tests
                yield journal


@pytest.fixture(params=["memory", "strict", "group", "off"])
async def journal(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[AnyJournal]:
    async with opened(request.param, tmp_path) as found:
        yield found


async def test_read_returns_events_in_order(journal: AnyJournal) -> None:
    for event in whole("r1"):
        journal.append("r1", [event])
    await journal.wait_durable("r1", 5)
    assert await journal.read("r1") == list(whole("r1"))


@pytest.mark.parametrize("after", [0, 1, 4, 5, 6])
async def test_read_after_seq(journal: AnyJournal, after: int) -> None:
    journal.append("r1", whole("r1"))
    assert [event.seq for event in await journal.read("r1", after)] == list(range(after + 1, 6))


async def test_read_includes_queued_events(journal: AnyJournal) -> None:
    journal.append("r1", whole("r1")[:2])
    assert len(await journal.read("r1")) == 2


async def test_read_unknown_run_is_empty(journal: AnyJournal) -> None:
    assert await journal.read("nobody") == []


@pytest.mark.parametrize(("kept", "given"), [(0, 2), (1, 1), (1, 3), (3, 2)])
async def test_append_gap_is_refused(journal: AnyJournal, kept: int, given: int) -> None:
    journal.append("r1", whole("r1")[:kept])
    with pytest.raises(JournalError) as caught:
        journal.append("r1", middle(given, 1))
    assert caught.value.code == "J001"
    assert len(await journal.read("r1")) == kept


async def test_append_is_all_or_none(journal: AnyJournal) -> None:
    with pytest.raises(JournalError):
        journal.append("r1", [begun("r1"), *middle(3, 1)])
    assert await journal.read("r1") == []
    journal.append("r1", [begun("r1")])
    assert len(await journal.read("r1")) == 1


async def test_append_after_end_is_refused(journal: AnyJournal) -> None:
    journal.append("r1", whole("r1"))
    await journal.wait_durable("r1", 5)
    with pytest.raises(JournalError) as caught:
        journal.append("r1", middle(6, 1))
    assert caught.value.code == "J006"


async def test_ended_run_refuses_lease_and_message(journal: AnyJournal) -> None:
    journal.append("r1", whole("r1"))
    await journal.wait_durable("r1", 5)
    for late in (journal.lease("r1"), journal.send("r1", InboxMessage(kind="cancel"))):
        with pytest.raises(JournalError) as caught:
            await late
        assert (caught.value.code, caught.value.message) == (
            "J006",
            "run r1 has ended, so it can neither be resumed nor receive messages",
        )
        assert "orchestra runs fork r1" in caught.value.hint


def test_too_large_error_has_size_in_mib(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "MAX_BODY_BYTES", 1 << 16)
    event = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value="x" * 100_000)
    for keep, what in (
        (partial(encoding.encode_value, "answer m"), "answer m"),
        (partial(encoding.encode_event, "r1"), "event 2 of run r1"),
    ):
        with pytest.raises(JournalError) as caught:
            keep(event)
        assert (caught.value.code, caught.value.message) == (
            "J004",
            f"{what} has 0.1 MiB as JSON; the journal takes 64 MiB at most",
        )


async def test_wait_durable_unknown_seq_is_refused(journal: AnyJournal) -> None:
    journal.append("r1", [begun("r1")])
    for run, seq in (("r1", 2), ("nobody", 1)):
        with pytest.raises(JournalError) as caught:
            await journal.wait_durable(run, seq)
        assert caught.value.code == "J003"


async def test_wait_durable_knows_ended_run(journal: AnyJournal) -> None:
    journal.append("r1", whole("r1"))
    for seq in (5, 5, 1):
        await journal.wait_durable("r1", seq)
        assert [event.seq for event in await journal.read("r1")] == [1, 2, 3, 4, 5]


async def test_blobs_are_stored_once(journal: AnyJournal) -> None:
    data = b"\x00bytes\xff"
    assert journal.put_blob(data) == journal.put_blob(data) == digest(data)
    assert await journal.get_blob(digest(data)) == data
    journal.append("r1", [begun("r1")])
    await journal.wait_durable("r1", 1)
    assert await journal.get_blob(digest(data)) == data
    assert await journal.get_blob("0" * 32) is None


async def test_list_runs_is_newest_first(journal: AnyJournal) -> None:
    journal.append("a", whole("a", at=10.0))
    journal.append("b", [begun("b", at=20.0), *middle(2, 3)])
    newest, oldest = await journal.list_runs()
    assert (newest.run, newest.status, newest.finished, newest.nodes) == ("b", "running", None, 3)
    assert (oldest.run, oldest.workflow, oldest.status, oldest.started, oldest.finished, oldest.nodes) == (
        "a",
        "staged",
        "done",
        10.0,
        13.0,
        1,
    )
    assert oldest.usage == SPENT
    assert [summary.run for summary in await journal.list_runs(1)] == ["b"]


async def test_find_runs_by_prefix(journal: AnyJournal) -> None:
    for run in ("01ab", "01ac", "02", "%1"):
        journal.append(run, [begun(run)])
    assert await journal.find_runs("01") == ["01ab", "01ac"]
    assert await journal.find_runs("01ab") == ["01ab"]
    assert await journal.find_runs("%") == ["%1"]
    assert await journal.find_runs("3") == []


async def test_closed_journal_refuses_appends(journal: AnyJournal) -> None:
    journal.append("r1", [begun("r1")])
    await journal.close()
    with pytest.raises(JournalError) as caught:
        journal.append("r1", middle(2, 1))
    assert caught.value.code == "J002"
    await journal.close()
