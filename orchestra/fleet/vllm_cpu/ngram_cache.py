"""An n-gram cache of generated tokens that proposes the next ones.

As in llama.cpp's lookup decoding, it proposes the token that most often followed the last few. Pure;
`orchestra.fleet.vllm_cpu.speculation` uses it inside vLLM's worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

CONTEXT_SIZES = 3, 2, 1
"""Numbers of context tokens, the longest known context first. Several choices were simulated on the plans and answers
of `bench/parallel.py` without a model: these needed the fewest steps.
"""
MAX_CONTEXT_SIZE = max(CONTEXT_SIZES)
MAX_CONTEXTS = 100_000
"""Contexts that are kept, about 40 MB. Beyond it, the least recently used eighth is evicted."""
MAX_COUNT = 8
"""Upper bound of the count of a continuation, so that an outdated one is replaced soon."""


Owner: TypeAlias = tuple[int, str]
"""The adapter and the tenant of the n-grams. They are separate, because the speed of an answer must not reveal another
tenant's text.
"""
Context: TypeAlias = tuple[Owner, tuple[int, ...]]


class NgramCache:
    """The most frequent continuations of n-grams by owner."""

    def __init__(self, max_contexts: int = MAX_CONTEXTS) -> None:
        self._max_contexts = max_contexts
        self._continuations: dict[Context, tuple[int, int]] = {}
        """The continuation, and how many times more often than others it followed, after the first time."""

    def learn(self, owner: Owner, tokens: Sequence[int], new: int) -> None:
        """Learns the last `new` of the tokens."""
        for at in range(len(tokens) - new, len(tokens)):
            for size in CONTEXT_SIZES:
                if size <= at:
                    key, token = (owner, tuple(tokens[at - size : at])), tokens[at]
                    count, often = self._continuations.pop(key, (token, -1))
                    if count == token:
                        self._continuations[key] = count, min(often + 1, MAX_COUNT)
                    elif often:
                        self._continuations[key] = count, often - 1
                    else:
                        self._continuations[key] = token, 0
        # Many at once, because a dict searches its first key among deleted ones.
        if len(self._continuations) > self._max_contexts:
            for oldest in list(
                islice(self._continuations, len(self._continuations) - self._max_contexts + self._max_contexts // 8)
            ):
                del self._continuations[oldest]

    def propose(self, owner: Owner, tokens: Sequence[int], max_tokens: int) -> list[int]:
        """Returns up to `max_tokens` proposed tokens; none without a continuation that was seen twice."""
        history = list(tokens)
        while len(history) < len(tokens) + max_tokens:
            continuations = (
                self._continuations.get((owner, tuple(history[-size:])), (0, 0))
                for size in CONTEXT_SIZES
                if size <= len(history)
            )
            token = next((token for token, often in continuations if often), None)
            if token is None:
                break
            history.append(token)
        return history[len(tokens) :]
