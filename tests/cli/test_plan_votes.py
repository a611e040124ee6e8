"""`--votes` and `--larger`: majority plans, and a larger planner after failures of the router."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from tests.cli.run.test_ask import FLEET, PLAN, WHEN, asked, used
from tests.cli.shell import Shell
from tests.cli.stage import Simulated, furnish

CARD = """\
schema: orchestra/v1
name: planner
description: Plans as well, on a larger model.
input: {request: str, skills: str, values: str, plan: str, grammar: str}
output: str
grammar: grammar
"""
FIND = ["s1 = search(query=input.request, documents=input.documents)", "return s1"]
FIND_ONE = ["s1 = search(documents=input.documents, query=input.request, top=1)", "return s1"]


@pytest.fixture
def desk(shell: Shell) -> Shell:
    """A project with one document, and a second agent that plans."""
    Path("docs").mkdir()
    Path("docs/tower.txt").write_text("The tower was opened in 1889. It is made of iron.")
    furnish(
        files={
            "configs/nowhere.yaml": FLEET,
            "agents/planner/agent.yaml": CARD,
            "agents/planner/prompt.md": "{{ plan }}",
        }
    )
    Path("orchestra.toml").write_text('fleet = "nowhere"\n')
    return shell


def sampling(shell: Shell, *plans: list[str] | None, planner: list[str] | None = None) -> Shell:
    """Sample k of the router writes plan k; None is a missing server."""

    def answer(call: CallRequest) -> Any:
        if call.kind == "tool":
            return used(call)
        stand = len([line for line in call.inputs.get("plan", "").splitlines() if line])
        if call.name == "planner":
            return (planner or [])[stand]
        if call.name != "router":
            return {"answer": "1889"}
        lines = plans[max(0, call.sample - 1)]
        return (
            CallError(code="F210", reason="the server is gone") if lines is None else lines[min(stand, len(lines) - 1)]
        )

    shell.opener = Simulated(answer)
    return shell


def test_votes_run_the_majority_plan_and_show_its_agreement(desk: Shell) -> None:
    sampling(desk, FIND, FIND_ONE, [FIND_ONE[0].replace("top=1", "top=1.0"), "return s1"])
    said = desk("ask", WHEN, "-d", "docs", "--votes", "3")
    assert said.code == 0, said.err
    assert said.err.startswith("\n".join(FIND_ONE))
    assert "2 of 3 samples agree on this plan" in said.err
    found = desk("ask", WHEN, "-d", "docs", "--votes", "3", "--no-cache", "--json").json
    assert found["votes"] == {"sampled": 3, "agree": 2, "confidence": pytest.approx(2 / 3)}
    assert found["router"]["calls"] == 6
    assert sorted(call.sample for call in asked(desk)) == [1, 1, 2, 2, 3, 3]


def test_plan_command_shows_the_agreement(desk: Shell) -> None:
    said = sampling(desk, FIND, FIND)("plan", WHEN, "-d", "docs", "--votes", "2")
    assert "2 of 2 samples agree on this plan" in said.err


def test_without_votes_nothing_is_sampled_and_nothing_said(desk: Shell) -> None:
    found = sampling(desk, FIND)("ask", WHEN, "-d", "docs", "--json").json
    assert "votes" not in found
    assert {call.sample for call in asked(desk)} == {0}


def test_a_sample_that_fails_has_no_plan_and_counts(desk: Shell) -> None:
    found = sampling(desk, None, ["no"], FIND)("ask", WHEN, "-d", "docs", "--votes", "3", "--json").json
    assert (found["status"], found["votes"]["agree"], found["votes"]["confidence"]) == ("done", 1, pytest.approx(1 / 3))


def test_where_all_samples_fail_the_first_failure_is_told(desk: Shell) -> None:
    said = sampling(desk, None, None)("ask", WHEN, "-d", "docs", "--votes", "2")
    assert said.code == 1
    assert "F210" in said.err


def test_where_no_sample_comes_to_a_plan_the_reasons_are_told(desk: Shell) -> None:
    said = sampling(desk, ["no"], ["never"])("ask", WHEN, "-d", "docs", "--votes", "2")
    assert said.code == 3
    assert "R007: the router gave no plan" in said.err


@pytest.mark.parametrize("votes", ["0", "17", "many"])
def test_votes_are_from_one_to_sixteen(desk: Shell, votes: str) -> None:
    assert sampling(desk, FIND)("ask", WHEN, "--votes", votes).code == 2


def test_a_larger_planner_goes_on_from_the_lines_that_stand(desk: Shell) -> None:
    sampling(desk, [PLAN[0], "I cannot"], planner=PLAN)
    found = desk("ask", WHEN, "-d", "docs", "--larger", "planner", "--repairs", "1", "--json").json
    assert (found["status"], found["plan"]) == ("done", PLAN)
    assert isinstance(desk.opener, Simulated)
    assert desk.opener.workers is not None
    helped = [call.inputs["plan"] for call in desk.opener.workers.calls if call.name == "planner"]
    assert helped == ["\n".join(PLAN[:number]) for number in (1, 2, 3)]


def test_a_larger_planner_that_is_not_there_is_said_at_once(desk: Shell) -> None:
    said = sampling(desk, FIND)("ask", WHEN, "-d", "docs", "--larger", "plannr")
    assert (said.code, said.err.partition(":")[0]) == (2, "C004")
    assert "planner" in said.err
    assert asked(desk) == []


def test_a_plan_of_a_larger_planner_and_one_without_are_not_each_others(desk: Shell) -> None:
    sampling(desk, FIND, planner=FIND)("ask", WHEN, "--no-rules", "-d", "docs")
    assert desk("ask", WHEN, "--no-rules", "-d", "docs", "--larger", "planner", "--json").json["cached"] is None
    assert desk("ask", WHEN, "--no-rules", "-d", "docs", "--json").json["cached"] is not None


def test_a_plan_that_was_voted_on_serves_again_with_all_that_it_cost(desk: Shell) -> None:
    sampling(desk, FIND, FIND)("ask", WHEN, "-d", "docs", "--votes", "2")
    again = desk("ask", WHEN, "-d", "docs", "--votes", "2", "--json").json
    assert again["cached"]["saved"]["calls"] == 4
    assert again["votes"] == {"sampled": 2, "agree": 2, "confidence": 1.0}


def test_a_plan_of_one_sample_does_not_pass_for_one_of_three(desk: Shell) -> None:
    sampling(desk, FIND, FIND, FIND)("ask", WHEN, "-d", "docs")
    assert desk("ask", WHEN, "-d", "docs", "--votes", "3", "--json").json["cached"] is None


def test_return_nothing_is_a_vote(desk: Shell) -> None:
    said = sampling(desk, PLAN, ["return nothing"], ["return nothing"])(
        "ask", WHEN, "-d", "docs", "--votes", "3", "--json"
    )
    found = said.json
    assert (said.code, found["status"], found["plan"]) == (3, "failed", None)
    assert found["router"]["rejections"][0]["code"] == "R014"
    assert found["votes"] == {"sampled": 3, "agree": 2, "confidence": 2 / 3}
