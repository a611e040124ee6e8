"""The public interface of `Orchestra`: runs, handles, options, cancellation; on simulated workers and a journal in
memory.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from orchestra import (
    Abstained,
    Budget,
    Document,
    InputError,
    Orchestra,
    RunFailed,
    agent,
    answered_by_model,
    build,
    entailment,
    map_,
    quote,
    rederive,
    tool,
    workflow,
)
from orchestra.core.events import CancelRequested, RunStarted
from orchestra.core.protocols import CallError
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers


class Topic(BaseModel):
    name: str


@agent(prompt="Name the topic of: {{ text }}")
def topic(text: str) -> Topic:
    """Names a topic."""
    return answered_by_model()


@tool(effect="pure", label="restricted")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@workflow()
def loud_topic(text: str) -> str:
    """The topic of a text, in capitals."""
    found = topic(text=text)
    return shout(text=found.name)


@asynccontextmanager
async def opened(
    folder: Path, script: Any = None, **simulation: Any
) -> AsyncIterator[tuple[Orchestra, SimulatedWorkers]]:
    answers = {"topic": {"name": "tea"}, "shout": lambda call: call.inputs["text"].upper(), **(script or {})}
    workers = SimulatedWorkers(answers, **simulation)
    settings = Settings.load({"journal": "off"}, start=folder)
    async with Orchestra.open(settings, workers=workers) as orchestra:
        yield orchestra, workers


async def eventually(holds: Callable[[], bool]) -> None:
    """Runs the event loop until the condition holds."""
    for _ in range(10_000):
        if holds():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never held")


def test_orchestra_unopened_reports_how_to_open() -> None:
    unopened: Any = Orchestra.open()
    with pytest.raises(AttributeError) as caught:
        unopened.run(topic, text="a")
    assert "write `async with Orchestra.open() as orchestra:`" in str(caught.value)
    assert "blocking()" in str(caught.value)
    assert isinstance(copy.copy(unopened), type(unopened)), "what Python asks for itself is no use of it"


async def test_orchestra_opened_without_async_reports_how() -> None:
    unopened: Any = Orchestra.open()
    with pytest.raises(InputError, match="must not be awaited") as awaited:
        await unopened
    with pytest.raises(InputError, match="not `with`") as entered, unopened:
        pass
    for caught in (awaited, entered):
        assert (caught.value.code, "async with Orchestra.open() as orchestra:" in caught.value.hint) == ("E029", True)


async def test_orchestra_external_service_has_named_project(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    service, elsewhere = tmp_path / "service", tmp_path / "elsewhere"
    service.mkdir()
    elsewhere.mkdir()
    (service / "orchestra.toml").write_text('journal = "here.db"\n')
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("ORCHESTRA_LOG", "info")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    async with Orchestra.open(project=service, fleet="none") as orchestra:
        assert (orchestra.settings.project, orchestra.settings.journal) == (service, service / "here.db")
    assert capsys.readouterr().err == ""
    async with Orchestra.open(fleet="none"):
        (line,) = capsys.readouterr().err.splitlines()
    assert all(
        part in line
        for part in ("level='info'", "event='no project here'", f"folder='{elsewhere}'", f"{tmp_path}/state")
    )
    async with Orchestra.open(Settings.load(start=tmp_path), fleet="none"):
        (line,) = capsys.readouterr().err.splitlines()
    assert f"folder='{tmp_path}'" in line, "where it was looked for, not where the process is"
    with pytest.raises(InputError) as caught:
        async with Orchestra.open(Settings.load(), project=service):
            pass
    assert caught.value.code == "C046"


async def test_orchestra_other_workers_need_no_servers(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path) as (orchestra, _):
        status = await orchestra.fleet_status(probe=True)
    assert (status.servers, status.running, status.can_serve) == ((), False, True)


async def test_orchestra_on_other_loop_refused(tmp_path: Path) -> None:
    def elsewhere(use: Callable[[], Coroutine[Any, Any, Any]]) -> InputError:
        with pytest.raises(InputError) as caught:
            asyncio.run(use())
        return caught.value

    async with opened(tmp_path) as (orchestra, workers):
        uses: list[Callable[[], Coroutine[Any, Any, Any]]] = [
            lambda: orchestra.run(shout, text="a"),
            lambda: orchestra.options(idempotency_key="k").start(shout, text="a"),
            lambda: orchestra.cancel("x"),
            lambda: orchestra.check("a", against="a", checks="entailment"),
            orchestra.fleet_status,
            orchestra.costs,
        ]
        for use in uses:
            error = await asyncio.to_thread(elsewhere, use)
            assert (error.code, error.message) == ("E030", "this Orchestra was opened on another event loop")
            assert "run_coroutine_threadsafe" in error.hint
        assert (workers.calls, await orchestra.journal.list_runs()) == ([], [])


async def test_orchestra_wait_on_other_loop_refused(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=0.05) as (orchestra, _):
        run = await orchestra.start(shout, text="a")
        with pytest.raises(InputError) as caught:
            await asyncio.to_thread(asyncio.run, run.wait())
        assert (caught.value.code, (await run).value) == ("E030", "A")


@pytest.mark.parametrize("loop", [False, True])
async def test_orchestra_cancel_from_other_thread(tmp_path: Path, loop: bool) -> None:
    async with opened(tmp_path, latency=30) as (orchestra, _):
        run = await orchestra.start(shout, text="a")

        async def there() -> None:
            run.cancel("ann")

        await asyncio.to_thread(asyncio.run, there()) if loop else await asyncio.to_thread(run.cancel, "ann")
        result = await asyncio.wait_for(run.wait(), 60)
        assert (result.status, [one.status for one in await orchestra.journal.list_runs()]) == (
            "cancelled",
            ["cancelled"],
        )
    run.cancel()  # the run has ended, so this has no effect


async def test_orchestra_cancel_records_name_of_options(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=30) as (orchestra, _):
        ada = orchestra.options(by="ada")
        for run, by in ((await ada.start(shout, text="a"), ""), (await ada.start(shout, text="b"), "eve")):
            run.cancel(by)
            await run.wait()
            (asked,) = [event for event in await orchestra.journal.read(run.id) if isinstance(event, CancelRequested)]
            assert asked.by == (by or "ada")


def test_orchestra_on_later_loop_reports_ended_loop(tmp_path: Path) -> None:
    async def enter() -> Orchestra:
        async with opened(tmp_path) as (orchestra, _):
            return orchestra

    orchestra = asyncio.run(enter())
    with pytest.raises(InputError, match="an event loop that has ended") as caught:
        asyncio.run(orchestra.run(shout, text="a"))
    assert caught.value.code == "E030"


async def test_orchestra_run_gives_typed_output_and_costs(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, _):
        result = await orchestra.run(loud_topic, text="Leaves in water")
    assert result.output == "TEA"
    assert set(result.usage_by_node) == {"found", "shout"}
    assert result.usage.output_tokens == result.usage_by_node["found"].output_tokens > 0


class Page(BaseModel):
    body: str


@workflow()
def one_page(page: Page) -> str:
    return shout(text=page.body)


@workflow()
def outer(text: str) -> str:
    return one_page(page=build(Page, body=text))


async def test_orchestra_called_workflow_has_own_models(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, _):
        assert (await orchestra.run(outer, text="tea")).output == "TEA"


async def test_orchestra_runs_single_agent_and_tool(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, _):
        assert (await orchestra.run(topic, text="Leaves")).output == Topic(name="tea")
        assert (await orchestra.run(shout, text="tea")).output == "TEA"


@tool(effect="pure")
def total(data: dict[str, Any], last: int) -> int:
    """Appends to the list of its caller."""
    data["rows"].append(last)
    return sum(data["rows"])


@workflow()
def totals(data: dict[str, Any], lasts: list[int]) -> list[int]:
    """Calls `total` twice with the same list."""
    return map_(lambda last: total(data=data, last=last), lasts)


async def test_orchestra_tool_mutation_isolated(tmp_path: Path) -> None:
    data = {"rows": [3, 1, 2]}
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        run = await orchestra.start(totals, data=data, lasts=[1, 2, 3])
        assert (await run.wait()).output == [7, 8, 9]
        assert [event.inputs["data"] async for event in run.events() if isinstance(event, RunStarted)] == [
            {"rows": [3, 1, 2]}
        ]
    assert data == {"rows": [3, 1, 2]}


async def test_orchestra_events_from_any_position(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, _):
        run = await orchestra.start(loud_topic, text="x")
        events = [event async for event in run]
        late = [event async for event in run.events(after=3)]
    assert isinstance(events[0], RunStarted)
    assert late == events[3:]


async def test_orchestra_failed_run_raises_with_hint(tmp_path: Path) -> None:
    async with opened(tmp_path, {"topic": lambda call: CallError(code="F212", reason="no such model")}) as (
        orchestra,
        _,
    ):
        run = await orchestra.start(loud_topic, text="x")
        with pytest.raises(RunFailed, match="no such model") as caught:
            await run
        assert caught.value.code == "F212"
        assert run.id in caught.value.hint
        assert (await run.wait()).status == "failed"


async def test_orchestra_withheld_output_neither_failed_nor_value(tmp_path: Path) -> None:
    async with opened(tmp_path, {"reader": {"answer": "in 1890"}}) as (orchestra, _):
        result = await orchestra.run(orchestra.find("reader"), question="when?", context="It was in 1889.")
        assert result.status == "abstained"
        with pytest.raises(Abstained):
            _ = result.output


@pytest.mark.parametrize(
    ("inputs", "said"),
    [({}, "needs the input 'text'"), ({"txt": "x"}, "did you mean 'text'"), ({"text": 3}, "expected str, got 3")],
)
async def test_orchestra_wrong_inputs_start_no_run(tmp_path: Path, inputs: dict[str, Any], said: str) -> None:
    async with opened(tmp_path) as (orchestra, workers):
        with pytest.raises(InputError) as caught:
            await orchestra.start(loud_topic, **inputs)
        assert said in str(caught.value)
        assert not workers.calls


async def test_orchestra_unknown_name_suggests_nearest(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, _):
        with pytest.raises(InputError, match="answer_from_docs") as caught:
            orchestra.find("answer_from_docs")
    assert "answer_from_documents" in caught.value.hint


async def test_orchestra_key_names_one_run(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=0.01) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-42")
        first, second = await asyncio.gather(keyed.start(loud_topic, text="x"), keyed.start(loud_topic, text="x"))
        assert first.id == second.id
        assert (await first).output == (await second).output
        again = await keyed.start(loud_topic, text="x")
        assert (await again).output == "TEA"
        assert workers.counts["topic"] == 1
        with pytest.raises(InputError) as caught:
            await keyed.start(loud_topic, text="y")
        assert caught.value.code == "E015"


async def test_orchestra_key_ignores_other_options(tmp_path: Path) -> None:
    async with opened(tmp_path) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-42")
        told = [
            keyed,
            keyed.options(label="public"),
            keyed.options(budget=Budget(calls=5)),
            keyed.options(memo=True, sample=1),
        ]
        assert len({(await one.run(shout, text="x")).run for one in told}) == 1
        assert workers.counts["shout"] == 1
        await keyed.options(idempotency_key="").run(shout, text="x")
        assert workers.counts["shout"] == 2


async def test_orchestra_check_calls_ignore_caller_key(tmp_path: Path) -> None:
    sure = {"label": "supported", "p_supported": 0.9, "p_support": None, "p_refute": 0.0}
    answer = {"height": "It is 300 m high.", "built": "It was built in 1889."}
    async with opened(tmp_path, {"entailment": sure}) as (orchestra, _):
        keyed = orchestra.options(idempotency_key="order-42")
        for one in (orchestra, keyed, keyed.options(sample=1)):
            ruling = await one.check(answer, against="It is 300 m high. It was built in 1889.", checks=entailment)
            assert ruling.accepted, ruling.reason


@pytest.mark.parametrize(
    ("own", "said", "label"),
    [(None, None, "internal"), ("public", None, "public"), ("restricted", None, "restricted"), ("restricted", "public", "restricted"),  # noqa: E501
     ("public", "internal", "internal"), (None, "restricted", "restricted")],
)  # fmt: skip
async def test_orchestra_run_label_at_least_workflow_label(tmp_path: Path, own: Any, said: Any, label: str) -> None:
    @workflow(label=own)
    def labelled(text: str) -> str:
        return shout(text=text)

    async with opened(tmp_path) as (orchestra, workers):
        run = await orchestra.options(label=said).start(labelled, text="x")
        await run
        first, *_ = [event async for event in run]
        assert isinstance(first, RunStarted)
        assert (first.label, workers.calls[0].label) == (label, label)


async def test_orchestra_run_budget_replaces_workflow_budget(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=60.0) as (orchestra, _):
        run = await orchestra.options(budget=Budget(seconds=0.05)).start(loud_topic, text="x")
        assert (await run.wait()).status == "budget"


@workflow(budget=Budget(calls=1))
def two_topics(text: str) -> str:
    """Asks twice, where one call is allowed."""
    found = topic(text=text)
    other = topic(text=found.name)
    return other.name


@pytest.mark.parametrize(
    ("said", "status", "kept"),
    [({"seconds": 30.0}, "budget", {"calls": 1, "seconds": 30.0}), ({"calls": 2}, "done", {"calls": 2}),
     ({"tokens": 9, "calls": None}, "budget", {"calls": 1, "tokens": 9})],
)  # fmt: skip
async def test_orchestra_run_budget_inherits_unset_limits(tmp_path: Path, said: Any, status: str, kept: Any) -> None:
    async with opened(tmp_path) as (orchestra, _):
        run = await orchestra.options(budget=Budget(**said)).start(two_topics, text="x")
        assert (await run.wait()).status == status
        first = await anext(run.events())
        assert isinstance(first, RunStarted)
        assert first.options == {"budget": kept}


async def test_orchestra_cancelled_caller_cancels_run(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=60.0) as (orchestra, workers):
        task = asyncio.create_task(orchestra.run(loud_topic, text="x"))
        await eventually(lambda: bool(workers.in_flight))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await eventually(lambda: bool(workers.cancelled))
        assert len(workers.cancelled) == 1


async def test_orchestra_two_instances_close_independently(tmp_path: Path) -> None:
    async with opened(tmp_path) as (stays, _):
        async with opened(tmp_path) as (goes, _):
            await goes.run(shout, text="a")
        assert (await stays.run(shout, text="b")).output == "B"


async def test_orchestra_close_ends_running_runs(tmp_path: Path) -> None:
    async with opened(tmp_path, latency=60.0) as (orchestra, workers):
        await orchestra.start(loud_topic, text="x")
        await eventually(lambda: bool(workers.in_flight))
    assert not workers.in_flight
    assert len(asyncio.all_tasks()) == 1


async def test_orchestra_check_without_workflow(tmp_path: Path) -> None:
    documents = [Document(source="a", text="The tower was completed in 1889.")]
    async with opened(tmp_path) as (orchestra, _):
        good = await orchestra.check("completed in 1889", against=documents)
        bad = await orchestra.check("completed in 1890", against=documents)
    assert (good.accepted, bad.accepted) == (True, False)
    assert (good.evidence[0].start, good.evidence[0].end) == (14, 31)


async def test_orchestra_check_combines_agents_and_checks(tmp_path: Path) -> None:
    documents = [Document(source="a", text="The tower was completed in 1889.")]
    answers: dict[str, Any] = {
        "entailment": lambda call: {
            "label": "supported",
            "p_supported": 0.8 if "1889" in call.inputs["claim"] else 0.1,
            "p_support": None,
            "p_refute": 0.1,
        },
        "reader": {"answer": "1889"},
    }
    inputs = {"question": "when", "context": documents[0].text}
    async with opened(tmp_path, answers) as (orchestra, workers):
        good = await orchestra.check("It was 1889.", against=documents, checks=quote | entailment)
        bad = await orchestra.check("It was 1890.", against=documents, checks="entailment")
        again = await orchestra.check("1889", against=documents, checks=rederive("reader"), inputs=inputs)
        alone = await orchestra.check("1889", against=documents, checks=["agree(3)"])
        asked = workers.counts["entailment"]
        quoted = await orchestra.check("completed in 1889", against=documents, checks=quote | entailment)
        for checks, code in (("quote &", "V010"), ("entailment(nobody)", "V011")):
            with pytest.raises(InputError) as caught:
                await orchestra.check("x", against=documents, checks=checks)
            assert caught.value.code == code
    assert (good.accepted, good.score, bad.accepted, again.accepted) == (True, 0.8, False, True)
    assert alone.verdicts[0].outcome == "unknown", "the producer of the answer is unknown"
    assert (quoted.accepted, workers.counts["entailment"]) == (True, asked), "what is cheap is enough"


async def test_orchestra_check_backs_off(tmp_path: Path) -> None:
    documents = [Document(source="a", text="The tower was completed in 1889.")]

    def judge(call: Any) -> dict[str, Any]:
        return {
            "label": "supported",
            "p_supported": 0.1 if "wood" in call.inputs["claim"] else 0.8,
            "p_support": None,
            "p_refute": 0.0,
        }

    answer = "It was completed in 1889. It is made of wood."
    async with opened(tmp_path, {"entailment": judge}) as (orchestra, _):
        ruling = await orchestra.check(answer, against=documents, checks="entailment", back_off=True)
        whole = await orchestra.check(answer, against=documents, checks="entailment")
    assert (ruling.accepted, whole.accepted, whole.dropped) == (True, False, ())
    assert [one.text for one in ruling.dropped] == ["It is made of wood."]
    assert ruling.remaining(answer) == "It was completed in 1889."


async def test_orchestra_check_failed_judge_is_unknown(tmp_path: Path) -> None:
    async with opened(tmp_path, {"entailment": lambda call: CallError(code="F212", reason="the server is gone")}) as (
        orchestra,
        _,
    ):
        ruling = await orchestra.check("It was 1889.", against="It was 1889.", checks="entailment")
    assert (ruling.accepted, ruling.verdicts[0].outcome) == (False, "unknown")
    assert "F212" in ruling.reason


async def test_orchestra_tool_name_taken_refused(tmp_path: Path) -> None:
    @tool(effect="pure", name="shout")
    def other(text: str) -> str:
        return text

    async with opened(tmp_path) as (orchestra, _):
        await orchestra.run(shout, text="a")
        with pytest.raises(InputError) as caught:
            await orchestra.run(other, text="a")
    assert caught.value.code == "C009"


async def test_orchestra_faulty_workflow_file_isolated(tmp_path: Path) -> None:
    (tmp_path / "orchestra.toml").touch()
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "faulty.yaml").write_text("name: [")
    async with opened(tmp_path) as (orchestra, _):
        assert (await orchestra.run(loud_topic, text="Leaves")).output == "TEA"
        with pytest.raises(InputError, match="YAML"):
            orchestra.find("faulty")
