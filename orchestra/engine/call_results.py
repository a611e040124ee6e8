"""Results of calls as events: an attempt that started, finished, or was answered from the memo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from orchestra.core.events import NO_USAGE, AttemptFinished, AttemptStarted, Usage
from orchestra.core.protocols import CallError, CallRequest, CallResult, Workers
from orchestra.engine.proposals import Invoke
from orchestra.schema.strict_json import digest

if TYPE_CHECKING:
    from orchestra.engine.run_context import RunContext
    from orchestra.engine.streaming import TextStream


async def call_streaming(workers: Workers, call: CallRequest, stream: TextStream) -> CallResult | CallError:
    """Makes a call whose text goes to the readers of the run."""
    with stream.open_text(call) as text:
        return await workers.call(call, text.add)


def no_reply_error(call: CallRequest) -> CallError:
    """Returns the error of a worker that ends without a reply."""
    hint = "`call` of the worker must return a `CallResult` or a `CallError`"
    return CallError(code="E007", reason=f"the worker of {call.name} gave no reply", hint=hint, retryable=True)


def self_cancelled_error(call: CallRequest) -> CallError:
    """Returns the error of a worker that ends with a cancellation that no caller requested, usually of a task of its
    own.
    """
    hint = "catch asyncio.CancelledError where the worker awaits its own tasks"
    return CallError(code="E007", reason=f"the worker of {call.name} cancelled its own call", hint=hint, retryable=True)


def attempt_started(driver: RunContext, invoke: Invoke) -> AttemptStarted:
    """Returns the event that a call started."""
    call = invoke.call
    return AttemptStarted(
        **driver.stamp(),
        node=call.node,
        attempt=call.attempt,
        name=call.name,
        escalated=call.is_escalated,
        tier=call.tier if call.tier > 1 else 0,
        reserved=max(0, invoke.reserved_tokens),
        escalation_reason=invoke.escalation_reason,
    )


def attempt_finished(
    driver: RunContext, invoke: Invoke, reply: CallResult | CallError, began: float, memo: str
) -> AttemptFinished:
    """Returns the event that a call finished. A value that does not match the node's type becomes an error here."""
    unit, call, usage = invoke.unit, invoke.call, reply.usage
    if usage.seconds <= 0 or usage.calls <= 0 or usage.prompt_tokens < 0 or usage.output_tokens < 0:
        usage = _normalized_usage(usage, driver.clock.monotonic() - began)
    name = "" if unit.attempt == call.attempt else call.name
    seq, at = driver.state.seq + 1, driver.clock.now()
    schema = unit.node.output
    if isinstance(reply, CallResult) and schema and (fault := driver.engine.validation_error(schema, reply.value)):
        reply = _wrong_type_error(reply, f"{unit.path}: {fault}")
    request_blob, response_blob = reply.sent, reply.received
    if isinstance(reply, CallError):
        return _attempt_failed(driver, call, reply, usage, name)
    if invoke.unchecked and not (request_blob or response_blob or memo or invoke.write_ahead or reply.reused_from):
        # The same as below; most nodes of most runs take this path, and each field costs 30 ns.
        return AttemptFinished(
            seq=seq,
            at=at,
            node=call.node,
            attempt=call.attempt,
            name=name,
            value=reply.value,
            usage=usage,
            confidence=reply.confidence,
            server=reply.server,
            model=reply.model,
            final=True,
        )
    contract = unit.node.contract
    # A reused answer already has its outbox message.
    outbox = contract is not None and contract.effect == "transactional" and not reply.reused_from
    return AttemptFinished(
        seq=seq,
        at=at,
        node=call.node,
        attempt=call.attempt,
        name=call.name if outbox else name,  # A message names its tool.
        value=reply.value,
        usage=NO_USAGE if reply.reused_from else usage,
        confidence=reply.confidence,
        server=reply.server,
        model=reply.model,
        sent=driver.journal.put_blob(request_blob) if request_blob else "",
        received=driver.journal.put_blob(response_blob) if response_blob else "",
        final=invoke.unchecked,
        memo_key=memo,
        reused_from=reply.reused_from,
        overridden_by=reply.overridden_by,
        outbox=outbox,
    )


def _wrong_type_error(reply: CallResult, reason: str) -> CallError:
    """Returns the error for a value that does not match the contract of its agent or tool."""
    hint = "the worker breaks its contract; correct the worker"
    server, model, request_blob, response_blob = reply.server, reply.model, reply.sent, reply.received
    return CallError(
        code="E009", reason=reason, hint=hint, server=server, model=model, sent=request_blob, received=response_blob
    )


def _attempt_failed(
    driver: RunContext, call: CallRequest, reply: CallError, usage: Usage, name: str
) -> AttemptFinished:
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
        permanent=reply.permanent,
        usage=usage,
        server=reply.server,
        model=reply.model,
        sent=driver.journal.put_blob(reply.sent) if reply.sent else "",
        received=driver.journal.put_blob(reply.received) if reply.received else "",
    )


def confidence_key(memo: str) -> str:
    """Returns the memo key of the confidence of the answer under the key `memo`."""
    return digest(f"{memo} confidence".encode())


def attempt_recalled(
    driver: RunContext, invoke: Invoke, memo: str, run: str, value: Any, confidence: float | None
) -> AttemptFinished:
    """Returns the event that a call was answered from the memo, with the recorded confidence."""
    call = invoke.call
    name = "" if invoke.unit.attempt == call.attempt else call.name
    return AttemptFinished(
        **driver.stamp(),
        node=call.node,
        attempt=call.attempt,
        name=name,
        value=value,
        confidence=confidence,
        final=invoke.unchecked,
        memo_key=memo,
        reused_from=run,
    )


def _normalized_usage(usage: Usage, seconds: float) -> Usage:
    """Returns the usage that a worker reported, with missing and impossible numbers replaced."""
    return Usage(
        max(0, usage.prompt_tokens),
        max(0, usage.cached_tokens),
        max(0, usage.output_tokens),
        max(1, usage.calls),
        usage.seconds if usage.seconds > 0 else seconds,
        max(0, usage.resends),
        max(0.0, usage.money),
        max(0, usage.estimated_tokens),
    )
