"""Candidates that the agent could not be asked with: refused before a row is asked, and no try."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy
import pytest
from numpy.typing import NDArray

from orchestra.agent.arrays import packed, unpacked
from orchestra.agent.card import Card
from orchestra.doors import Call, Refused
from orchestra.learn.candidates import check_fits
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


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """With an agent that has learnt nothing yet, and what it could learn."""
    lines = [f"mail {number} about {'a printer' if number % 2 else 'the holidays'},{('HR', 'IT')[number % 2]}" for number in range(80)]
    text = "\n".join(("mail,team", *lines)) + "\n"
    furnish(files={"orchestra.toml": 'fleet = "none"\n', "agents/tickets/agent.yaml": CARD, "mails.csv": text})
    for verb in (("data", "tickets", "mails.csv", "--licence", "own", "--out", "set"), ("train", "tickets", "--data", "set")):
        said = shell("learn", *verb)
        assert said.code == 0, said.out + said.err
    return shell


def promote(shell: Shell, candidate: str, *more: str) -> Said:
    return shell("learn", "promote", "tickets", candidate, "--data", "set", *more)


Layout = dict[str, Any]
Arrays = Mapping[str, NDArray[Any]]


def changed(layout: Callable[[Layout], Layout] = dict, arrays: Callable[[Arrays], Arrays] = dict) -> str:
    """A candidate whose layout and arrays are others, with a digest that holds."""
    shutil.copytree(GOOD, "bad", dirs_exist_ok=True)
    told = json.loads(Path("bad/model.json").read_bytes())
    read = unpacked(Card.load(Path("agents/tickets")).varied(folder=Path("bad").resolve()), told["arrays"], told["sha256"])
    text, data = packed(layout(told), arrays(read))
    Path("bad/model.json").write_text(text)
    Path("bad/weights.npz").write_bytes(data)
    return "bad"


@pytest.mark.parametrize(
    ("layout", "arrays", "told"),
    [
        (lambda had: {**had, "auto_map": {"AutoModel": "evil.Model"}}, dict, "auto_map"),
        (lambda had: {**had, "features": {**had["features"], "auto_map": {"AutoModel": "evil.Model"}}}, dict, "features.auto_map"),
        (lambda had: {**had, "labels": had["labels"][:1]}, dict, "labels"),
        (lambda had: {**had, "labels": [*had["labels"], "HR"]}, dict, "other shapes"),
        (dict, lambda had: {**had, "weights": had["weights"][:-1]}, "other shapes"),
        (dict, lambda had: {name: array for name, array in had.items() if name != "idf"}, "idf"),
        (dict, lambda had: {**had, "idf": had["idf"] * numpy.float32("nan")}, "not finite"),
    ],
)
def test_one_that_could_not_be_read_is_refused_with_the_reason_and_is_no_try(
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
def test_an_encoder_whose_layouts_say_what_none_reads_is_refused(tmp_path: Path, file: str) -> None:
    card = Card.load(AGENTS / "banking_intent")
    folder = intents(tmp_path / "new")
    check_fits(card, folder)
    told = {**json.loads((folder / file).read_bytes()), "auto_map": {"AutoModel": "evil.Model"}}
    (folder / file).write_text(json.dumps(told))
    with pytest.raises(Exception, match="auto_map" if file == "model.json" else "linear.json is not the file") as caught:
        check_fits(card, folder)
    assert getattr(caught.value, "code", "") == "A011"


def test_one_that_fails_on_every_row_is_not_taken_and_is_no_try(shell: Shell) -> None:
    def answer(call: Call) -> Any:
        if call.name == "answerer_candidate":
            return Refused(code="M001", reason="not JSON")
        return {"answer": "1889", "quote": "in 1889"}

    furnish()
    lines = [{"id": f"r{n}", "input": {"question": str(n), "context": "in 1889"}, "expected": {"answer": "1889"}} for n in range(4)]
    Path("rows.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    Path("agents/answerer/evaluation.yaml").write_text("metrics: {EM: {of: exact, field: answer}}\n")
    adapter(Path("new/adapter"), "new")
    shell.opener = Simulated(answer)
    for more in ((), ("--force",)):
        said = shell("learn", "promote", "answerer", "new/adapter", "--data", "rows.jsonl", *more)
        assert (said.code, "N306: the candidate has failed on every row: not JSON" in said.err) == (2, True), said.err
    assert not Path("agents/answerer/promotions.jsonl").exists()


def test_a_first_promotion_of_arrays_can_be_sent_back_to_nothing(shell: Shell) -> None:
    files = sorted(path.name for path in Path("agents/tickets").iterdir())
    assert promote(shell, GOOD, "--force").code == 0
    assert shell("learn", "rollback", "tickets", "--json").json["taken"] == ""
    assert sorted(path.name for path in Path("agents/tickets").iterdir()) == [*files, LOG.name]
    assert "tickets is not trained yet" in shell("run", "tickets", "-i", "mail=hello").out
    assert shell("learn", "rollback", "tickets").err.startswith("N303: every promotion of tickets is rolled back")
    assert promote(shell, GOOD, "--force").code == 0
    assert '"team":"HR"' in shell("run", "tickets", "-i", "mail=the holidays", "--json").out.replace(" ", "")
