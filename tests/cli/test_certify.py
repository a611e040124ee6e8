"""`orchestra certify`, and nodes that accept by what it made: recorded answers, a simulated fleet, and all that voids a certificate."""

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
    """Of the row of this number, from 0 to 1."""
    return number % 1000 / 999


def label(number: int) -> str:
    """What the agent answers: `yes`, which is right; wrong for those that it is least sure of."""
    return "yes" if sure(number) > 0.3 else "no"


def answer(call: CallRequest) -> Any:
    number = int(call.inputs["text"])
    return CallResult(value={"label": label(number)}, confidence=sure(number))


def lines(file: str, made: list[dict[str, Any]]) -> None:
    Path(file).write_text("".join(json.dumps(one) + "\n" for one in made))


def rows(count: int, first: int = 0) -> None:
    lines("rows.jsonl", [{"id": f"{n}", "input": {"text": f"{n}"}, "expected": {"label": "yes"}} for n in range(first, first + count)])


def predictions(count: int, change: Callable[[int], dict[str, Any]] = lambda n: {}, first: int = 0) -> None:
    numbers = range(first, first + count)
    lines("answers.jsonl", [{"id": f"{n}", "output": {"label": label(n)}, "score": sure(n), **change(n)} for n in numbers])


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
    """The sorter's certificate, of recorded answers."""
    rows(1000)
    predictions(1000)
    said = certify(shell, *PREDICTED)
    assert said.code == 0, said.out + said.err
    return Certificate.from_bytes(FILE.read_bytes())


def run(shell: Shell, number: int) -> Said:
    return shell("run", "sort", "-i", f"text={number}", "--json")


def test_recorded_answers_come_to_a_certificate_beside_the_card(shell: Shell, certified: Certificate) -> None:
    assert (certified.agent, certified.alpha, certified.delta, certified.checks) == ("sorter", 0.05, 0.05, ("confidence", "schema"))
    assert (certified.data.tuning, certified.data.calibration, certified.data.held_out) == (200, 500, 300)
    assert (certified.data.metrics, certified.data.predictions) == (("label same",), True)
    assert certified.held_out.errors <= 0.05 * certified.held_out.accepted
    assert all(getattr(certified.dependencies, part) for part in ("card", "model", "adapter", "checks"))


def test_the_least_is_told_before_anybody_is_asked_then_the_bound_the_walk_and_the_naive_threshold(shell: Shell) -> None:
    rows(1000)
    predictions(1000)
    said = certify(shell, *PREDICTED)
    wanted = (
        "takes 63 accepted answers",
        "must be withheld at least",
        "threshold",
        "Certified:",
        "had no part in it",
        "naive",
        "200 resplits",
    )
    places = [said.out.index(text) for text in wanted]
    assert places == sorted(places)
    assert "30 % of all answers are wrong: whatever the score, 26.3 % must be withheld at least." in said.out
    assert re.search(r"wrong in \d+ of 200 that came to a certificate \(in \d+ a test at 5 % rejects chance\)", said.out)


def test_the_served_agent_and_its_recorded_answers_come_to_the_same(shell: Shell, certified: Certificate) -> None:
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


def test_a_node_accepts_from_the_threshold_on_and_says_what_is_promised(shell: Shell, certified: Certificate) -> None:
    above = next(n for n in range(1000) if sure(n) >= certified.threshold)
    good, bad = run(shell, above), run(shell, above - 1)
    assert (good.code, bad.code) == (0, 3)
    assert good.json["output"] == {"label": "yes"}
    assert good.json["promises"] == {"sorted": certified.guarantee}
    assert bad.json["promises"] == {}
    shown = shell("runs", "show", good.json["run"])
    assert f"sorted: {certified.guarantee}" in shown.out
    assert f"certified: {certified.guarantee}" in shell("runs", "show", good.json["run"], "sorted").out
    assert "at most 5 % of what is accepted is wrong, with 95 % confidence; covers" in shell("run", "sort", "-i", "text=999").out


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
def test_what_it_is_bound_to_voids_it_at_its_place_with_the_command_that_makes_a_new_one(
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


def test_what_does_not_change_an_answer_does_not_void_it(shell: Shell, certified: Certificate) -> None:
    edited("Sorts a message.", "Sorts messages.")
    edited("output:", "checks: [schema, confidence]\naccept: certified\noutput:")
    assert run(shell, 999).code == 0


def test_the_code_of_the_checks_voids_it(shell: Shell, certified: Certificate) -> None:
    other = msgspec.structs.replace(certified, bonds=msgspec.structs.replace(certified.dependencies, checks="of last year")).with_digest()
    FILE.write_bytes(other.to_bytes())
    assert "the code of the checks changed since it was made" in run(shell, 999).err


def test_a_moved_threshold_another_agents_file_and_a_broken_one_are_refused(shell: Shell, certified: Certificate) -> None:
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
    assert "V005: the certificate of 'sorter' is about the checks confidence, schema, and this node has confidence" in said.err


def test_only_first_answers_are_promised(shell: Shell, certified: Certificate) -> None:
    edited("otherwise: [abstain]", "otherwise: [retry, abstain]\n    retry: {attempts: 2, wait: [0, 0]}", "workflows/sort.yaml")
    assert "not covered by the certificate" in shell("validate", "workflows/sort.yaml").err
    unsure, at_last = CallResult(value={"label": "yes"}, confidence=0.1), CallResult(value={"label": "yes"}, confidence=0.999)
    shell.opener = Simulated({"sorter": answer_sequence(unsure, at_last)})
    said = run(shell, 1)
    assert (said.code, said.json["promises"]) == (0, {})


def test_a_node_that_asks_no_agent_can_have_none(shell: Shell, certified: Certificate) -> None:
    edited("output: ${sorted}", "output: ${held}", "workflows/sort.yaml")
    edited("nodes:", 'nodes:\n  held: {verify: "${sorted}", checks: [schema], accept: certified}', "workflows/sort.yaml")
    said = run(shell, 999)
    assert "L119: there is no certificate for 'held'" in said.err
    assert "certificates are of agents" in said.err


def test_a_card_can_say_certified_itself(shell: Shell, certified: Certificate) -> None:
    edited("output:", "checks: [schema, confidence]\naccept: certified\notherwise: [abstain]\noutput:")
    assert shell("run", "sorter", "-i", "text=999", "--json").json["promises"] == {"result": certified.guarantee}
    assert shell("run", "sorter", "-i", "text=0", "--json").code == 3


def test_a_certificate_of_the_users_own_comes_first(shell: Shell, certified: Certificate) -> None:
    """The card lies in another folder of agents; what the first one has of that name is taken."""
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
    assert "the agent was not asked" in said.out
    assert "are wrong" not in said.out
    assert not FILE.exists()
    assert isinstance(shell.opener, Simulated)
    assert shell.opener.workers is None


def test_an_agent_that_is_always_wrong_gets_none(shell: Shell) -> None:
    rows(1200)
    predictions(1200, lambda n: {"output": {"label": "no"}})
    said = certify(shell, *PREDICTED, "--json")
    assert said.code == 3
    assert said.json["outcome"]["kind"] == "Infeasible"
    assert (said.json["file"], said.json["guarantee"]) == (None, None)
    assert "More rows would not mend that" in certify(shell, *PREDICTED).out


def test_an_agent_that_says_nothing_of_how_sure_it_is_gets_none(shell: Shell) -> None:
    rows(1200)
    predictions(1200, lambda n: {"score": None})
    assert "none of 600 answers passes its checks" in certify(shell, *PREDICTED).out


def test_a_constant_score_is_all_or_nothing(shell: Shell) -> None:
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


def test_rows_that_fail_are_wrong_and_told(shell: Shell) -> None:
    rows(1000)
    shell.opener = Simulated(lambda call: answer(call) if int(call.inputs["text"]) % 10 else CallError(code="M001", reason="not JSON"))
    said = certify(shell)
    assert said.code == 0
    assert "100 rows failed, and count as wrong and not accepted; the first: not JSON" in said.err


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"id": "0", "output": {"label": "yes"}, "score": 1.2}', "the score is 1.2"),
        ('{"id": "0", "output": {"label": "yes"}, "score": -1}', "must be in [0, 1]"),
        ('{"id": "0", "output": {"label": "yes"}, "score": NaN}', "no prediction"),
        ('{"id": "0", "score": 0.5}\n{"id": "0", "score": 0.5}', "two predictions have the id '0'"),
        ('{"id": "never", "output": {}}', "answers the row 'never'"),
        ("{", "no prediction"),
        ("[]", "no prediction"),
        ("\x00", "no prediction"),
    ],
)
def test_recorded_answers_that_are_none_are_refused(shell: Shell, text: str, says: str) -> None:
    rows(1000)
    Path("answers.jsonl").write_text(text + "\n")
    said = certify(shell, *PREDICTED)
    assert said.code == 2
    assert "V006" in said.err
    assert says in said.err
    assert not FILE.exists()


def test_a_file_that_cannot_be_written_is_told_before_anybody_is_asked(shell: Shell) -> None:
    rows(100)
    Path("a_file").write_text("")
    shell.opener = Simulated(lambda call: pytest.fail("somebody was asked"))
    said = shell("certify", "sorter", "--data", "rows.jsonl", *CHECKS, "--out", "a_file/certificate.json")
    assert (said.code != 0, said.err.startswith("C023")) == (True, True), said.err


def test_rows_with_one_id_are_refused_before_anybody_is_asked(shell: Shell) -> None:
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
def test_terms_and_names_that_are_none_are_refused(shell: Shell, more: tuple[str, ...], code: str) -> None:
    rows(1000)
    said = certify(shell, *more)
    assert (said.code, said.err[:4]) == (2, code)


def test_a_server_without_a_revision_cannot_be_bound_to(shell: Shell) -> None:
    rows(1000)
    edited(', revision: "1"', "", "configs/nowhere.yaml")
    said = certify(shell)
    assert said.code == 2
    assert "V007: nobody can tell what answers as 'it' for 'sorter'" in said.err


def test_a_run_that_began_goes_on_with_the_threshold_that_it_began_with(shell: Shell, certified: Certificate) -> None:
    """The certificate is void when the run is made again; the old run still replays, on what it stored."""
    done = run(shell, 999)
    edited('revision: "1"', 'revision: "2"', "configs/nowhere.yaml")
    replayed = shell("runs", "replay", done.json["run"])
    assert (replayed.code, "the same decisions today" in replayed.out) == (0, True)
    FILE.unlink()
    assert shell("runs", "replay", done.json["run"]).code == 0
    assert shell("runs", "fork", done.json["run"]).code == 2


def test_a_new_certificate_says_which_one_it_replaces(shell: Shell, certified: Certificate) -> None:
    said = certify(shell, *PREDICTED)
    assert f"It replaces one of {certified.created_at[:10]} on rows.jsonl: {certified.guarantee}" in " ".join(said.out.split())
    FILE.write_text("{}")
    again = json.loads(certify(shell, *PREDICTED, "--json").out)
    assert again["replaced"].startswith("one that does not hold:")
    FILE.unlink()
    assert json.loads(certify(shell, *PREDICTED, "--json").out)["replaced"] is None


def test_answers_that_were_never_asked_for_are_not_called_wrong(shell: Shell) -> None:
    rows(30)
    shell.opener = Simulated(lambda call: pytest.fail("somebody was asked"))
    said = certify(shell, "--json")
    assert said.code == 3
    assert (said.json["outcome"]["kind"], said.json["outcome"]["rows_needed"]) == ("InsufficientData", 1050)
    assert "bound" not in said.json


def test_a_certificate_for_other_nodes_says_who_accepts_by_it_no_more(shell: Shell, certified: Certificate) -> None:
    said = shell("certify", "sorter", "--data", "rows.jsonl", "--checks", "confidence", *PREDICTED)
    assert "nodes with `checks: [confidence, schema]` accept by this one no more (V005)" in " ".join(said.out.split())


def test_explain_sees_the_certificates_that_nodes_accept_by_and_no_void_one(shell: Shell, certified: Certificate) -> None:
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


@pytest.mark.parametrize("more", [("--alpha", "0.2"), ("--delta", "0.1"), ("--checks", "confidence"), ("--rows", "3"), ("--combined",)])
@pytest.mark.parametrize("watch", [(), ("--watch",)])
def test_terms_where_nothing_is_made_are_refused(
    shell: Shell, certified: Certificate, watch: tuple[str, ...], more: tuple[str, ...]
) -> None:
    said = shell("certify", "sorter", *watch, *more)
    assert said.code == 2
    assert f"C010: {more[0]} says nothing where" in said.err


@pytest.mark.parametrize("more", [("--seed", "1"), ("--metric", "EM"), ("--evaluation", "one"), ("--since", "today"), ("--by", "ada")])
def test_options_that_a_certificate_that_is_shown_does_not_take_are_refused(
    shell: Shell, certified: Certificate, more: tuple[str, str]
) -> None:
    said = shell("certify", "sorter", *more)
    assert said.code == 2
    assert f"C010: {more[0]} says nothing where a certificate is shown" in said.err


def test_options_of_audits_are_refused_where_a_certificate_is_made(shell: Shell) -> None:
    rows(3)
    assert "C010: --since says nothing where answers are certified" in certify(shell, "--since", "today").err


def test_a_signal_while_figures_are_made_ends_it_without_a_certificate(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
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
