"""The servers of `bench.server`, each in a process of its own: ours, and Starlette alone.

python -m bench.serving orchestra FOLDER PORT | starlette FOLDER PORT | inside FOLDER CONCURRENCY RUNS
"""

from __future__ import annotations

import asyncio
import json
import resource
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from bench import floor
from orchestra import Orchestra
from orchestra.core.settings import Settings
from orchestra.server import ServerSettings, create_app, http_server, process
from orchestra.testing.fake_workers import SimulatedWorkers

CALL_SECONDS = 0.02
PARENTS: floor.Parents = [[], [0], [0], [0], [1, 2, 3], [4], [4], [5, 6]]
"""8 nodes, depth 5."""
DEPTH = 5
WARM_RUNS = 50
CARD = "schema: orchestra/v1\nname: step\ndescription: Says yes.\ninput: {text: str}\noutput: str\nmodel: base\n"
NODES = "\n".join(
    f'  n{place}: {{agent: step, with: {{text: "${{input.text}}"}}, after: [{", ".join(f"n{one}" for one in before)}]}}'
    for place, before in enumerate(PARENTS)
)
WORKFLOW = f"schema: orchestra/v1\nname: diamond\ninput: {{text: str}}\nnodes:\n{NODES}\noutput: ${{n7}}\n"
ASKING = 'schema: orchestra/v1\nname: waits\ninput: {text: str}\nnodes:\n  n: {ask: "Go on?"}\noutput: ${n}\n'


@asynccontextmanager
async def opened(folder: Path) -> AsyncIterator[Orchestra]:
    """Opens a project with the graph, a journal in a file, and calls that take 20 ms."""
    agent = folder / "agents" / "step"
    agent.mkdir(parents=True)
    (agent / "agent.yaml").write_text(CARD)
    (agent / "prompt.md").write_text("{{ text }}\n")
    (folder / "workflows").mkdir()
    (folder / "workflows" / "diamond.yaml").write_text(WORKFLOW)
    (folder / "workflows" / "waits.yaml").write_text(ASKING)
    (folder / "orchestra.toml").write_text("")
    settings = Settings.load({"journal": str(folder / "runs.db"), "concurrency": 10_000}, start=folder, environ={})
    workers = SimulatedWorkers(lambda call: "yes", latency=CALL_SECONDS)
    async with Orchestra.open(settings, workers=workers) as orchestra:
        yield orchestra


async def serve_orchestra(folder: Path, port: int) -> None:
    """Serves the product, as `orchestra serve` does."""
    async with opened(folder) as orchestra:
        app = create_app(orchestra, ServerSettings(auth=False, drain=1.0))
        await http_server.serve(app, "127.0.0.1", port, lambda _: process.tune_collection())


async def serve_starlette(folder: Path, port: int) -> None:
    """Serves the calls alone: a task for each node, nothing is stored."""

    async def call(node: int) -> None:
        await asyncio.sleep(CALL_SECONDS)

    async def run(request: Request) -> JSONResponse:
        await request.json()
        await floor.by_tasks(PARENTS, call)
        return JSONResponse({"status": "done", "output": "yes"})

    app = Starlette(routes=[Route("/api/runs", run, methods=["POST"])])
    config = uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False)
    await uvicorn.Server(config).serve()


async def closed_loop(run: Callable[[], Awaitable[None]], concurrency: int, runs: int) -> dict[str, Any]:
    """Keeps so many runs going until all have ended; returns the rate and the seconds of each."""
    for _ in range(WARM_RUNS // 10):
        await asyncio.gather(*(run() for _ in range(10)))
    left, seconds = iter(range(runs)), list[float]()

    async def lane() -> None:
        for _ in left:
            began = time.perf_counter()
            await run()
            seconds.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(concurrency)))
    wall = time.perf_counter() - began
    seconds.sort()
    return {"rate": runs / wall, "p50": seconds[runs // 2], "p99": seconds[min(runs - 1, int(runs * 0.99))]}


async def run_inside(folder: Path, concurrency: int, runs: int) -> None:
    """Runs the same in this process, without HTTP; prints the result."""
    async with opened(folder) as orchestra:
        step = orchestra.find("diamond")

        async def run() -> None:
            result = await orchestra.run(step, text="x")
            assert result.status == "done"

        print(json.dumps(await closed_loop(run, concurrency, runs)), flush=True)


def raise_limit() -> None:
    """Lets this process open as many files as it may."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


if __name__ == "__main__":
    raise_limit()
    name, folder, *numbers = sys.argv[1:]
    work = {"orchestra": serve_orchestra, "starlette": serve_starlette, "inside": run_inside}[name]
    runner = process.run if name == "orchestra" else asyncio.run  # as `orchestra serve` does
    runner(work(Path(folder), *map(int, numbers)))  # type: ignore[operator]  # each has its own numbers
