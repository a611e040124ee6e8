"""Tags: labels that a caller gives a run to find it later; kept with the run and inherited by its forks."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from orchestra import InputError, Orchestra, tool, workflow
from orchestra.app.costs import COST_KEYS
from orchestra.core.events import RunStarted
from orchestra.core.protocols import NO_LIMIT, CallError
from orchestra.core.settings import Settings
from orchestra.core.tags import parse_tags, validate_tags
from orchestra.testing import SimulatedWorkers


@tool(effect="pure")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@workflow
def loud(text: str) -> str:
    """A text in capitals."""
    return shout(text=text)


def shouted(call: Any) -> Any:
    return (
        CallError(code="F203", reason="no server answers")
        if call.inputs["text"] == "bad"
        else call.inputs["text"].upper()
    )


@asynccontextmanager
async def opened(folder: Path, **simulation: Any) -> AsyncIterator[Orchestra]:
    (folder / "orchestra.toml").write_text('journal = "runs.db"\n')
    workers = SimulatedWorkers({"shout": shouted}, **simulation)
    async with Orchestra.open(Settings.load({}, start=folder), workers=workers) as orchestra:
        yield orchestra


async def test_tags_find_runs(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        ada = (await orchestra.options(tags={"customer": "42", "release": "b"}).run(loud, text="tea")).run
        await orchestra.options(tags={"customer": "7"}).run(loud, text="tea")
        await orchestra.run(loud, text="tea")
        assert [run.run for run in await orchestra.runs(tags={"customer": "42"})] == [ada]
        assert await orchestra.runs(tags={"customer": "42", "release": "a"}) == []
        assert (await orchestra.view(ada)).tags == {"customer": "42", "release": "b"}
        assert (await orchestra.replay(ada)).first_difference is None


class Text(str):
    """A subclass of `str`, as in NumPy and enumerations."""

    def __str__(self) -> str:
        return "another"


async def test_tags_str_subclass_stored_as_str(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        ran = await orchestra.options(tags={Text("customer"): Text("42")}).run(loud, text="tea")
        assert [run.run for run in await orchestra.runs(tags={"customer": Text("42")})] == [ran.run]
        assert (await orchestra.view(ran.run)).tags == {"customer": "42"}
    assert {type(text) for pair in validate_tags({Text("customer"): Text("42")}).items() for text in pair} == {str}


async def test_tags_kept_by_resume_and_fork(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=60.0) as orchestra:
        run = (await orchestra.options(tags={"customer": "42", "try": "1"}).start(loud, text="tea")).id
    async with opened(tmp_path) as orchestra:
        orchestra.program(loud)
        await (await orchestra.options(tags={"customer": "7"}).resume(run))
        assert (await orchestra.view(run)).tags == {"customer": "42", "try": "1"}
        fork = await orchestra.options(tags={"try": "2"}).fork(run, loud)
        await fork.run
        assert (await orchestra.view(fork.run.id)).tags == {"customer": "42", "try": "2"}


async def test_tags_costs_by_tag_and_of_tag(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        for customer in ("42", "7", "42"):
            await orchestra.options(tags={"customer": customer}).run(loud, text="tea")
        await orchestra.run(loud, text="tea")
        found = await orchestra.costs("tag:customer")
        assert {row.group["tag:customer"]: row.cost.runs for row in found.rows} == {"42": 2, "7": 1, "": 1}
        assert (await orchestra.costs(("tag:customer", "agent"), tags={"customer": "7"})).total.runs == 1


async def test_costs_by_status_agree_with_run_list(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=60.0) as orchestra:
        await orchestra.start(loud, text="tea")
    async with opened(tmp_path, latency=60.0) as orchestra:
        await orchestra.start(loud, text="tea")
        listed = {run.status for run in await orchestra.runs()}
        assert (
            {row.group["status"] for row in (await orchestra.costs("status")).rows}
            == listed
            == {"running", "interrupted"}
        )


async def test_run_list_by_statuses_and_times_paged(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        for text in ("tea", "bad", "tea", "bad"):
            await (await orchestra.start(loud, text=text)).wait()
        newest_first = [run.run for run in await orchestra.runs()]
        assert [run.run for run in await orchestra.runs(status="failed")] == [newest_first[0], newest_first[2]]
        assert len(await orchestra.runs(status=["failed", "done"])) == 4
        assert [run.run for run in await orchestra.runs(limit=2, before=newest_first[0])] == newest_first[1:3]
        assert [run.run for run in await orchestra.runs(before=newest_first[0], status="failed")] == [newest_first[2]]
        assert len(await orchestra.runs(since=timedelta(hours=1))) == 4
        assert await orchestra.runs(until=timedelta(hours=1)) == []
        assert len(await orchestra.runs(limit=NO_LIMIT)) == 4
        with pytest.raises(InputError) as caught:
            await orchestra.runs(before="nowhere")
        assert caught.value.code == "E020"


@pytest.mark.parametrize(
    "tags",
    [
        {"customer": 42},
        {"customer": ""},
        {"customer": "a\nb"},
        {"customer": "\ud800"},
        {"a=b": "c"},
        {"": "c"},
        {"c": "x" * 201},
        ["c"],
        {7: "x"},
    ],
)
def test_tags_invalid_refused(tags: Any) -> None:
    with pytest.raises(InputError) as caught:
        validate_tags(tags)
    assert caught.value.code == "E040"
    assert caught.value.hint


@pytest.mark.parametrize("texts", [["customer"], ["customer=1", "customer=2"], ["=x"], ["customer="]])
def test_tags_invalid_on_command_line_refused(texts: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        parse_tags(texts)
    assert caught.value.code == "E040"


async def test_tags_refused_before_start(tmp_path: Path) -> None:
    async with opened(tmp_path) as orchestra:
        with pytest.raises(InputError):
            orchestra.options(tags={"customer": 42})  # type: ignore[dict-item]
        with pytest.raises(InputError) as caught:
            await orchestra.costs("tag:")
        assert caught.value.code == "C043"
        assert await orchestra.runs() == []


def test_tags_absent_in_old_run() -> None:
    told: dict[str, Any] = {"seq": 1, "at": 0.0, "run": "r", "workflow": "w", "graph": "", "inputs": {}}
    assert RunStarted(**told).tags == {}
    assert RunStarted(**told, options={"tags": ["x"]}).tags == {}
    assert RunStarted(**told, options={"tags": {"a": 1, "b": "c"}}).tags == {"b": "c"}
    assert "status" in COST_KEYS
