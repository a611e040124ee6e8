"""`orchestra runs resume --all` cancelled before the runs continue."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra.cli.runs import resume as resume_module
from orchestra.cli.signals import StopSignal
from orchestra.journal.errors import lease_held_error
from orchestra.journal.memory import MemoryJournal


class Starting:
    """An `Orchestra` whose servers are starting and never ready."""

    journal = MemoryJournal()

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def runs(self, *, limit: int, status: str) -> list[Any]:
        return [SimpleNamespace(run=run, workflow="ask", status="interrupted") for run in ("r1", "r2")]

    async def resume(self, run: str, *, by: str = "", require_fleet: bool = False) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


@pytest.mark.parametrize("leaving", [False, True])
async def test_ctrl_c_while_servers_come_up_leaves_the_runs_as_they_were(
    leaving: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    starting, stop = Starting(), StopSignal()
    stop.terminating = leaving

    @asynccontextmanager
    async def open_(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield starting

    monkeypatch.setattr(resume_module, "journal_exists", lambda _: True)
    task = asyncio.create_task(resume_module.resume_all(open_, "", as_json=False, stop=stop))
    await asyncio.wait_for(starting.asked.wait(), 60)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


class Faster:
    """An `Orchestra` whose run is resumed first by another process."""

    journal = MemoryJournal()

    async def runs(self, *, limit: int, status: str) -> list[Any]:
        return [SimpleNamespace(run=run, workflow="ask", status="interrupted") for run in ("r1", "r2")]

    async def resume(self, run: str, *, by: str = "", require_fleet: bool = False) -> Any:
        if run == "r1":
            raise lease_held_error(run)
        return self

    async def wait_until_blocked(self) -> Any:
        return SimpleNamespace(status="done", error=None)


async def test_a_run_that_another_process_was_faster_with_is_no_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    @asynccontextmanager
    async def open_(*_: Any, **__: Any) -> AsyncIterator[Any]:
        yield Faster()

    monkeypatch.setattr(resume_module, "journal_exists", lambda _: True)
    assert await resume_module.resume_all(open_, "", as_json=False, stop=StopSignal()) == 0
    assert [line.split(":")[0] for line in capsys.readouterr().out.splitlines()] == [
        "r2  ask  done",
        "r1  ask  running",
    ]
