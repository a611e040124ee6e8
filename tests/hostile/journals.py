"""Forged journals: a complete file, and copies with hostile events whose hash chain and summary are valid."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from random import Random

from orchestra.core import events
from orchestra.core.events import (
    MapExpanded,
    OutputJudged,
    QuestionAnswered,
    QuestionAsked,
    RetryPlanned,
    RunResumed,
    TurnStarted,
    Verdict,
)
from orchestra.core.outcomes import AbstainedOutcome, FailedOutcome
from orchestra.journal.hash_chain import next_hash
from orchestra.journal.sqlite.database import read_row
from orchestra.journal.sqlite.errors import SQLITE_ERRORS
from orchestra.journal.sqlite.journal import SqliteJournal
from tests.hostile import mutators
from tests.journal.stories import begun, middle, whole

RUNS = ("r0", "r1", "r2")
_EVENTS: list[events.Event] = [
    *whole("r"),
    MapExpanded(seq=2, at=2.0, node="m", count=3),
    TurnStarted(seq=2, at=2.0, node="l", turn=1),
    OutputJudged(seq=2, at=2.0, node="a", attempt=1, verdicts=(Verdict("quote", "pass", 1.0),), accepted=True),
    RetryPlanned(seq=2, at=2.0, node="m[0]/a", attempt=2, due=3.0),
    QuestionAsked(seq=2, at=2.0, node="q", question="Really?", schema={"type": "boolean"}, question_digest="0" * 32),
    QuestionAnswered(seq=2, at=2.0, node="q", value=True),
    RunResumed(seq=2, at=2.0, epoch=2),
    events.NodeFinished(seq=2, at=2.0, node="l#2/x", outcome=FailedOutcome("M001", "no JSON")),
    events.RunFinished(seq=2, at=2.0, status="abstained", outcome=AbstainedOutcome("not sure")),
]
LINES = [events.encode(event).decode() for event in _EVENTS]
"""Events of every kind as lines of JSON."""
SCHEMAS = (
    "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM events; END",
    "CREATE VIEW v AS SELECT load_extension('/tmp/x.so')",
    "ALTER TABLE runs RENAME TO runs2",
    "DROP TABLE events",
    "DELETE FROM schema_version",
    "UPDATE schema_version SET version = 'x'",
    "UPDATE schema_version SET version = 1",
    "UPDATE runs SET started = 'x', workflow = x'ff00', status = 7",
    "UPDATE runs SET usage = '{}', last = -1",
    "UPDATE events SET seq = 'x' WHERE seq = 2",
    "UPDATE events SET run = x'ff' WHERE seq = 1",
)


def written(path: Path) -> bytes:
    """Returns the bytes of a complete journal with three runs; creates it at `path` if missing."""

    async def write() -> None:
        async with SqliteJournal.open(path) as journal:
            for run in RUNS[:2]:
                journal.append(run, whole(run))
            journal.append(RUNS[2], [begun(RUNS[2]), *middle(2, 60)])
            journal.put_blob(b"blob" * 100)

    if not path.exists():
        asyncio.run(write())
        with closing(sqlite3.connect(path, isolation_level=None)) as sql:
            sql.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    return path.read_bytes()


def forged(data: bytes, path: Path, chance: Random) -> bytes:
    """Returns a journal with forged events or tables; its hash chain and summaries are valid."""
    path.write_bytes(data)
    with closing(sqlite3.connect(path, isolation_level=None)) as sql:
        sql.execute("PRAGMA journal_mode = MEMORY")
        sql.execute("PRAGMA synchronous = OFF")
        try:
            sql.execute("BEGIN")
            _forge(sql, chance)
            sql.execute("COMMIT")
            if chance.random() < 0.15:
                sql.execute(chance.choice(SCHEMAS))
        except sqlite3.Error:
            pass  # the file keeps the changes made so far
    return path.read_bytes()


def _forge(sql: sqlite3.Connection, chance: Random) -> None:
    run = chance.choice(RUNS)
    row = read_row(sql, run)
    assert row is not None
    chain = run.encode()
    bodies = [bytes(body) for (body,) in sql.execute("SELECT body FROM events WHERE run = ? ORDER BY seq", (run,))]
    bad = chance.randrange(len(bodies))
    for seq, body in enumerate(bodies, 1):
        if seq - 1 == bad:
            text = mutators.line(chance, chance.choice((body.decode(), *LINES)))
            body = text.encode() if isinstance(text, str) else text
            if chance.random() < 0.7:
                body = body.replace(b'"seq": 2', b'"seq": %d' % seq).replace(b'"seq": 1', b'"seq": %d' % seq)
        chain = next_hash(chain, body)
        sql.execute("UPDATE events SET body = ?, chain = ? WHERE run = ? AND seq = ?", (body, chain, run, seq))
    columns = replace(row, chain=chain).columns()
    names = (
        "workflow",
        "status",
        "started",
        "finished",
        "nodes",
        "usage",
        "last",
        "chain",
        "writer",
        "epoch",
        "checksum",
    )
    sql.execute(f"UPDATE runs SET {', '.join(f'{name} = ?' for name in names)} WHERE run = ?", columns)


__all__ = ["LINES", "RUNS", "SQLITE_ERRORS", "forged", "written"]
