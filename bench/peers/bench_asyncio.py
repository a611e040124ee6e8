"""The baseline: asyncio alone, an `asyncio.TaskGroup` over a topological order.

variants, joined by '-': (none): a task for every node, which awaits its parents' tasks | counter: in-degree counters, a
task only at a fork. Of g: (none): a commit for every node | batch: one for each turn of the loop; both with SQLite's
NORMAL | full: with fsync.
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import tempfile
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import networkx as nx

if TYPE_CHECKING:
    from bench.peers.common import Peer, main
else:
    from common import Peer, main

Body = Callable[[Any], Awaitable[Any]]
INSERT = "insert into node values(?, ?, ?)"


class Asyncio(Peer):
    """asyncio."""

    name, packages, client = "asyncio", ("networkx", "aiohttp"), "aiohttp"
    workloads = "abcdefgi"

    def compile(self, g: Any, fn: Any, shape: str, durable: bool = False) -> Any:
        order = list(nx.topological_sort(g))
        before = {v: list(g.predecessors(v)) for v in order}
        after = {v: list(g.successors(v)) for v in order}
        return (
            order,
            before,
            after,
            fn,
            opened("full" if "full" in self.args.variant else "normal") if durable else None,
        )

    async def run(self, compiled: Any, run_id: str = "r") -> None:
        order, before, after, fn, db = compiled
        words = self.args.variant.split("-")
        if db is not None:
            fn = in_groups(db, fn, run_id) if "batch" in words else each(db, fn, run_id)
        await (by_counters(order, before, after, fn) if "counter" in words else by_tasks(order, before, fn))


def opened(synchronous: str) -> sqlite3.Connection:
    """Opens a new database of nodes."""
    handle, path = tempfile.mkstemp(suffix=".db")
    os.close(handle)
    db = sqlite3.connect(path, isolation_level=None)
    db.execute("pragma journal_mode=wal")
    db.execute(f"pragma synchronous={synchronous}")
    db.execute("create table node(run text, node int, out text, primary key(run, node)) without rowid")
    return db


async def by_tasks(order: Any, before: Any, fn: Body) -> None:
    """A task for every node."""
    tasks: dict[Any, asyncio.Task[Any]] = {}

    async def node(v: Any) -> Any:
        for parent in before[v]:
            await tasks[parent]
        return await fn(v)

    async with asyncio.TaskGroup() as group:
        for v in order:
            tasks[v] = group.create_task(node(v))


async def by_counters(order: Any, before: Any, after: Any, fn: Body) -> None:
    """A new task only at a fork; the first ready successor runs in the same task."""
    left = {v: len(parents) for v, parents in before.items()}

    async def node(v: Any) -> None:
        while v is not None:
            await fn(v)
            following = None
            for successor in after[v]:
                left[successor] -= 1
                if not left[successor] and following is None:
                    following = successor
                elif not left[successor]:
                    group.create_task(node(successor))
            v = following

    async with asyncio.TaskGroup() as group:
        for v in order:
            if not before[v]:
                group.create_task(node(v))


def each(db: sqlite3.Connection, fn: Body, run_id: str) -> Body:
    """The body with a commit for every node."""

    async def one(v: Any) -> Any:
        found = await fn(v)
        db.execute(INSERT, (run_id, v, "ok"))
        return found

    return one


def in_groups(db: sqlite3.Connection, fn: Body, run_id: str) -> Body:
    """The body with a commit for each turn of the loop; a node ends when its commit is done."""
    loop = asyncio.get_running_loop()
    rows: list[tuple[str, Any, str]] = []
    waiting: list[asyncio.Future[None]] = []

    def flush() -> None:
        db.execute("begin")
        db.executemany(INSERT, rows)
        db.execute("commit")
        ended = waiting[:]
        rows.clear()
        waiting.clear()
        for one in ended:
            one.set_result(None)

    async def one(v: Any) -> Any:
        found = await fn(v)
        if not rows:
            loop.call_soon(flush)
        rows.append((run_id, v, "ok"))
        committed: asyncio.Future[None] = loop.create_future()
        waiting.append(committed)
        await committed
        return found

    return one


if __name__ == "__main__":
    main(Asyncio)
