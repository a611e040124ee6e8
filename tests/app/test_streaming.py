"""Text of models while it is generated: what subscribers of a run receive. Streaming does not change the run."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import (
    InputError,
    Orchestra,
    OrchestraError,
    Run,
    TextPiece,
    agent,
    answered_by_model,
    ask,
    map_,
    tool,
    workflow,
)
from orchestra.core.events import AttemptFinished, Event
from orchestra.core.protocols import NO_ESTIMATE, CallError, CallEstimate, CallRequest, CallResult, TextCallback
from orchestra.core.settings import Settings
from orchestra.engine.streaming import MAX_BUFFERED, TextStream
from orchestra.testing import SimulatedWorkers


@agent(prompt="Write about {{ text }}")
def writer(text: str) -> str:
    """Writes."""
    return answered_by_model()


@agent(prompt="Shorten {{ text }}")
def shortener(text: str) -> str:
    """Shortens."""
    return answered_by_model()


@tool(effect="pure")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


@workflow()
def article(text: str) -> str:
    """A text that is written, shortened, and said."""
    return shout(text=shortener(text=writer(text=text)))


@workflow()
def articles(texts: list[str]) -> list[str]:
    """One text per topic."""
    return map_(writer, texts)


@workflow()
def signed(text: str) -> str:
    """A text, then a text that a person requests."""
    first = writer(text=text)
    answer = ask("And now? " + first)
    return shortener(text=answer)


class Hand:
    """Workers whose models write the given text at the given time."""

    def __init__(self) -> None:
        self.streamed: list[bool] = []
        """For each call, whether its text is read."""
        self.replies: dict[tuple[str, int], asyncio.Queue[CallResult | CallError | str]] = {}

    def of(self, name: str, attempt: int = 1) -> asyncio.Queue[CallResult | CallError | str]:
        return self.replies.setdefault((name, attempt), asyncio.Queue())

    def say(self, name: str, *replies: CallResult | CallError | str, attempt: int = 1) -> None:
        for reply in replies:
            self.of(name, attempt).put_nowait(reply)

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        self.streamed.append(on_text is not None)
        while isinstance(reply := await self.of(call.name, call.attempt).get(), str):
            if on_text is not None:
                on_text(reply)
        return reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        return NO_ESTIMATE

    async def count_tokens(self, call: CallRequest) -> int | None:
        return None


@asynccontextmanager
async def opened(folder: Path, workers: Any, journal: str = "off") -> AsyncIterator[Orchestra]:
    settings = Settings.load({"journal": journal}, start=folder)
    async with asyncio.timeout(60), Orchestra.open(settings, workers=workers) as orchestra:
        yield orchestra


async def read(run: Run[Any], **wanted: Any) -> list[TextPiece]:
    return [piece async for piece in run.text(**wanted)]


def simulated(**more: Any) -> SimulatedWorkers:
    return SimulatedWorkers({"writer": "once upon a time", "shortener": "once"}, tools=[shout], **more)


async def settled() -> None:
    for _ in range(50):
        await asyncio.sleep(0)


def told(event: Event) -> Any:
    return (event.value, event.error) if isinstance(event, AttemptFinished) else type(event)


@pytest.mark.parametrize("latency", [0.0, 0.01])
async def test_streaming_texts_in_pieces_not_journaled(tmp_path: Path, latency: float) -> None:
    async with opened(tmp_path, simulated(chunks=4, latency=latency)) as orchestra:
        run = await orchestra.options(live=True).start(article, text="a tower")
        pieces = await read(run)
        plain = await orchestra.start(article, text="a tower")
        assert (await run).output == (await plain).output == "ONCE"
        assert [told(event) async for event in run.events()] == [told(event) async for event in plain.events()]
    texts = {(piece.node, piece.agent): "" for piece in pieces}
    for piece in pieces:
        assert (piece.run, piece.attempt, piece.start) == (run.id, 1, len(texts[piece.node, piece.agent]))
        texts[piece.node, piece.agent] += piece.text
    assert texts == {("writer", "writer"): "once upon a time", ("shortener", "shortener"): "once"}
    if latency:
        assert len(pieces) > 4, "they came while it was written"


async def test_streaming_off_unless_requested(tmp_path: Path) -> None:
    hand = Hand()
    async with opened(tmp_path, hand) as orchestra:
        run = await orchestra.start(writer, text="a tower")
        with pytest.raises(InputError, match=r"options\(live=True\)") as caught:
            run.text()
        assert caught.value.code == "E032"
        hand.say("writer", CallResult(value="x"))
        await run
        with pytest.raises(InputError) as resumed:
            (await orchestra.resume(run.id)).text()
        assert f".resume({run.id!r})" in resumed.value.hint
    assert hand.streamed == [False]


async def test_streaming_text_per_attempt(tmp_path: Path) -> None:
    hand = Hand()
    async with opened(tmp_path, hand) as orchestra:
        run = await orchestra.options(live=True).start(writer.options(retry=2), text="a tower")
        async with aclosing(run.text()) as pieces:
            seen = []
            for text, attempt in (("one ", 1), ("two", 1), ("again", 2)):
                hand.say("writer", text, attempt=attempt)
                piece = await anext(pieces)
                seen.append((piece.attempt, piece.start, piece.text))
                if text == "two":
                    hand.say("writer", CallError(code="F203", reason="lost", retryable=True))
            hand.say("writer", CallResult(value="again"), attempt=2)
            assert [piece async for piece in pieces] == []
        assert seen == [(1, 0, "one "), (1, 4, "two"), (2, 0, "again")]


async def test_streaming_slow_and_late_readers_do_not_delay_run(
    tmp_path: Path,
) -> None:
    hand = Hand()
    async with opened(tmp_path, hand) as orchestra:
        run = await orchestra.options(live=True).start(article, text="a tower")
        slow, gone = run.text(), run.text()
        hand.say("writer", "once ")
        assert (await anext(slow)).text == (await anext(gone)).text == "once "
        await gone.aclose()
        hand.say("writer", "upon ", "a ", "time", CallResult(value="once upon a time"))
        hand.say("shortener", "on", "ce")
        await settled()
        late = await anext(run.text())
        assert (late.node, late.start, late.text) == ("shortener", 0, "once"), (
            "of a call that has ended it comes too late"
        )
        hand.say("shortener", CallResult(value="once"))
        hand.say("shout", CallResult(value="ONCE"))
        assert (await run).output == "ONCE", "though one reader has read a single piece"
        assert [(piece.node, piece.start, piece.text) async for piece in slow] == [
            ("writer", 5, "upon a time"),
            ("shortener", 0, "once"),
        ]
        assert await read(run) == []


async def test_streaming_filter_by_node_or_agent(tmp_path: Path) -> None:
    async with opened(tmp_path, simulated(chunks=2)) as orchestra:
        told = orchestra.options(live=True)
        for wanted, nodes in (
            ({"agents": ["shortener"]}, {"shortener"}),
            ({"nodes": ["writer"]}, {"writer"}),
            ({"nodes": "writer"}, {"writer"}),
            ({"nodes": ["write"]}, set()),
            ({"nodes": ["writer"], "agents": ["shortener"]}, set()),
            ({"nodes": ["shout"]}, set()),
        ):
            assert {piece.node for piece in await read(await told.start(article, text="a"), **wanted)} == nodes
        of_all = await read(await told.start(articles, texts=["a", "b"]), nodes=["writer"])
        assert len({piece.node for piece in of_all}) == 2, {piece.node for piece in of_all}


async def test_streaming_unread_text_bounded_oldest_dropped() -> None:
    live, call = TextStream(), CallRequest(run="r", node="n", attempt=1, kind="agent", name="a", inputs={})
    with live.open_reader((), ()) as unread, live.open_text(call) as first, live.open_text(call) as second:
        first.add("x" * (MAX_BUFFERED - 10))
        second.add("y" * 11)
        piece = unread.take()
        assert piece is not None
        assert piece.text == "y" * 11
        first.add("z")
        piece = unread.take()
        assert piece is not None
        assert (piece.start, piece.text) == (MAX_BUFFERED - 10, "z"), "that something is missing is told"
        second.add("y" * (MAX_BUFFERED + 1))
        assert unread.take() is None


async def test_streaming_recalled_answer_has_no_text(tmp_path: Path) -> None:
    class Remembered(Hand):
        def estimate(self, call: CallRequest) -> CallEstimate:
            return CallEstimate(memo_key="key")

    hand = Remembered()
    async with opened(tmp_path, hand, "runs.db") as orchestra:
        told = orchestra.options(live=True, memo=True)
        hand.say("writer", "on", "ce", CallResult(value="once"))
        assert "".join(piece.text for piece in await read(await told.start(writer, text="a"))) == "once"
        again = await told.start(writer, text="a")
        assert await read(again) == []
        assert (await again).output == "once"


async def test_streaming_continues_after_answer(tmp_path: Path) -> None:
    async with opened(tmp_path, simulated(chunks=2), "runs.db") as orchestra:
        run = await orchestra.options(live=True).start(signed, text="a tower")
        reading = asyncio.create_task(read(run))
        assert await run.wait_until_blocked() is None
        await orchestra.answer(run.id, "go on")
        await run
        assert {piece.node for piece in await reading} == {"first", "shortener"}


async def test_streaming_resumed_run_needs_new_request(
    tmp_path: Path,
) -> None:
    async with opened(tmp_path, simulated(chunks=2), "runs.db") as orchestra:
        run = await orchestra.options(live=True).start(signed, text="a tower")
        await run.wait_until_blocked()
        reading = asyncio.create_task(read(run))
        await settled()
    with pytest.raises(OrchestraError) as caught:
        await reading
    assert caught.value.code == "E017"
    async with opened(tmp_path, simulated(chunks=2), "runs.db") as orchestra:
        await orchestra.answer(run.id, "go on")
        run = await orchestra.options(live=True).resume(run.id)
        assert {piece.node for piece in await read(run)} == {"shortener"}
        await run
        with pytest.raises(InputError):
            (await orchestra.resume(run.id)).text()
        assert await read(await orchestra.options(live=True).resume(run.id)) == [], "it has ended"


async def test_streaming_fork_has_text_of_new_calls_only(tmp_path: Path) -> None:
    async with opened(tmp_path, simulated(chunks=2), "runs.db") as orchestra:
        first = await orchestra.start(article, text="a tower")
        await first
        live = orchestra.options(live=True)
        assert await read((await live.fork(first.id)).run) == []
        changed = await live.options(values={"writer": "twice"}).fork(first.id)
        assert {piece.node for piece in await read(changed.run)} == {"shortener"}


async def test_streaming_later_key_user_reads_from_then_on(tmp_path: Path) -> None:
    hand = Hand()
    async with opened(tmp_path, hand) as orchestra:
        keyed = orchestra.options(idempotency_key="k")
        run = await keyed.start(article, text="a")
        same = await keyed.options(live=True).start(article, text="a")
        hand.say("writer", "once", CallResult(value="once"))
        hand.say("shortener", "on", CallResult(value="on"))
        hand.say("shout", CallResult(value="ON"))
        assert [piece.node for piece in await read(same)] == ["shortener"]
        assert (await run).output == "ON"
