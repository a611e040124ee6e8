"""Confidence: the probability of a model's text from the log-probabilities of its tokens."""

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
    """Returns the probability in [0, 1] of the whole text; None if the probability of a token is unknown.

    It is the product over the tokens, not their geometric mean: docs/concepts/certificates.md has a comparison. vLLM
    masks forbidden tokens before it takes logarithms, so a token that a constraint determines has probability 1, and
    JSON around an answer does not count.
    """
    if not tokens or sum(_count_non_space(token.text) for token in tokens) < _count_non_space(text):
        return None
    return math.exp(math.fsum(min(0.0, token.logprob) for token in tokens))


def _count_non_space(text: str) -> int:
    """Counts non-space characters, because some tokenizers drop the space before a word when they decode a single
    token.
    """
    return len("".join(text.split()))
