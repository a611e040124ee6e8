"""`Orchestra.open_sync` and `blocking`, the interface without asyncio: results of its calls, and refused calls."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra, TextPiece, agent, answered_by_model, blocking, tool, workflow
from orchestra.app.loop_thread import LoopThread
from orchestra.core.errors import OrchestraError
from orchestra.core.events import RunFinished, RunStarted
from orchestra.core.protocols import CallError, CallRequest
from orchestra.core.settings import Settings
from orchestra.journal.memory import MemoryJournal
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


def loop_threads() -> list[threading.Thread]:
    """The threads with an event loop of a blocking `Orchestra`."""
    return [thread for thread in threading.enumerate() if thread.name == "orchestra"]


async def test_open_sync_blocks_under_a_running_loop(tmp_path: Path) -> None:
    orchestra = Orchestra.open_sync(settings(tmp_path), fleet="none")
    assert asyncio.get_running_loop().is_running()
    assert orchestra.run(shout, text="tea").value == "TEA"
    orchestra.close()


@pytest.mark.filterwarnings("error")
def test_open_sync_close_is_idempotent_and_ends_thread(tmp_path: Path) -> None:
    orchestra = Orchestra.open_sync(settings(tmp_path), fleet="none")
    assert len(loop_threads()) == 1
    orchestra.close()
    orchestra.close()
    assert loop_threads() == []
    with pytest.raises(OrchestraError) as caught:
        orchestra.run(shout, text="tea")
    assert caught.value.code == "E028"
    assert "Orchestra.open_sync()" in caught.value.hint


def test_open_sync_is_a_context_manager(tmp_path: Path) -> None:
    with Orchestra.open_sync(settings(tmp_path), fleet="none") as orchestra:
        assert orchestra.run(shout, text="tea").value == "TEA"
    with pytest.raises(OrchestraError, match="closed"):
        orchestra.run(shout, text="tea")


def test_open_sync_failure_leaves_no_thread(tmp_path: Path) -> None:
    with pytest.raises(OrchestraError) as caught:
        Orchestra.open_sync(project=tmp_path / "nowhere")
    assert caught.value.code == "C045"
    assert loop_threads() == []


def test_blocking_close_on_own_loop_refused(tmp_path: Path) -> None:
    with Orchestra.open_sync(settings(tmp_path), fleet="none") as orchestra:

        @tool(effect="pure")
        async def close(text: str) -> str:
            try:
                orchestra.close()
            except OrchestraError as error:
                return error.code
            return text

        assert orchestra.run(close, text="tea").value == "E027"


def test_blocking_runs_workflow_by_name(tmp_path: Path) -> None:
    workers = SimulatedWorkers({"reader": {"answer": "1889"}})
    with Orchestra.open_sync(settings(tmp_path), workers=workers) as orchestra:
        assert orchestra.run("reader", question="When?", context="In 1889.").value == {"answer": "1889"}
        with pytest.raises(OrchestraError, match="did you mean"):
            orchestra.run("raeder", question="When?", context="In 1889.")


def test_blocking_methods_return_what_coroutines_return(tmp_path: Path) -> None:
    with Orchestra.open_sync(settings(tmp_path), fleet="none", journal=MemoryJournal()) as orchestra:
        result = orchestra.options(tags={"drink": "tea"}).run(shout, text="tea")
        view = orchestra.view(result.run)
        assert (view.status, view.tags, view.result and view.result.value) == ("done", {"drink": "tea"}, "TEA")
        assert [run.run for run in orchestra.runs(tags={"drink": "tea"})] == [result.run]
        assert orchestra.questions(result.run) == []
        with pytest.raises(OrchestraError) as caught:
            orchestra.view("nowhere")
        assert caught.value.code == "E020"


def test_blocking_workflow_shows_its_graph(tmp_path: Path) -> None:
    with Orchestra.open_sync(settings(tmp_path), fleet="none") as orchestra:
        view = orchestra.workflow("answer_from_documents")
        assert repr(view).startswith("answer_from_documents(question: str, documents: list[Document]) -> Answer\n")
        html = view._repr_html_()
        assert html.count("<svg") == html.count("</svg>") == 1
        assert all(f">{name}</text>" in html for name in ("input", "passages", "readings", "answer", "output"))
        assert repr(orchestra.workflow(shout)).startswith("shout(text: str) -> str\n")
