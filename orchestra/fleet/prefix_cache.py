"""What prompts have in common, and what a server's prefix cache holds of it, as far as that can be told from outside. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

BLOCK_CHARACTERS = 512
"""Characters of a prompt that are looked at together: about 128 tokens of English. A server's blocks may be smaller."""
BLOCK_TOKENS = 128
"""What a block is counted as."""
DEFAULT_CAPACITY = 1024
"""Blocks that a server is taken to remember where it does not say."""

Prefix: TypeAlias = tuple[int, ...]
"""The prefix of a prompt: one hash per block, of the block and all blocks before it. The hashes are valid in one process only."""


def prefix_hashes(messages: Iterable[Mapping[str, str]], salt: str) -> Prefix:
    """How a chat begins. `salt` is what keeps caches apart: the model, or the adapter, and the tenant."""
    found: list[int] = []
    block = hash(salt)
    for message in messages:
        text = message["content"]
        block = hash((block, message["role"]))
        whole = len(text) - len(text) % BLOCK_CHARACTERS
        for start in range(0, whole, BLOCK_CHARACTERS):
            block = hash((block, text[start : start + BLOCK_CHARACTERS]))
            found.append(block)
        if whole < len(text):
            block = hash((block, text[whole:]))
    return tuple(found)


class PrefixCache:
    """The blocks of a prefix cache: those in use, then as many of those used last as there is room for.

    A block is never there without those before it: requests take whole prefixes, and as in vLLM the end is forgotten first.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self._used: dict[int, int] = {}
        """Blocks of requests that are with the server, and how many requests share each."""
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def used_blocks(self) -> int:
        """Different blocks of the requests that are with the server."""
        return len(self._used)

    def cached_blocks(self, prefix: Prefix) -> int:
        """How many of its leading blocks are there."""
        used, idle = self._used, self._idle
        return bisect_left(prefix, True, key=lambda block: block not in used and block not in idle)

    def missing_blocks(self, prefix: Prefix) -> int:
        """How many more blocks would be in use."""
        used = self._used
        return len(prefix) - bisect_left(prefix, True, key=lambda block: block not in used)

    def acquire(self, prefix: Prefix) -> None:
        """A request goes to the server."""
        for block in prefix:
            self._used[block] = self._used.get(block, 0) + 1
            self._idle.pop(block, None)
        self._evict()

    def release(self, prefix: Prefix) -> None:
        """A request is over. Its blocks stay while there is room."""
        for block in reversed(prefix):
            left = self._used[block] - 1
            if left:
                self._used[block] = left
            else:
                del self._used[block]
                self._idle[block] = None
        self._evict()

    def _evict(self) -> None:
        while self._idle and len(self._used) + len(self._idle) > self.capacity:
            self._idle.popitem(last=False)
