"""A tokenizer for simulations: words with the space before them, and single signs. No model's own, but it counts like one."""

from __future__ import annotations

import re
import zlib

_PIECE = re.compile(r"\s?[^\W_]+|\s?[^\s]|\s+")
VOCABULARY = 49_152
BLOCK = 16
"""Tokens of one block of the prefix cache."""


class Tokenizer:
    """Cuts texts into tokens, and remembers the beginnings of prompts as vLLM's prefix cache does."""

    def __init__(self) -> None:
        self._blocks: set[int] = set()

    def pieces(self, text: str) -> list[str]:
        """The tokens of a text; joined they are the text."""
        return _PIECE.findall(text)

    def ids(self, text: str) -> list[int]:
        """The tokens of a text as numbers below `VOCABULARY`."""
        return [zlib.crc32(piece.encode("utf-8", "surrogatepass")) % VOCABULARY for piece in self.pieces(text)]

    def count_prompt(self, text: str, salt: str) -> tuple[int, int]:
        """How many tokens a prompt has, and how many of them were cached: whole blocks, from the start, of the same salt."""
        ids = self.ids(text)
        link, cached, hit = zlib.crc32(salt.encode()), 0, True
        for start in range(0, len(ids) - len(ids) % BLOCK, BLOCK):
            link = zlib.crc32(repr((link, ids[start : start + BLOCK])).encode())
            hit = hit and link in self._blocks
            cached += BLOCK if hit else 0
            self._blocks.add(link)
        return len(ids), cached
