"""`orchestra mcp` as a process, with the official client."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import mcp_types as types
import pytest
from mcp import Client, StdioServerParameters

from orchestra.cli import mcp
from orchestra.core.errors import InputError
from tests.server.servers import project


def command(folder: Path) -> StdioServerParameters:
    """The command in a project with a workflow that asks a person, and calls no model."""
    project(folder)
    (folder / "orchestra.toml").write_text('journal = "runs.db"\n')
    return StdioServerParameters(
        command=sys.executable, args=["-m", "orchestra.cli", "mcp"], cwd=folder, env=dict(os.environ)
    )


@pytest.mark.parametrize("era", ["legacy", "2026-07-28"])
async def test_mcp_serves_tools_and_questions_over_pipes(tmp_path: Path, era: str) -> None:
    async def elicit(context: Any, params: Any) -> types.ElicitResult:
        return types.ElicitResult(action="accept", content={"answer": "yes"})

    async with Client(command(tmp_path), mode=era, elicitation_callback=elicit) as client:
        names = [tool.name for tool in (await client.list_tools()).tools]
        result = await client.call_tool("approve", {"draft": "Hello"})
    data: Any = result.structured_content
    assert {"ask", "answer", "approve"} <= set(names)
    assert (data["status"], data["output"]) == ("done", "yes")


def test_mcp_without_the_sdk_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def find(name: str) -> Any:
        return None if name == "mcp" else object()

    monkeypatch.setattr("importlib.util.find_spec", find)
    with pytest.raises(InputError) as caught:
        mcp._require_libraries()
    assert (caught.value.code, caught.value.hint) == ("S034", "pip install 'orchestra-slm[server,mcp]'")
