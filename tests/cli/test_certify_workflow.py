"""`orchestra certify WORKFLOW` and runs accepted by its certificate: the guarantee, withheld outputs, voided
certificates.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.app.result import Result
from orchestra.core.errors import Abstained
from orchestra.core.settings import Settings
from orchestra.verification.certificates.file import Certificate
from tests.cli import towers
from tests.cli.shell import Said, Shell
from tests.cli.stage import furnish
from tests.cli.towers import NAME
from tests.unreachable import FLEET

pytestmark = pytest.mark.slow

FOLDER = Path(f"workflows/{NAME}")
FILE = FOLDER / "certificate.json"
WORKFLOW = Path(__file__).parents[2] / "workflows" / f"{NAME}.yaml"
CALLER = f"""\
schema: orchestra/v1
name: desk
input: {{question: str, documents: "list[Document]"}}
output: ${{told}}
nodes:
  told:
    call: {NAME}
    with: {{question: "${{input.question}}", documents: "${{input.documents}}"}}
    checks: [confidence]
    accept: certified
    otherwise: [abstain]
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    furnish(files={"configs/nowhere.yaml": FLEET, "orchestra.toml": 'fleet = "nowhere"\n'})
    shell.opener = towers.simulated()
    return shell


def certify(shell: Shell, *more: str, of: str = NAME) -> Said:
    return shell("certify", of, "--data", "rows.jsonl", *more)


def recorded(shell: Shell, count: int) -> Said:
    """A certificate from recorded answers, without calls."""
    towers.rows("rows.jsonl", range(count))
    towers.predictions("answers.jsonl", range(count))
    return certify(shell, "--predictions", "answers.jsonl")


def run(shell: Shell, number: int, *more: str, of: str = NAME) -> Said:
    Path("inputs.json").write_text(json.dumps(towers.inputs(number)))
    return shell("run", of, "-i", "@inputs.json", *more)


def one(known: bool, above: float = 0.0, below: float = 1.0, first: int = 5_000) -> int:
    """A tower with or without a document, for which the reader has this confidence."""
    return next(n for n in range(first, first + 500) if towers.known(n) == known and above <= towers.sure(n) < below)


@pytest.fixture
def certified(shell: Shell) -> Certificate:
    """The certificate of the packaged workflow, from recorded answers."""
    said = recorded(shell, 1_000)
    assert said.code == 0, said.out + said.err
    return Certificate.from_bytes(FILE.read_bytes())


def test_certify_workflow_runs_each_row_and_guarantees_its_output(shell: Shell) -> None:
    towers.rows("rows.jsonl", range(400))
    said = certify(shell)
    assert said.code == 0, said.out + said.err
    assert "requires at least 63 accepted answers" in said.out
    assert "must be withheld" in said.out
    assert "naive threshold" in said.out
    assert "200 resplits" in said.out
    assert f"orchestra run {NAME} --accept certified accepts by it" in said.out
    made = Certificate.from_bytes(FILE.read_bytes())
    assert (made.agent, made.subject_kind, made.checks, made.data.metrics) == (
        NAME,
        "workflow",
        ("confidence",),
        ("text same",),
    )
    assert (FOLDER / "attempts.jsonl").read_text().count("\n") == 1
    towers.predictions("answers.jsonl", range(400))
    FILE.unlink()
    again = certify(shell, "--predictions", "answers.jsonl")
    assert again.code == 0, "the same answers are the same attempt"
    assert Certificate.from_bytes(FILE.read_bytes()).threshold == made.threshold


def test_guarantee_holds_on_held_out_rows(certified: Certificate) -> None:
    fresh = [
        n for n in range(10_000, 14_000) if (given := towers.told(n)) is not None and given[1] >= certified.threshold
    ]
    wrong = sum(towers.told(n)[0] != towers.expected(n) for n in fresh)  # type: ignore[index]
    assert len(fresh) > 1_000
    assert wrong <= certified.alpha * len(fresh)


def test_run_prints_the_guarantee_and_its_certificate(shell: Shell, certified: Certificate) -> None:
    number = one(known=True, above=certified.threshold)
    said = run(shell, number, "--accept", "certified")
    assert said.code == 0, said.err
    assert f"{NAME}: {certified.guarantee}" in said.out
    data = run(shell, number, "--accept", "certified", "--json").json
    assert data["output"]["text"] == towers.expected(number)["text"]
    assert data["guarantees"] == {NAME: certified.guarantee}
    assert data["certificates"][NAME] == certified.summary
    assert data["certificates"][NAME]["workflow"] == NAME
    assert data["confidence"] == towers.sure(number)
    assert [claim["path"] for claim in data["claims"]] == ["text"]
    assert run(shell, number, "--json").json["guarantees"] == {}, "without the option nothing is guaranteed"


def test_workflow_certificate_withholds_low_scores_and_empty_outputs(shell: Shell, certified: Certificate) -> None:
    unsure, hidden = one(known=True, below=certified.threshold), one(known=False, above=0.6)
    said = run(shell, unsure, "--accept", "certified")
    assert said.code == 3
    assert f"withheld: {NAME}: under its certificate: confidence: {towers.sure(unsure):.3f} is below" in said.out
    data = run(shell, unsure, "--accept", "certified", "--json").json
    assert (data["status"], data["output"], data["guarantees"]) == ("abstained", None, {})
    assert data["confidence"] == pytest.approx(towers.sure(unsure))
    said = run(shell, hidden, "--accept", "certified")
    assert said.code == 3
    assert f"withheld: {NAME}: under its certificate: it says nothing" in said.out
    assert "The documents do not contain the answer." in run(shell, hidden).out


def test_a_node_that_calls_the_workflow_accepts_by_its_certificate(shell: Shell, certified: Certificate) -> None:
    Path("desk.yaml").write_text(CALLER)
    said = run(shell, one(known=True, above=certified.threshold), "--json", of="./desk.yaml").json
    assert (said["status"], said["guarantees"]) == ("done", {"told": certified.guarantee})
    assert run(shell, one(known=False), of="./desk.yaml").code == 3
    Path("desk.yaml").write_text(CALLER.replace("[confidence]", "[schema, confidence]"))
    assert "V005: the certificate of a workflow is about how sure it is" in run(shell, 1, of="./desk.yaml").err


def test_a_node_that_calls_the_workflow_accepts_from_a_score_on(shell: Shell) -> None:
    Path("desk.yaml").write_text(CALLER.replace("accept: certified", "accept: 0.7"))
    sure, unsure = one(known=True, above=0.7), one(known=True, below=0.7)
    said = run(shell, sure, "--json", of="./desk.yaml").json
    assert (said["status"], said["confidence"], said["guarantees"]) == ("done", towers.sure(sure), {})
    assert run(shell, unsure, of="./desk.yaml").code == 3


def test_workflow_certificate_does_not_cover_a_replaced_agent(shell: Shell, certified: Certificate) -> None:
    name = run(shell, one(known=True, above=certified.threshold), "--accept", "certified", "--json").json["run"]
    Path("other.md").write_text("Read: {{ question }} {{ context }}\n")
    (found,) = shell("whatif", name, "--agent", "generative_reader@other.md", "--json").json["runs"]
    assert (found["verdict"], found["after"]["accepted"]) == ("refused", 0)
    (wanting,) = found["uncovered"]
    assert (wanting["node"], wanting["agent"], wanting["code"]) == (NAME, "generative_reader", "V002")
    assert f"the certificate of the workflow '{NAME}' is about generative_reader as it was" in wanting["why"]


def test_a_run_that_is_forked_is_accepted_as_it_was(shell: Shell, certified: Certificate) -> None:
    name = run(shell, one(known=True, above=certified.threshold), "--accept", "certified", "--json").json["run"]
    assert shell("runs", "fork", name, "--json").json["guarantees"] == {NAME: certified.guarantee}
    assert shell("runs", "fork", name, "--set", "answer_from_documents/answer={}", "--json").code != 0


def test_a_batch_withholds_what_the_certificate_does_not_accept(shell: Shell, certified: Certificate) -> None:
    numbers = range(5_000, 5_040)
    towers.rows("some.jsonl", numbers)
    said = shell("batch", NAME, "-i", "some.jsonl", "-o", "out.jsonl", "--accept", "certified")
    assert said.code == 0, said.err
    done = [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]
    wanted = {f"{n}" for n in numbers if (given := towers.told(n)) is not None and given[1] >= certified.threshold}
    assert {line["id"] for line in done if line["output"] is not None} == wanted
    assert all(line["abstained"] for line in done if line["id"] not in wanted)


def test_uncertified_batch_result_is_not_a_certified_answer(shell: Shell, certified: Certificate) -> None:
    towers.rows("some.jsonl", range(5_000, 5_003))
    batch = ("batch", NAME, "-i", "some.jsonl", "-o", "out.jsonl")
    assert shell(*batch).code == 0
    before = Path("out.jsonl").read_bytes()
    said = shell(*batch, "--accept", "certified")
    assert said.code == 2
    assert "C022: the result of '5000' belongs to another input of the row, or to another --accept" in said.err
    assert Path("out.jsonl").read_bytes() == before
    assert shell(*batch).code == 0
    Path("out.jsonl").unlink()
    assert shell(*batch, "--accept", "certified").code == 0
    many = len(shell("runs", "list", "--json").json)
    assert shell(*batch, "--accept", "certified").code == 0
    assert len(shell("runs", "list", "--json").json) == many, "what it wrote under the certificate stays"


def test_python_result_has_the_guarantee(shell: Shell, certified: Certificate) -> None:
    async def scene() -> tuple[Result[Any], Result[Any]]:
        assert shell.opener is not None
        async with shell.opener(Settings.load({})) as orchestra:
            told, step = orchestra.options(accept="certified"), orchestra.find(NAME)
            sure, unsure = one(known=True, above=certified.threshold), one(known=True, below=certified.threshold)
            return await told.run(step, **towers.inputs(sure)), await told.run(step, **towers.inputs(unsure))

    good, bad = asyncio.run(scene())
    assert (good.guarantees, bad.status) == ({NAME: certified.guarantee}, "abstained")
    with pytest.raises(Abstained, match="under its certificate"):
        _ = bad.output


def test_workflow_file_can_require_its_certificate(shell: Shell) -> None:
    Path("own").mkdir()
    Path("own/towers.yaml").write_text(WORKFLOW.read_text().replace(f"name: {NAME}", "name: towers\naccept: certified"))
    missing = run(shell, 1, of="./own/towers.yaml")
    assert missing.code == 2
    assert "L119: there is no certificate for the workflow 'towers'" in missing.err
    assert "accept: certified" in missing.err
    towers.rows("rows.jsonl", range(400))
    towers.predictions("answers.jsonl", range(400))
    assert certify(shell, "--predictions", "answers.jsonl", of="./own/towers.yaml").code == 0
    made = Certificate.from_bytes(Path("own/towers/certificate.json").read_bytes())
    assert run(shell, one(known=True, above=made.threshold), "--json", of="./own/towers.yaml").json["guarantees"] == {
        "towers": made.guarantee
    }


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("max_output: 64", "max_output: 63", "the card or prompt of 'generative_reader' changed"),
        ("checks: [schema, quote]", "checks: [quote]", "the card or prompt of 'generative_reader' changed"),
    ],
)
def test_changed_agent_voids_the_workflow_certificate(
    shell: Shell, certified: Certificate, old: str, new: str, why: str
) -> None:
    own = Path("agents/generative_reader")
    own.mkdir(parents=True)
    for path in (Path(__file__).parents[2] / "agents/generative_reader").iterdir():
        if path.is_file():
            (own / path.name).write_bytes(path.read_bytes().replace(old.encode(), new.encode()))
        else:
            (own / path.name).symlink_to(path)
    said = run(shell, 1, "--accept", "certified")
    assert said.code == 2
    assert f"V002: the certificate of the workflow '{NAME}' is void: {why} since it was made" in said.err
    assert run(shell, one(known=True), "--json").code == 0, "without a guarantee it runs"


def test_changed_nodes_void_the_certificate_but_a_description_does_not(shell: Shell, certified: Certificate) -> None:
    text = WORKFLOW.read_text()
    Path(f"workflows/{NAME}.yaml").write_text(text.replace("description: Answers", "description: It answers"))
    assert run(shell, one(known=True, above=certified.threshold), "--accept", "certified").code == 0
    Path(f"workflows/{NAME}.yaml").write_text(text.replace("top: 4", "top: 5"))
    assert "is void: its own definition changed since it was made" in run(shell, 1, "--accept", "certified").err


def test_changed_fleet_voids_the_workflow_certificate(shell: Shell, certified: Certificate) -> None:
    Path("configs/nowhere.yaml").write_text(FLEET.replace('revision: "1"', 'revision: "2"'))
    assert "is void: the model of 'generative_reader' changed" in run(shell, 1, "--accept", "certified").err


def test_the_certificate_is_shown(shell: Shell, certified: Certificate) -> None:
    said = shell("certify", NAME)
    assert f"{NAME}: {certified.guarantee}" in said.out
    assert certified.score in said.out
    assert str(FILE) in said.out


def test_too_little_data_is_said_before_anybody_is_asked(shell: Shell) -> None:
    towers.rows("rows.jsonl", range(100))
    said = certify(shell)
    assert said.code == 3
    assert "No certificate, too little data" in said.out
    assert "the agent was not called" in said.out


def test_answers_of_which_none_has_a_score_are_refused_before_they_count(shell: Shell) -> None:
    towers.rows("rows.jsonl", range(100))
    towers.rows("some.jsonl", range(100))
    assert shell("batch", NAME, "-i", "some.jsonl", "-o", "answers.jsonl").code == 0
    said = certify(shell, "--predictions", "answers.jsonl", "--alpha", "0.3")
    assert said.code == 2
    assert "V006: no answer of answers.jsonl has a confidence" in said.err
    assert f"orchestra batch {NAME} --accept 0" in said.err
    assert (FOLDER / "attempts.jsonl").read_text() == ""


def test_certify_workflow_refuses_agent_options(shell: Shell) -> None:
    towers.rows("rows.jsonl", range(10))
    assert "C010: --checks requires an agent" in certify(shell, "--checks", "quote").err
    watched = " ".join(shell("certify", NAME, "--watch").err.split())
    assert "V032: a watch is only possible for agents" in watched
    assert f"orchestra certify {NAME} --data ROWS_OF_TODAY --out ANOTHER_FILE tests its guarantee again" in watched
    assert "V032: --claims are only possible for agents" in certify(shell, "--claims").err
    assert "V029: --accept 2 is not a score" in run(shell, 1, "--accept", "2").err
    assert "L119: there is no certificate for the workflow" in run(shell, 1, "--accept", "certified").err


def test_a_workflow_that_acts_is_certified_by_recorded_answers_alone(shell: Shell) -> None:
    asks = (
        "name: {0}\n"
        "schema: orchestra/v1\n"
        "input: {{question: str}}\n"
        "output: ${{said}}\n"
        "nodes:\n"
        "  said: {{ask: '${{input.question}}'}}\n"
    )
    Path("desk.yaml").write_text(asks.format("desk"))
    Path("rows.jsonl").write_text(
        json.dumps({"id": "1", "input": {"question": "?"}, "expected": {"output": "!"}}) + "\n"
    )
    said = certify(shell, of="./desk.yaml")
    assert said.code == 2
    assert "V030: desk would act once for each row: said asks a person" in said.err
