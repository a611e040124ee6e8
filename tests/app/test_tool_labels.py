"""Labels inside tools: runs that a tool starts have the label of the tool's input, in every way to run a tool."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra, Step, Tool, blocking, tool, workflow
from orchestra.core.events import RunStarted
from orchestra.core.labels import CURRENT_LABEL, Label
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers

HERE: list[Orchestra] = []
"""The open instance, as a service keeps it for its tools."""
INNER: list[Settings] = []


@tool(effect="pure", label="restricted")
def echo(text: str) -> str:
    """Gives what it is given."""
    return text


@workflow(label="public")
def inner(text: str) -> str:
    """What tools run."""
    return echo(text=text)


@tool(effect="pure", label="restricted")
def on_a_thread(text: str) -> str:
    """Runs a workflow in an Orchestra of its own."""
    with blocking(INNER[0], fleet="none") as orchestra:
        return orchestra.run(inner, text=text).run


@tool(effect="pure", label="restricted")
async def on_the_loop(text: str) -> str:
    """Runs a workflow in the Orchestra that runs it."""
    return (await HERE[0].run(inner, text=text)).run


@tool(effect="pure", label="restricted")
async def in_a_task(text: str) -> str:
    """Runs a workflow in a task, with a label that it thinks is right."""
    run = await asyncio.create_task(HERE[0].options(label="public").start(inner, text=text))
    return (await run).run


@tool(effect="pure", label="restricted")
async def behind_a_thread(text: str) -> str:
    """Runs a workflow from another thread."""
    loop = asyncio.get_running_loop()
    return await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(on_the_loop_again(text), loop).result())


async def on_the_loop_again(text: str) -> str:
    return (await HERE[0].run(inner, text=text)).run


@tool(effect="pure", label="restricted")
async def deeper(text: str) -> str:
    """Runs a tool that runs a workflow."""
    return (await HERE[0].run(on_the_loop, text=text)).output


@tool(effect="pure", label="restricted")
async def again(text: str) -> str:
    """Forks a run of public data."""
    public = await HERE[0].options(label="public", idempotency_key="public").run(inner, text="public")
    return (await (await HERE[0].fork(public.run, inner, text=text)).run).run


TOOLS: tuple[Tool[..., Any], ...] = (on_a_thread, on_the_loop, in_a_task, behind_a_thread, deeper, again)


def outer(step: Step[..., Any], label: Label) -> Step[..., Any]:
    @workflow(label=label)
    def whole(text: str) -> str:
        """Runs the tool."""
        made: str = step(text=text)
        return made

    return whole


@pytest.mark.parametrize("simulated", [False, True], ids=["real", "simulated"])
@pytest.mark.parametrize("step", TOOLS, ids=lambda step: step.name)
@pytest.mark.parametrize("label", ["internal", "restricted"])
async def test_tool_label_inherited_by_run_of_tool(
    tmp_path: Path, step: Step[..., Any], label: Label, simulated: bool
) -> None:
    if simulated and step is on_a_thread:
        pytest.skip("simulated tools run on the loop, which would wait for itself")
    INNER[:] = [Settings.load({"journal": str(tmp_path / "inner.db")}, start=tmp_path)]
    settings = Settings.load({"journal": str(tmp_path / "outer.db")}, start=tmp_path)
    workers = SimulatedWorkers({}, tools=[echo, *TOOLS]) if simulated else None
    async with Orchestra.open(settings, fleet="none", workers=workers) as orchestra:
        HERE[:] = [orchestra]
        run = (await orchestra.run(outer(step, label), text="x")).output
        assert CURRENT_LABEL.get() == "public", "the label of the caller is unchanged"
        assert (await orchestra.run(inner, text="x")).run
        if step is on_a_thread:
            async with Orchestra.open(INNER[0], fleet="none") as other:
                assert await started(other, run) == label
        else:
            assert await started(orchestra, run) == label


async def started(orchestra: Orchestra, run: str) -> Label:
    first = (await orchestra.journal.read(run))[0]
    assert isinstance(first, RunStarted)
    return first.label
