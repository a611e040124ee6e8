"""Orchestra: a workflow of the Python API with an async tool `pure` as every node's body; e and f call an agent of a
fleet with one endpoint.

variants, joined by '-':
    (none)   a-f and i without a journal, g with our default: group commits, fsync
    durable  our default for all
    sync     strict for all: an event counts when its own commit is on disk
    normal   durability off for all: a file, SQLite's NORMAL
    values   each node reads its parents' outputs, instead of only waiting for them
--client NAME uses that client of the harness as the body of e and f instead of our fleet: the control that isolates the
engine.
"""

from __future__ import annotations

import asyncio
import itertools
import tempfile
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import networkx as nx

from orchestra import Orchestra, Workflow, agent, answered_by_model, tool, workflow
from orchestra.core.settings import Settings

if TYPE_CHECKING:
    from bench.peers.common import Peer, main
else:
    from common import Peer, main

FLEET = """
schema: orchestra/fleet/v1
name: bench
servers:
  mock: {endpoint: "%s", model: mock-slm, dialect: vllm, external: false, label: restricted}
models: {base: mock}
limits: {in_flight: 4096}
"""
DURABILITY = {"durable": "group", "sync": "strict", "normal": "off"}
"""The setting of each variant that keeps a journal in every workload."""
AT_ONCE = 10_000
"""Concurrent calls of one run; the other peers have no limit either."""


@agent(prompt="{{ key }}", system="You are a specialist.", max_output=16)
def specialist(key: str) -> str:
    """Answers."""
    return answered_by_model()


class OrchestraPeer(Peer):
    """Orchestra."""

    name, packages = "orchestra", ("orchestra-slm", "aiohttp", "msgspec")
    workloads = "abcdefgi"
    client = "aiohttp"

    async def setup(self) -> None:
        self.words = self.args.variant.split("-")
        self.told = next((DURABILITY[word] for word in self.words if word in DURABILITY), None)
        self.numbers = itertools.count()
        self.stack = AsyncExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.plain = await self.stack.enter_async_context(self.opened(self.told))
        self.durable = self.plain if self.told else await self.stack.enter_async_context(self.opened("group"))
        async with self.opened(None, self.fleet_file("http://127.0.0.1:9/v1")) as asking:
            await asking.fleet_status()  # imports what a fleet needs, as a service does at start-up; h measures imports
        self.over = asyncio.Event()
        self.open: list[asyncio.Task[None]] = []

    async def teardown(self) -> None:
        self.over.set()
        await asyncio.gather(*self.open)
        await self.stack.aclose()

    def opened(self, durability: str | None, fleet: str | None = None) -> AbstractAsyncContextManager[Orchestra]:
        """Opens an Orchestra; without a journal if no durability is given."""
        given: dict[str, Any] = {"journal": "off", "concurrency": AT_ONCE, "fleet": fleet}
        if durability is not None:
            given |= {"journal": str(self.folder / f"{next(self.numbers)}.db"), "durability": durability}
        return Orchestra.open(Settings.load(given, start=self.folder), fleet="none")

    def fleet_file(self, base: str) -> str:
        """Returns the path of a new fleet file with one endpoint."""
        file = self.folder / f"fleet{next(self.numbers)}.yaml"
        file.write_text(FLEET % base)
        return str(file)

    def caller(self, c: Any, base: str) -> Any:
        if self.args.client:
            return super().caller(c, base)
        return base

    def compile(self, g: Any, fn: Any, shape: str, durable: bool = False) -> Any:
        if isinstance(fn, str):
            return self.of_fleet(fn, of_agents(g))
        step = of_tools(g, fn, f"node_{next(self.numbers)}", values="values" in self.words)
        orchestra = self.durable if durable else self.plain
        orchestra.program(step)
        return orchestra, step

    async def run(self, compiled: Any, run_id: str = "r") -> None:
        orchestra, step = compiled if isinstance(compiled, tuple) else await compiled
        await orchestra.run(step)

    def of_fleet(self, base: str, step: Workflow[..., Any]) -> asyncio.Future[Any]:
        """Returns an Orchestra for a server whose address is known only now, and the program when it is open."""
        ready: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        async def serve() -> None:
            async with self.opened(self.told, self.fleet_file(base)) as orchestra:
                orchestra.program(step)
                await orchestra.fleet_status()
                ready.set_result((orchestra, step))
                await self.over.wait()

        self.open.append(asyncio.create_task(serve()))
        return ready


def of_tools(g: Any, fn: Any, name: str, *, values: bool = False) -> Workflow[..., Any]:
    """Returns a workflow with a node for each node of the graph, whose body is `fn`; its output is that of the last
    nodes.
    """
    order = list(nx.topological_sort(g))

    @tool(effect="pure", name=name)
    async def waiting(place: int) -> int:
        await fn(order[place])
        return place

    @tool(effect="pure", name=f"{name}_reading")
    async def reading(place: int, parents: list[int]) -> int:
        await fn(order[place])
        return place

    @workflow(name=f"of_{name}")
    def graph() -> dict[str, int]:
        made: dict[Any, Any] = {}
        for place, v in enumerate(order):
            parents = [made[parent] for parent in g.predecessors(v)]
            if values:
                made[v] = reading.options(name=f"n{place}")(place=place, parents=parents)
            else:
                made[v] = waiting.options(name=f"n{place}", after=parents)(place=place)
        return {f"n{place}": made[v] for place, v in enumerate(order) if g.out_degree(v) == 0}

    return graph


def of_agents(g: Any) -> Workflow[..., Any]:
    """The same with a call of the agent in each node."""
    order = list(nx.topological_sort(g))

    @workflow()
    def asking() -> dict[str, str]:
        made: dict[Any, Any] = {}
        for place, v in enumerate(order):
            parents = [made[parent] for parent in g.predecessors(v)]
            made[v] = specialist.options(name=f"n{place}", after=parents)(key=f"n{v}")
        return {f"n{place}": made[v] for place, v in enumerate(order) if g.out_degree(v) == 0}

    return asking


if __name__ == "__main__":
    main(OrchestraPeer)
