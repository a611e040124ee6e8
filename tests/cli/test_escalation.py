"""Escalation at the terminal: what persons see and answer, the cost of each tier, and explanations."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallError, CallRequest
from orchestra.learn.data.dataset import Dataset
from tests.cli.shell import Shell
from tests.cli.stage import ASK, BAD, GOOD, TEXT, Simulated, furnish

FLEET = """\
schema: orchestra/fleet/v1
name: nowhere
servers:
  small: {endpoint: "http://127.0.0.1:9/v1", model: m, max_model_len: 1000, external: false, label: restricted}
  big: {endpoint: "http://127.0.0.1:9/v1", model: b, max_model_len: 1000, external: false, label: restricted}
  provider: {endpoint: "https://example.com/v1", model: p, max_model_len: 1000, label: public}
models: {base: small, large: big, outside: provider}
escalate: [large, outside]
"""
PERSON = {"answer": "1889", "quote": "opened in 1889"}


def answer(call: CallRequest) -> Any:
    if call.tier == 2:
        return CallError(code="F202", reason="data labelled 'internal' may go to no server of the model 'outside'")
    return GOOD if call.inputs["question"] == ("hard" if call.tier else "easy") else BAD


@pytest.fixture
def desk(shell: Shell) -> Shell:
    furnish()
    Path("configs/nowhere.yaml").write_text(FLEET)
    Path("workflows/climb.yaml").write_text(
        ASK.replace("name: ask", "name: climb").replace("[retry, abstain]", "[escalate, ask]")
    )
    Path("workflows/withhold.yaml").write_text(
        ASK.replace("name: ask", "name: withhold").replace("[retry, abstain]", "[escalate]")
    )
    shell.opener = Simulated(answer)
    return shell


def run(shell: Shell, question: str, workflow: str = "climb") -> Any:
    return shell("run", workflow, "-i", f"question={question}", "-i", f"text={TEXT}", "--json")


def test_a_person_is_shown_the_value_its_verdicts_and_its_evidence(desk: Shell) -> None:
    said = run(desk, "impossible")
    assert said.code == 5
    (question,) = said.json["asked"]
    assert question["about"] == "acceptance"
    assert question["withheld"]["value"] == BAD
    shown = desk("runs", "show", "last").out
    for part in (
        '"answer": "1890"',
        "quote: fail",
        "large (asked)",
        "outside (passed over: data labelled",
        TEXT,
        "orchestra runs answer",
    ):
        assert part in shown, part


def test_the_command_that_is_shown_answers_with_the_value_to_be_mended(desk: Shell) -> None:
    run(desk, "impossible")
    told = desk("runs", "show", "last", "--json").json["asked"][0]["answer"]
    assert json.loads(told.partition(" '")[2].removesuffix("'")) == BAD


def test_the_answer_is_the_value_and_the_run_says_who_gave_it(desk: Shell) -> None:
    made = run(desk, "impossible").json["run"]
    assert desk("runs", "answer", made, '{"answer": "x"}').err.startswith("E022")
    said = desk("runs", "answer", made, json.dumps(PERSON), "--by", "ada", "--json")
    assert (said.code, said.json["output"], said.json["confidence"]) == (0, PERSON, None)
    assert said.json["claims"]
    assert all(claim["person"].startswith("ada gave it") for claim in said.json["claims"])
    shown = desk("runs", "show", made).out
    assert "its own model: 1 call, 0 accepted" in shown
    assert "large: 1 call, 0 accepted" in shown
    assert "outside: passed over 1 time: data labelled 'internal' may go to no server" in shown
    assert "a person: 1 answer" in shown
    assert "answered by ada" in desk("runs", "show", made, "reading").out
    assert "attempt 2, large" in desk("runs", "show", made, "reading").out
    assert [one["name"] for one in desk("runs", "show", made, "--json").json["tiers"]] == [
        "its own model",
        "large",
        "outside",
        "a person",
    ]
    assert desk("runs", "replay", made).code == 0


def test_claims_of_a_persons_value_rest_on_the_person(desk: Shell) -> None:
    made = run(desk, "impossible").json["run"]
    desk("runs", "answer", made, json.dumps(PERSON))
    claims = desk("runs", "show", made, "--json").json["claims"]
    assert {(claim["unsupported"], claim["person"]) for claim in claims if claim["path"] == "answer"} == {
        ("", "a person gave it instead of a value that its checks rejected (reading)")
    }
    assert all(not claim["verdicts"] for claim in claims)


def test_an_abstention_tells_the_tiers(desk: Shell) -> None:
    said = run(desk, "impossible", "withhold")
    assert said.code == 3
    assert "its own model, then large (asked), outside (passed over: data labelled" in said.json["error"]["message"]


def test_a_fork_and_a_rehearsal_climb_the_same_way(desk: Shell) -> None:
    made = run(desk, "impossible").json["run"]
    desk("runs", "answer", made, json.dumps(PERSON))
    assert desk("whatif", made).out.startswith("the current version of everything: 1 the same")
    forked = desk("runs", "fork", made, "--json")
    assert forked.code == 5
    assert isinstance(desk.opener, Simulated)
    assert desk.opener.workers is not None
    assert [call.tier for call in desk.opener.workers.calls] == [2], (
        "what answered is recalled; what was refused is tried anew"
    )


def test_before_a_run_it_is_said_who_is_asked_and_who_is_passed_over(desk: Shell) -> None:
    said = desk("run", "climb", "-i", "question=q", "-i", f"text={TEXT}", "--dry-run", "--json").json
    (node,) = [one for one in said["nodes"] if one["node"] == "reading"]
    assert [(one["name"], one["tier"]) for one in node["servers"]] == [("small", 0), ("big", 1), ("provider", 2)]
    assert node["calls"] == 4, "two attempts, and one of each larger model"
    shown = desk("run", "climb", "-i", "question=q", "-i", f"text={TEXT}", "--dry-run").out
    assert "small, then big" in shown
    assert "provider (external) is skipped: the inputs are internal, but it is only cleared for public" in " ".join(
        shown.split()
    )


def test_a_persons_correction_is_learnt_before_all_others(desk: Shell) -> None:
    made = run(desk, "impossible").json["run"]
    desk("runs", "answer", made, json.dumps(PERSON))
    run(desk, "hard")
    assert (
        desk(
            "learn", "data", "answerer", "--runs", "--out", "set", "--licence", "own", "--tune", "0", "--test", "0"
        ).code
        == 0
    )
    data = Dataset.load(Path("set"))
    assert {str(row.input["question"]): row.output for row in data.rows["train"]} == {
        "impossible": PERSON,
        "hard": GOOD,
    }
    assert [source.description.partition(";")[0] for source in data.manifest.sources] == [
        "answers of a person in its place",
        "answers of the larger model in its place",
    ]
