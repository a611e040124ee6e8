"""`orchestra learn data --runs --escalated AGENT`: the calls that needed the larger model, from runs on simulated
workers.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallRequest
from orchestra.learn.data.dataset import Dataset
from tests.cli.shell import Said, Shell
from tests.cli.stage import BAD, FLEET, GOOD, TEXT, Simulated, furnish
from tests.learn.test_runs import ESCALATED

ROUTED = ESCALATED.replace("name: larger", "name: routed").replace(
    "agent: answerer", 'agent: answerer\n    escalate: "${size(input.question) > 9}"'
)
CARD = "name: difficulty\nkind: sklearn\ninput: {question: str}\noutput: {need: float}\n"


def answer(call: CallRequest) -> Any:
    """The agent is wrong about questions that begin with `hard`; its larger model is not."""
    question = call.inputs["question"]
    return BAD if question == "impossible" or (question.startswith("hard") and not call.is_escalated) else GOOD


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish()
    Path("agents/difficulty").mkdir(exist_ok=True)
    Path("agents/difficulty/agent.yaml").write_text(CARD)
    for name, text in (("larger", ESCALATED), ("routed", ROUTED)):
        Path(f"workflows/{name}.yaml").write_text(text)
    Path("configs/nowhere.yaml").write_text(FLEET.replace("{base: it}", "{base: it, big: it}"))
    shell.opener = Simulated(answer)
    return shell


def ran(shell: Shell, workflow: str, *questions: str) -> list[str]:
    return [
        str(shell("run", workflow, "-i", f"question={question}", "-i", f"text={TEXT}", "--json").json["run"])
        for question in questions
    ]


def collected(shell: Shell, *more: str) -> Said:
    return shell("learn", "data", "difficulty", "--out", "set", "--licence", "own", "--tune", "0", "--test", "0", *more)


def test_escalations_corrected_calls_have_target_one(shell: Shell) -> None:
    ran(shell, "larger", "easy 1", "hard 1", "impossible")
    said = collected(shell, "--runs", "--escalated", "answerer")
    assert said.code == 0, said.err
    data = Dataset.load(Path("set"))
    assert {row.input["question"]: row.output for row in data.rows["train"]} == {
        "easy 1": {"need": 0.0},
        "hard 1": {"need": 1.0},
        "impossible": {"need": 0.0},
    }
    assert data.manifest.sources[0].description == "calls of answerer, 1 that needed the larger model; in 3 runs"


def test_escalations_direct_calls_left_out(shell: Shell) -> None:
    ran(shell, "routed", "easy 1", "hard and long")
    assert collected(shell, "--runs", "--escalated", "answerer").code == 0
    data = Dataset.load(Path("set"))
    assert [row.input["question"] for row in data.rows["train"]] == ["easy 1"]
    assert data.manifest.left_out["sent to the larger model directly, or not judged by a check"] == 1


def test_run_shows_chosen_model_and_reason(shell: Shell) -> None:
    first, second = ran(shell, "routed", "hard and long", "easy 1")
    because = "size(input.question) > 9"
    assert f"reading: the larger model at once, for {because} is true" in " ".join(
        shell("runs", "show", first).out.split()
    )
    assert f"reading: its own model, for {because} is false" in " ".join(shell("runs", "show", second).out.split())
    assert f"of the larger model, for {because}" in " ".join(shell("runs", "tail", first, "--no-follow").out.split())
    tried = shell("runs", "show", first, "reading", "--json").json["attempts"]
    assert [(one["escalated"], one["escalation_reason"].startswith(because)) for one in tried] == [(True, True)]


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--escalated", "answerer"), "N015"),
        (("--runs", "--escalated", "answerer", "--column", "question=prompt"), "N011"),
        (("--runs", "--escalated", "nobody"), "N007"),
    ],
)
def test_escalations_unusable_agent_refused(shell: Shell, more: tuple[str, ...], code: str) -> None:
    ran(shell, "larger", "easy 1")
    said = collected(shell, *more)
    assert (said.code, code in said.err) == (2, True), said.err
    assert not Path("set").exists()


def test_escalations_missing_input_is_null(shell: Shell) -> None:
    """The calling agent may have a default for the input; the trained agent gets null."""
    inputs = "{question: str, context: str, tone: {type: str | null, default: null}}"
    card = Path("agents/answerer/agent.yaml")
    card.write_text(card.read_text().replace("{question: str, context: str}", inputs))
    Path("agents/difficulty/agent.yaml").write_text(
        CARD.replace("{question: str}", '{question: str, tone: "str | null"}')
    )
    toned = ESCALATED.replace("name: larger", "name: toned").replace("with: {", "with: {tone: kind, ")
    Path("workflows/toned.yaml").write_text(toned)
    ran(shell, "larger", "easy 1", "hard 1")
    assert "calls of answerer have no input 'tone'" in collected(shell, "--runs", "--escalated", "answerer").err
    ran(shell, "toned", "easy 2")
    said = collected(shell, "--runs", "--escalated", "answerer")
    assert said.code == 0, said.err
    found = {row.input["question"]: row.input["tone"] for row in Dataset.load(Path("set")).rows["train"]}
    assert found == {"easy 1": None, "hard 1": None, "easy 2": "kind"}
