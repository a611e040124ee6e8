"""Tests of the blocking façade in a notebook cell with a running event loop: a real kernel, simulated workers."""

from __future__ import annotations

import json
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
]


@pytest.fixture(scope="module")
def outputs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What the last expression of each cell was."""
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
    results = (
        [output["data"]["text/plain"] for output in cell["outputs"] if "data" in output] for cell in notebook.cells
    )
    return [found[-1] if found else "" for found in results]


def test_notebook_cell_runs_agent(outputs: list[str]) -> None:
    assert outputs[1] == "'1889'"


def test_notebook_cell_reads_events(outputs: list[str]) -> None:
    assert outputs[2] == "'RunFinished'"
