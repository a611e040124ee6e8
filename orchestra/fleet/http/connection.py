"""One connection to a server, HTTP/1.1: a request at a time, its answer read by llhttp, the parser of Node.js, by way of httptools.

It costs a quarter of what a client of many uses costs. Whatever goes wrong becomes a `Fault`. Nothing is kept of an answer that was
not read to its end: the connection is broken off, by which vLLM notices that nobody waits any longer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias, cast

import httptools

from orchestra.fleet.request_errors import Fault, printable

HEAD_BYTES = 1 << 16
"""Bytes of an answer's status and headers at most."""
ERROR_BYTES = 1 << 16
"""Bytes that are read of an answer which is an error."""
HURRIED = 3.0
"""Seconds in which a server that is well may have no answer yet: who gives it less learns nothing of it."""
KEPT = (b"retry-after", b"location")
"""Headers that somebody asks for."""
LENGTHS = (b"content-length", b"transfer-encoding")
"""Headers that say where a body ends; without them it ends with the connection."""

Block: TypeAlias = Callable[[bytes], Fault | float | None]
"""Takes a piece of a streamed answer as it comes; a fault ends the exchange. A number says that the answer is whole, and for how many
seconds from now the stream may still end by itself."""


class Connection(asyncio.Protocol):
    """A connection that is open. `exchange` gives None once a whole answer is there: its `status`, its `headers`, its body."""

    def __init__(self, loop: asyncio.AbstractEventLoop, living: set[Connection]) -> None:
        """It is among the `living` from its beginning to its end."""
        self.status = 0
        self.headers: dict[str, str] = {}
        self.usable = False
        """Whether another request may be sent."""
        self.since = 0.0
        """When the last answer ended, in the loop's time."""
        self._loop, self._living = loop, living
        self._parser = httptools.HttpResponseParser(self)
        self._transport: asyncio.Transport | None = None
        self._waiter: asyncio.Future[Fault | None] | None = None
        self._pieces: list[bytes] = []
        self._size = self._most = self._head = 0
        self._headed = self._sized = self._whole = self._odd = self._over = False
        self._on_block: Block | None = None
        self._lingers: asyncio.TimerHandle | None = None
        self._silence = self._heard = 0.0

    @property
    def port(self) -> int:
        """That of this end; 0 where it is none of the internet's."""
        name = self._transport.get_extra_info("sockname") if self._transport is not None else None
        return int(name[1]) if isinstance(name, tuple) else 0

    def taken(self) -> bytes:
        """The body of the answer, as far as it came; it is not kept here any longer."""
        body, self._pieces = b"".join(self._pieces), []
        return body

    async def exchange(
        self, request: bytes, seconds: float, most: int, on_block: Block | None = None, silence: float | None = None
    ) -> Fault | None:
        """Sends a request, and reads its answer: at most `most` bytes of body, within `seconds`, in pauses of at most `silence` seconds.

        Being cancelled breaks the connection off.
        """
        assert self._transport is not None, "it is open"
        assert self._waiter is None, "one exchange at a time"
        if not self.usable:
            return broken(False, None)  # it ended before its first request
        self.status, self.headers, self.usable = 0, {}, False
        self._pieces, self._size, self._most, self._head = [], 0, most, 0
        self._headed = self._sized = self._whole = self._odd = self._over = False
        self._on_block, self._silence = on_block, silence or 0.0
        waiter: asyncio.Future[Fault | None] = self._loop.create_future()
        self._waiter = waiter
        late = self._loop.call_later(max(0.0, seconds), self._late, seconds)
        if silence is not None:
            self._heard = self._loop.time()
            self._loop.call_later(silence, self._listen, waiter)
        self._transport.write(request)
        try:
            return await waiter
        finally:
            late.cancel()
            if self._lingers is not None:
                self._lingers.cancel()
            self._waiter = self._on_block = self._lingers = None
            self.usable = self.usable and self._whole and not self._odd and not self._transport.get_write_buffer_size()
            self.since = self._loop.time()
            if not self.usable:
                self._transport.abort()

    def end(self) -> None:
        """Breaks the connection off."""
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def _settle(self, fault: Fault | None) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None if self._over else fault)  # nothing that happens after its end spoils a stream

    def _late(self, seconds: float) -> None:
        self._settle(no_answer(seconds))

    def _listen(self, waiter: asyncio.Future[Fault | None]) -> None:
        """A pause may have been too long: then the exchange ends, else somebody looks again."""
        if waiter.done():
            return
        left = self._heard + self._silence - self._loop.time()
        if left > 0:
            self._loop.call_later(left, self._listen, waiter)
        else:
            reason = f"the answer stalled: nothing came for {self._silence:.0f} s"
            self._settle(Fault("F205", reason, "orchestra fleet status"))

    # What asyncio calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is open."""
        self._transport, self.usable = cast(asyncio.Transport, transport), True
        self._living.add(self)

    def data_received(self, data: bytes) -> None:
        """Some bytes of an answer; of those that nobody asked for the connection ends."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            self.end()
            return
        if self._silence:
            self._heard = self._loop.time()
        if not self._headed:
            self._head += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserCallbackError as error:
            if not waiter.done():
                waiter.set_exception(error.__context__ or error)  # of whoever reads the stream
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._odd = True
            self._settle(no_http(str(error)))
        if not self._headed and self._head > HEAD_BYTES:
            self._settle(no_http(f"its headers have more than {HEAD_BYTES} bytes"))

    def connection_lost(self, exc: Exception | None) -> None:
        """It has ended; with it a body whose end nothing else says."""
        self.usable = False
        self._living.discard(self)
        if exc is None and self._headed and not self._sized:
            self._settle(None)
        else:
            self._settle(broken(bool(self._size), exc))

    # What the parser calls

    def on_message_begin(self) -> None:
        """An answer begins. After a whole one nobody has asked for another."""
        self._odd = self._headed

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header of the answer."""
        if self._odd:
            return
        name = name.lower()
        if name in LENGTHS:
            self._sized = True
        elif name in KEPT:
            self.headers[name.decode()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        """The head is whole; one with a status below 200 only says that the answer is yet to come."""
        if self._odd:
            return
        self.status = self._parser.get_status_code()
        if self.status >= 200:
            self._headed = True
            if self.status != 200:
                self._on_block, self._most = None, ERROR_BYTES
        else:
            self._sized = False
            self.headers = {}

    def on_body(self, body: bytes) -> None:
        """A piece of the body."""
        waiter = self._waiter
        if waiter is None or waiter.done():
            return
        self._pieces.append(body)
        self._size += len(body)
        if self._size > self._most:
            self._settle(None if self.status != 200 else too_large(self._most))
        elif self._on_block is not None and (end := self._on_block(body)) is not None:
            self._over = not isinstance(end, Fault)
            if isinstance(end, Fault):
                self._settle(end)
                return
            if self._lingers is not None and self._lingers.when() <= self._loop.time() + end:
                return  # what goes on coming, such as pings, puts nothing off
            if self._lingers is not None:
                self._lingers.cancel()
            self._lingers = self._loop.call_later(end, _enough, waiter)

    def on_message_complete(self) -> None:
        """The answer is whole, where it is not one that only says that the answer is yet to come."""
        if self._odd or not self._headed:
            return
        waiter = self._waiter
        self._whole = waiter is not None and not waiter.done()
        self.usable = self._parser.should_keep_alive()
        self._settle(None)


def _enough(waiter: asyncio.Future[Fault | None]) -> None:
    """The body of a stream that is over has not ended: its server, or somebody on the way, keeps the connection open."""
    if not waiter.done():
        waiter.set_result(None)


def no_answer(seconds: float) -> Fault:
    """The time is up."""
    hint = "raise the node's `timeout`, or ask for less `max_output`"
    return Fault("F205", f"no whole answer within {seconds:.1f} s", hint, hurried=seconds < HURRIED)


def no_http(reason: str) -> Fault:
    """Whoever answers is no server for HTTP."""
    return Fault("F209", f"what answers there does not speak HTTP as it should: {printable(reason)}", "check the address of the server")


def broken(begun: bool, error: Exception | None) -> Fault:
    """The connection ended before the answer did."""
    where = "in the middle of the answer" if begun else "before an answer came"
    why = type(error).__name__ if error is not None else "it was closed"
    return Fault("F206", f"the connection broke {where} ({why})", "orchestra fleet status", lost=True)


def too_large(most: int) -> Fault:
    """The answer has more bytes than are read."""
    return Fault("F210", f"the answer has more than {most} bytes", "ask for less `max_output`")
