"""The plan cache: no router calls, printed savings, and tampered rows."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallRequest
from tests.cli.run.test_ask import FLEET, PLAN, WHEN, asked, used
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

pytestmark = pytest.mark.slow

QUOTED = ['s1 = search(query="%s", documents=input.documents, top=%d)', "return s1"]


@pytest.fixture
def desk(shell: Shell) -> Shell:
    """A project with two documents, and a router that writes a plan with a reader for each passage."""
    Path("docs").mkdir()
    Path("docs/tower.txt").write_text("The tower was opened in 1889. It is made of iron.")
    Path("docs/bridge.txt").write_text("The bridge was opened in 1894. It is made of steel.")
    Path("configs").mkdir()
    Path("configs/nowhere.yaml").write_text(FLEET)
    Path("orchestra.toml").write_text('fleet = "nowhere"\n')
    return writing(shell, *PLAN)


def writing(shell: Shell, *lines: str) -> Shell:
    """The router writes these lines from now on, in every opening."""

    def answer(call: CallRequest) -> Any:
        if call.kind == "tool":
            return used(call)
        stand = [line for line in call.inputs["plan"].splitlines() if line] if call.name == "router" else []
        return lines[len(stand)] if call.name == "router" else {"answer": "1889"}

    shell.opener = Simulated(answer)
    return shell


def test_repeated_request_uses_the_plan_cache_and_prints_the_savings(desk: Shell) -> None:
    first = desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json
    assert (first["status"], first["cached"], first["router"]["calls"]) == ("done", None, 4)
    again = desk("ask", "--no-rules", "when was THE tower opened", "-d", "docs", "--json").json
    assert (again["status"], again["plan"], again["router"]["calls"]) == ("done", PLAN, 0)
    assert asked(desk) == []
    saved = again["cached"]["saved"]
    assert (again["cached"]["run"], again["cached"]["request"], saved["calls"]) == (first["run"], WHEN, 4)
    assert saved["prompt_tokens"] > 0
    said = desk("ask", "--no-rules", WHEN, "-d", "docs")
    tokens = saved["prompt_tokens"] + saved["output_tokens"]
    assert (
        f"from the cache: 4 calls of the router and {tokens} tokens saved; planned for run {first['run']}" in said.err
    )
    assert said.err.startswith("\n".join(PLAN))


def test_runs_show_prints_the_savings_of_a_cached_plan(desk: Shell) -> None:
    first = desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json["run"]
    again = desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json["run"]
    assert "saved" not in desk("runs", "show", first).out
    shown = desk("runs", "show", again)
    assert f"answer: the plan was written for run {first}: 4 calls of the router and" in shown.out
    turn = desk("runs", "show", again, "--json").json["events"][1]
    assert (turn["draft"]["reused_from"], turn["draft"]["saved_usage"]["calls"]) == (first, 4)


def test_cached_plan_gets_the_literals_of_the_new_request(desk: Shell) -> None:
    writing(desk, *[QUOTED[0] % ("made of iron", 2), QUOTED[1]])
    desk("ask", 'Find 2 passages on "made of iron"', "-d", "docs")
    found = desk("ask", 'find 1 passages on "made of steel"', "-d", "docs", "--json").json
    assert found["plan"] == [QUOTED[0] % ("made of steel", 1), QUOTED[1]]
    assert [one["source"] for one in found["output"]] == ["bridge.txt"]
    assert asked(desk) == []


def test_plan_prints_its_cache_source_and_a_saved_plan_is_reused(desk: Shell) -> None:
    assert "from the cache" not in desk("plan", "--no-rules", WHEN, "-d", "docs").err
    assert (
        "from the cache" not in desk("plan", "--no-rules", WHEN, "-d", "docs", "--save", "one.yaml").err
    )  # only shown, so not stored before
    said = desk("plan", "--no-rules", WHEN, "-d", "docs")
    assert "from the cache: 4 calls of the router" in said.err
    assert said.out.startswith("\n".join(PLAN))


def test_no_cache_calls_the_router(desk: Shell) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs")
    assert desk("ask", "--no-rules", WHEN, "-d", "docs", "--no-cache", "--json").json["router"]["calls"] == 4
    assert len(asked(desk)) == 4


def test_no_cache_stores_no_plan(desk: Shell) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs", "--no-cache")
    assert desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json["cached"] is None


@pytest.mark.parametrize(
    "change",
    [
        ("-d", "docs", "--only", "search", "--only", "reader", "--only", "cite"),
        ("-d", "docs", "-i", "more=a"),
        ("-d", "docs", "--steps", "7"),
    ],
)
def test_request_of_another_shape_is_planned_again(desk: Shell, change: tuple[str, ...]) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs")
    assert desk("ask", "--no-rules", WHEN, *change, "--json").json["cached"] is None


def test_changed_capability_is_planned_again(desk: Shell) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs")
    Path("agents/reader").mkdir(parents=True)
    Path("agents/reader/agent.yaml").write_text(
        "schema: orchestra/v1\nname: reader\ninput: {question: str, context: str}\noutput: Reading\nevidence: context\n"
    )
    Path("agents/reader/prompt.md").write_text("{{ context }} {{ question }} Be brief.")
    assert desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json["cached"] is None


def test_plan_of_a_run_without_a_result_is_not_cached(desk: Shell) -> None:
    writing(desk, "s1 = calculator(question=input.request)", "return s1")  # the reader's answer is not a calculator's
    assert desk("ask", "--no-rules", WHEN, "--json").json["status"] != "done"
    assert desk("ask", "--no-rules", WHEN, "--json").json["cached"] is None


def test_deleting_a_run_deletes_its_cached_plan(desk: Shell) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs")
    assert desk("runs", "gc", "--keep", "0", "--older", "0h", "--yes").code == 0
    assert desk("ask", "--no-rules", WHEN, "-d", "docs", "--json").json["cached"] is None


def test_tampered_cache_row_is_ignored_with_a_warning(desk: Shell) -> None:
    desk("ask", "--no-rules", WHEN, "-d", "docs")
    with sqlite3.connect(".orchestra/journal.db") as journal:
        journal.execute("UPDATE memo SET value = ?", (b'{"format":"orchestra/plan/v3","lines":["import os"]}',))
    journal.close()
    said = desk("ask", "--no-rules", WHEN, "-d", "docs")
    assert said.code == 0
    assert "R011: a stored plan is ignored: J0" in said.err
    assert len(asked(desk)) == 4
