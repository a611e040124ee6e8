# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""Burr: a chain is an application of async actions; fan and DAG map over one layer at a time (its parallelism is map
and reduce).
"""

from typing import ClassVar

from burr.core import ApplicationBuilder, State, action, when
from burr.core.parallelism import MapStates
from common import Peer, layers_of, main


class Burr(Peer):
    name, packages = "burr", ("burr", "openai")
    n_default: ClassVar = {"i": 500}

    def compile(self, g, fn, shape, durable=False):
        return g, fn, shape, layers_of(g)

    async def run(self, c, run_id="r"):
        g, fn, shape, layers = c
        if shape == "chain":
            n = g.number_of_nodes()

            @action(reads=["v"], writes=["v"])
            async def node(state: State) -> State:
                await fn(state["v"])
                return state.update(v=state["v"] + 1)

            app = await (
                ApplicationBuilder()
                .with_actions(node=node)
                .with_transitions(("node", "node"))
                .with_state(v=0)
                .with_entrypoint("node")
                .abuild()
            )
            async for _, _, s in app.aiterate(halt_after=[]):
                if s["v"] == n:
                    break
            return

        @action(reads=["item"], writes=["out"])
        async def work(state: State) -> State:
            await fn(state["item"])
            return state.update(out=1)

        class Layer(MapStates):
            def is_async(self) -> bool:
                return True

            def action(self, state, inputs):
                return work

            async def states(self, state, context, inputs):
                for v in layers[state["layer"]]:
                    yield state.update(item=v)

            async def reduce(self, state, states):
                k = 0
                async for s in states:
                    k += s["out"]
                return state.update(
                    layer=state["layer"] + 1, more=state["layer"] + 1 < len(layers), done=state["done"] + k
                )

            @property
            def reads(self):
                return ["layer", "done"]

            @property
            def writes(self):
                return ["layer", "more", "done"]

        app = await (
            ApplicationBuilder()
            .with_actions(layer=Layer())
            .with_transitions(("layer", "layer", when(more=True)))
            .with_state(layer=0, done=0, more=True)
            .with_entrypoint("layer")
            .abuild()
        )
        async for _, _, s in app.aiterate(halt_after=[]):
            if not s["more"]:
                break


if __name__ == "__main__":
    main(Burr)
