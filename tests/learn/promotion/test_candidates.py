"""Candidates that the agent cannot be called with: refused before any row is evaluated, and not counted."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import numpy
import pytest
from numpy.typing import NDArray

from orchestra.agents.card import Card
from orchestra.agents.inference.array_files import load_arrays, pack_arrays
from orchestra.core.protocols import CallError, CallRequest
from orchestra.fleet.config import parse_config
from orchestra.fleet.supervisor.folders import Folders
from orchestra.fleet.weights import weights
from orchestra.learn.compatibility import skill_digest
from orchestra.learn.promotion.candidates import check_compatible, check_servable
from tests.cli.shell import Said, Shell
from tests.cli.stage import Simulated, furnish

from .test_promotion import AGENTS, adapter, intents

pytestmark = pytest.mark.slow

CARD = """\
schema: orchestra/v1
name: tickets
kind: sklearn
input: {mail: str}
output: {team: "Literal['IT', 'HR']"}
"""
LOG = Path("agents/tickets/promotions.jsonl")
GOOD = "set/tickets-trained"
CERTIFY = ("certify", "tickets", "--data", "certified.jsonl")


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A project with an untrained agent and a candidate for it."""
    lines = [
        f"mail {number} about {'a printer' if number % 2 else 'the holidays'},{('HR', 'IT')[number % 2]}"
        for number in range(80)
    ]
    text = "\n".join(("mail,team", *lines)) + "\n"
    furnish(files={"orchestra.toml": 'fleet = "none"\n', "agents/tickets/agent.yaml": CARD, "mails.csv": text})
    for verb in (
        ("data", "tickets", "mails.csv", "--licence", "own", "--out", "set"),
        ("train", "tickets", "--data", "set"),
    ):
        said = shell("learn", *verb)
        assert said.code == 0, said.out + said.err
    return shell


def promote(shell: Shell, candidate: str, *more: str) -> Said:
    return shell("learn", "promote", "tickets", candidate, "--data", "set", *more)


Layout = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


def changed(layout: Callable[[Layout], Layout] = dict, arrays: Callable[[Arrays], Arrays] = dict) -> str:
    """A candidate with modified model files and arrays and a matching digest."""
    shutil.copytree(GOOD, "bad", dirs_exist_ok=True)
    told = json.loads(Path("bad/model.json").read_bytes())
    read = load_arrays(
        Card.load(Path("agents/tickets")).with_settings(folder=Path("bad").resolve()), told["arrays"], told["sha256"]
    )
    text, data = pack_arrays(layout(told), arrays(read))
    Path("bad/model.json").write_text(text)
    Path("bad/weights.npz").write_bytes(data)
    return "bad"


@pytest.mark.parametrize(
    ("layout", "arrays", "told"),
    [
        (lambda had: {**had, "auto_map": {"AutoModel": "evil.Model"}}, dict, "auto_map"),
        (
            lambda had: {**had, "features": {**had["features"], "auto_map": {"AutoModel": "evil.Model"}}},
            dict,
            "features.auto_map",
        ),
        (lambda had: {**had, "labels": had["labels"][:1]}, dict, "labels"),
        (lambda had: {**had, "labels": [*had["labels"], "HR"]}, dict, "other shapes"),
        (dict, lambda had: {**had, "weights": had["weights"][:-1]}, "other shapes"),
        (
            dict,
            lambda had: {name: array for name, array in had.items() if name != "idf"},
            "there is no 'idf' among its arrays",
        ),
        (dict, lambda had: {**had, "idf": had["idf"] * numpy.float32("nan")}, "not finite"),
    ],
)
def test_candidate_unreadable_refused_and_not_counted(
    shell: Shell, layout: Callable[[Layout], Layout], arrays: Callable[[Arrays], Arrays], told: str
) -> None:
    bad = changed(layout, arrays)
    for said in (
        promote(shell, bad),
        promote(shell, bad, "--force"),
        shell("learn", "evaluate", "tickets", "--candidate", bad, "--data", "set"),
    ):
        assert (said.code, said.err.startswith("A011: tickets: "), told in said.err) == (2, True, True), said.err
    assert not LOG.exists()
    assert "candidate 1 on these rows" in promote(shell, GOOD).out


@pytest.mark.parametrize("file", ["model.json", "linear.json"])
def test_candidate_unknown_model_format_refused(tmp_path: Path, file: str) -> None:
    card = Card.load(AGENTS / "banking_intent")
    folder = intents(tmp_path / "new")
    check_compatible(card, folder)
    told = {**json.loads((folder / file).read_bytes()), "auto_map": {"AutoModel": "evil.Model"}}
    (folder / file).write_text(json.dumps(told))
    with pytest.raises(
        Exception, match="auto_map" if file == "model.json" else "linear.json does not have the digest"
    ) as caught:
        check_compatible(card, folder)
    assert getattr(caught.value, "code", "") == "A011"


def answerers(answer: Callable[[CallRequest], Any], count: int = 4) -> Simulated:
    """Another project with a model agent, rows and a candidate; and its workers."""
    furnish()
    lines = [
        {"id": f"r{n}", "input": {"question": str(n), "context": "in 1889"}, "expected": {"answer": "1889"}}
        for n in range(count)
    ]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("agents/answerer/evaluation.yaml").write_text("metrics: {EM: {of: exact, field: answer}}\n")
    adapter(Path("new/adapter"), "new")
    return Simulated(answer)


def test_candidate_failing_every_row_not_counted(shell: Shell) -> None:
    def answer(call: CallRequest) -> Any:
        if call.name == "answerer_candidate":
            return CallError(code="M001", reason="not JSON")
        return {"answer": "1889", "quote": "in 1889"}

    shell.opener = answerers(answer)
    for more in ((), ("--force",)):
        said = shell("learn", "promote", "answerer", "new/adapter", "--data", "rows.jsonl", *more)
        assert (said.code, "N306: the candidate failed on every row: not JSON" in said.err) == (2, True), said.err
    assert not Path("agents/answerer/promotions.jsonl").exists()


@pytest.mark.parametrize(
    ("manifest", "told"),
    [
        ({"base": "qwen3-0.6b"}, "it is for the base 'qwen3-0.6b', and the server 'it' has 'm'"),
        ({"sha256": "0" * 64}, "SHA-256"),
        ({"rank": 9}, "rank"),
    ],
)
def test_candidate_other_base_refused_before_rows(shell: Shell, manifest: Mapping[str, Any], told: str) -> None:
    shell.opener = opener = answerers(lambda _: {"answer": "1889", "quote": "in 1889"})
    Path("new/adapter/manifest.json").write_text(json.dumps(manifest))
    for command in (("promote",), ("promote", "--force"), ("evaluate", "--candidate")):
        said = shell("learn", command[0], "answerer", *command[1:], "new/adapter", "--data", "rows.jsonl")
        assert (said.code, "F222: the adapter in new/adapter does not fit: " in said.err, told in said.err) == (
            1,
            True,
            True,
        ), said.err
    assert not Path("agents/answerer/promotions.jsonl").exists()
    assert opener.workers is None or not opener.workers.calls


def test_candidate_of_another_agent_needs_force(shell: Shell) -> None:
    shell.opener = answerers(lambda _: {"answer": "1889", "quote": "in 1889"})
    manifest, told = (
        Path("new/adapter/manifest.json"),
        "it was trained for the agent 'caller', with other types or another prompt",
    )
    manifest.write_text('{"agent": "caller", "skill": "0", "base": "m"}')
    promoted = ("learn", "promote", "answerer", "new/adapter", "--data", "rows.jsonl")
    said = shell(*promoted)
    assert (said.code, "F222" in said.err, told in said.err, "--force" in said.err) == (1, True, True, True), said.err
    assert not Path("agents/answerer/promotions.jsonl").exists()
    renamed = {"agent": "reader", "skill": skill_digest(Card.load(Path("agents/answerer"))), "base": "m"}
    manifest.write_text(json.dumps(renamed))
    assert shell(*promoted).code == 1, (
        "the types and the prompt are the same under another name; and then it is no better"
    )
    manifest.write_text('{"agent": "caller", "skill": "0", "base": "m"}')
    said = shell(*promoted, "--force")
    assert (said.code, f"the candidate: {told}" in said.err) == (0, True), said.err


def test_candidate_of_other_weights_same_name_reported(tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    record = weights.WeightsManifest(licence="none", source={}, files={})
    (tmp_path / "base" / weights.MANIFEST).write_bytes(msgspec.json.encode(record))
    told = {
        "model": "m",
        "weights": {"licence": "none", "sources": [{"folder": str(tmp_path / "base")}]},
        "max_model_len": 100,
    }
    fleet = {"schema": "orchestra/fleet/v1", "name": "one", "servers": {"it": told}, "models": {"base": "it"}}
    card = Card.declare("answerer", input={"properties": {"text": {}}}, output={"type": "string"}, prompt="{{ text }}")
    folder, found = adapter(tmp_path / "adapter", "new"), []
    for bases in ([], [record.digest], ["0" * 32]):
        (folder / "manifest.json").write_text(json.dumps({"base": "m", "bases": bases}))
        found.append(
            check_servable(
                card,
                folder,
                parse_config(json.dumps(fleet), "fleet.yaml"),
                weights.ModelStore(Folders(tmp_path, tmp_path, tmp_path)),
            )
        )
    assert found[:2] == [[], []]
    assert found[2] == [
        f"it was trained on weights of 'm' with the digest {'0' * 32}, "
        f"and those of the server 'it' have {record.digest}"
    ]


def test_rollback_first_promotion_leaves_no_weights(shell: Shell) -> None:
    files = sorted(path.name for path in Path("agents/tickets").iterdir())
    assert promote(shell, GOOD, "--force").code == 0
    assert shell("learn", "rollback", "tickets", "--json").json["new_digest"] == ""
    assert sorted(path.name for path in Path("agents/tickets").iterdir()) == [*files, LOG.name]
    assert "tickets is not trained yet" in shell("run", "tickets", "-i", "mail=hello").out
    assert shell("learn", "rollback", "tickets").err.startswith("N303: every promotion of tickets is rolled back")
    assert promote(shell, GOOD, "--force").code == 0
    assert '"team":"HR"' in shell("run", "tickets", "-i", "mail=the holidays", "--json").out.replace(" ", "")


def test_promote_reports_certificate_void_only_if_it_is(shell: Shell) -> None:
    """A certificate is bound to the weights, and applies again when they are promoted again."""
    other = changed(arrays=lambda had: {**had, "weights": had["weights"] * numpy.float32(1.5)})
    assert promote(shell, GOOD, "--force").code == 0
    rows, answers = [], []
    for number in range(1000):
        row = {"id": f"c{number}", "input": {"mail": f"letter {number}"}, "expected": {"team": "IT"}}
        output = {"team": "IT" if number > 300 else "HR"}
        rows.append(row)
        answers.append({"id": row["id"], "output": output, "score": number / 1000})
    for name, lines in (("certified.jsonl", rows), ("answers.jsonl", answers)):
        Path(name).write_text("".join(json.dumps(line) + "\n" for line in lines))
    made = shell(*CERTIFY, "--checks", "confidence", "--predictions", "answers.jsonl")
    assert made.code == 0, made.out + made.err
    void = promote(shell, other, "--force").out
    assert "V002: the certificate of 'tickets' is void: " in void
    assert f"its adapter or arrays changed since it was made: orchestra {' '.join(CERTIFY[:2])}" in void
    again = promote(shell, GOOD, "--force")
    assert (again.code, "tickets has" in again.out, "void" in again.out) == (0, True, False), again.out
