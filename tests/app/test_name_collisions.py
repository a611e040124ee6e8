"""Agents and workflows with the same name: each run has its own, one run never has two, and files refer to the
declarations of the project's modules.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from weakref import ref

import pytest

from orchestra import Agent, InputError, Orchestra, Workflow, agent, answered_by_model, rederive, tool, workflow
from orchestra.app.planning import PlanOptions, request_workflow
from orchestra.core.events import RunStarted
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers


@tool(effect="pure")
def same_number(n: int) -> int:
    """Gives a number back."""
    return n


def judging(prompt: str, **settings: Any) -> Agent[..., str]:
    """An agent named `judge`, with the given prompt."""

    def judge(text: str) -> str:
        """Judges a text."""
        return answered_by_model()

    return agent(prompt=f"{prompt}: {{{{ text }}}}", **settings)(judge)


def helping(factor: int) -> Workflow[..., int]:
    """A workflow named `helper`, with the given body."""

    @workflow()
    def helper(n: int) -> int:
        return same_number(n=n * factor)

    return helper


def through(helper: Workflow[..., int], name: str) -> Workflow[..., int]:
    """A workflow that calls a helper."""

    @workflow(name=name)
    def main(n: int) -> int:
        return helper(n=n)

    return main


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Orchestra]:
    """The agents answer with the digest of the card in the request."""
    workers = SimulatedWorkers({"judge": lambda call: call.version})
    settings = Settings.load({"journal": str(folder / "runs.db")}, start=folder)
    async with Orchestra.open(settings, workers=workers, fleet="none") as orchestra:
        yield orchestra


def test_same_name_two_agents_refused() -> None:
    praise, blame = judging("Praise"), judging("Blame")

    @workflow()
    def both(text: str) -> dict[str, str]:
        return {"praise": praise(text=text), "blame": blame(text=text)}

    with pytest.raises(InputError, match="two different agents are called 'judge'") as caught:
        assert both.graph
    assert caught.value.code == "W021"
    assert caught.value.location is not None
    assert caught.value.location.file.endswith("test_name_collisions.py")


def test_same_name_two_workflows_refused() -> None:
    one, two = helping(1), helping(100)

    @workflow()
    def both(n: int) -> dict[str, int]:
        return {"one": one(n=n), "two": two(n=n)}

    with pytest.raises(InputError, match="two different workflows are called 'helper'") as caught:
        assert both.graph
    assert caught.value.code == "W021"


def test_same_declaration_twice_accepted(tmp_path: Path) -> None:
    first, again, patient = judging("Praise"), judging("Praise"), judging("Praise").options(timeout=30)

    @workflow()
    def twice(text: str, n: int) -> dict[str, Any]:
        a, b, c = first(text=text), again(text=text), patient(text=text)
        return {"a": a, "b": b, "c": c, "one": helping(2)(n=n), "two": helping(2)(n=n)}

    assert {step.name for step in twice.steps} == {"judge", "helper"}


async def test_same_name_nested_refused(tmp_path: Path) -> None:
    one, two = through(helping(1), "one"), through(helping(100), "two")

    @workflow()
    def both(n: int) -> dict[str, int]:
        return {"one": one(n=n), "two": two(n=n)}

    async with opened(tmp_path) as orchestra:
        with pytest.raises(InputError, match="two different workflows are called 'helper'") as caught:
            await orchestra.run(both, n=5)
    assert caught.value.code == "W021"


async def test_same_name_run_calls_own_workflows(tmp_path: Path) -> None:
    one, two = through(helping(1), "one"), through(helping(100), "two")
    outer = through(one, "outer")
    later = through(one, "later")
    settings = Settings.load({"journal": "off"}, start=tmp_path)
    async with Orchestra.open(settings, fleet="none") as orchestra:
        found = [(await orchestra.run(step, n=5)).value for step in (outer, two, one, outer, later)]
    assert found == [5, 500, 5, 5, 5]


async def test_same_name_run_calls_own_agents(tmp_path: Path) -> None:
    agents = [judging("Praise"), judging("Blame")]

    def asked(judge: Agent[..., str], name: str) -> Workflow[..., str]:
        @workflow(name=name)
        def main(text: str) -> str:
            return judge(text=text)

        return main

    praise, blame = asked(agents[0], "praise"), asked(agents[1], "blame")
    praised = asked(agents[0], "praised")
    async with opened(tmp_path) as orchestra:
        for step, index in ((praise, 0), (blame, 1), (praise, 0), (praised, 0), (agents[0], 0), (agents[1], 1)):
            card = agents[index].card
            assert card is not None
            result = await orchestra.run(step, text="x")
            assert result.value == card.digest
            first = (await orchestra.journal.read(result.run))[0]
            assert isinstance(first, RunStarted)
            assert await orchestra.journal.get_blob(first.versions["card/judge"]) == card.dump(), (
                "a resumed run finds its own card"
            )


async def test_same_name_check_calls_given_judge(tmp_path: Path) -> None:
    asked: list[str] = []

    def judged(call: Any) -> str:
        asked.append(call.version)
        return "iron"

    judges = [judging("Praise"), judging("Blame")]
    workers = SimulatedWorkers({"judge": judged})
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), workers=workers) as orchestra:
        for judge in (*judges, *judges):
            await orchestra.check("iron", against="It is iron.", checks=rederive(judge), inputs={"text": "It is iron."})
    assert asked == [judge.card.digest for judge in (*judges, *judges) if judge.card is not None]


@pytest.mark.parametrize("settings", [{}, {"checks": ["numbers"]}])
async def test_same_name_judges_in_concurrent_runs_distinct(settings: dict[str, Any], tmp_path: Path) -> None:
    asked: dict[str, set[str]] = {}

    def judged(call: Any) -> str:
        asked.setdefault(call.inputs["text"], set()).add(call.version)
        return "iron"

    judges = {text: judging(text, **settings) for text in ("Praise it", "Blame it")}
    workers = SimulatedWorkers({"judge": judged})
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), workers=workers) as orchestra:
        checks = [
            orchestra.check("iron", against=text, checks=rederive(judge), inputs={"text": text})
            for text, judge in judges.items()
        ]
        await asyncio.gather(*checks)
        cards = {text: judge.card for text, judge in judges.items()}
        bare = {
            text: card.with_settings(checks=(), accept=None, otherwise=()) if card.checks else card
            for text, card in cards.items()
            if card
        }
    assert asked == {text: {card.digest} for text, card in bare.items()}


MODULE = """
from orchestra import agent, answered_by_model, tool, workflow

@tool(effect="pure")
def said(text: str) -> str:
    return text

@agent(prompt="MODULE: {{ text }}")
def judge(text: str) -> str:
    return answered_by_model()

@workflow()
def helper(text: str) -> str:
    return said(text="MODULE")
"""
FILE = """
schema: orchestra/v1
name: filed
input: {text: str}
output: {help: "${help}", judged: "${judged}"}
nodes:
  help: {call: helper, with: {text: "${input.text}"}}
  judged: {agent: judge, with: {text: "${input.text}"}}
"""


def modules(folder: Path, **texts: str) -> Settings:
    """A project of these modules, with a workflow file that names their declarations."""
    for name, text in texts.items():
        (folder / f"{name}.py").write_text(text)
    (folder / "workflows").mkdir()
    (folder / "workflows" / "filed.yaml").write_text(FILE)
    (folder / "orchestra.toml").write_text(f"modules = {list(texts)}\n")
    return Settings.load({"journal": "off"}, start=folder)


@pytest.mark.parametrize("what", ["MODULE: {{", 'text="MODULE"'])
async def test_same_name_in_two_modules_refused(tmp_path: Path, what: str) -> None:
    mark = "".join(char for char in what if char.isalpha())
    other = MODULE.partition("\n\n@agent")[2].replace(what, what.replace("MODULE", "OTHER"))
    other = (
        "from orchestra import agent, answered_by_model, tool, workflow\n"
        f"from names_one_{mark} import said\n\n"
        f"@agent{other}"
    )
    settings = modules(tmp_path, **{f"names_one_{mark}": MODULE, f"names_two_{mark}": other})
    with pytest.raises(InputError, match="are called") as caught:
        async with Orchestra.open(settings, fleet="none"):
            pass
    assert caught.value.code == "W021"


async def test_file_name_refers_to_module_declaration(tmp_path: Path) -> None:
    settings = modules(tmp_path, names_module=MODULE)
    workers = SimulatedWorkers({"judge": lambda call: call.version, "said": lambda call: call.inputs["text"]})
    own = judging("Blame")

    @workflow()
    def helper(text: str) -> str:
        return own(text=text)

    async with Orchestra.open(settings, workers=workers) as orchestra:
        declared = orchestra.registry.card("judge").digest
        assert own.card is not None
        assert (await orchestra.run(helper, text="x")).value == own.card.digest != declared
        assert (await orchestra.run(orchestra.find("filed"), text="x")).value == {"help": "MODULE", "judged": declared}
        with pytest.raises(InputError) as checked:
            await orchestra.check("x", against="x", checks=rederive(own), inputs={"text": "x"})
        with pytest.raises(InputError) as planned:
            request_workflow(orchestra, "Judge it", {}, PlanOptions(router=own))
    assert (checked.value.code, planned.value.code) == ("W021", "W021")


async def test_find_returns_same_object_until_replaced(tmp_path: Path) -> None:
    settings = modules(tmp_path, names_found=MODULE)
    async with Orchestra.open(settings, fleet="none") as orchestra:
        for name in (
            "filed",
            str(tmp_path / "workflows" / "filed.yaml"),
            "answer_from_documents",
            "reader",
            "judge",
            "said",
            "helper",
        ):
            assert orchestra.find(name) is orchestra.find(name), name
            assert orchestra.program(orchestra.find(name)) is orchestra.program(orchestra.find(name)), name
        known = orchestra.find("reader")

        @agent(prompt="Read: {{ text }}")
        def reader(text: str) -> str:
            return answered_by_model()

        orchestra.program(reader)
        assert orchestra.find("reader") is not known


async def test_step_of_one_request_not_retained(tmp_path: Path) -> None:
    gone: list[ref[Any]] = []
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        for number in range(5):
            orchestra.program(same_number)
            flow = Workflow.from_graph(helping(number).graph)
            assert (await orchestra.run(flow, n=2)).value == 2 * number
            gone.append(ref(flow))
        del flow
        gc.collect()
        assert [one() for one in gone] == [None] * 5


async def test_file_uses_current_agent_of_name(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "told.yaml").write_text(
        "schema: orchestra/v1\nname: told\ninput: {text: str}\noutput: ${said}\n"
        "nodes:\n  said: {agent: judge, with: {text: '${input.text}'}}\n"
    )
    praise, blame = judging("Praise"), judging("Blame")
    async with opened(tmp_path) as orchestra:
        for one in (praise, blame, blame):
            assert one.card is not None
            assert (await orchestra.run(one, text="a")).value == one.card.digest
            assert (await orchestra.run(orchestra.find("told"), text="a")).value == one.card.digest
        assert orchestra.program(orchestra.find("told")) is orchestra.program(orchestra.find("told"))


async def test_file_uses_current_workflow_of_name(tmp_path: Path) -> None:
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "calling.yaml").write_text(
        "schema: orchestra/v1\n"
        "name: calling\n"
        "input: {n: int}\n"
        "output: ${found}\n"
        "nodes:\n"
        "  found: {call: helper, with: {n: '${input.n}'}}\n"
    )
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        for factor in (1, 100):
            assert (await orchestra.run(helping(factor), n=5)).value == 5 * factor
            assert (await orchestra.run(orchestra.find("calling"), n=5)).value == 5 * factor
