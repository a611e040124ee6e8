"""The baseline does the same work as the engine: every node once, after its parents."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from bench.engine import Line
from bench.floor import Body, Parents, by_counters, by_tasks, critical_path, in_groups, store, successors
from bench.ours import opened, workflow_of


@st.composite
def graphs(draw: st.DrawFn) -> Parents:
    """Graphs whose nodes come after their parents."""
    sets = [
        draw(st.sets(st.integers(0, max(0, v - 1)), max_size=3)) if v else set()
        for v in range(draw(st.integers(1, 12)))
    ]
    return [sorted(one) for one in sets]


def order_of(parents: Parents, run: Callable[[Parents, Body], Coroutine[Any, Any, object]]) -> list[int]:
    """Returns the nodes in the order in which they ended."""
    ended: list[int] = []

    async def body(v: int) -> None:
        await asyncio.sleep(0)
        ended.append(v)

    asyncio.run(run(parents, body))
    return ended


def holds(parents: Parents, ended: list[int]) -> bool:
    """Returns whether each node ended once and after its parents."""
    place = {v: at for at, v in enumerate(ended)}
    return sorted(ended) == list(range(len(parents))) and all(
        place[one] < place[v] for v in place for one in parents[v]
    )


async def counted(parents: Parents, body: Body) -> None:
    await by_counters(parents, successors(parents), body)


@given(graphs())
def test_by_tasks_runs_nodes_once_after_parents(parents: Parents) -> None:
    assert holds(parents, order_of(parents, by_tasks))


@given(graphs())
def test_by_counters_runs_nodes_once_after_parents(parents: Parents) -> None:
    assert holds(parents, order_of(parents, counted))


def test_workflow_of_runs_nodes_once_after_parents(tmp_path: Path) -> None:
    async def run(parents: Parents, body: Body) -> None:
        async with opened(tmp_path) as orchestra:
            await orchestra.run(workflow_of(parents, body, "small"))

    parents = [[], [0], [0], [1, 2], [0, 3], []]
    assert holds(parents, order_of(parents, run))


async def test_in_groups_node_ends_when_committed(tmp_path: Path) -> None:
    db = store(tmp_path / "floor.db", "full")

    async def nothing(v: int) -> None:
        pass

    await in_groups(db, 1, nothing)(7)
    other = store_read(tmp_path / "floor.db")
    db.close()
    assert other == [(1, 7)]


def store_read(path: Path) -> list[tuple[int, int]]:
    """Returns what another connection reads."""
    import sqlite3

    db = sqlite3.connect(path)
    found = db.execute("select run, node from node").fetchall()
    db.close()
    return found


def test_critical_path_is_longest() -> None:
    assert critical_path([[], [0], [0], [1, 2]], [1.0, 5.0, 2.0, 1.0]) == 7.0


def test_line_goal_by_ratio_or_figure() -> None:
    assert not Line("x", "µs", 9.0, 3.0, "ratio", 2.2).met
    assert Line("x", "µs", 6.0, 3.0, "ratio", 2.2).met
    assert not Line("x", "ms", 11.0, None, "figure", 10.0).met
    assert Line("x", "nodes/s", 50.0, 100.0, "ratio", 0.47, more=True).met
