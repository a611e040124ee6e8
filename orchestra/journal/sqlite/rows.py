"""Rows: what the file says of a run beside its events."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from orchestra.core.events import Usage
from orchestra.journal.errors import damaged_event_error
from orchestra.journal.sqlite.database import row_checksum
from orchestra.journal.summary import SummaryFold
from orchestra.schema.strict_json import canonical

COLUMNS = (
    "CAST(runs.workflow AS TEXT), CAST(runs.status AS TEXT), CAST(runs.started AS REAL), CAST(runs.finished AS REAL),"
    " CAST(runs.nodes AS INTEGER), CAST(runs.usage AS BLOB), CAST(runs.last AS INTEGER), CAST(runs.chain AS BLOB),"
    " CAST(runs.writer AS TEXT), CAST(runs.epoch AS INTEGER)"
)
"""SQLite keeps any type in any column, and a damaged file may hold another one than was written: casts keep ours."""
LOST_WRITER = "lost"
"""The writer of a run whose last events may be missing. No opener has such a name."""
_INSERT = (
    "INSERT INTO runs (workflow, status, started, finished, nodes, usage, last, chain, writer, epoch, checksum, run)"
    " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
)
# Neither `workflow` nor `started` ever change, and so the index of `started` is left alone.
_UPDATE = (
    "UPDATE runs SET status = ?, finished = ?, nodes = ?, usage = ?, last = ?, chain = ?, writer = ?, epoch = ?, checksum = ?"
    " WHERE run = ? AND epoch = ? AND writer = ?"
)
_decode_usage = msgspec.json.Decoder(Usage).decode


@dataclass(slots=True)
class RunRow:
    """A run's row, and so the end of its log: `last` is the greatest `seq`, `chain` the last link, `writer` who holds the lease."""

    summary_fold: SummaryFold
    last_seq: int
    chain: bytes
    writer: str
    epoch: int = 1

    def columns(self) -> tuple[object, ...]:
        """The columns' values in the order of `COLUMNS`, then the checksum, then the run. Whoever has ended holds no lease."""
        tally = self.summary_fold
        finished = None if tally.finished is None else float(tally.finished)
        writer = self.writer if tally.status == "running" else ""
        values = (
            *(tally.workflow, tally.status, float(tally.started), finished, tally.nodes, canonical(tally.usage)),
            *(self.last_seq, self.chain, writer, self.epoch),
        )
        return (*values, row_checksum(tally.run, *values), tally.run)


def parse_row(run: str, values: Sequence[Any], stated: int | None) -> RunRow:
    """A row from its columns; raises `JournalError` J013 where they are not what was written."""
    if stated is not None and stated != row_checksum(run, *values):
        raise damaged_event_error(run, values[6], "the run's summary is not what was written")
    workflow, status, started, finished, nodes, usage, last, chain, writer, epoch = values
    try:
        spent = _decode_usage(usage)
    except msgspec.DecodeError as error:
        raise damaged_event_error(run, last, f"its summary cannot be read ({error})") from error
    return RunRow(SummaryFold(run, workflow, status, started, finished, nodes, spent), last, chain, writer, epoch)


def read_row(sql: sqlite3.Connection, run: str) -> RunRow | None:
    """A run's row, or None. Raises `sqlite3.Error`, or `JournalError` J013."""
    found = sql.execute(f"SELECT {COLUMNS}, checksum FROM runs WHERE run = ?", (run,)).fetchone()  # noqa: S608  # a constant
    return None if found is None else parse_row(run, found[:-1], found[-1])


def insert_rows(sql: sqlite3.Connection, rows: Sequence[RunRow]) -> None:
    """Adds rows of new runs; raises `sqlite3.IntegrityError` where one is there."""
    sql.executemany(_INSERT, [row.columns() for row in rows])


def update_rows(sql: sqlite3.Connection, rows: Sequence[tuple[RunRow, RunRow]]) -> bool:
    """Writes rows in place of those before; false where a lease is in other hands than the row before says."""
    found = sql.executemany(
        _UPDATE, [(columns[1], *columns[3:], before.epoch, before.writer) for before, row in rows for columns in (row.columns(),)]
    )
    return found.rowcount == len(rows)
