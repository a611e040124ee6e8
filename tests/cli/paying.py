"""A shop with payment tools, for tests that no payment is repeated."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.processes import PATIENCE, environment
from tests.cli.shell import Shell
from tests.cli.stage import FILES, furnish

MODULE = '''
import asyncio
import os
import time
from pathlib import Path

from orchestra import tool

HERE = Path(__file__).parent

def _dies(place: str) -> None:
    """Ends the process there, as a crash does, where it is to; once."""
    if (file := HERE / f"die {place}").exists():
        file.unlink()
        os._exit(9)

async def _until(name: str) -> None:
    while not (HERE / name).exists():
        await asyncio.sleep(0.01)

@tool(effect="pure")
async def ready(item: str) -> str:
    """Waits, where the item is the slow one; fails, where it is a bad one and the server is down."""
    if item == "slow":
        await _until("go")
    while (HERE / "hang").exists():
        await asyncio.sleep(0.01)
    _dies("ready")
    if item.startswith("bad") and not ((HERE / "up").exists() or (HERE / "half up").exists()):
        raise ConnectionError("db down")
    return item

@tool(effect="once")
async def pay(item: str) -> str:
    """Pays, and is told so late where the item is the doubtful one."""
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    _dies("paid")
    if item == "doubtful":
        await _until("told")
    return f"receipt {item}"

@tool(effect="once")
def ship(item: str) -> str:
    """Ships, and is not told."""
    with (HERE / "paid.txt").open("a") as file:
        file.write(f"{item}\\n")
    while not (HERE / "told").exists():
        time.sleep(0.01)
    return item

@tool(effect="pure")
def mail(receipt: str) -> str:
    """Mails, where the server is up."""
    _dies("mail")
    if "unsent" in receipt and not (HERE / "up").exists():
        raise ConnectionError("smtp down")
    return f"sent {receipt}"
'''
BUY = """
schema: orchestra/v1
name: buy
input: {item: str}
output: ${sent}
nodes:
  ready: {tool: ready, with: {item: "${input.item}"}, retry: {attempts: 1}}
  paid: {tool: pay, with: {item: "${ready}"}}
  sent: {tool: mail, with: {receipt: "${paid}"}, retry: {attempts: 1}}
"""
BATCH = ("batch", "buy", "--input", "rows.jsonl", "--output", "out.jsonl")
Starter = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def shop(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shell]:
    """A shell in a project that pays and then mails."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("shop_tools", None)
    furnish(files={**FILES, "shop_tools.py": MODULE, "workflows/buy.yaml": BUY})
    Path("orchestra.toml").write_text('modules = ["shop_tools"]\nfleet = "nowhere"\n')
    yield shell
    sys.modules.pop("shop_tools", None)


@pytest.fixture
def start(shop: Shell) -> Iterator[Starter]:
    """Starts `orchestra` in a separate process."""
    processes: list[subprocess.Popen[str]] = []

    def begin(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "orchestra.cli", *arguments]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
        )
        processes.append(process)
        return process

    yield begin
    for process in processes:
        process.kill()
        process.communicate()


def rows(*items: str) -> None:
    Path("rows.jsonl").write_text("".join(json.dumps({"id": item, "input": {"item": item}}) + "\n" for item in items))


def results() -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path("out.jsonl").read_text().splitlines()]


def paid() -> list[str]:
    return sorted(Path("paid.txt").read_text().split()) if Path("paid.txt").exists() else []


def until(true: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < end
        time.sleep(0.02)


def statuses(shell: Shell) -> list[str]:
    return sorted(run["status"] for run in shell("runs", "list", "--json").json)
