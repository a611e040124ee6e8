"""`orchestra learn train` for word-problem solvers: from problems with expressions to an agent that solves problems; on
a tiny encoder.
"""

from __future__ import annotations

import io
import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

import numpy as np
import torch

from orchestra.agents.card import Card
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.word_problems.solver import FORMAT, WordProblemSolver, encode_problem
from orchestra.core.errors import InputError
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS, describe_base
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow
from orchestra.learn.encoders import spans, word_problems
from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.encoders.training import HeadTraining, member_arrays
from orchestra.learn.encoders.tuned import EncoderHyperparameters, FrozenEncoder
from orchestra.learn.encoders.warm_start import WarmStart
from orchestra.learn.encoders.word_problem_model import SolverEncoder
from orchestra.learn.encoders.word_problems import COMMON_NUMBERS as TO_ALL
from orchestra.learn.encoders.word_problems import WordProblemExample, loss, run
from orchestra.testing.tiny_encoder import write_encoder
from tests.agents.inference.word_problems.test_solver import CARD
from tests.cli.shell import Shell
from tests.learn.encoders import test_spans
from tests.learn.killed_training import assert_resumes_to_same_result

pytestmark = pytest.mark.slow

WORDS = ["ann", "has", "pears", "and", "loses", "gets", "how", "many", "?", ".", *"0123456789"]


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that cards may name."""
    folder = write_encoder(tmp_path / "encoder", [*WORDS, *test_spans.WORDS], kind="mpnet")
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    return folder


def make_card(tmp_path: Path) -> Card:
    folder = tmp_path / "agents" / "solver"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(CARD)
    return Card.load(folder)


def row(number: int) -> DatasetRow:
    """A person with a number of things who gets or loses some."""
    chance = random.Random(number)
    first, second = chance.sample(range(2, 10), 2)
    verb, sign = chance.choice((("gets", "+"), ("loses", "-")))
    question = f"Ann has {first} pears and {verb} {second}. How many?"
    return DatasetRow(str(number), {"question": question}, {"expression": f"{first}{sign}{second}"}, str(number))


def data_set(card: Card, train: int = 60, tune: int = 40) -> Dataset:
    rows = [row(number) for number in range(train + tune)]
    return Dataset.build(
        "rows", "solver", contract_digest(card), "CC0", (), {"train": rows[:train], "tune": rows[train:]}
    )


def training(tmp_path: Path, base: Path) -> HeadTraining:
    card = make_card(tmp_path)
    return HeadTraining(
        card=card, data=data_set(card), base=base, cache=tmp_path / "cache", epochs=2, learning_rate=5e-3, tokens=64
    )


def quiet(step: TrainingStep) -> None:
    """A progress callback that does nothing."""


def test_word_problem_solver_learns_and_is_served(tmp_path: Path, base: Path) -> None:
    wanted, losses = replace(training(tmp_path, base), epochs=60), list[float]()
    made = run(wanted, lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] / 4
    assert made.metrics["value"] > 0.8
    made.write(tmp_path / "agents" / "solver")
    solver = WordProblemSolver.load(Card.load(tmp_path / "agents" / "solver"), Encoder.load(base))
    tune = wanted.data.rows["tune"]
    said = [solver.predict(one.input) for one in tune]
    right = [
        worth(output["expression"]) == worth(one.output["expression"])
        for (output, _), one in zip(said, tune, strict=True)
    ]
    assert sum(right) / len(tune) == made.metrics["value"]
    assert abs(sum(sure for _, sure in said) / len(tune) - sum(right) / len(tune)) < 0.2, (
        "probabilities mean what they say"
    )


def worth(expression: str) -> float | None:
    from orchestra.agents.computed_fields import expression_value

    return expression_value(expression)


def test_word_problems_killed_training_resumes_to_same_result(tmp_path: Path, base: Path) -> None:
    other = assert_resumes_to_same_result(run, training(tmp_path, base), tmp_path / "other")
    assert run(replace(other, seed=1), quiet).files != run(other, quiet).files


def test_word_problem_loss_is_mean_over_problems(base: Path) -> None:
    encoder, frozen = Encoder.load(base), FrozenEncoder.load(base, torch.float32)
    member = SolverEncoder(frozen, EncoderHyperparameters(rank=2, blocks=frozen.shape.layers, seed=3), len(TO_ALL))
    said = {
        "7": "Ann has 7 pears.",
        "7-3+2*5": "Ann has 7 pears and loses 3. 2 5?",
        "(9+2)*100": "9 and 2 pears?",
        "8-2": "Ann has 8, loses 2.",
    }
    every = [WordProblemExample(encode_problem(encoder, text), expression) for expression, text in said.items()]
    alone = [loss(member, [one]).item() for one in every]
    assert loss(member, every).item() == pytest.approx(sum(alone) / len(alone), rel=1e-5)
    assert min(alone) > 0


def test_word_problems_underivable_rows_left_out(tmp_path: Path, base: Path) -> None:
    card = make_card(tmp_path)
    strange = DatasetRow("1", {"question": "Ann has 2 pears."}, {"expression": "2*77"}, "1")
    only = Dataset.build("rows", "solver", contract_digest(card), "CC0", (), {"train": [strange]})
    with pytest.raises(InputError) as caught:
        run(replace(training(tmp_path, base), data=only), quiet)
    assert caught.value.code == "N104"


def test_word_problems_head_has_own_rate(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(word_problems, "HEAD_RATE", 0.0)
    wanted = training(tmp_path, base)
    made = run(replace(wanted, data=data_set(wanted.card, tune=5)), quiet)
    frozen = FrozenEncoder.load(base)
    begun = member_arrays(
        SolverEncoder(frozen, EncoderHyperparameters(rank=16, blocks=frozen.shape.layers, seed=0), len(TO_ALL))
    )
    arrays = np.load(io.BytesIO(made.files["deduction.npz"]))
    same = {name for name in begun if np.array_equal(arrays[name], begun[name])}
    assert {"score", "number", "new"} <= same
    assert not any(name.startswith("up.") for name in same)


def test_word_problems_long_tune_rows_ignored(tmp_path: Path, base: Path) -> None:
    wanted = training(tmp_path, base)
    rows = [row(number) for number in range(70)]
    long = DatasetRow("long", {"question": "Ann has 2 pears and gets 3. " * 100}, {"expression": "2+3"}, "long")
    data = Dataset.build(
        "rows", "solver", contract_digest(wanted.card), "CC0", (), {"train": rows[:40], "tune": [*rows[40:], long]}
    )
    without = replace(data, rows={**data.rows, "tune": rows[40:]})
    found = [run(replace(wanted, data=one, epochs=1), quiet).metrics for one in (data, without)]
    assert found[0] == found[1]


def test_word_problems_few_tune_rows_keep_defaults(tmp_path: Path, base: Path) -> None:
    wanted = training(tmp_path, base)
    made = run(replace(wanted, data=data_set(wanted.card, tune=5), epochs=1), quiet)
    assert json.loads(made.files["model.json"])["known"] == list(TO_ALL)
    assert "sharpen" not in json.loads(made.files["model.json"])
    assert made.metrics == {}


def test_word_problems_warm_start_from_other_kind(tmp_path: Path, base: Path) -> None:
    folder = tmp_path / "reader"
    spans.run(replace(test_spans.training(tmp_path / "other", base), epochs=1), quiet).write(folder)
    wanted = training(tmp_path, base)
    begun = WarmStart.from_folder(wanted.card, folder, describe_base("tiny", base)).for_format(FORMAT)
    frozen = FrozenEncoder.load(base)
    member = SolverEncoder(frozen, EncoderHyperparameters(rank=16, blocks=frozen.shape.layers), len(TO_ALL))
    head = {name: array.clone() for name, array in member.parameters.items() if not name.startswith(("down.", "up."))}
    begun.load_into(member)
    given = member_arrays(member)
    assert begun.adapters_only
    assert all((given[name] == array).all() for name, array in begun.arrays.items())
    assert all(torch.equal(member.parameters[name], array) for name, array in head.items())

    made = run(replace(wanted, start=folder, epochs=1), quiet)
    assert [source["name"] for source in json.loads(made.files["model.json"])["data"]] == ["rows", "rows"]
    made.write(tmp_path / "agents" / "solver")
    again = run(replace(wanted, start=tmp_path / "agents" / "solver", epochs=1, seed=2), quiet)
    assert len(json.loads(again.files["model.json"])["data"]) == 3
    assert (
        not WarmStart.from_folder(wanted.card, tmp_path / "agents" / "solver", describe_base("tiny", base))
        .for_format(FORMAT)
        .adapters_only
    )


def test_word_problems_command_trains_promotes_and_answers(shell: Shell, base: Path) -> None:
    make_card(shell.project)
    said = [one.input | one.output | {"group": one.group} for one in map(row, range(80))]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in said))
    assert shell("learn", "data", "solver", "rows.jsonl", "--licence", "CC0", "--out", "set").code == 0
    refused = shell("learn", "train", "solver", "--data", "set", "--minutes", "1")
    assert refused.code == 2
    assert refused.err.startswith("N107: solver predicts no labels")
    made = shell("learn", "train", "solver", "--data", "set", "--epochs", "1", "--out", "made")
    assert made.code == 0, made.err
    assert shell("learn", "promote", "solver", "made", "--data", "set", "--force").code == 0
    told = shell("run", "solver", "-i", "question=Ann has 8 pears and loses 3. How many?", "--json")
    assert told.code == 0, told.err
    assert told.json["output"]["answer"] == worth(told.json["output"]["expression"])
