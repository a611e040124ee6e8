"""`orchestra certify --claims` and nodes that use its certificate: judged rows, a simulated judge, and voided
certificates.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.protocols import CallRequest
from orchestra.verification.certificates.claims_file import ClaimsCertificate
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated, furnish
from tests.unreachable import FLEET

AGENT = """\
schema: orchestra/v1
name: teller
description: Tells what a text says.
input: {text: str}
output: {facts: "list[str]"}
evidence: text
"""
JUDGE = """\
schema: orchestra/v1
name: checker
description: Judges a claim.
input: {claim: str, evidence: str}
output: {p_supported: float | null, p_refute: float | null}
"""
TELL = """\
schema: orchestra/v1
name: tell
input: {text: str}
output: ${told}
nodes:
  told:
    agent: teller
    with: {text: "${input.text}"}
    checks: ["entailment(checker)"]
    accept: certified
    otherwise: [back_off, abstain]
"""
CHECKS = ("--checks", "entailment(checker)")
FILE = Path("agents/teller/claims.json")


def score(claim: str) -> float:
    """`fact 870 of 3` is supported with 0.87."""
    return int(claim.split()[1]) / 1000


def answer(call: CallRequest) -> Any:
    if call.name == "checker":
        return {"p_supported": score(call.inputs["claim"]), "p_refute": 0.0}
    return {"facts": ["fact 990 of 0", "fact 400 of 0", "fact 700 of 0"]}


def facts(number: int) -> list[tuple[str, bool]]:
    """The parts of an answer, and whether each is right: confident ones are, except in one of eight answers."""
    low = 500 + 10 * (number % 20)
    return [(f"fact {950 + number % 40} of {number}", number % 8 > 0), (f"fact {low} of {number}", False)]


def rows(count: int, *, judged: bool = True, scored: bool = False) -> None:
    lines = []
    for number in range(count):
        parts = facts(number)
        row: dict[str, Any] = {
            "id": f"{number}",
            "input": {"text": f"Text {number}."},
            "output": {"facts": [text for text, _ in parts]},
        }
        if judged:
            row["claims"] = [
                {"claim": text, "right": right} | ({"score": score(text)} if scored else {}) for text, right in parts
            ]
        lines.append(json.dumps(row) + "\n")
    Path("rows.jsonl").write_text("".join(lines))


@pytest.fixture
def shell(shell: Shell) -> Shell:
    files = {
        "agents/teller/agent.yaml": AGENT,
        "agents/teller/prompt.md": "{{ text }}\n",
        "agents/checker/agent.yaml": JUDGE,
        "agents/checker/prompt.md": "{{ claim }} {{ evidence }}\n",
        "workflows/tell.yaml": TELL,
        "configs/nowhere.yaml": FLEET,
        "orchestra.toml": 'fleet = "nowhere"\n',
    }
    furnish(files=files)
    shell.opener = Simulated(answer)
    return shell


def certify(shell: Shell, *more: str) -> Said:
    return shell("certify", "teller", "--claims", "--data", "rows.jsonl", "--alpha", "0.2", *CHECKS, *more)


def run(shell: Shell, *more: str) -> Said:
    return shell("run", "tell", "-i", "text=A text.", *more)


def test_judged_answers_come_to_a_certificate_and_a_node_keeps_parts_by_it(shell: Shell) -> None:
    rows(200)
    said = certify(shell)
    assert said.code == 0, said.out + said.err
    for text in (
        "requires at least 4 answers; 140 calibrate",
        "Certified: parts with a score of at least",
        "200 resplits",
        "claims.json: written",
    ):
        assert text in said.out
    made = ClaimsCertificate.from_bytes(FILE.read_bytes())
    assert (made.agent, made.judge, made.check, made.alpha) == ("teller", "checker", "entailment(checker)", 0.2)
    assert made.calibrated.violations <= 0.2 * made.calibrated.answers
    assert 0.7 > made.threshold > 0.5
    told = run(shell, "--json").json
    assert told["output"] == {"facts": ["fact 990 of 0", "fact 700 of 0"]}
    assert told["guarantees"] == {"told": made.guarantee}
    assert [(one["path"], one["value"], one["score"]) for one in told["dropped"]] == [
        ("facts[1]", "fact 400 of 0", 0.4)
    ]
    shown = run(shell)
    assert "dropped from told: fact 400 of 0: the evidence does not state 'fact 400 of 0'" in shown.out
    assert "all that is kept is right in at least 80 % of answers; keeps" in shown.out
    assert "dropped from told" in shell("runs", "show", told["run"]).out
    assert shell("runs", "show", told["run"], "--html", "run.html").code == 0
    assert "dropped: the evidence does not state" in Path("run.html").read_text("utf-8")


@pytest.mark.parametrize(
    "more", [("--delta", "0.001"), ("--rows", "10"), ("--predictions", "p.jsonl"), ("--combined",), ("--metric", "EM")]
)
def test_options_that_claims_do_not_take_are_refused(shell: Shell, more: tuple[str, ...]) -> None:
    rows(200)
    said = certify(shell, *more)
    assert (said.code, FILE.exists()) == (2, False)
    assert f"C010: {more[0]} has no effect when certifying parts of answers" in said.err


def test_it_is_shown_where_no_answers_are_named(shell: Shell) -> None:
    assert "L119: there is no certificate of 'teller' about claims" in shell("certify", "teller", "--claims").err
    rows(200)
    assert certify(shell).code == 0
    made = ClaimsCertificate.from_bytes(FILE.read_bytes())
    said = shell("certify", "teller", "--claims")
    assert said.code == 0
    assert f"teller: {made.guarantee}" in said.out
    assert "entailment(checker)" in said.out
    assert shell("certify", "teller", "--claims", "--json").json["certificate"]["digest"] == made.digest


def test_recorded_scores_give_the_same_certificate_without_calls(shell: Shell) -> None:
    rows(200)
    assert certify(shell).code == 0
    asked = ClaimsCertificate.from_bytes(FILE.read_bytes())
    rows(200, scored=True)
    shell.opener = Simulated({})
    assert certify(shell, "--json").json["threshold"] == asked.threshold
    assert ClaimsCertificate.from_bytes(FILE.read_bytes()).data.recorded_scores


def test_one_answer_of_each_text_is_sampled(shell: Shell) -> None:
    rows(200)
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["input"] = {"text": f"Text {number // 4}."}
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    said = certify(shell)
    assert "50 answers of 100 parts" in said.out
    assert "150 rows left out: equal inputs count once" in said.out
    for number, line in enumerate(lines):
        line |= {"input": {"text": f"Text {number}."}, "group": f"book {number // 4}"}
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert certify(shell).code == 0
    made = ClaimsCertificate.from_bytes(FILE.read_bytes())
    assert (made.data.grouped, made.data.calibration + made.data.held_out) == (150, 50)
    assert certify(shell, "--json").json["left_out"] == {"duplicates": 0, "grouped": 150}
    assert "V026: teller has no input 'page' to group by" in certify(shell, "--group", "page").err


def test_duplicate_id_is_refused_before_any_call(shell: Shell) -> None:
    rows(200)
    lines = [json.loads(line) for line in Path("rows.jsonl").read_text().splitlines()]
    Path("rows.jsonl").write_text(
        "".join(json.dumps(line | {"id": "a book", "group": "a book"}) + "\n" for line in lines)
    )
    said = certify(shell)
    assert (said.code, said.out) == (2, "")
    assert "V006: two rows have the id 'a book'" in said.err
    assert "rows.jsonl:2" in said.err


def test_claims_certificate_always_states_its_attempt(shell: Shell) -> None:
    rows(200, scored=True)
    assert certify(shell).code == 0
    first = ClaimsCertificate.from_bytes(FILE.read_bytes())
    assert ("attempt" in first.guarantee, "attempt" in FILE.read_text()) == (False, False)
    assert "CAREFUL" not in certify(shell).out, "the same answers under the same terms are the attempt that they were"
    said = certify(shell, "--seed", "1")
    assert "WARNING: attempt 2 on these answers" in " ".join(said.out.split())
    again = ClaimsCertificate.from_bytes(FILE.read_bytes())
    assert (again.attempt, again.summary["attempt"]) == (2, 2)
    assert again.guarantee.endswith("; attempt 2 on its answers")
    rows(230, scored=True)
    assert certify(shell, "--json").json["attempt"] == 3, "more answers beside these are another attempt"
    assert len(FILE.with_name("claims_attempts.jsonl").read_text().splitlines()) == 3


def test_unjudged_answers_are_printed_for_labelling(shell: Shell) -> None:
    rows(2, judged=False)
    said = certify(shell)
    assert said.code == 0
    first = json.loads(said.out.splitlines()[0])
    assert first["claims"] == [{"claim": "fact 950 of 0", "right": None}, {"claim": "fact 500 of 0", "right": None}]
    assert 'write true or false for each "right": null' in said.err
    Path("rows.jsonl").write_text(said.out)
    again = certify(shell)
    assert (again.code, "the claim 'fact 950 of 0' of row '0' has no label" in again.err) == (2, True)


def test_too_few_answers_stop_before_any_call(shell: Shell) -> None:
    rows(5)
    shell.opener = Simulated({})
    said = certify(shell, "--alpha", "0.1")
    assert said.code == 3
    assert "4 answers are for calibration, and at least 9 are needed" in said.out.replace("\n", " ")
    assert not FILE.exists()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"claims": [{"claim": "fact 950 of 0", "right": True}]}, "has 2 parts, and 1 are labelled"),
        (
            {"claims": [{"claim": "another", "right": True}, {"claim": "b", "right": True}]},
            "labels 'another', and its output has",
        ),
        ({"claims": "none"}, "not a judged answer"),
    ],
)
def test_labels_that_do_not_fit_the_answer_are_refused_at_their_line(
    shell: Shell, change: dict[str, Any], says: str
) -> None:
    rows(1)
    Path("rows.jsonl").write_text(json.dumps(json.loads(Path("rows.jsonl").read_text()) | change) + "\n")
    said = certify(shell)
    assert (said.code, "rows.jsonl:1" in said.err) == (2, True)
    assert says in " ".join(said.err.split())


@pytest.mark.parametrize(
    ("file", "old", "new", "says"),
    [
        ("agents/teller/prompt.md", "text", "text | upper", "its card or prompt changed"),
        ("agents/checker/prompt.md", "claim", "claim | upper", "card or prompt of checker changed"),
        ("configs/nowhere.yaml", '"1"', '"2"', "the model and model of checker changed"),
    ],
)
def test_what_it_is_bound_to_voids_it(shell: Shell, file: str, old: str, new: str, says: str) -> None:
    rows(200)
    assert certify(shell).code == 0
    assert run(shell).code == 0
    Path(file).write_text(Path(file).read_text().replace(old, new))
    said = run(shell)
    assert said.code == 2
    assert "V002" in said.err
    assert says in " ".join(said.err.split())


def test_modified_claims_certificate_is_refused(shell: Shell) -> None:
    rows(200)
    assert certify(shell).code == 0
    good = json.loads(FILE.read_text())
    FILE.write_text(json.dumps(good | {"threshold": 0.1}))
    assert "V004" in run(shell).err
    forged = ClaimsCertificate.from_bytes(json.dumps(good).encode())
    import msgspec

    FILE.write_bytes(
        msgspec.structs.replace(forged, calibrated=msgspec.structs.replace(forged.calibrated, violations=60))
        .with_digest()
        .to_bytes()
    )
    assert "V003" in run(shell).err
    FILE.write_bytes(forged.mark_void("an audit").to_bytes())
    assert "is void: an audit" in " ".join(run(shell).err.split())


def test_node_without_a_claims_certificate_names_the_command(shell: Shell) -> None:
    said = run(shell)
    assert said.code == 2
    assert "L119: there is no certificate of 'teller' about claims" in said.err
    assert "orchestra certify teller --claims --data FILE" in said.err


@pytest.mark.parametrize(
    ("given", "hint"),
    [
        (("--since", "1d"), "--watch"),
        (("--claims", "--since", "1d"), "--watch --claims"),
        (("--claims", "--alpha", "0.1"), "--claims --data FILE"),
        (("--seed", "3"), "--data FILE"),
        (("--data", "rows.jsonl", "--by", "me"), "--watch"),
    ],
)
def test_option_of_another_mode_is_refused_with_the_right_command(
    shell: Shell, given: tuple[str, ...], hint: str
) -> None:
    said = shell("certify", "AGENT", *given)
    assert (said.code, f"= help: orchestra certify AGENT {hint}" in map(str.strip, said.err.splitlines())) == (2, True)
