"""Progress in a notebook cell: one line of text for all runs of a cell. `tests/examples/test_notebook.py` shows it in a
real kernel.
"""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from orchestra import Orchestra, tool
from orchestra.app.notebook_progress import DELAY_SECONDS, MAX_LENGTH, NotebookProgress
from orchestra.core.events import (
    AttemptFinished,
    AttemptStarted,
    Event,
    NodeFinished,
    QuestionAsked,
    RunFinished,
    RunStarted,
    Usage,
)
from orchestra.core.outcomes import ValueOutcome
from orchestra.core.settings import Settings
from orchestra.fleet.progress import Progress
from orchestra.journal.memory import MemoryJournal

STARTED = RunStarted(seq=1, at=0.0, run="r", workflow="answer", graph="", inputs={})
CALL = AttemptStarted(seq=2, at=0.0, node="reading", attempt=1, name="reader")
DONE: Any = ValueOutcome(1, 1.0)


class Output:
    """The output of cells, as a kernel shows it: lines by their id."""

    def __init__(self) -> None:
        self.now = 0.0
        self.execution = 1
        self.lines: dict[str, str] = {}
        self.published: list[bool] = []
        self.progress = NotebookProgress(self, lambda: self.execution, monotonic=lambda: self.now)

    def publish(
        self, data: Mapping[str, Any], metadata: Mapping[str, Any] | None = None, *, transient: Any, update: bool
    ) -> None:
        assert list(data) == ["text/plain"]
        assert update == (transient["display_id"] in self.lines)
        self.lines[transient["display_id"]] = data["text/plain"]
        self.published.append(update)

    def run(self, *events: Event, seconds: float = 1.0) -> None:
        """A run that takes some time; the line is updated after each event."""
        with self.progress:
            self.now += seconds
            for event in events:
                self.progress.on_event(event)
                self.progress.show()

    @property
    def line(self) -> str:
        [line] = self.lines.values()
        return line


def end(status: str = "done") -> RunFinished:
    return RunFinished(seq=9, at=1.0, status=status, outcome=DONE, usage=Usage(10, 0, 5, 2, 0.5))


def test_progress_names_call_and_counts_nodes() -> None:
    output = Output()
    with output.progress:
        output.now = 2.0
        for event in (STARTED, CALL, NodeFinished(seq=3, at=1.0, node="passages", outcome=DONE)):
            output.progress.on_event(event)
        output.progress.show()
        assert output.line == "answer: 2.00 s · 1 node finished · reading calls reader"
        output.progress.on_event(AttemptFinished(seq=4, at=1.0, node="reading", attempt=1, value=1, final=True))
        output.progress.show()
        assert "2 nodes finished" in output.line


def test_progress_ends_with_status_and_cost() -> None:
    output = Output()
    output.run(STARTED, CALL, end("abstained"))
    assert output.line == "answer: abstained in 1.00 s · 2 calls"


def test_progress_of_fast_run_shows_nothing() -> None:
    output = Output()
    output.run(STARTED, CALL, end(), seconds=DELAY_SECONDS / 2)
    assert output.lines == {}


def test_progress_of_run_without_updates_shows_its_end() -> None:
    output = Output()
    with output.progress:
        output.now = 2 * DELAY_SECONDS
        output.progress.on_event(STARTED)
        output.progress.on_event(end())
    assert output.line == f"answer: done in {2 * DELAY_SECONDS:.2f} s · 2 calls"


def test_progress_of_runs_in_one_cell_shares_a_line() -> None:
    output = Output()
    for _ in range(3):
        output.run(STARTED, CALL, end())
    assert len(output.lines) == 1
    output.execution = 2
    output.run(STARTED, CALL, end())
    assert len(output.lines) == 2


def test_progress_publishes_only_changes() -> None:
    output = Output()
    with output.progress:
        output.now = 1.0
        for _ in range(100):
            output.progress.show()
    assert output.published == [False]


def test_progress_shows_question_until_it_is_answered() -> None:
    asked = QuestionAsked(seq=3, at=0.0, node="permit", question="Send it?", schema={}, question_digest="d")
    output = Output()
    output.run(STARTED, CALL, asked)
    assert output.line == "answer: 1.00 s · 0 nodes finished · permit waits for a person: Send it?"
    output.run(STARTED, asked, NodeFinished(seq=4, at=1.0, node="permit", outcome=DONE), CALL)
    assert output.line == "answer: 1.00 s · 1 node finished · reading calls reader"


def test_progress_shows_fleet_until_a_call_starts() -> None:
    output = Output()
    with output.progress:
        output.now = 1.0
        output.progress.on_fleet(Progress("download", "fetching weights", 5e6, 7e6, "bytes"))
        output.progress.show()
        assert output.line == "starting: 1.00 s · 0 nodes finished · fetching weights: 5 MB of 7 MB"
        output.progress.on_event(CALL)
        output.progress.show()
        assert output.line == "starting: 1.00 s · 0 nodes finished · reading calls reader"


def test_progress_line_of_hostile_texts_is_short_and_visible() -> None:
    asked = QuestionAsked(
        seq=3, at=0.0, node="n", question="\u202egnp\x1b[31m\n" + "x" * 9_999, schema={}, question_digest="d"
    )
    output = Output()
    output.run(STARTED, asked)
    assert len(output.line) == MAX_LENGTH
    assert output.line.isprintable()


@tool(effect="pure")
async def wait_forever(text: str) -> str:
    """Never ends."""
    await asyncio.Event().wait()
    return text


@pytest.mark.parametrize(("key", "status"), [("", "cancelled"), ("tea", "running")])
async def test_progress_interrupted_cancels_run_without_key(tmp_path: Path, key: str, status: str) -> None:
    settings = Settings.load({"journal": "off"}, start=tmp_path)
    async with Orchestra.open(settings, fleet="none", journal=MemoryJournal()) as orchestra:
        orchestra = orchestra.options(idempotency_key=key)
        run = await orchestra.start(wait_forever, text="tea")
        following = asyncio.create_task(Output().progress.follow(run, has_key=bool(key)))
        await asyncio.sleep(0)
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        if status == "cancelled":
            await asyncio.wait_for(run.wait(), 60)
        assert (await orchestra.view(run.id)).status == status


def test_progress_is_found_only_in_a_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "IPython", raising=False)
    assert NotebookProgress.find() is None
    for shell, found in ((None, False), (SimpleNamespace(), False), (SimpleNamespace(kernel=1, display_pub=1), True)):
        monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda shell=shell: shell))
        assert (NotebookProgress.find() is not None) is found
    monkeypatch.setattr(sys, "stdout", SimpleNamespace(isatty=lambda: True))
    assert NotebookProgress.find() is None


def test_progress_is_usable_on_the_main_thread_only() -> None:
    usable: list[bool] = []
    thread = threading.Thread(target=lambda: usable.append(Output().progress.is_usable))
    thread.start()
    thread.join()
    assert (Output().progress.is_usable, usable) == (True, [False])
