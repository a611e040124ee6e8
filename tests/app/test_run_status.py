"""Run status in Python: from the lease holder, from another process, and after the end of the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, JournalError, Orchestra, Result, RunFailed, tool, workflow
from orchestra.core.protocols import CallError
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers

FILING = """
schema: orchestra/v1
name: filing
input: {text: str}
output: ${filed}
nodes:
  sure: {ask: "File ${input.text}?", options: ["yes", "no"]}
  filed: {tool: file_it, with: {text: "${input.text}"}, when: "${sure == 'yes'}"}
"""


@tool(effect="pure", label="restricted")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@workflow(label="restricted")
def loud(text: str) -> str:
    """A text in capitals."""
    return shout(text=text)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "filing.yaml").write_text(FILING)
    (tmp_path / "tools_here.py").write_text(
        "from orchestra import tool\n\n"
        '@tool(effect="pure")\n'
        "def file_it(text: str) -> str:\n"
        '    """Files."""\n'
        "    return text\n"
    )
    (tmp_path / "orchestra.toml").write_text('modules = ["tools_here"]\njournal = "runs.db"\n')
    return tmp_path


@asynccontextmanager
async def opened(folder: Path, script: Any = None, **simulation: Any) -> AsyncIterator[Orchestra]:
    workers = SimulatedWorkers(
        {"shout": lambda call: call.inputs["text"].upper(), "file_it": "filed", **(script or {})}, **simulation
    )
    async with Orchestra.open(Settings.load({}, start=folder), workers=workers) as orchestra:
        yield orchestra


async def test_run_status_of_other_process_read_only(folder: Path) -> None:
    async with opened(folder, latency=60.0) as has, opened(folder) as looks:
        run = await has.start(loud, text="tea")
        seen = await looks.view(run.id)
        assert (seen.run, seen.workflow, seen.status, seen.label) == (run.id, "loud", "running", "restricted")
        assert (seen.finished, seen.questions, seen.result) == (None, (), None)
        with pytest.raises(JournalError) as caught:
            await looks.resume(run.id)
        assert caught.value.code == "J022"
        assert (await has.view(run.id)).status == "running"
        await looks.cancel(run.id)
        assert (await run.wait()).status == "cancelled"
        assert (await looks.view(run.id)).status == "cancelled"


async def test_run_status_ended_has_result(folder: Path) -> None:
    async with opened(folder) as orchestra:
        result = await orchestra.run(loud, text="tea")
        seen = await orchestra.view(result.run)
        assert isinstance(seen.result, Result)
        assert (seen.status, seen.result.output, seen.result.status, seen.result.usage) == (
            "done",
            "TEA",
            "done",
            result.usage,
        )
        assert seen.started <= (seen.finished or 0.0)


async def test_run_status_waiting_has_question_until_answered(folder: Path) -> None:
    async with opened(folder) as has, opened(folder) as looks:
        run = await has.start(has.find("filing"), text="tea")
        assert await run.wait_until_blocked() is None
        seen = await looks.view(run.id)
        assert (seen.status, [(one.node, one.options) for one in seen.questions]) == (
            "waiting",
            [("sure", ("yes", "no"))],
        )
        await looks.answer(run.id, "yes")
        assert (await run).output == "filed"
        assert (await looks.view(run.id)).questions == ()


async def test_run_status_answered_not_resumed_is_interrupted(folder: Path) -> None:
    async with opened(folder) as orchestra:
        run = await orchestra.start(orchestra.find("filing"), text="tea")
        await run.wait_until_blocked()
    async with opened(folder) as orchestra:
        [asked] = await orchestra.questions(run.id)
        await orchestra.answer(run.id, "yes", by="ada")
        assert await orchestra.questions(run.id) == []
        seen = await orchestra.view(run.id)
        assert (seen.status, seen.questions) == ("interrupted", ())
        with pytest.raises(InputError) as caught:
            await orchestra.answer(run.id, "no", node=asked.node)
        assert (caught.value.code, "has been answered by ada already" in caught.value.message) == ("E021", True)
        [found] = await orchestra.runs(status="interrupted")
        assert (await (await orchestra.resume(found.run))).output == "filed"


async def test_run_status_released_interrupted_failed_has_reason(folder: Path) -> None:
    async with opened(folder, latency=60.0) as orchestra:
        cut = (await orchestra.start(loud, text="tea")).id
    async with opened(folder, {"shout": CallError(code="F203", reason="no server answers")}) as orchestra:
        assert (await orchestra.view(cut)).status == "interrupted"
        assert [run.run for run in await orchestra.runs(status="interrupted")] == [cut]
        failed = await (await orchestra.start(loud, text="coffee")).wait()
        seen = await orchestra.view(failed.run)
        assert seen.status == "failed"
        assert seen.result is not None
        with pytest.raises(RunFailed) as caught:
            _ = seen.result.output
        assert caught.value.code == "F203"


async def test_run_list_by_workflow_and_status(folder: Path) -> None:
    async with opened(folder) as orchestra:
        ran = [(await orchestra.run(loud, text=text)).run for text in "abc"]
        asks = await orchestra.start(orchestra.find("filing"), text="tea")
        await asks.wait_until_blocked()
        assert [run.run for run in await orchestra.runs(limit=2, workflow="loud")] == ran[:0:-1]
        assert [(run.run, run.status) for run in await orchestra.runs(status="waiting")] == [(asks.id, "waiting")]
        assert len(await orchestra.runs()) == 4
        wrong: Any = "wating"
        with pytest.raises(InputError) as caught:
            await orchestra.runs(status=wrong)
        assert (caught.value.code, caught.value.hint) == ("C010", "did you mean 'waiting'?")


async def test_run_status_missing_run_is_e020(folder: Path) -> None:
    async with opened(folder) as orchestra:
        with pytest.raises(InputError) as caught:
            await asyncio.gather(orchestra.view("nothing"))
        assert caught.value.code == "E020"
