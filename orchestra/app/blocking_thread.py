"""Threads whose methods block, for scripts, notebooks and consoles."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from orchestra.app.loop_thread import LoopThread
    from orchestra.app.threads import Thread, Turn


class BlockingThread:
    """A conversation whose methods block. `BlockingOrchestra.thread` returns one."""

    def __init__(self, inner: Thread, loop: LoopThread) -> None:
        self.inner, self._loop = inner, loop

    @property
    def id(self) -> str:
        """The id of the thread."""
        return self.inner.id

    def ask(self, text: str, /, **values: Any) -> Turn:
        """Answers a request, as `Thread.ask`. Ctrl-C cancels the turn."""
        return self._loop.run(self.inner.ask(text, **values))

    def turns(self, limit: int = 50) -> list[Turn]:
        """Returns the latest turns, the oldest first, as `Thread.turns`."""
        return self._loop.run(self.inner.turns(limit))

    def delete(self) -> int:
        """Deletes the thread with its runs, as `Thread.delete`."""
        return self._loop.run(self.inner.delete())
