"""A journal's file with foreign content is refused before any of it is executed."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import pytest

from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.journal import SqliteJournal

ENDLESS = (
    "CREATE VIEW schema_version AS WITH RECURSIVE n(version) AS (SELECT 1 UNION ALL SELECT version FROM n)"
    " SELECT version FROM n"
)
TRIGGER = "CREATE TRIGGER t AFTER INSERT ON events BEGIN DELETE FROM runs; END"


@pytest.mark.parametrize("script", [f"DROP TABLE schema_version; {ENDLESS}", TRIGGER], ids=["view", "trigger"])
async def test_foreign_views_and_triggers_are_refused(script: str, tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with SqliteJournal.open(path):
        pass
    with sqlite3.connect(path) as sql:
        sql.executescript(script)
    with pytest.raises(JournalError) as refused:
        async with SqliteJournal.open(path):
            pass
    assert refused.value.code == "J013"


@pytest.mark.parametrize("what", ["folder", "pipe", "text", "link", "link to nothing written"])
async def test_foreign_file_keeps_mode(what: str, tmp_path: Path) -> None:
    """A path in another user's project may lead anywhere: to a home folder, to a device, to a file that other users
    read.
    """
    path, target = tmp_path / "journal.db", tmp_path / "shared"
    match what:
        case "folder":
            path.mkdir()
        case "pipe":
            os.mkfifo(path)
        case "text":
            path.write_text("what others read")
        case _:
            target.write_text("what others read" if what == "link" else "")
            path.symlink_to(target)
    path.chmod(0o755)
    before = path.stat()
    with pytest.raises(JournalError) as refused:
        async with SqliteJournal.open(path):
            pass
    assert refused.value.code == {"folder": "J015", "pipe": "J015", "text": "J013", "link": "J013"}.get(what, "J018")
    assert path.stat().st_mode == before.st_mode
    assert path.stat().st_size == before.st_size


async def test_link_to_journal_is_followed(tmp_path: Path) -> None:
    path = tmp_path / "journal.db"
    async with SqliteJournal.open(tmp_path / "elsewhere.db"):
        pass
    path.symlink_to("elsewhere.db")
    async with SqliteJournal.open(path) as journal:
        assert await journal.list_runs() == []
