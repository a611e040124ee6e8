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
from orchestra.core.protocols import Letter
from orchestra.journal.errors import JournalError, commits_missing
from orchestra.journal.sqlite.commit_loss import compare
from orchestra.journal.sqlite.commit_mark import mark_of, read_mark
from orchestra.journal.sqlite.liveness import Others
from orchestra.journal.sqlite.queries import Answers
from orchestra.journal.sqlite.reader import Reading


class FrozenJournal(Answers):
    """Stands behind the `Journal` door; made by `FrozenJournal.open`. Whatever would write raises `JournalError` J011."""

    @classmethod
    @asynccontextmanager
    async def open(cls, path: Path) -> AsyncIterator[Self]:
        """The journal of a file, as it is: nothing is made beside it. Raises `JournalError`."""
        reader = ThreadPoolExecutor(1, thread_name_prefix="orchestra-journal-reader")
        try:
            reading = await asyncio.get_running_loop().run_in_executor(reader, partial(_whole, path))
        except BaseException:
            reader.shutdown(wait=False)
            raise
        journal = cls(reading, Others(path.with_name(path.name + "-writers")), reader)
        try:
            yield journal
        finally:
            await journal.close()

    def append(self, run: str, events: Sequence[Event], delivered: Collection[str] = ()) -> None:
        """Raises J011."""
        raise self._refusal()

    def put(self, data: bytes) -> str:
        """Raises J011."""
        raise self._refusal()

    def remember(self, memo: str, run: str, value: Any) -> None:
        """Raises J011."""
        raise self._refusal()

    async def ready(self) -> None:
        """Raises J011."""
        raise self._refusal()

    async def lease(self, run: str) -> int:
        """Raises J011."""
        raise self._refusal()

    async def release(self, run: str) -> None:
        """Raises J011."""
        raise self._refusal()

    async def post(self, run: str, letter: Letter, since: int | None = None) -> int:
        """Raises J011."""
        raise self._refusal()

    async def mail(self) -> set[str]:
        """Raises J011."""
        raise self._refusal()

    async def delivered(self, numbers: Sequence[int]) -> None:
        """Raises J011."""
        raise self._refusal()

    async def delete(self, run: str) -> None:
        """Raises J011."""
        raise self._refusal()

    async def durable(self, run: str, seq: int) -> None:
        """Raises J011."""
        raise self._refusal()

    async def close(self) -> None:
        """Lets go of the file."""
        if not self._closed:
            self._closed = True
            await asyncio.shield(self._loop.run_in_executor(self._reader, self._reading.close))
            self._reader.shutdown()

    def _refusal(self) -> JournalError:
        path = self._reading.path
        hint = f"copy {path} into a folder that you may write into, and name that with `journal:`"
        return JournalError("J011", f"the journal's folder cannot be written: {path.parent}", hint=hint)


def _whole(path: Path) -> Reading:
    """The connection to the file. Raises `JournalError`: J025 where durable commits are missing."""
    noted = read_mark(mark_of(path))
    reading = Reading(path, frozen=True)
    try:
        if noted is not None and (loss := compare(reading.sql, path, noted)) is not None:
            raise commits_missing(path, loss.what)
    except BaseException:
        reading.close()
        raise
    return reading


def is_frozen(path: Path) -> bool:
    """Whether a journal's file is there in a folder that cannot be written."""
    return path.is_file() and not os.access(path.parent, os.W_OK)
