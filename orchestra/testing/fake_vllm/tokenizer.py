"""A tokenizer for simulations: words with the space before them, and single signs. No model's own, but it counts like one."""

from __future__ import annotations

import re
import zlib

_TOKEN_PATTERN = re.compile(r"\s?[^\W_]+|\s?[^\s]|\s+")
VOCABULARY_SIZE = 49_152
BLOCK_TOKENS = 16
"""Tokens of one block of the prefix cache."""


class SimulatedTokenizer:
    """Cuts texts into tokens, and remembers the beginnings of prompts as vLLM's prefix cache does."""

    def __init__(self) -> None:
        self._blocks: set[int] = set()

    def split(self, text: str) -> list[str]:
        """The tokens of a text; joined they are the text."""
        return _TOKEN_PATTERN.findall(text)

    def encode(self, text: str) -> list[int]:
        """The tokens of a text as numbers below `VOCABULARY_SIZE`."""
        return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY_SIZE for piece in self.split(text)]

    def count_prompt(self, text: str, salt: str) -> tuple[int, int]:
        """How many tokens a prompt has, and how many of them were cached: whole blocks, from the start, of the same salt."""
        ids = self.encode(text)
        link, cached, hit = zlib.crc32(salt.encode()), 0, True
        for start in range(0, len(ids) - len(ids) % BLOCK_TOKENS, BLOCK_TOKENS):
            link = zlib.crc32(repr((link, ids[start : start + BLOCK_TOKENS])).encode())
            hit = hit and link in self._blocks
            cached += BLOCK_TOKENS if hit else 0
            self._blocks.add(link)
        return len(ids), cached
