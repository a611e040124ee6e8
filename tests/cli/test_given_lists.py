"""Lists that a person gives in a fork, where all elements are needed: what is held to their number, and what then comes of the run."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestra import Orchestra
from orchestra.config import Settings
from tests.cli.shell import Shell

MODULE = '''
from pathlib import Path

from orchestra import tool

@tool(effect="pure")
def draft(topic: str) -> str:
    """Drafts."""
    return f"about {topic}"

@tool(effect="pure")
def write(lines: list[str]) -> str:
    """Writes."""
    return ", ".join(lines)

@tool(effect="pure")
def split(text: str) -> list[str]:
    """Splits."""
    return text.split()

@tool(effect="once")
def pay(item: str) -> str:
    """Pays."""
    with (Path(__file__).parent / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    return f"receipt {item}"
'''
ORDER = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${letter}
nodes:
  lines: {tool: draft, each: "${input.topics}", as: topic, at_least: all, with: {topic: "${topic}"}}
  letter: {tool: write, with: {lines: "${lines.values}"}}
  paid: {tool: pay, after: [letter], with: {item: "${input.topics[0]}"}}
"""


@pytest.fixture
def desk(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("list_tools", None)
    (shell.project / "workflows").mkdir()
    (shell.project / "workflows" / "order.yaml").write_text(ORDER)
    (shell.project / "list_tools.py").write_text(MODULE)
    (shell.project / "orchestra.toml").write_text('modules = ["list_tools"]\njournal = "runs.db"\n')
    return shell.project


@asynccontextmanager
async def opened(desk: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(desk / "runs.db")}, start=desk)) as orchestra:
        yield orchestra


async def test_a_list_that_a_run_took_before_all_were_counted_holds_on(desk: Path) -> None:
    (desk / "workflows" / "order.yaml").write_text(ORDER.replace("at_least: all, ", ""))
    async with opened(desk) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=["tea", "milk"])
        await run
        taken = (await orchestra.options(values={"lines": ["only one"]}, by="ada").fork(run.id)).run
        assert (await taken).output == "only one"
    (desk / "workflows" / "order.yaml").write_text(ORDER)
    async with opened(desk) as orchestra:
        assert (await (await orchestra.fork(taken.id)).run).output == "only one"
        assert (await (await orchestra.options(values={"lines": ["a", "b"]}).fork(taken.id)).run).output == "a, b"
    assert (desk / "paid.txt").read_text() == "tea\n"
