"""A journal's file that holds what no Orchestra made is refused before anything of it runs."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from orchestra.journal.error import JournalError
from orchestra.journal.sqlite import SqliteJournal

ENDLESS = "CREATE VIEW schema_version AS WITH RECURSIVE n(version) AS (SELECT 1 UNION ALL SELECT version FROM n) SELECT version FROM n"
TRIGGER = "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM runs; END"


@pytest.mark.parametrize("script", [f"DROP TABLE schema_version; {ENDLESS}", TRIGGER], ids=["view", "trigger"])
async def test_views_and_triggers_are_refused(script: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with SqliteJournal.open(path):
        pass
    with sqlite3.connect(path) as sql:
        sql.executescript(script)
    with pytest.raises(JournalError) as refused:
        async with SqliteJournal.open(path):
            pass
    assert refused.value.code == "J013"
