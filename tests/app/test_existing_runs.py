"""Existing runs, through the public API and a real file: resumed, answered, cancelled, forked, memoized, replayed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

import pytest

from orchestra import InputError, Orchestra
from orchestra.core.errors import OrchestraError
from orchestra.core.events import (
    AttemptFinished,
    InboxMessageRejected,
    QuestionAnswered,
    QuestionAsked,
    RunFinished,
    RunResumed,
    RunStarted,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallEstimate, CallRequest, InboxMessage
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
from orchestra.testing import SimulatedWorkers
from orchestra.workflows.model import Budget

CARD = """
name: namer
description: Names a topic.
input: {text: str}
output: str
"""
WORKFLOW = """
schema: orchestra/v1
name: naming
input: {text: str}
output: ${loud}
nodes:
  words: {tool: cut, with: {text: "${input.text}"}}
  name: {agent: namer, with: {text: "${words[0]}"}}
  other: {agent: rater, with: {text: "${input.text}"}}
  loud: {tool: shout, with: {text: "${name} ${other}"}}
"""
MODULE = '''
from orchestra import tool

@tool(effect="pure", label="restricted")
def cut(text: str) -> list[str]:
    """Cuts."""
    return text.split()

@tool(effect="pure", label="restricted")
def shout(text: str) -> str:
    """Shouts."""
    return text.upper()
'''
ANSWERS: dict[str, Any] = {
    "cut": lambda call: call.inputs["text"].split(),
    "shout": lambda call: call.inputs["text"].upper(),
    "namer": lambda call: f"the {call.inputs['text']}",
    "rater": lambda call: "good",
}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A project with two agents, a module of tools and a workflow."""
    for name in ("namer", "rater"):
        folder = tmp_path / "agents" / name
        folder.mkdir(parents=True)
        (folder / "agent.yaml").write_text(CARD.replace("namer", name))
        (folder / "prompt.md").write_text("Name it: {{ text }}\n")
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "naming.yaml").write_text(WORKFLOW)
    (tmp_path / "naming_tools.py").write_text(MODULE)
    (tmp_path / "orchestra.toml").write_text('modules = ["naming_tools"]\n')
    return tmp_path


@asynccontextmanager
async def opened(project: Path, **simulation: Any) -> AsyncIterator[tuple[Orchestra, SimulatedWorkers]]:
    workers = SimulatedWorkers(ANSWERS, **simulation)
    settings = Settings.load({"journal": str(project / "runs.db")}, start=project)
    async with Orchestra.open(settings, workers=workers) as orchestra:
        yield orchestra, workers


def edit(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


async def until(run: Any, kind: type[Any], node: str = "") -> None:
    """Waits for an event of a run."""
    async for event in run:
        if isinstance(event, kind) and (not node or event.node == node):
            return


async def test_resume_uses_workflow_of_run_start(project: Path) -> None:
    async with opened(project, latency=0.05) as (orchestra, workers):
        run = await orchestra.start(orchestra.find("naming"), text="tea leaves")
        await until(run, AttemptFinished, "words")
    edit(project / "workflows" / "naming.yaml", "${name} ${other}", "today ${name}")
    edit(project / "agents" / "namer" / "prompt.md", "Name it", "Name this")
    async with opened(project) as (orchestra, workers):
        result = await (await orchestra.resume(run.id, by="a test"))
        assert result.value == "THE TEA GOOD"
        assert "cut" not in workers.counts
        events = await orchestra.journal.read(run.id)
        assert [event.by for event in events if isinstance(event, RunResumed)] == ["a test"]
        replayed = await orchestra.replay(run.id)
        assert (replayed.first_difference, replayed.event_count) == (None, len(events))
        with pytest.raises(InputError, match="no run"):
            await orchestra.resume("nobody")
        assert (await (await orchestra.resume(run.id))).value == "THE TEA GOOD"  # it has ended; its result is returned


async def test_fork_after_prompt_edit_runs_changed_nodes_only(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        run = (await orchestra.run(orchestra.find("naming"), text="tea leaves")).run
    edit(project / "agents" / "namer" / "prompt.md", "Name it", "Name this")
    async with opened(project) as (orchestra, workers):
        fork = await orchestra.fork(run)
        assert (await fork.run).value == "THE TEA GOOD"
        assert [(change.node, change.reason) for change in fork.changes] == [("name", "its agent namer has changed")]
        assert dict(workers.counts) == {"namer": 1}  # the other nodes and the nodes that read it are unchanged
        recalled = {
            event.node
            for event in await orchestra.journal.read(fork.run.id)
            if isinstance(event, AttemptFinished) and event.reused_from
        }
        assert recalled == {"words", "other", "loud"}


async def test_fork_with_other_inputs(project: Path) -> None:
    async with opened(project) as (orchestra, workers):
        run = (await orchestra.run(orchestra.find("naming"), text="tea leaves")).run
        fork = await orchestra.fork(run, text="tea pots")
        assert fork.changes == ()
        assert (await fork.run).value == "THE TEA GOOD"
        assert workers.counts["namer"] == 1
        assert workers.counts["rater"] == 2


ASK = """
schema: orchestra/v1
name: asking
input: {text: str}
output: ${loud}
nodes:
  sure: {ask: "Say ${input.text}?", options: ["yes", "no"]}
  loud: {tool: shout, with: {text: "${sure}"}}
"""


async def test_answer_from_other_process(project: Path) -> None:
    (project / "workflows" / "asking.yaml").write_text(ASK)
    async with opened(project) as (orchestra, _):
        run = await orchestra.start(orchestra.find("asking"), text="it")
        assert await run.wait_until_blocked() is None
        assert [asked.question for asked in run.questions] == ["Say it?"]
    async with opened(project) as (orchestra, _):
        assert (await orchestra.journal.list_runs())[0].status == "waiting"
        (asked,) = await orchestra.questions(run.id)
        with pytest.raises(InputError, match="none of yes, no") as refused:
            await orchestra.answer(run.id, "perhaps")
        assert refused.value.code == "E022"
        with pytest.raises(InputError, match="has changed"):
            await orchestra.answer(run.id, "yes", question_digest="something else")
        await orchestra.answer(run.id, "yes", by="ann", question_digest=asked.question_digest)
        with pytest.raises(InputError, match="has been answered by ann already") as refused:
            await orchestra.answer(run.id, "no")
        assert refused.value.code == "E021"
    async with opened(project) as (orchestra, _):
        assert (await (await orchestra.resume(run.id))).value == "YES"
        with pytest.raises(InputError, match="asks nothing"):
            await orchestra.answer(run.id, "no")


async def test_answer_in_same_process(project: Path) -> None:
    (project / "workflows" / "asking.yaml").write_text(ASK)
    async with opened(project) as (orchestra, _):
        run = await orchestra.start(orchestra.find("asking"), text="it")
        await until(run, QuestionAsked)
        await orchestra.answer(run.id, "no", by=None, decline_reason=None)  # type: ignore[arg-type]  # as services do that pass on what they got
        assert (await run).value == "NO"


async def test_answers_given_one_after_another(project: Path) -> None:
    again = (
        '  really: {ask: "Really say ${sure}?", options: ["yes", "no"]}\n'
        '  loud: {tool: shout, with: {text: "${really}"}}\n'
    )
    text = ASK[: ASK.index("  loud:")] + '  also: {ask: "And ${input.text}?", options: ["yes", "no"]}\n' + again
    (project / "workflows" / "asking.yaml").write_text(text)
    questions: list[str] = []
    async with opened(project) as (orchestra, _):
        run = await orchestra.start(orchestra.find("asking"), text="it")
        while await run.wait_until_blocked() is None:
            for asked in run.questions:
                questions.append(asked.question)
                await orchestra.answer(run.id, "yes", node=asked.node)
            assert run.questions == ()
        assert (await run).value == "YES"
    assert sorted(questions) == ["And it?", "Really say yes?", "Say it?"]


async def test_cancel_waiting_run(project: Path) -> None:
    (project / "workflows" / "asking.yaml").write_text(ASK)
    async with opened(project) as (orchestra, _):
        run = await orchestra.start(orchestra.find("asking"), text="it")
        await run.wait_until_blocked()
        await orchestra.cancel(run.id, by="ann")
        assert (await run.wait()).status == "cancelled"


async def test_cancel_unresumable_run(project: Path) -> None:
    async with opened(project, latency=60.0) as (orchestra, _):
        run = await orchestra.start(orchestra.find("naming"), text="tea")
        await until(run, RunStarted)
    (project / "naming_tools.py").write_text("")
    async with opened(project) as (orchestra, _):
        await orchestra.cancel(run.id)
        assert [summary.status for summary in await orchestra.journal.list_runs()] == ["cancelled"]


class Overtaken(MemoryJournal):
    """A journal in which the run of another process ends while an inbox message is being sent."""

    def __init__(self, other: MemoryJournal) -> None:
        super().__init__(other.store)
        self.other = other

    async def send(self, run: str, message: InboxMessage, since: int | None = None) -> int:
        self.other.append(run, [RunFinished(seq=2, at=1.0, status="done", outcome=ValueOutcome("done"))])
        return await super().send(run, message, since)


async def test_cancel_of_ending_run_changes_nothing(tmp_path: Path) -> None:
    other = MemoryJournal()
    other.append("r", [RunStarted(seq=1, at=0.0, run="r", workflow="w", graph="", inputs={})])
    async with Orchestra.open(
        Settings.load({}, start=tmp_path), workers=SimulatedWorkers({}), journal=Overtaken(other)
    ) as orchestra:
        await orchestra.cancel("r")
    assert [summary.status for summary in await other.list_runs()] == ["done"]


async def test_key_resumes_interrupted_run(project: Path) -> None:
    async with opened(project, latency=0.05) as (orchestra, _):
        run = await orchestra.options(idempotency_key="order-1").start(orchestra.find("naming"), text="tea leaves")
        await until(run, AttemptFinished, "words")
    async with opened(project) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-1")
        result = await keyed.run(orchestra.find("naming"), text="tea leaves")
        assert (result.run, result.value) == (run.id, "THE TEA GOOD")
        assert "cut" not in workers.counts
        assert (await keyed.run(orchestra.find("naming"), text="tea leaves")).run == run.id
        with pytest.raises(InputError, match="which has other inputs"):
            await keyed.run(orchestra.find("naming"), text="coffee")


class Remembering(SimulatedWorkers):
    """Workers whose calls may all be memoized."""

    def estimate(self, call: Any) -> Any:
        from orchestra.core.protocols import CallEstimate

        return CallEstimate(memo_key=f"{call.name}{sorted(call.inputs.items())}")


async def test_memo_answers_pure_calls_of_other_runs(project: Path) -> None:
    settings = Settings.load({"journal": str(project / "runs.db")}, start=project)
    workers = Remembering(ANSWERS)
    async with Orchestra.open(settings, workers=workers) as orchestra:
        remembering = orchestra.options(memo=True)
        first = await remembering.run(orchestra.find("naming"), text="tea leaves")
        assert len(workers.calls) == 4
        second = await remembering.run(orchestra.find("naming"), text="tea leaves")
        assert second.value == first.value
        assert len(workers.calls) == 4
        assert second.usage.output_tokens == 0
        await orchestra.run(orchestra.find("naming"), text="tea leaves")
        assert len(workers.calls) == 8  # the memo is off by default
        events = await orchestra.journal.read(second.run)
        assert {event.reused_from for event in events if isinstance(event, AttemptFinished)} == {first.run}


async def test_stored_objects_validated_before_use(project: Path) -> None:
    async with opened(project, latency=60.0) as (orchestra, _):
        run = await orchestra.start(orchestra.find("naming"), text="tea")
        async for _ in run:
            break
    import sqlite3

    with sqlite3.connect(project / "runs.db") as sql:
        (graph,) = sql.execute("SELECT digest FROM blobs WHERE CAST(data AS TEXT) LIKE '%naming%nodes%'").fetchone()
        sql.execute("UPDATE blobs SET data = ? WHERE digest = ?", (b'{"name": "evil"}', graph))
    async with opened(project) as (orchestra, _):
        with pytest.raises(OrchestraError) as damaged:
            await orchestra.resume(run.id)
        assert damaged.value.code == "J013"


async def test_key_used_twice_at_once_makes_one_run(project: Path) -> None:
    async with opened(project) as (orchestra, workers):
        keyed = orchestra.options(idempotency_key="order-2")
        results = await asyncio.gather(*(keyed.run(orchestra.find("naming"), text="tea leaves") for _ in range(5)))
        assert len({result.run for result in results}) == 1
        assert len(workers.calls) == 4


async def test_fork_keeps_label_and_outlives_parent(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        run = (await orchestra.options(label="restricted").run(orchestra.find("naming"), text="tea leaves")).run
    edit(project / "agents" / "namer" / "prompt.md", "Name it", "Name this")
    async with opened(project, latency=60) as (orchestra, workers):  # only the start of the run happens here
        fork = await orchestra.fork(run)
        await until(fork.run, RunStarted)
        started = (await orchestra.journal.read(fork.run.id))[0]
        assert isinstance(started, RunStarted)
        assert started.label == "restricted"
    async with opened(project) as (orchestra, workers):
        await orchestra.journal.delete(run)
        assert (await (await orchestra.resume(fork.run.id))).value == "THE TEA GOOD"
        assert {call.label for call in workers.calls} == {"restricted"}


async def test_key_names_one_fork_of_one_run(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        old, other = [
            (await orchestra.run(orchestra.find("naming"), text=text)).run for text in ("tea leaves", "tea pots")
        ]
        keyed = orchestra.options(idempotency_key="again-1")
        forks = [await keyed.fork(old, text="coffee beans") for _ in range(2)]
        assert {(await fork.run).value for fork in forks} == {"THE COFFEE GOOD"}
        assert len({fork.run.id for fork in forks}) == 1
        with pytest.raises(InputError) as elsewhere:
            await keyed.fork(other, text="coffee beans")
        with pytest.raises(InputError) as none:
            await keyed.run(orchestra.find("naming"), text="coffee beans")
        key = f"E015: the key 'again-1' belongs to run {forks[0].run.id}"
        assert str(elsewhere.value).startswith(f"{key}, a fork of run {old}; this is to be a fork of run {other}\n")
        assert str(none.value).startswith(f"{key}, a fork of run {old}; this is to be no fork\n")
        assert "such as 'again-1/2'" in none.value.hint
        first = await orchestra.options(idempotency_key="first").run(orchestra.find("naming"), text="tea leaves")
        with pytest.raises(
            InputError, match=f"belongs to run {first.run}, no fork; this is to be a fork of run {first.run}"
        ):
            await orchestra.options(idempotency_key="first").fork(first.run)
        with pytest.raises(InputError, match="which has other inputs"):
            await orchestra.options(idempotency_key="first").run(orchestra.find("naming"), text="tea pots")
    edit(project / "workflows" / "naming.yaml", "schema: orchestra/v1", "schema: orchestra/v1\ndescription: Names it.")
    async with opened(project) as (orchestra, _):
        with pytest.raises(InputError, match="of another workflow, or of this one before it was changed"):
            await orchestra.options(idempotency_key="first").run(orchestra.find("naming"), text="tea leaves")


async def test_key_resumes_interrupted_fork(project: Path) -> None:
    async with opened(project) as (orchestra, _):
        old = (await orchestra.run(orchestra.find("naming"), text="tea leaves")).run
    edit(project / "agents" / "namer" / "prompt.md", "Name it", "Name this")
    async with opened(project, latency=60) as (orchestra, _):
        fork = await orchestra.options(idempotency_key="again-2").fork(old)
        await until(fork.run, AttemptFinished, "words")
    async with opened(project) as (orchestra, workers):
        again = await orchestra.options(idempotency_key="again-2").fork(old)
        assert (again.run.id, (await again.run).value) == (fork.run.id, "THE TEA GOOD")
        assert dict(workers.counts) == {"namer": 1}


async def test_fork_uses_given_sample(project: Path) -> None:
    async with opened(project) as (orchestra, workers):
        old = (await orchestra.run(orchestra.find("naming"), text="tea leaves")).run
        workers.calls.clear()
        fork = await orchestra.options(sample=3).fork(old)
        assert (await fork.run).value == "THE TEA GOOD"
        assert {call.sample for call in workers.calls if call.kind == "agent"} == {3}
        started = (await orchestra.journal.read(fork.run.id))[0]
        assert isinstance(started, RunStarted)
        assert started.options == {"sample": 3}


class Measuring(SimulatedWorkers):
    """Every model call may take a hundred tokens."""

    def estimate(self, call: CallRequest) -> CallEstimate:
        return CallEstimate(prompt_tokens=50, max_output=50, min_output=50) if call.kind == "agent" else CallEstimate()


async def test_memo_recalled_call_needs_no_budget(project: Path) -> None:
    settings = Settings.load({"journal": str(project / "runs.db")}, start=project)
    async with Orchestra.open(settings, workers=Measuring(ANSWERS)) as orchestra:
        first = await orchestra.start(orchestra.find("naming"), text="tea leaves")
        await first
        forked = await orchestra.options(budget=Budget(tokens=20)).fork(first.id)
        assert (await forked.run).status == "done"


@pytest.mark.parametrize("said", [None, "restricted"])
async def test_whatif_keeps_strictest_label_and_recalls(project: Path, said: Literal["restricted"] | None) -> None:
    async with opened(project) as (orchestra, _):
        run = (await orchestra.run(orchestra.find("naming"), text="tea leaves")).run
    if said is None:
        edit(project / "workflows" / "naming.yaml", "name: naming\n", "name: naming\nlabel: restricted\n")
    edit(project / "agents" / "namer" / "prompt.md", "Name it", "Name this")
    async with opened(project) as (orchestra, workers):
        found = await orchestra.options(label=said).whatif(run)
        assert [(call.name, call.label) for call in workers.calls] == [("namer", "restricted")]
        assert (found.verdict, found.recalled_calls, found.new_calls) == ("same", 3, 1)


async def test_answer_second_of_two_refused(project: Path) -> None:
    (project / "workflows" / "asking.yaml").write_text(ASK)
    async with opened(project) as (orchestra, _), opened(project) as (elsewhere, _):
        run = await orchestra.start(orchestra.find("asking"), text="it")
        await run.wait_until_blocked()
        persons = ((orchestra, "ann"), (elsewhere, "bob"), (orchestra, "cy"))
        came = await asyncio.gather(*(one.answer(run.id, "yes", by=by) for one, by in persons), return_exceptions=True)
        assert [getattr(one, "code", "") for one in came].count("E021") == 2, came
        result = await run.wait()
        taken = [event for event in result.events if isinstance(event, QuestionAnswered)]
        assert not [event for event in result.events if isinstance(event, InboxMessageRejected)]
        assert [event.by for event in taken] == [("ann", "bob", "cy")[came.index(None)]]
