"""Backup and restore as docs/how-to/operating.md tells them: its commands, on a journal that is written meanwhile."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from orchestra.core.protocols import Journal
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing.conformance.scenarios import append_durably, node_events, run_finished, run_started
from tests.docs.blocks import ROOT, marked
from tests.journal.postgres.test_journal import sql
from tests.journal.postgres_server import missing, program, running

PLACE = Path(".orchestra", "journal.db")


def follow(mark: str, folder: Path, **environ: str) -> str:
    """Types the commands of a block of the page, and gives what the last of them printed."""
    (block,) = marked(mark)
    commands = [line.removeprefix("$ ") for line in block.text.splitlines()]
    shell = f'orchestra() {{ "{sys.executable}" -m orchestra.cli "$@"; }}\nset -e\n' + "\n".join(commands)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ORCHESTRA_")}
    path = f"{Path(program('pg_dump')).parent}:{os.environ['PATH']}" if "postgres" in mark else os.environ["PATH"]
    environment = kept | {"PYTHONPATH": str(ROOT), "PATH": path, **environ}
    done = subprocess.run(
        ["bash", "-c", shell], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


async def filled(journal: Journal) -> None:
    """A run that has ended, and one that is under way."""
    await append_durably(journal, "whole", [run_started("whole"), *node_events(2, 1), run_finished(3)])
    await append_durably(journal, "half", [run_started("half"), *node_events(2, 1)])


async def gone_on(journal: Journal) -> None:
    """What happened after the backup."""
    await append_durably(journal, "half", [run_finished(3)])
    await append_durably(journal, "later", [run_started("later")])


async def looked_at(journal: Journal) -> None:
    """What was backed up is there, and can be gone on with; what came later is not."""
    assert {row.run: row.status for row in await journal.list_runs()} == {"whole": "done", "half": "interrupted"}
    assert len(await journal.read("whole")) == 3
    assert await journal.lease("half") == 2
    await append_durably(journal, "half", node_events(3, 1))


@pytest.mark.skipif(shutil.which("sqlite3") is None and not os.environ.get("CI"), reason="no sqlite3")
async def test_a_file_is_restored(tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").write_text("")
    async with SqliteJournal.open(tmp_path / PLACE) as journal:
        await filled(journal)
        follow("backup file", tmp_path)
        await gone_on(journal)
    assert (tmp_path / "backup.db").stat().st_mode & 0o077 == 0
    shown = follow("restore file", tmp_path)
    assert ("half" in shown, "later" in shown, "whole" in shown) == (True, False, False)
    async with SqliteJournal.open(tmp_path / PLACE) as journal:
        await looked_at(journal)


@pytest.mark.skipif(bool(missing()) and not os.environ.get("CI"), reason="no Postgres")
async def test_a_database_is_restored(tmp_path: Path) -> None:
    with running(tcp=True) as server:
        await sql(server, "CREATE DATABASE new")
        old, new = server.dsn, server.dsn.replace("/postgres", "/new")
        async with PostgresJournal.open(old) as journal:
            await filled(journal)
            follow("backup postgres", tmp_path, DATABASE_URL=old)
            await gone_on(journal)
        shown = follow("restore postgres", tmp_path, NEW_URL=new)
        assert ("half" in shown, "later" in shown, "whole" in shown) == (True, False, False)
        async with PostgresJournal.open(new) as journal:
            await looked_at(journal)
