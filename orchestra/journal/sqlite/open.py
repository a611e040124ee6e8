"""Opening: the connections of one journal to its file, and its presence."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from orchestra.journal.errors import SQLITE_ERRORS, from_os
from orchestra.journal.sqlite.commit_loss import check_no_loss
from orchestra.journal.sqlite.commit_mark import CommitMark, mark_path
from orchestra.journal.sqlite.database import Durability
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.sqlite.reader import InboxPosition, SqliteReader
from orchestra.journal.sqlite.store import SqliteStore


class SqliteConnections(NamedTuple):
    """Connections to one file: the writer's, the reader's, and one for the glance that the loop's own thread takes at a new run."""

    store: SqliteStore
    reader: SqliteReader
    lookup: SqliteReader
    inbox_position: InboxPosition
    """Where the inboxes end at the opening."""

    def close(self) -> None:
        """Lets go of the file."""
        for connection in (self.store, self.reader, self.lookup):
            connection.close()


def open_connections(path: Path, durability: Durability, busy: float, max_bytes: int | None) -> tuple[SqliteConnections, SqlitePresence]:
    """The connections to a file, and this writer's presence beside it; none is left open where one cannot be had. A connection waits `busy`
    seconds for another; the file grows to `max_bytes` bytes at most. Raises `JournalError`: J025 where durable commits are missing."""
    check_no_loss(path, busy)
    with ExitStack() as stack:
        glance = stack.enter_context(closing(SqliteReader(path, busy_timeout=busy)))
        mark = stack.enter_context(closing(CommitMark(mark_path(path), synced=durability != "off")))
        reading = stack.enter_context(closing(SqliteReader(path, busy_timeout=busy, mark=mark)))
        try:
            presence = SqlitePresence(path.with_name(path.name + "-writers"))
        except OSError as error:
            raise from_os(error, str(path)) from error
        stack.callback(presence.release)
        writing = stack.enter_context(
            closing(SqliteStore(path, presence, durability=durability, busy=busy, max_bytes=max_bytes, mark=mark))
        )
        try:
            stores = SqliteConnections(writing, reading, glance, reading.inbox_end())
        except SQLITE_ERRORS as error:
            raise reading.to_journal_error(error) from error
        stack.pop_all()
        return stores, presence
