"""Workers without a server: tools, and agents that are code or classical models."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cached_property
from typing import TYPE_CHECKING, Any, Protocol

from orchestra.agents.card import Card
from orchestra.agents.card_file import KINDS_WITH_ARRAYS
from orchestra.agents.contract import Contract
from orchestra.agents.registry import Registry
from orchestra.agents.tools import ToolError, ToolFunction
from orchestra.core.error_codes import LABEL_NOT_ALLOWED
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Usage
from orchestra.core.labels import CURRENT_LABEL, is_allowed
from orchestra.core.protocols import NO_ESTIMATE, CallError, CallEstimate, CallRequest, CallResult, TextCallback
from orchestra.fleet.card_versions import MEMO_VERSION, resolve_card
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.fleet.weights.encoders import EncoderStore

LOCAL_SERVER = "local"
"""The server name in replies of this process."""
PERMANENT_ERRORS = frozenset({LABEL_NOT_ALLOWED, "T002", "T004", "T010", "T011", "T012", "T013", "T015", "T016"})
"""Errors that a retry cannot correct: forbidden data, invalid input or output, an unusable tool server."""


class Predictor(Protocol):
    """A model that runs in this process."""

    def predict(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], float | None]:
        """Returns the output and its probability; the probability is None if the model has none."""


class HasRegistry(Protocol):
    """An object with a registry of agents and tools."""

    @property
    def registry(self) -> Registry:
        """Returns the agents and tools by name."""


class LocalWorkers:
    """Runs tools, agents of kind `python` and trained agents without a server, in this process. Plain functions run on
    threads.
    """

    def __init__(
        self,
        project: HasRegistry,
        cards_by_digest: Mapping[str, Card] | None = None,
        *,
        tenant: str = "",
        encoders: Callable[[], EncoderStore] | None = None,
        pool: Executor | None = None,
    ) -> None:
        """Creates the workers.

        Args:
            project: The object with the registry.
            cards_by_digest: Older cards by digest, with which runs were started.
            encoders: Returns the store of encoders when an agent first needs one. By default the packaged encoders are
            fetched.
            pool: The threads of plain functions. By default they share the few threads of the event loop.
        """
        self._project = project
        self._cards_by_digest: Mapping[str, Card] = {} if cards_by_digest is None else cards_by_digest
        self._tenant = tenant
        self._open_encoders = encoders
        self._pool = pool
        self._encoders: EncoderStore | None = None
        self._predictors: dict[str, Predictor] = {}
        self._loading = asyncio.Lock()

    @cached_property
    def _predicting(self) -> asyncio.Semaphore:
        """One prediction per processor: each uses one. A run without encoders does not load the module."""
        from orchestra.agents.inference.threads import processor_count

        return asyncio.Semaphore(processor_count())

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Runs a call, without text. A thread cannot be interrupted: after a timeout or a cancellation its result is
        dropped.
        """
        within = CURRENT_LABEL.set(call.label)
        try:
            # `asyncio.timeout` costs as much as the rest of a small call, and so does another coroutine.
            if call.timeout is None:
                if call.kind == "tool":
                    start_time = time.monotonic()
                    function, key = self._find_tool(call)
                    return _to_result(await function.call(call.inputs, call.label, key, self._pool), start_time)
                return await self._call(call)
            async with asyncio.timeout(call.timeout):
                return await self._call(call)
        except TimeoutError:
            hint = f"raise `timeout:` of {call.node}, or look into {call.name}"
            return CallError(
                code="T007",
                reason=f"{call.name} took more than {call.timeout:g} s",
                hint=hint,
                retryable=True,
                server=LOCAL_SERVER,
            )
        except ToolError as fault:
            retryable = fault.code not in PERMANENT_ERRORS
            return CallError(
                code=fault.code,
                reason=fault.reason,
                hint=fault.hint,
                retryable=retryable,
                permanent=fault.permanent,
                server=LOCAL_SERVER,
                frames=fault.frames,
            )
        except OrchestraError as error:
            return CallError(code=error.code, reason=error.message, hint=error.hint, server=LOCAL_SERVER)
        finally:
            CURRENT_LABEL.reset(within)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns an estimate without tokens: whether an encoder is used, and a memo key.

        Classical agents have a memo key, and pure tools and code agents with a version.
        """
        if call.kind == "tool":
            function = self._project.registry.tools.get(call.name)
            return NO_ESTIMATE if function is None else self._memo_estimate(call, function.contract, function)
        try:
            card = resolve_card(call, self._project.registry.cards, self._cards_by_digest)
        except InputError:
            return NO_ESTIMATE  # the call itself is refused with this error
        if card is not None and card.kind in KINDS_WITH_ARRAYS:
            return CallEstimate(
                memo_key=self._memo_key(call, card.digest, MEMO_VERSION), uses_local_encoder=card.kind == "encoder"
            )
        function = self._project.registry.python_agents.get(call.name)
        return (
            NO_ESTIMATE
            if function is None
            else self._memo_estimate(call, card.contract if card else function.contract, function)
        )

    def _memo_estimate(self, call: CallRequest, contract: Contract, function: ToolFunction) -> CallEstimate:
        if not function.version or function.contract.effect != "pure" or call.version not in ("", contract.digest):
            return NO_ESTIMATE
        return CallEstimate(memo_key=self._memo_key(call, contract.digest, function.contract.digest))

    def _memo_key(self, call: CallRequest, *digests: str) -> str:
        try:
            return digest(canonical([call.kind, call.name, digests, call.inputs, self._tenant, call.label]))
        except UnicodeEncodeError:  # a lone surrogate in an input
            return ""

    def _find_tool(self, call: CallRequest) -> tuple[ToolFunction, str]:
        """Returns the tool of a call, and its idempotency key."""
        registry = self._project.registry
        function = registry.tools.loaded.get(call.name) or registry.tool(call.name)
        if call.version and call.version != function.contract.digest:
            raise _changed_error(call, "tool")
        return function, call.idempotency_key if function.contract.effect == "keyed" else ""

    async def _call(self, call: CallRequest) -> CallResult | CallError:
        start_time = time.monotonic()
        registry = self._project.registry
        if call.kind == "tool":
            function, key = self._find_tool(call)
            return _to_result(await function.call(call.inputs, call.label, key, self._pool), start_time)
        card = resolve_card(call, registry.cards, self._cards_by_digest)
        if card is None or card.kind == "python":
            function = registry.python_agent(call.name)
            if card is None and call.version not in ("", function.contract.digest):
                raise _changed_error(call, "agent")
            label = card.label if card else function.contract.label
            if not is_allowed(call.label, label):
                return forbidden_error(call, label)
            return _to_result(await function.call(call.inputs, call.label, pool=self._pool), start_time)
        if not is_allowed(call.label, card.label):
            return forbidden_error(call, card.label)
        predictor = await self.predictor(card)
        _validate(card.name, card.input_schema, call.inputs, "T002")
        async with self._predicting:
            with self._single_thread():
                value, confidence = await asyncio.to_thread(predictor.predict, call.inputs)
        _validate(card.name, card.output_schema, value, "T004")
        return _to_result(value, start_time, confidence, card.digest)

    def _single_thread(self) -> AbstractContextManager[None]:
        """Limits numpy's products to one thread each. Enter and leave it on the event loop's thread."""
        threads = None if self._encoders is None else self._encoders.threads
        return nullcontext() if threads is None else threads.limit_to_one()

    async def predictor(self, card: Card) -> Predictor:
        """Returns the model of a card with weights, loaded once. A missing encoder is fetched.

        Raises:
            InputError: The files of the card do not fit.
            FleetError: The encoder is not available.
        """
        async with self._loading:
            if (predictor := self._predictors.get(card.digest)) is None:
                predictor = self._predictors[card.digest] = await self._load(card)
            return predictor

    async def _load(self, card: Card) -> Predictor:
        card.require_weights()  # before an encoder is fetched
        match card.kind:
            case "sklearn":
                from orchestra.agents.inference.linear import LinearClassifier, LinearRegressor, predicts_number

                return await asyncio.to_thread(
                    LinearRegressor.load if predicts_number(card) else LinearClassifier.load, card
                )
            case "tagger":
                from orchestra.agents.inference.crf_tagger import CrfTagger

                return await asyncio.to_thread(CrfTagger.load, card)
            case "encoder":
                from orchestra.agents.inference.model_file import base_encoder

                encoder = await self._encoder_store().encoder(card.model, base_encoder(card), card.name)
                return await asyncio.to_thread(_encoder_loader(card), card, encoder)
            case "model" | "ensemble" | "python":
                raise InputError("F201", f"{card.name} is not an agent of this process", hint="ask the fleet")

    async def fetch_encoder(self, card: Card) -> None:
        """Fetches the encoder of an agent if it is missing, and says for which agent.

        Raises:
            InputError: F230, an unknown name.
            FleetError: F003 to F007, the encoder is not available.
        """
        store = self._encoder_store()
        if not store.is_installed(card.model):
            await store.folder(card.model, card.name)

    def _encoder_store(self) -> EncoderStore:
        if self._encoders is None:
            from orchestra.fleet.weights.encoders import EncoderStore

            self._encoders = EncoderStore() if self._open_encoders is None else self._open_encoders()
        return self._encoders


def _encoder_loader(card: Card) -> Callable[[Card, Encoder], Predictor]:
    """Returns the loader of an encoder agent, by the agent's output."""
    from orchestra.agents.encoder_tasks import encoder_task

    match encoder_task(card):
        case "tables":
            from orchestra.agents.inference.tables.reader import TableReader

            return TableReader.load
        case "spans":
            from orchestra.agents.inference.span_extraction import SpanExtractor

            return SpanExtractor.load
        case "span ranking":
            from orchestra.agents.inference.span_ranking import SpanRanker

            return SpanRanker.load
        case "similarity":
            from orchestra.agents.inference.similarity import TextSimilarity

            return TextSimilarity.load
        case "slots":
            from orchestra.agents.inference.slot_filling import SlotFiller

            return SlotFiller.load
        case "deduction":
            from orchestra.agents.inference.word_problems.solver import WordProblemSolver

            return WordProblemSolver.load
        case "committee":
            from orchestra.agents.inference.text_classifier import TextClassifier

            return TextClassifier.load


def _to_result(value: Any, start_time: float, confidence: float | None = None, model: str = "") -> CallResult:
    """Returns a result. A probability that is not finite is dropped, because every comparison with it is false."""
    if confidence is not None and not math.isfinite(confidence):
        confidence = None
    return CallResult(
        value=value,
        usage=Usage(calls=1, seconds=time.monotonic() - start_time),
        server=LOCAL_SERVER,
        model=model,
        confidence=confidence,
    )


def _changed_error(call: CallRequest, kind: str) -> InputError:
    """Returns T009: code is not stored with a run, so a run that started with other code is refused."""
    reason = f"the {kind} {call.name!r} is not the one that the run began with: "
    reason += "its types, its effect or its version have changed"
    return InputError("T009", reason, hint="orchestra runs fork")


def _validate(name: str, schema: dict[str, Any], value: Any, code: str) -> None:
    if fault := Validator(schema).check(value):
        raise ToolError(code, f"{name}: {fault}", "compare with `orchestra agents show`")


def forbidden_error(call: CallRequest, ceiling: str) -> CallError:
    """Returns F202: an agent of this process or an ensemble may not get data with this label."""
    reason = f"data labelled {call.label!r} must not be seen by {call.name!r}, which is cleared for {ceiling!r}"
    return CallError(
        code=LABEL_NOT_ALLOWED,
        reason=reason,
        hint=f"use another agent, or change the `label:` of {call.name}",
        server=LOCAL_SERVER,
    )
