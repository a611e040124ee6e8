"""Errors shown for a tool that raises an exception."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.cli.shell import Shell
from tests.cli.stage import FLEET

TOOLS = '''\
from orchestra import tool


def helper(given: dict[str, int]) -> int:
    return given["n"]


@tool(effect="pure")
def buggy_of_raising(text: str) -> int:
    """Breaks."""
    return helper({text: 1})
'''
WORKFLOW = """\
schema: orchestra/v1
name: raising
input: {text: str}
output: ${x}
nodes:
  x: {tool: buggy_of_raising, with: {text: "${input.text}"}}
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    for name, text in {
        "tools_of_raising.py": TOOLS,
        "workflows/raising.yaml": WORKFLOW,
        "configs/nowhere.yaml": FLEET,
        "orchestra.toml": 'fleet = "nowhere"\nmodules = ["tools_of_raising"]\n',
    }.items():
        path = Path(name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    return shell


def test_tool_exception_shows_its_line_and_runs_show_the_traceback(shell: Shell) -> None:
    said = shell("run", "raising", "-i", "text=secret")
    assert said.out.startswith(
        "x: buggy_of_raising raised KeyError: 'n' (tools_of_raising.py:5 in helper)\n"
        "  the tool's own code raised; run it separately\n"
    )
    shown = shell("runs", "show", "last", "x").out
    place = Path("tools_of_raising.py").resolve()
    assert f"  at {place}:11 in buggy_of_raising\n  at {place}:5 in helper\n  the tool's own code raised" in shown
    first = shell("runs", "show", "last", "x", "--json").json["attempts"][0]
    assert first["frames"] == [f"{place}:11 in buggy_of_raising", f"{place}:5 in helper"]
    assert "secret" not in str(first)
