"""The indexes of a journal in Postgres: how they are made and filled, and the questions about many runs that they answer."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from math import inf
from typing import Any, NamedTuple

import asyncpg
import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import RunSelection, RunSummary, RunUsage, RunUsageResult
from orchestra.journal import SCAN_BATCH_EVENTS
from orchestra.journal.errors import JournalError, lease_held_error, no_run_error, undelivered_error
from orchestra.journal.hash_chain import verify_ends
from orchestra.journal.postgres.rows import to_columns
from orchestra.journal.postgres.tables import SELECT_RUNS, PostgresTables, chain_link, holder_name, is_alive, scanned_run
from orchestra.journal.usage import decode_usage, encode_usage, usage_of

USAGE_BATCH_RUNS = 1000
"""Runs whose usages are read at once at most."""
_STORE_USAGES = """
INSERT INTO @run_usage SELECT r.run, r.last, r.chain, u.body
FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS u (run, last, chain, body)
JOIN @runs r ON r.run = u.run AND r.last = u.last AND r.chain = u.chain ORDER BY r.run FOR SHARE OF r
ON CONFLICT (run) DO UPDATE SET last = excluded.last, chain = excluded.chain, body = excluded.body
"""
"""The lock is for a `delete_runs` at the same time: nothing may come behind it."""


class PostgresUsages(NamedTuple):
    """What some runs used; and of those that ended, and whose usage was not stored, what is to be stored: run, last event, hash, usage."""

    found: list[RunUsageResult]
    computed: list[tuple[str, int, bytes, bytes]]


class IndexedTables(PostgresTables):
    """The tables with their indexes."""

    async def query_runs(self, sql: asyncpg.Connection, limit: int, where: RunSelection) -> list[RunSummary]:
        """The latest runs of a selection, newest first, as `summary` gives one."""
        latest, given = self._latest_runs(where, limit)
        return await self._with_status(sql, await sql.fetch(self._qualify(SELECT_RUNS + latest), *given))

    async def query_usages(self, sql: asyncpg.Connection, where: RunSelection) -> PostgresUsages:
        """What the latest runs of a selection used, newest first: some of them. Empty behind the last one."""
        latest, given = self._latest_runs(where, USAGE_BATCH_RUNS)
        columns = "SELECT r.run, r.started, r.last, r.chain, r.ended, u.last AS counted, u.chain AS final, u.body FROM @runs r"
        async with sql.transaction(isolation="repeatable_read", readonly=True):  # so that logs and ends are of one moment
            rows = await sql.fetch(self._qualify(f"{columns} LEFT JOIN @run_usage u ON u.run = r.run {latest}"), *given)
            stored = [_stored_usage(row) for row in rows]
            missing, seen = list[asyncpg.Record](), 0
            for place, (row, usage) in enumerate(zip(rows, stored, strict=True)):
                if usage is None:
                    if missing and seen + row["last"] > SCAN_BATCH_EVENTS:
                        rows, stored = rows[:place], stored[:place]
                        break
                    missing.append(row)
                    seen += row["last"]
            logs = await self.logs(sql, [row["run"] for row in missing])
        found, folded = list[RunUsageResult](), list[tuple[str, int, bytes, bytes]]()
        for row, usage in zip(rows, stored, strict=True):
            if usage is None:
                _, _, events, fault = scanned_run(row, logs[row["run"]])
                usage = usage_of(events)
                found.append(RunUsageResult(row["run"], row["started"], usage, fault))
                if usage is not None and fault is None and row["ended"]:
                    folded.append((row["run"], row["last"], row["chain"], encode_usage(usage)))
            else:
                found.append(RunUsageResult(row["run"], row["started"], usage))
        return PostgresUsages(found, folded)

    async def store_usages(self, sql: asyncpg.Connection, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Writes what runs used; of runs that are longer by now, or gone, nothing."""
        await sql.execute(self._qualify(_STORE_USAGES), *to_columns(usages, 4))

    def _latest_runs(self, where: RunSelection, limit: int) -> tuple[str, tuple[Any, ...]]:
        """What comes behind `FROM @runs r` to select the latest runs, and the arguments."""
        given: list[Any] = [where.since, where.until, *(where.before or (inf, ""))]
        joined = ""
        for place, tag in enumerate(where.tags.items()):
            name, value = len(given) + 1, len(given) + 2
            joined += f" JOIN @tags t{place} ON t{place}.run = r.run AND t{place}.name = ${name} AND t{place}.value = ${value}"
            given += tag
        of = "t0" if where.tags else "r"  # the table whose key has the runs of a tag in the order of their starts
        given.append(max(0, limit))
        return (
            f"{joined} WHERE {of}.started >= $1 AND {of}.started < $2 AND ({of}.started, {of}.run) < ($3, $4)"
            f" ORDER BY {of}.started DESC, {of}.run DESC LIMIT ${len(given)}",
            tuple(given),
        )

    async def first_and_last_events(self, sql: asyncpg.Connection, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """The first and the last event of each of these runs, without large values; those that cannot be read are left out."""
        rows = await sql.fetch(
            self._qualify(
                "SELECT r.run, r.last, r.chain AS final, e.seq, e.body, e.chain, e.big, e.cut FROM @runs r"
                " JOIN @events e ON e.run = r.run AND e.seq = ANY(ARRAY[1, r.last - 1, r.last])"
                " WHERE r.run = ANY($1::text[]) ORDER BY r.run, e.seq"
            ),
            list(runs),
        )
        logs = dict[str, list[asyncpg.Record]]()
        for row in rows:
            logs.setdefault(row["run"], []).append(row)
        found = dict[str, tuple[Event, Event]]()
        for run, log in logs.items():
            with suppress(JournalError):
                found[run] = verify_ends(run, [chain_link(row) for row in log], (log[0]["last"], log[0]["final"]))
        return found

    async def derived_runs(self, sql: asyncpg.Connection, runs: Collection[str]) -> list[str]:
        """Other runs that have something of these, in the order of their ids."""
        rows = await sql.fetch(self._qualify("SELECT DISTINCT run FROM @copies WHERE source = ANY($1::text[]) ORDER BY run"), list(runs))
        return [row["run"] for row in rows if row["run"] not in runs]

    async def existing_runs(self, sql: asyncpg.Connection, runs: Collection[str]) -> set[str]:
        """Those of these runs that are there."""
        return {row["run"] for row in await sql.fetch(self._qualify("SELECT run FROM @runs WHERE run = ANY($1::text[])"), list(runs))}

    async def get_memos(self, sql: asyncpg.Connection, memos: Collection[bytes]) -> dict[bytes, tuple[str, Any]]:
        """For each key that is there the run that gave the answer, and the answer."""
        rows = await sql.fetch(self._qualify("SELECT memo, run, value FROM @memo WHERE memo = ANY($1::bytea[])"), list(memos))
        return {memo: (run, msgspec.json.decode(value)) for memo, run, value in rows}

    async def delete_runs(self, sql: asyncpg.Connection, runs: Collection[str], *, is_retry: bool) -> dict[str, OrchestraError]:
        """Removes runs; gives why others of these runs are not removed: J022, J023, J024."""
        async with sql.transaction():
            given = list(runs)
            rows = await sql.fetch(
                self._qualify("SELECT run, holder FROM @runs WHERE run = ANY($1::text[]) ORDER BY run FOR UPDATE"), given
            )
            sent = await sql.fetch(self._qualify("SELECT DISTINCT run FROM @outbox WHERE run = ANY($1::text[]) AND NOT delivered"), given)
            refused: dict[str, OrchestraError] = {row["run"]: undelivered_error(row["run"]) for row in sent}
            if not is_retry:  # else an earlier try may have removed them
                refused |= {run: no_run_error(run) for run in set(given) - {row["run"] for row in rows}}
            holders = {holder for _, holder in rows if await is_alive(sql, holder)}
            refused |= {run: lease_held_error(run, await holder_name(sql, holder)) for run, holder in rows if holder in holders}
            gone = [run for run, _ in rows if run not in refused]
            names = [
                row["digest"] for row in await sql.fetch(self._qualify("SELECT DISTINCT digest FROM @blob_uses WHERE run = ANY($1)"), gone)
            ]
            for table in ("events", "inbox", "outbox", "memo", "blob_uses", "tags", "copies", "run_usage", "runs"):
                await sql.execute(self._qualify(f"DELETE FROM @{table} WHERE run = ANY($1::text[])"), gone)  # noqa: S608  # constants
            # Whoever writes one of these blobs again locks its row (see `_commit_statement`). So first the locks, then a look, with a new
            # snapshot, whether another run names them.
            await sql.execute(self._qualify("SELECT FROM @blobs WHERE digest = ANY($1::text[]) ORDER BY digest FOR UPDATE"), names)
            await sql.execute(
                self._qualify(
                    "DELETE FROM @blobs b WHERE digest = ANY($1::text[])"
                    " AND NOT EXISTS (SELECT FROM @blob_uses u WHERE u.digest = b.digest)"
                ),
                names,
            )
        return refused


def _stored_usage(row: asyncpg.Record) -> RunUsage | None:
    """The usage of a run as it was stored; None where none is, or that of a shorter log, or where it cannot be read."""
    if row["body"] is None or (row["counted"], row["final"]) != (row["last"], row["chain"]):
        return None
    with suppress(msgspec.DecodeError):
        usage = decode_usage(row["body"])
        return usage if usage.started == row["started"] else None
    return None
