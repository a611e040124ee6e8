"""Queries about many runs, for any journal: by its indexes if it has them, else by reading the events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Collection, Sequence
from contextlib import aclosing
from typing import Any

from msgspec.structs import replace

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event, RunStarted
from orchestra.core.protocols import NO_LIMIT, IndexedJournal, Journal, RunSelection, RunSummary, RunUsageResult
from orchestra.core.tags import has_tags
from orchestra.journal.errors import JournalError
from orchestra.journal.scan import scan
from orchestra.journal.summary import source_runs
from orchestra.journal.usage import usage_of


async def run_pages(journal: Journal, size: int, where: RunSelection) -> AsyncGenerator[list[RunSummary], None]:
    """Yields the runs of a selection, newest first, in pages of `size`; all at once if the journal has no indexes."""
    if not isinstance(journal, IndexedJournal):
        yield await _select_runs(journal, where)
        return
    while summaries := await journal.query_runs(size, where):
        yield summaries
        if len(summaries) < size:
            return
        where = replace(where, before=(summaries[-1].started, summaries[-1].run))


async def _select_runs(journal: Journal, selection: RunSelection) -> list[RunSummary]:
    runs = [run for run in await journal.list_runs(NO_LIMIT) if selection.since <= run.started < selection.until]
    if selection.before is not None:
        runs = [run for run in runs if (run.started, run.run) < selection.before]
    if not selection.tags:
        return runs
    tagged_runs = set[str]()
    async with aclosing(scan(journal, selection.since)) as pages:
        async for run, _, events, _ in pages:
            if events and isinstance(first := events[0], RunStarted) and has_tags(first.tags, selection.tags):
                tagged_runs.add(run)
    return [run for run in runs if run.run in tagged_runs]


async def query_usages(journal: Journal, where: RunSelection) -> AsyncGenerator[RunUsageResult, None]:
    """Yields the usage of each run of a selection, newest first; `before` is ignored. An unreadable run is reported as
    its error. Raises `JournalError` if the whole journal cannot be read.
    """
    if isinstance(journal, IndexedJournal):
        async with aclosing(journal.query_usages(where)) as usages:
            async for usage_result in usages:
                yield usage_result
        return
    async with aclosing(scan(journal, where.since)) as runs:
        async for run, start_time, events, fault in runs:
            if start_time >= where.until or not (events or fault):
                continue
            run_usage = usage_of(events)
            if fault is not None or run_usage is None or has_tags(run_usage.tags, where.tags):
                yield RunUsageResult(run, start_time, run_usage, fault)


async def first_and_last_events(journal: Journal, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
    """Returns the first and the last event of each of these runs; unreadable ones are left out."""
    if isinstance(journal, IndexedJournal):
        return await journal.first_and_last_events(runs)
    events_by_run = dict[str, tuple[Event, Event]]()
    for run in runs:
        try:
            events = await journal.read(run)
        except JournalError:
            continue
        if events:
            events_by_run[run] = events[0], events[-1]
    return events_by_run


async def derived_runs(journal: Journal, runs: Collection[str]) -> list[str]:
    """Returns other runs that contain data of these runs: forks, and runs that reused an answer or a plan."""
    if isinstance(journal, IndexedJournal):
        return await journal.derived_runs(runs)
    run_names = list[str]()
    async with aclosing(scan(journal)) as pages:
        async for run, _, events, _ in pages:
            if run not in runs and any(not source_runs(event).isdisjoint(runs) for event in events):
                run_names.append(run)
    return sorted(run_names)


async def existing_runs(journal: Journal, runs: Collection[str]) -> set[str]:
    """Returns those of these runs that exist."""
    if isinstance(journal, IndexedJournal):
        return await journal.existing_runs(runs)
    return {run for run in runs if await journal.summary(run) is not None}


async def get_memos(journal: Journal, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
    """Returns the memo entries under these keys."""
    if isinstance(journal, IndexedJournal):
        return await journal.get_memos(memos)
    memo_values = [(memo, await journal.get_memo(memo)) for memo in memos]
    return {memo: answer for memo, answer in memo_values if answer is not None}


async def delete_runs(journal: Journal, runs: Sequence[str]) -> list[OrchestraError | None]:
    """Deletes runs; returns for each why it is not deleted, or None."""
    if isinstance(journal, IndexedJournal):
        return await journal.delete_runs(runs)

    async def delete_run(run: str) -> OrchestraError | None:
        try:
            await journal.delete(run)
        except JournalError as error:
            return error
        return None

    return await asyncio.gather(*map(delete_run, runs))
