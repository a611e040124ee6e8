"""The address of a journal's database: its schema, and its form in errors."""

from __future__ import annotations

import pytest

from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.connections import redact_dsn, split_dsn
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.testing.conformance.scenarios import append_durably, run_started
from tests.journal.postgres.test_journal import sql
from tests.journal.postgres_server import PostgresServer


@pytest.mark.parametrize(
    ("dsn", "told", "schema"),
    [
        ("postgresql://h/d", "postgresql://h/d", "orchestra"),
        ("postgresql://h/d?schema=billing", "postgresql://h/d", "billing"),
        ("postgresql://h/d?sslmode=require&schema=a%20b&x=1", "postgresql://h/d?sslmode=require&x=1", "a b"),
        ("postgresql://h/d?schema=", "postgresql://h/d", "orchestra"),
        ("postgresql://h/d?search_schema=x", "postgresql://h/d?search_schema=x", "orchestra"),
    ],
)
def test_split_dsn_removes_schema_option(dsn: str, told: str, schema: str) -> None:
    assert split_dsn(dsn) == (told, schema)


async def test_open_uses_schema_of_dsn(postgres: PostgresServer, schema: str) -> None:
    async with PostgresJournal.open(f"{postgres.dsn}&schema={schema}") as journal:
        await append_durably(journal, "r1", [run_started("r1")])
    assert await sql(postgres, f"SELECT run FROM {schema}.runs") == [("r1",)]


async def test_open_without_create_privilege_has_hint(postgres: PostgresServer, schema: str) -> None:
    await sql(postgres, f"CREATE ROLE {schema} LOGIN")
    mine = postgres.dsn.replace("orchestra@", f"{schema}@")
    with pytest.raises(JournalError, match="J011") as caught:
        async with PostgresJournal.open(mine, schema=schema):
            pass
    statement = caught.value.hint.split(": ")[1].split(";")[0]
    await sql(postgres, statement)
    async with PostgresJournal.open(mine, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1")])


def test_redact_dsn_removes_password() -> None:
    assert (
        redact_dsn("postgresql://ann:secret@db.example:5433/runs?sslmode=require")
        == "postgresql://db.example:5433/runs"
    )
