"""Tables of the journal in one schema of a Postgres database: creation, writes and queries."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from contextlib import suppress
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

import asyncpg
import msgspec

from orchestra.core.errors import OrchestraError
from orchestra.core.events import Event
from orchestra.core.protocols import (
    InboxMessage,
    OutboxMessage,
    RunSelection,
    RunSummary,
    RunUsage,
    RunUsageResult,
    ScannedRun,
)
from orchestra.journal import SCAN_BATCH_EVENTS
from orchestra.journal.errors import (
    JournalError,
    damaged_event_error,
    damaged_rows_error,
    lease_held_error,
    no_run_error,
    run_ended_error,
    undelivered_error,
)
from orchestra.journal.hash_chain import ChainLink, verify_ends, verify_log
from orchestra.journal.postgres.connections import PRESENCE_PREFIX, SESSION_PREFIX
from orchestra.journal.postgres.errors import foreign_schema_error, no_create_error, schema_version_error
from orchestra.journal.postgres.rows import (
    PostgresBatch,
    RunRowUpdate,
    decode_summary,
    is_storable,
    restore_body,
    summary_fold_of,
    to_columns,
)
from orchestra.journal.summary import SummaryFold, unleased_summary
from orchestra.journal.usage import USAGE_BATCH_RUNS, UsagePage, decode_usage, encode_usage, usage_of
from orchestra.schema.strict_json import digest

SCHEMA_VERSION = 3
"""Version of the tables below."""
MIGRATION_LOCK = 0x4F726368
"""The advisory lock for creating the tables."""

_TABLES = """
CREATE TABLE schema_version (version integer NOT NULL);
CREATE TABLE runs (
  run text COLLATE "C" PRIMARY KEY, started double precision NOT NULL, ended boolean NOT NULL,
  last bigint NOT NULL, chain bytea NOT NULL,
  summary bytea NOT NULL, epoch bigint NOT NULL, holder bigint, messages bigint NOT NULL DEFAULT 0
) WITH (fillfactor = 60);
CREATE INDEX runs_started ON runs (started, run);
CREATE TABLE events (
  run text COLLATE "C" NOT NULL, seq bigint NOT NULL, body bytea NOT NULL, chain bytea NOT NULL, big text, cut integer,
  PRIMARY KEY (run, seq)
);
CREATE TABLE blobs (digest text COLLATE "C" PRIMARY KEY, data bytea NOT NULL);
CREATE TABLE blob_uses (run text COLLATE "C" NOT NULL, digest text COLLATE "C" NOT NULL, PRIMARY KEY (run, digest));
CREATE INDEX blob_uses_digest ON blob_uses (digest);
CREATE TABLE inbox (
  run text COLLATE "C" NOT NULL, number bigint NOT NULL, id text NOT NULL UNIQUE, body bytea NOT NULL,
  PRIMARY KEY (run, number)
);
CREATE TABLE memo (memo bytea PRIMARY KEY, run text COLLATE "C" NOT NULL, value bytea NOT NULL);
CREATE INDEX memo_run ON memo (run);
CREATE TABLE outbox (
  number bigint PRIMARY KEY, run text COLLATE "C" NOT NULL, key bytea NOT NULL UNIQUE, body bytea NOT NULL,
  delivered boolean NOT NULL DEFAULT false
);
CREATE INDEX outbox_run ON outbox (run);
CREATE INDEX outbox_open ON outbox (number) WHERE NOT delivered;
CREATE TABLE counters (messages bigint NOT NULL);
INSERT INTO counters VALUES (0);
CREATE TABLE tags (
  name text COLLATE "C" NOT NULL, value text COLLATE "C" NOT NULL, started double precision NOT NULL,
  run text COLLATE "C" NOT NULL,
  PRIMARY KEY (name, value, started, run)
);
CREATE INDEX tags_run ON tags (run);
CREATE TABLE copies (source text COLLATE "C" NOT NULL, run text COLLATE "C" NOT NULL, PRIMARY KEY (source, run));
CREATE INDEX copies_run ON copies (run);
CREATE TABLE run_usage (
  run text COLLATE "C" PRIMARY KEY, last bigint NOT NULL, chain bytea NOT NULL, body bytea NOT NULL
);
"""
SCAN_BATCH_RUNS = 500
SELECT_RUNS = "SELECT r.run, r.last, r.summary, r.ended, r.holder, r.messages FROM @runs r "

_WRITE_RUNS = """
WITH given AS (
  SELECT * FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[], ?::float8[],
    ?::boolean[])
    AS g (run, epoch, before, last, chain, summary, started, ended)
), mine AS (
  SELECT ?::bigint AS holder
), grown AS (
  UPDATE @runs r SET last = g.last, chain = g.chain, summary = g.summary, ended = g.ended,
    holder = CASE WHEN g.ended THEN NULL ELSE r.holder END
  FROM given g, mine
  WHERE g.before > 0 AND r.run = g.run AND r.epoch = g.epoch AND r.holder = mine.holder AND r.last = g.before
    AND NOT r.ended
  RETURNING r.run
), begun AS (
  INSERT INTO @runs (run, started, ended, last, chain, summary, epoch, holder)
  SELECT run, started, ended, last, chain, summary, epoch, CASE WHEN ended THEN NULL ELSE mine.holder END
  FROM given, mine WHERE before = 0
  ON CONFLICT (run) DO NOTHING
  RETURNING run
), held AS (
  SELECT run FROM grown UNION ALL SELECT run FROM begun
), written AS (
  INSERT INTO @events (run, seq, body, chain, big, cut)
  SELECT e.* FROM unnest(?::text[], ?::bigint[], ?::bytea[], ?::bytea[], ?::text[], ?::integer[])
    AS e (run, seq, body, chain, big, cut)
  WHERE e.run IN (SELECT run FROM held)
)"""
# Blobs: an update without a change locks the row, so that `delete_runs` does not remove blobs that this batch uses.
# Messages: the counter's row stays locked until the commit, so that numbers increase in the order of commits.
_OPTIONAL_WRITES = (
    """, kept AS (
  INSERT INTO @blobs SELECT * FROM unnest(?::text[], ?::bytea[])
    ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest
)""",
    """, noted AS (
  INSERT INTO @blob_uses SELECT n.* FROM unnest(?::text[], ?::text[]) AS n (run, digest)
    WHERE n.run IN (SELECT run FROM held)
  ON CONFLICT DO NOTHING
)""",
    """, remembered AS (
  INSERT INTO @memo SELECT * FROM unnest(?::bytea[], ?::text[], ?::bytea[]) ON CONFLICT (memo) DO NOTHING
)""",
    """, several AS (
  SELECT ?::bigint AS many
), counted AS (
  UPDATE @counters SET messages = messages + many FROM several RETURNING messages - many AS before
), sent AS (
  INSERT INTO @outbox (number, run, key, body, delivered)
  SELECT counted.before + m.place, m.run, m.key, m.body, m.delivered
  FROM unnest(?::text[], ?::bytea[], ?::bytea[], ?::boolean[]) WITH ORDINALITY
    AS m (run, key, body, delivered, place), counted
  WHERE m.run IN (SELECT run FROM held)
  ON CONFLICT (key) DO NOTHING
)""",
    """, tagged AS (
  INSERT INTO @tags SELECT t.* FROM unnest(?::text[], ?::text[], ?::float8[], ?::text[])
    AS t (name, value, started, run)
  WHERE t.run IN (SELECT run FROM held)
  ON CONFLICT DO NOTHING
)""",
    """, copied AS (
  INSERT INTO @copies SELECT c.* FROM unnest(?::text[], ?::text[]) AS c (source, run)
    WHERE c.run IN (SELECT run FROM held)
  ON CONFLICT DO NOTHING
)""",
    """, used AS (
  INSERT INTO @run_usage SELECT u.* FROM unnest(?::text[], ?::bigint[], ?::bytea[], ?::bytea[])
    AS u (run, last, chain, body)
  WHERE u.run IN (SELECT run FROM held)
  ON CONFLICT (run) DO UPDATE SET last = excluded.last, chain = excluded.chain, body = excluded.body
)""",
)
_STORE_USAGES = """
INSERT INTO @run_usage SELECT r.run, r.last, r.chain, u.body
FROM unnest($1::text[], $2::bigint[], $3::bytea[], $4::bytea[]) AS u (run, last, chain, body)
JOIN @runs r ON r.run = u.run AND r.last = u.last AND r.chain = u.chain ORDER BY r.run FOR SHARE OF r
ON CONFLICT (run) DO UPDATE SET last = excluded.last, chain = excluded.chain, body = excluded.body
"""
"""The lock is against a concurrent `delete_runs`: no usage may be written after it."""


class AcquiredLease(NamedTuple):
    """A lease that was taken over, and the end of the run's log."""

    epoch: int
    last_seq: int
    chain: bytes
    summary_fold: SummaryFold


class PostgresTables:
    """Statements over one schema. `is_retry` in a method means that an earlier try may have succeeded; each method is
    safe to repeat.
    """

    def __init__(self, schema: str, display_name: str) -> None:
        """`display_name` is the name of the database in errors."""
        self.schema, self.display_name = schema, display_name
        self.channel = f"orchestra_{digest(schema.encode())}"
        """The channel of the notifications about inbox messages."""
        self._name = '"' + schema.replace('"', '""') + '"'

    def _qualify(self, statement: str) -> str:
        return statement.replace("@", self._name + ".")

    # Creation

    async def prepare(self, sql: asyncpg.Connection) -> None:
        """Creates schema and tables if they are missing.

        Raises:
            JournalError: J018 if the schema holds other tables, J020 if its tables have another version.
        """
        if await self._read_version(sql) is None:
            # Held by the session, not by a transaction: only a new transaction is sure to see what another one has
            # created meanwhile.
            await sql.execute("SELECT pg_advisory_lock($1)", MIGRATION_LOCK)
            try:
                if await self._read_version(sql) is None:
                    await self._create(sql)
            finally:
                await sql.execute("SELECT pg_advisory_unlock($1)", MIGRATION_LOCK)

    async def _create(self, sql: asyncpg.Connection) -> None:
        async with sql.transaction():
            if await sql.fetchval(
                "SELECT EXISTS (SELECT FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
                " WHERE n.nspname = $1)",
                self.schema,
            ):
                raise foreign_schema_error(self.schema, self.display_name)
            if not await sql.fetchval("SELECT EXISTS (SELECT FROM pg_namespace WHERE nspname = $1)", self.schema):
                database, role = await sql.fetchrow("SELECT current_database(), current_user")
                try:
                    await sql.execute(f"CREATE SCHEMA {self._name}")
                except asyncpg.InsufficientPrivilegeError as error:
                    raise no_create_error(self.schema, database, role, self.display_name) from error
            await sql.execute(f"SET LOCAL search_path TO {self._name}")
            await sql.execute(_TABLES)
            await sql.execute(self._qualify("INSERT INTO @schema_version VALUES ($1)"), SCHEMA_VERSION)

    async def _read_version(self, sql: asyncpg.Connection) -> int | None:
        """Returns the version of the tables, or None if there are none. Raises J020 for another version."""
        if await sql.fetchval("SELECT to_regclass($1)::text", f"{self._name}.schema_version") is None:
            return None
        version: int | None = await sql.fetchval(self._qualify("SELECT max(version) FROM @schema_version"))
        if version is not None and version != SCHEMA_VERSION:
            raise schema_version_error(version, SCHEMA_VERSION, self.display_name)
        return version

    # Writing

    async def check_writable(self, sql: asyncpg.Connection) -> None:
        """Returns if the tables can be written, without a change. Raises the exceptions of asyncpg."""
        await sql.execute(self._qualify("UPDATE @runs SET messages = messages WHERE run = ''"))

    async def write(self, sql: asyncpg.Connection, batch: PostgresBatch, presence: int, *, is_retry: bool) -> set[str]:
        """Writes a batch in one statement, which is one transaction. Returns the runs of the batch that are written.

        A run is left out if this journal no longer holds its lease. The statement extends a run only from the previous
        event, so a batch whose first try succeeded after all, even after this one, changes nothing.
        """
        entries = batch.entries
        parts = (
            batch.blobs,
            batch.blob_uses,
            batch.memos,
            batch.messages,
            entries.tags,
            entries.copies,
            entries.usages,
        )
        optional = tuple(map(bool, parts))
        row_updates = (_update_row(run, growth) for run, growth in sorted(batch.runs.items()))
        arguments: list[Any] = [*to_columns(row_updates, 8), presence, *to_columns(batch.events, 6)]
        if batch.blobs:
            # Sorted, like everything that two journals may write concurrently, to avoid deadlocks.
            arguments += to_columns(sorted(batch.blobs.items()), 2)
        if batch.blob_uses:
            arguments += to_columns(sorted(batch.blob_uses), 2)
        if batch.memos:
            arguments += to_columns(sorted((name, *entry) for name, entry in batch.memos.items()), 3)
        if batch.messages:
            arguments += [len(batch.messages), *to_columns(batch.messages, 4)]
        if entries.tags:
            arguments += to_columns(entries.tags, 4)
        if entries.copies:
            arguments += to_columns(sorted(copy for copy in entries.copies if is_storable(copy[0])), 2)
        if entries.usages:
            arguments += to_columns(entries.usages, 4)
        rows = await sql.fetch(_commit_statement(self._name, *optional), *arguments)
        existing_runs = {row["run"] for row in rows}
        if is_retry and len(existing_runs) < len(batch.runs):
            stored_rows = await sql.fetch(
                self._qualify("SELECT run, last, chain FROM @runs WHERE run = ANY($1::text[])"),
                [run for run in batch.runs if run not in existing_runs],
            )
            existing_runs |= {
                run
                for run, last, chain in stored_rows
                if (batch.runs[run].last_seq, batch.runs[run].chain) == (last, chain)
            }
        return existing_runs

    # Leases

    async def lease(self, sql: asyncpg.Connection, run: str, presence: int, *, is_retry: bool) -> AcquiredLease:
        """Takes a run's lease. Raises `JournalError` J022, J023, J006."""
        async with sql.transaction():
            row = await sql.fetchrow(self._qualify("SELECT * FROM @runs WHERE run = $1 FOR UPDATE"), run)
            if row is None:
                raise no_run_error(run)
            if row["ended"]:
                raise run_ended_error(run)
            epoch = row["epoch"]
            if not (is_retry and row["holder"] == presence):
                if await is_alive(sql, row["holder"]):
                    raise lease_held_error(run, await holder_name(sql, row["holder"]))
                epoch += 1
                await sql.execute(
                    self._qualify("UPDATE @runs SET epoch = $2, holder = $3 WHERE run = $1"), run, epoch, presence
                )
        return AcquiredLease(
            epoch, row["last"], row["chain"], summary_fold_of(_summary(run, row["last"], row["summary"]))
        )

    async def release(self, sql: asyncpg.Connection, run: str, presence: int) -> None:
        """Releases a lease if this journal holds it. Raises `JournalError` J023."""
        command_status = await sql.execute(
            self._qualify("UPDATE @runs SET holder = NULL WHERE run = $1 AND holder = $2"), run, presence
        )
        if command_status == "UPDATE 0" and await self.last_seq(sql, run) == 0:
            raise no_run_error(run)

    async def leases(self, sql: asyncpg.Connection, runs: Sequence[str]) -> dict[str, tuple[int, int | None]]:
        """Returns epoch and holder of the runs that exist and have not ended."""
        rows = await sql.fetch(
            self._qualify("SELECT run, epoch, holder FROM @runs WHERE run = ANY($1::text[]) AND NOT ended"), runs
        )
        return {run: (epoch, holder) for run, epoch, holder in rows}

    async def runs_with_messages(self, sql: asyncpg.Connection) -> set[str]:
        """Returns the open runs that have inbox messages."""
        return {
            row["run"]
            for row in await sql.fetch(self._qualify("SELECT run FROM @runs WHERE messages > 0 AND NOT ended"))
        }

    async def last_seq(self, sql: asyncpg.Connection, run: str) -> int:
        """Returns the greatest `seq` of a run; 0 for an unknown run."""
        return await sql.fetchval(self._qualify("SELECT last FROM @runs WHERE run = $1"), run) or 0

    # The inbox

    async def send(self, sql: asyncpg.Connection, run: str, message: InboxMessage, name: str, since: int | None) -> int:
        """Adds a message to the inbox, once for each `name`, and notifies. Returns 0 if a message after `since` answers
        the same question. Raises `JournalError` J023, J006.
        """
        async with sql.transaction():
            row = await sql.fetchrow(
                self._qualify("SELECT ended, last, messages FROM @runs WHERE run = $1 FOR UPDATE"), run
            )
            if row is None:
                raise no_run_error(run)
            number: int | None = await sql.fetchval(self._qualify("SELECT number FROM @inbox WHERE id = $1"), name)
            if number is not None:
                return number
            if row["ended"]:
                raise run_ended_error(run)
            if since is not None and any(map(message.answers_same_question, await self.inbox(sql, run, since))):
                return 0
            number = row["messages"] + 1
            body = msgspec.json.encode(msgspec.structs.replace(message, number=number))
            await sql.execute(self._qualify("UPDATE @runs SET messages = $2 WHERE run = $1"), run, number)
            await sql.execute(self._qualify("INSERT INTO @inbox VALUES ($1, $2, $3, $4)"), run, number, name, body)
            await sql.execute("SELECT pg_notify($1, $2)", self.channel, run)
        return number

    async def inbox(self, sql: asyncpg.Connection, run: str, after: int) -> list[InboxMessage]:
        """Returns the inbox messages of a run with a greater number, in order."""
        rows = await sql.fetch(
            self._qualify("SELECT body FROM @inbox WHERE run = $1 AND number > $2 ORDER BY number"), run, max(0, after)
        )
        return [msgspec.json.decode(row["body"], type=InboxMessage) for row in rows]

    # Memo and outbox

    async def get_memo(self, sql: asyncpg.Connection, memo: bytes) -> tuple[str, Any] | None:
        """Returns the run that produced an answer, and the answer."""
        row = await sql.fetchrow(self._qualify("SELECT run, value FROM @memo WHERE memo = $1"), memo)
        return None if row is None else (row["run"], msgspec.json.decode(row["value"]))

    async def outbox(self, sql: asyncpg.Connection, after: int, limit: int) -> list[OutboxMessage]:
        """Returns the messages that are not delivered, in order."""
        rows = await sql.fetch(
            self._qualify(
                "SELECT number, body FROM @outbox WHERE NOT delivered AND number > $1 ORDER BY number LIMIT $2"
            ),
            after,
            max(0, limit),
        )
        return [
            msgspec.structs.replace(msgspec.json.decode(row["body"], type=OutboxMessage), number=row["number"])
            for row in rows
        ]

    async def mark_delivered(self, sql: asyncpg.Connection, numbers: Sequence[int]) -> None:
        """Marks messages as delivered."""
        await sql.execute(
            self._qualify("UPDATE @outbox SET delivered = true WHERE number = ANY($1::bigint[])"), list(numbers)
        )

    # Queries of one run

    async def events(self, sql: asyncpg.Connection, run: str, after: int) -> list[Event]:
        """Returns the events with `seq > after`.

        Raises:
            JournalError: J013 if numbers, hashes or end were altered, J021 for an unknown kind.
        """
        # One statement, so that log and end are consistent.
        rows = await sql.fetch(
            self._qualify(
                "SELECT r.last, r.chain AS final, e.seq, e.body, e.chain, e.big, e.cut, b.data FROM @runs r"
                " LEFT JOIN @events e ON e.run = r.run AND e.seq >= $2 LEFT JOIN @blobs b ON b.digest = e.big"
                " WHERE r.run = $1 ORDER BY e.seq"
            ),
            run,
            max(0, after),
        )
        if not rows:
            return []
        links = (
            (row["seq"], _full_body(run, row) if row["seq"] > after else b"", row["chain"], "")
            for row in rows
            if row["seq"] is not None
        )
        return verify_log(run, links, (rows[0]["last"], rows[0]["final"]), after)

    async def get_blob(self, sql: asyncpg.Connection, name: str) -> bytes | None:
        """Returns the bytes of a blob. Raises `JournalError` J013 if they were altered."""
        data: bytes | None = await sql.fetchval(self._qualify("SELECT data FROM @blobs WHERE digest = $1"), name)
        if data is not None and digest(data) != name:
            raise damaged_rows_error(f"blob {name}", "it was altered")
        return data

    async def summary(self, sql: asyncpg.Connection, run: str) -> RunSummary | None:
        """Returns the summary of one run, or None."""
        rows = await sql.fetch(self._qualify(SELECT_RUNS + "WHERE run = $1"), run)
        return next(iter(await self._with_status(sql, rows)), None)

    async def _with_status(self, sql: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> list[RunSummary]:
        holders = {row["holder"] for row in rows if row["holder"] is not None}
        living = {holder for holder in holders if await is_alive(sql, holder)}
        summaries = []
        for run, last, data, over, holder, messages in rows:
            summary = _summary(run, last, data)
            if not over and holder is None:
                summary = unleased_summary(summary, await self._readable_events(sql, run), messages)
            elif not over and holder not in living:
                summary = msgspec.structs.replace(summary, status="interrupted")
            elif not over:
                summary = msgspec.structs.replace(summary, holder=await holder_name(sql, holder))
            summaries.append(summary)
        return summaries

    async def scan(self, sql: asyncpg.Connection, since: float, before: tuple[float, str] | None) -> list[ScannedRun]:
        """Returns the latest runs that started at `since` or later and before `before`, newest first.

        They have at most `SCAN_BATCH_EVENTS` events in total, or are one run. A damaged run has its error. Large values
        are neither read nor checked.
        """
        async with sql.transaction(isolation="repeatable_read", readonly=True):  # so that logs and ends are consistent
            runs = await sql.fetch(
                self._qualify(
                    "SELECT run, started, last, chain FROM @runs WHERE started >= $1 AND (started, run) < ($2, $3)"
                    " ORDER BY started DESC, run DESC LIMIT $4"
                ),
                since,
                *(before or (inf, "")),
                SCAN_BATCH_RUNS,
            )
            before_each = accumulate((row["last"] for row in runs), initial=0)
            runs = [row for row, event_count in zip(runs, before_each, strict=False) if event_count < SCAN_BATCH_EVENTS]
            logs = await self.logs(sql, [row["run"] for row in runs])
        return [scanned_run(row, logs[row["run"]]) for row in runs]

    async def logs(self, sql: asyncpg.Connection, runs: Sequence[str]) -> dict[str, list[asyncpg.Record]]:
        """Returns the rows of the events of these runs, in order."""
        logs: dict[str, list[asyncpg.Record]] = {run: [] for run in runs}
        for event in await sql.fetch(
            self._qualify(
                "SELECT run, seq, body, chain, big, cut FROM @events WHERE run = ANY($1::text[]) ORDER BY run, seq"
            ),
            runs,
        ):
            logs[event["run"]].append(event)
        return logs

    async def _readable_events(self, sql: asyncpg.Connection, run: str) -> list[Event]:
        """Returns the events of a run; none if they are damaged, so that the other runs can be listed."""
        try:
            return await self.events(sql, run, 0)
        except JournalError:
            return []

    async def find_runs(self, sql: asyncpg.Connection, prefix: str, limit: int) -> list[str]:
        """Returns ids of runs with this prefix, in order."""
        rows = await sql.fetch(
            self._qualify(
                "SELECT run FROM @runs WHERE run >= $1 AND run <= $2 AND starts_with(run, $1) ORDER BY run LIMIT $3"
            ),
            prefix,
            prefix + "\U0010ffff",
            limit,
        )
        return [row["run"] for row in rows]

    # Queries over many runs

    async def query_runs(self, sql: asyncpg.Connection, limit: int, where: RunSelection) -> list[RunSummary]:
        """Returns the latest runs of a selection, newest first."""
        latest, parameters = self._latest_runs(where, limit)
        return await self._with_status(sql, await sql.fetch(self._qualify(SELECT_RUNS + latest), *parameters))

    async def query_usages(self, sql: asyncpg.Connection, where: RunSelection) -> UsagePage:
        """Returns a page of usages of a selection, newest first. It is empty after the last run."""
        latest, parameters = self._latest_runs(where, USAGE_BATCH_RUNS)
        columns = (
            "SELECT r.run, r.started, r.last, r.chain, r.ended, u.last AS counted, u.chain AS final, u.body"
            " FROM @runs r"
        )
        async with sql.transaction(isolation="repeatable_read", readonly=True):  # so that logs and ends are consistent
            rows = await sql.fetch(
                self._qualify(f"{columns} LEFT JOIN @run_usage u ON u.run = r.run {latest}"), *parameters
            )
            run_usage = [_stored_usage(row) for row in rows]
            missing, scanned_count = list[asyncpg.Record](), 0
            for place, (row, usage) in enumerate(zip(rows, run_usage, strict=True)):
                if usage is None:
                    if missing and scanned_count + row["last"] > SCAN_BATCH_EVENTS:
                        rows, run_usage = rows[:place], run_usage[:place]
                        break
                    missing.append(row)
                    scanned_count += row["last"]
            logs = await self.logs(sql, [row["run"] for row in missing])
        usage_results, folded_rows = list[RunUsageResult](), list[tuple[str, int, bytes, bytes]]()
        for row, usage in zip(rows, run_usage, strict=True):
            if usage is None:
                _, _, events, fault = scanned_run(row, logs[row["run"]])
                usage = usage_of(events)
                usage_results.append(RunUsageResult(row["run"], row["started"], usage, fault))
                if usage is not None and fault is None and row["ended"]:
                    folded_rows.append((row["run"], row["last"], row["chain"], encode_usage(usage)))
            else:
                usage_results.append(RunUsageResult(row["run"], row["started"], usage))
        return UsagePage(usage_results, folded_rows)

    async def store_usages(self, sql: asyncpg.Connection, usages: Sequence[tuple[str, int, bytes, bytes]]) -> None:
        """Writes usages. Runs that are longer by now, or deleted, are skipped."""
        await sql.execute(self._qualify(_STORE_USAGES), *to_columns(usages, 4))

    def _latest_runs(self, selection: RunSelection, limit: int) -> tuple[str, tuple[Any, ...]]:
        """Returns the part of a statement after `FROM @runs r` that selects the latest runs, and its arguments."""
        parameters: list[Any] = [selection.since, selection.until, *(selection.before or (inf, ""))]
        join_clause = ""
        for place, tag in enumerate(selection.tags.items()):
            name, value = len(parameters) + 1, len(parameters) + 2
            join_clause += f" JOIN @tags t{place} ON t{place}.run = r.run"
            join_clause += f" AND t{place}.name = ${name} AND t{place}.value = ${value}"
            parameters += tag
        of = "t0" if selection.tags else "r"  # the table whose key has the runs of a tag in the order of their starts
        parameters.append(max(0, limit))
        return (
            f"{join_clause} WHERE {of}.started >= $1 AND {of}.started < $2 AND ({of}.started, {of}.run) < ($3, $4)"
            f" ORDER BY {of}.started DESC, {of}.run DESC LIMIT ${len(parameters)}",
            tuple(parameters),
        )

    async def first_and_last_events(
        self, sql: asyncpg.Connection, runs: Collection[str]
    ) -> dict[str, tuple[Event, Event]]:
        """Returns the first and the last event of each run, without large values. Runs that cannot be read are left
        out.
        """
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
        events_by_run = dict[str, tuple[Event, Event]]()
        for run, log in logs.items():
            with suppress(JournalError):
                events_by_run[run] = verify_ends(
                    run, [chain_link(row) for row in log], (log[0]["last"], log[0]["final"])
                )
        return events_by_run

    async def derived_runs(self, sql: asyncpg.Connection, runs: Collection[str]) -> list[str]:
        """Returns the other runs that copy from these, in the order of their ids."""
        rows = await sql.fetch(
            self._qualify("SELECT DISTINCT run FROM @copies WHERE source = ANY($1::text[]) ORDER BY run"), list(runs)
        )
        return [row["run"] for row in rows if row["run"] not in runs]

    async def existing_runs(self, sql: asyncpg.Connection, runs: Collection[str]) -> set[str]:
        """Returns the ids that belong to existing runs."""
        return {
            row["run"]
            for row in await sql.fetch(self._qualify("SELECT run FROM @runs WHERE run = ANY($1::text[])"), list(runs))
        }

    async def get_memos(self, sql: asyncpg.Connection, memos: Collection[bytes]) -> dict[bytes, tuple[str, Any]]:
        """Returns run and answer for each known key."""
        rows = await sql.fetch(
            self._qualify("SELECT memo, run, value FROM @memo WHERE memo = ANY($1::bytea[])"), list(memos)
        )
        return {memo: (run, msgspec.json.decode(value)) for memo, run, value in rows}

    async def delete_runs(
        self, sql: asyncpg.Connection, runs: Collection[str], *, is_retry: bool
    ) -> dict[str, OrchestraError]:
        """Deletes runs. Returns errors by run for the runs that cannot be deleted: J022, J023, J024."""
        async with sql.transaction():
            run_names = list(runs)
            rows = await sql.fetch(
                self._qualify("SELECT run, holder FROM @runs WHERE run = ANY($1::text[]) ORDER BY run FOR UPDATE"),
                run_names,
            )
            undelivered_rows = await sql.fetch(
                self._qualify("SELECT DISTINCT run FROM @outbox WHERE run = ANY($1::text[]) AND NOT delivered"),
                run_names,
            )
            errors: dict[str, OrchestraError] = {row["run"]: undelivered_error(row["run"]) for row in undelivered_rows}
            if not is_retry:  # otherwise an earlier try may have removed them
                errors |= {run: no_run_error(run) for run in set(run_names) - {row["run"] for row in rows}}
            holders = {holder for _, holder in rows if await is_alive(sql, holder)}
            errors |= {
                run: lease_held_error(run, await holder_name(sql, holder)) for run, holder in rows if holder in holders
            }
            deleted_runs = [run for run, _ in rows if run not in errors]
            names = [
                row["digest"]
                for row in await sql.fetch(
                    self._qualify("SELECT DISTINCT digest FROM @blob_uses WHERE run = ANY($1)"), deleted_runs
                )
            ]
            for table in ("events", "inbox", "outbox", "memo", "blob_uses", "tags", "copies", "run_usage", "runs"):
                await sql.execute(self._qualify(f"DELETE FROM @{table} WHERE run = ANY($1::text[])"), deleted_runs)  # noqa: S608  # constants
            # A journal that writes one of these blobs again locks its row (see `_commit_statement`). So the rows are
            # locked first, and then, with a new snapshot, checked for uses by other runs.
            await sql.execute(
                self._qualify("SELECT FROM @blobs WHERE digest = ANY($1::text[]) ORDER BY digest FOR UPDATE"), names
            )
            await sql.execute(
                self._qualify(
                    "DELETE FROM @blobs b WHERE digest = ANY($1::text[])"
                    " AND NOT EXISTS (SELECT FROM @blob_uses u WHERE u.digest = b.digest)"
                ),
                names,
            )
        return errors


async def is_alive(sql: asyncpg.Connection, holder: int | None) -> bool:
    """Returns whether a journal's presence is alive: it holds an advisory lock as long as its session lives."""
    return holder is not None and not await sql.fetchval("SELECT pg_try_advisory_xact_lock_shared($1)", holder)


async def holder_name(sql: asyncpg.Connection, holder: int) -> str:
    """Returns the process of a presence, from the name of its session; empty if it is unknown."""
    name: str | None = await sql.fetchval(
        "SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid)"
        " WHERE l.locktype = 'advisory' AND l.granted"
        " AND l.mode = 'ExclusiveLock' AND l.objsubid = 1 AND l.classid::bigint << 32 | l.objid::bigint = $1",
        holder,
    )
    prefix = f"{SESSION_PREFIX}{PRESENCE_PREFIX}"
    return f"process {name.removeprefix(prefix)}" if name is not None and name.startswith(prefix) else ""


def _update_row(run: str, growth: RunRowUpdate) -> tuple[Any, ...]:
    return (
        run,
        growth.epoch,
        growth.previous_seq,
        growth.last_seq,
        growth.chain,
        growth.summary,
        growth.started,
        growth.is_ended,
    )


def _full_body(run: str, row: asyncpg.Record) -> bytes:
    if row["big"] is None:
        body: bytes = row["body"]
        return body
    if row["data"] is None:
        raise damaged_event_error(run, row["seq"], f"its value, blob {row['big']}, is missing")
    return restore_body(row["body"], row["cut"], row["data"])


def scanned_run(row: asyncpg.Record, log: Sequence[asyncpg.Record]) -> ScannedRun:
    """Returns a run from its log without large values. For an event with a separate value, the stored hash is used."""
    run, start_time = row["run"], row["started"]
    links = map(chain_link, log)
    try:
        return ScannedRun(run, start_time, verify_log(run, links, (row["last"], row["chain"])))
    except JournalError as fault:
        return ScannedRun(run, start_time, error=fault)


def chain_link(event: asyncpg.Record) -> ChainLink:
    """Returns the link of an event, without its separate value."""
    if event["big"] is None:
        return event["seq"], event["body"], event["chain"], ""
    return event["seq"], restore_body(event["body"], event["cut"], b"null"), event["chain"], None


def _summary(run: str, seq: int, data: bytes) -> RunSummary:
    try:
        return decode_summary(data)
    except msgspec.DecodeError as error:
        raise damaged_event_error(run, seq, f"its summary cannot be read ({error})") from error


@lru_cache(maxsize=256)
def _commit_statement(schema: str, *optional: bool) -> str:
    """Returns the statement that writes a batch, with the parts of `_OPTIONAL_WRITES` that the batch needs; each `?` is
    the next argument.
    """
    parts = _WRITE_RUNS + "".join(part for part, is_needed in zip(_OPTIONAL_WRITES, optional, strict=True) if is_needed)
    pieces = (parts + "\nSELECT run FROM held").split("?")
    statement_text = pieces[0] + "".join(f"${number}{piece}" for number, piece in enumerate(pieces[1:], 1))
    return statement_text.replace("@", f"{schema}.")


def _stored_usage(row: asyncpg.Record) -> RunUsage | None:
    """Returns the stored usage of a run; None if there is none, if it belongs to a shorter log, or if it cannot be
    decoded.
    """
    if row["body"] is None or (row["counted"], row["final"]) != (row["last"], row["chain"]):
        return None
    with suppress(msgspec.DecodeError):
        usage = decode_usage(row["body"])
        return usage if usage.started == row["started"] else None
    return None
