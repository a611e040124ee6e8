"""`orchestra ask` and `orchestra plan` for requests of several parts: ignored parts are reported."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra.agents.registry import builtin_folder
from orchestra.app.planning import PlanResult
from orchestra.cli.run.plan import find_empty_steps
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.router.capabilities import Capabilities
from orchestra.router.plan import build_plan
from orchestra.router.plan_syntax import parse_plan
from tests.cli.run.test_ask import FLEET
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

pytestmark = pytest.mark.slow

FLIGHT, PENS = "Book me a flight to Rome.", "A box holds 12 pens. How many pens are in 5 boxes?"
BOTH = f"{FLIGHT} Also: {PENS}"
LAMPS = "What do 3 lamps at 20 each cost?"
SUMS = f"{PENS} Also: {LAMPS}"


@pytest.fixture
def desk(shell: Shell) -> Shell:
    Path("configs").mkdir()
    Path("configs/nowhere.yaml").write_text(FLEET)
    Path("orchestra.toml").write_text('fleet = "nowhere"\n')
    return shell


def planning(desk: Shell, *lines: str) -> list[CallRequest]:
    """The router writes these lines, one for each call, for any prompt; returns the prompts."""
    left, asked = iter(lines), list[CallRequest]()

    def answer(call: CallRequest) -> Any:
        if call.name != "router":
            return {"expression": "12*5", "answer": 60.0}
        asked.append(call)
        return next(left, "nothing more")

    desk.opener = Simulated(answer)
    return asked


ONLY = ("--only", "generative_calculator")
WHOLE = f"s1 = {ONLY[1]}(question=input.request)"
ON_PENS = f's1 = generative_calculator(question="{PENS}")'
TOLD = [ON_PENS, "return s1", "return s1", "return s1"]


def test_unserved_part_is_reported_and_partial_plans_the_rest(desk: Shell) -> None:
    asked = planning(desk, *TOLD)
    said = desk("ask", "--no-rules", BOTH, *ONLY)
    assert (said.code, said.out) == (3, "")
    assert f'R014  /steps: nothing serves "{FLIGHT}"' in said.err
    assert PENS not in said.err.split("R014")[1]
    assert "--partial plans what can be done" in said.err
    assert f'/steps: nothing serves "{FLIGHT}"; write a step for each part' in asked[-1].inputs["request"]
    planning(desk, *TOLD)
    said = desk("ask", "--no-rules", BOTH, *ONLY, "--partial")
    assert said.code == 0, said.err
    assert f'nothing serves "{FLIGHT}"; the plan ignores it' in said.err
    planning(desk, *TOLD)
    told = desk("ask", "--no-rules", BOTH, *ONLY, "--partial", "--no-cache", "--json").json
    assert told["undone"] == [FLIGHT]
    assert "60" in str(told["output"])


def test_single_step_for_several_parts_is_replanned_or_reported(desk: Shell) -> None:
    planning(desk, WHOLE, "return s1", f'2 = generative_calculator(question="{LAMPS}")', "return s1, s2")
    said = desk("ask", "--no-rules", SUMS, *ONLY, "--json").json
    assert said["plan"][1:] == [f's2 = generative_calculator(question="{LAMPS}")', "return s1, s2"]
    assert "undone" not in said
    planning(desk, WHOLE, "return s1", "return s1", "return s1")
    said = desk("plan", "--no-rules", SUMS, *ONLY, "--no-cache")
    assert said.code == 0, said.err
    assert f'2 parts, 1 step: "{PENS}" and "{LAMPS}"; some of them may be missing' in said.err
    planning(desk, WHOLE, "return s1", "return s1", "return s1")
    told = desk("ask", "--no-rules", SUMS, *ONLY, "--no-cache", "--json").json
    assert told["perhaps_undone"] == [PENS, LAMPS]
    assert "undone" not in told


def test_computing_step_does_not_cover_a_part_without_numbers(desk: Shell) -> None:
    planning(
        desk, WHOLE, "return s1", f'2 = generative_calculator(question="{PENS}")', "return s1, s2", "return s1, s2"
    )
    said = desk("plan", "--no-rules", BOTH, *ONLY, "--no-cache")
    assert said.code == 3, said.err
    assert f'R014  /steps: nothing serves "{FLIGHT}"' in said.err
    planning(desk, WHOLE, "return s1", "return s1", "return s1")
    told = desk("ask", "--no-rules", BOTH, *ONLY, "--no-cache", "--partial", "--json").json
    assert told["undone"] == [FLIGHT]
    assert "60" in str(told["output"])


@pytest.mark.parametrize(
    ("request_", "lines", "anyway", "left"),
    [(SUMS, (WHOLE, *["return s1"] * 3), (), LAMPS), (BOTH, TOLD, ("--partial",), FLIGHT)],
)
def test_accepted_partial_plan_is_cached(
    desk: Shell, request_: str, lines: tuple[str, ...], anyway: tuple[str, ...], left: str
) -> None:
    planning(desk, *lines)
    first = desk("ask", "--no-rules", request_, *ONLY, *anyway)
    assert first.code == 0, first.err
    asked = planning(desk, *lines)
    again = desk("ask", "--no-rules", request_, *ONLY, *anyway)
    assert (again.code, asked) == (0, [])
    assert "from the cache" in again.err
    assert f'"{left}"' in again.err
    run = desk("runs", "list", "--json").json[0]["run"]
    assert desk("runs", "replay", run).code == 0


def test_request_of_one_part_is_planned_normally(desk: Shell) -> None:
    planning(desk, "s1 = generative_calculator(question=input.request)", "return s1")
    said = desk("ask", "--no-rules", PENS, *ONLY)
    assert said.code == 0, said.err
    assert "nothing" not in said.err


def passed_on(call: CallRequest) -> Any:
    """The router passes the message to the desk."""
    if call.name == "router":
        return "return s1" if call.inputs["plan"] else "s1 = support_desk(message=input.request)"
    return {"intent": "out_of_scope", "p_oos": 1.0} if call.name == "assistant_intent" else {"slots": {}}


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_desk_classification_without_action_is_reported(desk: Shell, more: tuple[str, ...]) -> None:
    desk.opener = Simulated(passed_on)
    both = ("--only", "support_desk", "--only", "answer_from_documents")
    said = desk("ask", "--no-rules", "Send an email to Ann that I am late", "--no-cache", *both, *more)
    assert said.code == 0, said.err
    assert "support_desk only classified it (branch person, intent " in said.err
    assert "nothing was done, and no person was notified; nothing is near; there is answer_from_documents (" in said.err
    assert "support_desk (" not in said.err


def test_project_desk_is_not_reported_as_inactive(desk: Shell) -> None:
    Path("workflows").mkdir()
    Path("workflows/support_desk.yaml").write_text((builtin_folder("workflows") / "support_desk.yaml").read_text())
    desk.opener = Simulated(passed_on)
    said = desk("ask", "--no-rules", "Send an email to Ann that I am late", "--no-cache")
    assert said.code == 0, said.err
    assert "only sorted" not in said.err


EMAIL = "Send an email to Ann."
SLOTS: dict[str, Any] = {"slots": {}}
SUM = {"expression": "12*5", "answer": 60.0}


def reading(desk: Shell, *lines: str, found: Any = SLOTS) -> None:
    """The router writes these lines; an extractor finds this in its text, and a calculator returns the sum."""
    left = iter(lines)
    desk.opener = Simulated(
        lambda call: next(left, "") if call.name == "router" else found if "text" in call.inputs else SUM
    )


@pytest.mark.parametrize("more", [(), ("--json",)])
def test_empty_step_is_reported(desk: Shell, more: tuple[str, ...]) -> None:
    reading(desk, ON_PENS, f's2 = extractor(text="{EMAIL}", requested=[])', "return s1, s2")
    said = desk("ask", "--no-rules", f"{PENS} Also: {EMAIL}", *ONLY, "--only", "extractor", "--no-cache", *more)
    assert said.code == 0, said.err
    assert f's2 is empty: extractor found nothing in "{EMAIL}"; nothing is near; there is ' in said.err
    assert "s1 is empty" not in said.err
    assert not more or said.json["status"] == "done"


def test_empty_list_elements_are_reported(desk: Shell) -> None:
    texts = ["A table for 2 at 8.", EMAIL]
    left = iter([f"s1 = [extractor(text=x, requested=[]) for x in {json.dumps(texts)}]", "return s1"])
    slot = {"slots": {"people": {"value": "2", "start": 12, "end": 13}}}
    desk.opener = Simulated(
        lambda call: next(left) if call.name == "router" else slot if texts[0] == call.inputs["text"] else SLOTS
    )
    said = desk("ask", "--no-rules", f"{texts[0]} Also: {EMAIL}", "--only", "extractor", "--no-cache")
    assert said.code == 0, said.err
    assert f's1 is empty: extractor found nothing in "{EMAIL}"; ' in said.err
    assert said.err.count("is empty") == 1


@pytest.mark.parametrize(
    ("line", "answer"),
    [
        ("s1 = extractor(text=input.text, requested=[])", "return s1"),  # it has read the inputs
        ("s1 = extractor(text=input.request, requested=[])", "return s1"),
    ],
)
def test_step_that_reads_inputs_may_be_empty(desk: Shell, line: str, answer: str) -> None:
    reading(desk, line, answer)
    at_hand = ["-i", "text=Nothing of the kind."] if "input.text" in line else []
    said = desk("ask", "--no-rules", EMAIL, *at_hand, "--only", "extractor", "--no-cache")
    assert said.code == 0, said.err
    assert ("is empty" in said.err) == ("input.request" in line)


def test_step_with_effects_may_be_empty(desk: Shell) -> None:
    Path("noting.py").write_text(NOTES)
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["noting"]\n')
    reading(desk, f's1 = send_note(text="{EMAIL}")', "return s1", found=None)
    said = desk("ask", "--no-rules", EMAIL, "--only", "send_note", "--no-cache", "--yes")
    assert said.code == 0, said.err
    assert "is empty" not in said.err


NOTES = """
from orchestra import tool

@tool(effect="once")
def send_note(text: str) -> None:
    '''Sends a note.'''
"""


def test_plan_with_removed_capabilities_is_still_read(desk: Shell) -> None:
    """A cached plan, or a later one of a run, may use others."""
    made = build_plan(parse_plan(f's1 = extractor(text="{EMAIL}", requested=[])\nreturn s1'))
    history: Any = SimpleNamespace(row=lambda path: SimpleNamespace(outcome=ValueOutcome(SLOTS)))
    known = Capabilities.of([], {"request": {"type": "string"}})
    assert not [*find_empty_steps(PlanResult(EMAIL, known, made), history, Settings.load({"fleet": "nowhere"}))]
