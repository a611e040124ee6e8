# mypy: ignore-errors
# The library is installed in a separate environment, so types are unknown here.
"""llama-agents-server with the graph of `bench.server`, as steps of its own: serve_llamaindex.py FOLDER PORT."""

import asyncio
import sys

from llama_agents.server import WorkflowServer
from workflows.events import Event, StartEvent, StopEvent

from workflows import Context, Workflow, step

CALL_SECONDS = 0.02


class First(Event):
    pass


class Middle(Event):
    pass


class Joined(Event):
    pass


class Late(Event):
    pass


class Diamond(Workflow):
    @step
    async def n0(self, ctx: Context, ev: StartEvent) -> First | None:
        await asyncio.sleep(CALL_SECONDS)
        for _ in range(3):
            ctx.send_event(First())

    @step(num_workers=3)
    async def n123(self, ev: First) -> Middle:
        await asyncio.sleep(CALL_SECONDS)
        return Middle()

    @step
    async def n4(self, ctx: Context, ev: Middle) -> Joined | None:
        if ctx.collect_events(ev, [Middle] * 3) is None:
            return None
        await asyncio.sleep(CALL_SECONDS)
        for _ in range(2):
            ctx.send_event(Joined())
        return None

    @step(num_workers=2)
    async def n56(self, ev: Joined) -> Late:
        await asyncio.sleep(CALL_SECONDS)
        return Late()

    @step
    async def n7(self, ctx: Context, ev: Late) -> StopEvent | None:
        if ctx.collect_events(ev, [Late] * 2) is None:
            return None
        await asyncio.sleep(CALL_SECONDS)
        return StopEvent(result="yes")


async def main() -> None:
    server = WorkflowServer()
    server.add_workflow("diamond", Diamond(timeout=300))
    await server.serve(host="127.0.0.1", port=int(sys.argv[2]))


if __name__ == "__main__":
    asyncio.run(main())
