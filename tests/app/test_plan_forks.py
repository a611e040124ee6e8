"""Forks of runs whose plans had effects, and of runs whose ancestors are missing: no effect is repeated without a
question.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra
from orchestra.app.fork_effects import EffectHistory, effect_tools
from orchestra.app.reuse import NodeChange
from orchestra.app.run import Run
from orchestra.cli.runs.export import ExportedRun, put_run
from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.events import AttemptFinished, RunStarted
from orchestra.core.protocols import CallError, CallRequest, Journal
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.summary import blob_digests
from orchestra.testing import SimulatedWorkers
from tests.engine.kinds.test_tool_use import WORK, catalog, helper, used
from tests.engine.stage import program

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
PLANNED = (
    HEAD
    % "pay"
    + '  done: {plan: "Pay ${input.to} by a silent wire", with: {to: "${input.to}"}, %s, returns: anything, cache:'
    " false, confirm: false}\n"
)
ASKED = (
    HEAD % "pay"
    + """  ok: {ask: "Sure?", options: ["yes", "no"]}
  done: {when: "${ok == 'yes'}", tool: wire, with: {to: "${input.to}"}}
"""
)


class Bank:
    """A project that pays, with a planner that writes these lines in order."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: tuple[str, ...] = ("s1 = wire(to=input.to)",)
        self.paid: list[str] = []
        (folder / "workflows").mkdir()
        (folder / "bank_tools.py").write_text(MODULE)
        (folder / "orchestra.toml").write_text('modules = ["bank_tools"]\njournal = "runs.db"\n')
        self.write("silent", SILENT)

    def write(self, name: str, text: str) -> None:
        (self.folder / "workflows" / f"{name}.yaml").write_text(text)

    def edit(self, old: str, new: str) -> None:
        """Replaces text in the tool module."""
        (self.folder / "bank_tools.py").write_text(MODULE.replace(old, new))

    def _plan(self, call: CallRequest) -> str:
        written = call.inputs["plan"].count(" = ")
        return self.lines[written] if written < len(self.lines) else f"return s{len(self.lines)}"

    def _wire(self, call: CallRequest) -> str:
        self.paid.append(call.inputs["to"])
        return f"receipt of {call.inputs['to']}"

    @asynccontextmanager
    async def opened(self, journal: Journal | None = None) -> AsyncIterator[Orchestra]:
        sys.modules.pop("bank_tools", None)  # like another process
        workers = SimulatedWorkers({"router": self._plan, "wire": self._wire, "pick": lambda call: call.inputs["text"]})
        settings = Settings.load({}, start=self.folder)
        async with Orchestra.open(settings, fleet="none", workers=workers, journal=journal) as orchestra:
            yield orchestra


@pytest.fixture
def bank(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bank:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # a module that is edited within a second is imported again
    return Bank(tmp_path)


async def ended(run: Run[Any]) -> str:
    """Returns the value of a run, or the code of its failure."""
    result = await run.wait()
    return str(result.value) if result.error is None else result.error.code


async def refusals(run: Run[Any]) -> set[str]:
    """Returns the reasons of refused calls of a run."""
    assert await ended(run) in ("R008", "E024")
    return {one.error async for one in run if isinstance(one, AttemptFinished) and one.error}


async def paying(orchestra: Orchestra, to: str = "Ada") -> str:
    run = await orchestra.start(orchestra.find("pay"), to=to)
    assert await ended(run) == f"receipt of {to}"
    return run.id


async def begun(orchestra: Orchestra, run: str) -> RunStarted:
    first = (await orchestra.journal.read(run))[0]
    assert isinstance(first, RunStarted)
    return first


async def waiting(orchestra: Orchestra, parent: str) -> str:
    """Returns a fork that asks a person and has not paid."""
    run = (await orchestra.fork(parent)).run
    assert await run.wait_until_blocked() is None
    return run.id


async def allowed(orchestra: Orchestra, run: str) -> str:
    await orchestra.answer(run, "yes", node="ok")
    return await ended(await orchestra.resume(run))


async def test_plan_fork_does_not_repeat_payment(bank: Bank) -> None:
    bank.write("pay", PLANNED % "workflows: [silent]")
    bank.lines = ("s1 = silent(to=input.to)",)
    async with bank.opened() as orchestra:
        run = await paying(orchestra)
        assert effect_tools(orchestra.program(orchestra.find("pay"))) == {"wire"}  # a batch forks rows that it retries
        fork = await orchestra.fork(run)
        assert (await ended(fork.run), fork.changes) == ("receipt of Ada", ())
        assert await refusals((await orchestra.fork(run, to="Bob")).run) == {"E024"}
    assert bank.paid == ["Ada"]


async def test_plan_fork_compares_tools_of_called_workflow(bank: Bank) -> None:
    bank.write("silent", HEAD % "silent" + '  asked: {ask: "Sure?"}\n  done: {tool: pick, with: {text: "${asked}"}}\n')
    bank.write("pay", PLANNED % "workflows: [silent]")
    bank.lines = ("s1 = silent(to=input.to)",)
    async with bank.opened() as orchestra:
        run = await orchestra.start(orchestra.find("pay"), to="Ada")
        assert await run.wait_until_blocked() is None
        left = await orchestra.start(orchestra.find("pay"), to="Bob")
        assert await left.wait_until_blocked() is None
        await orchestra.answer(run.id, "Eve", node=run.questions[0].node)
        assert await ended(run) == "Eve"
    bank.edit("return text", "return text.upper()")
    async with bank.opened() as orchestra:
        assert (await orchestra.fork(run.id)).changes == (NodeChange("done", "the code of its tool pick has changed"),)
    bank.edit('@tool(effect="pure")', '@tool(effect="pure", version="2")')
    async with bank.opened() as orchestra:
        with pytest.raises(InputError, match="the tool 'pick' is not the one that run"):
            await orchestra.resume(left.id)


@pytest.mark.parametrize(
    ("then", "uses", "came"),
    [
        (("s1 = pick(text=input.to)", "s2 = wire(to=input.to)"), "tools: [wire, pick]", "E024"),
        (("s1 = silent(to=input.to)",), "workflows: [silent], tools: [wire, pick]", "E024"),
        (("s1 = pick(text=input.to)",), "tools: [wire, pick]", "Bob"),
    ],
)
async def test_plan_fork_other_plan_does_not_repeat_payment(
    bank: Bank, then: tuple[str, ...], uses: str, came: str
) -> None:
    bank.write("pay", PLANNED % uses)
    async with bank.opened() as orchestra:
        run = await paying(orchestra)
        bank.lines = then
        other = (await orchestra.fork(run, to="Bob")).run
        assert await ended(other) == came if came == "Bob" else await refusals(other) == {came}
        assert await ended((await orchestra.fork(run)).run) in ("receipt of Ada", "Ada")
    assert bank.paid == ["Ada"]


@pytest.mark.parametrize("planned_first", [True, False])
async def test_plan_fork_plan_and_tool_swapped_no_repeated_payment(bank: Bank, planned_first: bool) -> None:
    versions = [PLANNED % "tools: [wire]", SILENT.replace("silent", "pay")]
    before, after = versions if planned_first else reversed(versions)
    bank.write("pay", before)
    async with bank.opened() as orchestra:
        run = await paying(orchestra)
    bank.write("pay", after)
    async with bank.opened() as orchestra:
        assert await refusals((await orchestra.fork(run, to="Bob")).run) == {"E024"}
        assert await ended((await orchestra.fork(run)).run) == "receipt of Ada"
    assert bank.paid == ["Ada"]


async def test_plan_fork_payment_of_replaced_node_known(
    bank: Bank,
) -> None:
    bank.write("pay", SILENT.replace("silent", "pay"))
    async with bank.opened() as orchestra:
        run = await paying(orchestra)
    bank.write(
        "pay",
        HEAD % "pay"
        + '  done: {tool: wire, with: {to: "${input.to}"}}\n'.replace("done", "paid")
        + '  done: {tool: pick, with: {text: "${paid}"}}\n',
    )
    async with bank.opened() as orchestra:
        assert await ended((await orchestra.fork(run)).run) == "receipt of Ada"
    assert bank.paid == ["Ada"]


LOOPED = """
input: {text: str}
output: ${work}
nodes:
  work:
    loop:
      at_most: 2
      until: ${turn == 2}
      output: ${found}
      nodes: {found: {agent: helper, with: {text: "${input.text}"}, tools: [send]}}
"""


def test_plan_fork_agent_with_tools_no_repeated_payment() -> None:
    card = helper(tools=("send",), agents=())
    played = used("tools: [send]", "s1 = send(text=input.text)", "return", card=card)
    straight = program(WORK % "tools: [send]", catalog(card))
    effects = EffectHistory(straight)
    effects.add("r1", straight, played.events)
    looped = EffectHistory(program(LOOPED, catalog(card)), made_calls={("work#1/found", "send"): "r1"})

    def reply(known: EffectHistory, node: str, text: str) -> str:
        found = known.recorded_reply(
            CallRequest(run="r2", node=node, attempt=1, kind="tool", name="send", inputs={"text": text})
        )
        return "" if found is None else found.code if isinstance(found, CallError) else str(found.value)

    assert [reply(effects, "found#6/s3", text) for text in ("a b", "c")] == ["sent", "E024"]
    assert [reply(looped, f"work#{turn}/found#4/s2", "c") for turn in (1, 2)] == ["E024", ""]


async def ancestors(bank: Bank) -> tuple[str, str, str]:
    """Returns a run that paid, a fork of it that asks before it pays, and a fork of that fork."""
    bank.write("pay", SILENT.replace("silent", "pay"))
    async with bank.opened() as orchestra:
        first = await paying(orchestra)
    bank.write("pay", ASKED)
    async with bank.opened() as orchestra:
        second = await waiting(orchestra, first)
        return first, second, await waiting(orchestra, second)


async def refused(orchestra: Orchestra, second: str, third: str) -> None:
    for run in (third, await waiting(orchestra, second)):
        assert await allowed(orchestra, run) == "E024"
    (end,) = [
        one for one in await orchestra.journal.read(third) if isinstance(one, AttemptFinished) and one.error == "E024"
    ]
    assert "the run that may have called it is gone, or cannot be read" in end.reason


async def test_plan_fork_of_fork_deleted_ancestor_no_payment(bank: Bank) -> None:
    first, second, third = await ancestors(bank)
    async with bank.opened() as orchestra:
        await orchestra.journal.delete(first)
        await refused(orchestra, second, third)
    assert bank.paid == ["Ada"]


@pytest.mark.parametrize(
    "damage", ["DELETE FROM blobs WHERE digest = '{graph}'", "UPDATE events SET body = x'00' WHERE run = '{first}'"]
)
async def test_plan_fork_of_fork_unreadable_ancestor_no_payment(bank: Bank, damage: str) -> None:
    first, second, third = await ancestors(bank)
    async with bank.opened() as orchestra:
        graph = (await begun(orchestra, first)).graph
    file = sqlite3.connect(bank.folder / "runs.db", isolation_level=None)
    file.execute(damage.format(graph=graph, first=first))
    file.close()
    async with bank.opened() as orchestra:
        await refused(orchestra, second, third)
    assert bank.paid == ["Ada"]


async def test_plan_fork_of_fork_imported_without_ancestor_no_payment(bank: Bank) -> None:
    _, second, third = await ancestors(bank)
    journal = MemoryJournal()
    async with bank.opened() as orchestra:
        for run in (second, third):
            events = await orchestra.journal.read(run)
            blobs = {mark: await orchestra.journal.get_blob(mark) or b"" for mark in blob_digests(events)}
            await put_run(journal, ExportedRun(SourceLocation("x.jsonl", 1), {"run": run}, list(events), blobs))
    async with bank.opened(journal) as orchestra:
        await refused(orchestra, second, third)
    assert bank.paid == ["Ada"]


async def test_plan_fork_payment_known_with_all_ancestors(bank: Bank) -> None:
    _, second, third = await ancestors(bank)
    async with bank.opened() as orchestra:
        for run in (third, await waiting(orchestra, second)):
            assert await allowed(orchestra, run) == "receipt of Ada"
    assert bank.paid == ["Ada"]
