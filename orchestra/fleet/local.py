"""Work that needs no server: tools, and agents that are code or classical models."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from typing import Any, Protocol

import msgspec

from orchestra.agent.card import Card
from orchestra.agent.classical import Classifier
from orchestra.agent.registry import Registry
from orchestra.agent.tool import ToolFault
from orchestra.doors import Call, Done, Refused, Reply
from orchestra.errors import InputError
from orchestra.events import Usage
from orchestra.values.labels import may_go
from orchestra.values.types import Validator

HERE = "local"
"""What a reply of this process says as its server."""
WRITTEN_WRONG = frozenset({"T002", "T004"})
"""Faults that stay the same however often a call is repeated: wrong input, wrong output."""


class Registered(Protocol):
    """Whoever knows the agents and tools."""

    @property
    def registry(self) -> Registry:
        """Agents and tools by name."""


class LocalWorkers:
    """Does tools and agents of kind `python` and `sklearn` in this process. Plain functions run on threads."""

    def __init__(self, known: Registered) -> None:
        self._known = known
        self._classifiers: dict[str, Classifier] = {}
        self._loading = asyncio.Lock()

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call. A thread cannot be interrupted: after a timeout or a cancellation its result is dropped."""
        began = time.monotonic()
        try:
            async with asyncio.timeout(call.timeout):
                done = await self._do(call)
        except TimeoutError:
            hint = f"raise `timeout:` of {call.node}, or look into {call.name}"
            yield Refused(code="T007", reason=f"{call.name} took more than {call.timeout:g} s", hint=hint, retryable=True, server=HERE)
        except ToolFault as fault:
            retryable = fault.code not in WRITTEN_WRONG
            yield Refused(code=fault.code, reason=fault.reason, hint=fault.hint, retryable=retryable, server=HERE)
        except InputError as error:
            yield Refused(code=error.code, reason=error.message, hint=error.hint, server=HERE)
        else:
            yield msgspec.structs.replace(done, usage=Usage(calls=1, seconds=time.monotonic() - began))

    async def _do(self, call: Call) -> Done:
        registry = self._known.registry
        if call.kind == "tool":
            return Done(value=await registry.tool(call.name).call(call.inputs), server=HERE)
        card = registry.cards.get(call.name)
        if card is None or card.kind == "python":
            function = registry.code_of(call.name)
            label = card.label if card else function.contract.label
            if not may_go(call.label, label):
                raise _forbidden(call, label)
            return Done(value=await function.call(call.inputs), server=HERE)
        if not may_go(call.label, card.label):
            raise _forbidden(call, card.label)
        classifier = await self._classifier(card)
        _check(card.name, card.input_schema, call.inputs, "T002")
        value, confidence = await asyncio.to_thread(classifier.predict, call.inputs)
        _check(card.name, card.output_schema, value, "T004")
        return Done(value=value, confidence=confidence, server=HERE, model=card.digest)

    async def _classifier(self, card: Card) -> Classifier:
        async with self._loading:
            if (found := self._classifiers.get(card.digest)) is None:
                if card.kind != "sklearn":
                    raise InputError("F201", f"{card.name} is no agent of this process", hint="ask the fleet")
                found = self._classifiers[card.digest] = await asyncio.to_thread(Classifier.load, card)
            return found


def _check(name: str, schema: dict[str, Any], value: Any, code: str) -> None:
    if fault := Validator(schema).check(value):
        raise ToolFault(code, f"{name}: {fault}", "compare with `orchestra agents show`")


def _forbidden(call: Call, ceiling: str) -> InputError:
    reason = f"data labelled {call.label!r} must not be seen by {call.name!r}, which is cleared for {ceiling!r}"
    return InputError("F202", reason, hint=f"use another agent, or change the `label:` of {call.name}")
