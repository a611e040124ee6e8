"""Answers: that a call went out, and what came of it, as the facts that are recorded."""

from __future__ import annotations

from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import msgspec

from orchestra.core.events import NOTHING, AttemptFinished, AttemptStarted, Usage
from orchestra.core.protocols import Call, Chunk, Done, Refused, Workers
from orchestra.engine.proposals import Invoke
from orchestra.schema.strict_json import digest

if TYPE_CHECKING:
    from orchestra.engine.driver import Driver
    from orchestra.engine.streaming import Live, Text


async def streamed(workers: Workers, call: Call, live: Live | None = None) -> Done | Refused:
    """The last reply of a stream. Its chunks are for those who read the run live; else nobody does."""
    if live is not None and call.kind == "agent":
        with live.written(call) as text:
            return await _last(workers, msgspec.structs.replace(call, live=True), text)
    return await _last(workers, call, None)


async def _last(workers: Workers, call: Call, text: Text | None) -> Done | Refused:
    async with aclosing(workers.run(call)) as replies:
        async for reply in replies:
            if not isinstance(reply, Chunk):
                return reply
            if text is not None:
                text.add(reply)
    return Refused(code="E007", reason=f"the worker of {call.name} gave no reply", hint="orchestra doctor", retryable=True)


def cancelled_itself(call: Call) -> Refused:
    """What is said of a worker that ends in a cancellation that nobody asked for: of a task of its own, as a rule."""
    hint = "catch asyncio.CancelledError where the worker awaits its own tasks"
    return Refused(code="E007", reason=f"the worker of {call.name} cancelled its own call", hint=hint, retryable=True)


def started(driver: Driver, invoke: Invoke) -> AttemptStarted:
    """The fact that a call went out."""
    call = invoke.call
    return AttemptStarted(
        **driver.stamp(),
        node=call.node,
        attempt=call.attempt,
        name=call.name,
        escalated=call.escalate,
        tier=call.tier if call.tier > 1 else 0,
        reserved=max(0, invoke.reserved),
        because=invoke.because,
    )


def finished(driver: Driver, invoke: Invoke, reply: Done | Refused, began: float, memo: str) -> AttemptFinished:
    """The fact that a call came back. A value that is not of the node's type is refused here."""
    unit, call, used = invoke.unit, invoke.call, reply.usage
    if used.seconds <= 0 or used.calls <= 0 or used.prompt_tokens < 0 or used.output_tokens < 0:
        used = _sane(used, driver.clock.monotonic() - began)
    name = "" if unit.attempt == call.attempt else call.name
    seq, at = driver.state.seq + 1, driver.clock.now()
    schema = unit.node.output
    if isinstance(reply, Done) and schema and (fault := driver.engine.fault(schema, reply.value)):
        reply = _of_another_type(reply, f"{unit.path}: {fault}")
    sent, received = reply.sent, reply.received
    if isinstance(reply, Refused):
        return _refused(driver, call, reply, used, name)
    if invoke.plain and not (sent or received or memo or invoke.certain or reply.recalled):
        # The same as below; most nodes of most runs are such, and a field costs 30 ns.
        return AttemptFinished(
            seq=seq,
            at=at,
            node=call.node,
            attempt=call.attempt,
            name=name,
            value=reply.value,
            usage=used,
            confidence=reply.confidence,
            server=reply.server,
            model=reply.model,
            settled=True,
        )
    contract = unit.node.contract
    outbox = contract is not None and contract.effect == "transactional" and not reply.recalled  # else it is in the outbox
    return AttemptFinished(
        seq=seq,
        at=at,
        node=call.node,
        attempt=call.attempt,
        name=call.name if outbox else name,  # a message says who sent it
        value=reply.value,
        usage=NOTHING if reply.recalled else used,
        confidence=reply.confidence,
        server=reply.server,
        model=reply.model,
        sent=driver.journal.put(sent) if sent else "",
        received=driver.journal.put(received) if received else "",
        settled=invoke.plain,
        memo=memo,
        recalled=reply.recalled,
        given=reply.given,
        outbox=outbox,
    )


def _of_another_type(reply: Done, reason: str) -> Refused:
    """An answer whose value is not what its agent or tool promises."""
    hint = "the worker breaks its contract; mend it"
    server, model, sent, received = reply.server, reply.model, reply.sent, reply.received
    return Refused(code="E009", reason=reason, hint=hint, server=server, model=model, sent=sent, received=received)


def _refused(driver: Driver, call: Call, reply: Refused, used: Usage, name: str) -> AttemptFinished:
    return AttemptFinished(
        **driver.stamp(),
        node=call.node,
        attempt=call.attempt,
        name=name,
        error=reply.code,
        reason=reply.reason,
        hint=reply.hint,
        frames=reply.frames,
        retryable=reply.retryable,
        lasting=reply.lasting,
        usage=used,
        server=reply.server,
        model=reply.model,
        sent=driver.journal.put(reply.sent) if reply.sent else "",
        received=driver.journal.put(reply.received) if reply.received else "",
    )


def of_confidence(memo: str) -> str:
    """The key under which is remembered how sure a worker was of the answer that is remembered under `memo`."""
    return digest(f"{memo} confidence".encode())


def recalled(driver: Driver, invoke: Invoke, memo: str, run: str, value: Any, confidence: float | None) -> AttemptFinished:
    """An answer that another run was given to the very same call, and how sure its worker was of it."""
    call = invoke.call
    name = "" if invoke.unit.attempt == call.attempt else call.name
    return AttemptFinished(
        **driver.stamp(),
        node=call.node,
        attempt=call.attempt,
        name=name,
        value=value,
        confidence=confidence,
        settled=invoke.plain,
        memo=memo,
        recalled=run,
    )


def _sane(used: Usage, seconds: float) -> Usage:
    """What a worker says of a call, where it leaves things out, or says what cannot be."""
    return Usage(
        max(0, used.prompt_tokens),
        max(0, used.cached_tokens),
        max(0, used.output_tokens),
        max(1, used.calls),
        used.seconds if used.seconds > 0 else seconds,
        max(0, used.resends),
        max(0.0, used.money),
        max(0, used.assumed),
    )
