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
from orchestra.agents.ensemble_voting import EnsembleAnswer, pool_answers
from orchestra.core.events import NO_USAGE, Usage
from orchestra.core.labels import is_allowed
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult
from orchestra.fleet.local_workers import LOCAL_SERVER, forbidden_error
from orchestra.schema.strict_json import canonical, digest

MIN_TIMEOUT = 1e-3
"""Seconds that a member has where those before it took all the time."""
CallMember: TypeAlias = Callable[[CallRequest], Coroutine[Any, Any, CallResult | CallError]]
"""Does one call to a member."""


async def call_ensemble(call: CallRequest, card: Card, call_member: CallMember) -> CallResult | CallError:
    """The pooled answer of an ensemble's members. Where one of them gives none the ensemble gives none either, for that reason: it was
    measured as a whole, and promises nothing in parts. Being cancelled cancels all."""
    began = time.monotonic()
    if not is_allowed(call.label, card.label):
        return forbidden_error(call, card.label)
    asked = member_calls(call, card)
    parts = [part for part in card.member_cards if part.name in {one.name for one in asked}]
    weights = [weight for part, weight in zip(card.member_cards, card.weights, strict=False) if part in parts]
    replies = await (
        _call_in_parallel(asked, call_member)
        if card.enough is None
        else _call_in_sequence(card, asked, weights, call_member)
    )
    usage = _total_usage(replies, time.monotonic() - began)
    sent = _encode_by_member(parts, [reply.sent for reply in replies])
    failed = next(
        ((part, reply) for part, reply in zip(parts, replies, strict=False) if isinstance(reply, CallError)), None
    )
    if failed is not None:
        part, refused = failed
        reason = f"{part.name}, of the ensemble {card.name}: {refused.reason}"
        received = _encode_by_member(parts, [reply.received for reply in replies])
        server = _server_names(replies) or refused.server
        model = _join_names(reply.model for reply in replies)
        told = {"reason": reason, "usage": usage, "server": server, "model": model, "sent": sent, "received": received}
        return msgspec.structs.replace(refused, **told)
    done = [reply for reply in replies if isinstance(reply, CallResult)]
    best = _pool_answers(card, weights, done)
    return CallResult(
        value=best.value,
        usage=usage,
        server=_server_names(done) or LOCAL_SERVER,
        model=_join_names(reply.model for reply in done),
        sent=sent,
        received=_encode_replies(parts, done),
        confidence=best.confidence,
    )


def estimate_ensemble(call: CallRequest, card: Card, estimate: Callable[[CallRequest], CallEstimate]) -> CallEstimate:
    """What a call to an ensemble may cost: what its members may cost together, at the dearest price among them."""
    found = [estimate(asked) for asked in member_calls(call, card)]
    return CallEstimate(
        prompt_tokens=sum(one.prompt_tokens for one in found),
        max_output=sum(one.max_output for one in found),
        min_output=sum(one.min_output for one in found),
        token_prices=(max(one.token_prices[0] for one in found), max(one.token_prices[1] for one in found)),
        unpriced_server=next((one.unpriced_server for one in found if one.unpriced_server), ""),
        memo_key=digest(canonical([card.name, card.digest, [one.memo_key for one in found]]))
        if all(one.memo_key for one in found)
        else "",
        uses_local_encoder=any(one.uses_local_encoder for one in found),
    )


def member_calls(call: CallRequest, card: Card) -> list[CallRequest]:
    """The calls to the members. Who would say the same again is not asked again: what is tried once more, sampled, or asked of a larger
    model is asked of the members that models stand behind, where there are some. Where a budget leaves less output than all may write,
    each has what it needs at least, and of the rest a share by what it may write."""
    writing = [part for part in card.member_cards if part.kind == "model"]
    again = bool(call.feedback) or call.sample > 0 or call.tier > 0
    parts = writing if again and writing else card.member_cards
    rooms = _output_limits(writing, call.max_output)
    return [
        msgspec.structs.replace(call, name=part.name, version=part.digest, max_output=rooms.get(part.name))
        for part in parts
    ]


def _output_limits(writing: Sequence[Card], most: int | None) -> dict[str, int]:
    """The output tokens of each member that writes, where a budget bounds those of all."""
    if most is None:
        return {}
    least = {part.name: min(part.min_output, part.max_output) for part in writing}
    requests = {part.name: part.max_output - least[part.name] for part in writing}
    spare = max(0, most - sum(least.values()))
    return {
        name: least[name] + min(requested, spare * requested // max(1, sum(requests.values())))
        for name, requested in requests.items()
    }


async def _call_in_parallel(asked: Sequence[CallRequest], call_member: CallMember) -> list[CallResult | CallError]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call_member(call)) for call in asked]
    return [task.result() for task in tasks]


async def _call_in_sequence(
    card: Card, asked: Sequence[CallRequest], weights: Sequence[float], call_member: CallMember
) -> list[CallResult | CallError]:
    """The replies of the first members, until one fails or an answer is probable enough. The time of the call is that of all."""
    replies: list[CallResult | CallError] = []
    enough = 1.0 if card.enough is None else card.enough
    began = time.monotonic()
    for call in asked:
        left = None if call.timeout is None else max(MIN_TIMEOUT, call.timeout - (time.monotonic() - began))
        replies.append(await call_member(msgspec.structs.replace(call, timeout=left)))
        done = [reply for reply in replies if isinstance(reply, CallResult)]
        if len(done) < len(replies) or (_pool_answers(card, weights, done).confidence or 0.0) >= enough:
            break
    return replies


def _pool_answers(card: Card, weights: Sequence[float], done: Sequence[CallResult]) -> EnsembleAnswer:
    return pool_answers(
        [EnsembleAnswer(reply.value, reply.confidence) for reply in done],
        weights,
        card.member_cards[0].output_form.comparison_key,
    )


def _total_usage(replies: Sequence[CallResult | CallError], seconds: float) -> Usage:
    """The tokens of all, as one call."""
    spent = sum((reply.usage for reply in replies), NO_USAGE)
    return msgspec.structs.replace(spent, calls=1, seconds=seconds)


def _server_names(replies: Iterable[CallResult | CallError]) -> str:
    """Who was asked, beside this process."""
    return _join_names(reply.server for reply in replies if reply.server != LOCAL_SERVER)


def _join_names(names: Iterable[str]) -> str:
    return "+".join(dict.fromkeys(name for name in names if name))


def _encode_by_member(parts: Sequence[Card], exchanged: Sequence[bytes]) -> bytes:
    if not any(exchanged):
        return b""
    return msgspec.json.encode(
        {part.name: _raw_or_text(data) for part, data in zip(parts, exchanged, strict=False) if data}
    )


def _raw_or_text(data: bytes) -> msgspec.Raw | str:
    """What was exchanged, to the byte where it is JSON, as a text where it is a stream of events."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data.decode("utf-8", "replace")
    return msgspec.Raw(data)


def _encode_replies(parts: Sequence[Card], replies: Sequence[CallResult]) -> bytes:
    """What each member said, how sure it was, and the bytes of its server."""
    told: dict[str, dict[str, Any]] = {}
    for part, reply in zip(parts, replies, strict=False):
        bytes_of = {"received": _raw_or_text(reply.received)} if reply.received else {}
        told[part.name] = {"value": reply.value, "confidence": reply.confidence, **bytes_of}
    return msgspec.json.encode(told)
