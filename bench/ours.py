"""Our side of the engine's benchmark: a workflow of the Python API for a graph, and an Orchestra to run it, as a program would."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.floor import Body, Parents
from orchestra import Orchestra, Workflow, tool, workflow
from orchestra.core.settings import Settings

AT_ONCE = 10_000
"""Calls of one run in flight: the floor has no limit either."""


def workflow_of(parents: Parents, body: Body, name: str) -> Workflow[..., Any]:
    """A workflow whose nodes call an async tool `pure` that awaits the body, after their parents; it gives what the last nodes give."""

    @tool(effect="pure", name=f"body_of_{name}")
    async def node(v: int) -> int:
        await body(v)
        return v

    @workflow(name=name)
    def graph() -> dict[str, int]:
        made: list[Any] = []
        for v, before in enumerate(parents):
            made.append(node.options(name=f"n{v}", after=[made[parent] for parent in before])(v=v))
        read = {parent for before in parents for parent in before}
        return {f"n{v}": made[v] for v in range(len(parents)) if v not in read}

    return graph


@asynccontextmanager
async def opened(folder: Path, durability: str | None = None) -> AsyncIterator[Orchestra]:
    """An Orchestra without a journal, or with one in a new file of the folder."""
    given: dict[str, Any] = {"journal": "off", "concurrency": AT_ONCE}
    if durability is not None:
        given |= {"journal": str(folder / f"{durability}.db"), "durability": durability}
    async with Orchestra.open(Settings.load(given, start=folder), fleet="none") as orchestra:
        yield orchestra
