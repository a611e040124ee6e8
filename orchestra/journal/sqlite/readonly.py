"""The journal in a file whose folder cannot be written, such as a mounted backup: it is read, and takes nothing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, Self

from orchestra.core.events import Event
from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError, commits_missing_error
from orchestra.journal.sqlite.commit_loss import compare_with_mark
from orchestra.journal.sqlite.commit_mark import mark_path, read_mark
from orchestra.journal.sqlite.liveness import PresenceFolder
from orchestra.journal.sqlite.queries import SqliteQueries
from orchestra.journal.sqlite.reader import SqliteReader


class ReadOnlyJournal(SqliteQueries):
    """Stands behind the `Journal` door; made by `ReadOnlyJournal.open`. Whatever would write raises `JournalError` J011."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The journal of a file, as it is: nothing is made beside it. Raises `JournalError`."""
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        try:
            reading = await asyncio.get_running_loop().run_in_executor(reader, partial(_open_checked, path))
        except BaseException:
            reader.shutdown(wait=False)
            raise
        journal = cls(reading, PresenceFolder(path.with_name(path.name + "-writers")), reader)
        try:
            yield journal
        finally:
            await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Raises J011."""
        raise self._read_only_error()

    def put_blob(self, data: bytes) -> str:
        """Raises J011."""
        raise self._read_only_error()

    def put_memo(self, memo: str, run: str, value: Any) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def check_writable(self) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def lease(self, run: str) -> int:
        """Raises J011."""
        raise self._read_only_error()

    async def release(self, run: str) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        """Raises J011."""
        raise self._read_only_error()

    async def wait_for_messages(self) -> set[str]:
        """Raises J011."""
        raise self._read_only_error()

    async def mark_delivered(self, numbers: Sequence[int]) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def delete(self, run: str) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def wait_durable(self, run: str, seq: int) -> None:
        """Raises J011."""
        raise self._read_only_error()

    async def close(self) -> None:
        """Lets go of the file."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._loop.run_in_executor(self._executor, self._sqlite.close))
            self._executor.shutdown()

    def _read_only_error(self) -> JournalError:
        path = self._sqlite.path
        hint = f"copy {path} into a folder that you may write into, and name that with `journal:`"
        return JournalError("J011", f"the journal's folder cannot be written: {path.parent}", hint=hint)


def _open_checked(path: Path) -> SqliteReader:
    """The connection to the file. Raises `JournalError`: J025 where durable commits are missing."""
    noted = read_mark(mark_path(path))
    reading = SqliteReader(path, read_only=True)
    try:
        if noted is not None and (loss := compare_with_mark(reading.sql, path, noted)) is not None:
            raise commits_missing_error(path, loss.description)
    except BaseException:
        reading.close()
        raise
    return reading


def is_read_only(path: Path) -> bool:
    """Whether a journal's file is there in a folder that cannot be written."""
    return path.is_file() and not os.access(path.parent, os.W_OK)
