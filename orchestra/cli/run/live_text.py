"""What models write, on a terminal while they write it: of several at once one after the other, so that it can be read."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeAlias

from orchestra.cli.progress import Waiting
from orchestra.engine.streaming import TextPiece, within

Key: TypeAlias = tuple[str, int]
"""A node, and the attempt."""


class Writing:
    """The texts of a run: the one that is shown, and those that have to wait for its end. `called` says what a node is called, and
    nothing of one whose text is not shown."""

    def __init__(self, waiting: Waiting, called: Callable[[str], str] = str) -> None:
        self._waiting, self._called = waiting, called
        self._come: dict[Key, list[TextPiece]] = {}
        """What has come, and is not shown yet."""
        self._lines: list[Callable[[], None]] = []
        """What is to be told once the text that is shown has ended."""
        self._now: Key | None = None
        self._over: set[Key] = set()
        self.still = False
        """Whether nothing may be shown, for a person is typing."""

    @property
    def busy(self) -> bool:
        """Whether a text stands there that goes on."""
        return self._now is not None

    def add(self, piece: TextPiece) -> None:
        """More of a text."""
        if not self._called(piece.node):
            return
        self._come.setdefault((piece.node, piece.attempt), []).append(piece)
        self.show()

    def between(self, tell: Callable[[], None]) -> None:
        """Tells something else, and not in the middle of a text."""
        self._lines.append(tell)
        self._tell()

    def _tell(self) -> None:
        while self._lines and not self.busy:
            self._lines.pop(0)()

    def end(self, node: str = "", attempt: float = inf) -> None:
        """The text of a node's attempt goes on no more, nor those of what is within the node; without a node none does."""
        known = {*self._come, *((self._now,) if self._now is not None else ())}
        self._over |= {key for key in known if not node or (within(key[0], node) and (key[1] <= attempt or key[0] != node))}
        self.show()

    def show(self) -> None:
        """Shows as much as may be."""
        while not self.still:
            if self._now is None:
                if (first := next(iter(self._come), None)) is None:
                    return
                self._now = first
                agent, attempt = self._come[first][0].agent, f", attempt {first[1]}" if first[1] > 1 else ""
                self._waiting.text(f"{self._called(first[0])} ({agent}{attempt}), unverified:\n")
            for piece in self._come.pop(self._now, ()):
                self._waiting.text(piece.text)
            if self._now not in self._over:
                return
            self._over.discard(self._now)
            self._now = None
            self._waiting.close()
            self._tell()
