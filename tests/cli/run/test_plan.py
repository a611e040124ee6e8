"""`orchestra plan`: the planning is a run, which is listed, shown, limited, forked and replayed as any other."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from orchestra.core.protocols import CallError, CallRequest
from tests.cli.run.test_ask import PLAN, WHEN, desk, planning
from tests.cli.shell import Shell
from tests.cli.stage import Simulated

pytestmark = pytest.mark.slow

__all__ = ["desk"]

ASKED = ("plan", "--no-rules", WHEN, "-d", "docs")


def called(desk: Shell) -> list[str]:
    """The names of the agents and tools that the last command called."""
    assert isinstance(desk.opener, Simulated)
    assert desk.opener.workers is not None
    return [call.name for call in desk.opener.workers.calls]


def test_plan_is_one_run_with_request_and_lines(desk: Shell) -> None:
    found = desk(*ASKED, "--json").json
    assert [run["run"] for run in desk("runs", "list", "--json").json] == [found["run"]]
    assert f"plan: {WHEN}" in desk("runs", "list").out
    shown = desk("runs", "show", "last")
    assert shown.out.startswith("plan: done in ")
    assert f"\n> {WHEN}\n{PLAN[0]}\n" in shown.out
    assert "answer#4/line  router" in shown.out
    told = desk("runs", "resume", "last", "--json").json
    assert (told["output"], told["claims"]) == ("\n".join(PLAN), [])
    assert desk("runs", "replay", "last").code == 0


@pytest.mark.parametrize("votes", ["1", "3"])
def test_plan_calls_router_in_one_run(desk: Shell, votes: str) -> None:
    def answer(call: CallRequest) -> str:
        return PLAN[len(call.inputs["plan"].splitlines())]

    desk.opener = Simulated({"router": answer})
    found = desk(*ASKED, "--votes", votes, "--json").json
    assert (found["plan"], found["router"]["calls"]) == (PLAN, int(votes) * len(PLAN))
    assert called(desk) == ["router"] * int(votes) * len(PLAN)
    assert len(desk("runs", "list", "--json").json) == 1


def test_plan_fork_ends_at_plan_and_reuses_lines(desk: Shell) -> None:
    desk(*ASKED)
    again = desk("runs", "fork", "last", "--json").json
    assert (again["status"], again["output"], again["anew"]) == ("done", "\n".join(PLAN), 0)
    assert called(desk) == []
    assert [run["workflow"] for run in desk("runs", "list", "--json").json] == ["plan", "plan"]
    refused = desk("runs", "fork", "last", "--workflow", "answer_from_documents", "-i", f"question={WHEN}")
    assert (refused.code, refused.err.partition(":")[0]) == (2, "R030")


@pytest.mark.parametrize(
    ("answer", "code", "error"),
    [
        (lambda _: CallError(code="T009", reason="the pen is dry", permanent=True), 1, "T009"),
        (lambda _: "nonsense", 3, "R007"),
        (lambda _: "return nothing", 3, "R014"),
    ],
)
def test_plan_refusal_has_code_of_its_cause(
    desk: Shell, answer: Callable[[CallRequest], object], code: int, error: str
) -> None:
    desk.opener = Simulated({"router": answer})
    said = desk(*ASKED)
    assert (said.code, said.err.split()[0].rstrip(":")) == (code, error)
    assert said.out == ""


def test_plan_budget_limits_questions(desk: Shell) -> None:
    assert planning(desk, PLAN[0], "return s1")(*ASKED, "--budget", "calls=2").code == 0
    said = planning(desk, *PLAN)(*ASKED, "--budget", "calls=1", "--no-cache")
    assert (said.code, called(desk)) == (4, ["router"])
    assert [run["status"] for run in desk("runs", "list", "--json").json] == ["budget", "done"]


def test_plan_budget_is_that_of_request_that_would_run(desk: Shell) -> None:
    line = "s1 = [reader(question=input.request, context=x.text) for x in input.documents]"
    said = planning(desk, line)(*ASKED, "--budget", "calls=1", "--repairs", "0")
    assert (said.code, "R023" in said.err) == (3, True)
