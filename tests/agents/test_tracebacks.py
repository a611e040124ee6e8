"""Tests the reported traceback of a tool: lines and functions of its own code, and no values."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.agents import tracebacks as module
from orchestra.agents.tools import ToolError, ToolFunction


def named(text: str) -> int:
    secret = json.loads(text)
    return int(secret["n"])


NAMED = named.__code__.co_firstlineno


def parsed(text: str) -> int:
    return named(text)


async def awaited(text: str) -> int:
    return named(text)


def deep(text: str) -> int:
    return deep(text)


async def fault(function: Any, text: str) -> ToolError:
    with pytest.raises(ToolError) as caught:
        await ToolFunction.from_function(function, effect="pure").call({"text": text}, "internal")
    return caught.value


@pytest.mark.parametrize("function", [parsed, awaited])
async def test_traceback_starts_at_the_tool(function: Any) -> None:
    found = await fault(function, '{"key": "hidden"}')
    assert found.reason.endswith(f"raised KeyError: 'n' (test_tracebacks.py:{NAMED + 2} in named)")
    outer = function.__code__.co_firstlineno + 1
    assert found.frames == (f"{__file__}:{outer} in {function.__name__}", f"{__file__}:{NAMED + 2} in named")
    assert "hidden" not in "".join(found.frames)


async def test_traceback_of_library_keeps_raising_line_and_user_line() -> None:
    found = await fault(parsed, "{")
    assert found.reason.endswith(f" (test_tracebacks.py:{NAMED + 1} in named)")
    assert [line.rpartition(" in ")[2] for line in found.frames] == ["parsed", "named", "JSONDecoder.raw_decode"]


async def test_traceback_of_installed_tool_counts_as_user_code(monkeypatch: pytest.MonkeyPatch) -> None:
    here = f"{Path(__file__).parent}/"
    monkeypatch.setattr(module, "_library_folders", lambda: ((f"{Path(json.__file__).parent.parent}/",), (here,)))
    assert (await fault(parsed, "{}")).reason.endswith(f" (test_tracebacks.py:{NAMED + 2} in named)")


async def test_traceback_of_many_lines_keeps_both_ends() -> None:
    found = await fault(deep, "x")
    assert len(found.frames) == module.MAX_FRAMES


def test_traceback_of_standard_library_has_no_user_line() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        json.loads("{")
    assert caught.tb.tb_next is not None
    error = caught.value.with_traceback(caught.tb.tb_next)  # without the line of this test
    assert (module.user_frames(error), module.last_user_line(error)) == ((), "")
