"""Calls to ensembles: each member gets the ensemble's call, and their answers are pooled into one reply.

The engine sees one call with the tokens of all members. The reply's bytes contain the requests and responses as JSON by
member.
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
"""Seconds for a member if the members before it used all the time."""
CallMember: TypeAlias = Callable[[CallRequest], Coroutine[Any, Any, CallResult | CallError]]
"""Runs a call to one member."""


async def call_ensemble(call: CallRequest, card: Card, call_member: CallMember) -> CallResult | CallError:
    """Returns the pooled answer of an ensemble's members, or the error of the first member that failed.

    The ensemble was measured with all members, so its measures do not hold for a part of them. Cancellation cancels all
    calls.
    """
    start_time = time.monotonic()
    if not is_allowed(call.label, card.label):
        return forbidden_error(call, card.label)
    call_requests = member_calls(call, card)
    parts = [part for part in card.member_cards if part.name in {call_request.name for call_request in call_requests}]
    weights = [weight for part, weight in zip(card.member_cards, card.weights, strict=False) if part in parts]
    replies = await (
        _call_in_parallel(call_requests, call_member)
        if card.enough is None
        else _call_in_sequence(card, call_requests, weights, call_member)
    )
    usage = _total_usage(replies, time.monotonic() - start_time)
    sent_blob = _encode_by_member(parts, [reply.sent for reply in replies])
    failure = next(
        ((part, reply) for part, reply in zip(parts, replies, strict=False) if isinstance(reply, CallError)), None
    )
    if failure is not None:
        part, error = failure
        reason = f"{part.name}, of the ensemble {card.name}: {error.reason}"
        received_blob = _encode_by_member(parts, [reply.received for reply in replies])
        server = _server_names(replies) or error.server
        model = _join_names(reply.model for reply in replies)
        fields = {
            "reason": reason,
            "usage": usage,
            "server": server,
            "model": model,
            "sent": sent_blob,
            "received": received_blob,
        }
        return msgspec.structs.replace(error, **fields)
    results = [reply for reply in replies if isinstance(reply, CallResult)]
    best = _pool_answers(card, weights, results)
    return CallResult(
        value=best.value,
        usage=usage,
        server=_server_names(results) or LOCAL_SERVER,
        model=_join_names(reply.model for reply in results),
        sent=sent_blob,
        received=_encode_replies(parts, results),
        confidence=best.confidence,
    )


def estimate_ensemble(call: CallRequest, card: Card, estimate: Callable[[CallRequest], CallEstimate]) -> CallEstimate:
    """Returns the bounds of an ensemble's cost: the sum over its members, at the highest price among them."""
    call_estimates = [estimate(member_call) for member_call in member_calls(call, card)]
    return CallEstimate(
        prompt_tokens=sum(call_estimate.prompt_tokens for call_estimate in call_estimates),
        max_output=sum(call_estimate.max_output for call_estimate in call_estimates),
        min_output=sum(call_estimate.min_output for call_estimate in call_estimates),
        token_prices=(
            max(call_estimate.token_prices[0] for call_estimate in call_estimates),
            max(call_estimate.token_prices[1] for call_estimate in call_estimates),
        ),
        unpriced_server=next(
            (call_estimate.unpriced_server for call_estimate in call_estimates if call_estimate.unpriced_server), ""
        ),
        memo_key=digest(
            canonical([card.name, card.digest, [call_estimate.memo_key for call_estimate in call_estimates]])
        )
        if all(call_estimate.memo_key for call_estimate in call_estimates)
        else "",
        uses_local_encoder=any(call_estimate.uses_local_encoder for call_estimate in call_estimates),
    )


def member_calls(call: CallRequest, card: Card) -> list[CallRequest]:
    """Returns the calls to the members.

    A member that would repeat its answer is not asked again: a retry, a sample or an escalation goes to the members
    that use a model, if there are some. If a budget allows less output than all may write, each member gets its minimum
    and a share of the rest in proportion to what it may write.
    """
    model_cards = [part for part in card.member_cards if part.kind == "model"]
    again = bool(call.feedback) or call.sample > 0 or call.tier > 0
    parts = model_cards if again and model_cards else card.member_cards
    rooms = _output_limits(model_cards, call.max_output)
    return [
        msgspec.structs.replace(call, name=part.name, version=part.digest, max_output=rooms.get(part.name))
        for part in parts
    ]


def _output_limits(model_cards: Sequence[Card], max_output: int | None) -> dict[str, int]:
    """Returns the output limit of each writing member if a budget bounds their sum."""
    if max_output is None:
        return {}
    least = {part.name: min(part.min_output, part.max_output) for part in model_cards}
    requests = {part.name: part.max_output - least[part.name] for part in model_cards}
    spare = max(0, max_output - sum(least.values()))
    return {
        name: least[name] + min(requested_tokens, spare * requested_tokens // max(1, sum(requests.values())))
        for name, requested_tokens in requests.items()
    }


async def _call_in_parallel(
    call_requests: Sequence[CallRequest], call_member: CallMember
) -> list[CallResult | CallError]:
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(call_member(call)) for call in call_requests]
    return [task.result() for task in tasks]


async def _call_in_sequence(
    card: Card, call_requests: Sequence[CallRequest], weights: Sequence[float], call_member: CallMember
) -> list[CallResult | CallError]:
    """Calls members in order until one fails or an answer is probable enough. The timeout of the call is that of all
    members.
    """
    replies: list[CallResult | CallError] = []
    enough = 1.0 if card.enough is None else card.enough
    start_time = time.monotonic()
    for call in call_requests:
        remaining_time = (
            None if call.timeout is None else max(MIN_TIMEOUT, call.timeout - (time.monotonic() - start_time))
        )
        replies.append(await call_member(msgspec.structs.replace(call, timeout=remaining_time)))
        results = [reply for reply in replies if isinstance(reply, CallResult)]
        if len(results) < len(replies) or (_pool_answers(card, weights, results).confidence or 0.0) >= enough:
            break
    return replies


def _pool_answers(card: Card, weights: Sequence[float], results: Sequence[CallResult]) -> EnsembleAnswer:
    return pool_answers(
        [EnsembleAnswer(reply.value, reply.confidence) for reply in results],
        weights,
        card.member_cards[0].output_form.comparison_key,
    )


def _total_usage(replies: Sequence[CallResult | CallError], seconds: float) -> Usage:
    """Returns the tokens of all members as one call."""
    usage = sum((reply.usage for reply in replies), NO_USAGE)
    return msgspec.structs.replace(usage, calls=1, seconds=seconds)


def _server_names(replies: Iterable[CallResult | CallError]) -> str:
    """Returns the names of the servers that were used, except this process."""
    return _join_names(reply.server for reply in replies if reply.server != LOCAL_SERVER)


def _join_names(names: Iterable[str]) -> str:
    return "+".join(dict.fromkeys(name for name in names if name))


def _encode_by_member(parts: Sequence[Card], blobs: Sequence[bytes]) -> bytes:
    if not any(blobs):
        return b""
    return msgspec.json.encode(
        {part.name: _raw_or_text(data) for part, data in zip(parts, blobs, strict=False) if data}
    )


def _raw_or_text(data: bytes) -> msgspec.Raw | str:
    """Returns the exchanged bytes: unchanged if they are JSON, else as text."""
    try:
        msgspec.json.decode(data)
    except (msgspec.DecodeError, RecursionError):
        return data.decode("utf-8", "replace")
    return msgspec.Raw(data)


def _encode_replies(parts: Sequence[Card], replies: Sequence[CallResult]) -> bytes:
    """Returns each member's answer, confidence and server bytes as JSON."""
    replies_by_member: dict[str, dict[str, Any]] = {}
    for part, reply in zip(parts, replies, strict=False):
        bytes_of = {"received": _raw_or_text(reply.received)} if reply.received else {}
        replies_by_member[part.name] = {"value": reply.value, "confidence": reply.confidence, **bytes_of}
    return msgspec.json.encode(replies_by_member)
