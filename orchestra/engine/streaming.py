"""The text of language models while they write it, for readers of a live run. It is not verified and not stored.

The run never waits for a reader. Each reader has a bounded buffer, in which the pieces of one call are joined.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from orchestra.core.protocols import CallRequest

MAX_BUFFERED = 1 << 20
"""Characters buffered per reader at most; the oldest text is dropped first."""


class TextPiece(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A piece of the text that a language model writes for one call. It is not verified, and may be discarded: the next
    attempt starts its text again. For a structured output it is the raw JSON.
    """

    run: str
    node: str
    """The path of the node, as in events."""
    agent: str
    attempt: int
    start: int
    """How many characters of the text precede it. A gap means that pieces were dropped for a slow reader."""
    text: str


class CallText:
    """The text of one call."""

    __slots__ = ("call", "is_over", "size", "stream")

    def __init__(self, call: CallRequest, stream: TextStream) -> None:
        self.call, self.stream, self.size, self.is_over = call, stream, 0, False

    def add(self, piece: str) -> None:
        """Adds a piece of the text."""
        if piece:
            self.stream.add(self, self.size, piece)
            self.size += len(piece)


class TextReader:
    """The buffer of one reader."""

    def __init__(self, nodes: Collection[str] = (), agents: Collection[str] = ()) -> None:
        self._nodes = (nodes,) if isinstance(nodes, str) else tuple(nodes)
        self._agents = (agents,) if isinstance(agents, str) else tuple(agents)
        self._texts: dict[CallText, tuple[int, list[str]]] = {}
        """Unread pieces by text, with the position of the first."""
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def wants(self, call: CallRequest) -> bool:
        """Whether the reader wants a call's text."""
        is_selected = not self._nodes or any(is_within(call.node, name) for name in self._nodes)
        return is_selected and (not self._agents or call.name in self._agents)

    def add(self, text: CallText, start: int, piece: str) -> None:
        """Adds a piece of a text."""
        self._texts.setdefault(text, (start, []))[1].append(piece)
        self._size += len(piece)
        while self._size > MAX_BUFFERED:
            self.discard(next(iter(self._texts)))
        self.wake()

    def discard(self, text: CallText) -> None:
        """Drops the unread pieces of a text."""
        if (buffered_text := self._texts.pop(text, None)) is not None:
            self._size -= sum(map(len, buffered_text[1]))

    def take(self) -> TextPiece | None:
        """Takes the unread pieces of the text that has waited longest; None if there are none."""
        text = next(iter(self._texts), None)
        if text is None:
            return None
        call, (start, pieces) = text.call, self._texts[text]
        self.discard(text)
        return TextPiece(
            run=call.run, node=call.node, agent=call.name, attempt=call.attempt, start=start, text="".join(pieces)
        )

    def copy_from(self, other: TextReader) -> None:
        """Copies unread pieces that this reader wants from another one."""
        for text, (start, pieces) in other._texts.items():
            if self.wants(text.call):
                self.add(text, start, "".join(pieces))

    def discard_finished(self) -> None:
        """Drops the texts of calls that have ended."""
        for text in [text for text in self._texts if text.is_over]:
            self.discard(text)

    def wait_for_more(self) -> asyncio.Future[None]:
        """Returns a future that is done when there is more, or the run is over."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def wake(self) -> None:
        """Wakes the reader."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TextStream:
    """The text of one run's models, and its readers."""

    __slots__ = ("_backlog", "_had_reader", "_readers")

    def __init__(self) -> None:
        self._readers: list[TextReader] = []
        self._had_reader = False
        """Whether there was ever a reader."""
        self._backlog = TextReader()
        """For the next reader: the text so far of current calls; until the first reader, also of ended ones."""

    @contextmanager
    def open_text(self, call: CallRequest) -> Iterator[CallText]:
        """Opens the text of a call, while it runs."""
        text = CallText(call, self)
        try:
            yield text
        finally:
            text.is_over = True
            if self._had_reader:
                self._backlog.discard(text)

    def add(self, text: CallText, start: int, piece: str) -> None:
        """Adds a piece for every reader that wants it."""
        self._backlog.add(text, start, piece)
        for reader in self._readers:
            if reader.wants(text.call):
                reader.add(text, start, piece)

    @contextmanager
    def open_reader(self, nodes: Collection[str], agents: Collection[str]) -> Iterator[TextReader]:
        """Opens a reader of these nodes and agents, or of all."""
        reader = TextReader(nodes, agents)
        reader.copy_from(self._backlog)
        if not self._had_reader:
            self._had_reader = True
            self._backlog.discard_finished()
        self._readers.append(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)

    def wake(self) -> None:
        """Wakes the readers: the run is over."""
        for reader in self._readers:
            reader.wake()


def is_within(path: str, name: str) -> bool:
    """Whether a path is that of a node or of something inside it: an element, a turn, a called workflow."""
    after = path[len(name) : len(name) + 1]
    return path.startswith(name) and not (after.isalnum() or after == "_")
