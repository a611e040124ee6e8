"""A shop whose orders are paid, written and approved by persons, for tests of overrides and answers."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from orchestra import Orchestra
from orchestra.core.events import Event
from orchestra.core.settings import Settings
from orchestra.journal.history import History
from tests.cli.shell import Shell

MODULE = '''
import os
from pathlib import Path

from pydantic import BaseModel

from orchestra import tool

HERE = Path(__file__).parent

class Receipt(BaseModel):
    number: int
    item: str

@tool(effect="once")
def pay(item: str) -> Receipt:
    """Pays."""
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    if (HERE / "die").exists():
        os._exit(9)
    return Receipt(number=1, item=item)

@tool(effect="pure")
def draft(topic: str) -> str:
    """Drafts."""
    with (HERE / "drafted.txt").open("a") as file:
        file.write(f"{topic}\\n")
    return f"about {topic}"

@tool(effect="pure")
def write(lines: list[str], receipt: Receipt) -> str:
    """Writes."""
    return f"{', '.join(lines)}; {receipt.item} {receipt.number}"
'''
WORKFLOW = """
schema: orchestra/v1
name: order
input: {topics: "list[str]"}
output: ${letter}
nodes:
  allowed: {ask: "Order about ${input.topics[0]}?", options: ["yes", "no"]}
  paid: {tool: pay, after: [allowed], with: {item: "${input.topics[0]}"}}
  lines: {tool: draft, each: "${input.topics}", as: topic, with: {topic: "${topic}"}}
  letter: {tool: write, with: {lines: "${lines.values}", receipt: "${paid}"}}
  sure: {ask: "Send ${letter}?", options: ["yes", "no"]}
"""


def furnished(project: Path, monkeypatch: pytest.MonkeyPatch, name: str, module: str, workflow: str) -> Path:
    """A project with a workflow `order` and a module of tools, which stores its runs in `runs.db`."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop(name, None)
    (project / "workflows").mkdir()
    (project / "workflows" / "order.yaml").write_text(workflow)
    (project / f"{name}.py").write_text(module)
    (project / "orchestra.toml").write_text(f'modules = ["{name}"]\njournal = "runs.db"\n')
    return project


@pytest.fixture
def shop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Path:
    return furnished(shell.project, monkeypatch, "given_tools", MODULE, WORKFLOW)


@asynccontextmanager
async def opened(shop: Path) -> AsyncIterator[Orchestra]:
    async with Orchestra.open(Settings.load({"journal": str(shop / "runs.db")}, start=shop)) as orchestra:
        yield orchestra


async def ended(shop: Path, *topics: str) -> str:
    """A run with two answered questions."""
    async with opened(shop) as orchestra:
        run = await orchestra.start(orchestra.find("order"), topics=list(topics))
        for node in ("allowed", "sure"):
            await run.wait_until_blocked()
            await orchestra.answer(run.id, "yes", node=node, by="ada")
        assert (await run.wait()).status == "done"
    return run.id


def rows(events: list[Event]) -> dict[str, tuple[str, Any]]:
    """How each step got its output, by path, and the output."""
    return {row.path: (row.display_status, getattr(row.outcome, "value", None)) for row in History.of(events).rows}
