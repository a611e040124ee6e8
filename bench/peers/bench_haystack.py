# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""Haystack 3 Pipeline.run_async (it includes AsyncPipeline), one component per node, no concurrency_limit."""

from common import Peer, main
from haystack import Pipeline, component


def node_class(fn):
    @component
    class Node:
        def __init__(self, v: int, parents: list[int], sink: bool):
            self.v = v
            component.set_input_types(self, **{f"p{p}": int for p in parents} or {"go": int})
            component.set_output_types(self, out=int)

        def run(self, **kw):
            raise NotImplementedError

        async def run_async(self, **kw):
            await fn(self.v)
            return {"out": self.v}

    return Node


class Haystack(Peer):
    name, packages = "haystack", ("haystack-ai", "openai")

    def compile(self, g, fn, shape, durable=False):
        node, p = node_class(fn), Pipeline()
        for v in g:
            p.add_component(f"n{v}", node(v, list(g.predecessors(v)), g.out_degree(v) == 0))
        for a, b in g.edges:
            p.connect(f"n{a}.out", f"n{b}.p{a}")
        return p, {f"n{v}": {"go": 1} for v in g if g.in_degree(v) == 0}

    async def run(self, c, run_id="r"):
        p, data = c
        await p.run_async(data, concurrency_limit=100_000)


if __name__ == "__main__":
    main(Haystack)
