"""`orchestra learn combine`, `certify --combined` and `score: combined`: a simulated agent and judge, and voided
combinations.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.core.protocols import CallRequest, CallResult
from orchestra.verification.certificates.combination import Combination
from orchestra.verification.certificates.file import COMBINED_SCORE, Certificate
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated, calls, furnish
from tests.unreachable import FLEET

pytestmark = pytest.mark.slow

AGENT = """\
schema: orchestra/v1
name: teller
description: Tells what a text says.
input: {text: str}
output: {fact: str}
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
    checks: [confidence, "entailment(checker)"]
    score: combined
    accept: 0.8
    otherwise: [abstain]
"""
CHECKS = ("--checks", "confidence,entailment(checker)")
FILE = Path("agents/teller/combination.json")


def sure(number: int) -> float:
    return 0.02 + 0.96 * (number * 37 % 100) / 100


def supported(number: int) -> float:
    return 0.02 + 0.96 * (number * 61 // 7 % 100) / 100


def right(number: int) -> bool:
    """True if both together are likely; neither predicts it alone."""
    return sure(number) + supported(number) > 1 or number % 25 == 0


def answer(call: CallRequest) -> Any:
    if call.name == "checker":
        return {"p_supported": supported(int(call.inputs["claim"].split()[1])), "p_refute": 0.0}
    number = int(call.inputs["text"])
    return CallResult(value={"fact": f"fact {number} {'holds' if right(number) else 'fails'}"}, confidence=sure(number))


def rows(count: int, first: int = 0) -> None:
    made = [
        {"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"fact": f"fact {n} holds"}}
        for n in range(first, first + count)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(one) + "\n" for one in made))


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


def combine(shell: Shell, *more: str) -> Said:
    return shell("learn", "combine", "teller", "--data", "rows.jsonl", *CHECKS, *more)


@pytest.fixture
def combined(shell: Shell, made: list[bytes]) -> Combination:
    """The teller's combination; fitted once, because all projects of these tests are equal."""
    if not made:
        rows(320)
        said = combine(shell)
        assert said.code == 0, said.out + said.err
        made.append(FILE.read_bytes())
    FILE.write_bytes(made[0])
    return Combination.from_bytes(made[0])


@pytest.fixture(scope="module")
def made() -> list[bytes]:
    return []


def run(shell: Shell, number: int) -> Said:
    return shell("run", "tell", "-i", f"text={number}", "--json")


def edited(old: str, new: str, file: str = "workflows/tell.yaml") -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


def test_both_checks_are_asked_of_every_row_and_both_count(shell: Shell) -> None:
    rows(320)
    assert combine(shell).code == 0
    combined = Combination.from_bytes(FILE.read_bytes())
    assert (calls(shell).count("teller"), calls(shell).count("checker")) == (320, 320)
    assert combined.checks == ("confidence", "entailment(checker)")
    assert all(voice.weight > 0.5 for voice in combined.weights)
    assert (combined.data.rows, combined.data.correct) == (320, sum(map(right, range(320))))
    assert set(combined.judge_dependencies) == {"checker"}


def test_what_each_check_brings_is_printed(shell: Shell) -> None:
    rows(320)
    said = combine(shell)
    wanted = (
        "combined on 320 rows",
        "weight",
        "AURC",
        "all checks",
        "the lowest score",
        "without confidence",
        "written",
    )
    places = [said.out.index(text) for text in wanted]
    assert places == sorted(places)


def test_a_node_accepts_by_it_what_one_check_alone_would_refuse(shell: Shell, combined: Combination) -> None:
    doubted = next(n for n in range(400) if 0.35 < supported(n) < 0.5 and sure(n) > 0.9)
    said = run(shell, doubted)
    assert (said.code, said.json["output"]["fact"]) == (0, f"fact {doubted} holds")
    shown = shell("runs", "show", said.json["run"], "told").out
    assert "entailment(checker)" in shown
    edited("    score: combined\n    accept: 0.8\n", "")
    assert run(shell, doubted).code == 3


def test_what_stays_under_the_score_is_withheld_with_what_each_check_says(shell: Shell, combined: Combination) -> None:
    doubtful = next(n for n in range(400) if sure(n) < 0.3 and supported(n) < 0.3)
    said = run(shell, doubtful)
    assert said.code == 3
    reason = shell("runs", "show", said.json["run"], "told").out
    assert f"of confidence {sure(doubtful):.3g}, entailment(checker) {supported(doubtful):.3g} together" in " ".join(
        reason.split()
    )


def test_what_the_judge_cannot_tell_never_passes(shell: Shell, combined: Combination) -> None:
    shell.opener = Simulated(
        lambda call: {"p_supported": None, "p_refute": None} if call.name == "checker" else answer(call)
    )
    assert run(shell, next(n for n in range(400) if sure(n) > 0.95)).code == 3


def test_the_combined_score_is_certified_and_the_node_accepts_by_that(shell: Shell, combined: Combination) -> None:
    rows(800, 320)
    said = shell("certify", "teller", "--combined", "--data", "rows.jsonl", "--alpha", "0.1", "--json")
    assert said.code == 0, said.out + said.err
    found = Certificate.from_bytes(Path("agents/teller/certificate.json").read_bytes())
    assert (found.combination, found.score, found.checks) == (combined.digest, COMBINED_SCORE, combined.checks)
    edited("accept: 0.8", "accept: certified")
    good = next(n for n in range(400) if sure(n) > 0.8 and supported(n) > 0.8)
    told = run(shell, good)
    assert told.json["guarantees"] == {"told": found.guarantee}
    FILE.write_bytes(msgspec.structs.replace(combined, created_at="later").with_digest().to_bytes())
    assert "about a combination of checks that is not the one of today" in run(shell, good).err
    edited("    score: combined\n", "")
    refused = run(shell, good)
    assert (
        "V005: the certificate of 'teller' is about what a combination makes of the scores of the checks" in refused.err
    )


def test_rows_that_fitted_the_combination_give_no_guarantee(shell: Shell, combined: Combination) -> None:
    certify = ("certify", "teller", "--combined", "--data", "rows.jsonl", "--alpha", "0.1")
    for count, first in ((320, 0), (800, 0), (319, 1)):
        rows(count, first)
        said = shell(*certify)
        assert (said.code, said.err[:4]) == (2, "V028")
    older = msgspec.structs.replace(
        combined, data=msgspec.structs.replace(combined.data, fingerprints=msgspec.UNSET)
    ).with_digest()
    FILE.write_bytes(older.to_bytes())
    rows(320)
    assert shell(*certify).err[:4] == "V028", "by the digest of its file, as in a combination of before"


def check(shell: Shell, number: int, *more: str) -> Said:
    """Checks the answer to a row against its text, as the teller's."""
    Path("text.txt").write_text(f"{number}")
    given = json.dumps({"fact": f"fact {number} holds"})
    return shell(
        "check", given, "--against", "text.txt", "--combined", "teller", "--confidence", f"{sure(number)}", *more
    )


def test_an_answer_alone_has_the_combined_score_that_a_node_gives_it(shell: Shell, combined: Combination) -> None:
    for number in (*range(3), next(n for n in range(400) if 0.35 < supported(n) < 0.5 and sure(n) > 0.9)):
        node, said = run(shell, number), check(shell, number, "--accept", "0.8", "--json")
        assert (said.code, said.json["accepted"]) == (node.code, node.code == 0), number
        assert [one["check"] for one in said.json["verdicts"]] == ["confidence", "entailment(checker)"]
        assert node.code == 3 or said.json["score"] == node.json["confidence"]
        assert said.json["guarantee"] is None


def test_an_answer_alone_is_accepted_as_the_certificate_says(shell: Shell, combined: Combination) -> None:
    rows(800, 320)
    assert shell("certify", "teller", "--combined", "--data", "rows.jsonl", "--alpha", "0.1").code == 0
    found = Certificate.from_bytes(Path("agents/teller/certificate.json").read_bytes())
    good = check(shell, next(n for n in range(400) if sure(n) > 0.8 and supported(n) > 0.8))
    assert (good.code, f"certified: {found.guarantee}" in " ".join(good.out.split())) == (0, True)
    doubtful = next(n for n in range(400) if sure(n) < 0.3 and supported(n) < 0.3)
    poor = check(shell, doubtful)
    assert poor.code == 3
    assert f"entailment(checker) {supported(doubtful):.3g} together, does not reach {found.threshold:.6g}" in " ".join(
        poor.out.split()
    )
    assert check(shell, doubtful, "--accept", "0").code == 0


def test_check_without_a_required_option_names_it(shell: Shell, combined: Combination) -> None:
    Path("text.txt").write_text("1")
    said = shell("check", '{"fact": "fact 1 holds"}', "--against", "text.txt", "--combined", str(FILE))
    assert said.code == 2
    assert "V012: the combination of 'teller' needs what is not given for this answer: confidence" in said.err
    assert "--confidence 0.9" in said.err
    assert not calls(shell)


def test_certify_says_where_there_is_no_combination(shell: Shell) -> None:
    rows(3)
    said = shell("certify", "teller", "--combined", "--data", "rows.jsonl")
    assert (said.code, "L076" in said.err) == (2, True)


def test_node_without_a_claims_certificate_names_the_command(shell: Shell) -> None:
    said = run(shell, 1)
    assert said.code == 2
    assert "L076: there is no combination of checks for 'teller'" in said.err
    assert "tell.yaml:10:12" in said.err
    assert "orchestra learn combine teller --data FILE --checks 'confidence,entailment(checker)'" in said.err


@pytest.mark.parametrize(
    ("old", "new", "file", "says"),
    [
        ("{{ text }}", "Tell: {{ text }}", "agents/teller/prompt.md", "its card or prompt changed"),
        ("{{ claim }}", "Claim: {{ claim }}", "agents/checker/prompt.md", "card or prompt of checker changed"),
        ('revision: "1"', 'revision: "2"', "configs/nowhere.yaml", "the model and model of checker changed"),
    ],
)
def test_it_is_void_when_the_agent_or_a_judge_changes(
    shell: Shell, combined: Combination, old: str, new: str, file: str, says: str
) -> None:
    edited(old, new, file)
    said = run(shell, 1)
    assert said.code == 2
    assert "V002: the combination of checks of 'teller' is void" in said.err
    assert says in said.err
    assert "orchestra learn combine teller" in said.err


def test_a_node_with_other_checks_or_one_that_backs_off_is_refused(shell: Shell, combined: Combination) -> None:
    edited('[confidence, "entailment(checker)"]', '["entailment(checker)"]')
    assert "V005: the combination of 'teller' uses the checks confidence" in run(shell, 1).err
    edited("otherwise: [abstain]", "otherwise: [back_off, abstain]")
    assert "L076: `back_off` keeps parts" in run(shell, 1).err


def test_a_moved_weight_is_noticed(shell: Shell, combined: Combination) -> None:
    weight = combined.weights[0].weight
    FILE.write_bytes(FILE.read_bytes().replace(f"{weight}".encode(), b"99.0"))
    assert "V004" in run(shell, 1).err


def test_a_run_goes_on_with_the_combination_that_it_began_with(shell: Shell, combined: Combination) -> None:
    edited("otherwise: [abstain]", "otherwise: [ask]")
    waiting = run(shell, next(n for n in range(400) if sure(n) < 0.3 and supported(n) < 0.3))
    assert waiting.code == 5
    FILE.unlink()
    said = shell("runs", "answer", "last", '{"fact": "fact 1 holds"}', "--json")
    assert (said.code, said.json["output"]) == (0, {"fact": "fact 1 holds"})
    assert shell("runs", "replay", "last").code == 0


def test_a_fork_says_that_it_is_another(shell: Shell, combined: Combination) -> None:
    assert run(shell, 1).code in (0, 3)
    FILE.write_bytes(msgspec.structs.replace(combined, created_at="later").with_digest().to_bytes())
    assert "the combination of its checks has changed" in shell("runs", "fork", "last").out


def test_recorded_answers_are_combined_without_the_agent(shell: Shell) -> None:
    rows(320)
    given = [
        {"id": f"{n}", "output": {"fact": f"fact {n} {'holds' if right(n) else 'fails'}"}, "score": sure(n)}
        for n in range(320)
    ]
    Path("answers.jsonl").write_text("".join(json.dumps(one) + "\n" for one in given))
    assert combine(shell, "--predictions", "answers.jsonl").code == 0
    assert set(calls(shell)) == {"checker"}
    offline = shell(
        "learn",
        "combine",
        "teller",
        "--data",
        "rows.jsonl",
        "--checks",
        "confidence",
        "--predictions",
        "answers.jsonl",
        "--json",
    )
    assert [voice["check"] for voice in offline.json["weights"]] == ["confidence"]


def test_too_few_rows_are_refused_with_how_many_more(shell: Shell) -> None:
    rows(280)
    said = combine(shell)
    assert said.code == 2
    assert "N162: 280 labelled rows can be combined: 20 more are needed, 300 in all" in said.err
    assert not FILE.exists()


def test_without_labels_three_checks_are_needed(shell: Shell) -> None:
    rows(310)
    said = combine(shell, "--unlabelled")
    assert "N163" in said.err
    assert "passes 100.0% of the rows" in said.err  # `confidence` is a score, not pass or fail


TOOLS = '''
from typing import Any

from orchestra import tool

@tool(effect="pure")
def plausible(value: dict[str, Any], text: str) -> float:
    """Of a fact."""
    return 0.5
'''


def test_combination_with_a_custom_tool_is_bound_to_its_code(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def said(call: CallRequest) -> Any:
        return 0.5 + supported(int(call.inputs["text"])) / 2 if call.name == "plausible" else answer(call)

    def written(module: str) -> None:
        Path("fact_tools.py").write_text(module)
        sys.modules.pop("fact_tools", None)

    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    written(TOOLS)
    Path("orchestra.toml").write_text('fleet = "nowhere"\nmodules = ["fact_tools"]\n')
    shell.opener = Simulated(said)
    rows(320)
    done = shell("learn", "combine", "teller", "--data", "rows.jsonl", "--checks", "confidence,tool(plausible)")
    assert done.code == 0, done.out + done.err
    made = Combination.from_bytes(FILE.read_bytes())
    assert all(voice.weight > 0.5 for voice in made.weights)
    assert (made.checks, set(made.judge_dependencies)) == (("confidence", "tool(plausible)"), {"tool(plausible)"})
    edited("entailment(checker)", "tool(plausible)")
    assert run(shell, 99).json["status"] in ("done", "abstained")
    written(TOOLS.replace("return 0.5", "return 0.6"))
    changed = run(shell, 99)
    assert (changed.code, changed.json["error"]["code"]) == (2, "V002")
    assert "types or code of tool(plausible)" in changed.json["error"]["message"]


def test_whatif_with_other_agents_reports_an_invalid_combination(shell: Shell, combined: Combination) -> None:
    made = run(shell, next(n for n in range(400) if sure(n) > 0.8 and supported(n) > 0.8)).json["run"]
    for name, text in (("teller", AGENT), ("checker", JUDGE)):
        furnish(files={f"agents/{name}_2/agent.yaml": text.replace(f"name: {name}", f"name: {name}_2")})
        shutil.copy(f"agents/{name}/prompt.md", f"agents/{name}_2/prompt.md")
    shell.opener = Simulated(lambda call: answer(msgspec.structs.replace(call, name=call.name.removesuffix("_2"))))
    assert shell("whatif", made, "--agent", "checker").code == 0
    (one,) = shell("whatif", made, "--agent", "teller@teller_2", "--json").json["runs"]
    assert [(node["agent"], node["code"]) for node in one["uncovered"]] == [("teller_2", "L076")]
    (one,) = shell("whatif", made, "--agent", "checker@checker_2", "--json").json["runs"]
    assert [(node["agent"], node["code"]) for node in one["uncovered"]] == [("checker_2", "V002")]
    assert one["uncovered"][0]["why"] == "the acceptance of 'teller' rests on checks by checker, and not by checker_2"
