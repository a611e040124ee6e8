"""Pairs of texts: classified by an encoder that reads both together; the label probabilities are calibrated."""

from __future__ import annotations

import itertools
import json
import shutil
from pathlib import Path
from typing import Literal

import msgspec
import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.calibration import Calibration, TrustWeights  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.text_classifier import TextClassifier  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.fleet.weights.encoders import describe_base  # noqa: E402
from orchestra.learn.compatibility import contract_digest  # noqa: E402
from orchestra.learn.data.dataset import Dataset, DatasetRow  # noqa: E402
from orchestra.learn.encoders.classifier import CommitteeRows, CommitteeSettings, train_committee  # noqa: E402
from orchestra.learn.encoders.intents import ClassifierTraining, run  # noqa: E402
from orchestra.learn.encoders.texts import LabelledText, assign_folds, labelled_texts_digest  # noqa: E402
from orchestra.learn.encoders.tuned import EncoderHyperparameters  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402

COLOURS = ("red", "green", "blue", "white", "black", "brown")
CARD = """
name: judge
kind: encoder
model: tiny
input: {claim: str, evidence: str}
output: {label: Verdict, p_same: float | null, p_other: float | null}
types: {Verdict: {type: string, enum: [same, other]}}
computed: {p_same: {probability: same}, p_other: {probability: other}}
calibration: calibration.json
"""
PLAN = CommitteeSettings(
    EncoderHyperparameters(epochs=60, learning_rate=2e-2, rank=4, blocks=2, batch_size=12, dropout=0.0),
    None,
    members=1,
    tokens=16,
)


def pairs() -> list[LabelledText]:
    """Neither text alone determines the label: each colour occurs equally often in pairs of both labels."""
    same = [LabelledText(f"it is {one}", "same", one) for one in COLOURS for _ in range(5)]
    return same + [LabelledText(f"it is {one}", "other", other) for one, other in itertools.permutations(COLOURS, 2)]


@pytest.fixture(scope="module", params=["bert", "mpnet"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    kind: Literal["bert", "mpnet"] = request.param
    return write_encoder(tmp_path_factory.mktemp(kind), {*COLOURS, "it", "is"}, kind=kind)


def card_in(folder: Path) -> Card:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(CARD)
    return Card.load(folder)


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("judge")
    rows = CommitteeRows.from_sources(("colours", "CC0-1.0", pairs()))
    train_committee(
        card_in(place), rows, (base, describe_base("tiny", base)), PLAN, place / "work", lambda index, step: None
    ).write(place)
    return place


def test_pair_classifier_uses_both_texts(folder: Path, base: Path) -> None:
    card = Card.load(folder)
    assert card.is_trained
    judge = TextClassifier.load(card, Encoder.load(base))
    said = [judge.predict({"claim": row.text, "evidence": row.paired_text}) for row in pairs()]
    right = np.mean([output["label"] == row.label for (output, _), row in zip(said, pairs(), strict=True)])
    assert right > 0.85, right
    for output, sure in said:
        assert list(output) == ["label", "p_same", "p_other"]
        assert output["p_same"] + output["p_other"] == pytest.approx(1)
        assert sure == max(output["p_same"], output["p_other"]) == output[f"p_{output['label']}"]


def test_pair_classifier_files_declare_pairs(folder: Path) -> None:
    said = json.loads((folder / "model.json").read_text())
    assert (said["input"], said["beside"], said["linear"], said["outside"]) == ("claim", "evidence", None, None)
    assert sorted(path.name for path in folder.iterdir() if path.is_file()) == [
        "adapters.npz",
        "agent.yaml",
        "model.json",
    ]


def test_calibration_changes_likeliest_label(folder: Path, base: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "judge"))
    plain = Card.load(place)
    read = {"claim": "it is red", "evidence": "red"}
    assert TextClassifier.load(plain, Encoder.load(base)).predict(read)[0]["label"] == "same"

    def calibrated(adapter: str) -> Card:
        found = Calibration(choices=("same", "other"), trust=TrustWeights(1.0), bias=(0.0, 50.0), adapter=adapter)
        (place / "calibration.json").write_bytes(msgspec.json.encode(found))
        return Card.load(place)

    output, sure = TextClassifier.load(calibrated(plain.weights_digest), Encoder.load(base)).predict(read)
    assert output["label"] == "other"
    assert sure == output["p_other"] > 0.9
    assert calibrated(plain.weights_digest).digest != plain.digest, (
        "a run that is resumed would not see that it was calibrated"
    )
    assert calibrated(plain.weights_digest).weights_digest == plain.weights_digest
    stale = TextClassifier.load(calibrated("of another training"), Encoder.load(base))
    assert stale.predict(read)[0]["label"] == "same", "a calibration of other arrays is void"


def test_stored_card_detects_changed_calibration(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "judge"))
    stored = Card.load(place).dump()
    assert Card.restore(stored, place).digest == Card.load(place).digest
    found = Calibration(choices=("same", "other"), trust=TrustWeights(1.0), bias=(0.0, 0.0))
    (place / "calibration.json").write_bytes(msgspec.json.encode(found))
    with pytest.raises(InputError, match="calibration\\.json has changed"):
        Card.restore(stored, place)
    again = Card.load(place).dump()
    assert Card.restore(again, place).digest == Card.load(place).digest
    (place / "model.json").write_bytes((place / "model.json").read_bytes() + b"\n")
    with pytest.raises(InputError, match="has changed"):
        Card.restore(again, place)


def test_card_without_calibration_round_trip(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "judge"))
    bare = Card.load(place)
    found = Calibration(
        choices=("same", "other"), trust=TrustWeights(1.0), bias=(0.0, 0.0), adapter=bare.weights_digest
    )
    (place / "calibration.json").write_bytes(msgspec.json.encode(found))
    without = Card.load(place).with_settings(calibration=None)
    assert without.current_calibration is None
    assert Card.restore(without.dump(), place).digest == without.digest
    candidate = Card.load(place).with_settings(folder=folder)
    assert (candidate.current_calibration, candidate.data_digest) == (None, bare.data_digest), (
        "a candidate has no calibration yet"
    )


def test_later_calibration_ignored_by_loaded_card(folder: Path, tmp_path: Path) -> None:
    """A resumed run answers as before, and its digest identifies the calibration."""
    place = Path(shutil.copytree(folder, tmp_path / "judge"))
    card = Card.load(place)
    found = Calibration(
        choices=("same", "other"), trust=TrustWeights(1.0), bias=(0.0, 0.0), adapter=card.weights_digest
    )
    (place / "calibration.json").write_bytes(msgspec.json.encode(found))
    assert card.current_calibration is None
    assert Card.load(place).current_calibration == found


def test_pair_truncation_keeps_both_beginnings(base: Path) -> None:
    encoder = Encoder.load(base)
    whole = encoder.tokenize_pair("red green", "blue white")
    assert encoder.truncate_pair("red green", "blue white", 64) == [*whole.head, *whole.body, *whole.tail]
    long = encoder.truncate_pair("red " * 500, "blue " * 500, 16)
    assert len(long) == 16
    marks = len(encoder.tokenize_pair("", "").head)
    red, blue = encoder.tokenize_pair("red", "blue").head[1], encoder.tokenize_pair("red", "blue").body[0]
    assert long.count(red) == 8 - marks
    assert long.count(blue) == 16 - 8 - 1
    assert long[-1:] == whole.tail
    assert encoder.truncate_pair("red", "", 16) == encoder.tokenize_pair("red", "").head + whole.tail


def test_pairs_with_equal_first_text_share_fold() -> None:
    rows = pairs()
    of = dict(zip([row.text for row in rows], assign_folds(rows), strict=True))
    assert [of[row.text] for row in rows] == assign_folds(rows)
    alone = [LabelledText(row.text, row.label) for row in rows]
    assert labelled_texts_digest(rows) != labelled_texts_digest(alone)
    assert labelled_texts_digest(rows) != labelled_texts_digest(
        [LabelledText(row.text, row.label, "red") for row in rows]
    )


def test_pair_probabilities_may_be_non_null(base: Path, tmp_path: Path) -> None:
    """A probability field is not mistaken for the out-of-scope probability."""
    (tmp_path / "judge").mkdir()
    (tmp_path / "judge" / "agent.yaml").write_text(CARD.replace("float | null", "float"))
    card = Card.load(tmp_path / "judge")
    rows = [
        DatasetRow(f"row {at}", {"claim": one.text, "evidence": one.paired_text}, {"label": one.label}, str(at))
        for at, one in enumerate(pairs())
    ]
    data = Dataset.build(
        "colours", card.name, contract_digest(card), "CC0-1.0", [], {"train": rows, "tune": [], "test": []}
    )
    run(ClassifierTraining(card=card, data=data, base=base, cache=tmp_path, epochs=1), lambda step: None).write(
        tmp_path / "judge"
    )
    output, _ = TextClassifier.load(Card.load(tmp_path / "judge"), Encoder.load(base)).predict(
        {"claim": "it is red", "evidence": "blue"}
    )
    assert output["p_same"] + output["p_other"] == pytest.approx(1)


def test_replaced_arrays_drop_calibration(folder: Path, tmp_path: Path) -> None:
    place = Path(shutil.copytree(folder, tmp_path / "judge"))
    card = Card.load(place)
    (place / "model.json").write_bytes((place / "model.json").read_bytes() + b"\n")
    assert card.current_calibration is None
