# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""DBOS on SQLite: a workflow whose nodes are steps, each a task that awaits its parents' tasks. It always keeps a
journal.
"""

import asyncio
import tempfile
from typing import ClassVar

import networkx as nx
from common import Peer, main
from dbos import DBOS, SetWorkflowID

GRAPHS = {}


@DBOS.step()
async def node(name, v):
    await GRAPHS[name][2](v)
    return v


@DBOS.workflow()
async def whole(name):
    order, before, _ = GRAPHS[name]
    tasks = {}

    async def one(v):
        for parent in before[v]:
            await tasks[parent]
        return await node(name, v)

    async with asyncio.TaskGroup() as group:
        for v in order:
            tasks[v] = group.create_task(one(v))


class Dbos(Peer):
    name, packages = "dbos", ("dbos", "openai")
    workloads = "abcdefg"
    inner: ClassVar = {"a": 2, "b": 1, "c": 1, "g": 1}
    n_default: ClassVar = {"b": 300, "c": 300}

    async def setup(self):
        self.folder = tempfile.TemporaryDirectory()
        url = f"sqlite:///{self.folder.name}/dbos.sqlite"
        DBOS(config={"name": "bench", "system_database_url": url, "log_level": "ERROR", "run_admin_server": False})
        DBOS.launch()

    async def teardown(self):
        DBOS.destroy()

    def compile(self, g, fn, shape, durable=False):
        name = f"g{len(GRAPHS)}"
        GRAPHS[name] = (list(nx.topological_sort(g)), {v: list(g.predecessors(v)) for v in g}, fn)
        return name

    async def run(self, c, run_id="r"):
        with SetWorkflowID(run_id):
            await whole(c)


if __name__ == "__main__":
    main(Dbos)
