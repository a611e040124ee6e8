"""Shared prefixes of prompts, and an estimate of the content of a server's prefix cache. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import TypeAlias

BLOCK_CHARACTERS = 512
"""Characters per block of a prompt: about 128 tokens of English. A server's blocks may be smaller."""
BLOCK_TOKENS = 128
"""The tokens that a block counts for."""
DEFAULT_CAPACITY = 1024
"""The assumed capacity of a server's cache in blocks, if the server does not state it."""

Prefix: TypeAlias = tuple[int, ...]
"""The prefix of a prompt: one hash per block, of the block and all blocks before it. The hashes are valid in one
process only.
"""


def prefix_hashes(messages: Iterable[Mapping[str, str]], salt: str) -> Prefix:
    """Returns the prefix hashes of a chat.

    Args:
        messages: The messages of the chat.
        salt: The parts that separate caches: the model or adapter, and the tenant.
    """
    hashes: list[int] = []
    block = hash(salt)
    for message in messages:
        text = message["content"]
        block = hash((block, message["role"]))
        hashed_length = len(text) - len(text) % BLOCK_CHARACTERS
        for start in range(0, hashed_length, BLOCK_CHARACTERS):
            block = hash((block, text[start : start + BLOCK_CHARACTERS]))
            hashes.append(block)
        if hashed_length < len(text):
            block = hash((block, text[hashed_length:]))
    return tuple(hashes)


class PrefixCache:
    """The estimated blocks of a prefix cache: those in use, and the most recently used others up to the capacity.

    A block is cached only with all blocks before it: requests take whole prefixes, and as in vLLM the end is evicted
    first.
    """

    def __init__(self, capacity: int = DEFAULT_CAPACITY) -> None:
        self.capacity = capacity
        self._used: dict[int, int] = {}
        """Blocks of requests in flight to the number of requests that share them."""
        self._idle: OrderedDict[int, None] = OrderedDict()

    @property
    def used_blocks(self) -> int:
        """The number of different blocks of the requests in flight."""
        return len(self._used)

    def cached_blocks(self, prefix: Prefix) -> int:
        """Returns the number of leading blocks that are cached."""
        used_blocks, idle = self._used, self._idle
        return bisect_left(prefix, True, key=lambda block: block not in used_blocks and block not in idle)

    def missing_blocks(self, prefix: Prefix) -> int:
        """Returns the number of blocks that would be added to those in use."""
        used_blocks = self._used
        return len(prefix) - bisect_left(prefix, True, key=lambda block: block not in used_blocks)

    def acquire(self, prefix: Prefix) -> None:
        """Adds the blocks of a request that is sent."""
        for block in prefix:
            self._used[block] = self._used.get(block, 0) + 1
            self._idle.pop(block, None)
        self._evict()

    def release(self, prefix: Prefix) -> None:
        """Releases the blocks of a finished request. They stay cached as the capacity allows."""
        for block in reversed(prefix):
            remaining_uses = self._used[block] - 1
            if remaining_uses:
                self._used[block] = remaining_uses
            else:
                del self._used[block]
                self._idle[block] = None
        self._evict()

    def _evict(self) -> None:
        while self._idle and len(self._used) + len(self._idle) > self.capacity:
            self._idle.popitem(last=False)
