"""The connection for queries. Every result is as it was written, or a coded error is raised. Synchronous."""

from __future__ import annotations

import sqlite3
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from math import inf
from typing import Any, NamedTuple

import msgspec

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
from orchestra.journal.encoding import with_value
from orchestra.journal.errors import JournalError, damaged_event_error, damaged_rows_error
from orchestra.journal.hash_chain import verify_ends, verify_log
from orchestra.journal.sqlite.database import COLUMNS, RunRow, SqliteFile, parse_row, read_row, row_checksum
from orchestra.journal.sqlite.operations import message_count, read_message
from orchestra.journal.summary import unleased_summary
from orchestra.journal.usage import ALL_RUNS, USAGE_BATCH_RUNS, UsagePage, decode_usage, encode_usage, usage_of
from orchestra.schema.strict_json import digest

VACUUM_PAGES = 256
"""Pages that one step of `compact` frees; others may write between two steps."""

_JOIN_RUNS = "LEFT JOIN runs ON runs.run = latest.run LEFT JOIN run_usage ON run_usage.run = latest.run"
_USAGE_COLUMNS = (
    "CAST(runs.last AS INTEGER), CAST(runs.chain AS BLOB), runs.status = 'running', CAST(run_usage.body AS BLOB),"
    " run_usage.checksum"
)
_SELECT_ENDS = (
    "SELECT seq, CAST(body AS BLOB), CAST(chain AS BLOB), ifnull(CAST(big AS TEXT), '') FROM events"
    " WHERE run = ? AND (seq = 1 OR seq >= ?) ORDER BY seq"
)

_decode_value = msgspec.json.Decoder().decode


class InboxPosition(NamedTuple):
    """State of the inboxes: the version of the file, the last place, and the runs with new messages."""

    version: int
    place: int
    runs: frozenset[str] = frozenset()


class SqliteReader(SqliteFile):
    """Synchronous queries of the journal."""

    _compared: object = None
    """The list that was compared last, with the version of the file."""
    _tagged_runs: tuple[int, Mapping[str, str], list[tuple[float, str]]] | None = None
    """The last result of a search by tags, with the version of the file."""

    def row(self, run: str) -> RunRow | None:
        """Returns the run's row, or None."""
        return read_row(self.sql, run)

    def events(self, run: str, after: int) -> list[Event]:
        """Returns the events with `seq > after`.

        Raises:
            JournalError: J013 if numbers, hashes, end or a large value were altered, J021 for an unknown kind.
        """
        with self._snapshot() as sql:
            return self._events(sql, run, after)

    def unleased_summary(self, summary: RunSummary) -> RunSummary:
        """Returns the summary of a run without a lease, with its status. A run with damaged events, or a damaged number
        of messages, is `interrupted`, so that the other runs can be listed.
        """
        try:
            with self._snapshot() as sql:
                return unleased_summary(summary, self._events(sql, summary.run, 0), message_count(sql, summary.run))
        except JournalError:
            return msgspec.structs.replace(summary, status="interrupted")

    def _events(self, sql: sqlite3.Connection, run: str, after: int) -> list[Event]:
        end = sql.execute(
            "SELECT CAST(last AS INTEGER), CAST(chain AS BLOB) FROM runs WHERE run = ?", (run,)
        ).fetchone()
        return self._read_log(run, after, end or (0, run.encode()), with_values=True)

    def _read_log(self, run: str, after: int, end: tuple[int, bytes], *, with_values: bool) -> list[Event]:
        """Returns the events with `seq > after` of a log with this end; `with_values` restores values that are stored
        separately.
        """
        rows = self.sql.execute(
            "SELECT seq, CAST(body AS BLOB), CAST(chain AS BLOB), ifnull(CAST(big AS TEXT), '') FROM events"
            " WHERE run = ? AND seq >= ? ORDER BY seq",
            (run, max(0, after)),
        ).fetchall()
        events = verify_log(run, rows, end, after)
        if not with_values:
            return events
        values = [big for seq, _, _, big in rows if seq > after]
        return [
            self._restore_value(run, event, big) if big else event for event, big in zip(events, values, strict=True)
        ]

    def scan(self, since: float, before: tuple[Any, str] | None) -> list[ScannedRun]:
        """Returns the latest runs that started at `since` or later and before `before`, newest first.

        They have at most `SCAN_BATCH_EVENTS` events in total, or are one run. A damaged run has its error.

        Raises:
            JournalError: J013 if the list of runs is damaged.
        """
        with self._snapshot() as sql:
            if before is None:
                scan_count, index_count = (
                    _count_rows(sql, f"runs {index} WHERE started >= ?", since)
                    for index in ("NOT INDEXED", "INDEXED BY runs_started")
                )
                if scan_count != index_count:
                    raise damaged_rows_error("the list of runs", "table and index differ")
            # The keys as stored in the index, of any type: the next page starts after them.
            condition, keys = ("AND (started, run) < (?, ?)", before) if before is not None else ("", ())
            scanned_runs: list[ScannedRun] = []
            scanned_count = 0
            for start_time, run in sql.execute(
                f"SELECT started, run FROM runs INDEXED BY runs_started WHERE started >= ? {condition}"  # noqa: S608
                " ORDER BY started DESC, run DESC LIMIT ?",
                (since, *keys, SCAN_BATCH_EVENTS),
            ):
                scanned_runs.append(self._scanned_run(run, start_time))
                if (scanned_count := scanned_count + len(scanned_runs[-1].events)) >= SCAN_BATCH_EVENTS:
                    break
            return scanned_runs

    def _scanned_run(self, run: str, start_time: Any) -> ScannedRun:
        try:
            row = self.row(run)
            if row is None or row.summary_fold.started != start_time or not isinstance(run, str):
                raise damaged_rows_error("the list of runs", f"table and index differ about run {run}")
            return ScannedRun(run, start_time, self._read_log(run, 0, (row.last_seq, row.chain), with_values=False))
        except JournalError as fault:
            return ScannedRun(run, start_time, error=fault)

    def get_blob(self, name: str) -> bytes | None:
        """Returns the bytes of a blob. Raises `JournalError` J013 if they were altered."""
        row = self.sql.execute("SELECT CAST(data AS BLOB) FROM blobs WHERE digest = ?", (name,)).fetchone()
        if row is None:
            return None
        data: bytes = row[0]
        if digest(data) != name:
            raise damaged_rows_error(f"blob {name}", "it was altered")
        return data

    def summaries(self, limit: int, where: RunSelection = ALL_RUNS) -> list[tuple[RunSummary, str]]:
        """Returns the latest runs of a selection, newest first, each with the name of its writer. Raises `JournalError`
        J013.
        """
        summaries = []
        before: tuple[float, str] | None = None
        with self._snapshot():
            for run, start_time, *values, checksum, stored_run in self._latest_runs(
                where, limit, f"{COLUMNS}, runs.checksum, runs.run"
            ):
                if (
                    stored_run is None
                    or start_time != values[2]
                    or (before is not None and before <= (start_time, run))
                ):
                    raise damaged_rows_error("the list of runs", "its order was altered")
                before = start_time, run
                row = parse_row(run, values, checksum)
                summaries.append((row.summary_fold.summary(), row.writer))
        return summaries

    def query_usages(self, where: RunSelection) -> UsagePage:
        """Returns a page of usages of a selection, newest first. It is empty after the last run. A run that cannot be
        read has its error.

        Raises:
            JournalError: J013 if the list of runs is damaged.
        """
        usage_results, folded_rows, scanned_count = list[RunUsageResult](), list[tuple[str, int, bytes, bytes]](), 0
        with self._snapshot():
            for run, start_time, last, chain, open_, body, checksum in self._latest_runs(
                where, USAGE_BATCH_RUNS, _USAGE_COLUMNS
            ):
                run_usage = _stored_usage(run, last, chain, body, checksum)
                if run_usage is not None and run_usage.started == start_time:
                    usage_results.append(RunUsageResult(run, start_time, run_usage))
                    continue
                events, fault = self._scanned_run(run, start_time)[2:]
                run_usage = usage_of(events)
                usage_results.append(RunUsageResult(run, start_time, run_usage, fault))
                if run_usage is not None and fault is None and not open_:
                    folded_rows.append((run, last, chain, encode_usage(run_usage)))
                if (scanned_count := scanned_count + len(events)) >= SCAN_BATCH_EVENTS:
                    break
        return UsagePage(usage_results, folded_rows)

    def _latest_runs(self, selection: RunSelection, limit: int, columns: str) -> Iterator[Any]:
        """Returns `run`, `started`, and columns of the row and the usage of the latest runs of a selection, newest
        first.

        Raises:
            JournalError: J013 if table and index differ for the runs of the selection.
        """
        if selection.tags:
            latest = f"(SELECT ? AS begun, ? AS run) AS latest {_JOIN_RUNS}"
            statement = f"SELECT latest.run, latest.begun, {columns} FROM {latest}"  # noqa: S608  # constants
            for start_time, run in self._latest_tagged(selection, limit):
                yield self.sql.execute(statement, (start_time, run)).fetchone()
            return
        within, period = _period_condition(selection)
        self._check_run_index(f" WHERE {within}" if period else "", period)
        behind, keys = (" AND (started, run) < (?, ?)", selection.before) if selection.before is not None else ("", ())
        latest = f"runs INDEXED BY runs_started WHERE {within}{behind} ORDER BY started DESC, run DESC LIMIT ?"
        yield from self.sql.execute(
            f"SELECT latest.run, latest.begun, {columns}"  # noqa: S608
            f" FROM (SELECT run, started AS begun FROM {latest}) AS latest {_JOIN_RUNS}",
            (*period, *keys, max(0, limit)),
        )

    def _check_run_index(self, condition: str, period: tuple[float, ...]) -> None:
        """Compares table and index of the list of runs, once per version of the file, for any number of pages."""
        index_state = self.sql.execute("PRAGMA data_version").fetchone()[0], condition, period
        if self._compared != index_state:
            scan_count, index_count = (
                _count_rows(self.sql, f"runs {index}{condition}", *period)
                for index in ("NOT INDEXED", "INDEXED BY runs_started")
            )
            if scan_count != index_count:
                raise damaged_rows_error("the list of runs", "table and index differ")
            self._compared = index_state

    def _latest_tagged(self, selection: RunSelection, limit: int) -> list[tuple[float, str]]:
        """Returns start and id of the latest runs of a selection by tags, newest first. Raises `JournalError` J013 if
        table and index differ.
        """
        version: int = self.sql.execute("PRAGMA data_version").fetchone()[0]
        if self._tagged_runs is None or self._tagged_runs[:2] != (version, selection.tags):
            run_sets = [self._runs_with_tag(*tag) for tag in selection.tags.items()]
            self._tagged_runs = (
                version,
                selection.tags,
                sorted(set(run_sets[0]).intersection(*run_sets[1:]), reverse=True),
            )
        tagged_runs = (
            key
            for key in self._tagged_runs[2]
            if selection.since <= key[0] < selection.until and (selection.before is None or key < selection.before)
        )
        return list(islice(tagged_runs, max(0, limit)))

    def _runs_with_tag(self, name: str, value: str) -> set[tuple[float, str]]:
        """Returns start and id of the runs with a tag. The rows found by the search are compared with all rows of the
        other copy.
        """
        search = "SELECT name, value, started, run FROM tags NOT INDEXED WHERE name = ? AND value = ?"
        scan = "SELECT name, value, started, run FROM tags INDEXED BY tags_run WHERE +name = ? AND +value = ?"
        search_runs, scan_runs = (set(self.sql.execute(statement, (name, value))) for statement in (search, scan))
        if search_runs != scan_runs or any(
            type(start_time) is not float or type(run) is not str for _, _, start_time, run in search_runs
        ):
            raise damaged_rows_error("the list of tags", "table and index differ")
        return {(start_time, run) for _, _, start_time, run in search_runs}

    def first_and_last_events(self, runs: Collection[str]) -> dict[str, tuple[Event, Event]]:
        """Returns the first and the last event of each run, without large values. Runs that cannot be read are left
        out.
        """
        events_by_run = dict[str, tuple[Event, Event]]()
        with self._snapshot() as sql:
            for run in runs:
                with suppress(JournalError):
                    if (row := self.row(run)) is not None:
                        rows = sql.execute(_SELECT_ENDS, (run, row.last_seq - 1)).fetchall()
                        events_by_run[run] = verify_ends(run, rows, (row.last_seq, row.chain))
        return events_by_run

    def derived_runs(self, runs: Collection[str]) -> list[str]:
        """Returns the other runs that copy from these. Raises `JournalError` J013 if table and index differ."""
        with self._snapshot() as sql:
            requested_runs, index_pairs = set(runs), set[tuple[str, str]]()
            for run in requested_runs:
                index_pairs.update(sql.execute("SELECT source, run FROM copies NOT INDEXED WHERE source = ?", (run,)))
            scan = sql.execute("SELECT source, run FROM copies INDEXED BY copies_run ORDER BY run")
            scan_pairs = {(source, run) for source, run in scan if source in requested_runs}
        if index_pairs != scan_pairs:
            raise damaged_rows_error("the list of copies", "table and index differ")
        return sorted({run for _, run in index_pairs}.difference(requested_runs))

    def existing_runs(self, runs: Collection[str]) -> set[str]:
        """Returns the ids that belong to existing runs."""
        with self._snapshot() as sql:
            return {
                run for run in runs if sql.execute("SELECT 1 FROM runs WHERE run = ?", (run,)).fetchone() is not None
            }

    def find_runs(self, prefix: str, limit: int) -> list[str]:
        """Returns ids of runs with this prefix, in order."""
        with self._snapshot() as sql:
            begins = "substr(run, 1, ?) = ? ORDER BY run LIMIT ?", (len(prefix), prefix, limit)
            scan = f"SELECT run FROM runs NOT INDEXED WHERE run >= ? AND {begins[0]}"  # noqa: S608  # a constant
            rows = sql.execute(scan, (prefix, *begins[1])).fetchall()
            again = sql.execute(f"SELECT run FROM runs INDEXED BY runs_started WHERE {begins[0]}", begins[1]).fetchall()  # noqa: S608
        if rows != again:
            raise damaged_rows_error("the list of runs", "table and index differ")
        return [row[0] for row in rows]

    def inbox(self, run: str, after: int) -> list[InboxMessage]:
        """Returns the inbox messages of a run with a greater number. Raises `JournalError` J013 if one is missing or
        was altered.
        """
        with self._snapshot() as sql:
            last, first = message_count(sql, run), max(0, after) + 1
            rows = sql.execute(
                "SELECT number, body, checksum FROM inbox WHERE run = ? AND number >= ? ORDER BY number", (run, first)
            ).fetchall()
        if [row[0] for row in rows] != list(range(first, last + 1)):
            raise damaged_rows_error(f"the inbox of run {run}", "messages are missing")
        return [
            msgspec.structs.replace(read_message(run, number, body, checksum), number=number)
            for number, body, checksum in rows
        ]

    def new_messages(self, seen: InboxPosition) -> InboxPosition:
        """Returns what is new in the inboxes since a position. If nothing was written, this only reads the version of
        the file.
        """
        version: int = self.sql.execute("PRAGMA data_version").fetchone()[0]
        if version == seen.version:
            return seen._replace(runs=frozenset())
        rows = self.sql.execute(
            "SELECT place, run, messages, checksum FROM inbox_counts WHERE place > ? ORDER BY place", (seen.place,)
        ).fetchall()
        for _, run, messages, checksum in rows:
            if checksum != row_checksum(run, messages):
                raise damaged_rows_error("an inbox", "the number of its messages was altered")
        return InboxPosition(version, rows[-1][0] if rows else seen.place, frozenset(row[1] for row in rows))

    def inbox_end(self) -> InboxPosition:
        """Returns the current end of the inboxes."""
        row = self.sql.execute(
            "SELECT CAST(seq AS INTEGER) FROM sqlite_sequence WHERE name = 'inbox_counts'"
        ).fetchone()
        return InboxPosition(0, row[0] if row else 0)

    def get_memos(self, memos: Collection[str]) -> dict[str, tuple[str, Any]]:
        """Returns run and answer for each known key. Raises `JournalError` J013."""
        memo_values = dict[str, tuple[str, Any]]()
        with self._snapshot() as sql:
            for memo in memos:
                row = sql.execute("SELECT memo, run, value, checksum FROM memo WHERE memo = ?", (memo,)).fetchone()
                if row is None:
                    continue
                if row[0] != memo or row[3] != row_checksum(*row[:3]):
                    raise damaged_rows_error(f"answer {memo}", "it was altered")
                memo_values[memo] = row[1], _decode_value(row[2])
        return memo_values

    def outbox(self, after: int, limit: int) -> list[OutboxMessage]:
        """Returns messages that are not marked as delivered. Raises `JournalError` J013 if one is missing or was
        altered.
        """
        with self._snapshot() as sql:
            # Two indexes hold the same numbers, so that a lost or altered entry of one is detected.
            columns = "count(*), sum(CAST(number AS INTEGER)) FROM outbox INDEXED BY"
            index_row, scan_row = (
                sql.execute(f"SELECT {columns} {index} WHERE delivered = 0").fetchone()
                for index in ("outbox_open", "outbox_open_run")
            )
            if index_row != scan_row:
                raise damaged_rows_error("the outbox", "its indexes differ")
            numbers = sql.execute(
                "SELECT CAST(number AS INTEGER) FROM outbox INDEXED BY outbox_open"
                " WHERE delivered = 0 AND number > ? ORDER BY number LIMIT ?",
                (after, max(0, limit)),
            ).fetchall()
            return [_outbox_message(self._undelivered_columns(number)) for (number,) in numbers]

    def has_incremental_vacuum(self) -> bool:
        """Returns whether the file returns unused pages in steps."""
        return bool(self.sql.execute("PRAGMA auto_vacuum").fetchone()[0] == 2)

    def vacuum(self) -> None:
        """Rewrites the whole file."""
        self.sql.execute("PRAGMA auto_vacuum = INCREMENTAL")
        self.sql.execute("VACUUM")

    def vacuum_step(self) -> bool:
        """Returns some unused pages to the disk; false if there are none."""
        # As a script: the statement yields a row without columns per page, and a cursor stops at the first of them.
        self.sql.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")
        self.checkpoint_if_long()
        return bool(self.sql.execute("PRAGMA freelist_count").fetchone()[0])

    def truncate_log(self) -> None:
        """Writes the log back into the file, as far as other connections allow, so that it shrinks on disk."""
        self.checkpoint("TRUNCATE")

    def _undelivered_columns(self, number: int) -> Sequence[Any]:
        row = self.sql.execute(
            "SELECT number, run, node, name, key, value, checksum, delivered FROM outbox NOT INDEXED WHERE number = ?",
            (number,),
        ).fetchone()
        if row is None or row[7] or row[6] != row_checksum(*row[:6]):
            raise damaged_rows_error(f"message {number} of the outbox", "it was altered")
        return tuple(row[:6])

    def _restore_value(self, run: str, event: Event, big: str) -> Event:
        """Returns the event with its value, which is stored as a blob."""
        try:
            data = self.get_blob(big)
            if data is None:
                raise damaged_event_error(run, event.seq, f"its value, blob {big}, is missing")
            return with_value(event, _decode_value(data))
        except (ValueError, msgspec.DecodeError, RecursionError) as error:
            raise damaged_event_error(run, event.seq, str(error)) from error

    @contextmanager
    def _snapshot(self) -> Iterator[sqlite3.Connection]:
        """A consistent snapshot of the file."""
        self.sql.execute("BEGIN")
        try:
            yield self.sql
        finally:
            if self.sql.in_transaction:
                self.sql.execute("ROLLBACK")


def _period_condition(selection: RunSelection) -> tuple[str, tuple[float, ...]]:
    """Returns the condition of a period and its arguments; empty for an unlimited period."""
    bounds = [(">=", selection.since)] if selection.since > -inf else []
    bounds += [("<", selection.until)] if selection.until < inf else []
    return " AND ".join(f"started {sign} ?" for sign, _ in bounds) or "1", tuple(bound for _, bound in bounds)


def _stored_usage(run: str, last: int, chain: bytes, body: bytes | None, checksum: int | None) -> RunUsage | None:
    """Returns the stored usage of a run; None if there is none, if it belongs to a shorter log, or if it is damaged."""
    if body is None or checksum != row_checksum(run, last, chain, body):
        return None
    try:
        return decode_usage(body)
    except msgspec.DecodeError:
        return None


def _count_rows(sql: sqlite3.Connection, source: str, *parameters: float) -> int:
    count: int = sql.execute(f"SELECT count(*) FROM {source}", parameters).fetchone()[0]  # noqa: S608  # a constant of this module
    return count


def _outbox_message(columns: Sequence[Any]) -> OutboxMessage:
    number, run, node, name, key, value = columns
    return OutboxMessage(number=number, run=run, node=node, name=name, key=key, value=_decode_value(value))
