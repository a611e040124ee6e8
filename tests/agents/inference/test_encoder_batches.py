"""Several texts in one batch have the vectors that each has alone."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import (  # noqa: E402
    MAX_BATCH_TOKENS,
    MIN_BATCH_TOKENS,
    Encoder,
    LoraWeights,
    token_batches,
)
from orchestra.agents.inference.threads import BlasThreads  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402

WORDS = ["the", "tower", "was", "built", "in", "1889", "dogs", "bark", "."]
TEXTS = ["the tower was built in 1889 .", "dogs bark .", "", "dogs bark . the tower was built", "dogs bark ."] * 12


def adapters(members: int) -> dict[str, LoraWeights]:
    made = np.random.default_rng(3)
    width = SHAPE.hidden_size
    name = f"encoder.layer.{SHAPE.layers - 1}.attention.self.query"
    return {
        name: LoraWeights(
            made.normal(0, 0.2, (members, 2, width)).astype(np.float32),
            made.normal(0, 0.2, (members, width, 2)).astype(np.float32),
        )
    }


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
@pytest.mark.parametrize("members", [1, 2])
def test_batch_has_the_vectors_of_single_texts(
    tmp_path: Path, kind: Literal["bert", "mpnet"], members: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orchestra.agents.inference.threads.processor_count", lambda: 3)
    encoder = Encoder.load(write_encoder(tmp_path, WORDS, kind=kind))
    tokens = [encoder.tokenize(text, 32) for text in TEXTS]
    changes = adapters(members)
    for single, batched in zip(tokens, encoder.encode_batch(tokens, changes, members), strict=True):
        np.testing.assert_allclose(batched, encoder.encode(single, changes, members), rtol=1e-4, atol=1e-5)


def test_embeddings_of_a_batch_are_those_of_single_texts(tmp_path: Path) -> None:
    encoder = Encoder.load(write_encoder(tmp_path, WORDS))
    tokens = [encoder.tokenize(text, 32) for text in TEXTS]
    for single, batched in zip(tokens, encoder.embed_batch(tokens, {}), strict=True):
        np.testing.assert_allclose(batched, encoder.embed(single, {})[0], rtol=1e-4, atol=1e-5)
    assert encoder.encode_batch([], {}) == []


def test_batches_are_of_about_equal_length_and_have_each_text_once() -> None:
    lengths = [40, 300, 20, 20, 200, 20, 300, 100]
    batches = token_batches(lengths, 2)
    sizes = [sum(lengths[at] for at in batch) for batch in batches]
    assert sorted(at for batch in batches for at in batch) == list(range(len(lengths)))
    assert len(batches) == 2
    assert max(sizes) - min(sizes) <= 40
    assert len(token_batches([MAX_BATCH_TOKENS] * 5, 2)) == 5
    assert token_batches([MIN_BATCH_TOKENS // 4] * 2, 8) == [[0, 1]], "a short batch is not split"


def test_active_batches_share_the_processors(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestra.agents.inference.threads.processor_count", lambda: 4)
    threads = BlasThreads()
    with threads.share_processors() as first:
        with threads.share_processors() as second:
            assert (first, second) == (4, 2)
        with threads.share_processors() as third:
            assert third == 2
    with threads.share_processors() as alone:
        assert alone == 4
