# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""llama-index-workflows: a generic DAG by events: one 'node' step, one 'schedule' step that keeps in-degrees.
Chains pass one event from node to node."""

from typing import ClassVar

from common import Peer, main
from workflows.events import Event, StartEvent, StopEvent

from workflows import Context, Workflow, step


class Do(Event):
    v: int


class Done(Event):
    v: int


def make(g, fn):
    succ = {v: list(g.successors(v)) for v in g}
    deg = {v: g.in_degree(v) for v in g}
    roots, total = [v for v in g if not deg[v]], g.number_of_nodes()

    class Dag(Workflow):
        @step
        async def begin(self, ctx: Context, ev: StartEvent) -> Do | None:
            self.runs[ev.run] = [dict(deg), total]
            await ctx.store.set("run", ev.run)
            for v in roots:
                ctx.send_event(Do(v=v))

        @step(num_workers=4096)
        async def node(self, ctx: Context, ev: Do) -> Done:
            await fn(ev.v)
            return Done(v=ev.v)

        @step(num_workers=1)
        async def schedule(self, ctx: Context, ev: Done) -> Do | StopEvent | None:
            run = await ctx.store.get("run")
            st = self.runs[run]
            st[1] -= 1
            if st[1] == 0:
                del self.runs[run]
                return StopEvent(result=total)
            for s in succ[ev.v]:
                st[0][s] -= 1
                if st[0][s] == 0:
                    ctx.send_event(Do(v=s))
            return None

    class Chain(Workflow):
        @step
        async def begin(self, ev: StartEvent) -> Do:
            return Do(v=0)

        @step
        async def node(self, ev: Do) -> Do | StopEvent:
            await fn(ev.v)
            return StopEvent(result=ev.v) if ev.v == total - 1 else Do(v=ev.v + 1)

    return Chain, Dag


class LlamaIndex(Peer):
    name, packages = "llama-index-workflows", ("llama-index-workflows", "openai")
    inner: ClassVar = {"b": 1, "c": 2}
    n_default: ClassVar = {"i": 1000}

    def compile(self, g, fn, shape, durable=False):
        chain, dag = make(g, fn)
        w = (chain if shape == "chain" else dag)(timeout=300)
        w.runs = {}
        return w

    async def run(self, w, run_id="r"):
        await w.run(run=run_id)


if __name__ == "__main__":
    main(LlamaIndex)
