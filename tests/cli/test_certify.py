"""`orchestra certify` and nodes that use its certificate: recorded answers, a simulated fleet, and voided
certificates.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from orchestra.core.protocols import CallError, CallRequest, CallResult
from orchestra.testing import answer_sequence
from orchestra.verification.certificates.file import Certificate
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated, furnish
from tests.unreachable import FLEET

pytestmark = pytest.mark.slow

AGENT = """\
schema: orchestra/v1
name: sorter
description: Sorts a message.
input: {text: str}
output: {label: str}
"""
SORT = """\
schema: orchestra/v1
name: sort
input: {text: str}
output: ${sorted}
nodes:
  sorted:
    agent: sorter
    with: {text: "${input.text}"}
    checks: [schema, confidence]
    accept: certified
    otherwise: [abstain]
"""
CHECKS = ("--checks", "schema,confidence")
FILE = Path("agents/sorter/certificate.json")
PREDICTED = ("--predictions", "answers.jsonl")


def sure(number: int) -> float:
    """The confidence for the row of this number, from 0 to 1."""
    return number % 1000 / 999


def label(number: int) -> str:
    """The answer of the agent: `yes`, which is right; wrong for the rows of lowest confidence."""
    return "yes" if sure(number) > 0.3 else "no"


def answer(call: CallRequest) -> Any:
    number = int(call.inputs["text"])
    return CallResult(value={"label": label(number)}, confidence=sure(number))


def lines(file: str, made: list[dict[str, Any]]) -> None:
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))


def rows(count: int, first: int = 0) -> None:
    lines(
        "rows.jsonl",
        [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"label": "yes"}} for n in range(first, first + count)],
    )


def predictions(count: int, change: Callable[[int], dict[str, Any]] = lambda n: {}, first: int = 0) -> None:
    numbers = range(first, first + count)
    lines(
        "answers.jsonl", [{"id": f"{n}", "output": {"label": label(n)}, "score": sure(n), **change(n)} for n in numbers]
    )


@pytest.fixture
def shell(shell: Shell) -> Shell:
    files = {
        "agents/sorter/agent.yaml": AGENT,
        "agents/sorter/prompt.md": "{{ text }}\n",
        "workflows/sort.yaml": SORT,
        "configs/nowhere.yaml": FLEET,
        "orchestra.toml": 'fleet = "nowhere"\n',
    }
    furnish(files=files)
    shell.opener = Simulated(answer)
    return shell


def certify(shell: Shell, *more: str) -> Said:
    return shell("certify", "sorter", "--data", "rows.jsonl", *CHECKS, *more)


@pytest.fixture
def certified(shell: Shell) -> Certificate:
    """The sorter's certificate, from recorded answers."""
    rows(1000)
    predictions(1000)
    said = certify(shell, *PREDICTED)
    assert said.code == 0, said.out + said.err
    return Certificate.from_bytes(FILE.read_bytes())


def run(shell: Shell, number: int) -> Said:
    return shell("run", "sort", "-i", f"text={number}", "--json")


def test_recorded_answers_write_a_certificate_beside_the_card(shell: Shell, certified: Certificate) -> None:
    assert (certified.agent, certified.alpha, certified.delta, certified.checks) == (
        "sorter",
        0.05,
        0.05,
        ("confidence", "schema"),
    )
    assert (certified.data.tuning, certified.data.calibration, certified.data.held_out) == (200, 500, 300)
    assert (certified.data.metrics, certified.data.predictions) == (("label same",), True)
    assert certified.held_out.errors <= 0.05 * certified.held_out.accepted
    assert all(getattr(certified.dependencies, part) for part in ("card", "model", "adapter", "checks"))


def test_certify_prints_the_minimum_then_bound_thresholds_and_naive(
    shell: Shell,
) -> None:
    rows(1000)
    predictions(1000)
    said = certify(shell, *PREDICTED)
    wanted = (
        "63 accepted answers",
        "must be withheld",
        "threshold",
        "Certified:",
        "held-out rows",
        "naive",
        "200 resplits",
    )
    places = [said.out.index(text) for text in wanted]
    assert places == sorted(places)
    assert "30 % of all answers are wrong: with any score, at least 26.3 % must be withheld." in said.out
    assert re.search(r"wrong in \d+ of 200 with a certificate \(in \d+ a test at 5 % rejects chance\)", said.out)


def test_served_and_recorded_answers_give_the_same_certificate(shell: Shell, certified: Certificate) -> None:
    FILE.unlink()
    said = certify(shell, "--json")
    assert said.code == 0, said.err
    asked = Certificate.from_bytes(FILE.read_bytes())
    assert not asked.data.predictions
    assert (asked.threshold, asked.accepted, asked.errors, asked.held_out) == (
        certified.threshold,
        certified.accepted,
        certified.errors,
        certified.held_out,
    )
    assert said.json["guarantee"] == asked.guarantee
    assert said.json["outcome"]["kind"] == "Certified"
    assert said.json["least_accepted"] == 63


def test_node_accepts_from_the_threshold_and_states_the_guarantee(shell: Shell, certified: Certificate) -> None:
    above = next(n for n in range(1000) if sure(n) >= certified.threshold)
    good, bad = run(shell, above), run(shell, above - 1)
    assert (good.code, bad.code) == (0, 3)
    assert good.json["output"] == {"label": "yes"}
    assert good.json["guarantees"] == {"sorted": certified.guarantee}
    assert bad.json["guarantees"] == {}
    shown = shell("runs", "show", good.json["run"])
    assert f"sorted: {certified.guarantee}" in shown.out
    assert f"certified: {certified.guarantee}" in shell("runs", "show", good.json["run"], "sorted").out
    assert (
        "at most 5 % of what is accepted is wrong, with 95 % confidence; covers"
        in shell("run", "sort", "-i", "text=999").out
    )


def test_an_answer_whose_check_fails_is_never_accepted(shell: Shell, certified: Certificate) -> None:
    shell.opener = Simulated(lambda call: CallResult(value={"label": "yes"}, confidence=None))
    assert run(shell, 1).code == 3


def test_without_a_certificate_a_node_says_how_to_make_one(shell: Shell) -> None:
    said = run(shell, 1)
    assert said.code == 2
    assert "L119: there is no certificate for 'sorter'" in said.err
    assert "sort.yaml:10:13" in said.err
    assert "orchestra certify sorter --data FILE" in said.err


def edited(old: str, new: str, file: str = "agents/sorter/agent.yaml") -> None:
    text = Path(file).read_text()
    assert old in text
    Path(file).write_text(text.replace(old, new))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda: edited("{{ text }}", "Sort: {{ text }}", "agents/sorter/prompt.md"), "its card or prompt"),
        (lambda: edited("{label: str}", "{label: str | null}"), "its card or prompt"),
        (lambda: edited("description", "sampling: {temperature: 0.5, seed: 1}\ndescription"), "its card or prompt"),
        (lambda: edited("description", "adapter: new\ndescription"), "its adapter or arrays"),
        (lambda: edited('revision: "1"', 'revision: "2"', "configs/nowhere.yaml"), "the model"),
        (lambda: edited("model: m", "model: n", "configs/nowhere.yaml"), "the model"),
    ],
)
def test_changed_dependency_voids_the_certificate_with_a_command(
    shell: Shell, certified: Certificate, change: Callable[[], None], says: str
) -> None:
    change()
    said = run(shell, 999)
    assert said.code == 2
    assert "V002: the certificate of 'sorter' is void" in said.err
    assert says in said.err
    assert "sort.yaml:10:13" in said.err
    assert "accept: certified" in said.err
    assert certified.renew_command in said.err
    assert shell("certify", "sorter").code == 2


def test_irrelevant_change_does_not_void_the_certificate(shell: Shell, certified: Certificate) -> None:
    edited("Sorts a message.", "Sorts messages.")
    edited("output:", "checks: [schema, confidence]\naccept: certified\noutput:")
    assert run(shell, 999).code == 0


def test_changed_check_code_voids_the_certificate(shell: Shell, certified: Certificate) -> None:
    other = msgspec.structs.replace(
        certified, dependencies=msgspec.structs.replace(certified.dependencies, checks="of last year")
    ).with_digest()
    FILE.write_bytes(other.to_bytes())
    assert "the code of the checks changed since it was made" in run(shell, 999).err


def test_modified_or_foreign_certificate_is_refused(shell: Shell, certified: Certificate) -> None:
    whole = FILE.read_bytes()
    FILE.write_bytes(whole.replace(f'"threshold": {certified.threshold}'.encode(), b'"threshold": 0.0'))
    assert "V004" in run(shell, 999).err
    FILE.write_bytes(msgspec.structs.replace(certified, agent="sorted_out").with_digest().to_bytes())
    assert "V005: certificate.json is about the agent 'sorted_out'" in run(shell, 999).err
    FILE.write_bytes(whole[:-40])
    assert "V003" in run(shell, 999).err
    FILE.unlink()
    FILE.mkdir()
    assert "V003" in run(shell, 999).err


def test_a_node_with_other_checks_is_refused(shell: Shell, certified: Certificate) -> None:
    edited("[schema, confidence]", "[confidence]", "workflows/sort.yaml")
    said = run(shell, 999)
    assert (
        "V005: the certificate of 'sorter' is about the checks confidence, schema, and this node has confidence"
        in said.err
    )


def test_only_first_answers_are_guaranteed(shell: Shell, certified: Certificate) -> None:
    edited(
        "otherwise: [abstain]",
        "otherwise: [retry, abstain]\n    retry: {attempts: 2, wait: [0, 0]}",
        "workflows/sort.yaml",
    )
    assert "not covered by the certificate" in shell("validate", "workflows/sort.yaml").err
    unsure, at_last = (
        CallResult(value={"label": "yes"}, confidence=0.1),
        CallResult(value={"label": "yes"}, confidence=0.999),
    )
    shell.opener = Simulated({"sorter": answer_sequence(unsure, at_last)})
    said = run(shell, 1)
    assert (said.code, said.json["guarantees"]) == (0, {})


def test_a_node_that_asks_no_agent_can_have_none(shell: Shell, certified: Certificate) -> None:
    edited("output: ${sorted}", "output: ${held}", "workflows/sort.yaml")
    edited(
        "nodes:", 'nodes:\n  held: {verify: "${sorted}", checks: [schema], accept: certified}', "workflows/sort.yaml"
    )
    said = run(shell, 999)
    assert "L119: there is no certificate for 'held'" in said.err
    assert "certificates are for agents" in said.err


def test_a_card_can_say_certified_itself(shell: Shell, certified: Certificate) -> None:
    edited("output:", "checks: [schema, confidence]\naccept: certified\notherwise: [abstain]\noutput:")
    assert shell("run", "sorter", "-i", "text=999", "--json").json["guarantees"] == {"result": certified.guarantee}
    assert shell("run", "sorter", "-i", "text=0", "--json").code == 3


def test_a_certificate_of_the_users_own_comes_first(shell: Shell, certified: Certificate) -> None:
    """The card is in another agents folder; the first folder's certificate of that name is used."""
    Path("more").mkdir()
    shutil.move("agents/sorter", "more/sorter")
    Path("orchestra.toml").write_text('fleet = "nowhere"\nagents = ["agents", "more"]\n')
    assert run(shell, 999).code == 0
    FILE.parent.mkdir(parents=True)
    stricter = msgspec.structs.replace(certified, threshold=1.0).with_digest()
    FILE.write_bytes(stricter.to_bytes())
    assert (run(shell, 998).code, run(shell, 999).code) == (3, 0)


def test_a_certificate_is_shown(shell: Shell, certified: Certificate) -> None:
    said = shell("certify", "sorter")
    assert said.code == 0
    assert said.out.startswith(f"sorter: {certified.guarantee}")
    assert certified.data.digest in said.out
    assert shell("certify", "sorter", "--json").json["certificate"]["digest"] == certified.digest
    FILE.unlink()
    assert "L119" in shell("certify", "sorter").err


def test_too_few_rows_are_told_before_the_agent_is_asked(shell: Shell) -> None:
    rows(100)
    said = certify(shell)
    assert said.code == 3
    assert "No certificate, too little data" in said.out
    assert "rows would be needed" in said.out
    assert "the agent was not called" in said.out
    assert "are wrong" not in said.out
    assert not FILE.exists()
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is None


def test_always_wrong_agent_gets_no_certificate(shell: Shell) -> None:
    rows(1200)
    predictions(1200, lambda n: {"output": {"label": "no"}})
    said = certify(shell, *PREDICTED, "--json")
    assert said.code == 3
    assert said.json["outcome"]["kind"] == "Infeasible"
    assert (said.json["file"], said.json["guarantee"]) == (None, None)
    assert "More rows would not help" in certify(shell, *PREDICTED).out


def test_agent_without_confidence_gets_no_certificate(shell: Shell) -> None:
    rows(1200)
    predictions(1200, lambda n: {"score": None})
    assert "none of 600 answers passes its checks" in certify(shell, *PREDICTED).out


def test_constant_score_accepts_all_or_nothing(shell: Shell) -> None:
    rows(1000)
    predictions(1000, lambda n: {"score": 0.5, "output": {"label": "yes" if n % 100 else "no"}})
    assert certify(shell, *PREDICTED).code == 0
    found = Certificate.from_bytes(FILE.read_bytes())
    assert (found.threshold, found.coverage) == (0.5, 1.0)


def test_an_abstention_and_a_missing_answer_are_wrong_and_accepted_nowhere(shell: Shell) -> None:
    rows(1000)
    predictions(900, lambda n: {"abstained": n % 2 == 0, "score": 1.0, "output": {"label": "yes"}})
    assert certify(shell, *PREDICTED).code == 0
    found = Certificate.from_bytes(FILE.read_bytes())
    assert found.base_error == 0.55
    assert found.coverage == pytest.approx(0.45, abs=0.07)


def test_failed_rows_count_as_wrong_with_a_note(shell: Shell) -> None:
    rows(1000)
    shell.opener = Simulated(
        lambda call: answer(call) if int(call.inputs["text"]) % 10 else CallError(code="M001", reason="not JSON")
    )
    said = certify(shell)
    assert said.code == 0
    assert "100 rows failed; they count as wrong and not accepted; the first: not JSON" in said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"id": "0", "output": {"label": "yes"}, "score": 1.2}', "the score is 1.2"),
        ('{"id": "0", "output": {"label": "yes"}, "score": -1}', "must be in [0, 1]"),
        ('{"id": "0", "output": {"label": "yes"}, "score": NaN}', "not a prediction"),
        ('{"id": "0", "score": 0.5}\n{"id": "0", "score": 0.5}', "two predictions have the id '0'"),
        ('{"id": "never", "output": {}}', "has an answer to the row 'never'"),
        ("{", "not a prediction"),
        ("[]", "not a prediction"),
        ("\x00", "not a prediction"),
    ],
)
def test_invalid_recorded_answers_are_refused(shell: Shell, text: str, says: str) -> None:
    rows(1000)
    Path("answers.jsonl").write_text(text + "\n")
    said = certify(shell, *PREDICTED)
    assert said.code == 2
    assert "V006" in said.err
    assert says in said.err
    assert not FILE.exists()


def test_unwritable_file_is_reported_before_any_call(shell: Shell) -> None:
    rows(100)
    Path("a_file").write_text("")
    shell.opener = Simulated(lambda call: pytest.fail("somebody was asked"))
    said = shell("certify", "sorter", "--data", "rows.jsonl", *CHECKS, "--out", "a_file/certificate.json")
    assert (said.code != 0, said.err.startswith("C023")) == (True, True), said.err


def test_duplicate_row_ids_are_refused_before_any_call(shell: Shell) -> None:
    rows(1000)
    Path("rows.jsonl").write_text(Path("rows.jsonl").read_text() * 2)
    said = certify(shell)
    assert (said.code, "two rows have the id" in said.err) == (2, True)
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is None


@pytest.mark.parametrize(
    ("more", "code"),
    [
        (("--alpha", "0"), "V006"),
        (("--alpha", "nan"), "V006"),
        (("--delta", "0.9"), "V006"),
        (("--predictions", "nowhere.jsonl"), "V006"),
        (("--checks", "schema,confidense"), "L111"),
        (("--checks", "schema,entailment"), "V006"),
        (("--checks", "schema & agree(3)"), "V006"),
        (("--checks", "schema &"), "L072"),
        (("--metric", "label exakt"), "V008"),
        (("--metric", "label F1"), "V008"),
    ],
)
def test_invalid_terms_and_names_are_refused(shell: Shell, more: tuple[str, ...], code: str) -> None:
    rows(1000)
    said = certify(shell, *more)
    assert (said.code, said.err[:4]) == (2, code)


def test_server_without_a_revision_cannot_be_certified(shell: Shell) -> None:
    rows(1000)
    edited(', revision: "1"', "", "configs/nowhere.yaml")
    said = certify(shell)
    assert said.code == 2
    assert "V007: the model 'it' of 'sorter' is unknown" in said.err


def test_resumed_run_keeps_its_threshold(shell: Shell, certified: Certificate) -> None:
    """The certificate is void when the run is repeated; the old run is still replayed with its stored certificate."""
    done = run(shell, 999)
    edited('revision: "1"', 'revision: "2"', "configs/nowhere.yaml")
    replayed = shell("runs", "replay", done.json["run"])
    assert (replayed.code, "same decisions of the engine" in replayed.out) == (0, True)
    FILE.unlink()
    assert shell("runs", "replay", done.json["run"]).code == 0
    assert shell("runs", "fork", done.json["run"]).code == 2


def test_a_new_certificate_says_which_one_it_replaces(shell: Shell, certified: Certificate) -> None:
    said = certify(shell, *PREDICTED)
    assert f"It replaces one of {certified.created_at[:10]} on rows.jsonl: {certified.guarantee}" in " ".join(
        said.out.split()
    )
    FILE.write_text("{}")
    again = json.loads(certify(shell, *PREDICTED, "--json").out)
    assert again["replaced"].startswith("an invalid one:")
    FILE.unlink()
    assert json.loads(certify(shell, *PREDICTED, "--json").out)["replaced"] is None


def test_missing_recorded_answers_are_not_called_wrong(shell: Shell) -> None:
    rows(30)
    shell.opener = Simulated(lambda call: pytest.fail("somebody was asked"))
    said = certify(shell, "--json")
    assert said.code == 3
    assert (said.json["outcome"]["kind"], said.json["outcome"]["rows_needed"]) == ("InsufficientData", 1050)
    assert "bound" not in said.json


def test_replacing_a_certificate_names_nodes_that_lose_it(shell: Shell, certified: Certificate) -> None:
    said = shell("certify", "sorter", "--data", "rows.jsonl", "--checks", "confidence", *PREDICTED)
    assert "nodes with `checks: [confidence, schema]` no longer accept by it (V005)" in " ".join(said.out.split())


def test_explain_shows_valid_certificates_only(shell: Shell, certified: Certificate) -> None:
    def seen() -> Any:
        return shell("run", "sorter", "-i", "text=1", "--dry-run", "--json").json["nodes"][0]["certificate"]

    assert seen() is True
    Path("orchestra.toml").write_text('fleet = "nowhere"\nagents = ["mine", "agents"]\n')
    (mine := Path("mine/sorter")).mkdir(parents=True)  # where `certify` puts the certificate of a packaged agent
    FILE.rename(mine / FILE.name)
    assert seen() is True
    Path("agents/sorter/prompt.md").write_text("Another prompt: {{ text }}\n")
    assert seen() is False


def test_a_table_whose_columns_are_the_fields_does_as_well(shell: Shell, certified: Certificate) -> None:
    Path("rows.csv").write_text("id;text;label\n" + "".join(f"{n};{n};yes\n" for n in range(1000)))
    assert shell("certify", "sorter", "--data", "rows.csv", *CHECKS, *PREDICTED).code == 0
    assert Certificate.from_bytes(FILE.read_bytes()).threshold == certified.threshold


@pytest.mark.parametrize(
    "more", [("--alpha", "0.2"), ("--delta", "0.1"), ("--checks", "confidence"), ("--rows", "3"), ("--combined",)]
)
@pytest.mark.parametrize("watch", [(), ("--watch",)])
def test_terms_without_data_are_refused(
    shell: Shell, certified: Certificate, watch: tuple[str, ...], more: tuple[str, ...]
) -> None:
    said = shell("certify", "sorter", *watch, *more)
    assert said.code == 2
    assert f"C010: {more[0]} has no effect when" in said.err


@pytest.mark.parametrize(
    "more", [("--seed", "1"), ("--metric", "EM"), ("--evaluation", "one"), ("--since", "today"), ("--by", "ada")]
)
def test_options_without_effect_on_a_shown_certificate_are_refused(
    shell: Shell, certified: Certificate, more: tuple[str, str]
) -> None:
    said = shell("certify", "sorter", *more)
    assert said.code == 2
    assert f"C010: {more[0]} has no effect when showing a certificate" in said.err


def test_audit_options_are_refused_when_certifying(shell: Shell) -> None:
    rows(3)
    assert "C010: --since has no effect when certifying answers" in certify(shell, "--since", "today").err


def test_signal_during_certification_writes_no_certificate(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    from orchestra.cli.signals import StopSignal

    rows(1000)
    predictions(1000)
    before = StopSignal.__init__

    def told(self: StopSignal) -> None:
        before(self)
        self.requested = self.terminating = True

    monkeypatch.setattr(StopSignal, "__init__", told)
    assert certify(shell, *PREDICTED).code == 143
    assert not FILE.exists()
