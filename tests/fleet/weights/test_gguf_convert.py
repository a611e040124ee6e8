"""The conversion ties the output matrix to the embeddings only if both are quantized copies of one matrix."""

from __future__ import annotations

from typing import Any

import pytest

from orchestra.fleet.weights.gguf_convert import is_copy


def rounded(matrix: Any, levels: int) -> Any:
    """Returns the matrix with that many levels for each block of 32, as in a GGUF file."""
    blocks = matrix.reshape(-1, 32)
    scale = blocks.abs().amax(1, keepdim=True) / (levels / 2)
    return ((blocks / scale).round() * scale).reshape(matrix.shape)


@pytest.mark.parametrize(("levels", "copy"), [(32, True), (16, True), (2, False)])
def test_is_copy_depends_on_the_error_of_quantization(levels: int, copy: bool) -> None:
    torch: Any = pytest.importorskip("torch")
    original = torch.randn(64, 96, generator=torch.Generator().manual_seed(1))
    embeddings, output = (rounded(original, count).to(torch.bfloat16) for count in (levels, 256))
    assert is_copy(embeddings, output) == copy


def test_is_copy_other_matrix_or_shape_is_none() -> None:
    torch: Any = pytest.importorskip("torch")
    chance = torch.Generator().manual_seed(1)
    one, other = (torch.randn(64, 96, generator=chance) for _ in range(2))
    assert not is_copy(one, other)
    assert not is_copy(one, one[:32])
