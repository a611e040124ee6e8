"""Index: entries beside the events, by which runs are found by tag and by source, and what each used. Folded from the events."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass, field

from orchestra.core.events import Event
from orchestra.journal.summary import searchable_tags, source_runs

INDEX_TABLES = """
CREATE TABLE tags (
  name TEXT NOT NULL, value TEXT NOT NULL, started REAL NOT NULL, run TEXT NOT NULL, PRIMARY KEY (name, value, started, run)
) WITHOUT ROWID;
CREATE INDEX tags_run ON tags (run);
CREATE TABLE copies (source TEXT NOT NULL, run TEXT NOT NULL, PRIMARY KEY (source, run)) WITHOUT ROWID;
CREATE INDEX copies_run ON copies (run);
CREATE TABLE run_usage (run TEXT PRIMARY KEY, last INTEGER NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL) WITHOUT ROWID
"""
"""Of a SQLite file. An index of a table without row numbers holds all of its columns, so that `tags` and `copies` are there twice: a query
compares both. `run_usage.last` is the number of the last event that is counted; the checksum includes that event's hash."""


@dataclass(slots=True)
class IndexEntries:
    """New entries of one transaction."""

    tags: list[tuple[str, str, float, str]] = field(default_factory=list)
    """Name, value, start of the run, run."""
    copies: set[tuple[str, str]] = field(default_factory=set)
    """A source, and the run that has a copy of something of it."""
    usages: list[tuple[str, int, bytes, bytes]] = field(default_factory=list)
    """Run, number and hash of the last event that is counted, usage."""

    def add(self, run: str, event: Event) -> None:
        """Adds the entries of an event: nearly always none."""
        self.tags += [(name, value, float(event.at), run) for name, value in searchable_tags(event).items()]
        self.copies.update((source, run) for source in source_runs(event) if source != run)


def write_entries(sql: sqlite3.Connection, entries: IndexEntries) -> None:
    """Writes tags and copies. Raises `sqlite3.Error`."""
    if entries.tags:
        sql.executemany("INSERT OR IGNORE INTO tags VALUES (?, ?, ?, ?)", entries.tags)
    if entries.copies:
        sql.executemany("INSERT OR IGNORE INTO copies VALUES (?, ?)", entries.copies)
