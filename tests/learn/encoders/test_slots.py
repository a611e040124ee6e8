"""`orchestra learn train` for slot taggers: from texts with slots to an agent that finds slots; on a tiny encoder."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")

import numpy as np

from orchestra.agents.card import Card
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.slot_filling import SlotFiller, SlotFillingConfig
from orchestra.core.errors import InputError
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, Split
from orchestra.learn.encoders import spans
from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.encoders.slots import BATCH_TOKENS, run, slot_examples
from orchestra.learn.encoders.training import HeadTraining
from orchestra.testing.tiny_encoder import write_encoder
from tests.agents.inference.test_slot_filling import CARD, layout
from tests.cli.shell import Shell
from tests.learn.encoders import test_spans
from tests.learn.killed_training import assert_resumes_to_same_result

NAMES = ("ada", "grace", "edsger", "barbara")
WORDS = [*NAMES, *"23456789", "a", "table", "for", "at", "name", "people", "time", ",", "."]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that cards may name."""
    folder = write_encoder(tmp_path / "encoder", [*WORDS, *test_spans.WORDS], kind="mpnet")
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    return folder


def make_card(tmp_path: Path, text: str = CARD) -> Card:
    folder = tmp_path / "agents" / "clerk"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text)
    return Card.load(folder)


def row(number: int) -> DatasetRow:
    """A table booking: for how many people, or when, depending on the requested slot; and for whom, if given."""
    chance = random.Random(number)
    figure, name = chance.choice("23456789"), chance.choice((*NAMES, ""))
    slot = chance.choice(("people", "time"))
    text, found = f"a table {figure}", {slot: figure}
    if name:
        text, found = f"{text}, {name.title()}.", {**found, "name": name.title()}
    slots = {
        slot: {"value": value, "start": text.index(value), "end": text.index(value) + len(value)}
        for slot, value in found.items()
    }
    return DatasetRow(str(number), {"text": text, "requested": [slot]}, {"slots": slots}, str(number))


def data_set(card: Card, train: int = 60, tune: int = 40) -> Dataset:
    rows = [row(number) for number in range(train + tune)]
    return Dataset.build(
        "rows", "clerk", contract_digest(card), "CC0", (), {"train": rows[:train], "tune": rows[train:]}
    )


def training(tmp_path: Path, base: Path) -> HeadTraining:
    card = make_card(tmp_path)
    return HeadTraining(card=card, data=data_set(card), base=base, cache=tmp_path / "cache", epochs=2, tokens=64)


def quiet(step: TrainingStep) -> None:
    """A progress callback that does nothing."""


def draft(**changes: Any) -> SlotFillingConfig:
    return layout(labels=["O", "B-name", "I-name", "B-people", "I-people", "B-time", "I-time"], **changes)


def test_slot_example_labels_first_token_of_word(base: Path) -> None:
    encoder = Encoder.load(base)
    for number in range(20):
        one = row(number)
        (example,) = slot_examples(one, encoder, draft()) or []
        read = encoder.tokenize_pair(one.input["requested"][0], one.input["text"])
        labelled = {}
        for at, label in zip(example.positions, example.labels, strict=True):
            start, end = read.offsets[at - example.window.start]
            if label:
                labelled[draft().labels[label]] = one.input["text"][start:end]
        assert labelled == {f"B-{slot}": span["value"] for slot, span in one.output["slots"].items()}


def test_slot_examples_cover_long_text(base: Path) -> None:
    value = {"value": "8", "start": 2 * 100, "end": 2 * 100 + 1}
    long = DatasetRow("1", {"text": "9 " * 100 + "8 " + "9 " * 100, "requested": []}, {"slots": {"people": value}}, "1")
    found = slot_examples(long, Encoder.load(base), draft(tokens=32, overlap=8)) or []
    assert len(found) > 8
    assert sum(len(one.positions) for one in found) > 201
    assert sorted({label for one in found for label in one.labels}) == [0, 3]


def test_slot_examples_skip_partial_words_and_empty_texts(base: Path) -> None:
    encoder = Encoder.load(base)
    inside = DatasetRow(
        "1", {"text": "a table", "requested": []}, {"slots": {"name": {"value": "tab", "start": 2, "end": 5}}}, "1"
    )
    assert slot_examples(inside, encoder, draft()) is None
    assert slot_examples(DatasetRow("2", {"text": " ", "requested": []}, {"slots": {}}, "2"), encoder, draft()) is None


def test_slot_tagger_learns_and_is_served(tmp_path: Path, base: Path) -> None:
    losses = list[float]()
    wanted = training(tmp_path, base)
    made = run(replace(wanted, epochs=30, learning_rate=1e-2), lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] / 4
    assert made.metrics["all slots"] > 0.9
    made.write(tmp_path / "agents" / "clerk")
    reader = SlotFiller.load(Card.load(tmp_path / "agents" / "clerk"), Encoder.load(base))
    tune = wanted.data.rows["tune"]
    said = [reader.predict(one.input) for one in tune]
    right = [output == one.output for (output, _), one in zip(said, tune, strict=True)]
    assert sum(right) / 40 == made.metrics["all slots"]
    assert abs(sum(probability for _, probability in said) / 40 - sum(right) / 40) < 0.15, (
        "probabilities mean what they say"
    )
    asked = [reader.predict({"text": "a table 7", "requested": [slot]})[0]["slots"] for slot in ("people", "time")]
    assert asked[0] != asked[1]


def test_slots_killed_training_resumes_to_same_result(tmp_path: Path, base: Path) -> None:
    other = assert_resumes_to_same_result(run, training(tmp_path, base), tmp_path / "other")
    assert run(replace(other, seed=1), quiet).files != run(other, quiet).files


def test_slots_warm_start_adds_slots(tmp_path: Path, base: Path) -> None:
    wanted = training(tmp_path, base)
    few = [
        DatasetRow(one.id, one.input, {"slots": {"name": one.output["slots"]["name"]}}, one.group)
        for one in map(row, range(60))
        if "name" in one.output["slots"]
    ]
    rows: dict[Split, list[DatasetRow]] = {"train": few}
    made = run(
        replace(wanted, data=Dataset.build("few", "clerk", contract_digest(wanted.card), "CC0", (), rows)), quiet
    )
    made.write(tmp_path / "first")
    begun = json.loads(made.files["model.json"])
    assert begun["labels"] == ["O", "B-name", "I-name"]

    more = run(replace(wanted, start=tmp_path / "first", learning_rate=1e-9), quiet)
    said = json.loads(more.files["model.json"])
    assert said["labels"] == list(draft().labels)
    assert [source["name"] for source in said["data"]] == ["few", "rows"]
    (tmp_path / "more").mkdir()
    more.write(tmp_path / "more")
    with np.load(tmp_path / "first" / "slots.npz") as old, np.load(tmp_path / "more" / "slots.npz") as new:
        assert np.allclose(old["weight"], new["weight"][:3], atol=1e-3)
        assert np.allclose(new["weight"][3:], 0, atol=1e-3)


def test_slots_warm_start_from_other_kind(tmp_path: Path, base: Path) -> None:
    spans.run(replace(test_spans.training(tmp_path / "other", base), epochs=1), quiet).write(tmp_path / "reader")
    made = run(replace(training(tmp_path, base), start=tmp_path / "reader", learning_rate=1e-9), quiet)
    made.write(tmp_path / "made")
    with np.load(tmp_path / "reader" / "spans.npz") as old, np.load(tmp_path / "made" / "slots.npz") as new:
        assert all(
            np.allclose(old[name], new[name], atol=1e-3) for name in old.files if name.startswith(("down.", "up."))
        )
        assert new["weight"].shape[0] == 7


def test_slots_few_tune_rows_keep_defaults(tmp_path: Path, base: Path) -> None:
    wanted = training(tmp_path, base)
    made = run(replace(wanted, data=data_set(wanted.card, tune=5), epochs=1), quiet)
    assert json.loads(made.files["model.json"])["heat"] == 1.0
    assert made.metrics == {}


def test_slots_batches_are_small(tmp_path: Path, base: Path) -> None:
    wanted, steps = training(tmp_path, base), list[TrainingStep]()
    rows: dict[Split, list[DatasetRow]] = {"train": [row(number) for number in range(400)]}
    data = Dataset.build("rows", "clerk", contract_digest(wanted.card), "CC0", (), rows)
    run(replace(wanted, data=data, epochs=1), steps.append)
    tokens = sum(len((slot_examples(one, Encoder.load(base), draft()) or [])[0].window.tokens) for one in rows["train"])
    assert tokens / BATCH_TOKENS <= steps[-1].total_steps < tokens / BATCH_TOKENS * 1.5 + 2


@pytest.mark.parametrize(
    ("rows", "code"),
    [
        pytest.param([], "N104", id="no rows"),
        pytest.param(
            [DatasetRow("1", {"text": "a table", "requested": []}, {"slots": {}}, "1")], "N150", id="no slots"
        ),
        pytest.param(
            [
                DatasetRow(
                    "1",
                    {"text": "a table", "requested": []},
                    {"slots": {"name": {"value": "tab", "start": 2, "end": 5}}},
                    "1",
                )
            ],
            "N104",
            id="none that can be learnt from",
        ),
    ],
)
def test_slots_invalid_input_refused(rows: list[DatasetRow], code: str, tmp_path: Path, base: Path) -> None:
    wanted = training(tmp_path, base)
    data = Dataset.build("rows", "clerk", contract_digest(wanted.card), "CC0", (), {"train": rows})
    with pytest.raises(InputError) as caught:
        run(replace(wanted, data=data), quiet)
    assert caught.value.code == code


def test_slots_command_trains_promotes_and_answers(shell: Shell, base: Path) -> None:
    make_card(shell.project)
    said = [one.input | one.output | {"group": one.group} for one in map(row, range(80))]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in said))
    assert shell("learn", "data", "clerk", "rows.jsonl", "--licence", "CC0", "--out", "set").code == 0
    made = shell("learn", "train", "clerk", "--data", "set", "--epochs", "1", "--out", "made")
    assert made.code == 0, made.err
    assert shell("learn", "promote", "clerk", "made", "--data", "set", "--force").code == 0
    text = "A table for 8, Ada."
    told = shell("run", "clerk", "-i", f"text={text}", "-i", 'requested=["people"]', "--json")
    assert told.code == 0, told.err
    slots = told.json["output"]["slots"]
    assert all(text[span["start"] : span["end"]] == span["value"] for span in slots.values())
