"""The engine compared with asyncio alone, in one process and interleaved, and with its goals; under a minute.

    python -m bench.engine [--rounds 9] [--record]

Prints a table, and exits with 1 if a goal is missed. Ours is `Orchestra.run` everywhere: a workflow of the Python API
whose nodes call an empty async tool. The baseline is one asyncio task for each node (`bench.floor`); for durable rows,
in-degree counters with one commit for each turn of the event loop. Figures are medians over the rounds of processor
time, which other programs disturb least; those of d and g are wall-clock times.

Goals are ratios to the baseline. Compiling, imports and idle runs have absolute goals, because asyncio has no
equivalent. `--record` writes the ratios into bench/limits.toml, which tests enforce.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Literal

from bench import compile as compiling
from bench import floor, limits, machine
from bench.floor import Parents
from bench.ours import opened, workflow_of
from orchestra.workflows.compile.compiler import compile_graph
from orchestra.workflows.yaml.reader import read

SAMPLE_S = 0.02
"""Minimal duration of a sample: shorter ones are mostly noise, so runs are repeated."""
ROOT = Path(__file__).resolve().parent.parent
IMPORT = "from orchestra import Orchestra, agent, tool, workflow"
FIRST_RUN = f"""
import asyncio
{IMPORT}

@tool(effect="pure")
def greet(name: str) -> str:
    return f"hello {{name}}"

@workflow()
def hello(name: str) -> str:
    return greet(name=name)

async def main() -> None:
    async with Orchestra.open(fleet="none") as orchestra:
        await orchestra.run(hello, name="Ada")

asyncio.run(main())
"""
"""A complete program. It includes the cost that the import postpones, so the two are read together."""
Run = Callable[[], Awaitable[object]]


@dataclass(frozen=True)
class Line:
    """A line of the table."""

    name: str
    unit: str
    ours: float
    floor: float | None
    by: Literal["ratio", "figure", ""]
    """What the goal applies to; empty if there is none."""
    goal: float = 0.0
    more: bool = False
    """Whether higher is better."""

    @property
    def ratio(self) -> float | None:
        """Ours divided by the baseline."""
        return self.ours / self.floor if self.floor else None

    @property
    def met(self) -> bool:
        """Returns whether the goal is reached or absent."""
        value = self.ratio if self.by == "ratio" else self.ours
        if not self.by or value is None:
            return True
        return value >= self.goal if self.more else value <= self.goal

    def shown(self) -> str:
        """Returns the line as text."""
        sign = ">=" if self.more else "<="
        goal = f"{sign} {self.goal:,.4g}{' x' if self.by == 'ratio' else ''}" if self.by else ""
        met = ("yes" if self.met else "NO") if self.by else ""
        numbers = (
            f"{self.ours:>10,.4g} {self.floor or float('nan'):>10,.4g} {self.ratio or float('nan'):>7.3g}".replace(
                "nan", "  -"
            )
        )
        return f"{self.name:34} {self.unit:8} {numbers}  {goal:12} {met}".rstrip()


async def nothing(v: int) -> None:
    """The body of an empty node."""


async def sample(run: Run, times: int, now: Callable[[], float]) -> float:
    """Returns seconds per run, from several runs."""
    gc.collect()
    began = now()
    for _ in range(times):
        await run()
    return (now() - began) / times


async def interleaved(
    runs: dict[str, Run], rounds: int, now: Callable[[], float], sample_s: float = SAMPLE_S
) -> dict[str, float]:
    """Returns the median seconds of each of some runs, interleaved."""
    times = {}
    for name, run in runs.items():
        await run()
        times[name] = max(1, round(sample_s / max(1e-6, await sample(run, 1, now))))
    found: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            found[name].append(await sample(run, times[name], now))
    return {name: median(one) for name, one in found.items()}


async def empty(name: str, parents: Parents, rounds: int, folder: Path) -> tuple[float, float]:
    """Returns microseconds of processor time per empty node: ours and the baseline's."""
    async with opened(folder) as orchestra:
        step = workflow_of(parents, nothing, name)
        runs: dict[str, Run] = {"ours": lambda: orchestra.run(step), "floor": lambda: floor.by_tasks(parents, nothing)}
        found = await interleaved(runs, rounds, time.process_time)
    return found["ours"] * 1e6 / len(parents), found["floor"] * 1e6 / len(parents)


SHAPES: dict[str, tuple[Parents, float]] = {
    "chain": (floor.chain(100), 1.7),
    "fan": (floor.fan(1000), 2.1),
    "layered": (floor.layered(1000), 2.2),
}
"""The graphs of a, b and c, each with its goal: the maximal ratio to the baseline."""


async def empty_lines(rounds: int, folder: Path) -> list[Line]:
    """a, b, c."""
    lines = []
    for (name, (parents, goal)), letter in zip(SHAPES.items(), "abc", strict=True):
        ours, least = await empty(name, parents, rounds, folder)
        lines.append(Line(f"{letter} {name}, {len(parents):,} empty nodes", "µs/node", ours, least, "ratio", goal))
    return lines


async def sleeping_line(folder: Path) -> Line:
    """d: the makespan divided by the critical path."""
    parents = floor.layered(300)
    seconds = floor.sleeps(len(parents))

    async def body(v: int) -> None:
        await asyncio.sleep(seconds[v])

    async with opened(folder) as orchestra:
        step = workflow_of(parents, body, "sleeping")
        orchestra.program(step)
        runs: dict[str, Run] = {"floor": lambda: floor.by_tasks(parents, body), "ours": lambda: orchestra.run(step)}
        found = {name: [] for name in runs}  # type: dict[str, list[float]]
        for _ in range(3):
            for name, run in runs.items():
                found[name].append(await sample(run, 1, time.perf_counter))
    path = floor.critical_path(parents, seconds)
    ours, least = (median(found[name]) / path for name in ("ours", "floor"))
    return Line("d 300 sleeping nodes, makespan", "of path", ours, least, "ratio", 1.01)


async def kept_line(durability: str, synchronous: str, goal: float, title: str, rounds: int, folder: Path) -> Line:
    """g: durable nodes per second."""
    parents = floor.layered(300)
    after = floor.successors(parents)
    async with AsyncExitStack() as stack:
        orchestra = await stack.enter_async_context(opened(folder, durability))
        step = workflow_of(parents, nothing, "kept")
        db = floor.store(folder / f"floor-{durability}.db", synchronous)
        stack.callback(db.close)
        number = iter(range(1_000_000))

        async def least() -> None:
            await floor.by_counters(parents, after, floor.in_groups(db, next(number), nothing))

        runs: dict[str, Run] = {"ours": lambda: orchestra.run(step), "floor": least}
        found = await interleaved(runs, rounds, time.perf_counter, 0.1)
    rates = {name: len(parents) / one for name, one in found.items()}
    return Line(f"g {title}", "nodes/s", rates["ours"], rates["floor"], "ratio", goal, more=True)


def compile_lines(rounds: int) -> list[Line]:
    """1,000 nodes: from YAML to the graph, from the graph to the program, and from Python to the graph. Names are new
    in each round.
    """
    parents = floor.layered(1000)
    times: dict[str, list[float]] = {"read": [], "compile": [], "trace": []}
    for number in range(rounds):
        text = compiling.text("layered, tools", len(parents), f"e{number}_")
        with spent(times["read"]):
            source = read(text, "long.yaml")
        with spent(times["compile"]):
            compile_graph(source.graph, compiling.CATALOG, source.places)
        traced = workflow_of(parents, nothing, f"traced{number}")
        with spent(times["trace"]):
            _ = traced.graph
    found = {name: median(one) for name, one in times.items()}
    return [
        Line("compile 1,000 nodes", "ms", found["compile"], None, "figure", 10),
        Line("  before it, from YAML", "ms", found["read"], None, ""),
        Line("  or before it, from Python", "ms", found["trace"], None, ""),
    ]


@contextmanager
def spent(times: list[float]) -> Iterator[None]:
    """Adds the processor milliseconds of a block."""
    gc.collect()
    began = time.process_time()
    yield
    times.append((time.process_time() - began) * 1e3)


def fresh(statement: str, environment: dict[str, str]) -> tuple[float, float]:
    """Returns processor milliseconds of a new Python process that only does this, and its memory in MiB at the end."""
    memory = (
        "\nimport time\n"
        "print(time.process_time() * 1e3, int(open('/proc/self/statm').read().split()[1]) * 4096 / 2**20)"
    )
    done = subprocess.run(
        [sys.executable, "-c", statement + memory],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    milliseconds, memory_mib = map(float, done.stdout.split())
    return milliseconds, memory_mib


def import_lines(rounds: int) -> list[Line]:
    """The import cost of a program, relative to a Python that imports nothing; also asyncio alone, and the cost up to a
    first run.

    All modules are compiled to bytecode first, as an installed package is.
    """
    found: dict[str, list[tuple[float, float]]] = {"pass": [], "import asyncio": [], IMPORT: [], FIRST_RUN: []}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": folder, "XDG_STATE_HOME": folder, "XDG_CONFIG_HOME": folder}
        environment.pop("PYTHONDONTWRITEBYTECODE", None)
        for statement in found:
            fresh(statement, environment)
        for _ in range(rounds):
            for statement, measured in found.items():
                measured.append(fresh(statement, environment))
    (bare_ms, bare_mib), (floor_ms, floor_mib), (ours_ms, ours_mib), (run_ms, run_mib) = (
        tuple(median(column) for column in zip(*measured, strict=True)) for measured in found.values()
    )
    return [
        Line("h import, over a bare Python", "ms", ours_ms - bare_ms, floor_ms - bare_ms, "figure", 150),
        Line("h memory of it", "MiB", ours_mib - bare_mib, floor_mib - bare_mib, "figure", 15),
        Line("  import, open, run one tool", "ms", run_ms - bare_ms, None, ""),
        Line("  memory of that", "MiB", run_mib - bare_mib, None, ""),
    ]


def idle_lines() -> list[Line]:
    """i: waiting runs, in separate processes."""

    def measured(who: str) -> dict[str, float]:
        done = subprocess.run(
            [sys.executable, "-m", "bench.idle", who], cwd=ROOT, capture_output=True, text=True, check=True
        )
        found: dict[str, float] = json.loads(done.stdout)
        return found

    rounds = [(measured("floor"), measured("ours")) for _ in range(3)]
    least, ours = ({key: median(one[who][key] for one in rounds) for key in ("kib", "drained_s")} for who in (0, 1))
    return [
        Line("i a run that waits", "KiB", ours["kib"], least["kib"], "figure", 8),
        Line("i 2,000 runs started and drained", "s", ours["drained_s"], least["drained_s"], "figure", 0.4),
    ]


async def measured_lines(rounds: int) -> list[Line]:
    """Returns everything that is measured in this process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        lines = await empty_lines(rounds, folder)
        lines.append(await sleeping_line(folder))
        lines.append(await kept_line("group", "full", 0.47, "300 nodes kept, fsync a group", rounds, folder))
        lines.append(await kept_line("off", "normal", 0.3, "300 nodes kept, NORMAL", rounds, folder))
    return lines


def main() -> int:
    """Measures, prints, and compares with the goals."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=9)
    options.add_argument("--record", action="store_true", help="write the ratios of a, b and c into bench/limits.toml")
    given = options.parse_args()
    lines = [
        *asyncio.run(measured_lines(given.rounds)),
        *compile_lines(given.rounds),
        *import_lines(given.rounds),
        *idle_lines(),
    ]
    head = f"{'workload':34} {'unit':8} {'ours':>10} {'floor':>10} {'ratio':>7}  {'goal':12} met"
    table = "\n".join([head, *(line.shown() for line in lines), f"{machine.now()}; {machine.code()}"])
    print(table)
    (machine.folder() / "engine.txt").write_text(table + "\n", "utf-8")
    if given.record:
        limits.write({name: line.ratio or 0.0 for name, line in zip(SHAPES, lines, strict=False)})
    missed = [line.name for line in lines if not line.met]
    if missed:
        print(f"{len(missed)} goals missed: {'; '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
