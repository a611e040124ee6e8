"""Explanations: targets, maximum and actual cost of each step of a plan, workflow or run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.project import Project
from orchestra.cli import output
from orchestra.cli.output import make_console
from orchestra.cli.run import explain as explain_module
from orchestra.cli.run.explain import ProgramExplanation, explain, show_explanation
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.journal.history import History
from orchestra.workflows.model import Budget
from tests.cli.run.test_ask import PLAN, WHEN, used
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers:
  small: {endpoint: "http://127.0.0.1:9/v1", model: m, max_model_len: 4096, external: false, label: restricted}
  provider: {endpoint: "https://example.com/v1", model: big, max_model_len: 9000, label: internal}
models: {base: small, large: provider}
escalate: large
"""
SOLVE = """\
schema: orchestra/v1
name: solve
input: {question: str, documents: "list[Document]"}
output: ${answer}
nodes:
  whole: {call: answer_from_documents, with: {question: "${input.question}", documents: "${input.documents}"}}
  solved:
    plan: ${input.question}
    with: {documents: "${input.documents}"}
    agents: [reader]
    tools: [search, cite]
    returns: Answer
    limits: {steps: 4}
  readings:
    agent: reader
    each: ${input.documents}
    as: document
    with: {question: "${input.question}", context: "${document.text}"}
    checks: [quote]
    against: ${document.text}
    otherwise: [retry, escalate, abstain]
  answer: {first_of: ["${whole}", "${solved}", "${readings.values}"]}
"""
RUN = ("run", "solve", "-i", f"question={WHEN}", "-i", "documents=@docs")


@pytest.fixture
def desk(shell: Shell) -> Shell:
    """A fleet of a small model and a provider's larger one, a router that writes the plan, and a workflow with all
    kinds of steps.
    """
    for name, text in (
        ("docs/tower.txt", "The tower was opened in 1889. It is made of iron."),
        ("configs/nowhere.yaml", FLEET),
        ("workflows/solve.yaml", SOLVE),
        ("orchestra.toml", 'fleet = "nowhere"\n'),
    ):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(text)
    left = iter(PLAN)

    def answer(call: CallRequest) -> Any:
        if call.kind == "tool":
            return used(call)
        return next(left, "nothing more") if call.name == "router" else {"answer": "1889"}

    shell.opener = Simulated(answer)
    return shell


def fleet(old: str, new: str) -> None:
    path = Path("configs/nowhere.yaml")
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))


def nodes(found: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {node["node"]: node for node in found["nodes"]}


def test_a_plan_says_of_each_step_where_it_goes_and_what_it_takes(desk: Shell) -> None:
    found = desk("plan", WHEN, "--no-rules", "-d", "docs", "--json").json["explain"]
    reading = nodes(found)["s2"]
    assert (reading["asks"], reading["critical"], reading["certificate"]) == ("reader", True, False)
    small = {"external": False, "cleared_for": "restricted", "escalated": False, "tier": 0}
    assert reading["servers"] == [{"name": "here", **small}, {"name": "small", **small}]  # those of its two members
    assert (reading["label"], reading["allowed"]) == ("internal", True)
    assert reading["tokens"] == reading["calls"] * 4096
    assert nodes(found)["s1"]["servers"] == [{"name": "here", **small}]
    assert (nodes(found)["s1"]["certificate"], nodes(found)["s1"]["tokens"]) == (None, 0)
    assert found["critical_path"] == ["s1", "s2", "s3"]
    assert found["tokens"] == reading["tokens"]


def test_the_table_of_a_plan_has_the_same_facts(desk: Shell) -> None:
    lines = [line.split() for line in desk("plan", WHEN, "--no-rules", "-d", "docs").out.splitlines()]
    assert [
        "*",
        "s2",
        "reader",
        "here,",
        "small",
        "internal",
        "≤",
        "restricted",
        "none",
        "100",
        "×",
        "3",
        "19,200",
        "1,228,800",
    ] in lines
    assert ["*", "the", "critical", "path:", "s1", "→", "s2", "→", "s3"] in lines


def test_a_server_that_is_not_cleared_is_told_before_anything_runs(desk: Shell) -> None:
    fleet("label: restricted", "label: public")
    said = desk(*RUN, "--dry-run")
    assert "internal > public" in said.out
    assert "the inputs are internal, but small is only cleared for public: refused (F202)" in said.out
    asked = desk("plan", WHEN, "--no-rules", "-d", "docs")
    assert (asked.code, "cleared for public: refused (F202)" in asked.out) == (1, True), (
        "without a fleet, the clearance is still enforced"
    )
    assert nodes(desk(*RUN, "--dry-run", "--json").json)["whole/readings"]["allowed"] is False


def test_a_model_that_the_fleet_has_not_is_told(desk: Shell) -> None:
    fleet("{base: small,", "{other: small,")
    out = desk(*RUN, "--dry-run").out
    assert "whole/readings: the fleet has no model for generative_reader: refused (F201)" in out
    assert "readings: the fleet has no model for reader: refused (F201)" in out
    assert "solved: the fleet has no model for router: refused (F201)" in out


def test_where_data_leaves_the_machines_is_told(desk: Shell) -> None:
    found = nodes(desk(*RUN, "--dry-run", "--json").json)["readings"]
    assert [(one["name"], one["external"], one["escalated"]) for one in found["servers"]] == [
        ("here", False, False),
        ("small", False, False),
        ("provider", True, True),
    ]
    out = desk(*RUN, "--dry-run").out
    assert "here, small, then provider (external)" in out
    assert "data may leave your machines: provider" in out
    fleet("label: internal", "label: public")
    out = " ".join(desk(*RUN, "--dry-run").out.split())
    assert "may leave your machines" not in out
    assert "then provider" not in out
    assert "provider (external) is skipped: the inputs are internal, but it is only cleared for public" in out


def test_a_node_that_may_ask_the_larger_model_at_once_shows_both_servers(desk: Shell) -> None:
    text = SOLVE.replace("otherwise: [retry, escalate, abstain]", "escalate: ${size(document.text) > 500}")
    Path("workflows/solve.yaml").write_text(text)
    found = nodes(desk(*RUN, "--dry-run", "--json").json)["readings"]
    assert (found["escalation_condition"], [one["name"] for one in found["servers"]]) == (
        "${size(document.text) > 500}",
        ["here", "small", "provider"],
    )
    assert found["attempts"] == 4
    assert "here, small, or provider (external)" in desk(*RUN, "--dry-run").out


def carded(label: str) -> None:
    """A reader of the project."""
    Path("agents/reader").mkdir(parents=True)
    Path("agents/reader/agent.yaml").write_text(
        f"name: reader\ndescription: Reads.\ninput: {{question: str, context: str}}\noutput: Reading\nlabel: {label}\n"
        "schema: orchestra/v1\nevidence: context\n"
    )
    Path("agents/reader/prompt.md").write_text("{{ question }} {{ context }}")


def test_an_agent_cleared_for_less_than_its_server_holds_its_data_back(desk: Shell) -> None:
    carded("public")
    found = nodes(desk(*RUN, "--dry-run", "--json").json)["readings"]
    assert {one["cleared_for"] for one in found["servers"]} == {"public"}
    assert found["allowed"] is False


def test_a_plan_node_counts_its_questions_and_leaves_the_rest_open(desk: Shell) -> None:
    found = desk(*RUN, "--dry-run", "--json").json
    solved = nodes(found)["solved"]
    assert (solved["asks"], solved["calls"], solved["tokens"]) == ("router", 2 * 2 * (4 + 1 + 1), None)
    assert found["tokens"] is None
    out = desk(*RUN, "--dry-run", "--budget", "tokens=700").out
    assert "solved: only the calls of the router are counted" in out
    assert "bounded by the budget of 700" in out


def test_votes_and_the_larger_planner_of_a_plan_node_count(desk: Shell) -> None:
    written = nodes(desk(*RUN, "--dry-run", "--json").json)["solved"]["output_tokens"] // 24
    path = Path("workflows/solve.yaml")
    path.write_text(
        path.read_text().replace(
            "limits: {steps: 4}",
            "limits: {steps: 4}, votes: 3, repairs: 2, replans: 0, larger: big".replace(", ", "\n    "),
        )
    )
    Path("agents/big").mkdir(parents=True)
    Path("agents/big/agent.yaml").write_text(
        "schema: orchestra/v1\nname: big\ndescription: Plans.\nmodel: large\nmax_output: 1000\noutput: str\n"
        "input: {request: str, skills: str, values: str, plan: str, grammar: str}\ngrammar: grammar\n"
    )
    Path("agents/big/prompt.md").write_text("{{ request }} {{ skills }} {{ values }} {{ plan }}")
    solved = nodes(desk(*RUN, "--dry-run", "--json").json)["solved"]
    router, larger = 2 + 1, 4 + 1 + 2
    assert written < 1000
    assert (solved["calls"], solved["output_tokens"]) == (
        2 * 3 * (router + larger),
        2 * 3 * (router * written + larger * 1000),
    )
    assert [(one["name"], one["escalated"]) for one in solved["servers"]] == [("small", False), ("provider", True)]


def test_ask_explain_shows_actual_beside_maximum_cost(desk: Shell) -> None:
    said = desk("ask", WHEN, "-d", "docs", "--explain")
    assert said.code == 0, said.err
    row = next(line.split() for line in said.out.splitlines() if " reader " in line)
    assert row[:9] == ["*", "s2", "reader", "simulated", "internal", "≤", "restricted", "none", "done"]
    assert " ".join(row[11:14]) == "1 of 300"
    assert "in all 7 calls, " in said.out, "four of them the router's"
    assert "at most 328 calls, " in said.out


def test_as_json_the_actuals_stand_beside_the_estimates(desk: Shell) -> None:
    found = desk("ask", WHEN, "-d", "docs", "--explain", "--json").json
    reading = nodes(found["explain"])["s2"]
    assert reading["calls"] == 300
    actual = reading["actual"]
    assert (actual["outcome"], actual["calls"], actual["servers"]) == ("done", 1, ["simulated"])
    assert 0 < actual["prompt_tokens"] < found["usage"]["prompt_tokens"]  # the run includes its planning
    assert actual["seconds"] >= 0
    assert "explain" not in desk("ask", WHEN, "-d", "docs", "--json").json


def test_any_run_is_explained_by_the_workflow_that_it_began_with(desk: Shell) -> None:
    assert desk(*RUN).code == 0
    Path("workflows/solve.yaml").unlink()
    found = nodes(desk("runs", "show", "--explain", "--json").json["explain"])
    assert found["solved/line"]["calls"] == 24
    assert found["solved/line"]["actual"]["calls"] == 4
    assert (found["solved/s1"]["asks"], found["solved/s1"]["calls"], found["solved/s1"]["actual"]["calls"]) == (
        "search",
        None,
        1,
    )
    assert found["readings"]["actual"]["outcome"] == "done"
    out = desk("runs", "show", "--explain").out
    assert "* whole " in out
    assert "data left" not in out


def test_what_failed_is_told_with_what_it_took(desk: Shell) -> None:
    assert isinstance(desk.opener, Simulated)
    script = desk.opener.script
    desk.opener = Simulated(
        lambda call: CallError(code="F210", reason="it is gone") if call.name == "reader" else script(call)
    )
    said = desk("ask", WHEN, "-d", "docs", "--explain", "--json")
    assert said.code == 1
    found = nodes(said.json["explain"])
    assert found["s1"]["actual"]["outcome"] == "done"
    assert (found["s2"]["actual"]["outcome"], found["s2"]["actual"]["calls"]) == ("failed", 1)
    assert (found["s3"]["actual"]["outcome"], found["s3"]["actual"]["calls"]) == ("failed", 0)


def test_explain_is_about_a_whole_run(desk: Shell) -> None:
    desk("ask", WHEN, "-d", "docs")
    said = desk("runs", "show", "last", "s1", "--explain")
    assert (said.code, said.err.partition(":")[0]) == (2, "C019")


@pytest.mark.parametrize("columns", [60, 80, 100, 120, 160])
@pytest.mark.parametrize("ran", [False, True])
def test_explain_table_fits_the_terminal_with_details_below(
    desk: Shell, columns: int, ran: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    explanation = explained(desk, ran=ran)

    def narrow() -> Any:
        screen = make_console()
        screen.width = columns
        return screen

    monkeypatch.setattr(explain_module, "make_console", narrow)
    monkeypatch.setattr(output, "make_console", narrow)
    capsys.readouterr()
    show_explanation(explanation)
    out = capsys.readouterr().out
    table, _, below = out.partition("\n\n")
    assert max(map(len, table.splitlines())) <= columns
    assert ("label ≤ cleared for" in " ".join(table.split())) != (
        "inputs are internal; cleared: here for restricted" in below
    )
    assert ("certificate" in table) != ("certificates: none" in below)


def explained(desk: Shell, *, ran: bool) -> ProgramExplanation:
    """The explained workflow; after a run, with its history."""
    project = Project.load(Settings.load({}))
    given = {"question": WHEN, "documents": [{"source": "a", "text": "b"}]}
    return explain(project, project.program(project.find("solve")), given, history=History.of(()) if ran else None)


def test_limits_that_are_stated_stand_beside_those_of_the_workflow(desk: Shell) -> None:
    project = Project.load(Settings.load({}))
    program = replace(project.program(project.find("solve")), budget=Budget(tokens=100, calls=9))
    given = {"question": WHEN, "documents": [{"source": "a", "text": "b"}]}
    assert explain(project, program, given, budget=Budget(seconds=3, calls=2)).budget == Budget(
        tokens=100, calls=2, seconds=3
    )
