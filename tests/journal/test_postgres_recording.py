"""Opening the journal of the settings."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import asyncpg
import pytest

from orchestra import Orchestra, Result, tool, workflow
from orchestra.app.open_journal import probe_database
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings
from tests.journal.postgres_server import PostgresServer


@tool(effect="pure")
def doubled(text: str) -> str:
    """Says it twice."""
    return text + text


@workflow()
def twice(text: str) -> str:
    """Says it twice."""
    return doubled(text=text)


def test_postgres_runs_are_recorded_and_shown(postgres: PostgresServer, tmp_path: Path) -> None:
    (tmp_path / "address").write_text(postgres.dsn)
    settings = Settings.load({"journal": f"file:{tmp_path / 'address'}"}, start=tmp_path)

    async def played() -> Result[str]:
        async with Orchestra.open(settings) as orchestra:
            return await orchestra.run(twice, text="ab")

    result = asyncio.run(played())
    assert result.output == "abab"
    environment = {**os.environ, "ORCHESTRA_JOURNAL": f"file:{tmp_path / 'address'}"}
    command = [sys.executable, "-m", "orchestra.cli", "runs", "show", result.run]
    shown = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert shown.returncode == 0, shown.stderr
    assert "abab" in shown.stdout


def test_probe_database_creates_nothing(postgres_over_tcp: PostgresServer) -> None:
    async def looked() -> tuple[str, bool]:
        where = await probe_database(postgres_over_tcp.dsn)
        connection = await asyncpg.connect(postgres_over_tcp.dsn)
        made = await connection.fetchval("SELECT to_regnamespace('orchestra') IS NOT NULL")
        await connection.close()
        return where, made

    assert asyncio.run(looked()) == (f"postgresql://127.0.0.1:{postgres_over_tcp.port}/postgres", False)


@pytest.mark.parametrize("address", ["postgresql://me:secret@host/runs", "postgresql://me@host/runs"])
def test_address_with_user_or_password_is_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="journal"):
        Settings.load({"journal": address}, start=tmp_path)
