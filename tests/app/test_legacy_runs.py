"""Runs that started before a rule that refuses their workflow today: they resume, replay, and are forked onto a file
that follows the rule.
"""

from __future__ import annotations

import json
from contextlib import AbstractAsyncContextManager

import msgspec
import pytest

from orchestra import InputError, Orchestra
from orchestra.cli.runs.export import ExportedRun, put_run
from orchestra.core.errors import SourceLocation
from orchestra.core.events import RunStarted
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.summary import blob_digests
from orchestra.schema.strict_json import digest
from tests.app.test_plan_forks import ASKED, HEAD, Bank, allowed, bank, waiting

__all__ = ["bank"]

FETCHED = (
    HEAD % "pay"
    + """  page: {tool: pick, with: {text: "${input.to}"}}
  ok: {ask: "Sure?", options: ["yes", "no"]}
  done: {when: "${ok == 'yes'}", plan: "Pay", with: {to: "${%s}"}, tools: [wire], returns: anything, cache: false, confirm: false}
"""  # noqa: E501
)


class Old:
    """A run of an engine that let a plan act on values of other nodes; it waits for a person."""

    def __init__(self, bank: Bank) -> None:
        self.bank, self.journal, self.run = bank, MemoryJournal(), ""

    async def begin(self) -> None:
        self.bank.write("pay", FETCHED % "input.to")
        async with self.bank.opened() as orchestra:
            run = await orchestra.start(orchestra.find("pay"), to="Ada")
            assert await run.wait_until_blocked() is None
            first, *events = await orchestra.journal.read(run.id)
            assert isinstance(first, RunStarted)
            blobs = {mark: await orchestra.journal.get_blob(mark) or b"" for mark in blob_digests([first, *events])}
        graph = json.loads(blobs[first.graph])
        graph["nodes"]["done"]["with"]["to"] = "${page}"
        written = json.dumps(graph).encode()
        blobs[digest(written)] = written
        told = [msgspec.structs.replace(first, graph=digest(written)), *events]
        await put_run(self.journal, ExportedRun(SourceLocation("x.jsonl", 1), {"run": run.id}, told, blobs))
        self.run = run.id
        self.bank.write("pay", FETCHED % "page")

    def opened(self) -> AbstractAsyncContextManager[Orchestra]:
        return self.bank.opened(self.journal)


@pytest.fixture
async def old(bank: Bank) -> Old:
    found = Old(bank)
    await found.begin()
    return found


async def test_legacy_run_answered_resumed_replayed(old: Old) -> None:
    async with old.opened() as orchestra:
        with pytest.raises(InputError, match="the plan is made here of what other nodes have made"):
            orchestra.program(orchestra.find("pay"))
        assert await allowed(orchestra, old.run) == "receipt of Ada"
        replayed = await orchestra.replay(old.run)
        assert (replayed.first_difference, replayed.reason) == (None, "")
        assert (await orchestra.whatif(old.run, {})).differences == ()
    assert old.bank.paid == ["Ada"]


async def test_legacy_run_fork_names_line_and_works_once_fixed(old: Old) -> None:
    async with old.opened() as orchestra:
        assert await allowed(orchestra, old.run) == "receipt of Ada"
        with pytest.raises(InputError, match=r"workflows/pay\.yaml:8:"):
            await orchestra.fork(old.run)
    old.bank.write("pay", ASKED)
    async with old.opened() as orchestra:
        fork = await waiting(orchestra, old.run)
        again = await waiting(orchestra, fork)
        assert await allowed(orchestra, again) == "receipt of Ada"
        assert (await orchestra.whatif(old.run)).after.status == "done"
    assert old.bank.paid == ["Ada"]
