"""An SQLite file of an older version is refused and not changed."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.database import SCHEMA_VERSION
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.queries import ReadOnlyJournal
from orchestra.schema.strict_json import digest
from tests.journal.files import sql

OLD_FILE = Path(__file__).parent / "sqlite" / "version1.db"
"""A journal of version 1: a run that ended, and one that was interrupted and uses four blobs."""


@pytest.mark.parametrize("version", [1, SCHEMA_VERSION - 1])
@pytest.mark.parametrize("journal", [SqliteJournal, ReadOnlyJournal])
async def test_older_file_is_refused_unchanged(tmp_path: Path, version: int, journal: Any) -> None:
    file = Path(shutil.copy(OLD_FILE, tmp_path / "journal.db"))
    sql(file, f"UPDATE schema_version SET version = {version}")
    before = digest(file.read_bytes())  # noqa: ASYNC240  # a small local file
    with pytest.raises(JournalError) as caught:
        async with journal.open(file):
            pass
    assert caught.value.code == "J020"
    assert f"schema version {version}, this Orchestra reads version {SCHEMA_VERSION}" in caught.value.message
    assert caught.value.hint.startswith(f"move {file}* away")
    assert digest(file.read_bytes()) == before  # noqa: ASYNC240


def test_golden_file_has_version_1(tmp_path: Path) -> None:
    file = Path(shutil.copy(OLD_FILE, tmp_path / "journal.db"))
    assert sql(file, "SELECT version FROM schema_version") == [(1,)]
