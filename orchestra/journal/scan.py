"""Runs in passing: each run of a journal once, whichever journal it is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

from orchestra.core.protocols import NO_LIMIT, Journal, Scannable, ScannedRun
from orchestra.journal.errors import JournalError


async def scan(journal: Journal, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
    """The runs that began at `since` or later, newest first; of a journal that cannot be gone through each is read.

    One that cannot be read says so. Raises `JournalError` where the journal as a whole cannot.
    """
    if isinstance(journal, Scannable):
        async with aclosing(journal.scan(since)) as runs:
            async for run in runs:
                yield run
        return
    for summary in await journal.list_runs(NO_LIMIT):
        if summary.started < since:
            return
        try:
            yield ScannedRun(summary.run, summary.started, await journal.read(summary.run))
        except JournalError as fault:
            yield ScannedRun(summary.run, summary.started, error=fault)
