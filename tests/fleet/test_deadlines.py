"""Timeouts of nodes: the fleet's timeout ends before the engine's, so that a hanging server is detected."""

from __future__ import annotations

import asyncio

import pytest

from orchestra.agents.contract import Catalog
from orchestra.core.clock import SystemClock
from orchestra.core.events import AttemptFinished
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.fleet.dispatch import Fleet
from orchestra.fleet.http import connection
from orchestra.journal.memory import MemoryJournal
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read

from .calling import WRITER, opened
from .conftest import endpoints, local_config, raw_server

WAITING = """\
schema: orchestra/v1
name: waiting
input: {text: str}
output: ${reply}
nodes:
  reply: {agent: writer, with: {text: "${input.text}"}, timeout: 1.5, retry: {attempts: 2, wait: [0, 0]}}
"""


async def done(fleet: Fleet) -> list[str | None]:
    """Runs the workflow, and returns the result of each attempt."""
    engine = Engine(SystemClock(), MemoryJournal(), fleet)
    program = compile_graph(read(WAITING, "waiting.yaml").graph, Catalog(agents={"writer": WRITER.contract}))
    run = engine.start(program, RunRequest(inputs={"text": "hard"}, graph="0" * 32))
    await run.wait()
    await engine.close()
    return [event.error for event in run.log if isinstance(event, AttemptFinished)]


@pytest.mark.parametrize(("short_timeout", "told"), [(0.1, 2), (5.0, 0)])
async def test_hanging_server_is_detected_by_long_timeouts(
    short_timeout: float, told: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "SHORT_TIMEOUT", short_timeout)
    suspected: list[str] = []

    async def suspect(server: str) -> None:
        suspected.append(server)

    async with raw_server(lambda visit: visit.gone()) as server, opened(endpoints(server.url)) as fleet:
        monkeypatch.setattr(fleet._addresses, "report_stall", suspect)
        errors = await done(fleet)
        assert fleet._sender.states["s0"].failures == told, "five leave it alone"
    assert errors == ["F205"] * 2
    assert suspected == ["s0"] * told


async def test_slow_start_is_reported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ready(*_: object) -> None:
        await asyncio.Event().wait()

    async with opened(local_config("m")) as fleet:
        monkeypatch.setattr(fleet._addresses, "bring_up", ready)
        assert await done(fleet) == ["F216"] * 2
