"""Errors: attributes of the exception of a run, and pickling to another process."""

from __future__ import annotations

import asyncio
import copy
import inspect
import pickle
from pathlib import Path

import pytest

from orchestra import Abstained, BudgetExceeded, InputError, Orchestra, OrchestraError, RunFailed, tool, workflow
from orchestra.core.errors import InputErrors, SourceLocation
from orchestra.core.settings import Settings


@tool(effect="pure")
def file_ticket(customer: str) -> str:
    """Raises, as a tool of one's own may."""
    raise ValueError(f"no customer {customer}")


@workflow
def filed(customer: str) -> str:
    """Files a ticket."""
    return file_ticket(customer=customer)


@workflow
def handled(customer: str) -> str:
    """Calls a workflow that fails."""
    return filed(customer=customer)


@tool(effect="pure")
async def forever() -> str:
    """Never returns in time."""
    await asyncio.sleep(3600)
    return ""


@pytest.mark.parametrize(
    ("step", "node"), [(filed, "file_ticket"), (handled, "filed/file_ticket"), (file_ticket, "result")]
)
async def test_run_error_has_run_node_and_line(step: object, node: str, tmp_path: Path) -> None:
    async with Orchestra.open(
        Settings.load({"journal": tmp_path / "runs.db"}, start=tmp_path), fleet="none"
    ) as orchestra:
        with pytest.raises(RunFailed) as caught:
            await orchestra.run(step, customer="Ada")  # type: ignore[arg-type]  # one of three steps
        error = caught.value
        assert error.run == (await orchestra.journal.list_runs(1))[0].run
    assert (error.code, error.node) == ("T003", node)
    assert error.frames == (f"{__file__}:{inspect.getsourcelines(file_ticket.function)[1] + 3} in file_ticket",)
    assert repr(error).startswith("RunFailed('T003', '")
    assert "no customer Ada" in repr(error)


async def test_run_error_of_detached_run_has_run_id() -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        run = await orchestra.start(forever)
        waiting = asyncio.create_task(run.wait())
        await asyncio.sleep(0)
    with pytest.raises(OrchestraError) as caught:
        await waiting
    assert (caught.value.code, caught.value.run) == ("E017", run.id)


@pytest.mark.parametrize(
    "error",
    [
        OrchestraError("E017", "closed", hint="open another"),
        InputError("C001", "no setting", location=SourceLocation("orchestra.toml", 3)),
        InputErrors([InputError("C001", "one"), InputError("C002", "two", why="because")]),
        BudgetExceeded("E005", "spent").with_run("r1", "found"),
        Abstained("E010", "withheld").with_run("r1"),
        RunFailed("T003", "raised").with_run("r1", "found", ("a.py:1 in f",)),
    ],
    ids=lambda error: type(error).__name__,
)
def test_error_survives_pickling(error: OrchestraError) -> None:
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(again) is type(error)
        assert str(again) == str(error)
        assert (again.code, again.hint, again.run, again.node, again.frames) == (
            error.code,
            error.hint,
            error.run,
            error.node,
            error.frames,
        )
