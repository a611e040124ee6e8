"""Simulated workers: test your own workflow without a model.

    workers = SimulatedWorkers({"reader": {"answer": "1889"}, "search": search_by_hand})
    workers = SimulatedWorkers(lambda call: call.inputs["question"].upper())
    workers = SimulatedWorkers({"reader": {"answer": "1889"}}, tools=[search, cite])
    workers = SimulatedWorkers(catalog, seed=7, latency=(0.1, 2.0), faults=Faults(refused=0.1, stall=0.05))

They implement the protocol `Workers` of the engine. What a call gets (value, latency, fault) depends on the seed and on
the call alone, never on the order in which calls arrive: one seed, one story.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping
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
    CallReply,
    CallRequest,
    CallResult,
    Chunk,
    Clock,
)
from orchestra.core.suggestions import closest_match
from orchestra.fleet.local_workers import PERMANENT_ERRORS
from orchestra.schema.strict_json import canonical
from orchestra.testing.schema_samples import make_instance
from orchestra.workflows.python.steps import Tool

AnswerFunction: TypeAlias = Callable[[CallRequest], Any]
"""Gives a call's value, or a `CallResult` or `CallError` to be passed on as it is; or an awaitable of one of these."""
AnswerSource: TypeAlias = AnswerFunction | Mapping[str, Any] | Catalog
"""Who answers: one function for all; a table from agent and tool names to functions or plain values; or a catalog,
whose
contracts' output schemas are filled at random.
"""
Latency: TypeAlias = float | tuple[float, float] | Callable[[CallRequest, Random], float]
"""Seconds that a call takes: always the same, uniform between two, or a function of the call and its own chance."""

_FOREVER = 86_400.0


@dataclass(frozen=True, slots=True)
class Faults:
    """How likely each fault is, in [0, 1]; together at most 1. At most one fault hits an attempt."""

    refused: float = 0.0
    """The server refuses at once; another attempt may help (F-code, retryable)."""
    broken: float = 0.0
    """The call fails for good (F-code, not retryable)."""
    stall: float = 0.0
    """Nothing comes until the call's timeout (F-code, retryable), or for a day where it has none."""
    invalid: float = 0.0
    """The model wrote no value of the type: an M-code refusal with the raw text, retryable."""
    wrong_type: float = 0.0
    """A worker that breaks its promise: `CallResult` with a value of another type."""
    slow: float = 0.0
    """Chunks trickle in over ten times the latency, then the value."""
    attempts: int | None = None
    """Faults hit only attempts up to this one, so that retries succeed in the end; None for all."""

    def __post_init__(self) -> None:
        chances = [getattr(self, name) for name in FAULT_KINDS]
        if min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError(f"probabilities must lie in [0, 1] and sum to at most 1, not {chances}")

    def draw(self, call: CallRequest, random: Random) -> str:
        """The name of the fault that hits this attempt, or an empty text."""
        left = random.random()
        if self.attempts is not None and call.attempt > self.attempts:
            return ""
        for name in FAULT_KINDS:
            left -= getattr(self, name)
            if left < 0:
                return name
        return ""


FAULT_KINDS = ("refused", "broken", "stall", "invalid", "wrong_type", "slow")
NO_FAULTS = Faults()


def from_schemas(catalog: Catalog, seed: int = 0) -> AnswerFunction:
    """Answers each call with a seeded random value of its contract's output; quotes come from the call's own evidence."""

    def answer(call: CallRequest) -> Any:
        contracts: Mapping[str, Contract] = catalog.agents if call.kind == "agent" else catalog.tools
        texts = [source.text for source in call.evidence] or [
            value for value in call.inputs.values() if isinstance(value, str)
        ]
        return make_instance(contracts[call.name].output, attempt_random(seed, call, "value"), texts)

    return answer


def answer_sequence(*answers: Any) -> AnswerFunction:
    """Answers a node's first attempt with the first value or reply, the second with the second, and so on; the last one
    stays.

    A reply is a `CallResult`, or a `CallError` for a call that fails.
    Each turn of a loop, and each element of a list, is a node of its own, and begins with the first
    value. To give the values one after the other to all nodes, pass `lambda call: next(values)` of an iterator.
    """

    def answer(call: CallRequest) -> Any:
        found = answers[min(call.attempt, len(answers)) - 1]
        return found(call) if callable(found) else found

    return answer


def attempt_random(seed: int, call: CallRequest, purpose: str) -> Random:
    """The chance of one attempt: the same for the same seed, node, attempt and inputs, whatever else happens."""
    return Random(f"{seed}|{purpose}|{call.name}|{call.node}|{call.attempt}|{canonical(call.inputs).decode()}")  # noqa: S311  # not a secret


class SimulatedWorkers:
    """An implementation of `Workers` that follows a script.

    `calls` are all calls in order of arrival, `counts` their number by agent or tool, `in_flight` those that run now,
    `max_in_flight` how many ran at once at most, `cancelled` those whose caller went away, `fault_counts` how often
    each fault hit.
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
        """`chunks` is the number of pieces in which an agent's text arrives before its value. `tools` run as they are,
        on
        the loop itself,
        where a table says nothing of them.
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

    async def run(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        """Does one call; closing the iterator early, or cancelling who reads it, is recorded in `cancelled`."""
        number = len(self.calls)
        self.calls.append(call)
        self.counts[call.name] += 1
        self.in_flight[number] = call
        self.max_in_flight = max(self.max_in_flight, len(self.in_flight))
        ended = False
        try:
            async for reply in self._replies(call):
                ended = not isinstance(reply, Chunk)
                if ended:
                    del self.in_flight[number]
                yield reply
        finally:
            if not ended:
                self.in_flight.pop(number, None)
                self.cancelled.append(call)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """What a call may cost, and its memo key."""
        return NO_ESTIMATE

    async def count_tokens(self, call: CallRequest) -> int | None:
        """The tokens of a call's prompt."""
        return None

    async def _replies(self, call: CallRequest) -> AsyncGenerator[CallReply, None]:
        fault = "" if self._faults is NO_FAULTS else self._faults.draw(call, attempt_random(self._seed, call, "fault"))
        if fault:
            self.fault_counts[fault] += 1
        seconds = self._seconds(call)
        match fault:
            case "refused":
                yield refused_error(call)
                return
            case "stall":
                yield await self._stall(call)
                return
            case "slow":
                seconds *= 10
            case _:
                pass
        pieces = self._chunks or (4 if fault == "slow" else 0) if call.kind == "agent" else 0
        await self._clock.sleep(seconds / (pieces + 1))
        if fault == "broken":
            yield broken_error(call)
            return
        found = self._answer_function(call)
        reply = _to_reply(call, await found if isinstance(found, Awaitable) else found, seconds)
        if isinstance(reply, CallResult):
            reply = _apply_fault(reply, fault)
        for piece in _split_text(reply, pieces):
            yield Chunk(piece)
            await self._clock.sleep(seconds / (pieces + 1))
        yield reply

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
    others = None if isinstance(answers, Mapping) else answers

    def answer(call: CallRequest) -> Any:
        if call.name in table:
            found = table[call.name]
            return found(call) if callable(found) else found
        if call.kind == "tool" and call.name in tools:
            return run_inline(tools[call.name], call)
        if others is None:
            raise _missing_answer_error(call, {*table, *tools})
        return others(call)

    return answer


def _missing_answer_error(call: CallRequest, known: Iterable[str]) -> InputError:
    near = closest_match(call.name, known)
    hint = f"SimulatedWorkers({{{call.name!r}: …}})" + (
        f", or let it run as it is: tools=[{call.name}]" if call.kind == "tool" else ""
    )
    hint = f"did you mean {near!r}? {hint}" if near else hint
    said = (
        f"the script has no answer for the {call.kind} {call.name!r}; it knows {', '.join(sorted(known)) or 'nobody'}"
    )
    return InputError("C035", said, hint=hint)


async def run_inline(tool: ToolFunction, call: CallRequest) -> Any:
    """What a tool gives, computed on the loop itself: there are no threads in virtual time."""
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
        found = tool_error(call.name, error)
        return CallError(
            code=found.code,
            reason=found.reason,
            hint=found.hint,
            retryable=True,
            permanent=found.permanent,
            frames=found.frames,
        )
    finally:
        CURRENT_LABEL.reset(within)


def refused_error(call: CallRequest) -> CallError:
    """What the fleet says of a server that takes no requests."""
    return CallError(
        code="F203",
        reason=f"{call.name}: the server refused the connection (simulated)",
        retryable=True,
        server="simulated",
    )


def broken_error(call: CallRequest) -> CallError:
    """What the fleet says of a request that no attempt can mend."""
    return CallError(
        code="F212", reason=f"{call.name}: the server does not know the model (simulated)", server="simulated"
    )


def stalled_error(call: CallRequest) -> CallError:
    """What the fleet says when the time is up."""
    return CallError(
        code="F205",
        reason=f"{call.name}: no answer within {call.timeout or _FOREVER:g} s (simulated)",
        retryable=True,
        server="simulated",
    )


def _to_reply(call: CallRequest, found: Any, seconds: float) -> CallResult | CallError:
    if isinstance(found, CallResult | CallError):
        return found
    sent, received = canonical(call.inputs), canonical(found)
    usage = Usage(seconds=seconds)
    if call.kind == "agent":
        usage = Usage(prompt_tokens=len(sent) // 4 + 1, output_tokens=len(received) // 4 + 1, calls=1, seconds=seconds)
    return CallResult(value=found, usage=usage, server="simulated", model="simulated", sent=sent, received=received)


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
