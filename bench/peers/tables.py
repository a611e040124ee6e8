"""The arms of the comparison, and the tables of their results."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

Row: TypeAlias = dict[str, Any]


class Arm(NamedTuple):
    """A variant of a peer: a row of the tables."""

    label: str
    environment: str
    script: str
    workloads: str
    arguments: tuple[str, ...] = ()


FLOOR = "asyncio floor"
AIOHTTP = ("--client", "aiohttp")
ARMS = (
    Arm(FLOOR, "asyncio", "asyncio", "abcdefgi"),
    Arm("asyncio, counters", "asyncio", "asyncio", "abcdg", ("--variant", "counter-batch")),
    Arm("asyncio, fsync a node", "asyncio", "asyncio", "g", ("--variant", "full")),
    Arm("asyncio, fsync a group", "asyncio", "asyncio", "g", ("--variant", "counter-batch-full")),
    Arm("asyncio (openai client)", "langgraph", "asyncio", "ef", ("--client", "openai")),
    Arm("orchestra, no journal", "orchestra", "orchestra", "abcdefi"),
    Arm("orchestra, default (fsync a group)", "orchestra", "orchestra", "abcdefgi", ("--variant", "durable")),
    Arm("orchestra, off (NORMAL)", "orchestra", "orchestra", "g", ("--variant", "normal")),
    Arm("orchestra, strict", "orchestra", "orchestra", "g", ("--variant", "sync")),
    Arm("orchestra, no journal (aiohttp, control)", "orchestra", "orchestra", "ef", AIOHTTP),
    Arm("orchestra, no journal, values passed on", "orchestra", "orchestra", "abc", ("--variant", "values")),
    Arm("langgraph", "langgraph", "langgraph", "abcdefgi"),
    Arm("langgraph (aiohttp)", "langgraph", "langgraph", "ef", AIOHTTP),
    Arm("haystack", "haystack", "haystack", "abcdefi"),
    Arm("haystack (aiohttp)", "haystack", "haystack", "ef", AIOHTTP),
    Arm("burr", "burr", "burr", "abcdefi"),
    Arm("burr (aiohttp)", "burr", "burr", "ef", AIOHTTP),
    Arm("llama-index-workflows", "llamaindex", "llamaindex", "abcdefi"),
    Arm("llama-index-workflows (aiohttp)", "llamaindex", "llamaindex", "ef", AIOHTTP),
    Arm("pydantic-graph", "pydantic", "pydantic_graph", "abcdefi"),
    Arm("pydantic-graph (aiohttp)", "pydantic", "pydantic_graph", "ef", AIOHTTP),
    Arm("dbos (SQLite)", "dbos", "dbos", "abdefg"),
)
LABELS = [arm.label for arm in ARMS]
COSTS = (("µs/node", "us_per_node"), ("CPU µs/node", "cpu_us_per_node"), ("build ms", "build_ms"))
SPANS = (("makespan ms", "wall_ms"), ("over critical path", "makespan_over_cp"), ("CPU µs/node", "cpu_us_per_node"))
RATES = (
    ("runs/s", "runs_per_s"),
    ("p50 over ideal", "p50_over_ideal"),
    ("p99 over ideal", "p99_over_ideal"),
    ("CPU µs/node", "cpu_us_per_node"),
)
IDLE = (("KiB/run", "kib_per_run"), ("started ms", "start_ms"), ("started and drained ms", "wall_ms"))
TABLES: tuple[tuple[str, str, Sequence[tuple[str, str]], str], ...] = (
    ("a", "A chain of empty nodes", COSTS, "cpu_us_per_node"),
    ("b", "One, then n empty nodes at once, then one", COSTS, "cpu_us_per_node"),
    ("c", "A layered graph of empty nodes, 3 parents each", COSTS, "cpu_us_per_node"),
    ("d", "A layered graph of sleeping nodes, 50 ms in the mean", SPANS, "makespan_over_cp"),
    ("e", "The same over HTTP", SPANS, "cpu_us_per_node"),
    ("f", "n runs of 8 nodes at once, a call of 20 ms in each", RATES, "runs_per_s"),
    ("g", "A layered graph of empty nodes, each kept", (("nodes/s", "nodes_per_s"), *COSTS[:2]), "nodes_per_s"),
    ("h", "Import, over a bare Python", (("CPU ms", "import_ms"), ("MiB", "import_mib")), "import_ms"),
    ("i", "n runs of 8 nodes that wait in their first", IDLE, "kib_per_run"),
)
"""Letter, title, columns, and the figure whose ratio to the baseline is shown."""


def shown(number: float | None) -> str:
    """Returns a figure with three digits."""
    if number is None:
        return "-"
    return f"{number:,.0f}" if abs(number) >= 100 else f"{number:.3g}"


def middle(rows: Iterable[Row], key: str) -> float | None:
    """Returns the median of a figure."""
    found = [row[key] for row in rows if key in row]
    return statistics.median(found) if found else None


def table(
    letter: str, title: str, columns: Sequence[tuple[str, str]], key: str, by: Mapping[tuple[str, str], list[Row]]
) -> Iterator[str]:
    """Returns the lines of one table."""
    n = max(row["n"] for (one, _), rows in by.items() if one == letter for row in rows)
    yield f"### {letter}. {title}" + (f" (n = {n:,})" if n > 1 else "")
    yield ""
    names = {one: name for name, one in columns}
    yield f"| | {' | '.join(names.values())} | times the floor ({names[key]}) | spread | rounds |"
    yield "|---" * (len(columns) + 4) + "|"
    floor = middle(by.get((letter, FLOOR), []), key)
    for label in LABELS:
        rows = by.get((letter, label))
        if not rows:
            continue
        good = [row for row in rows if "error" not in row]
        if not good:
            yield f"| {label} | {rows[0]['error'][:90]} |" + " |" * (len(columns) + 2)
            continue
        spread = sorted(row[key] for row in good)
        value = middle(good, key)
        ratio = f"{shown(value / floor)}" if value and floor else "-"
        size = f" (n = {good[0]['n']:,})" if good[0]["n"] != n else ""
        cells = " | ".join(shown(middle(good, one)) for _, one in columns)
        yield f"| {label}{size} | {cells} | {ratio} | {shown(spread[0])} to {shown(spread[-1])} | {len(good)} |"
    yield ""


def report(results: Sequence[Row], folder: Path) -> str:
    """Returns all tables, then versions and machine."""
    by: dict[tuple[str, str], list[Row]] = {}
    for row in results:
        by.setdefault((row["workload"], row["label"]), []).append(row)
    lines = [line for one in TABLES if any(letter == one[0] for letter, _ in by) for line in table(*one, by)]
    versions = {name: given for row in results for name, given in row.get("versions", {}).items()}
    lines.append(
        "Versions: "
        + ", ".join(f"{name} {given}" for name, given in sorted(versions.items()))
        + f"; Python {pythons(results)}."
    )
    loads = [row["load"] for row in results if "load" in row]
    if loads:
        span = f"{shown(min(loads))} to {shown(max(loads))}, {shown(statistics.median(loads))} in the middle"
        lines.append(f"{results[0].get('of', '')}; load of the machine before a process: {span}.")
    faults = json.loads(file.read_text("utf-8")) if (file := folder / "faults.json").exists() else {}
    lines += [f"Not installed: {name} ({reason})." for name, reason in faults.items()]
    return "\n".join(lines)


def rows(file: Path) -> list[Row]:
    """Reads the results of a file."""
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]


def pythons(results: Sequence[Row]) -> str:
    """Returns the versions of Python."""
    return ", ".join(sorted({row["python"] for row in results if "python" in row}))
