"""Fault plans: one seeded plan of all faults of one simulated run, and workers that execute their part of it.

The answer to a call depends only on the seed and the call (agent or tool, inputs, feedback, tier). So the outcome of a
run without faults can be computed (`tests.simulation.lab.oracle`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from random import Random
from typing import Any, cast

from orchestra.core.events import Usage
from orchestra.core.labels import Label, is_allowed
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, Clock, TextCallback
from orchestra.schema.strict_json import canonical, digest
from orchestra.testing.fake_workers import broken_error, refused_error, stalled_error
from tests.simulation.lab.catalog import catalog
from tests.simulation.lab.crashes import NO_STORE_FAULTS, STORE_FAULT_CODES, SimulatedProcess, StoreFaults
from tests.simulation.lab.fake_router import plan_line
from tests.simulation.lab.observer import ObservedCall
from tests.simulation.lab.random_workflows import CROWD_SIZE

WORKER_FAULTS = (
    "refused", "broken", "stall", "invalid", "wrong_type", "slow",
    "silent", "usage missing", "usage negative", "usage huge", "cut", "cancels itself",
)  # fmt: skip
"""The faults of a call. `silent`: the worker ends without a reply; `cancels itself`: it ends in a cancellation of its
own; `cut`: the stream ends in an error after some chunks.
"""
PROMPT_OVERHEAD = 8
"""The minimum difference between the bound of a prompt's tokens and their exact count."""
CHUNK_TEXT = "piece 0\npiece 1\npiece 2\n"
"""The text that is streamed before a value."""
MAX_OUTPUT = 40
NO_LARGER_MODEL_SHARE = 0.3
TIER_LISTS: tuple[tuple[str, ...], ...] = ((), ("large",), ("large", "larger"), ("large", "outside", "largest"))
"""The share of calls for which the fleet has no larger model."""
ANSWER_HABITS = ("prompt", "prompt", "slow", "clumsy", "twice", "nobody")
"""How the person answers: at once, or hours later; first wrong, stale and too early; each answer twice; never."""


def seeded_random(seed: int, *parts: object) -> float:
    """Returns a number in [0, 1) for a seed and some parts."""
    return int.from_bytes(blake2b(repr((seed, *parts)).encode(), digest_size=7).digest()) / (1 << 56)


@dataclass(frozen=True, slots=True)
class ProcessLife:
    """The faults of one process: its fatal step, its store's faults, when it is closed, when it loses its lease."""

    fatal_step: int | None = None
    store_faults: StoreFaults = NO_STORE_FAULTS
    closed_after: float | None = None
    """Seconds after which it is closed, like by SIGTERM."""
    fenced_after: float | None = None
    """Seconds after which another process takes its run over while it lives."""


@dataclass(frozen=True, slots=True)
class EarlierRun:
    """An earlier run of the same workflow: the parent of the planned run, or an unrelated one."""

    forked: bool = True
    """Whether the run is a fork of it."""
    text: str = ""
    """Its input; empty for the input of the later run."""
    label: Label = "public"
    """Its minimum label."""
    fault_rates: dict[str, float] = field(default_factory=dict)
    life: ProcessLife = ProcessLife()
    """Its first process. If that does not end the run, another one does after the later run has ended."""
    deletion_times: tuple[float, ...] = ()
    """Times at which ended runs are deleted, and the deletion of active ones is refused."""
    deletes_later_run: bool = False
    """Whether the later run is deleted after its end."""

    @classmethod
    def from_seed(cls, seed: int) -> EarlierRun | None:
        """Returns the earlier run of a seed; most have none."""
        chance = Random(f"elder {seed}")  # reproducible randomness is required
        if chance.random() > 0.24:
            return None
        fate = chance.random()
        life = ProcessLife()
        if fate < 0.3:
            life = ProcessLife(fatal_step=int(2 ** chance.uniform(3, 9)))
        elif fate < 0.45:
            life = ProcessLife(closed_after=chance.uniform(0, 6))
        return cls(
            forked=chance.random() < 0.7,
            text="" if chance.random() < 0.6 else "a bridge of iron",
            label=chance.choice(("public", "public", "public", "restricted")),
            fault_rates=dict.fromkeys(WORKER_FAULTS, 0.016) if chance.random() < 0.5 else {},
            life=life,
            deletion_times=tuple(
                chance.choice((0.0, chance.uniform(0, 4), chance.uniform(0, 60)))
                for _ in range(chance.choice((0, 1, 2, 3)))
            ),
            deletes_later_run=chance.random() < 0.3,
        )


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """The faults of one run. `lives` are its processes in order. After them comes one with worker faults only."""

    seed: int
    fault_rates: dict[str, float] = field(default_factory=dict)
    """The probability of each of `WORKER_FAULTS`."""
    instant_share: float = 0.5
    """The share of calls that return at once."""
    latency: float = 1.0
    """The approximate seconds of the other calls."""
    lives: tuple[ProcessLife, ...] = ()
    habit: str = "prompt"
    cancel: tuple[float, str] | None = None
    """When the run is cancelled, and how: by its `handle`, or by an inbox `message`."""
    clock_jumps: tuple[tuple[float, float], ...] = ()
    """When the wall clock jumps, and by how many seconds."""
    subscribers: tuple[tuple[int, float, int], ...] = ()
    """Subscribers: their first event, their seconds per event, and the number of events after which they leave; 0 for
    none.
    """
    memo: bool = False
    concurrency: int = 64
    earlier: EarlierRun | None = None

    @classmethod
    def from_seed(cls, seed: int) -> FaultPlan:
        """Returns the plan of a seed."""
        chance = Random(f"storm {seed}")  # reproducible randomness is required
        mood = chance.random()
        chances: dict[str, float] = {}
        if mood < 0.75:
            chances = dict.fromkeys(WORKER_FAULTS, 0.016)
        elif mood < 0.9:
            chances = {chance.choice(WORKER_FAULTS): chance.choice((0.2, 0.6)) for _ in range(2)}
            chances = {name: min(share, 0.49) for name, share in chances.items()}
        lives = tuple(_random_life(chance, number) for number in range(chance.choice((0, 1, 1, 1, 2, 2, 3))))
        cancel = (
            chance.choice((0.0, chance.uniform(0, 3), chance.uniform(0, 60))),
            chance.choice(("handle", "message")),
        )
        jumps = [
            (chance.uniform(0, 20), chance.choice((3_600.0, -3_600.0, 40.0, -5.0))) for _ in range(chance.randint(1, 2))
        ]
        readers = [
            (chance.choice((0, 0, 3)), chance.choice((0.0, 0.0, 0.5, 4.0)), chance.choice((0, 0, 2, 9)))
            for _ in range(chance.randint(1, 3))
        ]
        return cls(
            seed=seed,
            fault_rates=chances,
            instant_share=chance.choice((0.0, 0.4, 0.9, 1.0)),
            latency=chance.choice((0.0, 0.5, 2.0, 8.0)),
            lives=lives,
            habit=chance.choice(ANSWER_HABITS),
            cancel=cancel if chance.random() < 0.09 else None,
            clock_jumps=tuple(jumps) if chance.random() < 0.12 else (),
            subscribers=tuple(readers) if chance.random() < 0.3 else (),
            memo=chance.random() < 0.3,
            concurrency=chance.choice((1, 2, 64, 64, 256)),
            earlier=EarlierRun.from_seed(seed),
        )

    @property
    def tiers(self) -> tuple[str, ...]:
        """The larger models of its fleet."""
        return TIER_LISTS[int(seeded_random(self.seed, "tiers") * len(TIER_LISTS))]

    def without_faults(self) -> FaultPlan:
        """Returns the plan of the same run without faults."""
        return replace(
            self, fault_rates={}, lives=(), cancel=None, clock_jumps=(), subscribers=(), habit="prompt", earlier=None
        )

    def for_earlier_run(self, elder: EarlierRun) -> FaultPlan:
        """Returns the plan of the earlier run."""
        return replace(
            self,
            fault_rates=elder.fault_rates,
            lives=(elder.life,),
            cancel=None,
            clock_jumps=(),
            subscribers=(),
            earlier=None,
        )


def _random_life(chance: Random, number: int) -> ProcessLife:
    weather = NO_STORE_FAULTS
    if chance.random() < 0.5:
        fault = chance.choice(tuple(STORE_FAULT_CODES)) if chance.random() < 0.35 else ""
        slow = chance.choice(((0.0, 0.0), (0.0, 0.02), (0.5, 5.0)))
        weather = StoreFaults(fault, int(2 ** chance.uniform(0, 4)), slow, chance.choice((0.0, 0.0, 0.3, 30.0)))
    fate = chance.random()
    # A recovery that dies as well dies early: while it reads, takes the lease and starts.
    fatal = chance.randint(1, 25) if number and chance.random() < 0.5 else int(2 ** chance.uniform(0, 9.5))
    if fate < 0.7:
        return ProcessLife(fatal_step=fatal, store_faults=weather)
    when = chance.choice((0.0, chance.uniform(0, 5), chance.uniform(0, 60)))
    if fate < 0.85:
        return ProcessLife(closed_after=when, store_faults=weather)
    return ProcessLife(fenced_after=when, store_faults=weather)


def refusal_code(seed: int, call: CallRequest) -> str:
    """Returns the code with which the fleet refuses a call to a larger model: there is none, or the label forbids it;
    else an empty string.
    """
    if not call.tier:
        return ""
    share = seeded_random(seed, f"larger {call.tier}" if call.tier > 1 else "larger", call.name, canonical(call.inputs))
    return (
        ""
        if share >= NO_LARGER_MODEL_SHARE
        else "F202"
        if call.tier > 1 or share < NO_LARGER_MODEL_SHARE / 2
        else "F220"
    )


def simulated_answer(seed: int, call: CallRequest) -> Any:
    """Returns the answer of an agent or tool to a call."""
    tier = call.tier if call.tier > 1 else call.is_escalated
    said = canonical([call.name, call.inputs, len(call.feedback), tier, *([call.sample] if call.sample else [])])
    mark = blake2b(said + str(seed).encode(), digest_size=8).digest()
    text = call.inputs.get("text")
    match call.name:
        case "split":
            words = str(text).split()
            return words[: mark[0] % 5]
        case "crowd":
            return [f"w{number}" for number in range(CROWD_SIZE)]
        case "count":
            return len(call.inputs["items"])
        case "join":
            return " ".join(call.inputs["items"])[:60]
        case "shout":
            return str(text).upper()[:60]
        case "grow":
            return ((text or "") + "xy"[mark[0] % 2])[-40:]
        case "judge":
            return ("yes", "no")[mark[0] % 2]
        case "reader":
            return _reader_answer(call, mark)
        case "router":
            return plan_line(call.inputs, mark)
        case "lister":
            return [f"{text} {number}"[-40:] for number in mark[: mark[7] % 6]]
        case "second":
            return _reader_answer(call, mark)["answer"]
        case "entailment":
            return _verifier_answer(mark)
        case "fair":
            return _check_answer(mark)
        case _:
            return f"{call.name} {mark[:2].hex()} {str(text)[: mark[2] % 30]}"


def _check_answer(mark: bytes) -> Any:
    """Returns the answer of a tool to a check: usually yes; no; a score; or nothing."""
    good = None if mark[0] % 9 == 0 else mark[1] % 4 > 0
    return ({"passed": good, "reason": f"said {mark[2]}"}, good, mark[3] / 255)[mark[4] % 3]


def _verifier_answer(mark: bytes) -> dict[str, Any]:
    """Returns the answer of a verifier: usually supported; not supported; or nothing."""
    supported = None if mark[0] % 8 == 0 else mark[1] / 255 if mark[0] % 3 == 0 else 0.5 + mark[1] / 510
    refuted = None if supported is None else (1.0 - supported) * mark[2] / 255
    return {"label": "supported", "p_supported": supported, "p_refute": refuted}


def _reader_answer(call: CallRequest, mark: bytes) -> dict[str, str]:
    """Returns an answer with a quote: true, invented, or irrelevant ones."""
    context = call.inputs["context"]
    true = mark[0] % (5 if call.is_escalated else 3) > 0
    quote = context[: 1 + mark[1] % max(1, len(context))] if true else f"invented {mark[2]}"
    return {"answer": quote.split()[0] if quote.split() and mark[3] % 4 else f"answer {mark[4]}", "quote": quote}


@dataclass(slots=True)
class CallLog:
    """All calls that the outside world saw, in order, and the number of each fault."""

    calls: list[ObservedCall] = field(default_factory=list)
    fault_counts: dict[str, int] = field(default_factory=dict)

    def count_fault(self, fault: str) -> None:
        """Counts a fault."""
        self.fault_counts[fault] = self.fault_counts.get(fault, 0) + 1


class FaultyWorkers:
    """The `Workers` of one process. `position` returns how many events are on disk, and whether the lease is lost."""

    def __init__(
        self,
        plan: FaultPlan,
        log: CallLog,
        process: SimulatedProcess,
        clock: Clock,
        position: Callable[[], tuple[int, bool]],
    ) -> None:
        self._plan, self._log, self._process, self._clock = plan, log, process, clock
        self._position = position
        self.in_flight = 0

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Runs one call."""
        await self._process.step_or_hang()
        seen = ObservedCall(call, *self._position(), process=self._process.number)
        contract = (catalog().agents if call.kind == "agent" else catalog().tools)[call.name]
        if not is_allowed(call.label, contract.label):
            # The fleet's part: the call stops here. The fleet guarantees that; the engine guarantees that the label is
            # right.
            self._log.count_fault("not cleared")
            return CallError(
                code="F202", reason=f"{call.name} must not see {call.label} data", hint="use another agent"
            )
        if code := refusal_code(self._plan.seed, call):
            self._log.count_fault("no larger model" if code == "F220" else "a larger model that is not cleared")
            return CallError(code=code, reason="no such model for this call", hint="escalate: NAME in the fleet file")
        self._log.calls.append(seen)
        self.in_flight += 1
        fault = seen.fault = self._draw_fault(call)
        if fault:
            self._log.count_fault(fault)
        ended = False
        try:
            seen.reply = await self._reply(call, fault, on_text)
            await self._process.step_or_hang()
            ended = True
            return cast("CallResult | CallError", seen.reply)  # the fault `silent` breaks the type
        finally:
            self.in_flight -= 1
            if not ended and fault != "cancels itself":
                seen.cancelled = True

    def _draw_fault(self, call: CallRequest) -> str:
        left = seeded_random(self._plan.seed, "fault", call.run, call.node, call.attempt)
        for name, share in self._plan.fault_rates.items():
            left -= share
            if left < 0:
                return name
        return ""

    async def _reply(
        self, call: CallRequest, fault: str, on_text: TextCallback | None
    ) -> CallResult | CallError | None:
        pace = seeded_random(self._plan.seed, "pace", call.run, call.node, call.attempt)
        seconds = (
            0.0
            if pace < self._plan.instant_share
            else self._plan.latency * (0.2 + 1.6 * seeded_random(self._plan.seed, "time", call.node, call.attempt))
        )
        match fault:
            case "refused":
                return refused_error(call)
            case "stall":
                await self._clock.sleep(call.timeout if call.timeout is not None else 900.0)
                return stalled_error(call)
            case "slow":
                seconds = 1.0 + 10 * seconds
            case _:
                pass
        if call.kind == "agent" and (fault in ("slow", "cut") or pace > 0.8):
            for text in CHUNK_TEXT.splitlines(keepends=True):
                await self._process.step_or_hang()
                if on_text is not None:
                    on_text(text)
                await self._clock.sleep(seconds / 3)
        elif seconds:
            await self._clock.sleep(seconds)
        elif pace > 0.5:
            await asyncio.sleep(0)
        match fault:
            case "silent":
                return None
            case "cancels itself":
                raise asyncio.CancelledError
            case "broken":
                return broken_error(call)
            case "cut" if call.kind == "tool":
                return CallError(code="T003", reason="it raised ValueError (simulated)", retryable=True, permanent=True)
            case "cut":
                return CallError(
                    code="F206",
                    reason="the stream ended in the middle (simulated)",
                    retryable=True,
                    usage=self._usage(call, 3),
                )
            case "invalid":
                return CallError(
                    code="M001", reason="the output is not JSON (simulated)", retryable=True, usage=self._usage(call, 9)
                )
            case "wrong_type":
                return CallResult(value={"unexpected": [True]}, usage=self._usage(call, 9))
            case _:
                return self._to_result(call, fault)

    def _to_result(self, call: CallRequest, fault: str) -> CallResult:
        value = simulated_answer(self._plan.seed, call)
        received = canonical(value)
        usage = self._usage(call, len(received) // 4 + 1)
        match fault:
            case "usage missing":
                usage = Usage()
            case "usage negative":
                usage = Usage(prompt_tokens=-300, output_tokens=-20, calls=1)
            case "usage huge":
                usage = Usage(prompt_tokens=50_000, output_tokens=5_000, calls=1)
            case _:
                pass
        return CallResult(
            value=value,
            usage=usage,
            server="simulated",
            model="simulated",
            sent=canonical(call.inputs),
            received=received,
        )

    @staticmethod
    def _usage(call: CallRequest, output: int) -> Usage:
        if call.kind == "tool":
            return Usage()
        return Usage(
            prompt_tokens=prompt_tokens(call), output_tokens=min(output, call.max_output or MAX_OUTPUT), calls=1
        )

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns a bound above the exact count, and a memo key if the plan has memos."""
        if call.kind == "tool":
            return CallEstimate(
                memo_key=memo_key(call)
                if self._plan.memo and call.name in ("split", "shout", "count", "join", "grow")
                else ""
            )
        key = memo_key(call) if self._plan.memo else ""
        return CallEstimate(
            prompt_tokens=prompt_tokens(call) * 2 + PROMPT_OVERHEAD, max_output=MAX_OUTPUT, min_output=4, memo_key=key
        )

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the exact count for some of the calls."""
        await self._process.step_or_hang()
        share = seeded_random(self._plan.seed, "count", call.node)
        if share > 0.5:
            await self._clock.sleep(0.1)
        return None if share < 0.3 else prompt_tokens(call)


def prompt_tokens(call: CallRequest) -> int:
    """Returns the tokens of a call's prompt."""
    return len(canonical(call.inputs)) // 4 + 1


def memo_key(call: CallRequest) -> str:
    """Returns the memo key of a call."""
    return digest(canonical([call.kind, call.name, call.inputs, len(call.feedback), call.tier, call.sample]))
