"""The journals of the crash matrix: opened in the usual way, and with points inside."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import cast

import msgspec

from orchestra.core.protocols import Journal
from orchestra.journal.sqlite.journal import SqliteJournal, open_connections
from tests.crash.points import WatchedConnection


class Place(msgspec.Struct, frozen=True):
    """Location of a journal: a file, or a schema of a Postgres database."""

    file: str = ""
    dsn: str = ""
    schema: str = ""

    def opened(self) -> AbstractAsyncContextManager[Journal]:
        """The journal."""
        if self.file:
            return cast(AbstractAsyncContextManager[Journal], SqliteJournal.open(self.file))
        from orchestra.journal.postgres.journal import PostgresJournal

        return cast(AbstractAsyncContextManager[Journal], PostgresJournal.open(self.dsn, schema=self.schema))

    def pierced(self, reach: Callable[[str], None]) -> AbstractAsyncContextManager[Journal]:
        """The journal with points inside its writes, if it has a place to insert them."""
        return _pierced(Path(self.file), reach) if self.file else self.opened()

    def left(self) -> list[str]:
        """Returns leftovers that a closed journal should not have."""
        if not self.file:
            return []
        file = Path(self.file)
        writers = file.with_name(file.name + "-writers")
        locks = [f"lock {path.name}" for path in writers.iterdir()] if writers.is_dir() else []
        return locks + [
            path.name
            for path in (file.with_name(file.name + end) for end in ("-wal", "-shm", "-journal"))
            if path.exists()
        ]


@asynccontextmanager
async def _pierced(path: Path, reach: Callable[[str], None]) -> AsyncIterator[Journal]:
    """Like `SqliteJournal.open`, with a watched connection for writes."""
    reader = ThreadPoolExecutor(1)
    stores, presence = await asyncio.get_running_loop().run_in_executor(
        reader, open_connections, path, "group", 10.0, None
    )
    # The only entry point: the store uses its connection for everything.
    stores.store.sql = WatchedConnection(stores.store.sql, reach)  # type: ignore[assignment]  # it replaces the connection
    journal = SqliteJournal(stores, presence, reader, "group")
    try:
        yield journal
    finally:
        await journal.close()


def fresh(folder: Path, template: Path | None) -> Place:
    """Returns the journal file in a folder: a copy of an empty journal, or no file yet."""
    file = folder / "journal.db"
    if template is not None:
        shutil.copyfile(template, file)
    return Place(file=str(file))
