"""What followed what in all that was written, so that it can be guessed.

As in llama.cpp's lookup decoding: the token that mostly came after the last few. Pure;
`orchestra.fleet.vllm_cpu.speculation` guesses by it inside
vLLM's worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TypeAlias

CONTEXT_SIZES = 3, 2, 1
"""So many tokens tell what follows, the longest context that is known first. Of plans and answers as
`bench/parallel.py`
has them, each
way of choosing them was tried without a model: these came to the end of a text in the fewest steps.
"""
MAX_CONTEXT_SIZE = max(CONTEXT_SIZES)
MAX_CONTEXTS = 100_000
"""Contexts that are remembered, some 40 MB; of more the eighth that was not met for longest is forgotten."""
MAX_COUNT = 8
"""How often at most it counts that the same token followed, so that a habit that ends is soon forgotten."""


Owner: TypeAlias = tuple[int, str]
"""The adapter and the tenant that own the n-grams: how soon an answer comes must not tell one tenant what another one
wrote.
"""
Context: TypeAlias = tuple[Owner, tuple[int, ...]]


class NgramCache:
    """What follows what, in all that was written by an owner."""

    def __init__(self, max_contexts: int = MAX_CONTEXTS) -> None:
        self._max_contexts = max_contexts
        self._continuations: dict[Context, tuple[int, int]] = {}
        """The token that followed, and how many times more often than others it did, after the first time."""

    def learn(self, owner: Owner, tokens: Sequence[int], new: int) -> None:
        """The last `new` of these tokens were written now."""
        for at in range(len(tokens) - new, len(tokens)):
            for size in CONTEXT_SIZES:
                if size <= at:
                    key, token = (owner, tuple(tokens[at - size : at])), tokens[at]
                    held, often = self._continuations.pop(key, (token, -1))
                    if held == token:
                        self._continuations[key] = held, min(often + 1, MAX_COUNT)
                    elif often:
                        self._continuations[key] = held, often - 1
                    else:
                        self._continuations[key] = token, 0
        # many at once: a dict looks for its first key among those that are gone
        if len(self._continuations) > self._max_contexts:
            for oldest in list(
                islice(self._continuations, len(self._continuations) - self._max_contexts + self._max_contexts // 8)
            ):
                del self._continuations[oldest]

    def propose(self, owner: Owner, tokens: Sequence[int], max_tokens: int) -> list[int]:
        """At most so many tokens that will follow; none where nothing has followed twice."""
        said = list(tokens)
        while len(said) < len(tokens) + max_tokens:
            known = (
                self._continuations.get((owner, tuple(said[-size:])), (0, 0))
                for size in CONTEXT_SIZES
                if size <= len(said)
            )
            token = next((token for token, often in known if often), None)
            if token is None:
                break
            said.append(token)
        return said[len(tokens) :]
