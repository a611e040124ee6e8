"""Calls to ensembles: each member is asked what the ensemble is asked, and their answers are pooled into one reply.

For the engine it is one call, with the tokens of all. What each member was sent and said stands in the reply's bytes, as JSON by member.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterable, Sequence
from typing import Any, TypeAlias

import msgspec

from orchestra.agents.card import Card
from orchestra.agents.ensemble_voting import Answer, pooled
from orchestra.core.events import NOTHING, Usage
from orchestra.core.labels import may_go
from orchestra.core.protocols import Call, Done, Measure, Refused
from orchestra.fleet.local_workers import HERE, forbidden
from orchestra.schema.strict_json import canonical, digest

SOON = 1e-3
"""Seconds that a member has where those before it took all the time."""
Do: TypeAlias = Callable[[Call], Coroutine[Any, Any, Done | Refused]]
"""Does one call to a member."""


async def ask(call: Call, card: Card, do: Do) -> Done | Refused:
    """The pooled answer of an ensemble's members. Where one of them gives none the ensemble gives none either, for that reason: it was
    measured as a whole, and promises nothing in parts. Being cancelled cancels all."""
    began = time.monotonic()
    if not may_go(call.label, card.label):
        return forbidden(call, card.label)
    asked = calls(call, card)
    parts = [part for part in card.parts if part.name in {one.name for one in asked}]
    weights = [weight for part, weight in zip(card.parts, card.weights, strict=False) if part in parts]
    replies = await (_side_by_side(asked, do) if card.enough is None else _in_order(card, asked, weights, do))
    usage = _usage(replies, time.monotonic() - began)
    sent = _bytes(parts, [reply.sent for reply in replies])
    failed = next(((part, reply) for part, reply in zip(parts, replies, strict=False) if isinstance(reply, Refused)), None)
    if failed is not None:
        part, refused = failed
        reason = f"{part.name}, of the ensemble {card.name}: {refused.reason}"
        received = _bytes(parts, [reply.received for reply in replies])
        server = _servers(replies) or refused.server
        model = _joined(reply.model for reply in replies)
        told = {"reason": reason, "usage": usage, "server": server, "model": model, "sent": sent, "received": received}
        return msgspec.structs.replace(refused, **told)
    done = [reply for reply in replies if isinstance(reply, Done)]
    best = _pooled(card, weights, done)
    return Done(
        value=best.value,
        usage=usage,
        server=_servers(done) or HERE,
        model=_joined(reply.model for reply in done),
        sent=sent,
        received=_said(parts, done),
        confidence=best.confidence,
    )


def measure(call: Call, card: Card, measured: Callable[[Call], Measure]) -> Measure:
    """What a call to an ensemble may cost: what its members may cost together, at the dearest price among them."""
    found = [measured(asked) for asked in calls(call, card)]
    return Measure(
        prompt_tokens=sum(one.prompt_tokens for one in found),
        max_output=sum(one.max_output for one in found),
        min_output=sum(one.min_output for one in found),
        price=(max(one.price[0] for one in found), max(one.price[1] for one in found)),
        unpriced=next((one.unpriced for one in found if one.unpriced), ""),
        memo=digest(canonical([card.name, card.digest, [one.memo for one in found]])) if all(one.memo for one in found) else "",
        reads=any(one.reads for one in found),
    )


def calls(call: Call, card: Card) -> list[Call]:
    """The calls to the members. Who would say the same again is not asked again: what is tried once more, sampled, or asked of a larger
    model is asked of the members that models stand behind, where there are some. Where a budget leaves less output than all may write,
    each has what it needs at least, and of the rest a share by what it may write."""
    writing = [part for part in card.parts if part.kind == "model"]
    again = bool(call.feedback) or call.sample > 0 or call.tier > 0
    parts = writing if again and writing else card.parts
    rooms = _rooms(writing, call.max_output)
    return [msgspec.structs.replace(call, name=part.name, version=part.digest, max_output=rooms.get(part.name)) for part in parts]


def _rooms(writing: Sequence[Card], most: int | None) -> dict[str, int]:
    """The output tokens of each member that writes, where a budget bounds those of all."""
    if most is None:
        return {}
    least = {part.name: min(part.min_output, part.max_output) for part in writing}
    wished = {part.name: part.max_output - least[part.name] for part in writing}
    spare = max(0, most - sum(least.values()))
    return {name: least[name] + min(wish, spare * wish // max(1, sum(wished.values()))) for name, wish in wished.items()}


async def _side_by_side(asked: Sequence[Call], do: Do) -> list[Done | Refused]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(do(call)) for call in asked]
    return [task.result() for task in tasks]


async def _in_order(card: Card, asked: Sequence[Call], weights: Sequence[float], do: Do) -> list[Done | Refused]:
    """The replies of the first members, until one fails or an answer is probable enough. The time of the call is that of all."""
    replies: list[Done | Refused] = []
    enough = 1.0 if card.enough is None else card.enough
    began = time.monotonic()
    for call in asked:
        left = None if call.timeout is None else max(SOON, call.timeout - (time.monotonic() - began))
        replies.append(await do(msgspec.structs.replace(call, timeout=left)))
        done = [reply for reply in replies if isinstance(reply, Done)]
        if len(done) < len(replies) or (_pooled(card, weights, done).confidence or 0.0) >= enough:
            break
    return replies


def _pooled(card: Card, weights: Sequence[float], done: Sequence[Done]) -> Answer:
    return pooled([Answer(reply.value, reply.confidence) for reply in done], weights, card.parts[0].form.told)


def _usage(replies: Sequence[Done | Refused], seconds: float) -> Usage:
    """The tokens of all, as one call."""
    spent = sum((reply.usage for reply in replies), NOTHING)
    return msgspec.structs.replace(spent, calls=1, seconds=seconds)


def _servers(replies: Iterable[Done | Refused]) -> str:
    """Who was asked, beside this process."""
    return _joined(reply.server for reply in replies if reply.server != HERE)


def _joined(names: Iterable[str]) -> str:
    return "+".join(dict.fromkeys(name for name in names if name))


def _bytes(parts: Sequence[Card], exchanged: Sequence[bytes]) -> bytes:
    if not any(exchanged):
        return b""
    return msgspec.json.encode({part.name: _whole(data) for part, data in zip(parts, exchanged, strict=False) if data})


def _whole(data: bytes) -> msgspec.Raw | str:
    """What was exchanged, to the byte where it is JSON, as a text where it is a stream of events."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data.decode("utf-8", "replace")
    return msgspec.Raw(data)


def _said(parts: Sequence[Card], replies: Sequence[Done]) -> bytes:
    """What each member said, how sure it was, and the bytes of its server."""
    told: dict[str, dict[str, Any]] = {}
    for part, reply in zip(parts, replies, strict=False):
        bytes_of = {"received": _whole(reply.received)} if reply.received else {}
        told[part.name] = {"value": reply.value, "confidence": reply.confidence, **bytes_of}
    return msgspec.json.encode(told)
