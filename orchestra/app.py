"""The composition root: `Orchestra` puts registry, journal, workers and engine together. Only this module knows them all."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, ParamSpec

from typing_extensions import TypeVar

from orchestra.clock import SystemClock
from orchestra.config import Settings
from orchestra.engine.kinds.acceptance import sources
from orchestra.engine.run import Run as Execution
from orchestra.engine.shell import Engine
from orchestra.errors import InputError
from orchestra.inputs import bound, jsonable
from orchestra.log import observer
from orchestra.project import Project
from orchestra.result import Result, result_of
from orchestra.values.json import canonical, digest
from orchestra.values.labels import Label
from orchestra.verify import acceptance
from orchestra.verify.acceptance import Ruling, Situation
from orchestra.workers import FleetMode, Troupe
from orchestra.workflow.nodes import Budget
from orchestra.workflow.steps import Step

if TYPE_CHECKING:
    from orchestra.agent.registry import Registry
    from orchestra.doors import Clock, Journal, Workers
    from orchestra.events import Event, RunFinished
    from orchestra.fleet.progress import Progress
    from orchestra.workflow.program import Program

P = ParamSpec("P")
R = TypeVar("R", default=Any)

__all__ = ["FleetMode", "Options", "Orchestra", "Result", "Run"]


@dataclasses.dataclass(frozen=True, slots=True)
class Options:
    """What a run may be told beside its inputs."""

    idempotency_key: str = ""
    budget: Budget | None = None
    label: Label = "internal"


class Run(Generic[R]):
    """A run under way: await it for its result, iterate it for its events, cancel it.

    Leaving it alone does not end it; closing the `Orchestra` does.
    """

    def __init__(self, execution: Execution, read: Callable[[Any], Any]) -> None:
        self._execution, self._read = execution, read

    @property
    def id(self) -> str:
        """What `orchestra runs show` takes."""
        return self._execution.id

    def __await__(self) -> Generator[Any, None, Result[R]]:
        return self._demand().__await__()

    async def _demand(self) -> Result[R]:
        result = await self.wait()
        if result.status in ("failed", "budget", "cancelled") and result.error is not None:
            raise result.error
        return result

    async def wait(self) -> Result[R]:
        """The result, however the run ended. Raises only what broke the engine or the journal. Cancelling the wait leaves the run."""
        return self._result(await self._execution.wait())

    def _result(self, finished: RunFinished) -> Result[R]:
        return result_of(finished, self._execution.log, self.id, self._read)

    def __aiter__(self) -> AsyncIterator[Event]:
        return self.events()

    def events(self, after: int = 0) -> AsyncGenerator[Event, None]:
        """The events with `seq > after` as they get durable, to the last one."""
        return self._execution.events(after)

    def cancel(self, by: str = "") -> None:
        """Asks the run to end: requests in flight are closed, what has finished stays. Idempotent."""
        self._execution.cancel(by)


class Orchestra:
    """A fleet, a journal and an engine, open for work. `Orchestra.open` makes one; any number may live in one process."""

    def __init__(self, project: Project, engine: Engine, troupe: Troupe | None, options: Options = Options()) -> None:
        self.settings = project.settings
        self.journal = engine.journal
        self._project, self._engine, self._troupe, self._options = project, engine, troupe, options

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        config: str | Path | Settings | None = None,
        *,
        fleet: FleetMode = "start",
        workers: Workers | None = None,
        journal: Journal | None = None,
        clock: Clock | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Orchestra]:
        """An open `Orchestra`.

        `config` is a fleet (the name of a file in `configs/`, or a path) or whole `Settings`; without it the project's and
        the user's configuration hold. `fleet` says what to do about local servers: `start` adopts or starts a supervisor
        at the first call that needs one, `adopt` only adopts, `none` uses endpoints alone. `workers` stands in for fleet
        and tools (a simulation). `progress` hears of downloads and of servers that start.

        Leaving it ends its runs and closes journal and connections; the fleet's supervisor stays until it is idle.
        Raises `InputError` for faults of configuration, cards and modules.
        """
        settings = config if isinstance(config, Settings) else Settings.load({"fleet": None if config is None else str(config)})
        project = Project.load(settings)
        async with AsyncExitStack() as stack:
            if journal is None:
                journal = await stack.enter_async_context(_journal(settings))
            troupe: Troupe | None = None
            if workers is None:
                workers = troupe = await stack.enter_async_context(Troupe.open(project, mode=fleet, progress=progress))
            engine = Engine(clock or SystemClock(), journal, workers, concurrency=settings.concurrency, observe=observer(settings.log))
            stack.push_async_callback(engine.close)
            yield cls(project, engine, troupe)

    @property
    def registry(self) -> Registry:
        """The agents and tools that are known by name."""
        return self._project.registry

    def options(self, *, idempotency_key: str = "", budget: Budget | None = None, label: Label | None = None) -> Orchestra:
        """The same `Orchestra`, whose runs have these options. A run with a key that is there already is not started again."""
        chosen = Options(idempotency_key, budget or self._options.budget, label or self._options.label)
        return Orchestra(self._project, self._engine, self._troupe, chosen)

    def find(self, name: str, /) -> Step[..., Any]:
        """A workflow, an agent or a tool by name, or a workflow file by path. Raises `InputError` with the nearest name."""
        return self._project.find(name)

    def program(self, step: Step[..., Any], /) -> Program:
        """A step as the engine runs it. Raises `InputError`, or `InputErrors`, where it does not compile."""
        return self._project.program(step)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end; being cancelled cancels the run.

        Raises `InputError` before anything starts, `RunFailed` or `BudgetExceeded` for a run without an output. A run that
        abstained gives its result; `result.output` raises `Abstained`.
        """
        run = await self.start(step, *args, **inputs)
        try:
            return await run
        except asyncio.CancelledError:
            run.cancel("its caller")
            raise

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Begins a run, once its inputs are checked and the servers that it will ask are up. Raises `InputError` and `FleetError`."""
        program = self._project.program(step)
        given = bound(program, args, inputs)
        if self._troupe is not None:
            await self._troupe.prepare(program)
        options = self._options
        if options.budget is not None:
            program = dataclasses.replace(program, budget=options.budget)
        source = b"" if program.graph is None else canonical(program.graph.model_dump(mode="json", by_alias=True, exclude_defaults=True))
        graph = self.journal.put(source)
        if options.idempotency_key:
            return Run(await self._once(program, given, graph), step.read)
        return Run(self._engine.start(program, given, graph=graph, label=options.label), step.read)

    async def _once(self, program: Program, given: Mapping[str, Any], graph: str) -> Execution:
        """The run that has the key, else a new one. Raises `InputError` E014 or E015."""
        key = self._options.idempotency_key
        name = f"k{digest(key.encode())[:19]}"
        execution = self._engine.running(name)
        if execution is None:
            events = await self.journal.read(name)
            if not events:
                return self._engine.start(program, given, graph=graph, label=self._options.label, run=name)
            execution = Execution(name, self.journal, events)
            if execution.finished is None:
                raise InputError(
                    "E014", f"the run with the key {key!r} was interrupted", hint=f"orchestra runs show {name}; or use another key"
                )
        if execution.of != (graph, given):
            raise InputError(
                "E015",
                f"the key {key!r} belongs to a run of other inputs or another workflow",
                hint="use a key of its own for each request",
            )
        return execution

    async def check(self, answer: Any, *, against: Any, checks: Iterable[str] = ("quote",), accept: float = 0.5) -> Ruling:
        """What the checks say of an answer: a text, or a model with fields of type `Quote`. No workflow, and no journal."""
        from orchestra.values.types import schema_of

        schema = {"type": "string", "format": "quote"} if isinstance(answer, str) else schema_of(type(answer), "serialization")
        evidence = sources(jsonable(against))
        return acceptance.start(Situation(value=jsonable(answer), schema=schema, evidence=evidence, checks=tuple(checks), accept=accept))

    async def fleet_status(self) -> dict[str, Any]:
        """What is known of the servers; `{"running": False}` where none are used."""
        return await self._troupe.status() if self._troupe is not None else {"running": False, "servers": []}


@asynccontextmanager
async def _journal(settings: Settings) -> AsyncIterator[Journal]:
    if settings.journal == "off":
        from orchestra.journal.memory import MemoryJournal

        yield MemoryJournal()
        return
    from orchestra.journal.sqlite import SqliteJournal

    async with SqliteJournal.open(settings.journal, durability=settings.durability) as journal:
        yield journal
