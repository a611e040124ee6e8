"""Iteration over all runs of any journal."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from math import inf

from orchestra.core.protocols import NO_LIMIT, Journal, Scannable, ScannedRun
from orchestra.journal.errors import JournalError


async def scan(journal: Journal, since: float = -inf) -> AsyncGenerator[ScannedRun, None]:
    """Yields the runs that started at `since` or later, newest first. A journal that is not `Scannable` is read run by
    run.

    A run that cannot be read is yielded with its error. Raises `JournalError` if the journal itself cannot be read.
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
