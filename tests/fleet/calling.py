"""Two agents, calls to them, and fleets of endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.protocols import CallError, CallRequest, CallResult, Clock
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet, FleetOptions
from orchestra.fleet.progress import ProgressCallback

from .conftest import HurriedClock, Visit, chat_answer

TEXT = {
    "type": "object",
    "properties": {"text": {"type": "string"}},
    "required": ["text"],
    "additionalProperties": False,
}
ANSWER = {
    "type": "object",
    "properties": {"answer": {"type": "string"}},
    "required": ["answer"],
    "additionalProperties": False,
}
READER = Card.declare("reader", input=TEXT, output=ANSWER, prompt="Read: {{ text }}")
WRITER = Card.declare("writer", input=TEXT, output={"type": "string"}, prompt="Say: {{ text }}")
CARDS = {"reader": READER, "writer": WRITER}


def call(name: str = "reader", **more: Any) -> CallRequest:
    given: dict[str, Any] = {
        "run": "r",
        "node": "n",
        "attempt": 1,
        "kind": "agent",
        "name": name,
        "inputs": {"text": "hello"},
    } | more
    return CallRequest(**given)


def opened(
    config: FleetConfig,
    cards: Any = CARDS,
    kept: Any = None,
    report: ProgressCallback | None = None,
    clock: Clock | None = None,
    **options: Any,
) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open(
        config,
        cards=cards,
        cards_by_digest=kept,
        mode="none",
        progress=report,
        clock=clock or HurriedClock(),
        options=FleetOptions(**options),
    )


async def streamed(fleet: Fleet, what: CallRequest) -> tuple[list[str], CallResult | CallError]:
    """Makes a streamed call. Returns the pieces of its text, and its reply."""
    pieces = list[str]()
    return pieces, await fleet.call(what, pieces.append)


async def only(fleet: Fleet, what: CallRequest, stream: bool = False) -> CallResult | CallError:
    """Returns the reply of a call."""
    return (await streamed(fleet, what))[1] if stream else await fleet.call(what)


def says(text: str, model: str = "m") -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(chat_answer(text, model))
