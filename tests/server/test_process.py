"""The event loop and the garbage collection of `orchestra serve`."""

from __future__ import annotations

import asyncio
import gc
import sys

import pytest

from orchestra.server import process


async def loop_module() -> str:
    """The package of the event loop that runs this."""
    return type(asyncio.get_running_loop()).__module__.partition(".")[0]


@pytest.mark.skipif(sys.platform == "win32", reason="uvloop is not made for Windows")
def test_server_runs_on_uvloop() -> None:
    assert process.run(loop_module()) == "uvloop"


def test_server_without_uvloop_runs_on_asyncio(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)  # its import fails
    assert process.run(loop_module()) == "asyncio"


def test_collection_leaves_out_what_is_there() -> None:
    thresholds = gc.get_threshold()
    try:
        process.tune_collection()
        assert gc.get_freeze_count() > 0
        assert gc.get_threshold() == process.GC_THRESHOLDS
    finally:
        gc.unfreeze()
        gc.set_threshold(*thresholds)
