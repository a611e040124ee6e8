"""The baseline of the engine: the same graphs with asyncio alone. A graph is the list of each node's parents."""

from __future__ import annotations

import asyncio
import math
import random
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from statistics import NormalDist
from typing import TypeAlias

from bench.compile import layered

__all__ = [
    "DIAMOND",
    "Body",
    "Parents",
    "by_counters",
    "by_tasks",
    "chain",
    "critical_path",
    "fan",
    "in_groups",
    "layered",
    "sleeps",
    "store",
    "successors",
]

Parents: TypeAlias = Sequence[Sequence[int]]
Body: TypeAlias = Callable[[int], Awaitable[None]]

DIAMOND: Parents = [[], [0], [0], [0], [1, 2, 3], [4], [4], [5, 6]]
"""8 nodes, depth 5."""


def chain(nodes: int) -> Parents:
    """Nodes in sequence."""
    return [[at - 1] if at else [] for at in range(nodes)]


def fan(nodes: int) -> Parents:
    """One node, then all at once, then one that waits for them."""
    return [[], *([0] for _ in range(1, nodes - 1)), list(range(1, nodes - 1))]


def sleeps(nodes: int, mean: float = 0.05, sigma: float = 0.6) -> list[float]:
    """Returns the seconds that each node sleeps: lognormal, deterministic."""
    drawn, normal = random.Random(7), NormalDist(math.log(mean) - sigma**2 / 2, sigma)
    return [math.exp(normal.inv_cdf(drawn.uniform(0.001, 0.999))) for _ in range(nodes)]


def critical_path(parents: Parents, seconds: Sequence[float]) -> float:
    """Returns the seconds of the longest path: a lower bound."""
    best: list[float] = []
    for node, before in enumerate(parents):
        best.append(seconds[node] + max((best[parent] for parent in before), default=0.0))
    return max(best)


async def by_tasks(parents: Parents, body: Body) -> None:
    """One task for each node, which awaits its parents' tasks: the baseline of PERFORMANCE."""
    tasks: list[asyncio.Task[None]] = []

    async def node(v: int) -> None:
        for parent in parents[v]:
            await tasks[parent]
        await body(v)

    async with asyncio.TaskGroup() as group:
        for v in range(len(parents)):
            tasks.append(group.create_task(node(v)))


async def by_counters(parents: Parents, after: Parents, body: Body) -> None:
    """A new task only at a fork; the first ready successor runs in the same task."""
    left = [len(before) for before in parents]

    async def node(v: int | None) -> None:
        while v is not None:
            await body(v)
            following = None
            for successor in after[v]:
                left[successor] -= 1
                if not left[successor] and following is None:
                    following = successor
                elif not left[successor]:
                    group.create_task(node(successor))
            v = following

    async with asyncio.TaskGroup() as group:
        for v, before in enumerate(parents):
            if not before:
                group.create_task(node(v))


def successors(parents: Parents) -> Parents:
    """Returns the successors of each node."""
    found: list[list[int]] = [[] for _ in parents]
    for v, before in enumerate(parents):
        for parent in before:
            found[parent].append(v)
    return found


def store(path: Path, synchronous: str) -> sqlite3.Connection:
    """Opens a database of nodes; `synchronous` is SQLite's FULL or NORMAL."""
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute(f"pragma synchronous={synchronous}")
    db.execute("create table node(run int, node int, out text, primary key(run, node)) without rowid")
    return db


def in_groups(db: sqlite3.Connection, run: int, body: Body) -> Body:
    """Returns a body that ends when a commit contains it; there is one commit for each turn of the event loop."""
    loop = asyncio.get_running_loop()
    rows: list[tuple[int, int, str]] = []
    waiting: list[asyncio.Future[None]] = []

    def flush() -> None:
        db.execute("begin")
        db.executemany("insert into node values(?, ?, ?)", rows)
        db.execute("commit")
        ended = waiting[:]
        rows.clear()
        waiting.clear()
        for one in ended:
            one.set_result(None)

    async def kept(v: int) -> None:
        await body(v)
        if not rows:
            loop.call_soon(flush)
        rows.append((run, v, "ok"))
        committed: asyncio.Future[None] = loop.create_future()
        waiting.append(committed)
        await committed

    return kept
