"""The server that is killed: a process with simulated workers, which records each call before it is made."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from orchestra import Orchestra
from orchestra.core.protocols import CallRequest
from orchestra.core.settings import Settings
from orchestra.server import ServerSettings, create_app, http_server
from orchestra.testing.fake_workers import SimulatedWorkers

STEPS = 6
LATENCY = (0.05, 0.5)
"""Seconds of a call."""
AGENT = """\
schema: orchestra/v1
name: step
description: Writes a text.
input: {text: str}
output: str
model: base
"""
NODES = "\n".join(
    f'  n{place}: {{agent: step, with: {{text: "${{{f"n{place - 1}" if place else "input.text"}}}"}}}}'
    for place in range(STEPS)
)
WORKFLOW = f"""\
schema: orchestra/v1
name: chain
description: Steps one after the other.
input: {{text: str}}
nodes:
{NODES}
output: ${{n{STEPS - 1}}}
"""


class CallRecord(msgspec.Struct, frozen=True):
    """A call that a process has begun."""

    process: int
    run: str
    node: str


def write_project(folder: Path) -> None:
    """Writes the agent and the workflow."""
    agent = folder / "agents" / "step"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(AGENT)
    (agent / "prompt.md").write_text("{{ text }}\n")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "chain.yaml").write_text(WORKFLOW)
    (folder / "orchestra.toml").write_text("")


async def main(folder: Path, port: int, process: int) -> None:
    """Serves until it is killed, or SIGTERM."""
    settings = Settings.load({"journal": str(folder / "runs.db")}, start=folder, environ={})
    calls = os.open(folder / "calls", os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def answer(call: CallRequest) -> Any:
        os.write(calls, msgspec.json.encode(CallRecord(process, call.run, call.node)) + b"\n")
        return f"{call.inputs['text']}."

    def seconds(call: CallRequest, random: Random) -> float:
        return random.uniform(*LATENCY)

    async with Orchestra.open(settings, workers=SimulatedWorkers(answer, latency=seconds)) as orchestra:
        app = create_app(orchestra, ServerSettings(auth=False, drain=1.0))
        await http_server.serve(app, "127.0.0.1", port, lambda port: print(port, flush=True))


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
