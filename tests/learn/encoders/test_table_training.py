"""Table readers are trained by `orchestra learn`, with calibrated probabilities; on a tiny encoder."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

np = pytest.importorskip("numpy")
pytest.importorskip("torch")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.head import OUTPUT_INDEX  # noqa: E402
from orchestra.agents.inference.tables.operations import OPERATIONS  # noqa: E402
from orchestra.agents.inference.tables.reader import TableReader, TableReaderConfig  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.learn.compatibility import contract_digest  # noqa: E402
from orchestra.learn.data.dataset import Dataset, DatasetRow  # noqa: E402
from orchestra.learn.encoders.table_targets import answers_match  # noqa: E402
from orchestra.learn.encoders.tables import MAX_TRAINING_WINDOWS, SEARCH_GRID, input_names, run  # noqa: E402
from tests.agents.tables import CARD, told  # noqa: E402
from tests.cli.shell import Shell  # noqa: E402
from tests.learn.encoders.test_tables import TABLE, base, data_set, encoder, make_card, quiet, row, training  # noqa: E402
from tests.learn.killed_training import assert_resumes_to_same_result  # noqa: E402

__all__ = ["base", "encoder"]


def test_table_reader_learns_and_is_served(tmp_path: Path, base: Path) -> None:
    losses = list[float]()
    wanted = replace(training(tmp_path, base), epochs=80, learning_rate=2e-2)
    made = run(wanted, lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] / 3
    made.write(tmp_path / "agents" / "teller")
    reader = TableReader.load(Card.load(tmp_path / "agents" / "teller"), Encoder.load(base))
    learnt = [answers_match(reader.predict(one.input)[0], one.output) for one in wanted.data.rows["train"]]
    assert sum(learnt) > 0.8 * len(learnt)
    answers = [(reader.predict(one.input), one.output) for one in wanted.data.rows["tune"]]
    exact = sum(answers_match(said, output) for (said, _), output in answers) / len(answers)
    assert exact == made.metrics["exact"] > 0.5
    assert reader.config.sharpen != 1
    assert (reader.config.question, reader.config.table, reader.config.paragraphs) == (
        "question",
        "table",
        "paragraphs",
    )
    assert [(source.name, source.licence, source.rows) for source in reader.config.data] == [("rows", "CC0", 70)]
    sure = sum(probability for (_, probability), _ in answers) / len(answers)
    assert abs(sure - exact) < 0.2, "probabilities mean what they say"
    settled = json.loads(made.files["model.json"])
    assert all(settled[name] in tried for name, tried in SEARCH_GRID.items()), "whatever is tried is settled, and told"


def test_tables_killed_training_resumes_to_same_result(tmp_path: Path, base: Path) -> None:
    other = assert_resumes_to_same_result(run, training(tmp_path, base), tmp_path / "other")
    assert run(replace(other, seed=1), quiet).files != run(other, quiet).files
    steps: list[int] = []
    run(other, lambda step: steps.append(step.step), fresh=True)
    assert steps[0] == 1, "begun again"


def test_tables_few_tune_rows_keep_defaults(tmp_path: Path, base: Path) -> None:
    card = make_card(tmp_path)
    made = run(replace(training(tmp_path, base), data=data_set(card, tune=5), epochs=1), quiet)
    layout = TableReaderConfig.model_validate_json(made.files["model.json"])
    assert (layout.cells, layout.rows, layout.sharpen) == (0.0, 0.0, 1.0)
    assert made.metrics == {}


@pytest.mark.parametrize(
    ("bias", "output", "cells", "rows"),
    [
        ({"scale.": 9, "way.cells": 9, "cells.own": -1.2}, told("cells", [""]), 1.5, 0.0),
        ({"scale.": 9, "way.cells": 9, "cells.own": 9}, told("cells", [""]), 0.0, 0.0),
        ({"scale.": 9, "way.count": 9, "rows.label": -0.2}, told("count", expression="2"), 0.0, 0.5),
        ({"scale.": 9, "way.count": 9, "rows.label": 1.7}, told("count", expression="0"), 0.0, -2.0),
    ],
)
def test_tables_tune_rows_determine_search_grid(
    tmp_path: Path, base: Path, bias: dict[str, float], output: dict[str, Any], cells: float, rows: float
) -> None:
    wanted, folder = training(tmp_path, base), tmp_path / "agents" / "teller"
    given = [row(number).input for number in range(30)]
    outputs = [
        output | {"quotes": [cell for line in one["table"] for cell in line] if output["quotes"] else []}
        for one in given
    ]
    tune = [
        DatasetRow(f"tune-{at}", one, said, "tune") for at, (one, said) in enumerate(zip(given, outputs, strict=True))
    ]
    data = Dataset.build("rows", "teller", contract_digest(wanted.card), "CC0", (), {"train": [row(0)], "tune": tune})
    run(replace(wanted, data=data, epochs=1), quiet).write(folder)
    with np.load(folder / "tables.npz") as file:
        arrays = dict(file)
    arrays["weight"][:] = arrays["bias"][:] = 0
    arrays["bias"][[OUTPUT_INDEX[name] for name in bias]] = list(bias.values())
    text, content = pack_arrays(json.loads((folder / "model.json").read_text()), arrays)
    (folder / "model.json").write_text(text)
    (folder / "tables.npz").write_bytes(content)
    made = run(replace(wanted, data=data, epochs=1, learning_rate=0.0, start=folder), quiet)
    layout = TableReaderConfig.model_validate_json(made.files["model.json"])
    assert (layout.cells, layout.rows) == (cells, rows)
    assert made.metrics == {"exact": 1.0}


def test_tables_inputs_identified_by_type(tmp_path: Path) -> None:
    card = make_card(tmp_path, CARD.replace("question: str", "rows: str").replace("paragraphs: list", "question: list"))
    assert input_names(card) == {"question": "rows", "table": "table", "paragraphs": "question"}


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("question: str\n", "question: str\n  more: str\n"),
        ("  paragraphs: list[str]\n", ""),
        ("table: list[list[str]]", "table: list[str]"),
        ("question: str", "question: list[str]"),
        ("  rows: list[Index]\n", ""),
    ],
)
def test_tables_card_of_another_form_refused(tmp_path: Path, base: Path, old: str, new: str) -> None:
    card = make_card(
        tmp_path, CARD.replace("computed:\n  answer: {value: expression, otherwise: quotes}\n", "").replace(old, new)
    )
    with pytest.raises(InputError, match="teller is not a table reader") as caught:
        run(replace(training(tmp_path / "other", base), card=card, data=data_set(card)), quiet)
    assert caught.value.code == "N147"


def test_tables_unusable_rows_refused(tmp_path: Path, base: Path) -> None:
    card = make_card(tmp_path)
    nowhere = DatasetRow("nowhere", row(6).input, told("cells", ["nobody"]), "nowhere")
    table = [*row(6).input["table"], *[["is", "in"]] * 20 * MAX_TRAINING_WINDOWS]
    long = DatasetRow("long", {**row(6).input, "table": table}, row(6).output, "long")
    for rows in ([], [nowhere], [long]):
        data = Dataset.build("rows", "teller", contract_digest(card), "CC0", (), {"train": rows})
        with pytest.raises(InputError) as caught:
            run(replace(training(tmp_path, base), data=data), quiet)
        assert caught.value.code == "N104"
    data = Dataset.build("rows", "teller", contract_digest(card), "CC0", (), {"train": [nowhere, long, row(6)]})
    assert run(replace(training(tmp_path, base), data=data), quiet).files.keys() == {"tables.npz", "model.json"}


def test_tables_other_types_refused(tmp_path: Path, base: Path) -> None:
    other = make_card(tmp_path / "other", CARD.replace("table: list[list[str]]", "table: list[list[int]]"))
    with pytest.raises(InputError) as caught:
        run(replace(training(tmp_path, base), data=data_set(other)), quiet)
    assert caught.value.code == "N103"


def test_tables_command_trains_promotes_and_answers(shell: Shell, base: Path) -> None:
    make_card(shell.project)
    said = [one.input | one.output | {"group": one.group} for one in map(row, range(80))]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in said))
    made = shell("learn", "data", "teller", "rows.jsonl", "--licence", "CC0", "--out", "set")
    assert made.code == 0, made.err
    refused = shell("learn", "train", "teller", "--data", "set", "--minutes", "1")
    assert (refused.code, refused.err[:4]) == (2, "N107")
    made = shell("learn", "train", "teller", "--data", "set", "--epochs", "1", "--out", "made")
    assert made.code == 0, made.err
    assert "orchestra learn promote teller made --data set" in made.out
    assert json.loads(Path("made/model.json").read_text())["format"] == "orchestra/table/v3"
    assert shell("learn", "promote", "teller", "made", "--data", "set", "--force").code == 0
    Path("table.json").write_text(json.dumps(TABLE))
    told = shell(
        "run", "teller", "-i", "question=Who ?", "-i", "table=@table.json", "-i", "paragraphs=ada is in", "--json"
    )
    assert told.code == 0, told.err
    output = told.json["output"]
    assert output["way"] in OPERATIONS
    assert output["answer"] is not None
