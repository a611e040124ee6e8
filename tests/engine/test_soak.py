"""Soak: many runs in one process leave nothing behind; many runs that wait for persons cost little.

The short form always runs; `ORCHESTRA_SOAK=1` runs the long one. Both print their figures (`pytest -s`).
"""

from __future__ import annotations

import asyncio
import gc
import os
from pathlib import Path

import psutil

from orchestra.core.clock import SystemClock
from orchestra.core.events import Usage
from orchestra.core.protocols import (
    NO_ESTIMATE,
    CallEstimate,
    CallRequest,
    CallResult,
    InboxMessage,
    Journal,
    TextCallback,
)
from orchestra.engine.engine import Engine
from orchestra.engine.request import RunRequest
from orchestra.engine.run import Execution
from orchestra.journal.memory import MemoryJournal
from orchestra.journal.sqlite.journal import SqliteJournal
from orchestra.workflows.program import Program
from tests.engine.stage import program

LONG = os.environ.get("ORCHESTRA_SOAK", "") not in ("", "0")
KIB = 1024
TOGETHER = 50
USAGE = Usage(prompt_tokens=3, output_tokens=2, calls=1)
WORK = """
input: {words: "list[str]"}
output: {loud: "${loud.values}", grown: "${grown}"}
nodes:
  loud: {agent: writer, each: "${input.words}", as: word, with: {text: "${word}"}}
  n: {tool: count, with: {items: "${loud.values}"}}
  grown:
    loop: {at_most: 3, until: "${turn >= 2}", nodes: {next: {tool: grow, with: {text: "${previous}"}}}, output: "${next}"}
"""  # noqa: E501
ASKING = """
input: {words: "list[str]"}
output: ${said}
nodes:
  first: {agent: writer, with: {text: "${input.words[0]}"}}
  sure: {ask: "Is ${first} right?", options: ["yes", "no"]}
  said: {agent: writer, with: {text: "${sure}"}}
"""


class Quick:
    """Workers without a memo whose bytes always differ; each third call returns in a later loop iteration."""

    def __init__(self) -> None:
        self.count_of_calls = 0

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult:
        """Returns the value and the transferred bytes."""
        self.count_of_calls += 1
        if not self.count_of_calls % 3:
            await asyncio.sleep(0)
        value = len(call.inputs["items"]) if call.name == "count" else f"{call.inputs['text'] or ''}x"
        return CallResult(
            value=value, usage=USAGE, sent=call.idempotency_key.encode(), received=call.idempotency_key.encode()
        )

    def estimate(self, call: CallRequest) -> CallEstimate:
        """No estimate is known."""
        return NO_ESTIMATE

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Token counts are unknown."""
        return None


class Scale:
    """Resources of the process now, compared with the start."""

    def __init__(self) -> None:
        self._process = psutil.Process()
        self.rss, self.tasks, self.files = self._read()

    def _read(self) -> tuple[int, int, int]:
        gc.collect()
        return self._process.memory_info().rss, len(asyncio.all_tasks()), self._process.num_fds()

    def grown(self, runs: int, what: str) -> tuple[float, int, int]:
        """Growth since the start: KiB per run, tasks, and file descriptors."""
        rss, tasks, files = self._read()
        found = (rss - self.rss) / KIB / runs, tasks - self.tasks, files - self.files
        print(f"\n{what}: {runs:,} runs, {found[0]:+.3f} KiB each, {found[1]:+d} tasks, {found[2]:+d} descriptors")
        return found


async def work(engine: Engine, compiled: Program, runs: int) -> None:
    """Runs from start to end, some concurrently."""
    for _ in range(runs // TOGETHER):
        begun = [
            engine.start(compiled, RunRequest(inputs={"words": ["a", "b", "c"]}, graph="0" * 32))
            for _ in range(TOGETHER)
        ]
        assert {(await run.wait()).status for run in begun} == {"done"}


async def assert_no_growth(journal: Journal, runs: int, what: str) -> None:
    engine, compiled = Engine(SystemClock(), journal, Quick()), program(WORK)
    await work(engine, compiled, 1_000)
    scale = Scale()
    await work(engine, compiled, runs)
    memory, tasks, files = scale.grown(runs, what)
    await engine.close()
    assert memory < 1
    assert (tasks, files) == (0, 0)


async def test_finished_runs_leave_no_memory() -> None:
    await assert_no_growth(MemoryJournal(max_ended_runs=64), 20_000 if LONG else 2_000, "journal off")


async def test_finished_runs_leave_only_a_file(tmp_path: Path) -> None:
    async with SqliteJournal.open(tmp_path / "runs.db") as journal:
        await assert_no_growth(journal, 5_000 if LONG else 1_000, "SQLite")


async def waiting(engine: Engine, compiled: Program, runs: int) -> list[Execution]:
    """Starts runs that wait for a person, some concurrently."""
    found: list[Execution] = []
    for _ in range(runs // TOGETHER):
        begun = [
            engine.start(compiled, RunRequest(inputs={"words": ["word"]}, graph="0" * 32)) for _ in range(TOGETHER)
        ]
        for run in begun:
            assert await run.wait_until_blocked() is None
        found += begun
    # Each run has read its inbox once more: the journal reads in order, so this read is the last one.
    await engine.journal.inbox(found[-1].id)
    for _ in range(3):
        await asyncio.sleep(0)
    return found


async def test_waiting_run_uses_few_kilobytes_and_no_task(tmp_path: Path) -> None:
    runs = 2_000 if LONG else 1_000
    async with SqliteJournal.open(tmp_path / "runs.db") as journal:
        engine, compiled = Engine(SystemClock(), journal, Quick()), program(ASKING)
        await waiting(engine, compiled, 200)
        scale = Scale()
        asleep = await waiting(engine, compiled, runs)
        memory, tasks, files = scale.grown(runs, "waiting for a person")
        assert memory <= 8
        assert (tasks, files) == (0, 0)
        for run in asleep[:100]:
            await journal.send(
                run.id,
                InboxMessage(kind="answer", node="sure", value="yes", question_digest=run.questions[0].question_digest),
            )
        assert {(await run.wait()).status for run in asleep[:100]} == {"done"}
        await engine.close()
