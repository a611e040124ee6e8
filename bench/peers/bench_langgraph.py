# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""LangGraph StateGraph with async nodes.

variants: '' static edges (list edges = joins) | send (fan-out by Send, workload b)
g: AsyncSqliteSaver; --variant sync | exit sets durability (default async)."""

import operator
import tempfile
from typing import Annotated, TypedDict

from common import Peer, main
from langgraph.graph import END, START, StateGraph
from langgraph.types import Send


class S(TypedDict):
    done: Annotated[int, operator.add]


class LangGraph(Peer):
    name, packages = "langgraph", ("langgraph", "langgraph-checkpoint-sqlite", "openai")
    workloads = "abcdefgi"

    async def setup(self):
        from langgraph.checkpoint.sqlite.aio import AsyncSqliteSaver

        self.path = tempfile.mktemp(suffix=".db")
        self.cm = AsyncSqliteSaver.from_conn_string(self.path)
        self.saver = await self.cm.__aenter__()
        await self.saver.setup()

    async def teardown(self):
        await self.cm.__aexit__(None, None, None)

    def compile(self, g, fn, shape, durable=False):
        b = StateGraph(S)

        def mk(v):
            async def node(state):
                await fn(v)
                return {"done": 1}

            return node

        if shape == "fan" and "send" in self.args.variant:
            n = g.number_of_nodes() - 2

            async def work(x):
                await fn(x["v"])
                return {"done": 1}

            b.add_node("src", mk(0))
            b.add_node("work", work)
            b.add_node("sink", mk(n + 1))
            b.add_edge(START, "src")
            b.add_conditional_edges("src", lambda s: [Send("work", {"v": i}) for i in range(1, n + 1)], ["work"])
            b.add_edge("work", "sink")
            b.add_edge("sink", END)
        else:
            for v in g:
                b.add_node(f"n{v}", mk(v))
            for v in g:
                ps = [f"n{p}" for p in g.predecessors(v)]
                if not ps:
                    b.add_edge(START, f"n{v}")
                else:
                    b.add_edge(ps if len(ps) > 1 else ps[0], f"n{v}")
                if g.out_degree(v) == 0:
                    b.add_edge(f"n{v}", END)
        return b.compile(checkpointer=self.saver if durable else None), durable

    async def run(self, c, run_id="r"):
        app, durable = c
        cfg = {"recursion_limit": 5000}
        kw = {}
        if durable:
            cfg["configurable"] = {"thread_id": run_id}
            d = [x for x in ("sync", "exit") if x in self.args.variant]
            if d:
                kw["durability"] = d[0]
        await app.ainvoke({"done": 0}, cfg, **kw)


if __name__ == "__main__":
    main(LangGraph)
