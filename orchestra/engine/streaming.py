"""The text of language models while they write it: for whoever reads a run live. Nothing has checked it, and no journal knows of it.

The run never waits for a reader: each has what he did not come to read yet, of each call joined to one piece, up to a bound.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator
from contextlib import contextmanager

import msgspec

from orchestra.core.protocols import Call, Chunk

MOST = 1 << 20
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


class Text:
    """What is written for one call."""

    __slots__ = ("call", "live", "over", "size")

    def __init__(self, call: Call, live: Live) -> None:
        self.call, self.live, self.size, self.over = call, live, 0, False

    def add(self, chunk: Chunk) -> None:
        """More of it has come."""
        if chunk.text:
            self.live.add(self, self.size, chunk.text)
            self.size += len(chunk.text)


class Unread:
    """What one reader did not come to read yet."""

    def __init__(self, nodes: Collection[str] = (), agents: Collection[str] = ()) -> None:
        self._nodes = (nodes,) if isinstance(nodes, str) else tuple(nodes)
        self._agents = (agents,) if isinstance(agents, str) else tuple(agents)
        self._texts: dict[Text, tuple[int, list[str]]] = {}
        """Of each text where it goes on, and what has come since."""
        self._size = 0
        self._more: asyncio.Future[None] | None = None

    def wants(self, call: Call) -> bool:
        """Whether the reader wants to see a call's text."""
        named = not self._nodes or any(within(call.node, name) for name in self._nodes)
        return named and (not self._agents or call.name in self._agents)

    def add(self, text: Text, start: int, piece: str) -> None:
        """More of a text."""
        self._texts.setdefault(text, (start, []))[1].append(piece)
        self._size += len(piece)
        while self._size > MOST:
            self.drop(next(iter(self._texts)))
        self.wake()

    def drop(self, text: Text) -> None:
        """Forgets what is left of a text."""
        if (left := self._texts.pop(text, None)) is not None:
            self._size -= sum(map(len, left[1]))

    def take(self) -> TextPiece | None:
        """All that has come of the text that waits longest; None where nothing has."""
        text = next(iter(self._texts), None)
        if text is None:
            return None
        call, (start, pieces) = text.call, self._texts[text]
        self.drop(text)
        return TextPiece(run=call.run, node=call.node, agent=call.name, attempt=call.attempt, start=start, text="".join(pieces))

    def copied(self, other: Unread) -> None:
        """Takes over what another one has, and this one wants."""
        for text, (start, pieces) in other._texts.items():
            if self.wants(text.call):
                self.add(text, start, "".join(pieces))

    def forget_the_over(self) -> None:
        """Forgets texts of calls that have ended."""
        for text in [text for text in self._texts if text.over]:
            self.drop(text)

    def more(self) -> asyncio.Future[None]:
        """Done as soon as there is more, or the run is over."""
        self._more = asyncio.get_running_loop().create_future()
        return self._more

    def wake(self) -> None:
        """The reader looks again."""
        if self._more is not None and not self._more.done():
            self._more.set_result(None)


class Live:
    """What the models of one run write, and who reads it."""

    __slots__ = ("_known", "_readers", "_under_way")

    def __init__(self) -> None:
        self._readers: list[Unread] = []
        self._known = False
        """Whether anybody ever read."""
        self._under_way = Unread()
        """For whoever comes next: the text so far of calls that are under way; until the first reader comes, of those that are over too."""

    @contextmanager
    def written(self, call: Call) -> Iterator[Text]:
        """The text of a call, as long as it is under way."""
        text = Text(call, self)
        try:
            yield text
        finally:
            text.over = True
            if self._known:
                self._under_way.drop(text)

    def add(self, text: Text, start: int, piece: str) -> None:
        """More of a text, for each who wants it."""
        self._under_way.add(text, start, piece)
        for reader in self._readers:
            if reader.wants(text.call):
                reader.add(text, start, piece)

    @contextmanager
    def read(self, nodes: Collection[str], agents: Collection[str]) -> Iterator[Unread]:
        """A reader of these nodes and agents, or of all, as long as he reads."""
        reader = Unread(nodes, agents)
        reader.copied(self._under_way)
        if not self._known:
            self._known = True
            self._under_way.forget_the_over()
        self._readers.append(reader)
        try:
            yield reader
        finally:
            self._readers.remove(reader)

    def wake(self) -> None:
        """The run is over."""
        for reader in self._readers:
            reader.wake()


def within(path: str, name: str) -> bool:
    """Whether a path is that of a node, or of what is within it: its elements, its turns, its called workflow."""
    after = path[len(name) : len(name) + 1]
    return path.startswith(name) and not (after.isalnum() or after == "_")
