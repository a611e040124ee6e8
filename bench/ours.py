"""The Orchestra side of the engine benchmark: a Python workflow for a graph, and an Orchestra that runs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from bench.floor import Body, Parents
from orchestra import Orchestra, Workflow, tool, workflow
from orchestra.core.settings import Settings

AT_ONCE = 10_000
"""Concurrent calls of one run: the baseline has no limit either."""


def workflow_of(parents: Parents, body: Body, name: str) -> Workflow[..., Any]:
    """Returns a workflow whose nodes call an async tool `pure`, which awaits the body, after their parents; its output
    is that of the last nodes.
    """

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
    """Opens an Orchestra without a journal, or with one in a new file of the folder."""
    given: dict[str, Any] = {"journal": "off", "concurrency": AT_ONCE}
    if durability is not None:
        given |= {"journal": str(folder / f"{durability}.db"), "durability": durability}
    async with Orchestra.open(Settings.load(given, start=folder), fleet="none") as orchestra:
        yield orchestra
