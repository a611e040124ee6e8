"""What models write, on a terminal while they write it: of several at once one after the other, so that it can be read."""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import TypeAlias

from orchestra.cli.progress import StatusLine
from orchestra.engine.streaming import TextPiece, is_within

AttemptKey: TypeAlias = tuple[str, int]
"""A node, and the attempt."""


class LiveText:
    """The texts of a run: the one that is shown, and those that have to wait for its end. `display_name` maps a node to the name that is
    shown; it is empty for a node whose text is not shown."""

    def __init__(self, status_line: StatusLine, display_name: Callable[[str], str] = str) -> None:
        self._status_line, self._display_name = status_line, display_name
        self._pending: dict[AttemptKey, list[TextPiece]] = {}
        """What has come, and is not shown yet."""
        self._deferred: list[Callable[[], None]] = []
        """What is to be told once the text that is shown has ended."""
        self._current: AttemptKey | None = None
        self._finished: set[AttemptKey] = set()
        self.paused = False
        """Whether nothing may be shown, for a person is typing."""

    @property
    def is_busy(self) -> bool:
        """Whether a text stands there that goes on."""
        return self._current is not None

    def add(self, piece: TextPiece) -> None:
        """More of a text."""
        if not self._display_name(piece.node):
            return
        self._pending.setdefault((piece.node, piece.attempt), []).append(piece)
        self.show()

    def defer(self, action: Callable[[], None]) -> None:
        """Tells something else, and not in the middle of a text."""
        self._deferred.append(action)
        self._run_deferred()

    def _run_deferred(self) -> None:
        while self._deferred and not self.is_busy:
            self._deferred.pop(0)()

    def end(self, node: str = "", attempt: float = inf) -> None:
        """The text of a node's attempt goes on no more, nor those of what is within the node; without a node none does."""
        known = {*self._pending, *((self._current,) if self._current is not None else ())}
        self._finished |= {
            key for key in known if not node or (is_within(key[0], node) and (key[1] <= attempt or key[0] != node))
        }
        self.show()

    def show(self) -> None:
        """Shows as much as may be."""
        while not self.paused:
            if self._current is None:
                if (first := next(iter(self._pending), None)) is None:
                    return
                self._current = first
                agent, attempt = self._pending[first][0].agent, f", attempt {first[1]}" if first[1] > 1 else ""
                self._status_line.show_text(f"{self._display_name(first[0])} ({agent}{attempt}), unverified:\n")
            for piece in self._pending.pop(self._current, ()):
                self._status_line.show_text(piece.text)
            if self._current not in self._finished:
                return
            self._finished.discard(self._current)
            self._current = None
            self._status_line.close()
            self._run_deferred()
