# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""pydantic-graph: a chain of steps; fan and DAG map a step over each layer and join it (fork and join)."""

from common import Peer, layers_of, main
from pydantic_graph import GraphBuilder, StepContext, reduce_list_append


class PydanticGraph(Peer):
    name, packages = "pydantic-graph", ("pydantic-graph", "openai")

    def compile(self, g, fn, shape, durable=False):
        builder = GraphBuilder(output_type=object)
        (of_chain if shape == "chain" else of_layers)(builder, g, fn)
        return builder.build()

    async def run(self, c, run_id="r"):
        await c.run()


def of_chain(builder, g, fn):
    def step(v):
        async def call(ctx: StepContext[None, None, object]) -> object:
            await fn(v)
            return v

        return builder.step(call, node_id=f"n{v}")

    steps = [step(v) for v in g]
    edges = zip([builder.start_node, *steps], [*steps, builder.end_node], strict=True)
    builder.add(*(builder.edge_from(one).to(other) for one, other in edges))


def of_layers(builder, g, fn):
    async def work(ctx: StepContext[None, None, int]) -> int:
        await fn(ctx.inputs)
        return ctx.inputs

    def spread(layer, number):
        async def call(ctx: StepContext[None, None, object]) -> list[int]:
            return layer

        return builder.step(call, node_id=f"layer{number}")

    before = builder.start_node
    for number, layer in enumerate(layers_of(g)):
        head = spread(layer, number)
        each = builder.step(work, node_id=f"work{number}")
        together = builder.join(reduce_list_append, initial_factory=list[int], node_id=f"join{number}")
        builder.add(
            builder.edge_from(before).to(head),
            builder.edge_from(head).map().to(each),
            builder.edge_from(each).to(together),
        )
        before = together
    builder.add(builder.edge_from(before).to(builder.end_node))


if __name__ == "__main__":
    main(PydanticGraph)
