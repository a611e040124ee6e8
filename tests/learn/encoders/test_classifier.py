"""A committee is trained, written as a card and read back with the same predictions; a killed training resumes to the
same result.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
torch = pytest.importorskip("torch")
pytest.importorskip("sklearn")
safetensors = pytest.importorskip("safetensors.torch")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.text_classifier import TextClassifier  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.fleet.weights.encoders import describe_base  # noqa: E402
from orchestra.learn.encoders.classifier import (  # noqa: E402
    ClassifierFields,
    CommitteeRows,
    CommitteeSettings,
    HeldOutPredictions,
    fit_shares,
    train_committee,
)
from orchestra.learn.encoders.member import LOSSES_KEY, TrainingStep, embed_texts, read_losses, train_member  # noqa: E402
from orchestra.learn.encoders.texts import LabelledText, assign_folds, labelled_texts_digest  # noqa: E402
from orchestra.learn.encoders.tuned import EncoderHyperparameters, FrozenEncoder, PrototypeEncoder, feature_dropout  # noqa: E402
from orchestra.learn.linear import ClassifierHyperparameters  # noqa: E402
from orchestra.learn.lora_adapter import package_versions  # noqa: E402
from orchestra.schema.types import Validator  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402

WORDS = {"balance": "how much money is left", "transfer": "send cash to my friend", "lost": "someone stole the card"}
ASIDE = ("who won the game", "what is rhineland", "when did camus die", "how is glue made", "where is the dipstick")
CARD = """
name: desk
kind: encoder
model: tiny
input: {text: str}
output: {intent: Intent, p_oos: float}
types: {Intent: {type: string, enum: [balance, transfer, lost, outside]}}
"""
PLAIN = (
    "name: desk\nkind: encoder\ninput: {text: str}\noutput: {intent: Intent}\n"
    "types: {Intent: {type: string, enum: [balance, lost]}}\n"
)
PLAN = CommitteeSettings(
    EncoderHyperparameters(epochs=4, learning_rate=2e-2, rank=2, blocks=1, batch_size=16),
    ClassifierHyperparameters(min_frequency=1),
    members=2,
    tokens=16,
    out_of_scope_label="outside",
    out_of_scope_repeats=2,
)


def own() -> list[LabelledText]:
    inside = [
        LabelledText(f"{' '.join(text.split()[i % 3 :])} {i}", label)
        for label, text in WORDS.items()
        for i in range(20)
    ]
    return inside + [LabelledText(f"{ASIDE[i % 5]} {i}", "outside") for i in range(20)]


def vocabulary() -> set[str]:
    return {word for row in own() for word in row.text.split()}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_encoder(tmp_path_factory.mktemp("base"), vocabulary())


def card_in(folder: Path, text: str = CARD) -> Card:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text)
    (folder / "model.json").touch()
    return Card.load(folder)


ROWS = CommitteeRows.from_sources(
    ("desk", "CC0-1.0", own()), ("aside", "MIT", [LabelledText("which planet is the largest", "outside")])
)


@pytest.fixture(scope="module")
def folder(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("desk")
    train_committee(
        card_in(place), ROWS, (base, describe_base("tiny", base)), PLAN, place / "work", lambda index, step: None
    ).write(place)
    return place


def test_trained_card_predicts_labels_and_out_of_scope(folder: Path, base: Path) -> None:
    card = Card.load(folder)
    committee = TextClassifier.load(card, Encoder.load(base))
    said = [committee.predict({"text": row.text}) for row in own()]
    right = np.mean([output["intent"] == row.label for (output, _), row in zip(said, own(), strict=True)])
    assert right > 0.9
    assert all(Validator(card.output_schema).check(output) is None for output, _ in said)
    assert all(0 < probability <= 1 for _, probability in said)
    outside = [output["p_oos"] for (output, _), row in zip(said, own(), strict=True) if row.label == "outside"]
    inside = [output["p_oos"] for (output, _), row in zip(said, own(), strict=True) if row.label != "outside"]
    assert np.median(outside) > np.median(inside)


def test_trained_card_has_training_sources(folder: Path, base: Path) -> None:
    layout = json.loads((folder / "model.json").read_text())
    assert [(one["name"], one["licence"], one["rows"]) for one in layout["data"]] == [
        ("desk", "CC0-1.0", 80),
        ("aside", "MIT", 1),
    ]
    assert layout["data"][0]["digest"] == labelled_texts_digest(list(reversed(own())))
    assert layout["base"]["sha256"] == dict(describe_base("tiny", base).sha256)


def test_numpy_inference_equals_torch(base: Path) -> None:
    frozen = FrozenEncoder.load(base, torch.float32)
    reader = Encoder.load(base)
    texts = [reader.tokenize(row.text, 16) for row in own()[:24]]
    hidden = frozen.lower_block_states(texts, PLAN.hyperparameters.blocks)
    member = train_member(
        frozen, hidden, [0] * 12 + [1] * 12, 2, PLAN.hyperparameters, base / "none" / "m.safetensors", lambda step: None
    )
    arrays = {name: array[None].numpy() for name, array in member.arrays().items()}
    from orchestra.agents.inference.encoder import LoraWeights

    changes = {
        name: LoraWeights(arrays[f"down.{name}"], arrays[f"up.{name}"])
        for name in reader.shape.linear_layers
        if f"down.{name}" in arrays
    }
    theirs = embed_texts(member, hidden).numpy()
    ours = np.stack([reader.embed(text, changes)[0] for text in texts])
    assert np.abs(theirs - ours).max() < 1e-5
    assert np.abs(ours - np.stack([reader.embed(text, {})[0] for text in texts])).max() > 1e-3, (
        "the adapters change nothing"
    )


def test_embed_texts_long_texts_smaller_batches_equal(base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    frozen, reader = FrozenEncoder.load(base, torch.float32), Encoder.load(base)
    texts = frozen.lower_block_states(
        [reader.tokenize("card lost " * count, 64) for count in (1, 20, 2, 9, 30, 3)], PLAN.hyperparameters.blocks
    )
    member, sizes = PrototypeEncoder(frozen, 2, PLAN.hyperparameters), list[tuple[int, int]]()
    whole, embed = embed_texts(member, texts), member.embed

    def counted(hidden: Any, mask: Any) -> Any:
        sizes.append((len(mask), mask.shape[1]))
        return embed(hidden, mask)

    monkeypatch.setattr(member, "embed", counted)
    monkeypatch.setattr("orchestra.learn.encoders.member.MAX_ATTENTION_PAIRS", 2000)
    assert torch.allclose(embed_texts(member, texts), whole, atol=1e-5)
    assert sum(rows for rows, _ in sizes) == len(texts) > len(sizes) > 1
    assert all(rows == 1 or rows * tokens**2 <= 2000 for rows, tokens in sizes)


def test_feature_dropout_same_for_all_tokens_of_row() -> None:
    torch.manual_seed(3)
    x = torch.ones(4, 5, 1000)
    kept = feature_dropout(x, 0.1)
    assert torch.equal(kept, kept[:, :1].expand_as(kept))
    assert 0.05 < (kept == 0).float().mean() < 0.15
    assert kept.mean() == pytest.approx(1, abs=0.05)
    assert not torch.equal(kept[0], kept[1])
    assert torch.equal(feature_dropout(x, 0), x)


def test_residual_state_is_float32_with_bfloat16_products(base: Path) -> None:
    frozen, reader = FrozenEncoder.load(base), Encoder.load(base)
    hidden = frozen.lower_block_states([reader.tokenize(own()[0].text, 16)], PLAN.hyperparameters.blocks)[0]
    member = PrototypeEncoder(frozen, 2, PLAN.hyperparameters)
    mask = torch.ones(1, len(hidden), dtype=torch.bool)
    read = member.encode(hidden[None], mask)
    assert hidden.dtype == torch.bfloat16
    assert torch.equal(read, member.encode(hidden[None].float(), mask))
    assert not torch.equal(read, read.bfloat16().float()), "the sums were rounded"


class Killed(Exception):
    pass


@pytest.mark.parametrize(("seconds", "first"), [(60.0, 11), (0.0, 13)])
def test_killed_training_resumes_to_same_result(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seconds: float, first: int
) -> None:
    monkeypatch.setattr("orchestra.learn.encoders.member.SAVE_SECONDS", seconds)
    steps: list[int] = []

    def run(checkpoint: Path, kill_at: int = -1) -> PrototypeEncoder:
        def told(step: TrainingStep) -> None:
            steps.append(step.step)
            if step.step == kill_at:
                raise Killed

        reader = Encoder.load(base)
        frozen, wanted = FrozenEncoder.load(base), [sorted(WORDS | {"outside": ""}).index(row.label) for row in own()]
        hidden = frozen.lower_block_states(
            [reader.tokenize(row.text, 16) for row in own()], PLAN.hyperparameters.blocks
        )
        return train_member(frozen, hidden, wanted, 4, PLAN.hyperparameters, checkpoint, told)

    whole = run(tmp_path / "whole.safetensors")
    with pytest.raises(Killed):
        run(tmp_path / "cut.safetensors", 13)  # of 20 steps, the third of the third epoch
    steps.clear()
    resumed = run(tmp_path / "cut.safetensors")
    assert steps == [*range(first, 21)]
    assert all(torch.equal(array, resumed.parameters[name]) for name, array in whole.parameters.items())
    assert not resumed.training


def test_read_losses_old_checkpoint_gives_nan(base: Path, tmp_path: Path) -> None:
    frozen, path = FrozenEncoder.load(base), tmp_path / "m.safetensors"
    train_member(
        frozen,
        frozen.lower_block_states([[2, 5, 3], [2, 6, 3]], 1),
        [0, 1],
        2,
        EncoderHyperparameters(epochs=3, rank=2, blocks=1),
        path,
        lambda step: None,
    )
    assert len(read_losses(path)) == 3
    with safetensors.safe_open(path, "pt") as file:
        arrays, said = {name: file.get_tensor(name) for name in file.keys() if name != LOSSES_KEY}, file.metadata()  # noqa: SIM118
    safetensors.save_file(arrays, path, said)
    assert np.isnan(read_losses(path)).tolist() == [True] * 3


def test_package_versions_skip_missing_package() -> None:
    assert list(package_versions(("torch", "orchestra-no-such-package"))) == ["torch"]


def test_checkpoint_of_another_training_refused(base: Path, tmp_path: Path) -> None:
    frozen, path = FrozenEncoder.load(base), tmp_path / "m.safetensors"
    hidden = frozen.lower_block_states([[2, 5, 3], [2, 6, 3]], 1)

    def run(seed: int) -> None:
        train_member(
            frozen,
            hidden,
            [0, 1],
            2,
            EncoderHyperparameters(epochs=1, rank=2, blocks=1, seed=seed),
            path,
            lambda step: None,
        )

    run(seed=1)
    with pytest.raises(InputError) as caught:
        run(seed=2)
    assert caught.value.code == "N140"
    path.write_bytes(b"\x80\x04pickled")
    with pytest.raises(InputError) as caught:
        run(seed=1)
    assert caught.value.code == "N140"


def test_diverged_training_ends_before_checkpoint(base: Path, tmp_path: Path) -> None:
    frozen, path = FrozenEncoder.load(base), tmp_path / "m.safetensors"
    hidden = frozen.lower_block_states([[2, 5, 3], [2, 6, 3]], 1)
    hidden = [hidden[0] * float("nan"), hidden[1]]
    with pytest.raises(InputError, match="its loss is nan") as caught:
        train_member(
            frozen, hidden, [0, 1], 2, EncoderHyperparameters(epochs=1, rank=2, blocks=1), path, lambda step: None
        )
    assert caught.value.code == "N124"
    assert not path.exists()


def test_assign_folds_equal_texts_one_fold_any_order() -> None:
    rows = [*own(), LabelledText("Who won the game, 0?!", "outside"), LabelledText("WHO WON the game 0", "balance")]
    found = dict(zip(rows, assign_folds(rows), strict=True))
    assert (
        len(
            {
                found[row]
                for row in rows
                if row.text.lower().startswith("who won the game") and "0" in row.text.split()[-1][:1]
            }
        )
        == 1
    )
    assert dict(zip(reversed(rows), assign_folds(list(reversed(rows))), strict=True)) == found


def test_assign_folds_spread_labels_evenly() -> None:
    counts = {(row.label, fold): 0 for row in own() for fold in range(10)}
    for row, fold in zip(own(), assign_folds(own()), strict=True):
        counts[row.label, fold] += 1
    assert set(counts.values()) == {2}


def test_fit_shares_prefers_correct_parts() -> None:
    wanted = np.array([0, 1] * 20)
    sure, blind = np.log(np.where(np.eye(2)[wanted] > 0, 0.9, 0.1)), np.log(np.full((40, 2), 0.5))
    rows = [LabelledText("x", "ab"[label]) for label in wanted]
    plan = dataclasses.replace(PLAN, out_of_scope_label="")
    assert fit_shares(HeldOutPredictions(rows, sure, blind, wanted), ["a", "b"], plan).member_share > 0
    found = fit_shares(HeldOutPredictions(rows, blind, sure, wanted), ["a", "b"], plan)
    assert found.linear_share > 0
    assert found.accuracy == {"members": 0.5, "linear": 1.0, "committee": 1.0}


@pytest.mark.parametrize(
    ("text", "outside"),
    [
        (CARD, ""),
        (PLAIN, "outside"),
        (PLAIN.replace("{text: str}", "{a: str, b: str, c: str}"), ""),
        (CARD.replace("{text: str}", "{a: str, b: str}"), "outside"),
        (PLAIN.replace("Intent}", "str}"), ""),
        (CARD.replace("p_oos: float}", "p_oos: float, p: float}") + "computed: {p: {probability: lost}}\n", "outside"),
    ],
)
def test_card_of_another_form_refused(tmp_path: Path, text: str, outside: str) -> None:
    with pytest.raises(InputError) as caught:
        ClassifierFields.from_card(card_in(tmp_path, text), outside)
    assert caught.value.code == "N141"


def test_label_missing_in_card_refused(base: Path, tmp_path: Path) -> None:
    rows = CommitteeRows.from_sources(("desk", "CC0-1.0", [*own(), LabelledText("fly me to the moon", "travel")]))
    with pytest.raises(InputError) as caught:
        train_committee(
            card_in(tmp_path), rows, (base, describe_base("tiny", base)), PLAN, tmp_path, lambda index, step: None
        )
    assert caught.value.code == "N142"


def test_trained_card_is_deterministic(folder: Path, base: Path, tmp_path: Path) -> None:
    train_committee(
        card_in(tmp_path / "desk"),
        ROWS,
        (base, describe_base("tiny", base)),
        PLAN,
        tmp_path / "work",
        lambda index, step: None,
    ).write(tmp_path / "desk")
    for name in ("model.json", "adapters.npz", "linear.json", "linear.npz"):
        assert (tmp_path / "desk" / name).read_bytes() == (folder / name).read_bytes(), name


def test_arrays_that_do_not_fit_refused(folder: Path, base: Path, tmp_path: Path) -> None:
    encoder = Encoder.load(base)
    for name, change in (("adapters.npz", b"PK"), ("linear.json", b"{}"), ("model.json", b'{"format": "pickle"}')):
        copy = Path(shutil.copytree(folder, tmp_path / name.replace(".", "-")))
        (copy / name).write_bytes(change)
        with pytest.raises(InputError) as caught:
            TextClassifier.load(Card.load(copy), encoder)
        assert caught.value.code == "A011", name
