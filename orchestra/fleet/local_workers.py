"""Work that needs no server: tools, and agents that are code or classical models."""

from __future__ import annotations

import asyncio
import math
import os
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, Protocol

from orchestra.agents.card import Card
from orchestra.agents.card_file import WITH_ARRAYS
from orchestra.agents.contract import Contract
from orchestra.agents.registry import Registry
from orchestra.agents.tools import ToolFault, ToolFunction
from orchestra.core.error_codes import NOT_CLEARED
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Usage
from orchestra.core.labels import WITHIN, may_go
from orchestra.core.protocols import UNMEASURED, Call, Done, Measure, Refused, Reply
from orchestra.fleet.card_versions import MEMO_VERSION, current
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator

if TYPE_CHECKING:
    from concurrent.futures import Executor

    from orchestra.agents.inference.encoder import Encoder
    from orchestra.fleet.weights.encoders import Encoders

HERE = "local"
"""What a reply of this process says as its server."""
WRITTEN_WRONG = frozenset({NOT_CLEARED, "T002", "T004", "T010", "T011", "T012", "T013", "T015", "T016"})
"""Faults that stay the same however often a call is repeated: data that must not go there, wrong input, wrong output, a tool server that
cannot be used."""


class Predictor(Protocol):
    """A model that runs in this process."""

    def predict(self, inputs: Mapping[str, Any]) -> tuple[Mapping[str, Any], float | None]:
        """The output, and its probability; None where it has none."""


class Registered(Protocol):
    """Whoever knows the agents and tools."""

    @property
    def registry(self) -> Registry:
        """Agents and tools by name."""


class LocalWorkers:
    """Does tools and agents of kind `python`, and trained ones that need no server, in this process. Plain functions run on threads."""

    def __init__(
        self,
        known: Registered,
        kept: Mapping[str, Card] | None = None,
        *,
        tenant: str = "",
        encoders: Callable[[], Encoders] | None = None,
        pool: Executor | None = None,
    ) -> None:
        """`kept` has the cards, by digest, that runs began with and that are no longer the current ones of their names.

        `encoders` is asked once, when an agent first needs one; without it the packaged ones are fetched. `pool` has the threads of plain
        functions; without it they share the loop's few.
        """
        self._known = known
        self._kept: Mapping[str, Card] = {} if kept is None else kept
        self._tenant = tenant
        self._open = encoders
        self._pool = pool
        self._encoders: Encoders | None = None
        self._predictors: dict[str, Predictor] = {}
        self._loading = asyncio.Lock()
        self._predicting = asyncio.Semaphore(processors())
        """As many predictions at once as there are processors: each takes one (`orchestra.agents.inference.threads`)."""

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call; there are no chunks."""
        yield await self.do(call)

    async def do(self, call: Call) -> Done | Refused:
        """Does one call. A thread cannot be interrupted: after a timeout or a cancellation its result is dropped."""
        within = WITHIN.set(call.label)
        try:
            if call.timeout is None:  # `asyncio.timeout` costs as much as the rest of a small call, and so does a coroutine more
                if call.kind == "tool":
                    began = time.monotonic()
                    function, key = self._tool(call)
                    return _done(await function.call(call.inputs, call.label, key, self._pool), began)
                return await self._do(call)
            async with asyncio.timeout(call.timeout):
                return await self._do(call)
        except TimeoutError:
            hint = f"raise `timeout:` of {call.node}, or look into {call.name}"
            return Refused(code="T007", reason=f"{call.name} took more than {call.timeout:g} s", hint=hint, retryable=True, server=HERE)
        except ToolFault as fault:
            retryable = fault.code not in WRITTEN_WRONG
            return Refused(
                code=fault.code,
                reason=fault.reason,
                hint=fault.hint,
                retryable=retryable,
                lasting=fault.lasting,
                server=HERE,
                frames=fault.frames,
            )
        except OrchestraError as error:
            return Refused(code=error.code, reason=error.message, hint=error.hint, server=HERE)
        finally:
            WITHIN.reset(within)

    def measure(self, call: Call) -> Measure:
        """No tokens; whether an encoder reads it; a memo key for classical agents, and for pure tools and code agents with a version."""
        if call.kind == "tool":
            function = self._known.registry.tools.get(call.name)
            return UNMEASURED if function is None else self._remembered(call, function.contract, function)
        try:
            card = current(call, self._known.registry.cards, self._kept)
        except InputError:
            return UNMEASURED  # it will be refused for this
        if card is not None and card.kind in WITH_ARRAYS:
            return Measure(memo=self._memo(call, card.digest, MEMO_VERSION), reads=card.kind == "encoder")
        function = self._known.registry.code.get(call.name)
        return UNMEASURED if function is None else self._remembered(call, card.contract if card else function.contract, function)

    def _remembered(self, call: Call, contract: Contract, function: ToolFunction) -> Measure:
        if not function.version or function.contract.effect != "pure" or call.version not in ("", contract.digest):
            return UNMEASURED
        return Measure(memo=self._memo(call, contract.digest, function.contract.digest))

    def _memo(self, call: Call, *digests: str) -> str:
        try:
            return digest(canonical([call.kind, call.name, digests, call.inputs, self._tenant, call.label]))
        except UnicodeEncodeError:  # a lone surrogate in an input
            return ""

    def _tool(self, call: Call) -> tuple[ToolFunction, str]:
        """The tool of a call, and the key that it is given."""
        registry = self._known.registry
        function = registry.tools.get(call.name) or registry.tool(call.name)
        if call.version and call.version != function.contract.digest:
            raise _changed(call, "tool")
        return function, call.key if function.contract.effect == "keyed" else ""

    async def _do(self, call: Call) -> Done | Refused:
        began = time.monotonic()
        registry = self._known.registry
        if call.kind == "tool":
            function, key = self._tool(call)
            return _done(await function.call(call.inputs, call.label, key, self._pool), began)
        card = current(call, registry.cards, self._kept)
        if card is None or card.kind == "python":
            function = registry.code_of(call.name)
            if card is None and call.version not in ("", function.contract.digest):
                raise _changed(call, "agent")
            label = card.label if card else function.contract.label
            if not may_go(call.label, label):
                return forbidden(call, label)
            return _done(await function.call(call.inputs, call.label, pool=self._pool), began)
        if not may_go(call.label, card.label):
            return forbidden(call, card.label)
        predictor = await self.predictor(card)
        _check(card.name, card.input_schema, call.inputs, "T002")
        async with self._predicting:
            with self._threads():
                value, confidence = await asyncio.to_thread(predictor.predict, call.inputs)
        _check(card.name, card.output_schema, value, "T004")
        return _done(value, began, confidence, card.digest)

    def _threads(self) -> AbstractContextManager[None]:
        """Has numpy's products take one thread each; entered and left on the loop's thread."""
        threads = None if self._encoders is None else self._encoders.threads
        return nullcontext() if threads is None else threads.single()

    async def predictor(self, card: Card) -> Predictor:
        """The model of a card that has arrays, loaded once; an encoder is fetched where it is not there yet.

        Raises `InputError` for a card whose files do not fit, `FleetError` where its encoder cannot be had.
        """
        async with self._loading:
            if (found := self._predictors.get(card.digest)) is None:
                found = self._predictors[card.digest] = await self._load(card)
            return found

    async def _load(self, card: Card) -> Predictor:
        match card.kind:
            case "sklearn":
                from orchestra.agents.inference.linear import Classifier, Regressor, gives_number

                return await asyncio.to_thread(Regressor.load if gives_number(card) else Classifier.load, card)
            case "tagger":
                from orchestra.agents.inference.crf_tagger import Tagger

                return await asyncio.to_thread(Tagger.load, card)
            case "encoder":
                from orchestra.agents.inference.model_file import base_of
                from orchestra.fleet.weights.encoders import Encoders

                if self._encoders is None:
                    self._encoders = Encoders() if self._open is None else self._open()
                encoder = await self._encoders.encoder(card.model, base_of(card))
                return await asyncio.to_thread(_reading(card), card, encoder)
            case "model" | "ensemble" | "python":
                raise InputError("F201", f"{card.name} is no agent of this process", hint="ask the fleet")


def _reading(card: Card) -> Callable[[Card, Encoder], Predictor]:
    """What makes an agent of an encoder, by what the agent gives."""
    from orchestra.agents.encoder_tasks import skill

    match skill(card):
        case "tables":
            from orchestra.agents.inference.tables.reader import Tables

            return Tables.load
        case "spans":
            from orchestra.agents.inference.span_extraction import Spans

            return Spans.load
        case "slots":
            from orchestra.agents.inference.slot_filling import Slots

            return Slots.load
        case "deduction":
            from orchestra.agents.inference.word_problems.solver import Deduction

            return Deduction.load
        case "committee":
            from orchestra.agents.inference.text_classifier import Committee

            return Committee.load


def processors() -> int:
    """How many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _done(value: Any, began: float, confidence: float | None = None, model: str = "") -> Done:
    """An answer. What is no finite number says nothing of how sure it is: every comparison with it is false."""
    if confidence is not None and not math.isfinite(confidence):
        confidence = None
    return Done(value=value, usage=Usage(calls=1, seconds=time.monotonic() - began), server=HERE, model=model, confidence=confidence)


def _changed(call: Call, kind: str) -> InputError:
    """T009: code cannot be stored with a run, so what has changed since is refused."""
    reason = f"the {kind} {call.name!r} is not the one that the run began with: its types, its effect or its version have changed"
    return InputError("T009", reason, hint="orchestra runs fork")


def _check(name: str, schema: dict[str, Any], value: Any, code: str) -> None:
    if fault := Validator(schema).check(value):
        raise ToolFault(code, f"{name}: {fault}", "compare with `orchestra agents show`")


def forbidden(call: Call, ceiling: str) -> Refused:
    """F202: an agent of this process, or an ensemble, may not see such data."""
    reason = f"data labelled {call.label!r} must not be seen by {call.name!r}, which is cleared for {ceiling!r}"
    return Refused(code=NOT_CLEARED, reason=reason, hint=f"use another agent, or change the `label:` of {call.name}", server=HERE)
