"""Idempotency keys: a caller may leave and return to the run, and a run is in the journal once `start` has returned."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra, OrchestraError, RunFailed, tool, workflow
from orchestra.app.run import Run
from orchestra.core.events import CancelRequested, Event
from orchestra.core.protocols import CallError
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.testing import SimulatedWorkers


@tool(effect="idempotent")
def look_up(text: str) -> str:
    """Finds something."""
    return text


@tool(effect="once")
def order(text: str) -> str:
    """Orders something."""
    return text


@workflow()
def ordered(text: str) -> str:
    """Finds something, and orders it."""
    placed = order(text=text)
    return look_up(text=placed)


class Gated(MemoryJournal):
    """A journal that writes nothing to disk before the gate opens."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()

    async def wait_durable(self, run: str, seq: int) -> None:
        await self.gate.wait()
        await super().wait_durable(run, seq)


class Late(MemoryJournal):
    """A journal in which a takeover happens only after the run has ended."""

    async def lease(self, run: str) -> int:
        await turned(lambda: self.store.logs[run].end.is_ended)
        return await super().lease(run)


@asynccontextmanager
async def opened(
    folder: Path,
    script: Any = None,
    *,
    store: MemoryStore | None = None,
    journal: Any = None,
    file: str = "off",
    **simulation: Any,
) -> AsyncIterator[tuple[Orchestra, SimulatedWorkers]]:
    workers = SimulatedWorkers({"look_up": "found", "order": "ordered", **(script or {})}, **simulation)
    settings = Settings.load({"journal": file}, start=folder)
    journal = MemoryJournal(store) if store is not None else journal
    async with Orchestra.open(settings, workers=workers, journal=journal) as orchestra:
        yield orchestra, workers
    if isinstance(journal, MemoryJournal):
        await journal.close()


async def turned(holds: Callable[[], bool]) -> None:
    """Runs the event loop until the condition holds."""
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0.0001)
    raise AssertionError("it never held")


async def seen(run: Run[Any]) -> list[Event]:
    return [event async for event in run]


async def test_key_waiter_leaving_does_not_cancel_run(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=0.05) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-42")
        leaves, stays = (asyncio.create_task(keyed.run(ordered, text="pens")) for _ in range(2))
        await turned(lambda: bool(workers.in_flight))
        leaves.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaves
        assert (await stays).output == "found"
        assert (await keyed.run(ordered, text="pens")).status == "done"
        assert (workers.counts["order"], workers.cancelled) == (1, [])


async def test_key_resumes_run_interrupted_by_close(tmp_path: Path) -> None:
    store = MemoryStore()
    async with opened(tmp_path, store=store, latency=60.0) as (orchestra, workers):
        waiter = asyncio.create_task(orchestra.options(idempotency_key="order-42").run(look_up, text="pens"))
        await turned(lambda: bool(workers.in_flight))
        waiter.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiter
    async with opened(tmp_path, store=store) as (orchestra, _):
        [summary] = await orchestra.journal.list_runs()
        assert summary.status == "interrupted"
        result = await orchestra.options(idempotency_key="order-42").run(look_up, text="pens")
        assert (result.run, result.output) == (summary.run, "found")


async def test_key_in_two_processes_makes_one_run_names_holder(
    tmp_path: Path,
) -> None:
    store = MemoryStore()
    async with (
        opened(tmp_path, store=store, latency=0.02) as (one, its),
        opened(tmp_path, store=store, latency=0.02) as (two, others),
    ):
        runs = (
            one.options(idempotency_key="k").start(ordered, text="a"),
            two.options(idempotency_key="k").start(ordered, text="a"),
        )
        begun, refused = sorted(
            await asyncio.gather(*runs, return_exceptions=True), key=lambda found: isinstance(found, Exception)
        )
        assert isinstance(refused, OrchestraError)
        assert refused.code == "J022"
        assert isinstance(begun, Run)
        assert (await begun).output == "found"
        assert its.counts["order"] + others.counts["order"] == 1
        assert (await one.options(idempotency_key="k").run(ordered, text="a")).run == begun.id
        assert (await two.options(idempotency_key="k").run(ordered, text="a")).run == begun.id


async def test_key_run_ending_during_takeover_returned(tmp_path: Path) -> None:
    store = MemoryStore()
    async with (
        opened(tmp_path, store=store, latency=0.05) as (one, _),
        opened(tmp_path, journal=Late(store)) as (two, workers),
    ):
        run = await one.options(idempotency_key="k").start(ordered, text="a")
        assert (await two.options(idempotency_key="k").run(ordered, text="a")).output == "found"
        run = await one.options(idempotency_key="l").start(ordered, text="a")
        assert (await (await two.resume(run.id))).output == "found"
        assert not workers.calls


async def test_key_returns_failure_fork_with_new_key_retries(tmp_path: Path) -> None:
    store = MemoryStore()
    down = {"look_up": CallError(code="F203", reason="no server answers")}
    async with opened(tmp_path, down, store=store) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-42")
        for _ in range(2):
            with pytest.raises(RunFailed) as caught:
                await keyed.run(ordered, text="pens")
            assert caught.value.code == "F203"
        assert workers.counts == {"order": 1, "look_up": 1}
        failed = (await (await keyed.start(ordered, text="pens")).wait()).run
    async with opened(tmp_path, store=store) as (orchestra, workers):
        tries = [await orchestra.options(idempotency_key="order-42/2").fork(failed, ordered) for _ in range(2)]
        assert [(await fork.run).output for fork in tries] == ["found", "found"]
        assert len({fork.run.id for fork in tries} | {failed}) == 2
        assert workers.counts == {"look_up": 1}


@workflow(label="public")
def looked_up(text: str) -> str:
    """Finds something public."""
    return look_up(text=text)


async def test_key_of_other_label_not_shared(tmp_path: Path) -> None:
    async with opened(tmp_path, store=MemoryStore()) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-9", label="internal")
        first = (await keyed.run(looked_up, text="pens")).run
        for label in ("public", "restricted"):
            other = keyed.options(label=label)
            for door in (other.run, other.start):
                with pytest.raises(InputError, match=f"labelled internal, and this is labelled {label}") as caught:
                    await door(looked_up, text="pens")
                assert (caught.value.code, "options(label='internal')" in str(caught.value.hint)) == ("E015", True)
        assert (await keyed.run(looked_up, text="pens")).run == first
        own = orchestra.options(idempotency_key="order-10")
        first = (await own.run(ordered, text="pens")).run
        assert (await own.options(label="public").run(ordered, text="pens")).run == first, (
            "the workflow's own label is stricter"
        )
        assert workers.counts == {"order": 1, "look_up": 2}


async def test_run_journaled_when_start_or_fork_returns(tmp_path: Path) -> None:
    async with opened(tmp_path, file=str(tmp_path / "runs.db"), latency=60.0) as (orchestra, _):
        started = await orchestra.start(look_up, text="pens")
        assert _events_on_disk(tmp_path / "runs.db", started.id) > 0
        forked = await orchestra.fork(started.id, look_up)
        assert _events_on_disk(tmp_path / "runs.db", forked.run.id) > 0
        many = await asyncio.gather(*(orchestra.start(look_up, text=str(number)) for number in range(200)))
        assert all(_events_on_disk(tmp_path / "runs.db", run.id) for run in many)


def _events_on_disk(file: Path, run: str) -> int:
    """Returns the events that another process sees now."""
    with sqlite3.connect(file) as sql:
        found: int = sql.execute("SELECT count(*) FROM events WHERE run = ?", (run,)).fetchone()[0]
    return found


@pytest.mark.parametrize("key", ["", "order-42"])
async def test_start_cancelled_early_leaves_no_unknown_run(tmp_path: Path, key: str) -> None:
    journal = Gated()
    async with opened(tmp_path, journal=journal, latency=0.01) as (orchestra, _):
        starting = asyncio.create_task(orchestra.options(idempotency_key=key).start(look_up, text="pens"))
        await turned(lambda: bool(journal.store.logs))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        journal.gate.set()
        [summary] = await journal.list_runs()
        run = await orchestra.resume(summary.run)
        assert (await run.wait()).status == ("done" if key else "cancelled")
        assert any(isinstance(event, CancelRequested) for event in await seen(run)) == (not key)


@pytest.mark.parametrize("file", ["off", "runs.db"])
async def test_run_subscriber_notified_of_close(tmp_path: Path, file: str) -> None:
    async with opened(tmp_path, file=file if file == "off" else str(tmp_path / file), latency=60.0) as (
        orchestra,
        workers,
    ):
        run = await orchestra.start(look_up, text="pens")
        watching = asyncio.create_task(seen(run))
        await turned(lambda: bool(workers.in_flight))
    with pytest.raises(OrchestraError) as caught:
        await watching
    assert caught.value.code == "E017"
