"""Questions with a deadline on the command line: expiry, resumption and defaults."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestra.core.clock import SystemClock
from tests.cli.shell import Shell
from tests.cli.stage import Simulated, furnish

TRIP = """\
schema: orchestra/v1
name: trip
input: {city: str}
output: ${sure}
nodes:
  sure: {ask: "Is ${input.city} right?", options: ["yes", "no"], timeout: 604800, fallback: "no"}
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    Path("workflows/trip.yaml").write_text(TRIP)
    shell.opener = Simulated({})
    return shell


def test_an_answer_that_nobody_has_taken_is_told_and_found(shell: Shell) -> None:
    run = shell("run", "trip", "-i", "city=Rome", "--json").json["run"]
    assert shell("runs", "answer", run, "yes", "--by", "ada", "--later").code == 0
    assert [one["status"] for one in shell("runs", "list", "--json").json] == ["interrupted"]
    for command in ("show", "tail"):
        found = shell("runs", command, run).out
        assert f"sure is answered by ada, and no process holds it; resume it with: orchestra runs resume {run}" in found
        assert "answer with:" not in found
    assert shell("runs", "show", run, "--json").json["asked"] == []
    again = shell("runs", "answer", run, "no")
    assert (again.code, f"E021: sure of run {run} has been answered by ada already" in again.err) == (2, True)
    assert shell("runs", "resume", "--all").out == f"{run}  trip  done\n"


def test_of_two_questions_the_one_that_is_open_is_still_asked(shell: Shell) -> None:
    two = TRIP.replace("${sure}", "${sure} ${safe}") + '  safe: {ask: "Safe?", options: ["yes", "no"]}\n'
    Path("workflows/trip.yaml").write_text(two)
    run = shell("run", "trip", "-i", "city=Rome", "--json").json["run"]
    assert shell("runs", "answer", run, "yes", "--node", "sure", "--later").code == 0
    shown = shell("runs", "show", run).out
    assert "sure is answered, and no process holds it" in shown
    assert (shown.count("answer with:"), "Safe?" in shown) == (1, True)
    assert shell("runs", "answer", run, "no", "--node", "safe", "--json").json["output"] == "yes no"


def test_a_deadline_that_has_passed_is_found_told_and_kept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("run", "trip", "-i", "city=Rome", "--json")
    assert (said.code, said.json["status"]) == (5, "waiting")
    run, asked = said.json["run"], said.json["asked"][0]
    assert asked["due"] == pytest.approx(time.time() + 604_800, abs=60)
    assert "; a later answer is ignored" in shell("runs", "show", run).out
    assert shell("runs", "resume", "--all").out == "no interrupted runs\n"
    now = time.time

    def later() -> float:
        return now() + 604_800

    monkeypatch.setattr(time, "time", later)
    monkeypatch.setattr(SystemClock, "now", staticmethod(later))
    assert shell("runs", "list", "--json").json[0]["status"] == "interrupted"
    for command in ("show", "tail"):
        found = shell("runs", command, run).out
        assert (
            "the deadline of a question has passed, and no process holds it; resume it with: orchestra runs resume"
            f" {run}" in found
        )
    late = shell("runs", "answer", run, "yes")
    assert (late.code, late.err[:5]) == (2, "E031:")
    assert shell("runs", "resume", "--all").out == f"{run}  trip  done\n"
    for command in ("show", "resume"):
        said = shell("runs", command, run)
        assert (said.code, "\nsure: no answer in time; the default applies\n" in said.out) == (0, True)
    assert shell("runs", "show", run, "sure").out.endswith("no\nno answer in time; the default applies\n")
