"""Simulated workers for tests of your own workflows without a model.

    workers = SimulatedWorkers({"reader": {"answer": "1889"}, "search": search_by_hand})
    workers = SimulatedWorkers(lambda call: call.inputs["question"].upper())
    workers = SimulatedWorkers({"reader": {"answer": "1889"}}, tools=[search, cite])
    workers = SimulatedWorkers(catalog, seed=7, latency=(0.1, 2.0), faults=Faults(refused=0.1, stall=0.05))

They implement the engine's protocol `Workers`. The value, latency and fault of a call depend on the seed and the call
only, never on the order of calls.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from orchestra.agents.contract import Catalog, Contract
from orchestra.agents.tools import KEY_PARAMETER, ToolError, ToolFunction, tool_error
from orchestra.core.clock import SystemClock
from orchestra.core.errors import InputError
from orchestra.core.events import Usage
from orchestra.core.labels import CURRENT_LABEL
from orchestra.core.protocols import (
    NO_ESTIMATE,
    CallError,
    CallEstimate,
    CallRequest,
    CallResult,
    Clock,
    TextCallback,
)
from orchestra.core.suggestions import closest_match
from orchestra.fleet.local_workers import PERMANENT_ERRORS
from orchestra.schema.strict_json import canonical
from orchestra.testing.schema_samples import make_instance
from orchestra.workflows.python.steps import Tool

AnswerFunction: TypeAlias = Callable[[CallRequest], Any]
"""Returns a call's value, or a `CallResult` or `CallError` that is passed on; or an awaitable of one of these."""
AnswerSource: TypeAlias = AnswerFunction | Mapping[str, Any] | Catalog
"""The source of answers: a function for all calls; a table from agent and tool names to functions or values; or a
catalog, whose output schemas are filled with random values.
"""
Latency: TypeAlias = float | tuple[float, float] | Callable[[CallRequest, Random], float]
"""Seconds that a call takes: constant, uniform between two bounds, or a function of the call and its random generator.
"""

_FOREVER = 86_400.0


@dataclass(frozen=True, slots=True)
class Faults:
    """The probability of each fault, in [0, 1]; together at most 1. An attempt has at most one fault."""

    refused: float = 0.0
    """The server refuses at once (F code, retryable)."""
    broken: float = 0.0
    """The call fails permanently (F code, not retryable)."""
    stall: float = 0.0
    """No reply until the call's timeout (F code, retryable), or for a day without a timeout."""
    invalid: float = 0.0
    """The model's text is not of the type: an M code with the raw text, retryable."""
    wrong_type: float = 0.0
    """A worker violates the protocol: `CallResult` with a value of another type."""
    slow: float = 0.0
    """Chunks arrive over ten times the latency, then the value."""
    attempts: int | None = None
    """Faults affect attempts up to this number, so that retries succeed finally; None means all."""

    def __post_init__(self) -> None:
        chances = [getattr(self, name) for name in FAULT_KINDS]
        if min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError(f"probabilities must lie in [0, 1] and sum to at most 1, not {chances}")

    def draw(self, call: CallRequest, random: Random) -> str:
        """Returns the name of the fault of this attempt, or an empty string."""
        remainder = random.random()
        if self.attempts is not None and call.attempt > self.attempts:
            return ""
        for name in FAULT_KINDS:
            remainder -= getattr(self, name)
            if remainder < 0:
                return name
        return ""


FAULT_KINDS = ("refused", "broken", "stall", "invalid", "wrong_type", "slow")
NO_FAULTS = Faults()


def from_schemas(catalog: Catalog, seed: int = 0) -> AnswerFunction:
    """Returns answers with seeded random values of each contract's output. Quotes come from the call's evidence."""

    def answer(call: CallRequest) -> Any:
        contracts: Mapping[str, Contract] = catalog.agents if call.kind == "agent" else catalog.tools
        texts = [source.text for source in call.evidence] or [
            value for value in call.inputs.values() if isinstance(value, str)
        ]
        return make_instance(contracts[call.name].output, attempt_random(seed, call, "value"), texts)

    return answer


def answer_sequence(*answers: Any) -> AnswerFunction:
    """Returns answers that give a node's first attempt the first value or reply, the second the second, and so on; the
    last one is repeated.

    A reply is a `CallResult` or, for a failing call, a `CallError`. Each iteration of a loop and each element of a list
    is a node of its own and starts with the first value. To give the values to all nodes in order, pass `lambda call:
    next(values)` of an iterator.
    """

    def answer(call: CallRequest) -> Any:
        answer_value = answers[min(call.attempt, len(answers)) - 1]
        return answer_value(call) if callable(answer_value) else answer_value

    return answer


def attempt_random(seed: int, call: CallRequest, purpose: str) -> Random:
    """Returns the random generator of an attempt. It depends on seed, node, attempt and inputs only."""
    return Random(f"{seed}|{purpose}|{call.name}|{call.node}|{call.attempt}|{canonical(call.inputs).decode()}")  # noqa: S311  # not a secret


class SimulatedWorkers:
    """An implementation of `Workers` with scripted replies.

    Attributes:
        calls: All calls in order of arrival.
        counts: The number of calls by agent or tool.
        in_flight: The calls that run now.
        max_in_flight: The highest number of concurrent calls.
        cancelled: The calls whose caller stopped waiting.
        fault_counts: The number of each fault.
    """

    def __init__(
        self,
        answers: AnswerSource,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        latency: Latency = 0.0,
        faults: Faults = NO_FAULTS,
        chunks: int = 0,
        tools: Iterable[Tool[..., Any]] = (),
    ) -> None:
        """Creates the workers.

        Args:
            answers: The source of answers.
            seed: The seed of values, latencies and faults.
            latency: The seconds that a call takes.
            faults: The probabilities of faults.
            clock: The clock.
            chunks: The number of chunks of an agent's text before its value.
            tools: Tools that run unchanged on the event loop if `answers` is a table without them.
        """
        self._answer_function = _make_answer_function(
            answers, seed, {tool.name: ToolFunction(tool.contract, tool.function) for tool in tools}
        )
        self._seed, self._latency, self._faults, self._chunks = seed, latency, faults, chunks
        self._clock: Clock = clock or SystemClock()
        self.calls: list[CallRequest] = []
        self.counts: Counter[str] = Counter()
        self.cancelled: list[CallRequest] = []
        self.fault_counts: Counter[str] = Counter()
        self.in_flight: dict[int, CallRequest] = {}
        self.max_in_flight = 0

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Runs a call. If its caller is cancelled, the call is added to `cancelled`."""
        number = len(self.calls)
        self.calls.append(call)
        self.counts[call.name] += 1
        self.in_flight[number] = call
        self.max_in_flight = max(self.max_in_flight, len(self.in_flight))
        is_ended = False
        try:
            reply = await self._reply(call, on_text)
            is_ended = True
            return reply
        finally:
            del self.in_flight[number]
            if not is_ended:
                self.cancelled.append(call)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the scripted estimate of a call."""
        return NO_ESTIMATE

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the tokens of a call's prompt."""
        return None

    async def _reply(self, call: CallRequest, on_text: TextCallback | None) -> CallResult | CallError:
        fault = "" if self._faults is NO_FAULTS else self._faults.draw(call, attempt_random(self._seed, call, "fault"))
        if fault:
            self.fault_counts[fault] += 1
        seconds = self._seconds(call)
        match fault:
            case "refused":
                return refused_error(call)
            case "stall":
                return await self._stall(call)
            case "slow":
                seconds *= 10
            case _:
                pass
        pieces = self._chunks or (4 if fault == "slow" else 0) if call.kind == "agent" else 0
        await self._clock.sleep(seconds / (pieces + 1))
        if fault == "broken":
            return broken_error(call)
        answer_function = self._answer_function(call)
        reply = _to_reply(
            call, await answer_function if isinstance(answer_function, Awaitable) else answer_function, seconds
        )
        if isinstance(reply, CallResult):
            reply = _apply_fault(reply, fault)
        for piece in _split_text(reply, pieces):
            if on_text is not None:
                on_text(piece)
            await self._clock.sleep(seconds / (pieces + 1))
        return reply

    def _seconds(self, call: CallRequest) -> float:
        match self._latency:
            case (low, high):
                return attempt_random(self._seed, call, "latency").uniform(low, high)
            case float() | int() as constant:
                return constant
            case function:
                return function(call, attempt_random(self._seed, call, "latency"))

    async def _stall(self, call: CallRequest) -> CallError:
        await self._clock.sleep(_FOREVER if call.timeout is None else call.timeout)
        return stalled_error(call)


def _make_answer_function(answers: AnswerSource, seed: int, tools: Mapping[str, ToolFunction]) -> AnswerFunction:
    if isinstance(answers, Catalog):
        answers = from_schemas(answers, seed)
    table: Mapping[str, Any] = answers if isinstance(answers, Mapping) else {}
    fallback = None if isinstance(answers, Mapping) else answers

    def answer(call: CallRequest) -> Any:
        if call.name in table:
            answer_value = table[call.name]
            return answer_value(call) if callable(answer_value) else answer_value
        if call.kind == "tool" and call.name in tools:
            return run_inline(tools[call.name], call)
        if fallback is None:
            raise _missing_answer_error(call, {*table, *tools})
        return fallback(call)

    return answer


def _missing_answer_error(call: CallRequest, known_names: Iterable[str]) -> InputError:
    near = closest_match(call.name, known_names)
    hint = f"SimulatedWorkers({{{call.name!r}: …}})" + (
        f", or run it unchanged: tools=[{call.name}]" if call.kind == "tool" else ""
    )
    hint = f"did you mean {near!r}? {hint}" if near else hint
    message = (
        f"the script has no answer for the {call.kind} {call.name!r}; it has {', '.join(sorted(known_names)) or 'none'}"
    )
    return InputError("C035", message, hint=hint)


async def run_inline(tool: ToolFunction, call: CallRequest) -> Any:
    """Runs a tool on the event loop: there are no threads in virtual time."""
    within = CURRENT_LABEL.set(call.label)
    try:
        if tool.is_async:
            return await tool.call(call.inputs, call.label, call.idempotency_key)
        tool.check_label(call.label)
        key = {KEY_PARAMETER: call.idempotency_key} if tool.contract.effect == "keyed" else {}
        value = tool.function(**tool.convert_inputs(call.inputs), **key)
        return tool.convert_result(await value if inspect.isawaitable(value) else value)
    except ToolError as fault:
        return CallError(
            code=fault.code, reason=fault.reason, hint=fault.hint, retryable=fault.code not in PERMANENT_ERRORS
        )
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a user's function may raise anything; the run gets it as a failed attempt, as in production
        raised_error = tool_error(call.name, error)
        return CallError(
            code=raised_error.code,
            reason=raised_error.reason,
            hint=raised_error.hint,
            retryable=True,
            permanent=raised_error.permanent,
            frames=raised_error.frames,
        )
    finally:
        CURRENT_LABEL.reset(within)


def refused_error(call: CallRequest) -> CallError:
    """Returns the fleet's error for a server that refuses requests."""
    return CallError(
        code="F203",
        reason=f"{call.name}: the server refused the connection (simulated)",
        retryable=True,
        server="simulated",
    )


def broken_error(call: CallRequest) -> CallError:
    """Returns the fleet's error for a request that no retry can correct."""
    return CallError(
        code="F212", reason=f"{call.name}: the server does not know the model (simulated)", server="simulated"
    )


def stalled_error(call: CallRequest) -> CallError:
    """Returns the fleet's error for a timeout."""
    return CallError(
        code="F205",
        reason=f"{call.name}: no answer within {call.timeout or _FOREVER:g} s (simulated)",
        retryable=True,
        server="simulated",
    )


def _to_reply(call: CallRequest, value: Any, seconds: float) -> CallResult | CallError:
    if isinstance(value, CallResult | CallError):
        return value
    request_body, response_body = canonical(call.inputs), canonical(value)
    usage = Usage(seconds=seconds)
    if call.kind == "agent":
        usage = Usage(
            prompt_tokens=len(request_body) // 4 + 1,
            output_tokens=len(response_body) // 4 + 1,
            calls=1,
            seconds=seconds,
        )
    return CallResult(
        value=value, usage=usage, server="simulated", model="simulated", sent=request_body, received=response_body
    )


def _apply_fault(reply: CallResult, fault: str) -> CallResult | CallError:
    if fault == "invalid":
        return CallError(
            code="M001",
            reason="the output is not JSON (simulated)",
            retryable=True,
            usage=reply.usage,
            server=reply.server,
            model=reply.model,
            sent=reply.sent,
            received=reply.received[: len(reply.received) // 2],
        )
    if fault == "wrong_type":
        wrong = (
            {"unexpected": [True]} if isinstance(reply.value, str | int | float | list) or reply.value is None else 17
        )
        return CallResult(
            value=wrong,
            usage=reply.usage,
            server=reply.server,
            model=reply.model,
            sent=reply.sent,
            received=canonical(wrong),
        )
    return reply


def _split_text(reply: CallResult | CallError, count: int) -> list[str]:
    if not count or not isinstance(reply, CallResult):
        return []
    text = reply.value if isinstance(reply.value, str) else reply.received.decode()
    size = -(-len(text) // count)
    return [text[start : start + size] for start in range(0, len(text), max(1, size))]
