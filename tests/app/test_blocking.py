"""`blocking`, the interface without asyncio: results of its calls, and calls that it refuses."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestra import TextPiece, agent, answered_by_model, blocking, tool, workflow
from orchestra.app.loop_thread import LoopThread
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunFinished, RunStarted
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.testing import SimulatedWorkers


@tool(effect="pure")
def shout(text: str) -> str:
    """Says it louder."""
    return text.upper()


def settings(folder: Path) -> Settings:
    return Settings.load({"journal": "off"}, start=folder)


def test_blocking_used_in_plain_tool_of_run(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        def nested(text: str) -> str:
            return str(orchestra.run(shout, text=text).value)

        assert orchestra.run(nested, text="tea").value == "TEA"


def test_blocking_call_from_own_loop_refused(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        async def nested(text: str) -> str:
            try:
                return str(orchestra.run(shout, text=text).value)
            except OrchestraError as error:
                return error.code

        assert orchestra.run(nested, text="tea").value == "E027"


@pytest.mark.parametrize(
    "leave", [Generator.close, lambda events: events.throw(KeyboardInterrupt)], ids=["close", "interrupt"]
)
def test_blocking_stream_left_cancels_run(tmp_path: Path, leave: Callable[[Any], None]) -> None:
    cancelled = threading.Event()

    @tool(effect="pure")
    async def slow(text: str) -> str:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        return text

    with blocking(settings(tmp_path), fleet="none") as orchestra:
        events = orchestra.stream(slow, text="tea")
        assert isinstance(next(events), RunStarted)
        with suppress(KeyboardInterrupt):
            leave(events)
        assert cancelled.wait(10)


def test_blocking_interrupt_raised_after_work_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def slow() -> None:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            for _ in range(5_000):
                await asyncio.sleep(0)
            ended.set()

    def interrupted(future: Future[Any], timeout: float | None = None) -> None:
        begun.wait(10)
        raise KeyboardInterrupt

    loop = LoopThread()
    monkeypatch.setattr(Future, "result", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            loop.run(slow())
        assert ended.is_set()  # otherwise the next close raises "asynchronous generator is already running"
    finally:
        ended.wait(10)
        loop.close()


def test_blocking_stream_left_keeps_run_with_key(tmp_path: Path) -> None:
    left = threading.Event()

    @tool(effect="pure")
    def patient(text: str) -> str:
        left.wait(30)
        return text.upper()

    with blocking(settings(tmp_path), fleet="none") as orchestra:
        orchestra.inner = orchestra.inner.options(idempotency_key="tea-1")
        events = orchestra.stream(patient, text="tea")
        first = next(events)
        events.close()
        left.set()
        assert isinstance(first, RunStarted)
        result = orchestra.run(patient, text="tea")
        assert (result.run, result.value) == (first.run, "TEA")


@agent(prompt="Write about {{ text }}")
def writer(text: str) -> str:
    """Writes."""
    return answered_by_model()


def test_blocking_texts_read_on_calling_thread(tmp_path: Path) -> None:
    read: list[tuple[int, str, str]] = []
    workers = SimulatedWorkers({"writer": "Tea is a plant."}, chunks=3)

    def show(piece: TextPiece) -> None:
        read.append((threading.get_ident(), piece.agent, piece.text))

    with blocking(settings(tmp_path), workers=workers, text=show) as orchestra:
        assert orchestra.run(writer, text="tea").value == "Tea is a plant."
        assert ({one[:2] for one in read}, "".join(text for *_, text in read)) == (
            {(threading.get_ident(), "writer")},
            "Tea is a plant.",
        )


def test_blocking_text_reader_error_cancels_run(tmp_path: Path) -> None:
    begun, ended = threading.Event(), threading.Event()

    async def keep_it(call: CallRequest) -> str:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        return "kept"

    @tool(effect="pure")
    def keep(text: str) -> str:
        return text

    @workflow()
    def article(text: str) -> str:
        """A text that is kept."""
        return keep(text=writer(text=text))

    def show(piece: TextPiece) -> None:
        begun.wait(10)
        raise ValueError(piece.text)

    workers = SimulatedWorkers(
        {"writer": "Tea.", "keep": keep_it, "shout": CallError(code="W005", reason="no tea left")}, chunks=3
    )
    with blocking(settings(tmp_path), workers=workers, text=show) as orchestra:
        with pytest.raises(ValueError, match="T"):
            orchestra.run(article, text="tea")
        assert ended.wait(10)
        with pytest.raises(OrchestraError, match="no tea left"):
            orchestra.run(shout, text="tea")


@pytest.mark.filterwarnings("error")
def test_blocking_stream_left_after_close(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        events = orchestra.stream(shout, text="tea")
        assert isinstance(next(events), RunStarted)
    events.close()
    assert next(events, None) is None


def test_blocking_stream_ends_with_run(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        *_, last = orchestra.stream(shout, text="tea")
    assert isinstance(last, RunFinished)
    assert last.status == "done"


@pytest.mark.filterwarnings("error")
def test_blocking_use_after_close_reported(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        assert orchestra.run(shout, text="tea").value == "TEA"
    with pytest.raises(OrchestraError, match="closed") as caught:
        orchestra.run(shout, text="tea")
    assert caught.value.code == "E028"
