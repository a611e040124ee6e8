"""`orchestra runs fork` with several failed runs."""

from __future__ import annotations

import asyncio
import json
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.runs.fork import ForkManyRequest, fork_all
from orchestra.core.protocols import CallError
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, TEXT, Simulated, furnish


class Servers:
    """Answers, except at night."""

    night = True

    def __call__(self, call: Any) -> Any:
        return (
            CallError(code="F203", reason="no server answers")
            if self.night and call.inputs["question"] != "good"
            else GOOD
        )


@pytest.fixture
def servers() -> Servers:
    return Servers()


@pytest.fixture
def shell(shell: Shell, servers: Servers) -> Shell:
    furnish()
    shell.opener = Simulated({"answerer": servers})
    return shell


def ran(shell: Shell, question: str) -> str:
    shell("run", "ask", "-i", f"question={question}", "-i", f"text={TEXT}")
    run: str = shell("runs", "list", "-n", "1", "--json").json[0]["run"]
    return run


def forked(shell: Shell, *words: str) -> list[tuple[str, str]]:
    """The repeated runs and their status."""
    said = shell("runs", "fork", *words, "--json")
    return [(line["parent"], line["status"]) for line in map(json.loads, said.out.splitlines())]


def test_what_failed_is_made_again_and_what_was_made_again_is_not(shell: Shell, servers: Servers) -> None:
    bad, _, worse = ran(shell, "bad"), ran(shell, "good"), ran(shell, "worse")
    assert shell("runs", "fork", "--failed", "--since", "1h").code == 1
    servers.night = False
    again = [run["run"] for run in shell("runs", "list", "--status", "failed", "-n", "2", "--json").json]
    assert sorted(forked(shell, "--failed", "--since", "yesterday")) == sorted((run, "done") for run in again)
    assert not {bad, worse} & set(again)
    said = shell("runs", "fork", "--failed")
    assert (said.code, said.out) == (0, "no failed run is left to repeat\n")


def test_a_run_whose_fork_was_deleted_is_left_out_and_that_is_said(shell: Shell) -> None:
    bad = ran(shell, "bad")
    shell("runs", "fork", "--failed")
    fork = next(run["run"] for run in shell("runs", "list", "--json").json if run["run"] != bad)
    shell("runs", "delete", fork, "--yes")
    said = shell("runs", "fork", "--failed")
    assert (said.code, said.out) == (0, "")
    assert said.err.startswith(
        f"1 failed run left out: their forks were deleted, and may have made calls with effects: {bad}\n"
    )
    assert forked(shell, bad) == [(bad, "failed")]


def test_several_runs_are_made_again_in_their_order(shell: Shell) -> None:
    bad, good = ran(shell, "bad"), ran(shell, "good")
    assert forked(shell, bad, good, bad) == [(bad, "failed"), (good, "done")]
    said = shell("runs", "fork", good, bad)
    lines = said.out.splitlines()
    assert said.code == 1
    assert [line.split(":")[0].split("  ")[1:] for line in lines] == [
        ["ask", f"done, forked from {good}"],
        ["ask", f"failed, forked from {bad}"],
    ]


def test_of_several_one_that_cannot_be_forked_is_said_and_the_others_are(shell: Shell) -> None:
    good = ran(shell, "good")
    shell("run", "answerer", "-i", "question=good", "-i", f"context={TEXT}")
    other = shell("runs", "list", "-n", "1", "--json").json[0]["run"]
    (shell.project / "workflows/ask.yaml").rename("gone.yaml")
    assert forked(shell, good, other) == [(good, "not forked"), (other, "done")]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no disk that is always full")
def test_fork_many_releases_active_runs_on_a_broken_pipe(shell: Shell, servers: Servers) -> None:
    bad, slow = ran(shell, "bad"), ran(shell, "slow")
    open_ = Simulated({"answerer": servers}, latency=lambda call, _: 60.0 if call.inputs["question"] == "slow" else 0.2)
    with pytest.raises(OSError, match="No space"), Path("/dev/full").open("w") as full, redirect_stdout(full):
        asyncio.run(fork_all(open_, ForkManyRequest([bad, slow], None, None, None, False), as_json=False))
    runs = {run["run"]: run["status"] for run in shell("runs", "list", "--json").json if run["run"] not in (bad, slow)}
    assert sorted(runs.values()) == ["failed", "interrupted"]


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("--since", "1h"),
        ("last", "last", "--workflow", "ask"),
        ("--failed", "--set", "reading=x"),
        ("--failed", "--unset", "reading"),
        ("--failed", "--live"),
    ],
)
def test_what_is_for_one_run_or_for_those_that_failed_is_refused_elsewhere(
    shell: Shell, words: tuple[str, ...]
) -> None:
    ran(shell, "good")
    said = shell("runs", "fork", *words)
    assert (said.code, said.err[:4]) == (2, "C010")
    assert len(shell("runs", "list", "--json").json) == 1
