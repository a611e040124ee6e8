"""Workers in production: the fleet for models, this process for tools and for classical and code agents, both for ensembles."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestra.app.project import Project
from orchestra.core.errors import FleetError, InputError, OrchestraError
from orchestra.core.protocols import UNMEASURED, Call, Done, Measure, Refused, Reply
from orchestra.fleet import ensemble_calls
from orchestra.fleet.card_versions import current
from orchestra.fleet.local_workers import LocalWorkers

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.core.settings import Settings
    from orchestra.fleet.call_estimates import Gauge
    from orchestra.fleet.dispatch import Fleet
    from orchestra.fleet.progress import Progress
    from orchestra.fleet.status import FleetStatus
    from orchestra.fleet.weights.encoders import Encoders
    from orchestra.workflows.program import Named, Program

FleetMode: TypeAlias = Literal["start", "adopt", "none"]
THREADS = "orchestra-tool"
"""How the names of the threads begin that plain functions run on."""


class Troupe:
    """Stands behind the `Workers` door. The fleet, with its connections and imports, is opened when a call first needs it."""

    def __init__(self, project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None, stack: AsyncExitStack) -> None:
        self._project, self._mode, self._progress, self._stack = project, mode, progress, stack
        pool = ThreadPoolExecutor(_threads(project.settings), thread_name_prefix=THREADS)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)  # a function that hangs holds nobody up here
        self._local = LocalWorkers(project, project.kept, encoders=lambda: _encoders(project, mode, progress), pool=pool)
        self._gauge: Gauge | None = None
        self._fleet: Fleet | None = None
        self._opening = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, project: Project, *, mode: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[Troupe]:
        """The workers of a project; leaving it closes the fleet's connections."""
        async with AsyncExitStack() as stack:
            if project.toolbox is not None:
                stack.push_async_callback(project.toolbox.close)
            yield cls(project, mode, progress, stack)

    def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call, where it belongs."""
        card = self._card(call)
        if card is not None and card.parts:
            return self._whole(call)
        return self._modelled(call) if card is not None and card.kind == "model" else self._local.run(call)

    def do(self, call: Call) -> Coroutine[Any, Any, Done | Refused]:
        """Does one call without chunks."""
        if call.kind == "tool":
            return self._local.do(call)
        card = self._card(call)
        if card is not None and card.parts:
            return ensemble_calls.ask(call, card, self.do)
        return self._model(call) if card is not None and card.kind == "model" else self._local.do(call)

    async def _whole(self, call: Call) -> AsyncGenerator[Reply, None]:
        yield await self.do(call)

    async def _model(self, call: Call) -> Done | Refused:
        try:
            fleet = await self.fleet()
        except OrchestraError as error:
            return Refused(code=error.code, reason=error.message, hint=error.hint)
        return await fleet.do(call)

    def _card(self, call: Call) -> Card | None:
        """The card of the agent that is asked; None for tools, for agents that are code alone, and for a version that nobody has."""
        if call.kind == "tool":
            return None
        try:
            return current(call, self._project.registry.cards, self._project.kept)
        except InputError:
            return None  # this process refuses it as well as the fleet would

    async def _modelled(self, call: Call) -> AsyncGenerator[Reply, None]:
        try:
            fleet = await self.fleet()
        except OrchestraError as error:
            yield Refused(code=error.code, reason=error.message, hint=error.hint)
            return
        async with aclosing(fleet.run(call)) as replies:
            async for reply in replies:
                yield reply

    def measure(self, call: Call) -> Measure:
        """What a call may cost, and its memo key. The first call to a model reads the fleet file."""
        card = self._card(call)
        if card is not None and card.parts:
            return ensemble_calls.measure(call, card, self.measure)
        if card is None or card.kind != "model":
            return self._local.measure(call)
        try:
            return self._gauged().measure(call)
        except OrchestraError:
            return UNMEASURED  # a faulty fleet file: the call will be refused for it

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt as its server counts them; None where nobody can tell."""
        card = self._card(call)
        if card is not None and card.parts:
            counted = [await self.count(asked) for asked in ensemble_calls.calls(call, card) if card.writes(asked.name)]
            return None if None in counted else sum(one for one in counted if one is not None)
        if card is None or card.kind != "model":
            return None
        try:
            return await (await self.fleet()).count(call)
        except OrchestraError:
            return None

    async def fleet(self) -> Fleet:
        """The fleet of the settings, opened once. Raises `InputError` for a faulty fleet file."""
        if self._fleet is not None:
            return self._fleet
        async with self._opening:
            if self._fleet is None:
                from orchestra.fleet.dispatch import Fleet, Options

                gauge = self._gauged()
                opened = Fleet.open(
                    gauge.config,
                    cards=gauge.cards,
                    kept=gauge.kept,
                    mode=self._mode,
                    progress=self._progress,
                    pantry=gauge.pantry,
                    options=Options(constraint=gauge.constraint),
                )
                self._fleet = await self._stack.enter_async_context(opened)
            return self._fleet

    def _gauged(self) -> Gauge:
        """The gauge of the settings' fleet, whose file is read once. Raises `InputError` for a faulty one."""
        if self._gauge is None:
            from orchestra.fleet import config
            from orchestra.fleet.call_estimates import Gauge
            from orchestra.fleet.weights.weights import Pantry

            settings = self._project.settings
            self._gauge = Gauge(
                config=config.read(Path(settings.find_resource("configs", settings.fleet))),
                cards=self._project.cards,
                kept=self._project.kept,
                pantry=Pantry.of(hub=settings.hub or None),
                constraint=settings.constraint,
            )
        return self._gauge

    async def load(self, card: Card) -> list[str]:
        """The names of the running servers that have a card's adapter, which they load where they have not."""
        return await (await self.fleet()).load(card) if card.kind == "model" and card.adapter is not None else []

    async def prepare(self, program: Program, at_hand: Iterable[Named] = ()) -> None:
        """Brings up the servers and fetches the encoders that a program asks, before the clock of its run starts.

        Models that it only may ask are brought up too: those behind a condition, those of a plan's skills and of what an agent with
        tools may call, and larger ones. Raises `FleetError` where those do not come up that it will surely ask, `InputError` for a
        faulty fleet file. Of agents `at_hand` endpoints have to answer, too.
        """
        if not program.askable:
            return
        if sure := self._models(program.asked):
            await (await self.fleet()).ready(sure)
        for model in self._models(at_hand):
            await (await self.fleet()).reach(model)
        await self._likely(program)
        for card in self._cards(program.asked):
            if card.kind == "encoder":
                await self._local.predictor(card)

    async def _likely(self, program: Program) -> None:
        """Brings up what a program may ask; what does not come up is told by the call that wants it, if there will be one."""
        models = self._models(program.askable)
        if not models:
            return
        try:
            fleet = await self.fleet()
        except InputError:
            return
        for model in (*models, *(fleet.config.tiers if program.climbs else ())):
            if any(name in fleet.config.local for name in fleet.config.serving(model)):  # for endpoints the call itself waits
                with contextlib.suppress(FleetError):
                    await fleet.ready([model])

    def _models(self, agents: Iterable[Named]) -> dict[str, None]:
        """The models that these agents stand on, each once."""
        return dict.fromkeys(card.model for card in self._cards(agents) if card.kind == "model")

    def _cards(self, agents: Iterable[Named]) -> Iterator[Card]:
        """The cards of these agents, whatever others have their names by now, and those of an ensemble's members."""
        cards, kept = self._project.registry.cards, self._project.kept
        for name, mark in agents:
            card = cards.get(name)
            if card is None or card.digest != mark:
                card = kept.get(mark, card)
            if card is not None:
                yield from (card, *card.parts)

    async def status(self, *, probe: bool = False) -> FleetStatus:
        """What is known of the servers. Raises `InputError` for a faulty fleet file."""
        return await (await self.fleet()).health(probe=probe)


def _threads(settings: Settings) -> int:
    """How many plain functions run at once at most: one that waits for a thread loses time of its call. A thread is made when a call finds
    none idle. Where nobody said a number there is one for each call of a run."""
    return settings.threads if "threads" in settings.model_fields_set else max(settings.threads, settings.concurrency)


def _encoders(project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None) -> Encoders:
    from orchestra.fleet.progress import silent
    from orchestra.fleet.weights.encoders import Encoders
    from orchestra.fleet.weights.weights import Pantry

    return Encoders(Pantry.of(hub=project.settings.hub or None), progress or silent, fetch=mode == "start")
