"""`Orchestra` objects for tests of workflows, with test implementations of its protocols.

`SimulatedOrchestra` has scripted workers; `CassetteOrchestra` has real ones, recorded or replayed. The pytest plugin
creates them. Without pytest:

    async def scenario(clock: VirtualClock) -> None:
        simulated = SimulatedOrchestra(Settings())
        simulated.set_answers({"reader": {"answer": "1889"}})
        async with simulated.open(clock, seed=7):
            result = await simulated.run(my_workflow, question="…")

    run_simulated(scenario, seed=7)
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from random import Random
from typing import Any, Literal, ParamSpec, TypeAlias, TypeVar

from orchestra.app.inputs import to_jsonable
from orchestra.app.orchestra import Orchestra
from orchestra.app.result import Result
from orchestra.app.run import Run
from orchestra.app.workers import ProjectWorkers
from orchestra.core.clock import SystemClock
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.labels import Label
from orchestra.core.protocols import CallError, CallEstimate, CallRequest, CallResult, Clock, TextCallback, Workers
from orchestra.core.settings import Settings
from orchestra.core.suggestions import closest_match
from orchestra.journal.memory import MemoryJournal
from orchestra.schema.json_schema import format_type
from orchestra.schema.strict_json import canonical, digest
from orchestra.schema.types import Validator
from orchestra.testing.cassette import Player, Recorder
from orchestra.testing.cassette_file import missing_cassette_error
from orchestra.testing.fake_workers import (
    NO_FAULTS,
    AnswerFunction,
    Faults,
    Latency,
    SimulatedWorkers,
    from_schemas,
    run_inline,
)
from orchestra.testing.virtual_clock import VirtualClock
from orchestra.workflows.python.steps import Step

P = ParamSpec("P")
R = TypeVar("R")
CassetteMode: TypeAlias = Literal["record", "replay"]


class _OrchestraHarness:
    """The common part: while it is open, an `Orchestra`, its clock and its journal."""

    clock: Clock
    """The test's clock: `await simulated.clock.sleep(3600)` returns at once."""
    journal: MemoryJournal
    """The events of this test's runs."""
    orchestra: Orchestra
    """The `Orchestra`, for methods other than `run`, `start` and `find`."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.seed = 0
        """The seed of random values, faults and the order of events."""

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, an agent or a tool of the project by name, or a workflow file by path."""
        return self.orchestra.find(name)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end, like `Orchestra.run`."""
        return await self.orchestra.run(step, *args, **inputs)

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Starts a run, like `Orchestra.start`."""
        return await self.orchestra.start(step, *args, **inputs)

    @asynccontextmanager
    async def _open(self, clock: Clock, seed: int, workers: Workers) -> AsyncIterator[Orchestra]:
        self.clock, self.seed, self.journal = clock, seed, MemoryJournal()
        async with Orchestra.open(self.settings, workers=workers, journal=self.journal, clock=clock) as self.orchestra:
            yield self.orchestra


SimulatedAnswers: TypeAlias = AnswerFunction | Mapping[str, Any]
"""One function for all calls, or a table from agents and tools to their values, or to functions of the call."""


class SimulatedOrchestra(_OrchestraHarness):
    """An `Orchestra` with scripted replies of agents and tools. Pure tools without a script run unchanged."""

    workers: SimulatedWorkers
    """The workers with their records: `workers.calls`, `workers.counts["reader"]`, `workers.max_in_flight`,
    `workers.cancelled`.
    """

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.errors: list[OrchestraError] = []
        """Errors that fail the test: calls without a scripted answer."""
        self._answers: dict[str, Any] = {}
        self._answer_function: AnswerFunction | None = None
        self._latency: Latency = 0.0
        self._fault_rates: Faults = NO_FAULTS

    def set_answers(
        self, answers: SimulatedAnswers, *, latency: Latency | None = None, faults: Faults | None = None
    ) -> None:
        """Sets the answers, the latency and the faults of agents and tools.

        A table is merged with earlier ones; a function replaces everything. Values may be JSON, pydantic models,
        `CallResult` or `CallError`. They are valid for this seed of the test, or for all seeds if a fixture sets them.
        """
        if isinstance(answers, Mapping):
            self._answers = {**self._answers, **answers}
        else:
            self._answers, self._answer_function = {}, answers
        self._latency = self._latency if latency is None else latency
        self._fault_rates = self._fault_rates if faults is None else faults

    def set_random_answers(self, *, latency: Latency | None = None, faults: Faults | None = None) -> None:
        """Answers with seeded random values of each agent's and tool's output type. Answers of `set_answers` take
        precedence.
        """
        self._answer_function = lambda call: from_schemas(self.orchestra.registry.catalog(), self.seed)(call)
        self.set_answers({}, latency=latency, faults=faults)

    @asynccontextmanager
    async def open(self, clock: VirtualClock, seed: int = 0) -> AsyncIterator[None]:
        """Opens it with one seed. Afterwards the earlier script is restored."""
        options = self._answers, self._answer_function, self._latency, self._fault_rates
        self.errors = []
        self.workers = SimulatedWorkers(
            self._answer_call, seed=seed, clock=clock, latency=self._seconds, faults=_CurrentFaults(self)
        )
        try:
            async with self._open(clock, seed, self.workers):
                yield
        finally:
            self._answers, self._answer_function, self._latency, self._fault_rates = options

    async def _answer_call(self, call: CallRequest) -> Any:
        if call.name in self._answers:
            answer = self._answers[call.name]
            answer = answer(call) if callable(answer) else answer
        elif self._answer_function is not None:
            answer = self._answer_function(call)
        elif (
            (tool := self.orchestra.registry.tools.get(call.name)) is not None
            and call.kind == "tool"
            and tool.contract.effect == "pure"
        ):
            answer = run_inline(tool, call)
        else:
            self.errors.append(_missing_answer_error(call, self._answers))
            return CallError(code=self.errors[-1].code, reason=self.errors[-1].message, hint=self.errors[-1].hint)
        if isinstance(answer, Awaitable):
            answer = await answer
        return answer if isinstance(answer, CallResult | CallError) else self._checked_answer(call, to_jsonable(answer))

    def _checked_answer(self, call: CallRequest, value: Any) -> Any:
        """Returns an answer of the test. Raises E009 if it is not of the callee's type, so that the error is not
        searched in a worker.
        """
        registry = self.orchestra.registry
        tool = registry.tools.get(call.name) if call.kind == "tool" else None
        contract = tool.contract if tool is not None else registry.agents.get(call.name)
        if (
            contract is None
            or contract.tool_use is not None
            or (call.version and contract.digest and call.version != contract.digest)
        ):
            return value  # an agent with tools is called with types of its own
        if (fault := Validator(contract.output).check(value)) is None:
            return value
        reason = f"the simulated answer for {call.name} is of another type: {fault}"
        return CallError(
            code="E009",
            reason=reason,
            hint=f"{call.name} gives {format_type(contract.output)}: correct the test's answer",
        )

    def _seconds(self, call: CallRequest, random: Random) -> float:
        match self._latency:
            case (low, high):
                return random.uniform(low, high)
            case float() | int() as constant:
                return constant
            case function:
                return function(call, random)

    def draw_fault(self, call: CallRequest, random: Random) -> str:
        """Returns the fault of an attempt, according to the current script."""
        return self._fault_rates.draw(call, random)


class _CurrentFaults(Faults):
    """The current faults of a simulation at the time of a call."""

    __slots__ = ("_stage",)

    def __init__(self, stage: SimulatedOrchestra) -> None:
        super().__init__()
        object.__setattr__(self, "_stage", stage)

    def draw(self, call: CallRequest, random: Random) -> str:
        """Draws the fault of a call from the current faults."""
        stage: SimulatedOrchestra = object.__getattribute__(self, "_stage")
        return stage.draw_fault(call, random)


def _missing_answer_error(call: CallRequest, table: Mapping[str, Any]) -> InputError:
    answers_text = f"it has answers for {', '.join(sorted(table))}" if table else "it has no answers"
    near = closest_match(call.name, table)
    hint = f"simulated.set_answers({{{call.name!r}: …}})"
    hint = f"did you mean {hint}, instead of {near!r}?" if near else f"{hint}, or simulated.set_random_answers()"
    return InputError("C035", f"the test has no answer for the {call.kind} {call.name!r}; {answers_text}", hint=hint)


class CassetteOrchestra(_OrchestraHarness):
    """An `Orchestra` with the project's real workers: recorded once (`--record`), and replayed in virtual time
    afterwards.
    """

    def __init__(
        self,
        settings: Settings,
        path: Path,
        mode: CassetteMode,
        *,
        label: Label = "internal",
        real_workers: Workers | None = None,
    ) -> None:
        """`real_workers` are recorded; None means the fleet and the tools of the project."""
        super().__init__(settings)
        self.path, self.mode = path, mode
        self.record_command = ""
        """The command that records the test."""
        self.former_path: Path | None = None
        """The path of its cassette in earlier versions of Orchestra, for the error message."""
        self._label, self._real_workers = label, real_workers
        self._workers: Recorder | Player | None = None
        self._project_workers: ProjectWorkers | None = None

    @property
    def errors(self) -> list[OrchestraError]:
        """Errors that fail the test: calls that were not recorded, or may not be."""
        return self._workers.errors if self._workers is not None else []

    @asynccontextmanager
    async def open(self, clock: VirtualClock | None = None, seed: int = 0) -> AsyncIterator[None]:
        """Opens it with one seed; in real time when it records.

        Raises `CassetteError` if there is nothing to replay.
        """
        if self.mode == "replay":
            if not self.path.exists():
                raise missing_cassette_error(
                    self.path, f"record it: {self.record_command}" if self.record_command else "", self.former_path
                )
            self._workers = Player(
                self.path,
                clock=clock,
                prompt_digest=self._prompt_digest,
                hint=f"if it is meant to: {self.record_command}" if self.record_command else "",
            )
            async with self._open(clock or SystemClock(), seed, self._workers):
                yield
            return
        real = _DeferredWorkers()
        self._workers = Recorder(real, self.path, label=self._label, prompt_digest=self._prompt_digest)
        async with AsyncExitStack() as stack:
            orchestra = await stack.enter_async_context(self._open(SystemClock(), seed, self._workers))
            if self._real_workers is None:
                # The workers need the project object of this Orchestra: Python steps are registered there while they
                # run.
                self._project_workers = await stack.enter_async_context(ProjectWorkers.open(orchestra._project))
            real.workers = self._real_workers or self._project_workers
            yield

    def save(self) -> int:
        """Writes the cassette, if one was recorded, and returns the number of its calls. Raises `CassetteError` C031 or
        C033.
        """
        if not isinstance(self._workers, Recorder):
            return 0
        self._workers.save()
        return len(self._workers.entries)

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Starts a run, after the servers that it needs are up."""
        if self._project_workers is not None:
            await self._project_workers.prepare(self.orchestra.program(step))
        return await self.orchestra.start(step, *args, **inputs)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end, like `Orchestra.run`."""
        if self._project_workers is not None:
            await self._project_workers.prepare(self.orchestra.program(step))
        return await self.orchestra.run(step, *args, **inputs)

    def _prompt_digest(self, call: CallRequest) -> str:
        """Returns a digest of an agent's prompt and output type."""
        card = self.orchestra.registry.cards.get(call.name) if call.kind == "agent" else None
        return digest(canonical([card.template, card.output_schema])) if card is not None else ""


class _DeferredWorkers:
    """Workers that are opened after the `Orchestra` that uses them."""

    workers: Workers | None = None

    def _opened_workers(self) -> Workers:
        if self.workers is None:
            raise RuntimeError("a call came before the workers were open")
        return self.workers

    async def call(self, call: CallRequest, on_text: TextCallback | None = None) -> CallResult | CallError:
        """Forwards a call."""
        return await self._opened_workers().call(call, on_text)

    def estimate(self, call: CallRequest) -> CallEstimate:
        """Returns the workers' estimate."""
        return self._opened_workers().estimate(call)

    async def count_tokens(self, call: CallRequest) -> int | None:
        """Returns the workers' count."""
        return await self._opened_workers().count_tokens(call)
