"""Similarity of texts: cosines of vectors, kept for later calls."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.encoder_tasks import encoder_task  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.similarity import FORMAT, TextSimilarity  # noqa: E402
from orchestra.agents.registry import Registry  # noqa: E402
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402

WORDS = ["the", "tower", "was", "built", "in", "1889", "dogs", "bark", "."]
CARD = (
    "name: near\nkind: encoder\nmodel: tiny\ninput: {query: str, texts: 'list[str]'}\noutput: {scores: 'list[float]'}\n"
)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS, kind="bert"))


def load(folder: Path, encoder: Encoder, size: int = SHAPE.hidden_size) -> TextSimilarity:
    fields: dict[str, Any] = {"format": FORMAT, "query": "query", "texts": "texts", "output": "scores"}
    base = {"base": {"licence": "CC0-1.0", "sha256": {}}, "data": [], "arrays": "centre.npz"}
    text, data = pack_arrays(fields | base, {"centre": np.zeros(size, np.float32)})
    (folder / "agent.yaml").write_text(CARD)
    (folder / "model.json").write_text(text)
    (folder / "centre.npz").write_bytes(data)
    card = Card.load(folder)
    assert encoder_task(card) == "similarity"
    return TextSimilarity.load(card, encoder)


def test_equal_texts_have_the_highest_score(tmp_path: Path, encoder: Encoder) -> None:
    near = load(tmp_path, encoder)
    output, probability = near.predict(
        {"query": "the tower", "texts": ["the tower", "dogs bark .", "the tower was built"]}
    )
    scores = output["scores"]
    assert probability is None
    assert scores[0] == pytest.approx(1.0, abs=1e-5)
    assert max(scores[1:]) < 1.0
    assert near.predict({"query": "the tower", "texts": []})[0] == {"scores": []}


def test_vector_of_a_text_is_computed_once(tmp_path: Path, encoder: Encoder) -> None:
    near = load(tmp_path, encoder)
    (first, same), (later,) = near.vectors(["dogs bark"] * 2), near.vectors(["dogs bark"])
    assert first is same is later


def test_centre_of_another_size_is_refused(tmp_path: Path, encoder: Encoder) -> None:
    with pytest.raises(InputError) as caught:
        load(tmp_path, encoder, 3)
    assert caught.value.code == "A011"


def test_packaged_ranker_compares_texts() -> None:
    assert encoder_task(Registry.load().cards["passage_ranker"]) == "similarity"
