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
from orchestra.core.protocols import NO_ESTIMATE, CallError, CallEstimate, CallReply, CallRequest, CallResult
from orchestra.fleet import ensemble_calls
from orchestra.fleet.card_versions import resolve_card
from orchestra.fleet.local_workers import LocalWorkers

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.core.settings import Settings
    from orchestra.fleet.call_estimates import CallEstimator
    from orchestra.fleet.dispatch import Fleet
    from orchestra.fleet.progress import Progress
    from orchestra.fleet.status import FleetStatus
    from orchestra.fleet.weights.encoders import EncoderStore
    from orchestra.workflows.program import AgentIdentity, Program

FleetMode: TypeAlias = Literal["start", "adopt", "none"]
THREAD_PREFIX = "orchestra-tool"
"""How the names of the threads begin that plain functions run on."""


class ProjectWorkers:
    """Implements `Workers`. The fleet, with its connections and imports, is opened when a call first needs it."""

    def __init__(
        self, project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None, stack: AsyncExitStack
    ) -> None:
        self._project, self._mode, self._progress, self._stack = project, mode, progress, stack
        pool = ThreadPoolExecutor(_thread_count(project.settings), thread_name_prefix=THREAD_PREFIX)
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)  # a function that hangs holds nobody up here
        self._local = LocalWorkers(
            project, project.cards_by_digest, encoders=lambda: _open_encoders(project, mode, progress), pool=pool
        )
        self._estimator: CallEstimator | None = None
        self._fleet: Fleet | None = None
        self._fleet_lock = asyncio.Lock()

    @classmethod
    @asynccontextmanager
    async def open(
        cls, project: Project, *, mode: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[ProjectWorkers]:
        """The workers of a project; leaving it closes the fleet's connections."""
        async with AsyncExitStack() as stack:
            if project.toolbox is not None:
                stack.push_async_callback(project.toolbox.close)
            yield cls(project, mode, progress, stack)

    def run(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        """Does one call, where it belongs."""
        card = self._card(call)
        if card is not None and card.member_cards:
            return self._run_ensemble(call)
        return self._run_model(call) if card is not None and card.kind == "model" else self._local.run(call)

    def call(self, call: CallRequest) -> Coroutine[Any, Any, CallResult | CallError]:
        """Does one call without chunks."""
        if call.kind == "tool":
            return self._local.call(call)
        card = self._card(call)
        if card is not None and card.member_cards:
            return ensemble_calls.call_ensemble(call, card, self.call)
        return self._call_model(call) if card is not None and card.kind == "model" else self._local.call(call)

    async def _run_ensemble(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        yield await self.call(call)

    async def _call_model(self, call: CallRequest) -> CallResult | CallError:
        try:
            fleet = await self.fleet()
        except OrchestraError as error:
            return CallError(code=error.code, reason=error.message, hint=error.hint)
        return await fleet.call(call)

    def _card(self, call: CallRequest) -> Card | None:
        """The card of the agent that is asked; None for tools, for agents that are code alone, and for a version that nobody has."""
        if call.kind == "tool":
            return None
        try:
            return resolve_card(call, self._project.registry.cards, self._project.cards_by_digest)
        except InputError:
            return None  # this process refuses it as well as the fleet would

    async def _run_model(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        try:
            fleet = await self.fleet()
        except OrchestraError as error:
            yield CallError(code=error.code, reason=error.message, hint=error.hint)
            return
        async with aclosing(fleet.run(call)) as replies:
            async for reply in replies:
                yield reply

    def estimate(self, call: CallRequest) -> CallEstimate:
        """What a call may cost, and its memo key. The first call to a model reads the fleet file."""
        card = self._card(call)
        if card is not None and card.member_cards:
            return ensemble_calls.estimate_ensemble(call, card, self.estimate)
        if card is None or card.kind != "model":
            return self._local.estimate(call)
        try:
            return self._get_estimator().estimate(call)
        except OrchestraError:
            return NO_ESTIMATE  # a faulty fleet file: the call will be refused for it

    async def count_tokens(self, call: CallRequest) -> int | None:
        """The tokens of a call's prompt as its server counts them; None where nobody can tell."""
        card = self._card(call)
        if card is not None and card.member_cards:
            counted = [
                await self.count_tokens(asked)
                for asked in ensemble_calls.member_calls(call, card)
                if card.is_model_member(asked.name)
            ]
            return None if None in counted else sum(one for one in counted if one is not None)
        if card is None or card.kind != "model":
            return None
        try:
            return await (await self.fleet()).count_tokens(call)
        except OrchestraError:
            return None

    async def fleet(self) -> Fleet:
        """The fleet of the settings, opened once. Raises `InputError` for a faulty fleet file."""
        if self._fleet is not None:
            return self._fleet
        async with self._fleet_lock:
            if self._fleet is None:
                from orchestra.fleet.dispatch import Fleet, FleetOptions

                estimator = self._get_estimator()
                opened = Fleet.open(
                    estimator.config,
                    cards=estimator.cards,
                    cards_by_digest=estimator.cards_by_digest,
                    mode=self._mode,
                    progress=self._progress,
                    model_store=estimator.model_store,
                    options=FleetOptions(constraint=estimator.constraint),
                )
                self._fleet = await self._stack.enter_async_context(opened)
            return self._fleet

    def _get_estimator(self) -> CallEstimator:
        """The estimator of the settings' fleet; the file is read once. Raises `InputError` for a faulty one."""
        if self._estimator is None:
            from orchestra.fleet import config
            from orchestra.fleet.call_estimates import CallEstimator
            from orchestra.fleet.weights.weights import ModelStore

            settings = self._project.settings
            self._estimator = CallEstimator(
                config=config.read_config(Path(settings.find_resource("configs", settings.fleet))),
                cards=self._project.cards,
                cards_by_digest=self._project.cards_by_digest,
                model_store=ModelStore.from_environment(hub=settings.hub or None),
                constraint=settings.constraint,
            )
        return self._estimator

    async def load(self, card: Card) -> list[str]:
        """The names of the running servers that have a card's adapter, which they load where they have not."""
        return (
            await (await self.fleet()).load_adapter(card) if card.kind == "model" and card.adapter is not None else []
        )

    async def prepare(self, program: Program, required: Iterable[AgentIdentity] = ()) -> None:
        """Brings up the servers and fetches the encoders that a program asks, before the clock of its run starts.

        Models that it only may ask are brought up too: those behind a condition, those of a plan's skills and of what an agent with
        tools may call, and larger ones. Raises `FleetError` where those do not come up that it will surely ask, `InputError` for a
        faulty fleet file. Of agents `at_hand` endpoints have to answer, too.
        """
        if not program.possible_agents:
            return
        if sure := self._models(program.required_agents):
            await (await self.fleet()).wait_until_ready(sure)
        for model in self._models(required):
            await (await self.fleet()).check_reachable(model)
        await self._prepare_optional(program)
        for card in self._cards(program.required_agents):
            if card.kind == "encoder":
                await self._local.predictor(card)

    async def _prepare_optional(self, program: Program) -> None:
        """Brings up what a program may ask; what does not come up is told by the call that wants it, if there will be one."""
        models = self._models(program.possible_agents)
        if not models:
            return
        try:
            fleet = await self.fleet()
        except InputError:
            return
        for model in (*models, *(fleet.config.tiers if program.may_escalate else ())):
            # For endpoints the call itself waits.
            if any(name in fleet.config.local_servers for name in fleet.config.servers_for(model)):
                with contextlib.suppress(FleetError):
                    await fleet.wait_until_ready([model])

    def _models(self, agents: Iterable[AgentIdentity]) -> dict[str, None]:
        """The models that these agents stand on, each once."""
        return dict.fromkeys(card.model for card in self._cards(agents) if card.kind == "model")

    def _cards(self, agents: Iterable[AgentIdentity]) -> Iterator[Card]:
        """The cards of these agents, whatever others have their names by now, and those of an ensemble's members."""
        cards, kept = self._project.registry.cards, self._project.cards_by_digest
        for name, mark in agents:
            card = cards.get(name)
            if card is None or card.digest != mark:
                card = kept.get(mark, card)
            if card is not None:
                yield from (card, *card.member_cards)

    async def status(self, *, probe: bool = False) -> FleetStatus:
        """What is known of the servers. Raises `InputError` for a faulty fleet file."""
        return await (await self.fleet()).health(probe=probe)


def _thread_count(settings: Settings) -> int:
    """How many plain functions run at once at most: one that waits for a thread loses time of its call. A thread is made when a call finds
    none idle. Where nobody said a number there is one for each call of a run."""
    return settings.threads if "threads" in settings.model_fields_set else max(settings.threads, settings.concurrency)


def _open_encoders(project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None) -> EncoderStore:
    from orchestra.fleet.progress import ignore_progress
    from orchestra.fleet.weights.encoders import EncoderStore
    from orchestra.fleet.weights.weights import ModelStore

    return EncoderStore(
        ModelStore.from_environment(hub=project.settings.hub or None),
        progress or ignore_progress,
        fetch=mode == "start",
    )
