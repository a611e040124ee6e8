"""`orchestra learn train` for span readers: from rows to an agent that answers with words of a passage; on a tiny
encoder.
"""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("torch")

from orchestra.agents.card import Card
from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.span_extraction import SpanExtractionConfig, SpanExtractor, split_windows
from orchestra.core.errors import InputError
from orchestra.fleet.config import FolderSource, Weights
from orchestra.fleet.weights.encoders import KNOWN_ENCODERS
from orchestra.learn.compatibility import contract_digest
from orchestra.learn.data.dataset import Dataset, DatasetRow, Split
from orchestra.learn.encoders.member import TrainingStep
from orchestra.learn.encoders.spans import SpanExample, SpanFields, locate_answer, run, span_examples
from orchestra.learn.encoders.training import BATCH_TOKENS, HeadTraining, bucketed_batches
from orchestra.testing.tiny_encoder import write_encoder
from tests.cli.shell import Shell
from tests.learn.killed_training import assert_resumes_to_same_result

FILLER = "Nothing is said here of anybody at all. " * 4
NAMES = ("ada", "grace", "edsger", "barbara", "donald", "alan")
THINGS = ("tower", "bridge", "house", "boat")
WORDS = [*NAMES, *THINGS, "the", "was", "built", "by", "who", "?", "."]
CARD = """
name: finder
kind: encoder
model: tiny
input: {question: str, context: str}
output: {answer: Quote | null}
evidence: context
"""


@pytest.fixture
def base(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A tiny encoder that cards may name."""
    folder = write_encoder(tmp_path / "encoder", WORDS, kind="mpnet")
    monkeypatch.setitem(KNOWN_ENCODERS, "tiny", Weights(licence="CC0", sources=(FolderSource(folder=str(folder)),)))
    return folder


def make_card(tmp_path: Path, text: str = CARD) -> Card:
    folder = tmp_path / "agents" / "finder"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "agent.yaml").write_text(text)
    return Card.load(folder)


def row(number: int) -> DatasetRow:
    """A question about the builder of a thing; without an answer if the passage does not mention the thing."""
    chance = random.Random(number)
    things = chance.sample(THINGS, 3)
    builders = chance.sample(NAMES, 2)
    passage = " ".join(
        f"The {thing} was built by {name.title()}." for thing, name in zip(things, builders, strict=False)
    )
    at = chance.randrange(3)
    answer = builders[at].title() if at < 2 else None
    return DatasetRow(
        str(number), {"question": f"Who built the {things[at]}?", "context": passage}, {"answer": answer}, str(number)
    )


def named(number: int) -> DatasetRow:
    """The only name in a passage; null if it has none."""
    chance = random.Random(number)
    words = [f"the {thing} was built" for thing in chance.sample(THINGS, 2)]
    answer = chance.choice(NAMES) if chance.random() < 0.7 else None
    passage = " ".join(chance.sample([*words, answer or "."], 3))
    return DatasetRow(str(number), {"question": "Who?", "context": passage}, {"answer": answer}, str(number))


def data_set(card: Card, train: int = 60, tune: int = 40) -> Dataset:
    rows = [row(number) for number in range(train + tune)]
    return Dataset.build(
        "rows", "finder", contract_digest(card), "CC0", (), {"train": rows[:train], "tune": rows[train:]}
    )


def training(tmp_path: Path, base: Path) -> HeadTraining:
    card = make_card(tmp_path)
    return HeadTraining(card=card, data=data_set(card), base=base, cache=tmp_path / "cache", epochs=2, tokens=64)


def quiet(step: TrainingStep) -> None:
    """A progress callback that does nothing."""


def draft(**changes: int) -> SpanExtractionConfig:
    said = {
        "format": "orchestra/spans/v1",
        "question": "question",
        "passage": "context",
        "output": "answer",
        "data": (),
        "arrays": "a",
    }
    return SpanExtractionConfig.model_validate(
        {**said, "base": {"licence": "", "sha256": {}}, "sha256": "0" * 64, "tokens": 64, "overlap": 8, **changes}
    )


FACE = SpanFields("question", "context", "answer")


def test_span_examples_mark_answer_tokens(base: Path) -> None:
    encoder = Encoder.load(base)
    for number in range(20):
        one = row(number)
        (example,) = span_examples(one, FACE, encoder, draft())
        spans, start = example.window.offsets, example.window.start
        if one.output["answer"] is None:
            assert (example.first, example.last) == (0, 0)
        else:
            found = one.input["context"][spans[example.first - start][0] : spans[example.last - start][1]]
            assert found == one.output["answer"]


@pytest.mark.parametrize(
    ("answer", "passage", "question", "before"),
    [
        pytest.param(
            "9", "In 1998 there were 9 of 19.", "How many?", "In 1998 there were ", id="not in a longer number"
        ),
        pytest.param(
            "9",
            "From 1.9 to 9.5 metres in 9 days.",
            "How many days?",
            "From 1.9 to 9.5 metres in ",
            id="not in a decimal",
        ),
        pytest.param(
            "Ada",
            f"Ada came. {FILLER}A tower of Ada.",
            "Whose tower?",
            f"Ada came. {FILLER}A tower of ",
            id="words around",
        ),
        pytest.param(
            "Ada",
            "A tower fell. Ada came by. The house is Ada's.",
            "Whose house?",
            "A tower fell. Ada came by. The house is ",
            id="its sentence",
        ),
        pytest.param("Ada", "Ada came. Ada went.", "Who?", "", id="the first of equal ones"),
        pytest.param("da", "Ada came.", "Who?", "A", id="inside a word, where it is nowhere else"),
        pytest.param("Edsger", "Ada came.", "Who?", None, id="nowhere"),
        pytest.param("(a)", "See 1(a), (a) and (b).", "Which?", "See 1(a), ", id="signs are no pattern"),
    ],
)
def test_locate_answer_prefers_question_context(answer: str, passage: str, question: str, before: str | None) -> None:
    assert locate_answer(answer, passage, question) == (None if before is None else len(before))


def test_span_examples_skip_windows_that_cut_answer(
    base: Path,
) -> None:
    encoder = Encoder.load(base)
    cut = 0
    for before in range(40):
        passage = "the " * before + "The tower was built by Grace Alan. " + "The boat was built by Ada. " * 8
        long = DatasetRow("1", {"question": "Who built the tower?", "context": passage}, {"answer": "Grace Alan"}, "1")
        found, read = (
            list(span_examples(long, FACE, encoder, draft(tokens=32))),
            encoder.tokenize_pair("Who built the tower?", passage),
        )
        cut += len(list(split_windows(read, 32, 8))) - len(found)
        assert any(one.first for one in found)
        for one in found:
            spans, start = one.window.offsets, one.window.start
            assert not one.first or passage[spans[one.first - start][0] : spans[one.last - start][1]] == "Grace Alan"
    assert cut > 0
    assert list(span_examples(DatasetRow("2", long.input, {"answer": "Edsger"}, "1"), FACE, encoder, draft())) == []


def test_bucketed_batches_complete_and_within_limit(base: Path) -> None:
    encoder = Encoder.load(base)
    found: list[SpanExample] = [
        example for number in range(300) for example in span_examples(row(number), FACE, encoder, draft())
    ]
    lengths = [len(one.window.tokens) for one in found]
    made = bucketed_batches(lengths, 3)
    assert sorted(at for batch in made for at in batch) == list(range(300))
    assert max(len(batch) * max(lengths[at] for at in batch) for batch in made) <= BATCH_TOKENS
    assert made != bucketed_batches(lengths, 4)
    assert made == bucketed_batches(lengths, 3)


def test_bucketed_batches_long_example_alone() -> None:
    made = bucketed_batches([BATCH_TOKENS + 1, 10, BATCH_TOKENS * 2, 20], 1)
    assert sorted(map(sorted, made)) == [[0], [1, 3], [2]]


def test_span_reader_learns_and_is_served(tmp_path: Path, base: Path) -> None:
    card, losses = make_card(tmp_path), list[float]()
    rows: dict[Split, list[DatasetRow]] = {
        "train": [named(number) for number in range(60)],
        "tune": [named(number) for number in range(60, 100)],
    }
    wanted = replace(
        training(tmp_path, base), data=Dataset.build("rows", "finder", contract_digest(card), "CC0", (), rows)
    )
    made = run(replace(wanted, epochs=40, learning_rate=2e-2), lambda step: losses.append(step.loss))
    assert losses[-1] < losses[0] / 3
    assert made.metrics["exact"] > 0.8
    made.write(tmp_path / "agents" / "finder")
    reader = SpanExtractor.load(Card.load(tmp_path / "agents" / "finder"), Encoder.load(base))
    said = [reader.predict(one.input) for one in rows["tune"]]
    right = [output == one.output for (output, _), one in zip(said, rows["tune"], strict=True)]
    assert sum(right) / 40 == made.metrics["exact"]
    sure = sum(probability for _, probability in said) / 40
    assert abs(sure - sum(right) / 40) < 0.15, "probabilities mean what they say"


def test_spans_killed_training_resumes_to_same_result(tmp_path: Path, base: Path) -> None:
    other = assert_resumes_to_same_result(run, training(tmp_path, base), tmp_path / "other")
    assert run(replace(other, seed=1), quiet).files != run(other, quiet).files


def test_spans_few_tune_rows_keep_defaults(tmp_path: Path, base: Path) -> None:
    card = make_card(tmp_path)
    made = run(replace(training(tmp_path, base), data=data_set(card, tune=5), epochs=1), quiet)
    said = json.loads(made.files["model.json"])
    assert (said["silence"], said["heat"]) == (0.0, 1.0)
    assert (said["tokens"], said["overlap"]) == (64, 16), "short windows share a quarter, so that they go on"
    assert made.metrics == {}


def test_spans_invalid_input_refused(tmp_path: Path, base: Path) -> None:
    card = make_card(tmp_path)
    empty = Dataset.build("rows", "finder", contract_digest(card), "CC0", (), {"train": []})
    with pytest.raises(InputError) as caught:
        run(replace(training(tmp_path, base), data=empty), quiet)
    assert caught.value.code == "N104"
    other = make_card(tmp_path, CARD.replace("{answer: Quote | null}", "{answer: Quote | null, sure: float}"))
    with pytest.raises(InputError) as caught:
        run(replace(training(tmp_path, base), card=other, data=data_set(other)), quiet)
    assert caught.value.code == "N146"


def test_spans_command_trains_promotes_and_answers(shell: Shell, base: Path) -> None:
    make_card(shell.project)
    said = [one.input | one.output | {"group": one.group} for one in map(row, range(80))]
    Path("rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in said))
    assert shell("learn", "data", "finder", "rows.jsonl", "--licence", "CC0", "--out", "set").code == 0
    refused = shell("learn", "train", "finder", "--data", "set", "--minutes", "1")
    assert refused.code == 2
    assert refused.err.startswith("N107: finder predicts no labels")
    made = shell("learn", "train", "finder", "--data", "set", "--epochs", "1", "--out", "made")
    assert made.code == 0, made.err
    assert "orchestra learn promote finder made --data set" in made.out
    assert shell("learn", "promote", "finder", "made", "--data", "set", "--force").code == 0
    passage = "The boat was built by Ada."
    told = shell("run", "finder", "-i", "question=Who built the boat?", "-i", f"context={passage}", "--json")
    assert told.code == 0, told.err
    answer = told.json["output"]["answer"]
    assert answer is None or answer in passage
