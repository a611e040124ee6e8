"""`orchestra learn train` for classifiers of kind `encoder`: from a CSV of texts and labels to an agent that answers;
on a tiny encoder.
"""

from __future__ import annotations

import json
import re
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("sklearn")

from orchestra.agents.card import Card
from orchestra.core.errors import InputError
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.encoders.classifier import EPOCHS_FILE, MAX_EPOCHS
from orchestra.learn.encoders.intents import ClassifierTraining, run
from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.linear import ClassifierHyperparameters, fit_classifier
from orchestra.testing.tiny_encoder import write_encoder
from tests.cli.shell import Shell
from tests.learn.encoders.test_classifier import CARD, PLAIN, WORDS, own, vocabulary

PLAIN_CARD = PLAIN.replace("enum: [balance, lost]", "enum: [balance, transfer, lost]").replace(
    "kind: encoder", "kind: encoder\nmodel: tiny"
)
CSV = "text,intent\n" + "".join(f"{row.text},{row.label}\n" for row in own() if row.label in WORDS)


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that cards may name."""
    folder = write_encoder(tmp_path / "encoder", vocabulary())
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    return folder


def make_card(text: str = PLAIN_CARD, place: Path = Path()) -> Card:
    folder = place / "agents" / "desk"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text)
    return Card.load(folder)


def training(
    tmp_path: Path, base: Path, text: str = PLAIN_CARD, rows: list[DatasetRow] | None = None
) -> ClassifierTraining:
    card = make_card(text, tmp_path)
    made = [
        DatasetRow(str(at), {"text": row.text}, {"intent": row.label}, str(at))
        for at, row in enumerate(own())
        if row.label in WORDS
    ]
    data = Dataset.build("rows", "desk", contract_digest(card), "CC0", (), {"train": made if rows is None else rows})
    return ClassifierTraining(card=card, data=data, base=base, cache=tmp_path / "cache", epochs=2)


def quiet(step: TrainingStep) -> None:
    """A progress callback that does nothing."""


def test_intents_csv_to_promoted_encoder(shell: Shell, base: Path) -> None:
    make_card()
    Path("rows.csv").write_text(CSV)
    assert (
        shell(
            "learn", "data", "desk", "rows.csv", "--out", "set", "--licence", "own", "--tune", "0", "--test", "0.3"
        ).code
        == 0
    )
    said = shell("learn", "train", "desk", "--data", "set", "--epochs", "2")
    assert said.code == 0, said.err
    assert said.out.startswith("set/desk-trained: right on the texts that were left out: members ")
    layout = json.loads(Path("set/desk-trained/model.json").read_text())
    assert (layout["members"], layout["data"][0]["licence"], sorted(layout["labels"])) == (1, "own", sorted(WORDS))
    promoted = shell("learn", "promote", "desk", "set/desk-trained", "--data", "set")
    assert promoted.code == 0, promoted.out + promoted.err
    assert sorted(path.name for path in Path("agents/desk").iterdir()) == sorted(
        [
            "agent.yaml",
            "model.json",
            "adapters.npz",
            "learnt_from.json",
            "linear.json",
            "linear.npz",
            "promotions.jsonl",
            "training.json",
            "loss.svg",
        ]
    )
    said_of = json.loads(Path("agents/desk/training.json").read_text())
    assert (
        said_of["data"].split()[1]
        == layout["data"][0]["digest"]
        == json.loads(Path("set/manifest.json").read_text())["digest"]
    )
    assert said_of["sha256"] == sha256(Path("agents/desk/model.json").read_bytes()).hexdigest()
    assert said_of["command"] == "orchestra learn train desk --data DATA --epochs 2 --seed 0"
    assert (said_of["rank"], said_of["curve"][-1]["step"]) == (32, said_of["steps"])
    assert re.search(rf"^step {said_of['steps']}/{said_of['steps']}, loss [\d.]+, 0.00 s left$", said.err, re.MULTILINE)
    assert shell("run", "desk", "-i", "text=how much money is left", "--json").json["output"] == {"intent": "balance"}
    assert shell("learn", "evaluate", "desk", "--data", "set", "--require", "intent right >= 0.8").code == 0
    assert shell("learn", "train", "desk", "--data", "set", "--epochs", "2", "--seed", "3", "--out", "other").code == 0
    assert shell("learn", "promote", "desk", "other", "--data", "set", "--force").code == 0
    first = json.loads(Path("agents/desk/promotions.jsonl").read_text().splitlines()[0])["new_digest"]
    assert shell("run", "desk", "-i", "text=who has stolen my card", "--json").code == 0
    assert shell("learn", "rollback", "desk", "--json").json["new_digest"] == first
    assert shell("run", "desk", "-i", "text=how much money is left", "--json").json["output"] == {"intent": "balance"}
    heard = shell("learn", "data", "desk", "--runs", "--out", "heard", "--licence", "own", "--tune", "0", "--test", "0")
    assert "  train  2 rows in 2 groups\n" in heard.out, "runs of what was there before can be read"


def test_intents_unknown_base_refused(shell: Shell, base: Path) -> None:
    make_card(PLAIN_CARD.replace("model: tiny", "model: large"))
    Path("rows.csv").write_text(CSV)
    assert shell("learn", "data", "desk", "rows.csv", "--out", "set", "--licence", "own").code == 0
    assert "\nF230: no encoder named 'large'" in shell("learn", "train", "desk", "--data", "set").err


def test_intents_other_rate_has_other_checkpoint(tmp_path: Path, base: Path) -> None:
    one, other = training(tmp_path, base), replace(training(tmp_path, base), learning_rate=1e-5)
    assert one.checkpoint_folder != other.checkpoint_folder
    assert run(one, quiet).files != run(other, quiet).files


def test_intents_killed_training_resumes_to_same_files(tmp_path: Path, base: Path) -> None:
    whole = run(training(tmp_path, base), quiet, fresh=True)
    work = replace(training(tmp_path, base), cache=tmp_path / "cut")

    class Killed(Exception):
        pass

    def kill(step: TrainingStep) -> None:
        if step.step > step.total_steps / 2:
            raise Killed

    with pytest.raises(Killed):
        run(work, kill)
    steps: list[TrainingStep] = []
    assert run(work, steps.append).files == whole.files
    assert steps[0].step > 1, "the first epoch was not made again"
    assert run(replace(work, seed=5), quiet).files != whole.files


def test_intents_time_budget_becomes_epochs_once(tmp_path: Path, base: Path) -> None:
    steps: list[TrainingStep] = []
    work = replace(training(tmp_path, base), epochs=None, minutes=60.0)
    run(work, steps.append)
    assert json.loads((work.checkpoint_folder / EPOCHS_FILE).read_text()) == MAX_EPOCHS
    assert steps[-1].step == steps[-1].total_steps == MAX_EPOCHS
    short = replace(work, minutes=1e-4)
    steps.clear()
    run(short, steps.append)
    assert steps[-1].total_steps == 1
    (short.checkpoint_folder / EPOCHS_FILE).write_text("2")
    (short.checkpoint_folder / "member-0.safetensors").unlink()
    run(short, steps.append)
    assert steps[-1].total_steps == 2, "what was settled stays"


def test_intents_number_marks_out_of_scope_texts(tmp_path: Path, base: Path) -> None:
    rows = [
        DatasetRow(str(at), {"text": row.text}, {"intent": row.label, "p_oos": float(row.label == "outside")}, str(at))
        for at, row in enumerate(own())
    ]
    made = run(training(tmp_path, base, CARD, rows), quiet)
    outside = json.loads(made.files["model.json"])["outside"]
    assert (outside["label"], outside["output"]) == ("outside", "p_oos")
    with pytest.raises(InputError) as caught:
        run(
            training(
                tmp_path,
                base,
                CARD,
                [DatasetRow(row.id, row.input, {**row.output, "p_oos": 0.0}, row.group) for row in rows],
            ),
            quiet,
        )
    assert caught.value.code == "N144"


@pytest.mark.parametrize(
    ("texts", "code"),
    [
        ([], "N104"),
        ([("a", "balance"), ("b", "balance")], "N104"),
        ([("a", "balance"), ("b", "balance"), ("c", "lost")], "N143"),
        ([("a", "balance"), ("b", "balance"), ("c", "lost"), ("C!", "lost")], "N143"),
    ],
)
def test_intents_unusable_rows_refused(tmp_path: Path, base: Path, texts: list[tuple[str, str]], code: str) -> None:
    rows = [DatasetRow(str(at), {"text": text}, {"intent": label}, str(at)) for at, (text, label) in enumerate(texts)]
    with pytest.raises(InputError) as caught:
        run(training(tmp_path, base, rows=rows), quiet)
    assert caught.value.code == code


def test_intents_minimal_rows_suffice(tmp_path: Path, base: Path) -> None:
    texts = [
        ("money left", "balance"),
        ("how much money", "balance"),
        ("someone stole it", "lost"),
        ("stole the card", "lost"),
    ]
    rows = [DatasetRow(str(at), {"text": text}, {"intent": label}, str(at)) for at, (text, label) in enumerate(texts)]
    assert json.loads(run(training(tmp_path, base, rows=rows), quiet).files["model.json"])["labels"] == [
        "balance",
        "lost",
    ]


def test_intents_two_labels_match_scikit_learn() -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    rows = [row for row in own() if row.label in ("balance", "lost")]
    fit = ClassifierHyperparameters()
    made = fit_classifier(rows, ("text", "intent"), fit, "linear.npz").classifier
    texts = [row.text for row in rows]
    matrix = (
        vectorizer := TfidfVectorizer(analyzer=fit.features.extract, sublinear_tf=True, min_df=fit.min_frequency)
    ).fit_transform(texts)
    theirs = LogisticRegression(C=fit.inverse_penalty, max_iter=fit.max_iterations).fit(
        matrix, [row.label for row in rows]
    )
    for text in ("how much money", "my card is gone"):
        assert made.probabilities(text) == pytest.approx(
            theirs.predict_proba(vectorizer.transform([text]))[0], abs=0.01
        )


def test_intents_wrong_card_or_data_types_refused(tmp_path: Path, base: Path) -> None:
    work = training(tmp_path, base)
    other = make_card(PLAIN_CARD.replace("{intent: Intent}", "{intent: str}"), tmp_path)
    with pytest.raises(InputError) as caught:
        run(replace(work, card=other), quiet)
    assert caught.value.code == "N103"
    with pytest.raises(InputError) as caught:
        run(training(tmp_path, base, PLAIN_CARD.replace("{intent: Intent}", "{intent: str}")), quiet)
    assert caught.value.code == "N141"
