"""The text of language models while they write it: for whoever reads a run live. Nothing has checked it, and no journal knows of it.

The run never waits for a reader: each has what he did not come to read yet, of each call joined to one piece, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from orchestra.core.protocols import CallRequest, Chunk

MAX_BUFFERED = 1 << 20
"""Characters that are kept for one reader at most; of those that he did not come to read, the oldest piece goes first."""


class TextPiece(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A piece of what a language model writes for one call. Nothing has checked it, and it may come to nothing: the next attempt writes
    its own text, from the start. Of a model that answers with a record it is the raw JSON."""

    run: str
    node: str
    """The path of the node, as in events."""
    agent: str
    attempt: int
    start: int
    """How many characters of its text stand before it. Where that is more than have come, some were left out for a reader who is slow."""
    text: str


class CallText:
    """What is written for one call."""

    __slots__ = ("call", "is_over", "size", "stream")

    def __init__(self, call: CallRequest, stream: TextStream) -> None:
        self.call, self.stream, self.size, self.is_over = call, stream, 0, False

    def add(self, chunk: Chunk) -> None:
        """More of it has come."""
        if chunk.text:
            self.stream.add(self, self.size, chunk.text)
            self.size += len(chunk.text)


class TextReader:
    """What one reader did not come to read yet."""

    def __init__(self, nodes: Collection[str] = (), agents: Collection[str] = ()) -> None:
        self._nodes = (nodes,) if isinstance(nodes, str) else tuple(nodes)
        self._agents = (agents,) if isinstance(agents, str) else tuple(agents)
        self._texts: dict[CallText, tuple[int, list[str]]] = {}
        """Of each text where it goes on, and what has come since."""
        self._size = 0
        self._waiter: asyncio.Future[None] | None = None

    def wants(self, call: CallRequest) -> bool:
        """Whether the reader wants to see a call's text."""
        named = not self._nodes or any(is_within(call.node, name) for name in self._nodes)
        return named and (not self._agents or call.name in self._agents)

    def add(self, text: CallText, start: int, piece: str) -> None:
        """More of a text."""
        self._texts.setdefault(text, (start, []))[1].append(piece)
        self._size += len(piece)
        while self._size > MAX_BUFFERED:
            self.discard(next(iter(self._texts)))
        self.wake()

    def discard(self, text: CallText) -> None:
        """Forgets what is left of a text."""
        if (left := self._texts.pop(text, None)) is not None:
            self._size -= sum(map(len, left[1]))

    def take(self) -> TextPiece | None:
        """All that has come of the text that waits longest; None where nothing has."""
        text = next(iter(self._texts), None)
        if text is None:
            return None
        call, (start, pieces) = text.call, self._texts[text]
        self.discard(text)
        return TextPiece(
            run=call.run, node=call.node, agent=call.name, attempt=call.attempt, start=start, text="".join(pieces)
        )

    def copy_from(self, other: TextReader) -> None:
        """Takes over what another one has, and this one wants."""
        for text, (start, pieces) in other._texts.items():
            if self.wants(text.call):
                self.add(text, start, "".join(pieces))

    def discard_finished(self) -> None:
        """Forgets texts of calls that have ended."""
        for text in [text for text in self._texts if text.is_over]:
            self.discard(text)

    def wait_for_more(self) -> asyncio.Future[None]:
        """Done as soon as there is more, or the run is over."""
        self._waiter = asyncio.get_running_loop().create_future()
        return self._waiter

    def wake(self) -> None:
        """The reader looks again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class TextStream:
    """What the models of one run write, and who reads it."""

    __slots__ = ("_backlog", "_had_reader", "_readers")

    def __init__(self) -> None:
        self._readers: list[TextReader] = []
        self._had_reader = False
        """Whether anybody ever read."""
        self._backlog = TextReader()
        """For whoever comes next: the text so far of calls that are under way; until the first reader comes, of those that are over too."""

    @contextmanager
    def open_text(self, call: CallRequest) -> Iterator[CallText]:
        """The text of a call, as long as it is under way."""
        text = CallText(call, self)
        try:
            yield text
        finally:
            text.is_over = True
            if self._had_reader:
                self._backlog.discard(text)

    def add(self, text: CallText, start: int, piece: str) -> None:
        """More of a text, for each who wants it."""
        self._backlog.add(text, start, piece)
        for reader in self._readers:
            if reader.wants(text.call):
                reader.add(text, start, piece)

    @contextmanager
    def open_reader(self, nodes: Collection[str], agents: Collection[str]) -> Iterator[TextReader]:
        """A reader of these nodes and agents, or of all, as long as he reads."""
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
        """The run is over."""
        for reader in self._readers:
            reader.wake()


def is_within(path: str, name: str) -> bool:
    """Whether a path is that of a node, or of what is within it: its elements, its turns, its called workflow."""
    after = path[len(name) : len(name) + 1]
    return path.startswith(name) and not (after.isalnum() or after == "_")
