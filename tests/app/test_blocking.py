"""The façade without asyncio: what it gives, and where it refuses to wait."""

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
from orchestra.app.blocking import _run_on_loop
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


def test_a_plain_tool_may_use_it_within_a_run(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        def nested(text: str) -> str:
            return str(orchestra.run(shout, text=text).value)

        assert orchestra.run(nested, text="tea").value == "TEA"


def test_a_coroutine_of_its_own_loop_is_refused_and_does_not_hang(tmp_path: Path) -> None:
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
def test_whoever_leaves_a_stream_cancels_its_run(tmp_path: Path, leave: Callable[[Any], None]) -> None:
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


def test_an_interrupt_comes_out_once_the_work_has_ended(monkeypatch: pytest.MonkeyPatch) -> None:
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

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    monkeypatch.setattr(Future, "result", interrupted)
    try:
        with pytest.raises(KeyboardInterrupt):
            _run_on_loop(loop, slow())
        assert ended.is_set()  # else what is closed next is still at work: "asynchronous generator is already running"
    finally:
        ended.wait(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


def test_a_run_with_a_key_goes_on_when_its_stream_is_left(tmp_path: Path) -> None:
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


def test_what_models_write_is_read_on_the_thread_that_runs(tmp_path: Path) -> None:
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


def test_a_reader_of_texts_that_raises_cancels_the_run_and_one_of_a_run_that_fails_hears_why(tmp_path: Path) -> None:
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
def test_a_stream_may_be_left_once_all_is_closed(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        events = orchestra.stream(shout, text="tea")
        next(events)
    events.close()


def test_a_stream_ends_with_the_end_of_its_run(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        *_, last = orchestra.stream(shout, text="tea")
    assert isinstance(last, RunFinished)
    assert last.status == "done"


@pytest.mark.filterwarnings("error")
def test_once_it_is_closed_it_says_so(tmp_path: Path) -> None:
    with blocking(settings(tmp_path), fleet="none") as orchestra:
        assert orchestra.run(shout, text="tea").value == "TEA"
    with pytest.raises(OrchestraError, match="closed") as caught:
        orchestra.run(shout, text="tea")
    assert caught.value.code == "E028"
