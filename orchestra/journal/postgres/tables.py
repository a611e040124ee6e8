"""The journal's tables in one schema of a Postgres database: how they are made, written and asked."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import accumulate
from math import inf
from typing import Any, NamedTuple

import asyncpg
import msgspec

from orchestra.core.events import Event
from orchestra.core.protocols import Letter, Message, RunSummary, Skimmed
from orchestra.journal import AT_ONCE
from orchestra.journal.errors import JournalError, damaged, damaged_rows, ended, held, no_run
from orchestra.journal.hash_chain import Link, checked
from orchestra.journal.postgres.connections import NAMED, PRESENCE
from orchestra.journal.postgres.rows import Batch, Growth, read_summary, tally_of, turned, usable, whole
from orchestra.journal.postgres.schema import Schema
from orchestra.journal.summary import Tally, unheld
from orchestra.schema.strict_json import digest

RUNS_AT_ONCE = 500
ROWS = "SELECT r.run, r.last, r.summary, r.ended, r.holder, r.letters FROM @runs r "

_ALWAYS = """
WITH given AS (
  SELECT * FROM unnest(?::text[], ?::bigint[], ?::bigint[], ?::bigint[], ?::bytea[], ?::bytea[], ?::float8[], ?::boolean[])
    AS g (run, epoch, before, last, chain, summary, started, ended)
), mine AS (
  SELECT ?::bigint AS holder
), grown AS (
  UPDATE @runs r SET last = g.last, chain = g.chain, summary = g.summary, ended = g.ended,
    holder = CASE WHEN g.ended THEN NULL ELSE r.holder END
  FROM given g, mine
  WHERE g.before > 0 AND r.run = g.run AND r.epoch = g.epoch AND r.holder = mine.holder AND r.last = g.before AND NOT r.ended
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
  SELECT e.* FROM unnest(?::text[], ?::bigint[], ?::bytea[], ?::bytea[], ?::text[], ?::integer[]) AS e (run, seq, body, chain, big, cut)
  WHERE e.run IN (SELECT run FROM held)
)"""
# Blobs: an update that changes nothing locks the row, so that `delete` does not take away what this batch names.
# Messages: the counter's row stays locked until the commit, so that numbers grow by the order of commit.
_OPTIONAL = (
    """, kept AS (
  INSERT INTO @blobs SELECT * FROM unnest(?::text[], ?::bytea[]) ON CONFLICT (digest) DO UPDATE SET digest = excluded.digest
)""",
    """, noted AS (
  INSERT INTO @named SELECT n.* FROM unnest(?::text[], ?::text[]) AS n (run, digest) WHERE n.run IN (SELECT run FROM held)
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
  FROM unnest(?::text[], ?::bytea[], ?::bytea[], ?::boolean[]) WITH ORDINALITY AS m (run, key, body, delivered, place), counted
  WHERE m.run IN (SELECT run FROM held)
  ON CONFLICT (key) DO NOTHING
)""",
    """, tagged AS (
  INSERT INTO @tags SELECT t.* FROM unnest(?::text[], ?::text[], ?::float8[], ?::text[]) AS t (name, value, started, run)
  WHERE t.run IN (SELECT run FROM held)
  ON CONFLICT DO NOTHING
)""",
    """, copied AS (
  INSERT INTO @copies SELECT c.* FROM unnest(?::text[], ?::text[]) AS c (source, run) WHERE c.run IN (SELECT run FROM held)
  ON CONFLICT DO NOTHING
)""",
    """, used AS (
  INSERT INTO @run_usage SELECT u.* FROM unnest(?::text[], ?::bigint[], ?::bytea[], ?::bytea[]) AS u (run, last, chain, body)
  WHERE u.run IN (SELECT run FROM held)
  ON CONFLICT (run) DO UPDATE SET last = excluded.last, chain = excluded.chain, body = excluded.body
)""",
)


class Held(NamedTuple):
    """A lease that was taken over, and the end of the run's log."""

    epoch: int
    last: int
    chain: bytes
    tally: Tally


class Tables(Schema):
    """Statements over one schema. `again` in a method says that an earlier try may have gone through: each is safe to repeat."""

    # Writing

    async def touch(self, sql: asyncpg.Connection) -> None:
        """Returns where the tables may be written; nothing is. Raises what asyncpg raises."""
        await sql.execute(self._sql("UPDATE @runs SET letters = letters WHERE run = ''"))

    async def write(self, sql: asyncpg.Connection, batch: Batch, presence: int, *, again: bool) -> set[str]:
        """Puts a batch on disk in one statement, which is one transaction; gives the runs of it that are there now.

        A run is left out where its lease is not ours any more. The statement grows a run only from the event before, so that a
        batch whose first try went through after all, even after this one, changes nothing.
        """
        entries = batch.entries
        parts = (batch.blobs, batch.named, batch.memo, batch.messages, entries.tags, entries.copies, entries.usages)
        optional = tuple(map(bool, parts))
        grown = (_row(run, growth) for run, growth in sorted(batch.runs.items()))
        arguments: list[Any] = [*turned(grown, 8), presence, *turned(batch.events, 6)]
        if batch.blobs:
            # Sorted, as everything that two journals may write at once: so they do not wait for each other in a circle.
            arguments += turned(sorted(batch.blobs.items()), 2)
        if batch.named:
            arguments += turned(sorted(batch.named), 2)
        if batch.memo:
            arguments += turned(sorted((name, *entry) for name, entry in batch.memo.items()), 3)
        if batch.messages:
            arguments += [len(batch.messages), *turned(batch.messages, 4)]
        if entries.tags:
            arguments += turned(entries.tags, 4)
        if entries.copies:
            arguments += turned(sorted(copy for copy in entries.copies if usable(copy[0])), 2)
        if entries.usages:
            arguments += turned(entries.usages, 4)
        rows = await sql.fetch(_commit(self._name, *optional), *arguments)
        there = {row["run"] for row in rows}
        if again and len(there) < len(batch.runs):
            found = await sql.fetch(
                self._sql("SELECT run, last, chain FROM @runs WHERE run = ANY($1::text[])"), [run for run in batch.runs if run not in there]
            )
            there |= {run for run, last, chain in found if (batch.runs[run].last, batch.runs[run].chain) == (last, chain)}
        return there

    # Leases

    async def lease(self, sql: asyncpg.Connection, run: str, presence: int, *, again: bool) -> Held:
        """Takes a run's lease. Raises `JournalError` J022, J023, J006."""
        async with sql.transaction():
            row = await sql.fetchrow(self._sql("SELECT * FROM @runs WHERE run = $1 FOR UPDATE"), run)
            if row is None:
                raise no_run(run)
            if row["ended"]:
                raise ended(run)
            epoch = row["epoch"]
            if not (again and row["holder"] == presence):
                if await alive(sql, row["holder"]):
                    raise held(run, await who(sql, row["holder"]))
                epoch += 1
                await sql.execute(self._sql("UPDATE @runs SET epoch = $2, holder = $3 WHERE run = $1"), run, epoch, presence)
        return Held(epoch, row["last"], row["chain"], tally_of(_summary(run, row["last"], row["summary"])))

    async def release(self, sql: asyncpg.Connection, run: str, presence: int) -> None:
        """Gives a lease back where it is ours. Raises `JournalError` J023."""
        given = await sql.execute(self._sql("UPDATE @runs SET holder = NULL WHERE run = $1 AND holder = $2"), run, presence)
        if given == "UPDATE 0" and await self.end(sql, run) == 0:
            raise no_run(run)

    async def leases(self, sql: asyncpg.Connection, runs: Sequence[str]) -> dict[str, tuple[int, int | None]]:
        """Epoch and holder of those of these runs that are on disk and have not ended."""
        rows = await sql.fetch(self._sql("SELECT run, epoch, holder FROM @runs WHERE run = ANY($1::text[]) AND NOT ended"), runs)
        return {run: (epoch, holder) for run, epoch, holder in rows}

    async def lettered(self, sql: asyncpg.Connection) -> set[str]:
        """The runs that have letters, and have not ended."""
        return {row["run"] for row in await sql.fetch(self._sql("SELECT run FROM @runs WHERE letters > 0 AND NOT ended"))}

    async def end(self, sql: asyncpg.Connection, run: str) -> int:
        """The greatest `seq` of a run; 0 where it is not there."""
        return await sql.fetchval(self._sql("SELECT last FROM @runs WHERE run = $1"), run) or 0

    # The inbox

    async def post(self, sql: asyncpg.Connection, run: str, letter: Letter, name: str, since: int | None) -> int:
        """Puts a letter into the inbox, once for each `name`, and announces it; gives 0 where one behind number `since` answers the same
        question. Raises `JournalError` J023, J006."""
        async with sql.transaction():
            row = await sql.fetchrow(self._sql("SELECT ended, last, letters FROM @runs WHERE run = $1 FOR UPDATE"), run)
            if row is None:
                raise no_run(run)
            number: int | None = await sql.fetchval(self._sql("SELECT number FROM @letters WHERE id = $1"), name)
            if number is not None:
                return number
            if row["ended"]:
                raise ended(run)
            if since is not None and any(map(letter.repeats, await self.letters(sql, run, since))):
                return 0
            number = row["letters"] + 1
            body = msgspec.json.encode(msgspec.structs.replace(letter, number=number))
            await sql.execute(self._sql("UPDATE @runs SET letters = $2 WHERE run = $1"), run, number)
            await sql.execute(self._sql("INSERT INTO @letters VALUES ($1, $2, $3, $4)"), run, number, name, body)
            await sql.execute("SELECT pg_notify($1, $2)", self.channel, run)
        return number

    async def letters(self, sql: asyncpg.Connection, run: str, after: int) -> list[Letter]:
        """The letters of a run with a greater number, in order."""
        rows = await sql.fetch(self._sql("SELECT body FROM @letters WHERE run = $1 AND number > $2 ORDER BY number"), run, max(0, after))
        return [msgspec.json.decode(row["body"], type=Letter) for row in rows]

    # Memo and outbox

    async def recall(self, sql: asyncpg.Connection, memo: bytes) -> tuple[str, Any] | None:
        """The run that gave an answer, and the answer."""
        row = await sql.fetchrow(self._sql("SELECT run, value FROM @memo WHERE memo = $1"), memo)
        return None if row is None else (row["run"], msgspec.json.decode(row["value"]))

    async def outbox(self, sql: asyncpg.Connection, after: int, limit: int) -> list[Message]:
        """Messages that are not delivered, in order."""
        rows = await sql.fetch(
            self._sql("SELECT number, body FROM @outbox WHERE NOT delivered AND number > $1 ORDER BY number LIMIT $2"), after, max(0, limit)
        )
        return [msgspec.structs.replace(msgspec.json.decode(row["body"], type=Message), number=row["number"]) for row in rows]

    async def delivered(self, sql: asyncpg.Connection, numbers: Sequence[int]) -> None:
        """Marks messages as delivered."""
        await sql.execute(self._sql("UPDATE @outbox SET delivered = true WHERE number = ANY($1::bigint[])"), list(numbers))

    # Reading

    async def events(self, sql: asyncpg.Connection, run: str, after: int) -> list[Event]:
        """The events with `seq > after`.

        Raises `JournalError`: J013 where numbers, chain or end are not as they were written, J021 for an unknown kind.
        """
        # One statement, so that log and end are of one moment.
        rows = await sql.fetch(
            self._sql(
                "SELECT r.last, r.chain AS final, e.seq, e.body, e.chain, e.big, e.cut, b.data FROM @runs r"
                " LEFT JOIN @events e ON e.run = r.run AND e.seq >= $2 LEFT JOIN @blobs b ON b.digest = e.big"
                " WHERE r.run = $1 ORDER BY e.seq"
            ),
            run,
            max(0, after),
        )
        if not rows:
            return []
        links = ((row["seq"], _body(run, row) if row["seq"] > after else b"", row["chain"], "") for row in rows if row["seq"] is not None)
        return checked(run, links, (rows[0]["last"], rows[0]["final"]), after)

    async def blob(self, sql: asyncpg.Connection, name: str) -> bytes | None:
        """A blob's bytes; raises `JournalError` J013 where they are not what was stored."""
        data: bytes | None = await sql.fetchval(self._sql("SELECT data FROM @blobs WHERE digest = $1"), name)
        if data is not None and digest(data) != name:
            raise damaged_rows(f"blob {name}", "it is not what was stored")
        return data

    async def summary(self, sql: asyncpg.Connection, run: str) -> RunSummary | None:
        """The row of one run, or None."""
        rows = await sql.fetch(self._sql(ROWS + "WHERE run = $1"), run)
        return next(iter(await self._standing(sql, rows)), None)

    async def _standing(self, sql: asyncpg.Connection, rows: Sequence[asyncpg.Record]) -> list[RunSummary]:
        holders = {row["holder"] for row in rows if row["holder"] is not None}
        living = {holder for holder in holders if await alive(sql, holder)}
        found = []
        for run, last, data, over, holder, letters in rows:
            summary = _summary(run, last, data)
            if not over and holder is None:
                summary = unheld(summary, await self._legible(sql, run), letters)
            elif not over and holder not in living:
                summary = msgspec.structs.replace(summary, status="interrupted")
            elif not over:
                summary = msgspec.structs.replace(summary, holder=await who(sql, holder))
            found.append(summary)
        return found

    async def skim(self, sql: asyncpg.Connection, since: float, before: tuple[float, str] | None) -> list[Skimmed]:
        """The latest runs that began at `since` or later, and before that one, newest first: `AT_ONCE` events of them, or one run more.

        Of a run that is damaged, its row says so. Large values are left where they are, and so are no part of what is checked.
        """
        async with sql.transaction(isolation="repeatable_read", readonly=True):  # so that logs and ends are of one moment
            runs = await sql.fetch(
                self._sql(
                    "SELECT run, started, last, chain FROM @runs WHERE started >= $1 AND (started, run) < ($2, $3)"
                    " ORDER BY started DESC, run DESC LIMIT $4"
                ),
                since,
                *(before or (inf, "")),
                RUNS_AT_ONCE,
            )
            before_each = accumulate((row["last"] for row in runs), initial=0)
            runs = [row for row, many in zip(runs, before_each, strict=False) if many < AT_ONCE]
            logs = await self.logs(sql, [row["run"] for row in runs])
        return [skimmed(row, logs[row["run"]]) for row in runs]

    async def logs(self, sql: asyncpg.Connection, runs: Sequence[str]) -> dict[str, list[asyncpg.Record]]:
        """The rows of the events of these runs, in order."""
        found: dict[str, list[asyncpg.Record]] = {run: [] for run in runs}
        for event in await sql.fetch(
            self._sql("SELECT run, seq, body, chain, big, cut FROM @events WHERE run = ANY($1::text[]) ORDER BY run, seq"), runs
        ):
            found[event["run"]].append(event)
        return found

    async def _legible(self, sql: asyncpg.Connection, run: str) -> list[Event]:
        """The events of a run; none where they are damaged, which is no reason not to list the others."""
        try:
            return await self.events(sql, run, 0)
        except JournalError:
            return []

    async def find(self, sql: asyncpg.Connection, prefix: str, limit: int) -> list[str]:
        """Ids of runs that begin with the prefix, in order."""
        rows = await sql.fetch(
            self._sql("SELECT run FROM @runs WHERE run >= $1 AND run <= $2 AND starts_with(run, $1) ORDER BY run LIMIT $3"),
            prefix,
            prefix + "\U0010ffff",
            limit,
        )
        return [row["run"] for row in rows]


async def alive(sql: asyncpg.Connection, holder: int | None) -> bool:
    """Whether a journal's presence is there: it holds an advisory lock for as long as its session lives."""
    return holder is not None and not await sql.fetchval("SELECT pg_try_advisory_xact_lock_shared($1)", holder)


async def who(sql: asyncpg.Connection, holder: int) -> str:
    """The process whose session holds a presence, as its name at the server says it; empty where that tells nothing."""
    name: str | None = await sql.fetchval(
        "SELECT a.application_name FROM pg_locks AS l JOIN pg_stat_activity AS a USING (pid) WHERE l.locktype = 'advisory' AND l.granted"
        " AND l.mode = 'ExclusiveLock' AND l.objsubid = 1 AND l.classid::bigint << 32 | l.objid::bigint = $1",
        holder,
    )
    own = f"{NAMED}{PRESENCE}"
    return f"process {name.removeprefix(own)}" if name is not None and name.startswith(own) else ""


def _row(run: str, growth: Growth) -> tuple[Any, ...]:
    return run, growth.epoch, growth.before, growth.last, growth.chain, growth.summary, growth.started, growth.ended


def _body(run: str, row: asyncpg.Record) -> bytes:
    if row["big"] is None:
        body: bytes = row["body"]
        return body
    if row["data"] is None:
        raise damaged(run, row["seq"], f"its value, blob {row['big']}, is missing")
    return whole(row["body"], row["cut"], row["data"])


def skimmed(row: asyncpg.Record, log: Sequence[asyncpg.Record]) -> Skimmed:
    """A run by its log, whose large values are not at hand: of an event that has one, the hash is taken as it stands there."""
    run, started = row["run"], row["started"]
    links = map(link_of, log)
    try:
        return Skimmed(run, started, checked(run, links, (row["last"], row["chain"])))
    except JournalError as fault:
        return Skimmed(run, started, fault=fault)


def link_of(event: asyncpg.Record) -> Link:
    """The link of an event, without its value where that is kept apart."""
    if event["big"] is None:
        return event["seq"], event["body"], event["chain"], ""
    return event["seq"], whole(event["body"], event["cut"], b"null"), event["chain"], None


def _summary(run: str, seq: int, data: bytes) -> RunSummary:
    try:
        return read_summary(data)
    except msgspec.DecodeError as error:
        raise damaged(run, seq, f"its summary cannot be read ({error})") from error


@lru_cache(maxsize=256)
def _commit(schema: str, *optional: bool) -> str:
    """The statement that writes a batch, with those of the `_OPTIONAL` parts that the batch has; each `?` is the next argument."""
    parts = _ALWAYS + "".join(part for part, wanted in zip(_OPTIONAL, optional, strict=True) if wanted)
    pieces = (parts + "\nSELECT run FROM held").split("?")
    numbered = pieces[0] + "".join(f"${number}{piece}" for number, piece in enumerate(pieces[1:], 1))
    return numbered.replace("@", f"{schema}.")
