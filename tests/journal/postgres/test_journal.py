"""The journal in Postgres: lost connections, lost leases, stopped servers, and table contents."""

from __future__ import annotations

import asyncio
import random
import signal
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from orchestra.core.events import AttemptFinished, Event, NodeFinished
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import InboxMessage
from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.errors import from_postgres
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.postgres.tables import SCHEMA_VERSION
from orchestra.testing.conformance.scenarios import (
    append_durably,
    error_code,
    node_events,
    outbox_event,
    run_finished,
    run_started,
    status_of,
)
from orchestra.testing.conformance.suite import CONFORMANCE_TESTS
from tests.journal.postgres_proxy import Loss, before
from tests.journal.postgres_server import PostgresServer, running

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[3]


async def sql(server: PostgresServer, statement: str, *arguments: object) -> list[tuple[Any, ...]]:
    connection = await asyncpg.connect(server.dsn)
    try:
        return [tuple(row) for row in await connection.fetch(statement, *arguments)]
    finally:
        await connection.close()


async def refusal(doing: Any) -> JournalError:
    with pytest.raises(JournalError) as caught:
        await doing
    return caught.value


def once(use: str, part: bytes, loss: Loss) -> Any:
    """Loses the first request of a connection that contains this text."""
    left = [loss]
    return lambda of, request: left.pop() if left and of == use and part in request else None


# Lost connections


@pytest.mark.parametrize("loss", ["request", "answer"])
async def test_commit_lost_connection_applies_once(loss: Loss, postgres: PostgresServer, schema: str) -> None:
    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        proxy.lose = once("writer", b"node-of-the-message", loss)
        await append_durably(journal, "r1", [outbox_event(2, "node-of-the-message")])
        await append_durably(journal, "r1", node_events(3))
        assert proxy.lost == 1
        assert await journal.read("r1") == [run_started("r1"), outbox_event(2, "node-of-the-message"), *node_events(3)]
        assert [message.key for message in await journal.outbox()] == ["r1/node-of-the-message"]


@pytest.mark.parametrize("loss", ["request", "answer"])
async def test_first_event_lost_connection_applies_once(loss: Loss, postgres: PostgresServer, schema: str) -> None:
    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema) as journal:
        proxy.lose = once("writer", b"run_started", loss)
        await append_durably(journal, "r1", [run_started("r1")])
        assert (proxy.lost, await journal.read("r1")) == (1, [run_started("r1")])


@pytest.mark.parametrize("seed", range(5))
async def test_random_connection_losses_keep_events_once(seed: int, postgres: PostgresServer, schema: str) -> None:
    chance = random.Random(seed)

    async def one_run(journal: PostgresJournal, run: str) -> None:
        events: list[Event] = [
            run_started(run),
            *(outbox_event(seq, f"n{seq}") for seq in range(2, 20)),
            run_finished(20),
        ]
        for event in events:
            await append_durably(journal, run, [event])

    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema) as journal:
        losses: tuple[Loss | None, ...] = ("request", "answer", *[None] * 8)
        proxy.lose = lambda use, request: (
            chance.choice(losses) if use == "writer" and b"attempt_finished" in request else None
        )
        await asyncio.gather(*(one_run(journal, f"r{number}") for number in range(8)))
        assert proxy.lost > 0
        for number in range(8):
            assert [event.seq for event in await journal.read(f"r{number}")] == list(range(1, 21))
        found = await journal.outbox(limit=1000)
        assert sorted(message.key for message in found) == sorted(
            f"r{run}/n{seq}" for run in range(8) for seq in range(2, 20)
        )


@pytest.mark.parametrize("part", [b"by-ann", b"COMMIT"])
@pytest.mark.parametrize("loss", ["request", "answer"])
async def test_send_lost_connection_applies_once(
    loss: Loss, part: bytes, postgres: PostgresServer, schema: str
) -> None:
    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        proxy.lose = once("reader", part, loss)
        assert await journal.send("r1", InboxMessage(kind="cancel", by="by-ann")) == 1
        assert (proxy.lost, len(await journal.inbox("r1"))) == (1, 1)


@pytest.mark.parametrize("loss", ["request", "answer"])
async def test_lease_lost_connection_applies_once(loss: Loss, postgres: PostgresServer, schema: str) -> None:
    async with PostgresJournal.open(postgres.dsn, schema=schema) as first:
        await append_durably(first, "r1", [run_started("r1")])
    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema) as journal:
        proxy.lose = once("reader", b"COMMIT", loss)
        assert await journal.lease("r1") == 2
        assert proxy.lost == 1
        await append_durably(journal, "r1", node_events(2))


async def test_unreachable_database_is_coded_error(postgres: PostgresServer, schema: str) -> None:
    async with before(postgres) as proxy, PostgresJournal.open(proxy.dsn, schema=schema, retry_timeout=2.0) as journal:
        await append_durably(journal, "r0", [run_started("r0")])
        proxy.lose = lambda use, request: "request" if use != "presence" else None
        assert await error_code(append_durably(journal, "r1", [run_started("r1")])) == "J032"
        with pytest.raises(JournalError, match="J032"):
            journal.append("r1", node_events(2))
        proxy.lose = lambda use, request: None
        # a journal that writes no more holds no lease
        async with PostgresJournal.open(proxy.dsn, schema=schema) as other:
            assert await other.lease("r0") == 2


# Leases


async def lose_presence(server: PostgresServer, schema: str) -> None:
    """Closes the session that shows that a journal is alive."""
    await sql(
        server,
        f"SELECT pg_terminate_backend(l.pid) FROM pg_locks l, {schema}.runs r WHERE l.locktype = 'advisory'"
        " AND (l.classid::bigint << 32) | l.objid::bigint = r.holder",
    )


async def test_lost_presence_stops_writes_and_frees_leases(postgres: PostgresServer, schema: str) -> None:
    async with (
        before(postgres) as proxy,
        PostgresJournal.open(postgres.dsn, schema=schema) as other,
        PostgresJournal.open(proxy.dsn, schema=schema, retry_timeout=0.5) as journal,
    ):
        await append_durably(journal, "r1", [run_started("r1")])
        mail = asyncio.ensure_future(journal.wait_for_messages())
        await asyncio.sleep(0)
        proxy.lose = lambda use, request: "request" if use == "presence" else None
        await lose_presence(postgres, schema)
        for _ in range(600):
            if await error_code(journal.check_writable()) == "J031":
                break
            await asyncio.sleep(0.05)
        with pytest.raises(JournalError, match="J031"):
            journal.append("r1", node_events(2))
        assert await other.lease("r1") == 2
        await append_durably(other, "r1", node_events(2))
        assert len(await other.read("r1")) == 2
        proxy.lose = lambda use, request: None
        await other.send("r1", InboxMessage(kind="cancel"))
        async with asyncio.timeout(30):
            assert await mail == {"r1"}  # the waiting caller is not disturbed
        with pytest.raises(JournalError, match="J031"):
            journal.append("r1", node_events(2))


async def lock_of(server: PostgresServer, schema: str, run: str = "r1") -> list[tuple[Any, ...]]:
    """Returns the sessions that show that the holder of a run is alive."""
    return await sql(
        server,
        f"SELECT l.pid FROM pg_locks l, {schema}.runs r WHERE l.locktype = 'advisory' AND l.granted"
        " AND (l.classid::bigint << 32) | l.objid::bigint = r.holder AND r.run = $1",
        run,
    )


async def test_restored_presence_receives_messages(postgres: PostgresServer, schema: str) -> None:
    async with (
        before(postgres) as proxy,
        PostgresJournal.open(postgres.dsn, schema=schema) as other,
        PostgresJournal.open(proxy.dsn, schema=schema) as journal,
    ):
        await append_durably(journal, "r1", [run_started("r1")])
        old = await lock_of(postgres, schema)
        away = [True]
        proxy.lose = lambda use, request: "request" if use == "presence" and away else None
        await lose_presence(postgres, schema)
        assert await other.send("r1", InboxMessage(kind="cancel")) == 1  # no listener is connected
        away.clear()
        async with asyncio.timeout(30):
            assert await journal.wait_for_messages() == {"r1"}
        assert len(new := await lock_of(postgres, schema)) == 1
        assert new != old
        assert await error_code(other.lease("r1")) == "J022"
        await append_durably(journal, "r1", node_events(2))
        assert await other.send("r1", InboxMessage(kind="cancel")) == 2
        async with asyncio.timeout(30):
            assert await journal.wait_for_messages() == {"r1"}


async def test_takeover_during_lost_presence_fails_one_run(postgres: PostgresServer, schema: str) -> None:
    async with (
        before(postgres) as proxy,
        PostgresJournal.open(postgres.dsn, schema=schema) as other,
        PostgresJournal.open(proxy.dsn, schema=schema) as journal,
    ):
        await append_durably(journal, "r1", [run_started("r1")])
        await append_durably(journal, "r2", [run_started("r2")])
        away = [True]
        proxy.lose = lambda use, request: (
            "request" if away and (use == "presence" or b"attempt_finished" in request) else None
        )
        await lose_presence(postgres, schema)
        assert await other.lease("r1") == 2
        await append_durably(other, "r1", node_events(2))
        journal.append("r1", [outbox_event(2, "a")])
        journal.append("r2", [outbox_event(2, "a")])
        waiting = asyncio.ensure_future(error_code(journal.wait_durable("r1", 2)))
        away.clear()
        assert await waiting == "J005"
        await journal.wait_durable("r2", 2)
        while not await lock_of(postgres, schema, "r2"):
            pass
        assert await error_code(other.lease("r2")) == "J022"
        assert len(await other.read("r1")) == 2
        assert [message.run for message in await other.outbox()] == ["r2"]


@pytest.mark.parametrize("taken", ["epoch = epoch + 1", "holder = 1", "ended = true", "last = 7"])
async def test_commit_with_lost_lease_fails_one_run(taken: str, postgres: PostgresServer, schema: str) -> None:
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        await append_durably(journal, "r2", [run_started("r2")])
        await sql(postgres, f"UPDATE {schema}.runs SET {taken} WHERE run = 'r1'")
        journal.append("r1", [outbox_event(2, "a")])
        journal.append("r2", node_events(2))
        await journal.wait_durable("r2", 2)
        assert await error_code(journal.wait_durable("r1", 2)) == "J005"
        with pytest.raises(JournalError, match="J005"):
            journal.append("r1", node_events(3))
        assert await sql(postgres, f"SELECT run, max(seq) FROM {schema}.events GROUP BY run ORDER BY run") == [
            ("r1", 1),
            ("r2", 2),
        ]
        assert await journal.outbox() == []


HOLDER = """
import asyncio, sys
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.testing.conformance.scenarios import append_durably, run_started

async def main(dsn, schema):
    async with PostgresJournal.open(dsn, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1")])
        print("held", flush=True)
        await asyncio.sleep(600)

asyncio.run(main(*sys.argv[1:]))
"""


async def test_lease_of_killed_process_is_free(postgres: PostgresServer, schema: str) -> None:
    command = [sys.executable, "-c", HOLDER, postgres.dsn, schema]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE, cwd=ROOT)
    assert process.stdout is not None
    assert await process.stdout.readline() == b"held\n"
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        assert await error_code(journal.lease("r1")) == "J022"
        process.kill()
        await process.wait()
        async with asyncio.timeout(30):
            while await status_of(journal, "r1") != "interrupted":  # until the server detects the closed socket
                pass
        assert await journal.lease("r1") == 2


# Stopped servers


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
async def test_durable_events_survive_server_crash(how: signal.Signals) -> None:
    with running() as server:
        durable: dict[str, int] = {}

        async def one_run(journal: PostgresJournal, run: str) -> None:
            await append_durably(journal, run, [run_started(run)])
            for seq in range(2, 100_000):
                await append_durably(journal, run, node_events(seq))
                durable[run] = seq
                if sum(durable.values()) > 1000 and run == "r0":
                    await asyncio.to_thread(server.stop, how)

        with suppress(JournalError):
            async with PostgresJournal.open(server.dsn, retry_timeout=1.0) as journal:
                codes = await asyncio.gather(*(error_code(one_run(journal, f"r{number}")) for number in range(10)))
        assert set(codes) <= {"J031", "J032"}
        server.start()
        async with PostgresJournal.open(server.dsn) as journal:
            for run, seq in durable.items():
                found = [event.seq for event in await journal.read(run)]
                assert found in (list(range(1, seq + 1)), list(range(1, seq + 2)))  # the last one was on its way


@pytest.mark.parametrize("how", [signal.SIGQUIT, signal.SIGINT])
async def test_runs_continue_after_server_restart(how: signal.Signals) -> None:
    with running() as server:

        async def one_run(journal: PostgresJournal, run: str) -> None:
            await append_durably(journal, run, [run_started(run)])
            for seq in range(2, 60):
                await append_durably(journal, run, [outbox_event(seq, f"n{seq}")])
                await asyncio.sleep(0.005)
            await append_durably(journal, run, [run_finished(60)])

        async def restart() -> None:
            for _ in range(2):
                await asyncio.sleep(0.1)
                await asyncio.to_thread(server.stop, how)
                await asyncio.to_thread(server.start)

        async with PostgresJournal.open(server.dsn) as journal:
            mail = asyncio.ensure_future(journal.wait_for_messages())
            await asyncio.gather(restart(), *(one_run(journal, f"r{number}") for number in range(6)))
            await append_durably(journal, "last", [run_started("last")])
            for number in range(6):
                assert [event.seq for event in await journal.read(f"r{number}")] == list(range(1, 61))
            found = await journal.outbox(limit=1000)
            assert sorted(message.key for message in found) == sorted(
                f"r{run}/n{seq}" for run in range(6) for seq in range(2, 60)
            )
            async with asyncio.timeout(60), PostgresJournal.open(server.dsn) as other:
                while not await lock_of(server, "orchestra", "last"):
                    pass
                assert await error_code(other.lease("last")) == "J022"
                await other.send("last", InboxMessage(kind="cancel"))
                assert await mail == {"last"}
                journal.append("last", [run_finished(2)])


# Tables


async def test_concurrent_opens_create_tables_once(postgres: PostgresServer, schema: str) -> None:
    async def one() -> None:
        async with PostgresJournal.open(postgres.dsn, schema=schema):
            pass

    await asyncio.gather(*(one() for _ in range(8)))
    assert await sql(postgres, f"SELECT version FROM {schema}.schema_version") == [(SCHEMA_VERSION,)]


@pytest.mark.parametrize(
    ("version", "hint"), [(99, "pip install --upgrade"), (SCHEMA_VERSION - 1, "read this one with the version")]
)
async def test_open_other_schema_version_is_refused(
    postgres: PostgresServer, schema: str, version: int, hint: str
) -> None:
    async with PostgresJournal.open(postgres.dsn, schema=schema):
        pass
    await sql(postgres, f"UPDATE {schema}.schema_version SET version = {version}")
    error = await refusal(PostgresJournal.open(postgres.dsn, schema=schema).__aenter__())
    assert (error.code, hint in error.hint) == ("J020", True)


async def test_open_foreign_schema_is_refused(postgres: PostgresServer, schema: str) -> None:
    await sql(postgres, f"CREATE SCHEMA {schema}")
    await sql(postgres, f"CREATE TABLE {schema}.accounts (name text)")
    assert (await refusal(PostgresJournal.open(postgres.dsn, schema=schema).__aenter__())).code == "J018"
    assert await sql(postgres, "SELECT tablename::text FROM pg_tables WHERE schemaname = $1", schema) == [("accounts",)]


@pytest.mark.parametrize(
    "dsn", ["postgresql://ann:secret@localhost:1/x", "postgresql://ann:secret@/x?host=/nowhere", "no address"]
)
async def test_open_unreachable_error_has_no_password(dsn: str) -> None:
    error = await refusal(PostgresJournal.open(dsn, retry_timeout=2.0).__aenter__())
    assert error.code == "J030"
    assert "secret" not in str(error)


async def test_large_values_are_stored_once(postgres: PostgresServer, schema: str) -> None:
    value = {"text": "x" * 100_000}
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        finished = AttemptFinished(seq=2, at=1.0, node="a", attempt=1, value=value)
        await append_durably(
            journal,
            "r1",
            [run_started("r1"), finished, NodeFinished(seq=3, at=1.0, node="a", outcome=ValueOutcome(value=value))],
        )
    assert await sql(postgres, f"SELECT max(length(body)) < 1000 FROM {schema}.events") == [(True,)]
    assert await sql(postgres, f"SELECT count(*), min(length(data)) > 100000 FROM {schema}.blobs") == [(1, True)]


@pytest.mark.parametrize(("durability", "least", "most"), [("group", 1, 20), ("strict", 400, 400)])
async def test_commit_groups_queued_events(
    durability: Any, least: int, most: int, postgres: PostgresServer, schema: str
) -> None:
    async with PostgresJournal.open(postgres.dsn, schema=schema, durability=durability) as journal:
        for seq in (1, 2):
            runs = [f"r{number}" for number in range(200)]
            await asyncio.gather(
                *(append_durably(journal, run, [run_started(run)] if seq == 1 else node_events(2)) for run in runs)
            )
    ((commits,),) = await sql(postgres, f"SELECT count(DISTINCT xmin::text) FROM {schema}.events")
    assert least <= commits <= most


async def test_durability_off_commits_at_close(postgres: PostgresServer, schema: str) -> None:
    (law,) = (law for law in CONFORMANCE_TESTS if law.name == "closing_commits_the_queue")
    await law.run(lambda: PostgresJournal.open(postgres.dsn, schema=schema, durability="off"))


async def waiting(server: PostgresServer, schema: str) -> int:
    """Returns how many statements on the journal's tables wait for a lock."""
    ((count,),) = await sql(
        server,
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'",
        schema,
    )
    return int(count)


async def test_delete_keeps_blob_of_concurrent_use(postgres: PostgresServer, schema: str) -> None:
    async with (
        PostgresJournal.open(postgres.dsn, schema=schema) as one,
        PostgresJournal.open(postgres.dsn, schema=schema) as two,
    ):
        name = one.put_blob(b"shared")
        await append_durably(one, "old", [run_started("old", graph=name), run_finished(2)])
        stop = await asyncpg.connect(postgres.dsn)
        try:
            async with asyncio.timeout(60):
                # An uncommitted row blocks inserts of the same row; the writer inserts its blobs before.
                await stop.execute("BEGIN")
                await stop.execute(f"INSERT INTO {schema}.events VALUES ('new', 1, '', '')")
                one.put_blob(b"shared")
                writing = asyncio.ensure_future(append_durably(one, "new", [run_started("new", graph=name)]))
                while await waiting(postgres, schema) < 1:
                    pass
                deleting = asyncio.ensure_future(two.delete("old"))
                while await waiting(postgres, schema) < 2 and not deleting.done():
                    pass
                await stop.execute("ROLLBACK")
        finally:
            await stop.close()
        await asyncio.gather(writing, deleting)
        assert await two.get_blob(name) == b"shared"


async def test_delete_removes_exactly_unused_blobs(postgres: PostgresServer, schema: str) -> None:
    async def begin_and_end(journal: PostgresJournal, worker: int) -> None:
        for number in range(20):
            run, name = f"r{worker}-{number}", journal.put_blob(b"shared")
            await append_durably(journal, run, [run_started(run, graph=name)])
            assert await journal.get_blob(name) == b"shared"
            await append_durably(journal, run, [run_finished(2)])
            await journal.delete(run)

    async with (
        PostgresJournal.open(postgres.dsn, schema=schema) as one,
        PostgresJournal.open(postgres.dsn, schema=schema) as two,
    ):
        await asyncio.gather(*(begin_and_end((one, two)[worker % 2], worker) for worker in range(6)))
        assert await sql(postgres, f"SELECT count(*) FROM {schema}.blobs") == [(0,)]


# Damage, and unstorable ids

DAMAGE = {
    "a changed byte": ("UPDATE @events SET body = overlay(body placing '\\x58' from 3) WHERE seq = 2", "J013"),
    "a missing event": ("DELETE FROM @events WHERE seq = 2", "J013"),
    "a missing end": ("DELETE FROM @events WHERE seq = 3", "J013"),
    "a missing value": ("DELETE FROM @blobs", "J013"),
    "another value": ("UPDATE @blobs SET data = '\\x2231'", "J013"),
}


@pytest.mark.parametrize("damage", DAMAGE)
async def test_read_detects_damage(damage: str, postgres: PostgresServer, schema: str) -> None:
    statement, code = DAMAGE[damage]
    finished = AttemptFinished(seq=3, at=1.0, node="a", attempt=1, value="x" * 100_000)
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        await append_durably(journal, "r1", [run_started("r1"), *node_events(2), finished])
        await append_durably(journal, "r2", [run_started("r2")])
        await sql(postgres, statement.replace("@", f"{schema}.") + (" AND run = 'r1'" if "events" in statement else ""))
        assert await error_code(journal.read("r1")) == code
        assert await journal.read("r2") == [run_started("r2")]


@pytest.mark.parametrize("run", ["a\0b", "\ud800", "x" * 2000])
async def test_append_unstorable_id_is_refused(run: str, postgres: PostgresServer, schema: str) -> None:
    async with PostgresJournal.open(postgres.dsn, schema=schema) as journal:
        assert await error_code(append_durably(journal, run, [run_started(run)])) == "J004"
        assert [await journal.read(run), await journal.inbox(run), await journal.find_runs(run)] == [[], [], []]
        assert await error_code(journal.lease(run)) == await error_code(journal.delete(run)) == "J023"
        await append_durably(journal, "r1", [run_started("r1")])


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (asyncpg.DiskFullError("full"), "J010"),
        (asyncpg.InsufficientPrivilegeError("no"), "J011"),
        (asyncpg.ReadOnlySQLTransactionError("standby"), "J011"),
        (asyncpg.DataCorruptedError("page"), "J013"),
        (asyncpg.PostgresIOError("disk"), "J014"),
        (asyncpg.UndefinedTableError("gone"), "J033"),
        (ConnectionResetError("reset"), "J032"),
        (TimeoutError(), "J032"),
    ],
    ids=lambda given: given if isinstance(given, str) else type(given).__name__,
)
def test_database_error_has_code(error: Exception, code: str) -> None:
    assert from_postgres(error, "here").code == code
