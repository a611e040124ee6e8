"""Arguments of a custom check: the inputs of the agent with their defaults, and the evidence of the other checks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra import (
    Agent,
    InputError,
    Orchestra,
    accepted,
    agent,
    answered_by_model,
    numbers,
    plan,
    quote,
    tool,
    verify,
    workflow,
)
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.learn.certification import rulings
from orchestra.testing import SimulatedWorkers
from orchestra.workflows.python.steps import Step


@tool(effect="pure")
def lookup(word: str) -> str:
    """Looks a word up."""
    return f"found {word}"


@tool(effect="pure")
def fits(value: str, style: str = "formal", steps: int = 3, values: list[str] | None = None, results: str = "") -> bool:
    """Whether it is in style."""
    return True


@tool(effect="pure")
def stands(value: str, evidence: list[str]) -> bool:
    """Whether it occurs in the text."""
    return any(value in text for text in evidence)


@tool(effect="pure", name="files.same-text")
def same(value: str, evidence: str = "") -> bool:
    """A name in the style of MCP servers."""
    return True


@tool(effect="pure")
def in_language(value: str, language: str) -> bool:
    """Whether it is in a language."""
    return True


@agent(prompt="Say {{ text }} in {{ style }}")
def plainly(text: str, style: str = "plain") -> str:
    """Says."""
    return answered_by_model()


@agent(prompt="Say {{ text }} in {{ style }}", tools=(lookup,))
def with_tools(text: str, style: str = "plain") -> str:
    """Says."""
    return answered_by_model()


@agent(prompt="{{ question }} {{ passage }}", evidence="passage")
def reading(question: str, passage: str) -> str:
    """Reads."""
    return answered_by_model()


@agent(prompt="{{ text }}", checks=stands & numbers, evidence="text")
def careful(text: str) -> str:
    """Reads with care."""
    return answered_by_model()


@agent(prompt="{{ text }}", checks=[quote | in_language])
def speaker(text: str) -> str:
    """Speaks."""
    return answered_by_model()


@workflow
def said_plainly(text: str) -> str:
    return accepted(plainly(text=text), checks=fits)


@workflow
def said_formally(text: str) -> str:
    return accepted(plainly(text=text, style="formal"), checks=fits)


@workflow
def read_alone(question: str, passage: str) -> str:
    return accepted(reading(question=question, passage=passage), checks=same)


@workflow
def said_with_tools(text: str) -> str:
    return accepted(with_tools(text=text), checks=fits & stands)


@workflow
def read(question: str, passage: str) -> str:
    return accepted(reading(question=question, passage=passage), checks=stands & same)


@workflow
def taken_with_care(text: str) -> str:
    return careful(text=text)


@workflow
def planned(text: str) -> str:
    return plan(text, returns=str, agents=[speaker], text=text)


async def judged(folder: Path, step: Step[..., Any], answer: str, **inputs: Any) -> tuple[str, list[dict[str, Any]]]:
    """Returns the end of a run and the arguments of its check tools."""
    turns = iter(["s1 = lookup(word=input.text)", "return"])

    def said(call: CallRequest) -> str:
        return next(turns) if "line" in call.node else answer

    agents = dict.fromkeys(("plainly", "with_tools", "reading", "careful"), said)
    tools = {one.name: one.function for one in (lookup, fits, stands, same, in_language)}
    workers = SimulatedWorkers({**agents, **{name: lambda call: tools[call.name](**call.inputs) for name in tools}})
    async with Orchestra.open(Settings.load({"journal": "off"}, start=folder), workers=workers) as orchestra:
        result = await orchestra.run(step, **inputs)
        return result.status, [call.inputs for call in workers.calls if "?" in call.node]


async def test_custom_check_gets_card_defaults(tmp_path: Path) -> None:
    assert await judged(tmp_path, said_plainly, "iron", text="a") == ("done", [{"value": "iron", "style": "plain"}])
    assert await judged(tmp_path, said_formally, "iron", text="a") == ("done", [{"value": "iron", "style": "formal"}])


async def test_custom_check_gets_no_lines_of_agent_with_tools(tmp_path: Path) -> None:
    given = [{"value": "found a", "style": "plain"}, {"value": "found a", "evidence": ["plain", "a", "found a"]}]
    assert await judged(tmp_path, said_with_tools, "found a", text="a") == ("done", given)


async def test_custom_check_evidence_of_card_never_question(tmp_path: Path) -> None:
    inputs = {"question": "When was it built?", "passage": "In 1889."}
    parrot = {"value": "When was it built?", "evidence": ["In 1889."]}
    assert await judged(tmp_path, read, "When was it built?", **inputs) == ("abstained", [parrot])
    right = [{"value": "1889", "evidence": ["In 1889."]}, {"value": "1889", "evidence": "In 1889."}]
    assert await judged(tmp_path, read, "1889", **inputs) == ("done", right), (
        "a name with dots and strokes is one of a tool"
    )
    assert await judged(tmp_path, read_alone, "1889", **inputs) == ("done", right[1:]), (
        "that can do without evidence, and gets it"
    )


def test_custom_check_outside_run_same_evidence() -> None:
    card = reading.card
    assert card is not None
    found = rulings.build_situation(card, ("tool(stands)",), {"question": "When?", "passage": "In 1889."}, "1889", None)
    assert [source.text for source in found.evidence] == ["In 1889."]


async def test_open_project_forgets_agents_of_single_requests(tmp_path: Path) -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        project, first = orchestra._project, project_judge(0)
        step = project.without_checks(first)
        for number in range(100):
            project.without_checks(project_judge(number))
        assert len(project._unchecked) <= 64
        bare = project.program(step).nodes[0].contract
        assert bare is not None
        assert bare.checks == (), "who has the step still has it"


def project_judge(number: int) -> Agent[..., Any]:
    def judge(text: str) -> str:
        """Judges."""
        return answered_by_model()

    made: Agent[..., Any] = agent(prompt=f"Judge {number} {{{{ text }}}}", checks=[numbers])(judge)
    return made


async def test_custom_check_named_in_python_card(tmp_path: Path) -> None:
    assert careful.contract.checks == ("tool(stands)", "numbers")
    assert await judged(tmp_path, taken_with_care, "12", text="It is 12.") == (
        "done",
        [{"value": "12", "evidence": ["It is 12."]}],
    )
    assert (await judged(tmp_path, taken_with_care, "13", text="It is 12."))[0] == "abstained"


@pytest.mark.parametrize(
    ("checks", "code", "says"),
    [(stands, "L117", "needs `against`"), (in_language, "L071", "it requires 'language', which is no input here")],
)
async def test_custom_check_missing_argument_reported_at_parse(
    tmp_path: Path, checks: Any, code: str, says: str
) -> None:
    @workflow
    def wrong(text: str) -> str:
        return verify(lookup(word=text), checks=checks)

    with pytest.raises(InputError) as caught:
        await judged(tmp_path, wrong, "", text="a")
    assert (caught.value.code, says in caught.value.message) == (code, True), caught.value.message


async def test_custom_check_of_skill_reported_at_plan_parse(tmp_path: Path) -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        program = orchestra._project.program(planned)
        assert any(
            "a call of speaker would fail" in one and "it requires 'language'" in one for one in program.warnings
        ), program.warnings


async def test_custom_checks_values_texts_lists(tmp_path: Path) -> None:
    async with Orchestra.open(
        Settings.load({"journal": str(tmp_path / "runs.db")}, start=tmp_path), fleet="none"
    ) as orchestra:
        good: list[Any] = [[stands], [quote, stands], ["quote", stands], "quote & tool(stands)", same | stands]
        for checks in good:
            assert (await orchestra.check("iron", against="of iron", checks=checks)).accepted, checks
        bad: list[Any] = [len, [len], 5]
        for checks in bad:
            with pytest.raises(InputError) as caught:
                await orchestra.check("iron", against="of iron", checks=checks)
            assert caught.value.code == "V010"
        assert not await orchestra.journal.list_runs(), "what asks no agent leaves no trace"
        low = await orchestra.check("x", against="y", checks=quote)
        assert not low.accepted
