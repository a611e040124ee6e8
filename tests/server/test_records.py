"""The records of servers in a file and in Postgres, and servers that share a database."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import asyncpg
import pytest

from orchestra.core.errors import OrchestraError
from orchestra.server.open_records import open_records
from orchestra.server.schedules import fire_due, schedules_of
from tests.journal.conftest import postgres as postgres
from tests.journal.conftest import schema as schema
from tests.journal.postgres_server import PostgresServer
from tests.server.servers import INPUTS, LOCKED, serving, until_async

ADDRESS = "ORCHESTRA_TEST_DATABASE"
EARLIER_TABLE = """
CREATE TABLE {table} (
  kind text NOT NULL, id text NOT NULL, tenant text NOT NULL, version bigint NOT NULL,
  created double precision NOT NULL, data {bytes} NOT NULL, PRIMARY KEY (kind, id)
)
"""
"""The table before it had times."""


@pytest.fixture(params=["file", "postgres"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """Where the records are."""
    if request.param == "file":
        return tmp_path / "runs.db"
    server: PostgresServer = request.getfixturevalue("postgres")
    name: str = request.getfixturevalue("schema")
    return f"{server.dsn}&schema={name}"


@pytest.fixture
def journal(postgres: PostgresServer, schema: str) -> Iterator[str]:
    """A journal in Postgres."""
    os.environ[ADDRESS] = f"{postgres.dsn}&schema={schema}"
    yield f"env:{ADDRESS}"
    del os.environ[ADDRESS]


async def test_record_is_replaced_by_one_of_two_writers(place: Path | str) -> None:
    async with open_records(place) as one, open_records(place) as other:
        first = await one.add("kind", "a", "acme", b"1")
        assert first is not None
        assert await other.add("kind", "a", "acme", b"2") is None
        assert await other.get("kind", "a") == first
        replaced = await asyncio.gather(*(store.replace(first, b"3") for store in (one, other)))
        assert sorted(record is None for record in replaced) == [False, True]
        latest = await one.get("kind", "a")
        assert latest is not None
        assert (latest.version, latest.data) == (2, b"3")
        assert await other.delete("kind", "a")
        assert not await one.delete("kind", "a")
        assert await one.replace(latest, b"4") is None
        assert await one.get("kind", "a") is None


async def test_records_are_listed_newest_first_in_pages(place: Path | str) -> None:
    async with open_records(place) as store:
        for number in range(5):
            await store.add("kind", f"a{number}", "acme" if number % 2 else "other", b"")
        await store.add("else", "b", "acme", b"")
        everything = await store.list("kind", None)
        assert sorted((one.created, one.id) for one in everything) == [
            (one.created, one.id) for one in reversed(everything)
        ]
        page = await store.list("kind", None, 2)
        rest = await store.list("kind", None, before=(page[-1].created, page[-1].id))
        assert [*page, *rest] == list(everything)
        assert {one.id for one in await store.list("kind", "acme")} == {"a1", "a3"}


async def test_record_with_an_id_that_cannot_be_stored_is_unknown(place: Path | str) -> None:
    async with open_records(place) as store:
        assert await store.get("kind", "a\0b") is None
        assert not await store.delete("kind", "a\0b")


async def test_records_opened_at_once_are_created_once(place: Path | str) -> None:
    async def add(number: int) -> bool:
        async with open_records(place) as store:
            return await store.add("kind", str(number), "acme", b"") is not None

    assert all(await asyncio.gather(*map(add, range(5))))
    async with open_records(place) as store:
        assert len(await store.list("kind", None)) == 5


async def test_records_that_are_due_are_listed_in_the_order_of_their_times(place: Path | str) -> None:
    async with open_records(place) as store:
        for name, due in (("late", 30.0), ("done", None), ("first", 10.0), ("second", 20.0)):
            await store.add("kind", name, "acme", b"", due)
        await store.add("else", "other", "acme", b"", 1.0)
        assert [one.id for one in await store.list_due("kind", 20.0, 5)] == ["first", "second"]
        (first,) = await store.list_due("kind", 20.0, 1)
        assert first == await store.get("kind", "first")
        replaced = await store.replace(first, b"1", 40.0)
        assert replaced == await store.get("kind", "first")
        assert [one.id for one in await store.list_due("kind", 50.0, 5)] == ["second", "late", "first"]
        assert replaced is not None
        await store.replace(replaced, b"2")
        assert [one.id for one in await store.list_due("kind", 50.0, 5)] == ["second", "late"]


@pytest.mark.parametrize("kind", ["file", "postgres"])
async def test_deliveries_of_an_earlier_version_are_due(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    pending = b'{"status": "pending", "next_attempt": 10.5, "body": "{\\"a\\":\\"\\\\u0000\\"}"}'
    delivered = b'{"status": "delivered", "next_attempt": null, "body": ""}'
    rows = [("delivery", "a", "acme", 3, 1.0, pending), ("delivery", "b", "acme", 2, 1.0, delivered)]
    rows += [("file", "c", "acme", 1, 1.0, b"\xff no JSON")]
    if kind == "file":
        place: Path | str = tmp_path / "runs.db"
        with closing(sqlite3.connect(f"{place}-server")) as connection, connection:
            connection.execute(EARLIER_TABLE.format(table="records", bytes="BLOB") + " WITHOUT ROWID")
            connection.executemany("INSERT INTO records VALUES (?, ?, ?, ?, ?, ?)", rows)
    else:
        server: PostgresServer = request.getfixturevalue("postgres")
        place = f"{server.dsn}&schema=earlier"
        database = await asyncpg.connect(server.dsn)
        await database.execute("CREATE SCHEMA earlier_server")
        await database.execute(EARLIER_TABLE.format(table="earlier_server.records", bytes="bytea"))
        await database.executemany("INSERT INTO earlier_server.records VALUES ($1, $2, $3, $4, $5, $6)", rows)
        await database.close()
    for _ in range(2):
        async with open_records(place) as store:
            assert [(one.id, one.due, one.version) for one in await store.list_due("delivery", 11.0, 9)] == [
                ("a", 10.5, 3)
            ]
            assert await store.list_due("delivery", 10.0, 9) == []
            assert {one.id for one in await store.list("delivery", None)} == {"a", "b"}


async def test_records_of_an_unreachable_database_are_an_error() -> None:
    with pytest.raises(OrchestraError, match="cannot be reached"):
        async with open_records("postgresql://127.0.0.1:9/runs"):
            pass


async def test_key_of_one_server_is_valid_at_another(tmp_path: Path, journal: str) -> None:
    async with serving(tmp_path, settings=LOCKED, journal=journal) as one:
        headers = await one.key("acme")
        hook = await one.client.post("/api/webhooks", json={"url": "https://hooks.example/"}, headers=headers)
        async with serving(tmp_path, settings=LOCKED, journal=journal) as other:
            listed = await other.client.get("/api/webhooks", headers=headers)
            refused = await other.client.get("/api/webhooks")
    assert [item["id"] for item in listed.json()["items"]] == [hook.json()["id"]]
    assert refused.status_code == 401


async def test_schedule_of_two_servers_in_postgres_fires_once(tmp_path: Path, journal: str) -> None:
    async with serving(tmp_path, journal=journal) as one, serving(tmp_path, journal=journal) as other:
        body = {"cron": "0 0 1 1 *", "workflow": "answer", "inputs": INPUTS}
        made = (await one.client.post("/api/schedules", json=body)).json()
        await asyncio.gather(*(fire_due(server.services, made["next"] + 1) for server in (one, other)))
        await fire_due(other.services, made["next"] + 1)

        async def has_run() -> bool:
            return bool(await one.orchestra.runs())

        await until_async(has_run)
        runs = await one.orchestra.runs()
        (stored,) = await schedules_of(other.services).all()
    assert len(runs) == 1
    assert stored.value.next is not None
    assert stored.value.next > made["next"]


async def test_thread_and_batch_in_postgres_survive_a_restart(tmp_path: Path, journal: str) -> None:
    async with serving(tmp_path, journal=journal) as server:
        thread = (await server.client.post("/api/threads", json={})).json()["id"]
        path = f"/api/threads/{thread}/runs"
        run = (await server.client.post(path, json={"workflow": "answer", "inputs": INPUTS})).json()["id"]
        rows = {"workflow": "answer", "rows": [INPUTS, INPUTS]}
        batch = (await server.client.post("/api/batches", json=rows)).json()["id"]
    async with serving(tmp_path, journal=journal) as server:
        shown = (await server.client.get(f"/api/threads/{thread}")).json()

        status = (await server.client.get(f"/api/batches/{batch}")).json()
    assert shown["runs"] == [run]
    assert status["rows"] == 2
