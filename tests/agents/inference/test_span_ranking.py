"""Ranked spans: the best spans of several texts, with scores relative to no answer."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.encoder_tasks import encoder_task  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.span_extraction import MAX_WINDOWS  # noqa: E402
from orchestra.agents.inference.span_ranking import FORMAT, SpanRanker  # noqa: E402
from orchestra.agents.registry import Registry, builtin_folder  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from tests.agents.inference.test_span_extraction import PASSAGE, WORDS, arrays, layout, reader  # noqa: E402

CARD = """
name: finder
kind: encoder
model: tiny
input: {question: str, texts: "list[str]"}
output: {spans: "list[Found]"}
types: {Found: {type: object, properties: {text: {type: integer}, start: {type: integer}, end: {type: integer}, answer: {type: string}, score: {type: number}}, required: [text, start, end, answer, score], additionalProperties: false}}
"""  # noqa: E501


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS, kind="mpnet"))


@pytest.fixture
def ranker(tmp_path: Path, encoder: Encoder) -> SpanRanker:
    fields = {name: value for name, value in layout().items() if name != "passage"}
    text, data = pack_arrays(fields | {"format": FORMAT, "texts": "texts", "output": "spans"}, arrays())
    (tmp_path / "agent.yaml").write_text(CARD)
    (tmp_path / "model.json").write_text(text)
    (tmp_path / "spans.npz").write_bytes(data)
    card = Card.load(tmp_path)
    assert encoder_task(card) == "span ranking"
    return SpanRanker.load(card, encoder)


def test_spans_are_words_of_their_texts_best_first(ranker: SpanRanker) -> None:
    texts = [PASSAGE, "Eiffel built the tower."]
    output, probability = ranker.predict({"question": "when was the tower built ?", "texts": texts})
    spans = output["spans"]
    assert probability is None
    assert {span["text"] for span in spans} == {0, 1}
    assert all(texts[span["text"]][span["start"] : span["end"]] == span["answer"] for span in spans)
    assert [span["score"] for span in spans] == sorted((span["score"] for span in spans), reverse=True)
    for number in (0, 1):
        own = sorted((span["start"], span["end"]) for span in spans if span["text"] == number)
        assert len(own) <= ranker.config.spans
        assert all(first[1] <= second[0] for first, second in pairwise(own))


def test_best_span_is_that_of_a_span_extractor(ranker: SpanRanker, encoder: Encoder) -> None:
    question = "when was the tower built ?"
    said, _ = reader(encoder, arrays(), silence=-100.0).predict({"question": question, "context": PASSAGE})
    output, _ = ranker.predict({"question": question, "texts": [PASSAGE]})
    assert output["spans"][0]["answer"] == said["answer"]


def test_spans_of_a_text_do_not_depend_on_the_other_texts(ranker: SpanRanker) -> None:
    question = "when was the tower built ?"
    texts = ["the tower " * 40, "Eiffel built the tower.", PASSAGE]  # windows: several, one, one

    def ranked(*texts: str) -> list[list[tuple[int, int, float]]]:
        output, _ = ranker.predict({"question": question, "texts": texts})
        return [
            [(span["start"], span["end"], span["score"]) for span in output["spans"] if span["text"] == number]
            for number in range(len(texts))
        ]

    together = ranked(*texts)
    for text, spans in zip(texts, together, strict=True):
        (alone,) = ranked(text)
        assert [span[:2] for span in spans] == [span[:2] for span in alone]
        assert [span[2] for span in spans] == pytest.approx([span[2] for span in alone], abs=0.001)


def test_text_that_is_too_long_is_refused(ranker: SpanRanker) -> None:
    with pytest.raises(InputError) as caught:
        ranker.predict({"question": "who ?", "texts": ["the tower " * 30 * MAX_WINDOWS]})
    assert caught.value.code == "A023"


def test_packaged_reader_has_the_weights_of_the_extractor() -> None:
    assert encoder_task(Registry.load().cards["passage_reader"]) == "span ranking"
    one, other = (builtin_folder("agents") / name / "spans.npz" for name in ("passage_reader", "extractive_reader"))
    assert one.read_bytes() == other.read_bytes()
