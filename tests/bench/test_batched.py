"""The measured batch of the judge of claims equals single calls, including shorter texts."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest

from bench.batched import Batched, spread
from orchestra.testing.tiny_encoder import write_encoder


@pytest.mark.parametrize("kind", ["bert", "mpnet"])
def test_batch_equals_single_embeddings(kind: Literal["bert", "mpnet"], tmp_path: Path) -> None:
    encoder = Batched.load(write_encoder(tmp_path, ["card", "money", "lost"], kind=kind))
    assert isinstance(encoder, Batched)
    rows = [encoder.tokenize(text, 16) for text in ("card", "card money lost money", "money lost")]
    together = encoder.together(rows, {})
    assert np.allclose(together, [encoder.embed(row, {})[0] for row in rows], atol=1e-5)


def test_spread_shows_median_minimum_maximum() -> None:
    assert spread([3.0, 1.0, 2.0]) == "2.000 [1.000, 3.000]"
