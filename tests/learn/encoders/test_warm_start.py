"""`orchestra learn train --start` for encoders: a training that starts from earlier weights; on a tiny encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")

from orchestra.core.errors import InputError
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, describe_base
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.encoders import intents
from orchestra.learn.encoders.spans import run
from orchestra.learn.encoders.training import HeadTraining, member_arrays
from orchestra.learn.encoders.tuned import EncoderHyperparameters, FrozenEncoder, PrototypeEncoder, TokenHeadEncoder
from orchestra.learn.encoders.warm_start import WarmStart
from orchestra.testing.tiny_encoder import write_encoder
from tests.cli.shell import Shell
from tests.learn.encoders import test_intents, test_pairs, test_spans
from tests.learn.encoders.test_classifier import vocabulary
from tests.learn.encoders.test_spans import WORDS, base, make_card, quiet, training
from tests.learn.killed_training import assert_resumes_to_same_result

__all__ = ["base"]


def learnable(tmp_path: Path, base: Path) -> HeadTraining:
    """A training that learns quickly."""
    wanted = training(tmp_path, base)
    rows = [test_spans.named(number) for number in range(60)]
    return replace(
        wanted,
        data=Dataset.build("rows", "finder", contract_digest(wanted.card), "CC0", (), {"train": rows}),
        learning_rate=2e-2,
    )


def trained(tmp_path: Path, base: Path) -> Path:
    """The folder of a trained reader."""
    run(replace(learnable(tmp_path, base), epochs=25), quiet).write(tmp_path / "first")
    return tmp_path / "first"


def test_warm_start_loads_arrays_and_is_recorded(tmp_path: Path, base: Path) -> None:
    folder, card = trained(tmp_path, base), make_card(tmp_path)
    first = json.loads((folder / "model.json").read_text())
    begun = WarmStart.from_folder(card, folder, describe_base("tiny", base))
    member = TokenHeadEncoder(
        FrozenEncoder.load(base), EncoderHyperparameters(rank=16, blocks=FrozenEncoder.load(base).shape.layers)
    )
    begun.load_into(member)
    assert begun.sha256 == first["sha256"]
    given = member_arrays(member)
    assert given.keys() == begun.arrays.keys()
    assert all(np.array_equal(array, begun.arrays[name]) for name, array in given.items())

    alone, losses = list[float](), list[float]()
    again = replace(learnable(tmp_path, base), cache=tmp_path / "again", epochs=3, seed=5)
    run(again, lambda step: alone.append(step.loss))
    made = run(replace(again, start=folder), lambda step: losses.append(step.loss))
    assert losses[0] < alone[0] / 2, "what was learnt is there from the first step on"
    said = json.loads(made.files["model.json"])
    assert said["sha256"] != first["sha256"]
    assert said["data"] == first["data"] * 2


def test_warm_start_killed_training_resumes_to_same_result(tmp_path: Path, base: Path) -> None:
    assert_resumes_to_same_result(
        run, replace(learnable(tmp_path, base), start=trained(tmp_path, base), seed=3), tmp_path / "other"
    )


def test_warm_start_other_start_has_other_checkpoint(tmp_path: Path, base: Path) -> None:
    """In the same folder: the checkpoint of the training with the first start does not interfere."""
    wanted = replace(learnable(tmp_path, base), start=trained(tmp_path, base), seed=3)
    before = run(wanted, quiet)
    run(replace(learnable(tmp_path, base), epochs=25, seed=9), quiet).write(tmp_path / "first")
    assert run(replace(wanted), quiet).files != before.files


def test_warm_start_head_matches_output_names(tmp_path: Path) -> None:
    arrays = {"weight": np.array([[1.0, 2.0], [3.0, 4.0]]), "bias": np.array([5.0, 6.0]), "down.a": np.ones(2)}
    begun = WarmStart(tmp_path, "some/v1", (), arrays, (), "0", ("first", "second"))
    other = begun.with_outputs(("second", "new", "first"))
    assert other.arrays["weight"].tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert (other.arrays["bias"].tolist(), other.outputs) == ([6.0, 0.0, 5.0], ("second", "new", "first"))
    assert other.arrays["down.a"] is arrays["down.a"]
    assert begun.with_outputs(["first", "second"]) is begun
    for unknown in (replace(begun, outputs=()), replace(begun, outputs=("first",)), replace(begun, arrays={})):
        with pytest.raises(InputError, match="does not name the outputs of its head") as caught:
            unknown.with_outputs(("second",))
        assert caught.value.code == "N123"


def test_warm_start_mismatch_refused(tmp_path: Path, base: Path) -> None:
    folder, card = trained(tmp_path, base), make_card(tmp_path)
    elsewhere = write_encoder(tmp_path / "elsewhere", [*WORDS, "more"], kind="mpnet")
    with pytest.raises(InputError, match="has another base encoder") as caught:
        WarmStart.from_folder(card, folder, describe_base("tiny", elsewhere))
    assert caught.value.code == "N123"
    begun = WarmStart.from_folder(card, folder, describe_base("tiny", base))
    frozen = FrozenEncoder.load(base)
    for member in (
        TokenHeadEncoder(frozen, EncoderHyperparameters(rank=4)),
        TokenHeadEncoder(frozen, EncoderHyperparameters(rank=16, blocks=99), 3),
        PrototypeEncoder(frozen, 2, EncoderHyperparameters(rank=16)),
    ):
        with pytest.raises(InputError, match=r"the arrays of .* do not fit") as caught:
            begun.load_into(member)
        assert caught.value.code == "N123"
    with pytest.raises(InputError) as caught:
        WarmStart.from_folder(card, tmp_path, describe_base("tiny", base))
    assert caught.value.code == "A004"
    arrays = folder / "spans.npz"
    arrays.write_bytes(arrays.read_bytes()[:-1])
    with pytest.raises(InputError) as caught:
        WarmStart.from_folder(card, folder, describe_base("tiny", base))
    assert caught.value.code == "A011"


def test_warm_start_single_texts_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_encoder(tmp_path / "encoder", vocabulary())
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    wanted = test_intents.training(tmp_path, folder)
    intents.run(replace(wanted, epochs=1), quiet).write(tmp_path / "made")
    with pytest.raises(InputError, match="trained on all rows at once") as caught:
        intents.run(replace(wanted, start=tmp_path / "made"), quiet)
    assert caught.value.code == "N123"


def test_warm_start_pairs_need_same_labels(tmp_path: Path) -> None:
    folder = write_encoder(tmp_path / "pairs", {*test_pairs.COLOURS, "it", "is"}, kind="mpnet")
    card = test_pairs.card_in(tmp_path / "judge")
    rows = [
        DatasetRow(str(at), {"claim": one.text, "evidence": one.paired_text}, {"label": one.label}, str(at))
        for at, one in enumerate(test_pairs.pairs())
    ]
    data = Dataset.build("pairs", card.name, contract_digest(card), "CC0", (), {"train": rows})
    wanted = intents.ClassifierTraining(card=card, data=data, base=folder, cache=tmp_path / "cache", epochs=3)
    first = intents.run(wanted, quiet)
    first.write(tmp_path / "made")
    more = intents.run(replace(wanted, start=tmp_path / "made"), quiet)
    said = json.loads(more.files["model.json"])
    assert (len(said["data"]), said["sha256"] == json.loads(first.files["model.json"])["sha256"]) == (2, False)
    layout = json.loads((tmp_path / "made" / "model.json").read_text())
    (tmp_path / "made" / "model.json").write_text(json.dumps({**layout, "labels": ["same", "unlike"]}))
    with pytest.raises(InputError, match="are same, unlike, and the rows have other, same") as caught:
        intents.run(replace(wanted, start=tmp_path / "made"), quiet)
    assert caught.value.code == "N123"


def test_train_command_with_start(shell: Shell, base: Path) -> None:
    make_card(shell.project)
    rows = [one.input | one.output | {"group": one.group} for one in map(test_spans.row, range(60))]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows))
    assert shell("learn", "data", "finder", "rows.jsonl", "--licence", "CC0", "--out", "set").code == 0
    assert shell("learn", "train", "finder", "--data", "set", "--epochs", "1", "--out", "made").code == 0
    made = shell("learn", "train", "finder", "--data", "set", "--epochs", "3", "--start", "made", "--out", "more")
    assert made.code == 0, made.err
    before, after = (np.load(f"{folder}/spans.npz")["weight"] for folder in ("made", "more"))
    assert not np.array_equal(before, after)
    refused = shell("learn", "train", "finder", "--data", "set", "--start", "nothing")
    assert (refused.code, "A004" in refused.err) == (2, True)
