"""Opening: the connections of one journal to its file, and its presence."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path
from typing import NamedTuple

from orchestra.journal.errors import FROM_SQLITE, from_os
from orchestra.journal.sqlite.commit_loss import refuse_loss
from orchestra.journal.sqlite.commit_mark import Mark, mark_of
from orchestra.journal.sqlite.database import Durability
from orchestra.journal.sqlite.liveness import Presence
from orchestra.journal.sqlite.reader import News, Reading
from orchestra.journal.sqlite.store import Store


class Stores(NamedTuple):
    """Connections to one file: the writer's, the reader's, and one for the glance that the loop's own thread takes at a new run."""

    writing: Store
    reading: Reading
    glance: Reading
    news: News
    """Where the inboxes end at the opening."""

    def close(self) -> None:
        """Lets go of the file."""
        for connection in (self.writing, self.reading, self.glance):
            connection.close()


def connect(path: Path, durability: Durability, busy: float, max_bytes: int | None) -> tuple[Stores, Presence]:
    """The connections to a file, and this writer's presence beside it; none is left open where one cannot be had. A connection waits `busy`
    seconds for another; the file grows to `max_bytes` bytes at most. Raises `JournalError`: J025 where durable commits are missing."""
    refuse_loss(path, busy)
    with ExitStack() as stack:
        glance = stack.enter_context(closing(Reading(path, busy=busy)))
        mark = stack.enter_context(closing(Mark(mark_of(path), synced=durability != "off")))
        reading = stack.enter_context(closing(Reading(path, busy=busy, mark=mark)))
        try:
            presence = Presence(path.with_name(path.name + "-writers"))
        except OSError as error:
            raise from_os(error, str(path)) from error
        stack.callback(presence.leave)
        writing = stack.enter_context(closing(Store(path, presence, durability=durability, busy=busy, max_bytes=max_bytes, mark=mark)))
        try:
            stores = Stores(writing, reading, glance, reading.newest())
        except FROM_SQLITE as error:
            raise reading.fault(error) from error
        stack.pop_all()
        return stores, presence
