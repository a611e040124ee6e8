"""Training rows of an agent, under any name: no guarantee and no combination uses them."""

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
    """CSV with random labels: they cannot be learnt, only memorised."""
    chance = random.Random(seed)
    drawn = [
        f"mail {' '.join(str(chance.randrange(10**6)) for _ in range(4))},{chance.choice(('IT', 'HR'))}"
        for _ in range(count)
    ]
    return "\n".join(("mail,department", *drawn)) + "\n"


@pytest.fixture
def shell(shell: Shell) -> Shell:
    """A project with an agent that was trained on three quarters of 320 rows, and promoted."""
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


def test_certify_training_rows_refused(shell: Shell) -> None:
    said = certify(shell, "cset/train.jsonl")
    assert said.code == 2
    assert "N205" in said.err
    assert "train split" in said.err
    assert not Path("agents/coin/certificate.json").exists()


def test_certify_renamed_reordered_training_rows_refused(shell: Shell) -> None:
    lines = [line for part in ("test", "train", "tune") for line in Path(f"cset/{part}.jsonl").read_text().splitlines()]
    Path("all.jsonl").write_text("\n".join(lines) + "\n")
    said = certify(shell, "all.jsonl")
    assert said.code == 2
    assert "N205" in said.err
    assert "train split" in said.err


def test_certify_other_split_of_training_rows_refused(shell: Shell) -> None:
    assert (
        shell(
            "learn", "data", "coin", "coin.csv", "--licence", "own", "--out", "other", "--tune", "0", "--test", "0.9"
        ).code
        == 0
    )
    assert "N205" in certify(shell, "other").err


def test_certify_held_out_rows_accepted(shell: Shell) -> None:
    assert certify(shell, "cset").code in (0, 3)
    assert certify(shell, "cset/test.jsonl").code in (0, 3)


def test_certify_few_training_rows_reported(shell: Shell) -> None:
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


def test_certify_small_domain_reported(shell: Shell) -> None:
    known = [json.loads(line) for line in Path("cset/train.jsonl").read_text().splitlines()[:12]]
    drawn = [{**known[at % 12], "id": str(at)} for at in range(120)]
    Path("drawn.jsonl").write_text("".join(json.dumps(row) + "\n" for row in drawn))
    said = certify(shell, "drawn.jsonl")
    assert said.code in (0, 3), said.err
    assert "120 of 120 rows are among those" in said.err


def test_certify_repeated_training_rows_refused(shell: Shell) -> None:
    known = [json.loads(line) for line in Path("cset/train.jsonl").read_text().splitlines()]
    Path("thrice.jsonl").write_text(
        "".join(json.dumps({**row, "id": f"{row['id']} {n}"}) + "\n" for row in known for n in range(3))
    )
    said = certify(shell, "thrice.jsonl")
    assert (said.code, said.err[:4]) == (2, "N205")


def test_combine_training_rows_refused(shell: Shell) -> None:
    said = shell("learn", "combine", "coin", "--data", "cset/train.jsonl")
    assert said.code == 2
    assert "N205" in said.err


def test_promote_training_rows_of_either_arm_refused(shell: Shell) -> None:
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


def test_evaluate_training_rows_reported(shell: Shell) -> None:
    said = shell("learn", "evaluate", "coin", "--data", "cset", "--part", "train", "--candidate", "cset/coin-trained")
    assert said.code == 0, said.err
    assert "rows are among those that coin was trained on (cset, train split)" in said.out
    assert "rows are among those that the candidate was trained on" in said.out
    assert "trained on" not in shell("learn", "evaluate", "coin", "--data", "cset").out


def test_overlap_without_record_uses_manifest(shell: Shell) -> None:
    RECORD.unlink()
    said = certify(shell, "cset/train.jsonl")
    assert said.code == 2
    assert "the train split of cset" in said.err
    assert certify(shell, "cset").code in (0, 3)


def test_provenance_record_of_other_weights_ignored(shell: Shell) -> None:
    card = Card.load(Path("agents/coin"))
    assert provenance.read_provenance(card, Path("agents/coin")) is not None
    told = json.loads(RECORD.read_text())
    RECORD.write_text(json.dumps({**told, "weights_digest": "of another"}))
    assert provenance.read_provenance(card, Path("agents/coin")) is None


def test_provenance_warm_start_merges_records(shell: Shell) -> None:
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


def test_provenance_many_rows_keep_comparable_sample(monkeypatch: pytest.MonkeyPatch) -> None:
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
    assert not part.overlaps([seen[0], *unseen[:4], *unseen[-200:]])  # a fifth of the five that can be found, by chance
    assert part.overlaps([*seen[:3], *unseen[:2], *unseen[-200:]])
    assert row_fingerprints.RowFingerprints.of(many, 1_000).overlaps([*many[:2], *unseen[-10:]])


def test_calibrate_uses_tune_split_only(shell: Shell) -> None:
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


def test_overlap_reports_each_split(shell: Shell) -> None:
    card, lines = (
        Card.load(Path("agents/coin")),
        [Path(f"cset/{part}.jsonl").read_text().splitlines()[:3] for part in ("train", "tune")],
    )
    Path("both.jsonl").write_text("\n".join(line for each in lines for line in each) + "\n")
    found = provenance.find_training_overlap(card, read_evaluation_set(Path("both.jsonl")), Path("both.jsonl"))
    ends = ["coin was trained on (cset, train split)", "coin was trained on (cset, tune split)"]
    assert [one.message for one in found] == [f"3 of 6 rows are among those that {end}" for end in ends]


def test_promote_other_kind_of_agent_refused(shell: Shell) -> None:
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
    assert said.err.startswith("A011: coin: weights.npz does not have the digest")
    assert "orchestra learn train coin" in said.err
    said = shell("learn", "promote", "coin", "nowhere", "--data", "cset")
    assert "there is no model.json" in said.err
    assert Path("agents/coin/agent.yaml").read_bytes() == card


def test_train_classifier_unknown_options_refused(shell: Shell) -> None:
    said = shell("learn", "train", "coin", "--data", "cset", "--rank", "8")
    assert (said.code, "N107: --rank does not apply to coin" in said.err) == (2, True)


def test_run_untrained_agent_reports_it(shell: Shell) -> None:
    Path("agents/coin/model.json").unlink()
    said = shell("run", "coin", "-i", "mail=hello")
    assert "coin is not trained yet" in said.err + said.out
    assert "orchestra learn train coin" in said.err + said.out
