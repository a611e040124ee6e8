"""`Orchestra.plan` and `planning.plan`: the result of a run that ends when its plan is accepted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra
from orchestra.app.planning import PlanOptions, keep_plan, plan, plan_result, request_workflow
from orchestra.app.snapshot_store import apply_run_options
from orchestra.core.errors import InputError, OrchestraError, RunFailed
from orchestra.core.events import RunStarted
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers

WHEN = "When was the tower opened?"
VALUES = {"documents": [{"source": "tower.txt", "text": "The tower was opened in 1889."}]}
PLAN = ("s1 = search(query=input.request, documents=input.documents)", "return s1")
OPTIONS = PlanOptions(only=("search",))


def router(call: CallRequest) -> str:
    return PLAN[bool(call.inputs["plan"])]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "orchestra.toml").write_text("")
    return Settings.load({"journal": "off"}, start=tmp_path, environ={})


@pytest.fixture
def workers() -> SimulatedWorkers:
    return SimulatedWorkers({"router": router, "search": []})


@pytest.fixture
async def opened(settings: Settings, workers: SimulatedWorkers) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(settings, workers=workers, journal=MemoryJournal()) as orchestra:
        yield orchestra


async def first_event(orchestra: Orchestra, run: str) -> RunStarted:
    first = (await orchestra.journal.read(run))[0]
    assert isinstance(first, RunStarted)
    return first


async def test_plan_result_has_lines_usage_and_saved_graph(opened: Orchestra) -> None:
    draft = await plan(opened, WHEN, VALUES, OPTIONS)
    assert str(draft.plan).splitlines() == list(PLAN)
    assert (draft.question_count, draft.repairs, draft.usage.calls, draft.rejections) == (2, 0, 2, ())
    assert (draft.graph.name, draft.graph.description, list(draft.graph.nodes)) == ("plan", WHEN, ["s1"])


async def test_plan_of_orchestra_is_run_with_text_and_purpose(opened: Orchestra, workers: SimulatedWorkers) -> None:
    step = request_workflow(opened, WHEN, VALUES, OPTIONS)
    run = await opened.options(tags={"customer": "42"}).plan(step, request=WHEN, **VALUES)
    result = await run
    assert (result.output, result.claims) == ("\n".join(PLAN), ())
    first = await first_event(opened, run.id)
    assert (first.plan_only, first.workflow, first.options["purpose"]) == (True, "plan", "planning")
    assert first.tags == {"customer": "42"}
    assert dict(workers.counts) == {"router": 2}
    assert (await opened.replay(run.id)).first_difference is None


async def test_plan_resumed_run_needs_planners_only(opened: Orchestra) -> None:
    step = request_workflow(opened, WHEN, VALUES, PlanOptions(only=("search", "answer_from_documents")))
    run = await opened.plan(step, request=WHEN, **VALUES)
    await run
    whole = opened.program(step)
    restored = apply_run_options(whole, await first_event(opened, run.id))
    assert {name for name, _ in restored.possible_agents} == {"router"}
    assert len(whole.possible_agents) > 1


async def test_plan_of_other_workflow_is_refused(opened: Orchestra) -> None:
    with pytest.raises(InputError) as refusal:
        await opened.plan(opened.find("answer_from_documents"), question=WHEN, **VALUES)
    assert refusal.value.code == "R030"
    assert list(await opened.runs()) == []


async def test_plan_key_returns_its_run_and_no_other(opened: Orchestra, workers: SimulatedWorkers) -> None:
    step, keyed = request_workflow(opened, WHEN, VALUES, OPTIONS), opened.options(idempotency_key="tower")
    runs = [await keyed.plan(step, request=WHEN, **VALUES) for _ in range(2)]
    assert runs[0].id == runs[1].id
    await runs[0]
    assert dict(workers.counts) == {"router": 2}
    with pytest.raises(InputError) as conflict:
        await keyed.start(step, request=WHEN, **VALUES)
    assert conflict.value.code == "E015"
    assert "which only plans its request" in conflict.value.message


async def test_plan_accept_of_options_does_not_apply(opened: Orchestra) -> None:
    draft = await plan(opened.options(accept=0.5), WHEN, VALUES, OPTIONS)
    assert draft.plan is not None


async def test_plan_fork_ends_at_plan_too(opened: Orchestra, workers: SimulatedWorkers) -> None:
    step = request_workflow(opened, WHEN, VALUES, OPTIONS)
    run = await opened.plan(step, request=WHEN, **VALUES)
    await run
    forked = (await opened.fork(run.id, step)).run
    assert (await forked).output == "\n".join(PLAN)
    first = await first_event(opened, forked.id)
    assert (first.plan_only, first.parent, first.options["purpose"]) == (True, run.id, "planning")
    assert dict(workers.counts) == {"router": 2}


async def test_plan_failed_call_raises_its_error(settings: Settings) -> None:
    broken = SimulatedWorkers({"router": lambda _: CallError(code="T009", reason="the pen is dry", permanent=True)})
    async with Orchestra.open(settings, workers=broken, journal=MemoryJournal()) as orchestra:
        with pytest.raises(RunFailed) as failure:
            await plan(orchestra, WHEN, VALUES, OPTIONS)
        assert (failure.value.code, "the pen is dry" in failure.value.message) == ("T009", True)


async def test_plan_empty_reply_is_repaired(settings: Settings) -> None:
    replies = iter([CallError(code="M004", reason="the router wrote nothing"), *PLAN])
    workers = SimulatedWorkers({"router": lambda _: next(replies)})
    async with Orchestra.open(settings, workers=workers, journal=MemoryJournal()) as orchestra:
        draft = await plan(orchestra, WHEN, VALUES, OPTIONS)
    assert str(draft.plan).splitlines() == list(PLAN)
    assert (draft.question_count, draft.repairs) == (3, 1)


async def test_plan_only_empty_replies_raise_error(settings: Settings) -> None:
    workers = SimulatedWorkers({"router": lambda _: CallError(code="M004", reason="the router wrote nothing")})
    async with Orchestra.open(settings, workers=workers, journal=MemoryJournal()) as orchestra:
        with pytest.raises(RunFailed) as failure:
            await plan(orchestra, WHEN, VALUES, OPTIONS)
    assert (failure.value.code, workers.counts["router"]) == ("M004", OPTIONS.repairs + 1)


async def test_plan_rejected_lines_are_result_and_no_error(settings: Settings) -> None:
    silent = SimulatedWorkers({"router": "I cannot plan."})
    async with Orchestra.open(settings, workers=silent, journal=MemoryJournal()) as orchestra:
        draft = await plan(orchestra, WHEN, VALUES, OPTIONS)
    assert draft.plan is None
    assert [one.code for one in draft.rejections] == ["R001"] * 3


async def test_plan_cancelled_caller_cancels_run(settings: Settings) -> None:
    called = asyncio.Event()

    async def wait_forever(_: CallRequest) -> Any:
        called.set()
        await asyncio.Event().wait()

    slow, journal = SimulatedWorkers({"router": wait_forever}), MemoryJournal()
    async with Orchestra.open(settings, workers=slow, journal=journal) as orchestra:
        task = asyncio.create_task(plan(orchestra, WHEN, VALUES, OPTIONS))
        await called.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    (run,) = await journal.list_runs(9)
    assert run.status == "cancelled"


async def test_kept_plan_is_reused_by_plan_and_request(opened: Orchestra, workers: SimulatedWorkers) -> None:
    step = request_workflow(opened, WHEN, VALUES, OPTIONS)
    run = await opened.plan(step, request=WHEN, **VALUES)
    result = await run
    assert (await plan(opened, WHEN, VALUES, OPTIONS)).recalled is None, "it was neither run nor saved"
    keep_plan(opened, step, await plan_result(opened, step, WHEN, result.events), result.events)
    before = workers.counts["router"]
    again = await plan(opened, WHEN, VALUES, OPTIONS)
    assert again.recalled is not None
    assert (again.recalled.run, again.recalled.request, again.recalled.saved.calls) == (run.id, WHEN, 2)
    repeated = await (await opened.plan(step, request=WHEN, **VALUES))
    keep_plan(opened, step, await plan_result(opened, step, WHEN, repeated.events), repeated.events)
    kept = await plan(opened, WHEN, VALUES, OPTIONS)
    assert kept.recalled == again.recalled, "it stays the plan of the run that made it"
    assert (await opened.run(step, request=WHEN, **VALUES)).status == "done"
    assert workers.counts["router"] == before


async def test_plan_without_cache_is_not_kept(opened: Orchestra) -> None:
    options = PlanOptions(only=("search",), cache=False)
    step = request_workflow(opened, WHEN, VALUES, options)
    result = await (await opened.plan(step, request=WHEN, **VALUES))
    keep_plan(opened, step, await plan_result(opened, step, WHEN, result.events), result.events)
    assert (await plan(opened, WHEN, VALUES, OPTIONS)).recalled is None


async def test_plan_empty_request_is_refused(opened: Orchestra) -> None:
    with pytest.raises(OrchestraError) as refusal:
        await plan(opened, " ", VALUES, OPTIONS)
    assert refusal.value.code == "R022"
