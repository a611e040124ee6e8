"""All journals obey the conformance laws for user-defined journals; and a journal that breaks one is detected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage, OutboxMessage, RunSummary
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing.conformance.suite import CONFORMANCE_TESTS, ConformanceTest, OpenJournal, random_steps, run_steps
from tests.journal.postgres_server import PostgresServer

pytestmark = pytest.mark.slow


def in_memory(kind: type[MemoryJournal] = MemoryJournal) -> OpenJournal:
    store = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[MemoryJournal]:
        journal = kind(store)
        yield journal
        await journal.close()

    return opened


@pytest.mark.parametrize("law", CONFORMANCE_TESTS, ids=lambda law: law.name)
async def test_memory(law: ConformanceTest) -> None:
    await law.run(in_memory())


@pytest.mark.parametrize("durability", ["group", "strict"])
@pytest.mark.parametrize("law", CONFORMANCE_TESTS, ids=lambda law: law.name)
async def test_sqlite(law: ConformanceTest, durability: Any, tmp_path: Path) -> None:
    await law.run(lambda: SqliteJournal.open(tmp_path / "j.db", durability=durability))


@pytest.mark.parametrize("durability", ["group", "strict"])
@pytest.mark.parametrize("law", CONFORMANCE_TESTS, ids=lambda law: law.name)
async def test_postgres(law: ConformanceTest, durability: Any, postgres: PostgresServer, schema: str) -> None:
    await law.run(lambda: PostgresJournal.open(postgres.dsn, durability=durability, schema=schema))


@pytest.mark.parametrize("law", CONFORMANCE_TESTS, ids=lambda law: law.name)
async def test_postgres_journal_over_tcp_obeys_laws(
    law: ConformanceTest, postgres_over_tcp: PostgresServer, schema: str
) -> None:
    await law.run(lambda: PostgresJournal.open(postgres_over_tcp.dsn, schema=schema))


@pytest.mark.parametrize("seed", range(20))
async def test_sqlite_journal_equals_memory_journal(seed: int, tmp_path: Path) -> None:
    await run_steps(lambda: SqliteJournal.open(tmp_path / "j.db"), random_steps(seed))


@pytest.mark.parametrize("seed", range(20))
async def test_postgres_journal_equals_memory_journal(seed: int, postgres: PostgresServer, schema: str) -> None:
    await run_steps(lambda: PostgresJournal.open(postgres.dsn, schema=schema), random_steps(seed))


def test_laws_need_no_pytest_plugin() -> None:
    asyncio.run(CONFORMANCE_TESTS[0].run(in_memory()))


class LosesALetter(MemoryJournal):
    async def inbox(self, run: str, after: int = 0) -> list[InboxMessage]:
        return (await super().inbox(run, after))[:2]


class TakesGaps(MemoryJournal):
    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        try:
            super().append(run, events, delivered)
        except JournalError as error:
            if error.code != "J001":
                raise


class TakesAnyLease(MemoryJournal):
    async def lease(self, run: str) -> int:
        if (log := self.store.logs.get(run)) is not None:
            log.holder = None
        return await super().lease(run)


class SendsTwice(MemoryJournal):
    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        self.store.sent_keys.clear()
        super().append(run, events, delivered)


class DeliversNothing(MemoryJournal):
    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        pass


class TakesTheLastAnswer(MemoryJournal):
    def put_memo(self, memo: str, run: str, value: Any) -> None:
        self.store.memos[memo] = (run, value)


class ListsOldestFirst(MemoryJournal):
    async def list_runs(self, limit: int = 50) -> list[RunSummary]:
        return (await super().list_runs(limit))[::-1]


class ReversesTheOutbox(MemoryJournal):
    async def outbox(self, after: int = 0, limit: int = 100) -> list[OutboxMessage]:
        return (await super().outbox(after, limit))[::-1]


class ForgetsBlobs(MemoryJournal):
    async def get_blob(self, digest: str) -> bytes | None:
        return None


class DeletesAnything(MemoryJournal):
    async def delete(self, run: str) -> None:
        self.store.logs.pop(run, None)


FAULTY = {
    LosesALetter: "inbox_messages_are_numbered_and_read_after_a_number",
    TakesGaps: "a_gap_is_refused_and_nothing_kept",
    TakesAnyLease: "a_lease_is_not_taken_from_a_live_holder",
    SendsTwice: "a_message_goes_out_once_for_its_key",
    DeliversNothing: "delivered_messages_leave_the_outbox",
    TakesTheLastAnswer: "the_first_memo_value_stays",
    ListsOldestFirst: "runs_are_listed_newest_first",
    ReversesTheOutbox: "outbox_messages_come_in_order_with_their_events",
    ForgetsBlobs: "blobs_are_kept_by_digest",
    DeletesAnything: "a_run_under_way_is_not_deleted",
}


@pytest.mark.parametrize(("faulty", "law"), FAULTY.items(), ids=lambda given: getattr(given, "__name__", given))
async def test_laws_detect_defective_journal(faulty: type[MemoryJournal], law: str) -> None:
    (broken,) = (found for found in CONFORMANCE_TESTS if found.name == law)
    with pytest.raises(AssertionError):
        await broken.run(in_memory(faulty))


@pytest.mark.parametrize(
    "faulty", [LosesALetter, TakesAnyLease, SendsTwice, DeliversNothing, DeletesAnything, ReversesTheOutbox]
)
async def test_sequences_detect_defective_journal(faulty: type[MemoryJournal]) -> None:
    async def many() -> None:
        for seed in range(50):
            await run_steps(in_memory(faulty), random_steps(seed))

    with pytest.raises(AssertionError):
        await many()
