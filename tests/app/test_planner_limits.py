"""Limits of the planner in runs of a workflow with a plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from orchestra import Orchestra
from orchestra.app.planner_limits import PLANS
from orchestra.app.run import Run
from orchestra.app.snapshot_store import apply_run_options
from orchestra.core.events import RunStarted
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers

PLANNED = """\
schema: orchestra/v1
name: planned
input: {text: str}
output: ${done}
budget: {calls: 9}
nodes:
  done: {plan: Shout, with: {text: "${input.text}"}, workflows: [loud], returns: str}
"""
LOUD = """\
schema: orchestra/v1
name: loud
input: {text: str}
output: ${input.text}
nodes:
  said: {when: "${input.text == ''}", ask: "What?"}
"""


async def told(orchestra: Orchestra, run: Run[Any]) -> RunStarted:
    first = (await orchestra.journal.read(run.id))[0]
    assert isinstance(first, RunStarted)
    await run.wait_until_blocked()
    return first


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "orchestra.toml").write_text("")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows/planned.yaml").write_text(PLANNED)
    (tmp_path / "workflows/loud.yaml").write_text(LOUD)
    return Settings.load({"journal": "off"}, start=tmp_path, environ={})


async def test_planner_limits_calls_of_plans_counted(
    settings: Settings,
) -> None:
    async with Orchestra.open(
        settings, workers=SimulatedWorkers(lambda _: "return nothing"), journal=MemoryJournal()
    ) as orchestra:
        planned = orchestra.find("planned")
        first = await told(orchestra, await orchestra.start(planned, text="a"))
        fork = await told(orchestra, (await orchestra.fork(first.run)).run)
        memo = await told(orchestra, await orchestra.options(memo=True).start(planned, text="a"))
        assert [one.options.get(PLANS) for one in (first, fork, memo)] == [
            {"enforce_calls": True},
            None,
            None,
        ]  # nothing about a fleet that is not in use
        program = orchestra._project.program(planned)
        before = structs.replace(first, options={name: said for name, said in first.options.items() if name != PLANS})
        for one, calls in ((first, 9), (fork, None), (memo, None), (before, None)):
            planning = apply_run_options(program, one).nodes[0].plan_settings
            assert planning is not None
            assert planning.call_limit == calls
