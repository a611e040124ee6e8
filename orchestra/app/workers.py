"""Workers in production: the fleet for models, this process for tools and for classical and code agents, both for
ensembles.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from orchestra.app.project import Project
from orchestra.core.errors import FleetError, InputError, OrchestraError
from orchestra.core.protocols import NO_ESTIMATE, CallError, CallEstimate, CallRequest, CallResult, TextCallback
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
"""Prefix of the names of the threads on which plain functions run."""


class ProjectWorkers:
    """Implements `Workers`. The fleet, with its connections and imports, is opened by the first call that needs it."""

    def __init__(
        self, project: Project, mode: FleetMode, progress: Callable[[Progress], None] | None, stack: AsyncExitStack
    ) -> None:
        self._project, self._mode, self._progress, self._stack = project, mode, progress, stack
        pool = ThreadPoolExecutor(_thread_count(project.settings), thread_name_prefix=THREAD_PREFIX)
        # A function that hangs does not block the shutdown.
        stack.callback(pool.shutdown, wait=False, cancel_futures=True)
        self._local = LocalWorkers(
            project, project.cards_by_digest, encoders=lambda: _open_encoders(project, mode, progress), pool=pool
        )
        self._estimator: CallEstimator | None = None
        self._fleet: Fleet | None = None
        self._fleet_lock = asyncio.Lock()
        self._prepared_encoders: set[str] = set()
        """Encoders that were fetched, or could not be."""

    @classmethod
    @asynccontextmanager
    async def open(
        cls, project: Project, *, mode: FleetMode = "start", progress: Callable[[Progress], None] | None = None
    ) -> AsyncIterator[ProjectWorkers]:
        """Opens the workers of a project; leaving the context closes the fleet's connections."""
        async with AsyncExitStack() as stack:
            if project.toolbox is not None:
                stack.push_async_callback(project.toolbox.close)
            yield cls(project, mode, progress, stack)

    def call(
        self, call: CallRequest, on_text: TextCallback | None = None
    ) -> Coroutine[Any, Any, CallResult | CallError]:
        """Makes one call, in this process or in the fleet. Only models have text; an ensemble has none, because its
        answer is not the text of a member.
        """
        if call.kind == "tool":
            return self._local.call(call)
        card = self._card(call)
        if card is not None and card.member_cards:
            return ensemble_calls.call_ensemble(call, card, self.call)
        return self._call_model(call, on_text) if card is not None and card.kind == "model" else self._local.call(call)

    async def _call_model(self, call: CallRequest, on_text: TextCallback | None) -> CallResult | CallError:
        try:
            fleet = await self.fleet()
        except OrchestraError as error:
            return CallError(code=error.code, reason=error.message, hint=error.hint)
        return await fleet.call(call, on_text)

    def _card(self, call: CallRequest) -> Card | None:
        """Returns the card of the called agent; None for tools, for agents that are code only, and for an unknown
        version.
        """
        if call.kind == "tool":
            return None
        try:
            return resolve_card(call, self._project.registry.cards, self._project.cards_by_digest)
        except InputError:
            return None  # This process refuses it, as the fleet would.

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Estimates the cost of a call, and its memo key. The first call to a model reads the fleet file."""
        card = self._card(call)
        if card is not None and card.member_cards:
            return ensemble_calls.estimate_ensemble(call, card, self.estimate)
        if card is None or card.kind != "model":
            return self._local.estimate(call)
        try:
            return self._get_estimator().estimate(call)
        except OrchestraError:
            return NO_ESTIMATE  # The fleet file is invalid: the call will fail for it.

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the tokens of a call's prompt as its server counts them; None if no server can."""
        card = self._card(call)
        if card is not None and card.member_cards:
            token_counts = [
                await self.count_tokens(member_call)
                for member_call in ensemble_calls.member_calls(call, card)
                if card.is_model_member(member_call.name)
            ]
            return None if None in token_counts else sum(count for count in token_counts if count is not None)
        if card is None or card.kind != "model":
            return None
        try:
            return await (await self.fleet()).count_tokens(call)
        except OrchestraError:
            return None

    async def fleet(self) -> Fleet:
        """Returns the fleet of the settings, opened once. Raises `InputError` for an invalid fleet file."""
        if self._fleet is not None:
            return self._fleet
        async with self._fleet_lock:
            if self._fleet is None:
                from orchestra.fleet.dispatch import Fleet, FleetOptions

                estimator = self._get_estimator()
                context_manager = Fleet.open(
                    estimator.config,
                    cards=estimator.cards,
                    cards_by_digest=estimator.cards_by_digest,
                    mode=self._mode,
                    progress=self._progress,
                    model_store=estimator.model_store,
                    options=FleetOptions(constraint=estimator.constraint),
                )
                self._fleet = await self._stack.enter_async_context(context_manager)
            return self._fleet

    def _get_estimator(self) -> CallEstimator:
        """Returns the estimator of the settings' fleet; the file is read once. Raises `InputError` for an invalid
        one.
        """
        if self._estimator is None:
            from orchestra.fleet.call_estimates import CallEstimator
            from orchestra.fleet.config import configured_fleet
            from orchestra.fleet.weights.weights import ModelStore

            settings = self._project.settings
            self._estimator = CallEstimator(
                config=configured_fleet(settings),
                cards=self._project.cards,
                cards_by_digest=self._project.cards_by_digest,
                model_store=ModelStore.from_environment(hub=settings.hub or None),
                constraint=settings.constraint,
            )
        return self._estimator

    async def load(self, card: Card) -> list[str]:
        """Loads a card's adapter on the running local servers that lack it; returns the names of all that have it."""
        return (
            await (await self.fleet()).load_adapter(card) if card.kind == "model" and card.adapter is not None else []
        )

    async def prepare(self, program: Program, required: Iterable[AgentIdentity] = ()) -> None:
        """Starts the servers and fetches the encoders that a program needs, before the time of its run starts.

        Models that the program may ask are started too: behind a condition, for a plan's capabilities or the tools of
        an agent, and larger models.

        Args:
            program: The program.
            required: Agents whose models must be reachable now, endpoints included.

        Raises:
            FleetError: A server that the program certainly needs does not start.
            InputError: The fleet file is invalid.
        """
        if not program.possible_agents:
            return
        if sure := self._models(program.required_agents):
            await (await self.fleet()).wait_until_ready(sure)
        for model in self._models(required):
            await (await self.fleet()).check_reachable(model)
        await self._prepare_optional(program)
        await self._fetch_optional_encoders(program)
        for card in self._cards(program.required_agents):
            if card.kind == "encoder":
                await self._local.predictor(card)

    async def _prepare_optional(self, program: Program) -> None:
        """Starts the servers that a program may need. A call to one that does not start fails.

        Of servers that start on demand only the weights are fetched, so that nothing is fetched during a run.
        """
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
                    if fleet.config.start == "on_demand":
                        await fleet.install_weights(model)
                    else:
                        await fleet.wait_until_ready([model])

    async def _fetch_optional_encoders(self, program: Program) -> None:
        """Fetches the encoders that a program may need, so that nothing is fetched during a run. A call to one that
        cannot be fetched fails.
        """
        from orchestra.fleet.weights.encoders import missing_libraries

        for card in self._cards(program.possible_agents):
            if card.kind != "encoder" or card.model in self._prepared_encoders or not card.is_trained:
                continue
            self._prepared_encoders.add(card.model)
            if not missing_libraries() and not card.missing_weights:
                with contextlib.suppress(FleetError, InputError):
                    await self._local.fetch_encoder(card)

    def _models(self, agents: Iterable[AgentIdentity]) -> dict[str, None]:
        """Returns the models of these agents, each once."""
        return dict.fromkeys(card.model for card in self._cards(agents) if card.kind == "model")

    def _cards(self, agents: Iterable[AgentIdentity]) -> Iterator[Card]:
        """Yields the cards of these agents in these versions, and of an ensemble's members."""
        cards, cards_by_digest = self._project.registry.cards, self._project.cards_by_digest
        for name, mark in agents:
            card = cards.get(name)
            if card is None or card.digest != mark:
                card = cards_by_digest.get(mark, card)
            if card is not None:
                yield from (card, *card.member_cards)

    async def status(self, *, probe: bool = False) -> FleetStatus:
        """Returns the status of the servers. Raises `InputError` for an invalid fleet file."""
        return await (await self.fleet()).health(probe=probe)


def _thread_count(settings: Settings) -> int:
    """Returns how many plain functions run at once: as many as a run has calls, unless the settings state a number. A
    call that waits for a thread loses part of its timeout; threads are only created when no thread is idle.
    """
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
