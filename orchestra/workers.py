"""Workers in production: the fleet for models, this process for tools and for classical and code agents."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestra.doors import UNMEASURED, Call, Measure, Refused, Reply
from orchestra.errors import OrchestraError
from orchestra.fleet.local import LocalWorkers
from orchestra.project import Project

if TYPE_CHECKING:
    from orchestra.fleet.dispatch import Fleet
    from orchestra.fleet.progress import Progress
    from orchestra.workflow.program import Program

FleetMode: TypeAlias = Literal["start", "adopt", "none"]


class Troupe:
    """Stands behind the `Workers` door. The fleet, with its connections and imports, is opened when a call first needs it."""

    def __init__(self, project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None, stack: AsyncExitStack) -> None:
        self._project, self._mode, self._progress, self._stack = project, mode, progress, stack
        self._local = LocalWorkers(project)
        self._fleet: Fleet | None = None
        self._opening = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, project: Project, *, mode: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Troupe]:
        """The workers of a project; leaving it closes the fleet's connections."""
        async with AsyncExitStack() as stack:
            yield cls(project, mode, progress, stack)

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call, where it belongs."""
        card = self._project.registry.cards.get(call.name) if call.kind == "agent" else None
        if card is None or card.kind != "model":
            replies = self._local.run(call)
        else:
            try:
                replies = (await self.fleet()).run(call)
            except OrchestraError as error:
                yield Refused(code=error.code, reason=error.message, hint=error.hint)
                return
        async with aclosing(replies):
            async for reply in replies:
                yield reply

    def measure(self, call: Call) -> Measure:
        """What a call may cost, and its memo key."""
        return UNMEASURED

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt."""
        return None

    async def fleet(self) -> Fleet:
        """The fleet of the settings, opened once. Raises `InputError` for a faulty fleet file."""
        async with self._opening:
            if self._fleet is None:
                from orchestra.fleet import config
                from orchestra.fleet.dispatch import Fleet, Options
                from orchestra.fleet.weights import Pantry

                settings = self._project.settings
                described = config.read(Path(settings.find_resource("configs", settings.fleet)))
                opened = Fleet.open(
                    described,
                    cards=self._project.cards,
                    mode=self._mode,
                    progress=self._progress,
                    pantry=Pantry.of(hub=settings.hub or None),
                    options=Options(constraint=settings.constraint),
                )
                self._fleet = await self._stack.enter_async_context(opened)
            return self._fleet

    async def prepare(self, program: Program) -> None:
        """Brings the servers up for a program that will surely ask a model, before the clock of its run starts.

        Raises `FleetError` where they do not come up, `InputError` for a faulty fleet file.
        """
        if self._asks(program):
            await (await self.fleet()).ready()

    def _asks(self, program: Program) -> bool:
        """Whether the program has a node without a condition that asks a model. Those behind a condition start the fleet when they run."""
        cards = self._project.registry.cards
        for node in program.nodes:
            card = cards.get(node.contract.name) if node.contract is not None and node.kind == "agent" else None
            if node.when is None and ((card is not None and card.kind == "model") or (node.body is not None and self._asks(node.body))):
                return True
        return False

    async def status(self) -> dict[str, Any]:
        """What is known of the servers."""
        return await (await self.fleet()).status()
