"""Custom checks in Python: tools as values that are combined with checks, in workflows and for external answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra import (
    Abstained,
    InputError,
    Judgement,
    Maybe,
    Orchestra,
    Quote,
    abstain,
    accepted,
    agent,
    answered_by_model,
    first_of,
    numbers,
    quote,
    retry,
    tool,
    verify,
    workflow,
)  # fmt: skip
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers
from orchestra.workflows.python.dsl import Check
from orchestra.workflows.python.trace import to_python


@agent(prompt="Name what {{ text }} is about.")
def namer(text: str) -> Quote:
    """Names a thing."""
    return answered_by_model()


@tool(effect="pure")
def short_enough(value: str, text: str = "") -> Judgement:
    """Whether it is shorter than what it is about."""
    return Judgement(passed=len(value) < len(text), reason=f"{len(value)} characters of {len(text)}", score=0.75)


@tool(effect="idempotent")
async def in_catalogue(name: str, evidence: list[str]) -> bool | None:
    """Whether a catalogue has it."""
    return None if not evidence else name in ("iron", "tin")


@tool(effect="once")
def announces(value: str) -> bool:
    """Has an effect."""
    return True


@workflow
def named(text: str) -> str | None:
    found = accepted(
        namer(text=text), checks=quote & short_enough & in_catalogue, against=text, otherwise=[retry, abstain]
    )
    assert isinstance(found, Maybe)
    return first_of(found, otherwise=None)


@workflow
def finished(text: str) -> Quote:
    return verify(namer(text=text), checks=in_catalogue | numbers, against=text)


def opened(folder: Path, answers: dict[str, Any]) -> tuple[Any, SimulatedWorkers]:
    workers = SimulatedWorkers(answers)
    return Orchestra.open(Settings.load({"journal": "off"}, start=folder), workers=workers), workers


def test_custom_check_tools_written_like_checks() -> None:
    assert named.graph.nodes["found"].checks == ("quote", "tool(short_enough)", "tool(in_catalogue)")
    assert (short_enough & numbers).names == ("tool(short_enough)", "numbers")
    assert (short_enough | in_catalogue).names == ("tool(short_enough) | tool(in_catalogue)",)
    assert (numbers & (quote | short_enough)).names == ("numbers", "quote | tool(short_enough)")
    assert (short_enough & in_catalogue).steps == (short_enough, in_catalogue)
    assert "Check('tool(short_enough)')" in to_python(named.graph)


@pytest.mark.parametrize("other", ["quote", 5, None, len])
def test_custom_check_tool_combines_with_checks_only(other: Any) -> None:
    for one in (short_enough, quote):
        with pytest.raises(TypeError):
            _ = one & other
        with pytest.raises(TypeError):
            _ = one | other


def test_custom_check_plain_function_refused_with_hint() -> None:
    def plain(value: str) -> bool:
        return True

    @workflow
    def wrong(text: str) -> Quote:
        return accepted(namer(text=text), checks=plain)  # type: ignore[call-overload,no-any-return]

    with pytest.raises(InputError) as caught:
        _ = wrong.graph
    assert (caught.value.code, caught.value.hint) == ("W016", "@tool(effect='pure') makes one of a function")


async def test_custom_check_called_in_run(tmp_path: Path) -> None:
    answers = {
        "namer": lambda call: "iron" if "iron" in call.inputs["text"] else "a metal",
        "short_enough": lambda call: short_enough.function(**call.inputs).model_dump(),
        "in_catalogue": lambda call: call.inputs["name"] in ("iron", "tin"),
    }
    opening, workers = opened(tmp_path, answers)
    async with opening as orchestra:
        result = await orchestra.run(named, text="a rod of iron")
        assert result.output == "iron"
        asked = [call for call in workers.calls if call.kind == "tool"]
        known = {"text": "a rod of iron"}
        assert [call.inputs for call in asked] == [
            {"value": "iron", **known},
            {"name": "iron", "evidence": ["a rod of iron"]},
        ]
        refused = await orchestra.run(named, text="a metal")
        assert refused.output is None
        reasons = [call.feedback for call in workers.calls if call.name == "namer"][-1]
        assert reasons == ("tool(short_enough): 7 characters of 7",)
        whole = await orchestra.run(finished, text="a rod of iron")
        assert whole.output == "iron"


async def test_custom_check_of_external_answer_runs_locally(tmp_path: Path) -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        good = await orchestra.check(
            "iron", against="a rod of iron", checks=quote & short_enough, inputs={"text": "a rod of iron"}
        )
        assert (good.accepted, good.score) == (True, 0.75)
        other = await orchestra.check("gold", against="a rod of gold", checks=in_catalogue)
        assert (other.accepted, other.reason) == (False, "tool(in_catalogue): it returned False")
        open_ = await orchestra.check("gold", against=[], checks="tool(in_catalogue)")
        assert (open_.accepted, open_.reason) == (False, "tool(in_catalogue): it cannot tell")
        strange = await orchestra.check(5, against="5", checks=short_enough)
        assert strange.reason == "tool(short_enough): T002 short_enough: value: expected str, got 5"
        for checks, says in (("tool(missing)", "calls the tool 'missing'"), (announces, "its effect is 'once'")):
            with pytest.raises(InputError) as caught:
                await orchestra.check("x", against="x", checks=checks)
            assert caught.value.code == "V011"
            assert says in caught.value.message


async def test_custom_check_tool_with_effects_refused(tmp_path: Path) -> None:
    @workflow
    def wrong(text: str) -> Quote:
        return accepted(namer(text=text), checks=Check("quote") & announces, against=text)

    opening, _ = opened(tmp_path, {"namer": "iron"})
    async with opening as orchestra:
        with pytest.raises(InputError) as caught:
            await orchestra.run(wrong, text="iron")
        assert caught.value.code == "L071"


async def test_custom_check_exception_passes_nothing_names_place(tmp_path: Path) -> None:
    @tool(effect="pure")
    def raises(value: str) -> bool:
        """Raises an error."""
        return {"iron": True}[value]

    @tool(effect="pure")
    def gives(text: str) -> str:
        """Returns its input."""
        return text

    @workflow
    def careful(text: str) -> str:
        return accepted(gives(text=text), checks=raises)

    async with Orchestra.open(Settings.load({"journal": "off"}, start=tmp_path), fleet="none") as orchestra:
        assert (await orchestra.run(careful, text="iron")).output == "iron"
        result = await orchestra.run(careful, text="gold")
        with pytest.raises(
            Abstained, match=r"tool\(raises\): T003 raises raised KeyError: 'gold' \(test_custom_checks\.py:\d+ in "
        ):
            _ = result.output
