"""Two agents, calls to them, and fleets of endpoints."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.protocols import CallError, CallReply, CallRequest, CallResult
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
    config: FleetConfig, cards: Any = CARDS, kept: Any = None, report: ProgressCallback | None = None, **options: Any
) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open(
        config,
        cards=cards,
        cards_by_digest=kept,
        mode="none",
        progress=report,
        clock=HurriedClock(),
        options=FleetOptions(**options),
    )


async def replies(fleet: Fleet, what: CallRequest) -> list[CallReply]:
    return [reply async for reply in fleet.run(what)]


async def only(fleet: Fleet, what: CallRequest) -> CallResult | CallError:
    (reply,) = await replies(fleet, what)
    assert isinstance(reply, CallResult | CallError)
    return reply


def says(text: str, model: str = "m") -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(chat_answer(text, model))
