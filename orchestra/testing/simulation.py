"""Stages for tests of workflows: an open `Orchestra` with everything behind its doors made for the test.

`Simulated` has workers that do what the test says; `Taped` has real ones, recorded or replayed. The pytest plugin makes them;
without pytest:

    async def scenario(clock: VirtualClock) -> None:
        simulated = Simulated(Settings())
        simulated.answers({"reader": {"answer": "1889"}})
        async with simulated.opened(clock, seed=7):
            result = await simulated.run(my_workflow, question="…")

    run_simulated(scenario, seed=7)
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

from orchestra.app.inputs import jsonable
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.workers import Troupe
from orchestra.core.clock import SystemClock
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.labels import Label
from orchestra.core.protocols import Call, Clock, Done, Measure, Refused, Reply, Workers
from orchestra.core.settings import Settings
from orchestra.core.suggestions import nearest
from orchestra.journal.memory import MemoryJournal
from orchestra.schema.json_schema import show
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator
from orchestra.testing.cassette import Player, Recorder
from orchestra.testing.cassette_file import missing
from orchestra.testing.fake_workers import NO_FAULTS, Answer, Faults, Latency, SimulatedWorkers, from_schemas, in_place
from orchestra.testing.virtual_clock import VirtualClock
from orchestra.workflows.python.steps import Step

P = ParamSpec("P")
R = TypeVar("R")
Mode: TypeAlias = Literal["record", "replay"]


class _Stage:
    """What both stages have: while it is opened, an `Orchestra`, its clock and its journal."""

    clock: Clock
    """The test's time: `await simulated.clock.sleep(3600)` takes no time at all."""
    journal: MemoryJournal
    """What happened in the runs of this test."""
    orchestra: Orchestra
    """The `Orchestra` itself, for what `run`, `start` and `find` do not do."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seed = 0
        """What chance, faults and the order of events are made of."""

    def find(self, name: str, /) -> Step[..., Any]:
        """A workflow, an agent or a tool of the project by name, or a workflow file by path."""
        return self.orchestra.find(name)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end, as `Orchestra.run` does."""
        return await self.orchestra.run(step, *args, **inputs)

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Begins a run, as `Orchestra.start` does."""
        return await self.orchestra.start(step, *args, **inputs)

    @asynccontextmanager
    async def _open(self, clock: Clock, seed: int, workers: Workers) -> AsyncIterator[Orchestra]:
        self.clock, self.seed, self.journal = clock, seed, MemoryJournal()
        async with Orchestra.open(self.settings, workers=workers, journal=self.journal, clock=clock) as self.orchestra:
            yield self.orchestra


Script: TypeAlias = Answer | Mapping[str, Any]
"""One function for all calls, or a table from agents and tools to their values, or to functions of the call."""


class Simulated(_Stage):
    """A stage whose agents and tools do what the test says. Pure tools that it says nothing of run as they are."""

    workers: SimulatedWorkers
    """What was asked: `workers.calls`, `workers.counts["reader"]`, `workers.most`, `workers.cancelled`."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.faults: list[OrchestraError] = []
        """What the test must not pass over: calls that the script has no answer for."""
        self._table: dict[str, Any] = {}
        self._answer: Answer | None = None
        self._latency: Latency = 0.0
        self._struck: Faults = NO_FAULTS

    def answers(self, script: Script, *, latency: Latency | None = None, faults: Faults | None = None) -> None:
        """Says what agents and tools answer, how long they take, and which faults hit them.

        A table is added to what was said before; a function takes the place of everything. Values may be JSON, pydantic models,
        `Done` or `Refused`. Valid for this seed of the test, or for all of them where a fixture says it.
        """
        if isinstance(script, Mapping):
            self._table = {**self._table, **script}
        else:
            self._table, self._answer = {}, script
        self._latency = self._latency if latency is None else latency
        self._struck = self._struck if faults is None else faults

    def answers_anything(self, *, latency: Latency | None = None, faults: Faults | None = None) -> None:
        """Seeded random values of each agent's and tool's own output type; what `answers` says of one still holds."""
        self._answer = lambda call: from_schemas(self.orchestra.registry.catalog(), self.seed)(call)
        self.answers({}, latency=latency, faults=faults)

    @asynccontextmanager
    async def opened(self, clock: VirtualClock, seed: int = 0) -> AsyncIterator[None]:
        """The stage under one seed; afterwards it says again what it said before."""
        said = self._table, self._answer, self._latency, self._struck
        self.faults = []
        self.workers = SimulatedWorkers(self._reply, seed=seed, clock=clock, latency=self._seconds, faults=_Now(self))
        try:
            async with self._open(clock, seed, self.workers):
                yield
        finally:
            self._table, self._answer, self._latency, self._struck = said

    async def _reply(self, call: Call) -> Any:
        if call.name in self._table:
            found = self._table[call.name]
            found = found(call) if callable(found) else found
        elif self._answer is not None:
            found = self._answer(call)
        elif (tool := self.orchestra.registry.tools.get(call.name)) is not None and call.kind == "tool" and tool.contract.effect == "pure":
            found = in_place(tool, call)
        else:
            self.faults.append(_unanswered(call, self._table))
            return Refused(code=self.faults[-1].code, reason=self.faults[-1].message, hint=self.faults[-1].hint)
        if isinstance(found, Awaitable):
            found = await found
        return found if isinstance(found, Done | Refused) else self._typed(call, jsonable(found))

    def _typed(self, call: Call, value: Any) -> Any:
        """An answer of the test; E009 where it is not of the type of who is asked, so that nobody looks for the fault in a worker."""
        registry = self.orchestra.registry
        tool = registry.tools.get(call.name) if call.kind == "tool" else None
        contract = tool.contract if tool is not None else registry.agents.get(call.name)
        if contract is None or contract.kit is not None or (call.version and contract.digest and call.version != contract.digest):
            return value  # an agent with tools is asked in ways that have types of their own
        if (fault := Validator(contract.output).check(value)) is None:
            return value
        reason = f"the simulated answer for {call.name} is of another type: {fault}"
        return Refused(code="E009", reason=reason, hint=f"{call.name} gives {show(contract.output)}: mend the test's answer")

    def _seconds(self, call: Call, random: Random) -> float:
        match self._latency:
            case (low, high):
                return random.uniform(low, high)
            case float() | int() as constant:
                return constant
            case function:
                return function(call, random)

    def strike(self, call: Call, random: Random) -> str:
        """The fault that hits an attempt, as the test says at the moment."""
        return self._struck.draw(call, random)


class _Now(Faults):
    """The faults that a stage says at the moment of a call."""

    __slots__ = ("_stage",)

    def __init__(self, stage: Simulated) -> None:
        super().__init__()
        object.__setattr__(self, "_stage", stage)

    def draw(self, call: Call, random: Random) -> str:
        stage: Simulated = object.__getattribute__(self, "_stage")
        return stage.strike(call, random)


def _unanswered(call: Call, table: Mapping[str, Any]) -> InputError:
    known = f"it answers for {', '.join(sorted(table))}" if table else "it answers for nobody"
    near = nearest(call.name, table)
    hint = f"simulated.answers({{{call.name!r}: …}})"
    hint = f"did you mean {hint}, where it says {near!r}?" if near else f"{hint}, or simulated.answers_anything()"
    return InputError("C035", f"the test has no answer for the {call.kind} {call.name!r}; {known}", hint=hint)


class Taped(_Stage):
    """A stage with the project's real workers: recorded once (`--record`), and replayed in virtual time ever after."""

    def __init__(self, settings: Settings, path: Path, mode: Mode, *, label: Label = "internal", real: Workers | None = None) -> None:
        """`real` are the workers that are recorded; the fleet and the tools of the project where it is None."""
        super().__init__(settings)
        self.path, self.mode = path, mode
        self.again = ""
        """The command that records the test."""
        self.formerly: Path | None = None
        """Where its cassette lay in earlier versions of Orchestra: who has only that one is told so."""
        self._label, self._real = label, real
        self._tape: Recorder | Player | None = None
        self._troupe: Troupe | None = None

    @property
    def faults(self) -> list[OrchestraError]:
        """What the test must not pass over: calls that were not recorded, or must not be."""
        return self._tape.faults if self._tape is not None else []

    @asynccontextmanager
    async def opened(self, clock: VirtualClock | None = None, seed: int = 0) -> AsyncIterator[None]:
        """The stage under one seed; in real time where it records. Raises `CassetteError` where there is nothing to replay."""
        if self.mode == "replay":
            if not self.path.exists():
                raise missing(self.path, f"record it: {self.again}" if self.again else "", self.formerly)
            self._tape = Player(self.path, clock=clock, prompts=self._prompt, hint=f"if it is meant to: {self.again}" if self.again else "")
            async with self._open(clock or SystemClock(), seed, self._tape):
                yield
            return
        real = _Later()
        self._tape = Recorder(real, self.path, label=self._label, prompts=self._prompt)
        async with AsyncExitStack() as stack:
            orchestra = await stack.enter_async_context(self._open(SystemClock(), seed, self._tape))
            if self._real is None:
                # The troupe has to know the very project of this Orchestra, which learns of Python steps as they are run.
                self._troupe = await stack.enter_async_context(Troupe.open(orchestra._project))
            real.workers = self._real or self._troupe
            yield

    def save(self) -> int:
        """Writes the cassette, where one was recorded, and gives the number of its calls. Raises `CassetteError` C031 or C033."""
        if not isinstance(self._tape, Recorder):
            return 0
        self._tape.save()
        return len(self._tape.entries)

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Begins a run, once the servers that it will ask are up."""
        if self._troupe is not None:
            await self._troupe.prepare(self.orchestra.program(step))
        return await self.orchestra.start(step, *args, **inputs)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end, as `Orchestra.run` does."""
        if self._troupe is not None:
            await self._troupe.prepare(self.orchestra.program(step))
        return await self.orchestra.run(step, *args, **inputs)

    def _prompt(self, call: Call) -> str:
        """A digest of an agent's prompt and output type."""
        card = self.orchestra.registry.cards.get(call.name) if call.kind == "agent" else None
        return digest(canonical([card.template, card.output_schema])) if card is not None else ""


class _Later:
    """Workers that are opened after the `Orchestra` that asks them."""

    workers: Workers | None = None

    def _them(self) -> Workers:
        if self.workers is None:
            raise RuntimeError("a call came before the workers were there")
        return self.workers

    async def run(self, call: Call) -> AsyncGenerator[Reply, None]:
        """Passes a call on."""
        async with aclosing(self._them().run(call)) as replies:
            async for reply in replies:
                yield reply

    def measure(self, call: Call) -> Measure:
        """What the workers say."""
        return self._them().measure(call)

    async def count(self, call: Call) -> int | None:
        """What the workers say."""
        return await self._them().count(call)
