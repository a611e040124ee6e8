"""Opens the records of the server: beside the file of the journal, in its database, or in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from orchestra.app.open_journal import database_address
from orchestra.core.settings import Settings
from orchestra.server.records import Records, SqliteRecords


def records_place(settings: Settings) -> Path | str | None:
    """Returns where the records are: the file of the journal, the address of its database, or None if it is off."""
    journal = settings.journal
    if journal == "off" or isinstance(journal, Path):
        return journal if isinstance(journal, Path) else None
    return database_address(journal)


@asynccontextmanager
async def open_records(journal: Path | str | None) -> AsyncIterator[Records]:
    """Opens the store beside a journal: a file, or the address of a database; in memory without a journal. Raises
    `OrchestraError` S010 or J030 if it cannot be opened.
    """
    if isinstance(journal, str):
        from orchestra.server.postgres_records import open_postgres_records

        async with open_postgres_records(journal) as records:
            yield records
        return
    async with SqliteRecords.open_file(journal) as file:
        yield file
