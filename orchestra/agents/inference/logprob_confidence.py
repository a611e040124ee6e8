"""Sureness: how probable a model's own text was to it, as the log-probabilities of its tokens tell."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol


class TokenLogprob(Protocol):
    """A token that a model wrote, and its natural log-probability."""

    @property
    def text(self) -> str: ...

    @property
    def logprob(self) -> float: ...


def text_probability(text: str, tokens: Sequence[TokenLogprob]) -> float | None:
    """The probability in [0, 1] that a model gave to the whole text; None where not every token's is known.

    It is the product over the tokens, not their geometric mean: docs/concepts/certificates.md has what each of them
    ranks. vLLM masks what a constraint forbids before it takes logarithms: a token that could be no other costs
    nothing, and JSON around an answer does not count.
    """
    if not tokens or sum(_count_non_space(token.text) for token in tokens) < _count_non_space(text):
        return None
    return math.exp(math.fsum(min(0.0, token.logprob) for token in tokens))


def _count_non_space(text: str) -> int:
    """Characters that are no spaces: some tokenizers leave out the space before a word where they spell one token
    alone.
    """
    return len("".join(text.split()))
