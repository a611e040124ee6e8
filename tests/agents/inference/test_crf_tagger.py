"""Tests the packaged tagger, Viterbi against brute force, and damaged files."""

from __future__ import annotations

import itertools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.agents.card import Card
from orchestra.agents.inference.crf_tagger import CrfTagger, Word, decode_slots, slot_labels, split_words, viterbi
from orchestra.agents.registry import builtin_folder
from orchestra.core.errors import InputError
from orchestra.schema.types import Validator

np = pytest.importorskip("numpy")

FOLDER = builtin_folder("agents") / "crf_extractor"
CARD = Card.load(FOLDER)
TAGGER = CrfTagger.load(CARD)


@pytest.mark.parametrize(
    ("text", "requested", "found"),
    [
        (
            "A table for 8 people tomorrow at 9:30 PM please",
            [],
            {"people": "8 people", "date": "tomorrow", "time": "9:30 PM"},
        ),
        ("My name is Marcelo Higgens", [], {"first_name": "Marcelo", "last_name": "Higgens"}),
        ("7", ["people"], {"people": "7"}),
        ("7", ["time"], {"time": "7"}),
        ("Do you have parking?", [], {}),
    ],
)
def test_tagger_uses_the_requested_slots(text: str, requested: list[str], found: dict[str, str]) -> None:
    output, probability = TAGGER.predict({"text": text, "requested": requested})
    assert {name: span["value"] for name, span in output["slots"].items()} == found
    assert 0.3 < probability <= 1


@given(st.text(max_size=60))
def test_output_of_any_text_has_card_type_and_exact_spans(text: str) -> None:
    output, probability = TAGGER.predict({"text": text, "requested": []})
    assert Validator(CARD.output_schema).check(output) is None
    assert all(text[span["start"] : span["end"]] == span["value"] for span in output["slots"].values())
    assert 0 <= probability <= 1


scores = st.lists(st.lists(st.floats(-3, 3, width=32), min_size=3, max_size=3), min_size=1, max_size=5)


@given(scores, st.lists(st.lists(st.floats(-2, 2, width=32), min_size=3, max_size=3), min_size=3, max_size=3))
def test_viterbi_sequence_and_probability_match_brute_force(rows: Any, between: Any) -> None:
    def weight(path: tuple[int, ...]) -> float:
        emitted: float = sum(rows[at][label] for at, label in enumerate(path))
        return emitted + float(sum(between[a][b] for a, b in itertools.pairwise(path)))

    paths = {path: weight(path) for path in itertools.product(range(3), repeat=len(rows))}
    found, probability = viterbi(np.array(rows, dtype=np.float32), np.array(between, dtype=np.float32))
    assert paths[tuple(found)] == pytest.approx(max(paths.values()), abs=1e-3)
    assert probability == pytest.approx(math.exp(max(paths.values())) / sum(map(math.exp, paths.values())), rel=1e-2)


@given(st.text(alphabet="ab 1.", max_size=30), st.data())
def test_slot_encoding_and_decoding_are_inverse(text: str, data: st.DataObject) -> None:
    words: list[Word] = split_words(text)
    if not words:
        return
    first = data.draw(st.integers(0, len(words) - 1))
    last = data.draw(st.integers(first, len(words) - 1))
    span = {"value": text[words[first].start : words[last].end], "start": words[first].start, "end": words[last].end}
    labels = slot_labels(words, {"x": span})
    assert labels is not None
    assert decode_slots(text, words, labels) == {"x": span}


def test_slot_that_ends_inside_a_word_is_refused() -> None:
    assert slot_labels(split_words("eight people"), {"people": {"start": 0, "end": 4}}) is None


@pytest.mark.parametrize("harm", ["no arrays", "other arrays", "no layout", "other labels"])
def test_tagger_damaged_file_is_refused(harm: str, tmp_path: Path) -> None:
    folder = tmp_path / "extractor"
    shutil.copytree(FOLDER, folder)
    layout = folder / "model.json"
    match harm:
        case "no arrays":
            (folder / "weights.npz").unlink()
        case "other arrays":
            (folder / "weights.npz").write_bytes(b"PK")
        case "no layout":
            layout.write_text("{}")
        case _:
            layout.write_text(layout.read_text().replace('"B-date",', ""))
    with pytest.raises(InputError) as caught:
        CrfTagger.load(Card.load(folder))
    assert caught.value.code == ("A004" if harm == "no arrays" else "A011")
