"""Forks of runs whose plans acted, and of runs whose ancestors are gone: what was done in the world is not done a second time unasked."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra
from orchestra.config import Settings
from orchestra.doors import Call, Journal
from orchestra.effects import tools
from orchestra.errors import InputError
from orchestra.events import AttemptFinished
from orchestra.rerun import Change
from orchestra.run import Run
from orchestra.testing import SimulatedWorkers

MODULE = '''
from orchestra import tool

@tool(effect="once")
def wire(to: str) -> str:
    """Wires."""
    return to

@tool(effect="pure")
def pick(text: str) -> str:
    """Picks."""
    return text
'''
HEAD = "schema: orchestra/v1\nname: %s\ninput: {to: str}\noutput: ${done}\nnodes:\n"
SILENT = HEAD % "silent" + '  done: {tool: wire, with: {to: "${input.to}"}}\n'
PLANNED = HEAD % "pay" + '  done: {plan: "Pay ${input.to}", with: {to: "${input.to}"}, %s, returns: anything, cache: false}\n'


class Bank:
    """A project that pays, and whoever plans in it: these lines, one after the other."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines = ("s1 = wire(to=input.to)",)
        self.paid: list[str] = []
        (folder / "workflows").mkdir()
        (folder / "bank_tools.py").write_text(MODULE)
        (folder / "orchestra.toml").write_text('modules = ["bank_tools"]\njournal = "runs.db"\n')
        self.write("silent", SILENT)

    def write(self, name: str, text: str) -> None:
        (self.folder / "workflows" / f"{name}.yaml").write_text(text)

    def edit(self, old: str, new: str) -> None:
        """Rewrites a piece of the tools."""
        (self.folder / "bank_tools.py").write_text(MODULE.replace(old, new))

    def _plan(self, call: Call) -> str:
        written = call.inputs["plan"].count(" = ")
        return self.lines[written] if written < len(self.lines) else f"return s{len(self.lines)}"

    def _wire(self, call: Call) -> str:
        self.paid.append(call.inputs["to"])
        return f"receipt of {call.inputs['to']}"

    @asynccontextmanager
    async def opened(self, journal: Journal | None = None) -> AsyncIterator[Orchestra]:
        sys.modules.pop("bank_tools", None)  # as another process would
        workers = SimulatedWorkers({"router": self._plan, "wire": self._wire, "pick": lambda call: call.inputs["text"]})
        settings = Settings.load({}, start=self.folder)
        async with Orchestra.open(settings, fleet="none", workers=workers, journal=journal) as orchestra:
            yield orchestra


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module that is edited within a second is read anew
    return Bank(tmp_path)


async def ended(run: Run[Any]) -> str:
    """What a run came to: its value, or the code of its failure."""
    result = await run.wait()
    return str(result.value) if result.error is None else result.error.code


async def refusals(run: Run[Any]) -> set[str]:
    """Why calls of a run failed, which failed for that."""
    assert await ended(run) in ("R008", "E024")
    return {one.error async for one in run if isinstance(one, AttemptFinished) and one.error}


async def paying(orchestra: Orchestra, to: str = "Ada") -> str:
    run = await orchestra.start(orchestra.find("pay"), to=to)
    assert await ended(run) == f"receipt of {to}"
    return run.id


async def test_a_fork_does_not_repeat_the_payment_of_a_workflow_that_a_plan_called(bank: Bank) -> None:
    bank.write("pay", PLANNED % "workflows: [silent]")
    bank.lines = ("s1 = silent(to=input.to)",)
    async with bank.opened() as orchestra:
        run = await paying(orchestra)
        assert tools(orchestra.program(orchestra.find("pay"))) == {"wire"}  # so a batch forks what it tries again
        fork = await orchestra.fork(run)
        assert (await ended(fork.run), fork.changes) == ("receipt of Ada", ())
        assert await refusals((await orchestra.fork(run, to="Bob")).run) == {"E024"}
    assert bank.paid == ["Ada"]


async def test_the_tools_of_such_a_workflow_are_looked_at_as_those_of_the_run_itself(bank: Bank) -> None:
    bank.write("silent", HEAD % "silent" + '  asked: {ask: "Sure?"}\n  done: {tool: pick, with: {text: "${asked}"}}\n')
    bank.write("pay", PLANNED % "workflows: [silent]")
    bank.lines = ("s1 = silent(to=input.to)",)
    async with bank.opened() as orchestra:
        run = await orchestra.start(orchestra.find("pay"), to="Ada")
        assert await run.pause() is None
        left = await orchestra.start(orchestra.find("pay"), to="Bob")
        assert await left.pause() is None
        await orchestra.answer(run.id, "Eve", node=run.asked[0].node)
        assert await ended(run) == "Eve"
    bank.edit("return text", "return text.upper()")
    async with bank.opened() as orchestra:
        assert (await orchestra.fork(run.id)).changes == (Change("done", "the code of its tool pick has changed"),)
    bank.edit('@tool(effect="pure")', '@tool(effect="pure", version="2")')
    async with bank.opened() as orchestra:
        with pytest.raises(InputError, match="the tool 'pick' is not the one that run"):
            await orchestra.resume(left.id)
