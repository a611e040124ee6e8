"""A store that could not be written for a while: holders of runs get the fault, nothing is written partly, and then all
runs continue.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sqlite3
from collections.abc import Awaitable
from pathlib import Path

import pytest

from orchestra import Orchestra, RunFailed, tool, workflow
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import create_fault_logger
from orchestra.core.events import AttemptFinished
from orchestra.core.protocols import InboxMessage, Journal
from orchestra.core.settings import Settings
from orchestra.journal.errors import JournalError
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.testing.conformance.scenarios import (
    append_durably,
    error_code,
    node_events,
    run_finished,
    run_started,
    status_of,
)
from tests.journal.postgres_proxy import before
from tests.journal.postgres_server import PostgresServer, running
from tests.journal.sqlite.test_journal import many

pytestmark = pytest.mark.slow


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "journal.db"


async def recovered(journal: Journal) -> None:
    """Waits until the store can be written again."""
    for _ in range(600):
        if not await error_code(journal.check_writable()):
            return
        await asyncio.sleep(0.05)
    raise AssertionError("it is not written again")


async def fill(journal: SqliteJournal) -> None:
    """Writes more than fits."""
    journal.append("large", [run_started("large"), *many(2, 300)])
    assert await error_code(journal.wait_durable("large", 301)) == "J010"


async def test_full_disk_recovers(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal:
        await append_durably(journal, "in hand", [run_started("in hand")])
        await fill(journal)
        assert await error_code(journal.check_writable()) == "J010"
        assert await error_code(append_durably(journal, "new", [run_started("new")])) == "J010"
        await recovered(journal)
        await append_durably(journal, "new", [run_started("new"), run_finished(2)])
        assert [(row.run, row.status) for row in await journal.list_runs()] == [
            ("new", "done"),
            ("in hand", "interrupted"),
        ]


async def test_open_run_after_fault_needs_lease(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal, SqliteJournal.open(file) as other:
        await append_durably(journal, "here", [run_started("here")])
        await append_durably(journal, "there", [run_started("there")])
        await fill(journal)
        await recovered(journal)
        for run in ("here", "there"):
            assert await error_code(append_durably(journal, run, node_events(2))) == "J010"
        assert await other.lease("there") == 2
        await append_durably(other, "there", node_events(2))
        assert await error_code(append_durably(journal, "there", node_events(2))) == "J010"
        assert await journal.lease("here") == 2
        await append_durably(journal, "here", [*node_events(2, 1), run_finished(3)])
        assert len(await other.read("here")) == 3
        await append_durably(journal, "large", [run_started("large")])  # nothing of it was on disk


async def test_blob_put_before_fault_is_usable_after(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal:
        name = journal.put_blob(b"a prompt")
        await fill(journal)
        await recovered(journal)
        await append_durably(
            journal,
            "r1",
            [run_started("r1"), AttemptFinished(seq=2, at=1.0, node="n", attempt=1, sent=name), run_finished(3)],
        )
    async with SqliteJournal.open(file) as journal:
        assert await journal.get_blob(name) == b"a prompt"


async def test_lost_answer_is_not_memoized(file: Path) -> None:
    async with SqliteJournal.open(file, max_bytes=200_000) as journal:
        journal.append("large", [run_started("large"), *many(2, 300)])
        journal.put_memo("memo", "large", 1)
        assert await error_code(journal.wait_durable("large", 301)) == "J010"
        assert await journal.get_memo("memo") is None
        await recovered(journal)
        assert await journal.get_memo("memo") is None


async def test_long_lock_is_fault_while_it_lasts(file: Path) -> None:
    heard: list[str | None] = []
    async with SqliteJournal.open(
        file, busy_timeout=0.05, alarm=lambda fault: heard.append(fault.code if fault else None)
    ) as journal:
        other = sqlite3.connect(file, isolation_level=None)
        for _ in range(2):
            other.execute("BEGIN IMMEDIATE")
            assert await error_code(journal.check_writable()) == "J012"
            assert await error_code(journal.send("r1", InboxMessage(kind="cancel"))) == "J012"
            other.execute("ROLLBACK")
            await recovered(journal)
        other.close()
    assert heard == ["J012", None] * 2


async def test_failed_disk_is_permanent_fault(file: Path) -> None:
    heard: list[str | None] = []
    async with SqliteJournal.open(file, alarm=lambda fault: heard.append(fault.code if fault else None)) as journal:
        os.unlink(file)
        assert await error_code(journal.check_writable()) == "J016"
        await asyncio.sleep(1.5)
        assert await error_code(journal.check_writable()) == "J016"
    assert heard == ["J016"]


async def test_close_during_fault_returns(file: Path) -> None:
    async with SqliteJournal.open(file, busy_timeout=0.05) as journal:
        other = sqlite3.connect(file, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert await error_code(journal.check_writable()) == "J012"
    other.close()


def test_fault_is_logged(capsys: pytest.CaptureFixture[str]) -> None:
    hear = create_fault_logger("warning", form="json")
    hear(JournalError("J010", "the disk is full: x", hint="free some", why="database or disk is full"))
    hear(None)
    create_fault_logger("off")(None)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [(line["level"], line["event"], line.get("code")) for line in lines] == [
        ("error", "journal failed", "J010"),
        ("warning", "journal works again", None),
    ]


@tool(effect="pure")
async def slow() -> int:
    """Takes a moment."""
    await asyncio.sleep(0.3)
    return 1


@tool(effect="pure")
def long_text(size: int) -> str:
    """Gives a text."""
    return "x" * size


@workflow
def slowly() -> int:
    """Takes a moment."""
    return slow()


@workflow
def wordy(size: int) -> str:
    """Gives a text."""
    return long_text(size=size)


async def test_service_runs_resume_after_full_disk(file: Path) -> None:
    async with (
        SqliteJournal.open(file, max_bytes=400_000) as journal,
        Orchestra.open(Settings.load({"journal": "off"}), fleet="none", journal=journal) as orchestra,
    ):
        held = await orchestra.start(slowly)
        assert await failure(orchestra.run(wordy, size=1_000_000)) == "J010"
        assert await failure(held.wait()) == "J010"
        await recovered(orchestra.journal)
        assert (await orchestra.run(wordy, size=10)).output == "x" * 10
        assert held.id in {row.run for row in await orchestra.runs(status="interrupted")}
        assert (await (await orchestra.resume(held.id))).value == 1


async def test_slow_release_keeps_lease_of_new_holder(file: Path) -> None:
    calls: list[int] = []

    @tool(effect="pure")
    async def stubborn() -> int:
        """Is slow, also when it is cancelled."""
        calls.append(1)
        try:
            await asyncio.sleep(1.5)
        except asyncio.CancelledError:
            await asyncio.sleep(1.5)
            raise
        return len(calls)

    @workflow
    def both() -> list[int]:
        """Two at once."""
        return [slow(), stubborn()]

    async with (
        SqliteJournal.open(file, max_bytes=400_000) as journal,
        Orchestra.open(Settings.load({"journal": "off"}), fleet="none", journal=journal) as orchestra,
    ):
        held = await orchestra.start(both)
        await asyncio.sleep(0.05)
        assert await failure(orchestra.run(wordy, size=1_000_000)) == "J010"
        await recovered(orchestra.journal)
        assert await failure((await orchestra.resume(held.id)).wait()) == "J010"  # the one that releases
        assert (await (await orchestra.resume(held.id))).value == [1, 2]


async def failure(work: Awaitable[object]) -> str | None:
    """Returns the code of the error."""
    try:
        await work
    except (OrchestraError, RunFailed) as error:
        return error.code
    return None


# Postgres


async def test_unreachable_database_recovers(postgres: PostgresServer, schema: str) -> None:
    heard: list[str | None] = []
    async with (
        before(postgres) as proxy,
        PostgresJournal.open(postgres.dsn, schema=schema) as other,
        PostgresJournal.open(
            proxy.dsn, schema=schema, retry_timeout=0.2, alarm=lambda fault: heard.append(fault.code if fault else None)
        ) as journal,
    ):
        await append_durably(journal, "r0", [run_started("r0")])
        name = journal.put_blob(b"a prompt")
        proxy.lose = lambda use, request: "request"
        assert await error_code(append_durably(journal, "r1", [run_started("r1")])) == "J032"
        assert await error_code(journal.check_writable()) == "J032"
        proxy.lose = lambda use, request: None
        await recovered(journal)
        assert heard == ["J032", None]
        assert await error_code(append_durably(journal, "r0", node_events(2))) == "J032"
        assert await status_of(other, "r0") == "interrupted"
        assert await other.lease("r0") == 2
        await append_durably(other, "r0", node_events(2))
        await append_durably(
            journal, "r1", [run_started("r1"), AttemptFinished(seq=2, at=1.0, node="n", attempt=1, sent=name)]
        )
        assert await other.get_blob(name) == b"a prompt"
        assert await error_code(other.lease("r1")) == "J022"
        waiting = asyncio.ensure_future(journal.wait_for_messages())
        await other.send("r1", InboxMessage(kind="cancel"))
        async with asyncio.timeout(30):
            assert "r1" in await waiting


async def test_server_away_longer_than_timeout_recovers(schema: str, caplog: pytest.LogCaptureFixture) -> None:
    with running() as server:
        async with PostgresJournal.open(server.dsn, schema=schema, retry_timeout=0.5) as journal:
            await append_durably(journal, "r1", [run_started("r1")])
            waiting = asyncio.ensure_future(journal.wait_for_messages())
            server.stop(signal.SIGQUIT)
            await asyncio.sleep(2)
            assert await error_code(journal.check_writable()) in ("J031", "J032")
            server.start()
            await recovered(journal)
            await append_durably(journal, "r2", [run_started("r2"), run_finished(2)])
            assert await journal.lease("r1") == 2
            await journal.send("r1", InboxMessage(kind="cancel"))
            async with asyncio.timeout(30):
                assert await waiting == {"r1"}
    assert not caplog.records, "asyncpg tells nothing past the log of the service"
