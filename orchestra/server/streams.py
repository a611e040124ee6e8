"""Streams of a run's events as server-sent events. The ids are the numbers of events in the journal, so that a stream
can be continued in any process, also after a restart.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import aclosing, contextmanager
from typing import Any, Final, Literal, NamedTuple, TypeAlias, TypeVar

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from orchestra.core.errors import OrchestraError
from orchestra.core.events import AttemptFinished, Event, NodeFinished, RunFinished, encode
from orchestra.core.outcomes import Outcome, ValueOutcome
from orchestra.core.paths import workflow_path
from orchestra.engine.streaming import TextPiece
from orchestra.server.problems import RequestError, to_problem
from orchestra.server.services import Services

T = TypeVar("T")
StreamMode: TypeAlias = Literal["events", "values", "text", "verified", "ag-ui"]
EVENT_STREAM: Final = "text/event-stream"
KEEP_ALIVE: Final = b": keep-alive\n\n"
MIN_POLL, MAX_POLL = 0.1, 2.0
"""Seconds between two looks at a run that another process drives."""
STOP_SECONDS: Final = 1.0
"""Seconds that a stream gets for its own error when the server stops."""
CLOSED_CODE = "E017"
_POSITION = re.compile(r"([0-9]{1,15})(?:\.([0-9]{1,9}))?")


class NodeValue(msgspec.Struct, frozen=True, kw_only=True):
    """The outcome of a node, in the modes `values` and `text`."""

    seq: int
    node: str
    graph_node: str
    outcome: Outcome


class UnverifiedText(msgspec.Struct, frozen=True, kw_only=True):
    """A piece of the text that a model writes, in the mode `text`. No check has seen it."""

    node: str
    agent: str
    attempt: int
    start: int
    text: str
    verified: bool = False


class Position(NamedTuple):
    """Where a stream goes on: after an event, and after so many parts of the next one. As text `12`, or `12.3` for the
    first three parts of event 12.
    """

    after: int
    parts: int = 0

    @classmethod
    def parse(cls, text: str) -> Position | None:
        """Returns the position of a text; None for an invalid one."""
        if (match := _POSITION.fullmatch(text)) is None:
            return None
        number = int(match[1])
        return cls(number) if match[2] is None else cls(max(0, number - 1), int(match[2]))


def frame(event: str, data: bytes, seq: int | str | None = None) -> bytes:
    """Returns one server-sent event. `data` is JSON, which has no line breaks."""
    head = b"" if seq is None else f"id: {seq}\n".encode()
    return b"%sevent: %s\ndata: %s\n\n" % (head, event.encode(), data)


async def run_events(services: Services, run: str, after: int) -> AsyncGenerator[Event, None]:
    """Yields the events of a run with greater numbers once they are on disk, to its end, whichever process drives it.

    Raises:
        OrchestraError: E017: this server stops; or the journal cannot be read.
    """
    pause = MIN_POLL
    while True:
        if (active := services.orchestra.active_run(run)) is not None:
            with lost_run_suppressed():
                async with aclosing(active.events(after)) as events:
                    async for event in events:
                        after = event.seq
                        yield event
                        if isinstance(event, RunFinished):
                            return
        fresh = await services.orchestra.journal.read(run, after)
        for event in fresh:
            after = event.seq
            yield event
        if fresh:
            pause = MIN_POLL
            if isinstance(fresh[-1], RunFinished):
                return
        elif await services.has_ended(run, after):
            return
        await asyncio.sleep(pause)
        pause = min(MAX_POLL, pause * 2)


@contextmanager
def lost_run_suppressed() -> Iterator[None]:
    """Suppresses errors of a run that this process no longer drives, such as a lost lease: the journal has its
    events.
    """
    try:
        yield
    except OrchestraError as error:
        if error.code == CLOSED_CODE:
            raise


async def event_frames(services: Services, run: str, after: int) -> AsyncGenerator[bytes, None]:
    """Yields all events of a run."""
    async with aclosing(run_events(services, run, after)) as events:
        async for event in events:
            yield frame(str(type(event).__struct_config__.tag), encode(event), event.seq)


async def value_frames(services: Services, run: str, after: int) -> AsyncGenerator[bytes, None]:
    """Yields the outcomes of nodes, and the answer at the end."""
    async with aclosing(run_events(services, run, after)) as events:
        async for event in events:
            if isinstance(event, RunFinished):
                answer = await services.answer(run)
                yield frame("result", msgspec.json.encode(answer), event.seq)
            elif (node := outcome_of(event)) is not None:
                path, outcome = node
                value = NodeValue(seq=event.seq, node=path, graph_node=workflow_path(path), outcome=outcome)
                yield frame("value", msgspec.json.encode(value), event.seq)


def outcome_of(event: Event) -> tuple[str, Outcome] | None:
    """Returns the node that an event ends, and its outcome; None for another event."""
    match event:
        case NodeFinished(node=node, outcome=outcome):
            return node, outcome
        case AttemptFinished(node=node, final=True, value=value, confidence=confidence):
            return node, ValueOutcome(value, confidence)
        case _:
            return None


async def text_frames(services: Services, run: str, after: int) -> AsyncGenerator[bytes, None]:
    """Yields what `value_frames` does, and the text of models while they write it, if this process drives the run."""
    values = value_frames(services, run, after)
    live = await services.live_run(run)
    texts = _no_text() if live is None else live.text()
    coming: asyncio.Task[bytes | None] = asyncio.ensure_future(_take(values))
    reading: asyncio.Task[TextPiece | None] = asyncio.ensure_future(_take(texts))
    waiting: set[asyncio.Task[Any]] = {coming, reading}
    try:
        while True:
            finished_tasks, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            if reading in finished_tasks:
                waiting.discard(reading)
                if (piece := reading.result()) is not None:
                    yield frame("text", msgspec.json.encode(_unverified(piece)))
                    reading = asyncio.ensure_future(_take(texts))
                    waiting.add(reading)
            elif (data := coming.result()) is None:
                return
            else:
                yield data
                waiting.discard(coming)
                coming = asyncio.ensure_future(_take(values))
                waiting.add(coming)
    finally:
        for task in (coming, reading):
            task.cancel()
        await asyncio.gather(coming, reading, return_exceptions=True)
        await values.aclose()
        await texts.aclose()


async def _no_text() -> AsyncGenerator[TextPiece, None]:
    nothing: tuple[TextPiece, ...] = ()
    for piece in nothing:
        yield piece


async def _take(items: AsyncGenerator[T, None]) -> T | None:
    return await anext(items, None)


def _unverified(piece: TextPiece) -> UnverifiedText:
    return UnverifiedText(node=piece.node, agent=piece.agent, attempt=piece.attempt, start=piece.start, text=piece.text)


FrameSource: TypeAlias = Callable[[Services, str, int], AsyncGenerator[bytes, None]]


class EventStream(Response):
    """A reply that is a stream.

    The next event is read only when the reader has taken the previous ones, so a slow reader holds no memory. One that
    blocks for too long is disconnected, and may continue from the last event that it has. If the server stops, the last
    event is an error with the code S010, so that no reader takes a part for the whole.
    """

    def __init__(
        self,
        services: Services,
        frames: AsyncGenerator[bytes, None],
        headers: Mapping[str, str] | None = None,
        on_disconnect: Callable[[], None] | None = None,
        *,
        watches_stop: bool = False,
    ) -> None:
        """Makes the reply.

        Args:
            services: The state of the server.
            frames: What is sent.
            headers: More headers.
            on_disconnect: Called if the reader disconnects before the end.
            watches_stop: Whether `frames` ends with an error of its own if the server stops.
        """
        self._services, self._frames, self._on_disconnect = services, frames, on_disconnect
        self._watches_stop = watches_stop
        self.status_code, self.background = 200, None
        self.init_headers({"content-type": EVENT_STREAM, "x-accel-buffering": "no", **(headers or {})})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Sends the stream."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        disconnect = asyncio.ensure_future(wait_for_disconnect(receive))
        stopping = asyncio.ensure_future(self._services.stopping.wait())
        try:
            await self._send_frames(send, disconnect, stopping)
        except TimeoutError:
            return  # The reader blocks the stream: the server closes the connection.
        finally:
            for task in (disconnect, stopping):
                task.cancel()
            await asyncio.gather(disconnect, stopping, return_exceptions=True)

    async def _send_frames(self, send: Send, disconnect: asyncio.Future[None], stopping: asyncio.Future[Any]) -> None:
        keep_alive = self._services.settings.keep_alive
        coming = asyncio.ensure_future(self._next_frame())
        try:
            while True:
                await asyncio.wait(
                    {disconnect, stopping, coming}, timeout=keep_alive, return_when=asyncio.FIRST_COMPLETED
                )
                if stopping.done() and self._watches_stop:
                    ends: set[asyncio.Future[Any]] = {disconnect, coming}
                    await asyncio.wait(ends, timeout=STOP_SECONDS, return_when=asyncio.FIRST_COMPLETED)
                if disconnect.done():
                    if self._on_disconnect is not None:
                        self._on_disconnect()
                    return
                data: bytes | None = KEEP_ALIVE
                if coming.done():
                    if (data := coming.result()) is not None:
                        coming = asyncio.ensure_future(self._next_frame())
                elif stopping.done():
                    data = None
                    if not self._watches_stop:
                        await self._send(send, _error_frame(stop_error()))
                await self._send(send, data)
                if data is None:
                    return
        finally:
            coming.cancel()
            await asyncio.gather(coming, return_exceptions=True)
            await self._frames.aclose()

    async def _send(self, send: Send, data: bytes | None) -> None:
        """Sends a frame; None ends the reply. Raises `TimeoutError` if the reader blocks."""
        async with asyncio.timeout(self._services.settings.send_timeout):
            await send({"type": "http.response.body", "body": data or b"", "more_body": data is not None})

    async def _next_frame(self) -> bytes | None:
        try:
            return await anext(self._frames, None)
        except OrchestraError as error:
            return _error_frame(error)


def _error_frame(error: OrchestraError) -> bytes:
    return frame("error", msgspec.json.encode(to_problem(error)))


def stop_error(run: str = "") -> RequestError:
    """Returns the error for a reply that ends because the server stops; the run, if it is known, continues later."""
    if not run:
        return RequestError("S010", "the server stops", hint="connect again, with the last event id in Last-Event-ID")
    hint = f"GET /api/runs/{run}/answer, once a server is back"
    return RequestError("S010", f"the server stops; run {run} continues later", hint=hint)


async def wait_for_disconnect(receive: Receive) -> None:
    """Returns when the client has gone."""
    while (await receive())["type"] != "http.disconnect":
        pass
