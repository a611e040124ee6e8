"""Indexes of a journal equal a fold over the events after any history."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, closing, suppress
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import asyncpg
import msgspec
import pytest

from orchestra.app import run_queries
from orchestra.app.costs import COST_KEYS, costs
from orchestra.core.events import AttemptFinished, Event, RunFinished, RunStarted, encode
from orchestra.core.protocols import NO_LIMIT, IndexedJournal, RunSelection, RunUsageResult
from orchestra.core.tags import has_tags
from orchestra.fleet.config import parse_config
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.postgres import tables
from orchestra.journal.postgres.journal import PostgresJournal
from orchestra.journal.sqlite import reader
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.journal.sqlite.liveness import SqlitePresence
from orchestra.journal.sqlite.store import LeaseConflict, SqliteBatch, SqliteStore
from orchestra.journal.usage import decode_usage, usage_of
from tests.journal.files import sql
from tests.journal.histories import TAGS, History
from tests.journal.postgres_server import PostgresServer
from tests.journal.stories import begun, whole

HISTORIES = int(os.environ.get("ORCHESTRA_TEST_HISTORIES", "4"))
STEPS = 60
Journal: TypeAlias = SqliteJournal | PostgresJournal
FLEET = parse_config(
    """\
schema: orchestra/fleet/v1
name: several
servers:
  paid: {endpoint: "http://127.0.0.1:9/v1", model: m, price: {prompt: 0, output: 2}}
  gateway: {endpoint: "http://127.0.0.1:9/v1", model: m}
models: {base: paid}
""",
    "several.yaml",
).servers


@dataclass(frozen=True)
class Place:
    """A journal that can be opened several times and queried directly."""

    open: Callable[[], AbstractAsyncContextManager[Journal]]
    ask: Callable[[str], Awaitable[Sequence[Sequence[Any]]]]


Places: TypeAlias = Callable[[], Place]


@pytest.fixture(params=["sqlite", "postgres"])
def places(request: pytest.FixtureRequest, tmp_path: Path) -> Places:
    """Creates new journals."""
    if request.param == "sqlite":

        def in_a_file() -> Place:
            file = tmp_path / secrets.token_hex(4) / "j.db"

            async def ask(statement: str) -> Sequence[Sequence[Any]]:
                return sql(file, statement)

            return Place(lambda: SqliteJournal.open(file), ask)

        return in_a_file
    server: PostgresServer = request.getfixturevalue("postgres")

    def in_postgres() -> Place:
        schema = f"s{secrets.token_hex(8)}"

        async def ask_there(statement: str) -> Sequence[Sequence[Any]]:
            connection = await asyncpg.connect(server.dsn, server_settings={"search_path": schema})
            try:
                return [tuple(row) for row in await connection.fetch(statement)]
            finally:
                await connection.close()

        return Place(lambda: PostgresJournal.open(server.dsn, schema=schema), ask_there)

    return in_postgres


async def logs(journal: Any) -> dict[str, list[Event]]:
    """Returns all runs, newest first, with their events."""
    return {run.run: await journal.read(run.run) for run in await journal.list_runs(NO_LIMIT)}


async def check(journal: Any, ask: Callable[[str], Awaitable[Sequence[Sequence[Any]]]], chance: Random) -> None:
    """Compares the indexes with the events, twice: missing usages are stored by the first query."""
    runs = await logs(journal)
    for _ in range(2):
        used = [one async for one in journal.query_usages(RunSelection())]
        assert used == [RunUsageResult(run, float(events[0].at), usage_of(events)) for run, events in runs.items()]
    for run, last, body in await ask("SELECT run, last, body FROM run_usage"):
        assert decode_usage(body) == usage_of(runs[run][:last])
    for table in ("tags", "copies", "run_usage"):
        assert {row[0] for row in await ask(f"SELECT run FROM {table}")} <= runs.keys()
    for tags in TAGS[1:-1]:
        found = [run for run, events in runs.items() if has_tags(first(events).tags, tags)]
        assert [run.run for run in await journal.query_runs(NO_LIMIT, RunSelection(tags=tags))] == found
        await check_pages(journal, runs, found, tags, chance)
    for gone in ([chance.choice([*runs, "nowhere"]) for _ in range(3)], [*runs][:2], []):
        heirs = {run for run, events in runs.items() if not copied(events).isdisjoint(gone)}
        assert await journal.derived_runs(gone) == sorted(heirs - set(gone))
    assert await journal.existing_runs([*runs, "nowhere"]) == runs.keys()
    ends = await journal.first_and_last_events([*runs, "nowhere"])
    assert {run: (one.seq, last) for run, (one, last) in ends.items()} == {run: (1, ends[run][1]) for run in runs}
    assert all(
        type(ends[run][1]) is type(events[-1]) and ends[run][1].seq == len(events) for run, events in runs.items()
    )
    model: Any = MemoryJournal(MemoryStore())
    for run, events in runs.items():
        model.append(run, events)
    by = tuple(key for key in COST_KEYS if key != "status")  # for a run without an end it depends on the lease holder
    assert await costs(journal, FLEET, by) == await costs(model, FLEET, by)


async def check_pages(journal: Any, runs: dict[str, list[Event]], found: list[str], tags: Any, chance: Random) -> None:
    """A selection in pages, within a period, has all runs of the period once and in order."""
    since, until = sorted((float(chance.randint(0, 31)), float(chance.randint(0, 31))))
    where = RunSelection(tags=tags, since=since, until=until)
    pages = [page async for page in run_queries.run_pages(journal, chance.randint(1, 3), where)]
    assert [run.run for page in pages for run in page] == [run for run in found if since <= runs[run][0].at < until]


def copied(events: Sequence[Event]) -> set[str]:
    """Returns the runs that these events copy from, found by searching the JSON and not by the code that writes the
    index.
    """
    told = [msgspec.json.decode(encode(event)) for event in events]
    found = {told[0].get("parent", ""), told[0].get("options", {}).get("planned", {}).get("run", "")}
    found |= {one.get("reused_from", "") for one in told} | {
        one.get("draft", {}).get("reused_from", "") for one in told
    }
    return found - {""}


def first(events: Sequence[Event]) -> RunStarted:
    assert isinstance(events[0], RunStarted)
    return events[0]


async def test_indexes_equal_fold_of_events(places: Places, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader, "USAGE_BATCH_RUNS", 7)
    monkeypatch.setattr(tables, "USAGE_BATCH_RUNS", 7)
    for seed in range(HISTORIES):
        place, history = places(), History(seed)
        await history.play(place.open, STEPS)
        async with place.open() as journal:
            assert isinstance(journal, IndexedJournal)
            await check(journal, place.ask, history.chance)


async def test_indexes_equal_fold_of_events_after_crash(tmp_path: Path) -> None:
    for seed in range(HISTORIES):
        file, history, crashes = tmp_path / str(seed) / "j.db", History(seed), list[Path]()

        async def crash(file: Path = file, crashes: list[Path] = crashes) -> None:
            """Copies the current files, while the writer continues."""
            copy = file.with_name(f"crash{len(crashes)}.db")
            shutil.copy(file, copy)
            if (log := file.with_name(f"{file.name}-wal")).exists():
                shutil.copy(log, copy.with_name(f"{copy.name}-wal"))
            crashes.append(copy)

        await history.play(lambda file=file: SqliteJournal.open(file), STEPS, crash)  # type: ignore[misc]  # the loop's own
        for copy in crashes:

            async def ask(statement: str, copy: Path = copy) -> Sequence[Sequence[Any]]:
                return sql(copy, statement)

            async with SqliteJournal.open(copy) as journal:
                await check(journal, ask, history.chance)


@pytest.mark.parametrize("every", [2, 3])
async def test_retried_commit_counts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: int) -> None:
    file, commit, tries = tmp_path / "j.db", SqliteStore._write, [0]

    def refused_at_first(store: SqliteStore, change: Any) -> Any:
        tries[0] += 1
        found = commit(store, change)
        if tries[0] % every == 0:
            raise LeaseConflict
        return found

    monkeypatch.setattr(SqliteStore, "_write", refused_at_first)

    async def ask(statement: str) -> Sequence[Sequence[Any]]:
        return sql(file, statement)

    for seed in range(3):
        history = History(seed)
        await history.play(lambda: SqliteJournal.open(file), STEPS)
    monkeypatch.undo()
    async with SqliteJournal.open(file) as journal:
        await check(journal, ask, Random(0))


async def test_delete_runs_returns_errors_of_others(places: Places) -> None:
    place = places()
    async with place.open() as journal, place.open() as other:
        for run in ("a", "b"):
            journal.append(run, whole(run))
        other.append("held", [begun("held")])
        await other.wait_durable("held", 1)
        told = await journal.delete_runs(["a", "held", "nowhere", "b", "\udc80"])
        assert [error and error.code for error in told] == [None, "J022", "J023", None, "J023"]
        assert [run.run for run in await journal.list_runs()] == ["held"]
        assert await journal.delete_runs([]) == []


async def test_delete_removes_index_entries(places: Places) -> None:
    place, name = places(), "Mrs-Canary"
    async with place.open() as journal:
        started = msgspec.structs.replace(begun("a"), options={"tags": {"customer": name}}, workflow=name, parent=name)
        journal.append("a", [started, *whole("a")[1:]])
        await journal.wait_durable("a", 5)
        assert [one async for one in journal.query_usages(RunSelection(tags={"customer": name}))]
        await journal.delete("a")
        for table in ("tags", "copies", "run_usage"):
            assert await place.ask(f"SELECT * FROM {table}") == []
        assert await journal.query_runs(10, RunSelection(tags={"customer": name})) == []


async def test_event_with_invalid_tag_or_run_is_kept(places: Places) -> None:
    place = places()
    async with place.open() as journal:
        started = msgspec.structs.replace(
            begun("a"), options={"tags": {"a": "x\0y", "b": 1, "c": "d" * 500}}, parent="p\0q" * 500
        )
        journal.append("a", [started])
        await journal.wait_durable("a", 1)
        assert await journal.read("a") == [started]
        assert await journal.derived_runs(["p\0q" * 500]) in ([], ["a"])  # Postgres cannot have such a run


async def test_run_with_reused_answer_is_derived(places: Places) -> None:
    async with places().open() as journal:
        events: list[Event] = [
            begun("b"),
            AttemptFinished(seq=2, at=2.0, node="a", attempt=1, value=1, reused_from="a"),
        ]
        journal.append("b", events)
        await journal.wait_durable("b", 2)
        assert await journal.derived_runs(["a"]) == ["b"]


async def test_tag_in_one_copy_is_damage(tmp_path: Path) -> None:
    """The second copy is the index of the table: it is hidden while a row of the table is deleted, as if a page was
    lost.
    """
    file = tmp_path / "j.db"
    async with SqliteJournal.open(file) as journal:
        for run in ("a", "b"):
            started = msgspec.structs.replace(begun(run), options={"tags": {"customer": "ann"}})
            journal.append(run, [started, *whole(run)[1:]])
            await journal.wait_durable(run, 5)
    [(root, text)] = sql(file, "SELECT rootpage, sql FROM sqlite_master WHERE name = 'tags_run'")
    writable = "PRAGMA writable_schema = ON"
    restored = f"INSERT INTO sqlite_master VALUES ('index', 'tags_run', 'tags', {root}, '{text}')"
    sql(file, writable, "DELETE FROM sqlite_master WHERE name = 'tags_run'")
    sql(file, "DELETE FROM tags WHERE run = 'a'", writable, restored)
    with closing(reader.SqliteReader(file)) as looking, pytest.raises(JournalError) as caught:
        looking.summaries(10, RunSelection(tags={"customer": "ann"}))
    assert caught.value.code == "J013"


def test_failed_commit_is_not_counted_twice(tmp_path: Path) -> None:
    presence, events = SqlitePresence(tmp_path / "writers"), whole("a")
    store = SqliteStore(tmp_path / "j.db", presence)

    def batch(run: str, *some: Event) -> SqliteBatch:
        return SqliteBatch(runs={run: [(some, [encode(event) for event in some], ())]})

    store.commit(batch("a", *events[:2]))
    failing = batch("a", *events[2:4])
    failing.runs |= batch("b", events[1]).runs  # its first event is missing
    with pytest.raises(LeaseConflict):
        store.commit(failing)
    store.commit(batch("a", *events[2:4]))
    store.commit(batch("a", *events[4:]))
    store.close()
    presence.release()
    with closing(reader.SqliteReader(tmp_path / "j.db")) as looking:
        assert looking.query_usages(RunSelection()).found == [RunUsageResult("a", 1.0, usage_of(events))]


async def test_usage_of_contested_run_is_of_winner(places: Places) -> None:
    place = places()
    async with place.open() as one, place.open() as other:
        for number in range(20):
            run = f"r{number}"
            for journal, workflow in ((one, "one"), (other, "other")):
                journal.append(run, [msgspec.structs.replace(begun(run), workflow=workflow), *whole(run)[1:]])
        for journal in (one, other):
            for number in range(20):
                with suppress(JournalError):
                    await journal.wait_durable(f"r{number}", 5)
        await check(one, place.ask, Random(0))


async def test_usage_of_taken_over_run_is_complete(places: Places) -> None:
    place, events = places(), whole("a")
    async with place.open() as one, place.open() as other:
        one.append("a", events[:1])
        await one.release("a")
        await other.lease("a")
        other.append("a", events[1:3])
        await other.release("a")
        await one.lease("a")
        one.append("a", events[3:])
        await one.wait_durable("a", 5)
        assert isinstance(events[-1], RunFinished)
        assert [used.usage async for used in one.query_usages(RunSelection())] == [usage_of(events)]
        await check(one, place.ask, Random(0))


async def test_compact_step_frees_many_pages(tmp_path: Path) -> None:
    async with SqliteJournal.open(tmp_path / "j.db") as journal:
        journal.append("a", [msgspec.structs.replace(begun("a"), inputs={"text": "x" * 2_000_000}), *whole("a")[1:]])
        await journal.wait_durable("a", 5)
        await journal.delete("a")
    with closing(reader.SqliteReader(tmp_path / "j.db")) as looking:
        before = looking.sql.execute("PRAGMA freelist_count").fetchone()[0]
        assert before > reader.VACUUM_PAGES
        assert looking.vacuum_step()
        assert before - looking.sql.execute("PRAGMA freelist_count").fetchone()[0] == reader.VACUUM_PAGES
