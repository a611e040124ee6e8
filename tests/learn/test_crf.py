"""Training of taggers: it learns from a few rows, is deterministic, and refuses unsuitable rows."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestra.agents.card import Card
from orchestra.agents.inference.crf_tagger import CrfTagger
from orchestra.core.errors import InputError
from orchestra.learn.classical import TrainedModel
from orchestra.learn.crf import CrfHyperparameters, TaggerFields, train
from orchestra.learn.evaluation.rows import ReferenceRow

pytest.importorskip("pycrfsuite")

COLOURS = ("red", "green", "blue", "yellow", "black", "white")
THINGS = ("car", "house", "door", "roof", "wall", "cup")
CARD = """\
name: painter
kind: tagger
input: {text: str}
output: {parts: "dict[str, Span]"}
types:
  Span: {type: object, properties: {value: {type: string}, start: {type: integer}, end: {type: integer}}}
"""
PLACES = TaggerFields("text", "parts", words={"colour": COLOURS})


def row(colour: str, thing: str) -> ReferenceRow:
    text = f"paint the {thing} {colour} please"
    start = text.index(colour)
    return ReferenceRow(
        {"text": text}, {"parts": {"colour": {"value": colour, "start": start, "end": start + len(colour)}}}
    )


ROWS = [row(colour, thing) for colour in COLOURS[:4] for thing in THINGS]


def test_crf_generalises_and_is_deterministic(tmp_path: Path) -> None:
    made = train(ROWS, PLACES, CrfHyperparameters(iterations=30))
    assert made == train(ROWS, PLACES, CrfHyperparameters(iterations=30))
    assert (made.rows, made.left_out) == (24, 0)
    (tmp_path / "agent.yaml").write_text(CARD)
    TrainedModel(made.config_json, made.arrays, made.rows).write(tmp_path)
    output, probability = CrfTagger.load(Card.load(tmp_path)).predict({"text": "paint the barn white please"})
    assert output == {"parts": {"colour": {"value": "white", "start": 15, "end": 20}}}
    assert probability > 0.5


def test_crf_partial_word_slots_counted() -> None:
    bad = ReferenceRow({"text": "reddish"}, {"parts": {"colour": {"value": "red", "start": 0, "end": 3}}})
    made = train([*ROWS, bad], PLACES, CrfHyperparameters(iterations=5))
    assert (made.rows, made.left_out) == (24, 1)


def test_crf_rows_without_slots_refused() -> None:
    with pytest.raises(InputError) as caught:
        train([ReferenceRow({"text": "nothing here"}, {"parts": {}})], PLACES)
    assert caught.value.code == "N150"
