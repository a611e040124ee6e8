"""Simulated workers: test your own workflow without a model.

    workers = SimulatedWorkers({"reader": {"answer": "1889"}, "search": search_by_hand})
    workers = SimulatedWorkers(lambda call: call.inputs["question"].upper())
    workers = SimulatedWorkers({"reader": {"answer": "1889"}}, tools=[search, cite])
    workers = SimulatedWorkers(catalog, seed=7, latency=(0.1, 2.0), faults=Faults(refused=0.1, stall=0.05))

They stand behind the `Workers` door of the engine. What a call gets (value, latency, fault) depends on the seed and on
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
from orchestra.agents.tools import KEY, ToolFault, ToolFunction, raised
from orchestra.core.clock import SystemClock
from orchestra.core.errors import InputError
from orchestra.core.events import Usage
from orchestra.core.labels import WITHIN
from orchestra.core.protocols import UNMEASURED, Call, Chunk, Clock, Done, Measure, Refused, Reply
from orchestra.core.suggestions import nearest
from orchestra.fleet.local_workers import WRITTEN_WRONG
from orchestra.schema.strict_json import canonical
from orchestra.testing.schema_samples import instance
from orchestra.workflows.python.steps import Tool

Answer: TypeAlias = Callable[[Call], Any]
"""Gives a call's value, or a `Done` or `Refused` to be passed on as it is; or an awaitable of one of these."""
Script: TypeAlias = Answer | Mapping[str, Any] | Catalog
"""Who answers: one function for all; a table from agent and tool names to functions or plain values; or a catalog, whose
contracts' output schemas are filled at random."""
Latency: TypeAlias = float | tuple[float, float] | Callable[[Call, Random], float]
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
    """A worker that breaks its promise: `Done` with a value of another type."""
    slow: float = 0.0
    """Chunks trickle in over ten times the latency, then the value."""
    attempts: int | None = None
    """Faults hit only attempts up to this one, so that retries succeed in the end; None for all."""

    def __post_init__(self) -> None:
        chances = [getattr(self, name) for name in KINDS]
        if min(chances) < 0 or sum(chances) > 1 + 1e-9:
            raise ValueError(f"probabilities must lie in [0, 1] and sum to at most 1, not {chances}")

    def draw(self, call: Call, random: Random) -> str:
        """The name of the fault that hits this attempt, or an empty text."""
        left = random.random()
        if self.attempts is not None and call.attempt > self.attempts:
            return ""
        for name in KINDS:
            left -= getattr(self, name)
            if left < 0:
                return name
        return ""


KINDS = ("refused", "broken", "stall", "invalid", "wrong_type", "slow")
NO_FAULTS = Faults()


def from_schemas(catalog: Catalog, seed: int = 0) -> Answer:
    """Answers each call with a seeded random value of its contract's output; quotes come from the call's own evidence."""

    def answer(call: Call) -> Any:
        contracts: Mapping[str, Contract] = catalog.agents if call.kind == "agent" else catalog.tools
        texts = [source.text for source in call.evidence] or [value for value in call.inputs.values() if isinstance(value, str)]
        return instance(contracts[call.name].output, chance(seed, call, "value"), texts)

    return answer


def in_turn(*answers: Any) -> Answer:
    """Answers a node's first attempt with the first value or reply, the second with the second, and so on; the last one stays.

    A reply is a `Done`, or a `Refused` for a call that fails. Each turn of a loop, and each element of a list, is a node of its own, and
    begins with the first value: for one after the other, whatever node asks, give `lambda call: next(values)` of an iterator.
    """

    def answer(call: Call) -> Any:
        found = answers[min(call.attempt, len(answers)) - 1]
        return found(call) if callable(found) else found

    return answer


def chance(seed: int, call: Call, purpose: str) -> Random:
    """The chance of one attempt: the same for the same seed, node, attempt and inputs, whatever else happens."""
    return Random(f"{seed}|{purpose}|{call.name}|{call.node}|{call.attempt}|{canonical(call.inputs).decode()}")  # noqa: S311  # not a secret


class SimulatedWorkers:
    """Stands behind the `Workers` door and does what a script says.

    `calls` are all calls in order of arrival, `counts` their number by agent or tool, `in_flight` those that run now,
    `most` how many ran at once at most, `cancelled` those whose caller went away, `struck` how often each fault hit.
    """

    def __init__(
        self,
        script: Script,
        *,
        seed: int = 0,
        clock: Clock | None = None,
        latency: Latency = 0.0,
        faults: Faults = NO_FAULTS,
        chunks: int = 0,
        tools: Iterable[Tool[..., Any]] = (),
    ) -> None:
        """`chunks` is the number of pieces in which an agent's text arrives before its value. `tools` run as they are, on the loop itself,
        where a table says nothing of them.
        """
        self._answer = _answerer(script, seed, {tool.name: ToolFunction(tool.contract, tool.function) for tool in tools})
        self._seed, self._latency, self._faults, self._chunks = seed, latency, faults, chunks
        self._clock: Clock = clock or SystemClock()
        self.calls: list[Call] = []
        self.counts: Counter[str] = Counter()
        self.cancelled: list[Call] = []
        self.struck: Counter[str] = Counter()
        self.in_flight: dict[int, Call] = {}
        self.most = 0

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Does one call; closing the iterator early, or cancelling who reads it, is recorded in `cancelled`."""
        number = len(self.calls)
        self.calls.append(call)
        self.counts[call.name] += 1
        self.in_flight[number] = call
        self.most = max(self.most, len(self.in_flight))
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

    def measure(self, call: Call) -> Measure:
        """What a call may cost, and its memo key."""
        return UNMEASURED

    async def count(self, call: Call) -> int | None:
        """The tokens of a call's prompt."""
        return None

    async def _replies(self, call: Call) -> AsyncGenerator[Reply, None]:
        fault = "" if self._faults is NO_FAULTS else self._faults.draw(call, chance(self._seed, call, "fault"))
        if fault:
            self.struck[fault] += 1
        seconds = self._seconds(call)
        match fault:
            case "refused":
                yield refused(call)
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
            yield broken(call)
            return
        found = self._answer(call)
        reply = _reply(call, await found if isinstance(found, Awaitable) else found, seconds)
        if isinstance(reply, Done):
            reply = _spoil(reply, fault)
        for piece in _pieces(reply, pieces):
            yield Chunk(piece)
            await self._clock.sleep(seconds / (pieces + 1))
        yield reply

    def _seconds(self, call: Call) -> float:
        match self._latency:
            case (low, high):
                return chance(self._seed, call, "latency").uniform(low, high)
            case float() | int() as constant:
                return constant
            case function:
                return function(call, chance(self._seed, call, "latency"))

    async def _stall(self, call: Call) -> Refused:
        await self._clock.sleep(_FOREVER if call.timeout is None else call.timeout)
        return stalled(call)


def _answerer(script: Script, seed: int, tools: Mapping[str, ToolFunction]) -> Answer:
    if isinstance(script, Catalog):
        script = from_schemas(script, seed)
    table: Mapping[str, Any] = script if isinstance(script, Mapping) else {}
    others = None if isinstance(script, Mapping) else script

    def answer(call: Call) -> Any:
        if call.name in table:
            found = table[call.name]
            return found(call) if callable(found) else found
        if call.kind == "tool" and call.name in tools:
            return in_place(tools[call.name], call)
        if others is None:
            raise _unanswered(call, {*table, *tools})
        return others(call)

    return answer


def _unanswered(call: Call, known: Iterable[str]) -> InputError:
    near = nearest(call.name, known)
    hint = f"SimulatedWorkers({{{call.name!r}: …}})" + (f", or let it run as it is: tools=[{call.name}]" if call.kind == "tool" else "")
    hint = f"did you mean {near!r}? {hint}" if near else hint
    said = f"the script has no answer for the {call.kind} {call.name!r}; it knows {', '.join(sorted(known)) or 'nobody'}"
    return InputError("C035", said, hint=hint)


async def in_place(tool: ToolFunction, call: Call) -> Any:
    """What a tool gives, computed on the loop itself: there are no threads in virtual time."""
    within = WITHIN.set(call.label)
    try:
        if tool.awaited:
            return await tool.call(call.inputs, call.label, call.key)
        tool.admit(call.label)
        key = {KEY: call.key} if tool.contract.effect == "keyed" else {}
        value = tool.function(**tool.arguments(call.inputs), **key)
        return tool.result(await value if inspect.isawaitable(value) else value)
    except ToolFault as fault:
        return Refused(code=fault.code, reason=fault.reason, hint=fault.hint, retryable=fault.code not in WRITTEN_WRONG)
    except (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # noqa: BLE001 - a user's function may raise anything; the run gets it as a failed attempt, as in production
        found = raised(call.name, error)
        return Refused(code=found.code, reason=found.reason, hint=found.hint, retryable=True, lasting=found.lasting, frames=found.frames)
    finally:
        WITHIN.reset(within)


def refused(call: Call) -> Refused:
    """What the fleet says of a server that takes no requests."""
    return Refused(code="F203", reason=f"{call.name}: the server refused the connection (simulated)", retryable=True, server="simulated")


def broken(call: Call) -> Refused:
    """What the fleet says of a request that no attempt can mend."""
    return Refused(code="F212", reason=f"{call.name}: the server does not know the model (simulated)", server="simulated")


def stalled(call: Call) -> Refused:
    """What the fleet says when the time is up."""
    return Refused(
        code="F205", reason=f"{call.name}: no answer within {call.timeout or _FOREVER:g} s (simulated)", retryable=True, server="simulated"
    )


def _reply(call: Call, found: Any, seconds: float) -> Done | Refused:
    if isinstance(found, Done | Refused):
        return found
    sent, received = canonical(call.inputs), canonical(found)
    usage = Usage(seconds=seconds)
    if call.kind == "agent":
        usage = Usage(prompt_tokens=len(sent) // 4 + 1, output_tokens=len(received) // 4 + 1, calls=1, seconds=seconds)
    return Done(value=found, usage=usage, server="simulated", model="simulated", sent=sent, received=received)


def _spoil(reply: Done, fault: str) -> Done | Refused:
    if fault == "invalid":
        return Refused(
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
        wrong = {"unexpected": [True]} if isinstance(reply.value, str | int | float | list) or reply.value is None else 17
        return Done(value=wrong, usage=reply.usage, server=reply.server, model=reply.model, sent=reply.sent, received=canonical(wrong))
    return reply


def _pieces(reply: Done | Refused, count: int) -> list[str]:
    if not count or not isinstance(reply, Done):
        return []
    text = reply.value if isinstance(reply.value, str) else reply.received.decode()
    size = -(-len(text) // count)
    return [text[start : start + size] for start in range(0, len(text), max(1, size))]
