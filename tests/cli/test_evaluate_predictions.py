"""`orchestra learn evaluate --predictions` leads to the same certificate as the served agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallRequest, CallResult
from tests.cli.shell import Shell
from tests.cli.stage import Simulated
from tests.cli.test_certify import AGENT, CHECKS, label, lines, rows, shell, sure

__all__ = ["shell"]

EVALUATE = ("learn", "evaluate", "sorter", "--data", "rows.jsonl", "--predictions", "said.jsonl")


def certified(shell: Shell, *more: str) -> Any:
    """The certificate of the sorter: its score and its maximum share of wrong answers."""
    said = shell("certify", "sorter", "--data", "rows.jsonl", *CHECKS, "--json", "--out", "here.json", *more)
    assert said.code in (0, 3), said.err
    return said.json["outcome"], said.json["bound"]


@pytest.mark.parametrize("checks", ["checks: [schema]\n", "checks: [confidence]\naccept: 0.8\n"])
def test_of_an_agent_with_checks_they_are_what_it_answers_without_them(shell: Shell, checks: str) -> None:
    rows(1000)
    Path("agents/sorter/agent.yaml").write_text(AGENT + checks)
    said = shell(*EVALUATE)
    assert (said.code, said.err[:5], "--no-checks" in said.err) == (2, "C010:", True)
    assert shell(*EVALUATE, "--no-checks").code == 0
    assert certified(shell, "--predictions", "said.jsonl") == certified(shell)


def answer(call: CallRequest) -> CallResult:
    number = int(call.inputs["text"])
    return CallResult(value=label(number), confidence=sure(number))


def test_an_answer_that_is_no_record_is_written_as_it_is(shell: Shell) -> None:
    lines("rows.jsonl", [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"output": "yes"}} for n in range(1000)])
    Path("agents/sorter/agent.yaml").write_text(AGENT.replace("{label: str}", "str"))
    shell.opener = Simulated(answer)
    assert shell(*EVALUATE).code == 0
    assert json.loads(Path("said.jsonl").read_text().splitlines()[-1])["output"] == "yes"
    assert certified(shell, "--predictions", "said.jsonl") == certified(shell)
