"""Tests of the interface without asyncio in cells of a notebook, where an event loop runs: a real kernel, simulated
workers.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

pytestmark = pytest.mark.slow

CELLS = [
    """
from orchestra import blocking
from orchestra.testing.fake_workers import SimulatedWorkers

workers = SimulatedWorkers({"reader": {"answer": "1889"}})
""",
    """
import asyncio
asyncio.get_running_loop()  # raises where no loop runs, and then this test would show nothing

with blocking(workers=workers) as orchestra:
    result = orchestra.run(orchestra.find("reader"), question="When?", context="The tower was completed in 1889.")
result.output['answer']
""",
    """
with blocking(workers=workers) as orchestra:
    events = list(orchestra.stream(orchestra.find("reader"), question="When?", context="It was completed in 1889."))
[type(event).__name__ for event in events][-1]
""",
    """
from orchestra import Orchestra
from orchestra.app import notebook_progress

notebook_progress.DELAY_SECONDS = 0.0  # otherwise a fast run shows no progress
orc = Orchestra.open_sync(workers=SimulatedWorkers({"reader": {"answer": "<script>alert(1)</script>"}}))
for _ in range(3):
    result = orc.run("reader", question="What?", context="The page says <script>alert(1)</script>.")
result
""",
    "orc.view(result.run)",
    "orc.workflow('answer_from_documents')",
    """
orc.close()
try:
    orc.run("reader", question="When?", context="")
except Exception as error:
    code = error.code
code
""",
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[list[Mapping[str, str]]]:
    """The outputs of each cell, by media type; a displayed one that is updated is one output."""
    folder = tmp_path_factory.mktemp("notebook")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
            patch.setenv(name, str(folder / name.lower()))
        cells: list[dict[str, Any]] = [
            {"cell_type": "code", "source": cell, "metadata": {}, "outputs": [], "execution_count": None}
            for cell in CELLS
        ]
        notebook: Any = nbformat.reads(
            json.dumps({"nbformat": 4, "nbformat_minor": 4, "metadata": {}, "cells": cells}), as_version=4
        )  # type: ignore[no-untyped-call]  # nbformat leaves it untyped
        NotebookClient(
            notebook, timeout=120, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
        ).execute()
    return [[output["data"] for output in cell["outputs"] if "data" in output] for cell in notebook.cells]


def test_notebook_cell_runs_agent(outputs: list[list[Mapping[str, str]]]) -> None:
    assert outputs[1][-1]["text/plain"] == "'1889'"


def test_notebook_cell_reads_events(outputs: list[list[Mapping[str, str]]]) -> None:
    assert outputs[2][-1]["text/plain"] == "'RunFinished'"


def test_notebook_cell_shows_one_line_of_progress(outputs: list[list[Mapping[str, str]]]) -> None:
    progress, _ = outputs[3]
    assert list(progress) == ["text/plain"]
    assert re.fullmatch(r"reader: done in [0-9.]+ s · 1 call", progress["text/plain"])


def test_notebook_cell_shows_result_as_html(outputs: list[list[Mapping[str, str]]]) -> None:
    html = outputs[3][-1]["text/html"]
    assert "&lt;script&gt;alert(1)" in html
    assert "<script" not in html


def test_notebook_cell_shows_run_and_workflow_as_html(outputs: list[list[Mapping[str, str]]]) -> None:
    [run], [workflow] = outputs[4:6]
    assert "Timeline" in run["text/html"]
    assert "<svg" in workflow["text/html"]
    assert workflow["text/plain"].startswith("answer_from_documents(question: str")


def test_notebook_cell_uses_closed_orchestra(outputs: list[list[Mapping[str, str]]]) -> None:
    assert outputs[6][-1]["text/plain"] == "'E028'"
