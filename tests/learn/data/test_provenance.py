"""Rows that an agent has learnt from, by whatever name: no promise, and no combination, is made on them."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.learn.data import provenance
from orchestra.learn.data.dataset import Dataset, fingerprint
from orchestra.learn.data.provenance import TrainingSplit
from orchestra.learn.evaluation.rows import read_evaluation_set
from orchestra.verification.certificates import row_fingerprints
from tests.cli.shell import Said, Shell
from tests.cli.stage import furnish

pytestmark = pytest.mark.slow

CARD = """\
schema: orchestra/v1
name: coin
kind: sklearn
input: {mail: str}
output: {department: "Literal['IT', 'HR']"}
"""
RECORD = Path("agents/coin/learnt_from.json")


def rows(count: int, seed: int) -> str:
    """CSV whose labels are drawn: nobody can learn them, and everybody can keep them in mind."""
    chance = random.Random(seed)
    drawn = [
        f"mail {' '.join(str(chance.randrange(10**6)) for _ in range(4))},{chance.choice(('IT', 'HR'))}"
        for _ in range(count)
    ]
    return "\n".join(("mail,department", *drawn)) + "\n"


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """With an agent that was trained on three quarters of 320 rows, and promoted."""
    furnish(
        files={
            "orchestra.toml": 'fleet = "none"\n',
            "agents/coin/agent.yaml": CARD,
            "coin.csv": rows(320, 1),
            "new.csv": rows(300, 2),
        }
    )
    for verb in (
        ("data", "coin", "coin.csv", "--licence", "own", "--out", "cset", "--tune", "0.1", "--test", "0.2"),
        ("train", "coin", "--data", "cset"),
        ("promote", "coin", "cset/coin-trained", "--data", "cset", "--force"),
    ):
        said = shell("learn", *verb)
        assert said.code == 0, said.out + said.err
    return shell


def certify(shell: Shell, data: str, *more: str) -> Said:
    return shell("certify", "coin", "--data", data, *more)


def test_no_promise_is_made_on_rows_that_the_agent_was_trained_on(shell: Shell) -> None:
    said = certify(shell, "cset/train.jsonl")
    assert said.code == 2
    assert "N205" in said.err
    assert "train part" in said.err
    assert not Path("agents/coin/certificate.json").exists()


def test_neither_under_another_name_nor_in_another_order_with_rows_that_are_new(shell: Shell) -> None:
    lines = [line for part in ("test", "train", "tune") for line in Path(f"cset/{part}.jsonl").read_text().splitlines()]
    Path("all.jsonl").write_text("\n".join(lines) + "\n")
    said = certify(shell, "all.jsonl")
    assert said.code == 2
    assert "N205" in said.err
    assert "train part" in said.err


def test_nor_on_another_division_of_the_same_rows(shell: Shell) -> None:
    assert (
        shell(
            "learn", "data", "coin", "coin.csv", "--licence", "own", "--out", "other", "--tune", "0", "--test", "0.9"
        ).code
        == 0
    )
    assert "N205" in certify(shell, "other").err


def test_rows_that_were_held_out_are_taken(shell: Shell) -> None:
    assert certify(shell, "cset").code in (0, 3)
    assert certify(shell, "cset/test.jsonl").code in (0, 3)


def test_a_few_rows_that_are_known_are_told(shell: Shell) -> None:
    assert (
        shell(
            "learn", "data", "coin", "new.csv", "--licence", "own", "--out", "new", "--tune", "0", "--test", "0.9"
        ).code
        == 0
    )
    known = Path("cset/train.jsonl").read_text().splitlines()[:3]
    Path("mixed.jsonl").write_text(Path("new/test.jsonl").read_text() + "\n".join(known) + "\n")
    said = certify(shell, "mixed.jsonl")
    assert said.code in (0, 3), said.err
    assert "3 of" in said.err
    assert "was trained on (cset, train split)" in said.err


def test_of_a_domain_that_a_training_knows_whole_it_is_told(shell: Shell) -> None:
    known = [json.loads(line) for line in Path("cset/train.jsonl").read_text().splitlines()[:12]]
    drawn = [{**known[at % 12], "id": str(at)} for at in range(120)]
    Path("drawn.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))
    said = certify(shell, "drawn.jsonl")
    assert said.code in (0, 3), said.err
    assert "120 of 120 rows are among those" in said.err


def test_rows_that_it_was_trained_on_are_refused_however_often_they_are_written_down(shell: Shell) -> None:
    known = [json.loads(line) for line in Path("cset/train.jsonl").read_text().splitlines()]
    Path("thrice.jsonl").write_text(
        "".join(json.dumps({**row, "id": f"{row['id']} {n}"}) + "\n" for row in known for n in range(3))
    )
    said = certify(shell, "thrice.jsonl")
    assert (said.code, said.err[:4]) == (2, "N205")


def test_checks_are_combined_on_none_either(shell: Shell) -> None:
    said = shell("learn", "combine", "coin", "--data", "cset/train.jsonl")
    assert said.code == 2
    assert "N205" in said.err


def test_no_candidate_is_held_against_an_agent_on_rows_that_either_was_trained_on(shell: Shell) -> None:
    seen = ("learn", "promote", "coin", "cset/coin-trained", "--data", "cset/train.jsonl")
    assert shell(*seen).err.startswith("N304")
    for verb in (
        ("data", "coin", "new.csv", "--licence", "own", "--out", "nset", "--tune", "0.1", "--test", "0.2"),
        ("train", "coin", "--data", "nset"),
    ):
        assert shell("learn", *verb).code == 0
    candidate = ("learn", "promote", "coin", "nset/coin-trained", "--data")
    said = shell(*candidate, "nset/train.jsonl")
    assert (said.code, "the candidate was trained on (nset, train split)" in said.err) == (2, True), said.err
    said = shell(*candidate, "cset/train.jsonl")
    assert (said.code, "coin was trained on (cset, train split)" in said.err) == (2, True), said.err
    assert shell(*candidate, "nset").code in (0, 1)
    assert shell(*candidate, "nset/train.jsonl", "--force").code == 0
    assert "the candidate was trained on" in Path("agents/coin/promotions.jsonl").read_text()


def test_an_evaluation_says_that_the_agent_knows_its_rows(shell: Shell) -> None:
    said = shell("learn", "evaluate", "coin", "--data", "cset", "--part", "train", "--candidate", "cset/coin-trained")
    assert said.code == 0, said.err
    assert "rows are among those that coin was trained on (cset, train split)" in said.out
    assert "rows are among those that the candidate was trained on" in said.out
    assert "trained on" not in shell("learn", "evaluate", "coin", "--data", "cset").out


def test_of_what_was_trained_before_there_were_records_the_part_beside_its_manifest_is_refused(shell: Shell) -> None:
    RECORD.unlink()
    said = certify(shell, "cset/train.jsonl")
    assert said.code == 2
    assert "the train part of cset" in said.err
    assert certify(shell, "cset").code in (0, 3)


def test_a_record_beside_something_else_is_none(shell: Shell) -> None:
    card = Card.load(Path("agents/coin"))
    assert provenance.read_provenance(card, Path("agents/coin")) is not None
    told = json.loads(RECORD.read_text())
    RECORD.write_text(json.dumps({**told, "weights_digest": "of another"}))
    assert provenance.read_provenance(card, Path("agents/coin")) is None


def test_a_training_that_goes_on_from_another_has_learnt_from_both(shell: Shell) -> None:
    card, folder = Card.load(Path("agents/coin")), Path("agents/coin")
    assert (
        shell(
            "learn", "data", "coin", "new.csv", "--licence", "own", "--out", "new", "--tune", "0", "--test", "0.5"
        ).code
        == 0
    )
    provenance.write_provenance(
        card, Dataset.load(Path("new")), folder, provenance.read_provenance(card, Path("cset/coin-trained"))
    )
    found = provenance.read_provenance(card, folder)
    assert found is not None
    assert found.data == "cset, new"
    provenance.write_provenance(card, Dataset.load(Path("new")), folder, found)
    assert (again := provenance.read_provenance(card, folder)) is not None
    assert again.data == found.data, "a set is named once"
    for data in ("cset", "new"):
        assert set(marks(data)) <= set(found.train.lowest)


def marks(data: str) -> list[str]:
    return [
        fingerprint(row.input)[: row_fingerprints.FINGERPRINT_LENGTH] for row in Dataset.load(Path(data)).rows["train"]
    ]


def test_of_many_rows_a_sample_is_kept_and_the_same_sample_is_held_against_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_fingerprints, "MAX_KEPT", 50)
    many = [fingerprint(number)[: row_fingerprints.FINGERPRINT_LENGTH] for number in range(1_000)]
    part = row_fingerprints.RowFingerprints.of(many)
    assert (part.count, len(part.lowest)) == (1_000, 50)
    assert part.count_matches(many) == (50, 50)
    looked, found = part.count_matches(
        [fingerprint(f"new {number}")[: row_fingerprints.FINGERPRINT_LENGTH] for number in range(1_000)]
    )
    assert 20 < looked < 100
    assert found == 0
    seen = [one for one in many if one <= part.lowest[-1]]
    unseen = sorted(fingerprint(f"new {number}")[: row_fingerprints.FINGERPRINT_LENGTH] for number in range(1_000))
    assert not part.overlaps(
        [seen[0], *unseen[:4], *unseen[-200:]]
    )  # a fifth of the five that can be looked for, by chance
    assert part.overlaps([*seen[:3], *unseen[:2], *unseen[-200:]])
    assert row_fingerprints.RowFingerprints.of(many, 1_000).overlaps([*many[:2], *unseen[-10:]])


def test_probabilities_are_calibrated_on_the_tune_part_and_on_no_row_of_the_train_part(shell: Shell) -> None:
    card, data = Card.load(Path("agents/coin")), Path("cset")
    assert provenance.find_training_overlap(card, read_evaluation_set(data, "tune"), data, ("train",)) == []
    held: tuple[tuple[TrainingSplit, tuple[TrainingSplit, ...]], ...] = (
        ("train", ("train",)),
        ("tune", provenance.TRAINING_SPLITS),
    )
    for part, parts in held:
        with pytest.raises(InputError) as caught:
            provenance.refuse_training_overlap(
                provenance.find_training_overlap(card, read_evaluation_set(data, part), data, parts)
            )
        assert caught.value.code == "N205"


def test_of_rows_of_both_parts_each_is_told(shell: Shell) -> None:
    card, lines = (
        Card.load(Path("agents/coin")),
        [Path(f"cset/{part}.jsonl").read_text().splitlines()[:3] for part in ("train", "tune")],
    )
    Path("both.jsonl").write_text("\n".join(line for each in lines for line in each) + "\n")
    found = provenance.find_training_overlap(card, read_evaluation_set(Path("both.jsonl")), Path("both.jsonl"))
    ends = ["coin was trained on (cset, train split)", "coin was trained on (cset, tune split)"]
    assert [one.message for one in found] == [f"3 of 6 rows are among those that {end}" for end in ends]


def test_what_another_kind_of_agent_has_learnt_is_no_candidate(shell: Shell) -> None:
    trained, held = Path("cset/coin-trained"), ("learn", "promote", "coin", "other", "--data", "cset", "--force")
    card = Path("agents/coin/agent.yaml").read_bytes()
    for had, given, told in (
        ('"department"', '"team"', "it writes 'team'"),
        ('"mail"', '"text"', "it reads 'text'"),
        ('"HR"', '"PR"', "it gives 'PR'"),
        ("linear-text", "tagger", "its format is orchestra/tagger/v1"),
    ):
        shutil.copytree(trained, "other", dirs_exist_ok=True)
        Path("other/model.json").write_text((trained / "model.json").read_text().replace(had, given))
        said = shell(*held)
        assert (said.code, said.err.startswith("A011"), told in said.err) == (2, True, True), said.err
    shutil.copytree(trained, "other", dirs_exist_ok=True)
    Path("other/weights.npz").write_bytes(b"PK")
    said = shell(*held)
    assert said.err.startswith("A011: coin: weights.npz is not the file")
    assert "orchestra learn train coin" in said.err
    said = shell("learn", "promote", "coin", "nowhere", "--data", "cset")
    assert "there is no model.json" in said.err
    assert Path("agents/coin/agent.yaml").read_bytes() == card


def test_options_that_a_classifier_does_not_have_are_refused(shell: Shell) -> None:
    said = shell("learn", "train", "coin", "--data", "cset", "--rank", "8")
    assert (said.code, "N107: --rank is not for coin" in said.err) == (2, True)


def test_an_agent_that_is_not_trained_yet_says_so_when_it_is_run(shell: Shell) -> None:
    Path("agents/coin/model.json").unlink()
    said = shell("run", "coin", "-i", "mail=hello")
    assert "coin is not trained yet" in said.err + said.out
    assert "orchestra learn train coin" in said.err + said.out
