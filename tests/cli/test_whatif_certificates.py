"""What-if replays of certified nodes with uncertified agents, and of workflow files outside workflows/."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from orchestra.core.protocols import CallRequest, CallResult
from tests.cli.shell import Shell
from tests.cli.stage import Simulated, furnish
from tests.cli.test_certify import AGENT, CHECKS, PREDICTED, SORT, lines, predictions, rows
from tests.unreachable import FLEET

pytestmark = pytest.mark.slow

TOLD = "no certificate: would be refused: there is no certificate for 'other'; orchestra certify other --data FILE"


def sure(call: CallRequest) -> CallResult:
    return CallResult(
        value={"label": "yes"}, confidence=0.999 if call.name == "other" else int(call.inputs["text"]) / 999
    )


def named(text: str, name: str) -> str:
    return text.replace("name: sorter", f"name: {name}")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A project with a certified agent, an uncertified one, and a workflow outside of workflows/."""
    files = {
        "agents/sorter/agent.yaml": AGENT,
        "agents/sorter/prompt.md": "{{ text }}\n",
        "agents/other/agent.yaml": named(AGENT, "other"),
        "agents/other/prompt.md": "{{ text }}\n",
        "workflows/sort.yaml": SORT,
        "mine.yaml": SORT.replace("name: sort\n", "name: elsewhere\n").replace("accept: certified\n", "accept: 0.5\n"),
        "configs/nowhere.yaml": FLEET,
        "orchestra.toml": 'fleet = "nowhere"\n',
    }
    furnish(files=files)
    shell.opener = Simulated(sure)
    rows(1000)
    predictions(1000)
    assert shell("certify", "sorter", "--data", "rows.jsonl", *CHECKS, *PREDICTED).code == 0
    return shell


def ran(shell: Shell, number: int, workflow: str = "sort") -> str:
    run: str = shell("run", workflow, "-i", f"text={number}", "--json").json["run"]
    return run


def test_an_agent_without_a_certificate_is_not_accepted_by_that_of_another(shell: Shell) -> None:
    run = ran(shell, 0)  # withheld
    said = shell("whatif", run, "--agent", "sorter@other", "--json")
    assert said.code == 1
    (one,) = said.json["runs"]
    assert one["verdict"] == "refused"
    assert (one["after"]["judged"], one["after"]["accepted"]) == (1, 0)
    why = "there is no certificate for 'other'"
    assert one["uncovered"] == [{"node": "sorted", "agent": "other", "code": "L119", "why": why}]
    text = " ".join(shell("whatif", run, "--agent", "sorter@other").out.split())
    for line in ("1 would be refused", f"{run}, sorted: {TOLD}", "accepted 0 of 1 0 of 1", "answers 0 0"):
        assert line in text
    comment = shell("whatif", run, "--agent", "sorter@other", "--markdown").out
    assert f"- `{run}`, `sorted`: `{TOLD}`" in comment
    assert "| accepted | 0 of 1 | 0 of 1 |" in comment


def test_what_the_other_agent_is_certified_for_is_what_it_is_accepted_by(shell: Shell) -> None:
    lines("rows.jsonl", [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"label": "yes"}} for n in range(500)])
    lines("answers.jsonl", [{"id": f"{n}", "output": {"label": "yes"}, "score": 0.9 + n / 5010} for n in range(500)])
    assert shell("certify", "other", "--data", "rows.jsonl", *CHECKS, *PREDICTED).code == 0
    said = shell("whatif", ran(shell, 0), "--agent", "sorter@other", "--json")
    (one,) = said.json["runs"]
    assert (one["verdict"], one["after"]["accepted"], one["uncovered"]) == ("answered", 1, [])


def test_the_agent_as_it_is_today_is_covered_until_its_prompt_changes(shell: Shell) -> None:
    run = ran(shell, 999)
    assert shell("whatif", run, "--agent", "sorter").code == 0
    Path("other.md").write_text("Sort: {{ text }}\n")
    (one,) = shell("whatif", run, "--agent", "sorter@other.md", "--json").json["runs"]
    assert one["verdict"] == "refused"
    assert one["uncovered"][0]["code"] == "V002"
    assert "its card or prompt changed" in one["uncovered"][0]["why"]
    shutil.copy("other.md", "agents/sorter/prompt.md")
    assert shell("whatif", run, "--agent", "sorter", "--json").json["verdicts"] == {"refused": 1}


def test_a_certificate_of_other_checks_covers_nothing(shell: Shell) -> None:
    lines("rows.jsonl", [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"label": "yes"}} for n in range(500)])
    lines("answers.jsonl", [{"id": f"{n}", "output": {"label": "yes"}, "score": 0.9 + n / 5010} for n in range(500)])
    assert shell("certify", "other", "--data", "rows.jsonl", "--checks", "confidence", *PREDICTED).code == 0
    (one,) = shell("whatif", ran(shell, 0), "--agent", "sorter@other", "--json").json["runs"]
    assert [node["code"] for node in one["uncovered"]] == ["V005"]


def test_a_run_of_a_file_elsewhere_is_gone_through_with_the_file_of_today(shell: Shell) -> None:
    run = ran(shell, 999, "./mine.yaml")
    said = shell("whatif", run)
    assert said.code == 2
    assert f"C004: run {run} ran 'elsewhere', which is not a workflow of this project" in said.err
    assert f"orchestra whatif {run} --workflow FILE" in said.err
    assert shell("whatif", run, "--workflow", "./mine.yaml").code == 0
    assert [
        one["run"] for one in shell("whatif", "--last", "5", "--workflow", "./mine.yaml", "--json").json["runs"]
    ] == [run]
    text = Path("mine.yaml").read_text()
    Path("mine.yaml").write_text(text.replace("accept: 0.5", "accept: 1"))
    assert shell("whatif", ran(shell, 900, "./mine.yaml"), "--workflow", "./mine.yaml", "--json").json["verdicts"] == {
        "same": 1
    }
    assert shell("whatif", run, "--workflow", "workflows/sort.yaml").code == 2
