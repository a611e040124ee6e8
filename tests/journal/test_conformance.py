"""Every journal of ours keeps the laws that a user's own journal must keep; and a journal that breaks one is found out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra.doors import Letter, Message, RunSummary
from orchestra.events import Event
from orchestra.journal.error import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.postgres import PostgresJournal
from orchestra.journal.sqlite import SqliteJournal
from orchestra.testing.conformance import LAWS, Law, Open
from tests.journal.postgres_server import PostgresServer


def in_memory(kind: type[MemoryJournal] = MemoryJournal) -> Open:
    store = MemoryStore()

    @asynccontextmanager
    async def opened() -> AsyncIterator[MemoryJournal]:
        journal = kind(store)
        yield journal
        await journal.close()

    return opened


@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
async def test_memory(law: Law) -> None:
    await law.check(in_memory())


@pytest.mark.parametrize("durability", ["group", "strict"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
async def test_sqlite(law: Law, durability: Any, tmp_path: Path) -> None:
    await law.check(lambda: SqliteJournal.open(tmp_path / "j.db", durability=durability))


@pytest.mark.parametrize("durability", ["group", "strict"])
@pytest.mark.parametrize("law", LAWS, ids=lambda law: law.name)
async def test_postgres(law: Law, durability: Any, postgres: PostgresServer, schema: str) -> None:
    await law.check(lambda: PostgresJournal.open(postgres.dsn, durability=durability, schema=schema))
