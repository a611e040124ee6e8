"""Questions with a deadline in the shell: nobody stays for it, it is found once it has passed, and what stands then is told."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestra.clock import SystemClock
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


def test_a_deadline_that_has_passed_is_found_told_and_kept(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    said = shell("run", "trip", "-i", "city=Rome", "--json")
    assert (said.code, said.json["status"]) == (5, "waiting")
    run, asked = said.json["run"], said.json["asked"][0]
    assert asked["due"] == pytest.approx(time.time() + 604_800, abs=60)
    assert "; a later answer does not count" in shell("runs", "show", run).out
    assert shell("runs", "resume", "--all").out == "no run was interrupted\n"
    now = time.time

    def later() -> float:
        return now() + 604_800

    monkeypatch.setattr(time, "time", later)
    monkeypatch.setattr(SystemClock, "now", staticmethod(later))
    assert shell("runs", "list", "--json").json[0]["status"] == "interrupted"
    for command in ("show", "tail"):
        found = shell("runs", command, run).out
        assert f"the time to answer has passed, and nobody has it in hand; go on with: orchestra runs resume {run}" in found
    late = shell("runs", "answer", run, "yes")
    assert (late.code, late.err[:5]) == (2, "E031:")
    assert shell("runs", "resume", "--all").out == f"{run}  trip  done\n"
    for command in ("show", "resume"):
        said = shell("runs", command, run)
        assert (said.code, "\nsure: nobody answered in time; the default stands\n" in said.out) == (0, True)
    assert shell("runs", "show", run, "sure").out.endswith("no\nnobody answered in time; the default stands\n")
