"""Two agents, calls to them, and fleets without local servers to ask."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

from orchestra.agents.card import Card
from orchestra.core.protocols import Call, Done, Refused, Reply
from orchestra.fleet.config import FleetConfig
from orchestra.fleet.dispatch import Fleet, Options
from orchestra.fleet.progress import Report

from .conftest import HurriedClock, Visit, chat_answer

TEXT = {"type": "object", "properties": {"text": {"type": "string"}}, "required": ["text"], "additionalProperties": False}
ANSWER = {"type": "object", "properties": {"answer": {"type": "string"}}, "required": ["answer"], "additionalProperties": False}
READER = Card.declared("reader", input=TEXT, output=ANSWER, prompt="Read: {{ text }}")
WRITER = Card.declared("writer", input=TEXT, output={"type": "string"}, prompt="Say: {{ text }}")
CARDS = {"reader": READER, "writer": WRITER}


def call(name: str = "reader", **more: Any) -> Call:
    given: dict[str, Any] = {"run": "r", "node": "n", "attempt": 1, "kind": "agent", "name": name, "inputs": {"text": "hello"}} | more
    return Call(**given)


def opened(
    config: FleetConfig, cards: Any = CARDS, kept: Any = None, report: Report | None = None, **options: Any
) -> AbstractAsyncContextManager[Fleet]:
    return Fleet.open(config, cards=cards, kept=kept, mode="none", progress=report, clock=HurriedClock(), options=Options(**options))


async def replies(fleet: Fleet, what: Call) -> list[Reply]:
    return [reply async for reply in fleet.run(what)]


async def only(fleet: Fleet, what: Call) -> Done | Refused:
    (reply,) = await replies(fleet, what)
    assert isinstance(reply, Done | Refused)
    return reply


def says(text: str, model: str = "m") -> Callable[[Visit], Awaitable[None]]:
    return lambda visit: visit.answer(chat_answer(text, model))
