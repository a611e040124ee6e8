"""h: processor time and memory of importing a library, relative to a Python that imports nothing."""

from __future__ import annotations

import subprocess
from collections.abc import Collection, Iterator
from typing import Any

from bench.peers import environments

STATEMENTS = {
    "asyncio": ("asyncio floor", "import asyncio"),
    "orchestra": ("orchestra, no journal", "from orchestra import Orchestra, agent, tool, workflow"),
    "langgraph": ("langgraph", "from langgraph.graph import StateGraph"),
    "haystack": ("haystack", "from haystack import Pipeline, component"),
    "burr": ("burr", "from burr.core import ApplicationBuilder, State, action"),
    "llamaindex": ("llama-index-workflows", "from workflows import Context, Workflow, step"),
    "pydantic": ("pydantic-graph", "from pydantic_graph import GraphBuilder"),
    "dbos": ("dbos (SQLite)", "from dbos import DBOS"),
}
"""For each environment: the label in the tables, and the imports of a program that defines and runs a workflow."""
COSTS = (
    "\nimport time\nprint(time.process_time() * 1e3, int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20)"
)


def once(name: str, statement: str) -> tuple[float, float]:
    """Returns processor milliseconds of a process that only does this, and its memory in MiB at the end."""
    done = subprocess.run(
        [str(environments.python(name)), "-I", "-c", statement + COSTS], capture_output=True, text=True, check=True
    )
    milliseconds, memory = map(float, done.stdout.splitlines()[-1].split())
    return milliseconds, memory


def measured(names: Collection[str], times: int = 3) -> Iterator[dict[str, Any]]:
    """Returns the minimum of some tries for each environment, minus that of a bare Python in it."""
    for name, (label, statement) in STATEMENTS.items():
        if name not in names or not environments.ready(name):
            continue
        once(name, statement)  # fills the caches of files and of bytecode
        bare = [once(name, "pass") for _ in range(times)]
        full = [once(name, statement) for _ in range(times)]
        wall, memory = (min(column) for column in zip(*full, strict=True))
        wall_of_bare, memory_of_bare = (min(column) for column in zip(*bare, strict=True))
        found = {"import_ms": wall - wall_of_bare, "import_mib": memory - memory_of_bare, "statement": statement}
        yield {"workload": "h", "n": 1, "label": label, "bare_ms": wall_of_bare, **found}
