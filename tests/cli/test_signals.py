"""Signals of `orchestra run` in real processes: Ctrl-C cancels, a second one exits, SIGTERM releases."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from tests.cli.processes import PATIENCE, started
from tests.cli.shell import Shell
from tests.cli.stage import GOOD, Simulated, furnish

pytestmark = pytest.mark.slow

INPUTS = ("-i", "question=When?", "-i", "text=It was opened in 1889.")
Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    shell.opener = Simulated({"answerer": GOOD})
    return shell


@pytest.fixture
def called(shell: Shell) -> Iterator[Starter]:
    """Starts `orchestra run ask` with a model that is `forever` or `deaf`, and waits until the model is called."""
    processes: list[subprocess.Popen[str]] = []

    def start(script: str = "forever", *arguments: str, router: str = "router") -> subprocess.Popen[str]:
        process = started(*(arguments or ("run", "ask", *INPUTS)), script=script, router=router)
        processes.append(process)
        assert process.stderr is not None
        assert process.stderr.readline() == "called\n"
        end = time.monotonic() + PATIENCE
        while status(shell) != "running":  # its first events are on disk a few milliseconds later
            assert time.monotonic() < end
        return process

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def status(shell: Shell) -> str:
    """The status of the latest run; empty without one."""
    runs = shell("runs", "list", "--json").json
    return runs[0]["status"] if runs else ""


def test_the_first_ctrl_c_cancels_the_run_and_records_it(shell: Shell, called: Starter) -> None:
    process = called()
    process.send_signal(signal.SIGINT)
    assert process.communicate(timeout=PATIENCE)[1] == "interrupted\n"
    assert (process.returncode, status(shell)) == (130, "cancelled")


ASKED = ("ask", "When?", "-i", "text=It was opened in 1889.", "--only", "answerer")
PLAN = ["s1 = answerer(question=input.request, context=input.text)", "return s1"]


def test_a_request_is_cancelled_as_one_run_while_its_plan_runs(shell: Shell, called: Starter) -> None:
    process = called("forever", *ASKED)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert (process.returncode, status(shell)) == (130, "cancelled")
    assert len(shell("runs", "list", "--json").json) == 1


def test_released_request_continues_its_plan(shell: Shell, called: Starter) -> None:
    process = called("forever", *ASKED)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=PATIENCE)
    assert (process.returncode, status(shell)) == (143, "interrupted")
    shell.opener = Simulated({"answerer": GOOD, "router": lambda call: PLAN[bool(call.inputs["plan"])]})
    found = shell("runs", "resume", "last", "--json").json
    assert (found.get("status"), found.get("output")) == ("done", GOOD), found
    assert shell.opener.workers is not None
    assert [call.inputs["plan"] for call in shell.opener.workers.calls if call.name == "router"] in ([], [PLAN[0]])


@pytest.mark.parametrize(("number", "code", "end"), [("INT", 130, "cancelled"), ("TERM", 143, "interrupted")])
def test_stopped_plan_is_recorded_as_one_run(shell: Shell, called: Starter, number: str, code: int, end: str) -> None:
    process = called("GOOD", "plan", *ASKED[1:], router="forever")
    process.send_signal(signal.Signals[f"SIG{number}"])
    process.communicate(timeout=PATIENCE)
    assert (process.returncode, status(shell)) == (code, end)
    assert [run["workflow"] for run in shell("runs", "list", "--json").json] == ["plan"]


def test_released_plan_is_resumed_and_runs_no_step(shell: Shell, called: Starter) -> None:
    process = called("GOOD", "plan", *ASKED[1:], router="forever")
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    command = err.partition("stopped; resume with: orchestra ")[2].split()
    shell.opener = Simulated({"answerer": GOOD, "router": lambda call: PLAN[bool(call.inputs["plan"])]})
    said = shell(*command)
    assert (said.code, said.out.startswith("\n".join(PLAN))) == (0, True)
    assert "no check was run" not in said.out, "a plan states nothing that a check could judge"
    assert shell.opener.workers is not None
    assert {call.name for call in shell.opener.workers.calls} == {"router"}


def test_second_ctrl_c_exits_at_once_and_the_run_can_be_resumed(shell: Shell, called: Starter) -> None:
    process = called("deaf")
    process.send_signal(signal.SIGINT)
    assert process.stderr is not None
    assert process.stderr.readline() == "asked to end\n"
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "orchestra runs resume" in err


def test_sigterm_releases_the_run_and_prints_the_resume_command(shell: Shell, called: Starter) -> None:
    process = called()
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=PATIENCE)
    assert (process.returncode, status(shell)) == (143, "interrupted")
    command = err.partition("stopped; resume with: orchestra ")[2].split()
    assert shell(*command, "--json").json["output"] == GOOD


def test_killed_run_is_interrupted_with_a_resume_command(shell: Shell, called: Starter) -> None:
    process = called()
    process.kill()
    process.communicate()
    out = shell("runs", "show").out
    assert out.startswith("ask: interrupted")
    assert "answerer  interrupted" in out
    command = out.partition("resume it with: orchestra ")[2].split("\n")[0].split()
    assert shell(*command).code == 0
    assert "resumed" in shell("runs", "show").out


def test_tail_says_that_a_run_was_interrupted(shell: Shell, called: Starter) -> None:
    process = called()
    process.kill()
    process.communicate()
    said = shell("runs", "tail")
    assert (said.code, "interrupted: its process has ended" in said.out) == (0, True)


def test_all_interrupted_runs_are_resumed_with_a_line_each(shell: Shell, called: Starter) -> None:
    for _ in range(2):
        process = called()
        process.kill()
        process.communicate()
    said = shell("runs", "resume", "--all")
    assert [line.split()[1:] for line in said.out.splitlines()] == [["ask", "done"], ["ask", "done"]]
    assert shell("runs", "resume", "--all").out == "no interrupted runs\n"


def test_run_held_by_another_process_is_neither_resumed_nor_lost(shell: Shell, called: Starter) -> None:
    called()
    said = shell("runs", "resume", "last")
    assert (said.code, said.err[:4]) == (1, "J022")
    assert "orchestra runs tail" in said.err


def test_tail_follows_another_process_until_its_cancellation(shell: Shell, called: Starter) -> None:
    process = called()
    watching = started("runs", "tail", "last")
    assert watching.stdout is not None
    assert "ask started" in watching.stdout.readline()
    said = shell("runs", "cancel", "last", "--by", "ada")
    assert "is cancelled" in said.out
    assert process.wait(PATIENCE) == 130
    out, _ = watching.communicate(timeout=PATIENCE)
    assert "asked to end by ada" in out
    assert out.splitlines()[-1].partition("  ")[2].startswith("the run has ended: cancelled")


def test_ctrl_c_while_a_run_is_resumed_cancels_it(shell: Shell, called: Starter) -> None:
    process = called()
    process.kill()
    process.communicate()
    again = called("forever", "runs", "resume", "last")
    os.kill(again.pid, signal.SIGINT)
    assert again.wait(PATIENCE) == 130
    assert status(shell) == "cancelled"
