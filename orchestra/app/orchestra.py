"""The composition root: `Orchestra` connects registry, journal, workers and engine. No other module imports all of
them.

`Orchestra.open` imports the parts: a module that only defines steps needs none of them.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Callable,
    Collection,
    Coroutine,
    Generator,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import AbstractContextManager, AsyncExitStack, closing
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, Unpack, overload

import msgspec
from typing_extensions import TypeVar

from orchestra.app.inputs import (
    answer_error,
    bind_arguments,
    find_question,
    open_questions,
    question_number,
    run_not_found,
    send_answer,
    to_jsonable,
    unanswered_questions,
)
from orchestra.app.result import Result, identity
from orchestra.app.run import Fork, Run
from orchestra.app.snapshot_store import (
    apply_plan_limits,
    get_snapshot,
    plan_limit_options,
    restore_program,
    stored_accept,
)
from orchestra.core.clock import SystemClock
from orchestra.core.error_codes import LEASE_HELD, RUN_ENDED
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import HistoryObserver, Observer, create_observer
from orchestra.core.events import QuestionAsked, RunFinished, RunStarted, last_read_message
from orchestra.core.labels import CURRENT_LABEL, Label, join
from orchestra.core.lifecycle import LoopAffinity, opening_context
from orchestra.core.protocols import InboxMessage
from orchestra.core.settings import Settings
from orchestra.engine.request import DEFAULT_OPTIONS, PLANNING_PURPOSE, OptionChanges, RunOptions, RunRequest
from orchestra.engine.run import Execution
from orchestra.workflows.program import Program, stop_at_plan
from orchestra.workflows.python.steps import Step

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry
    from orchestra.app.blocking_thread import BlockingThread
    from orchestra.app.costs import CostKey, CostReport, TimeSpec
    from orchestra.app.loop_thread import LoopThread
    from orchestra.app.notebook_progress import NotebookProgress
    from orchestra.app.planning import PlanOptions
    from orchestra.app.project import Project
    from orchestra.app.run_status import RunStatus, RunView
    from orchestra.app.threads import Thread
    from orchestra.app.whatif import WhatifResult
    from orchestra.app.workers import FleetMode, ProjectWorkers
    from orchestra.app.workflow_view import WorkflowView
    from orchestra.core.events import Event
    from orchestra.core.protocols import Clock, Journal, RunSummary, Workers
    from orchestra.core.tags import Tags
    from orchestra.engine.engine import Engine, EngineActivity
    from orchestra.engine.replay import ReplayResult
    from orchestra.engine.streaming import TextPiece
    from orchestra.fleet.progress import Progress
    from orchestra.fleet.status import FleetStatus
    from orchestra.telemetry.tracing import RunTracer
    from orchestra.verification.acceptance import VerificationResult
    from orchestra.workflows.model import Budget
    from orchestra.workflows.python.checks import Checks

P = ParamSpec("P")
R = TypeVar("R", default=Any)
T = TypeVar("T")

__all__ = ["BlockingOrchestra", "Fork", "Orchestra", "Result", "Run", "RunOptions", "RunRequest"]


class Orchestra:
    """An open fleet, journal and engine. `Orchestra.open` creates one; a process may have several."""

    def __init__(
        self,
        project: Project,
        engine: Engine,
        workers: ProjectWorkers | None,
        affinity: LoopAffinity,
        options: RunOptions = DEFAULT_OPTIONS,
    ) -> None:
        self.settings = project.settings
        self.journal = engine.journal
        self._project, self._engine, self._workers = project, engine, workers
        self._affinity, self._options = affinity, options

    @classmethod
    @opening_context
    async def open(
        cls,
        config: str | Path | Settings | None = None,
        *,
        project: str | Path | None = None,
        fleet: FleetMode = "start",
        workers: Workers | None = None,
        journal: Journal | None = None,
        clock: Clock | None = None,
        progress: Callable[[Progress], None] | None = None,
    ) -> AsyncIterator[Orchestra]:
        """Opens an `Orchestra`. Use it on the event loop that opened it.

        Leaving the context stops its runs and closes journal and connections. The fleet stays until it is idle.

        Args:
            config: A fleet (a name or a path) or complete `Settings`. None for the configuration of project and user.
            project: The folder of `orchestra.toml`. None for `ORCHESTRA_PROJECT`, else the nearest folder upwards.
            fleet: How local servers are used: `start` adopts or starts a supervisor at the first call that needs one,
            `adopt` only adopts, `none` uses endpoints only.
            workers: Replaces fleet and tools, for a simulation.
            journal: Replaces the configured journal.
            clock: Replaces the system clock.
            progress: Called about downloads and starting servers.

        Raises:
            InputError: Invalid configuration, card or module; C045: no project; C046: `project` beside `Settings`.
        """
        from orchestra.app.open_journal import open_journal
        from orchestra.app.project import Project, load_settings
        from orchestra.app.workers import ProjectWorkers
        from orchestra.engine.engine import Engine

        settings = load_settings(config, project)
        loaded_project = Project.load(settings)
        async with AsyncExitStack() as stack:
            if journal is None:
                journal = await stack.enter_async_context(open_journal(settings))
            project_workers: ProjectWorkers | None = None
            if workers is None:
                workers = project_workers = await stack.enter_async_context(
                    ProjectWorkers.open(loaded_project, mode=fleet, progress=progress)
                )
            strict = settings.durability == "strict"
            tracer: RunTracer | None = None
            if settings.otlp != "off":
                from orchestra.telemetry.open_tracer import open_tracer

                tracer = await stack.enter_async_context(open_tracer(settings))
            observe = create_observer(settings.log, form=settings.log_as, reasons=settings.log_reasons, tracer=tracer)
            engine = Engine(
                clock or SystemClock(),
                journal,
                workers,
                concurrency=settings.concurrency,
                strict=strict,
                observe=observe,
                tracer=tracer,
            )
            stack.push_async_callback(engine.close)
            yield cls(loaded_project, engine, project_workers, LoopAffinity())

    @classmethod
    def open_sync(
        cls,
        config: str | Path | Settings | None = None,
        *,
        project: str | Path | None = None,
        fleet: FleetMode = "start",
        workers: Workers | None = None,
        journal: Journal | None = None,
        progress: Callable[[Progress], None] | None = None,
        text: Callable[[TextPiece], None] | None = None,
    ) -> BlockingOrchestra:
        """Opens an `Orchestra` whose methods block, for scripts, notebooks and consoles. It has an event loop of its
        own, in a thread, and works where another loop already runs. `close` closes it; it is a context manager, too.

        In a notebook, `run` shows its progress below the cell, unless `text` is given.

        Args:
            config: As in `open`, and so are `project`, `fleet`, `workers` and `journal`.
            progress: Called about downloads and starting servers, on the thread of the loop.
            text: Called with each piece of text that models write, on the thread that called `run`; not verified
            (`Run.text`).

        Raises:
            InputError: As `open`.
        """
        from orchestra.app.loop_thread import LoopThread
        from orchestra.app.notebook_progress import NotebookProgress

        notebook = NotebookProgress.find()
        if progress is None and notebook is not None:
            progress = notebook.on_fleet
        context = cls.open(config, project=project, fleet=fleet, workers=workers, journal=journal, progress=progress)
        loop = LoopThread()
        return BlockingOrchestra(loop.enter(context), loop, text, notebook)

    @property
    def registry(self) -> Registry:
        """The agents and tools, by name."""
        return self._project.registry

    def options(self, **changes: Unpack[OptionChanges]) -> Orchestra:
        """Returns the same `Orchestra` with other options for its runs.

        What is left out, or None, stays as it is here, the idempotency key too; `idempotency_key=""` removes it.

        Args:
            changes: Options by name. `RunOptions` describes each of them.

        Raises:
            InputError: E040 for invalid tags, V029 for an invalid `accept`.
        """
        return Orchestra(self._project, self._engine, self._workers, self._affinity, self._options.replace(**changes))

    @property
    def label(self) -> Label:
        """The label of the data of its runs, unless their workflow states a stricter one."""
        return join((self._options.label or "internal", CURRENT_LABEL.get()))

    @property
    def has_key(self) -> bool:
        """Whether its runs have an idempotency key. Then a caller that is cancelled does not cancel the run."""
        return bool(self._options.idempotency_key)

    def workflows(self) -> list[str]:
        """Returns the names of all workflows: of the project, and of the package."""
        return self._project.workflow_names()

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, an agent or a tool by name, or a workflow file by path. Raises `InputError`, with the
        nearest name.
        """
        return self._project.find(name)

    def workflow(self, step: Step[..., Any] | str, /) -> WorkflowView:
        """Returns a workflow that shows its graph: as text at a console, drawn in a notebook. Raises as `find` and
        `program` do.
        """
        from orchestra.app.workflow_view import WorkflowView

        return WorkflowView(self.program(self.find(step) if isinstance(step, str) else step))

    def program(self, step: Step[..., Any], /) -> Program:
        """Compiles a step. Raises `InputError` or `InputErrors` if it does not compile."""
        program = self._project.program(step, self._options.accept)
        limit_options = plan_limit_options(
            self._project,
            program,
            self._options.data_label(program),
            fleet=self._workers is not None,
            fresh=not self._options.memo,
        )
        return apply_plan_limits(program, limit_options)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end.

        Cancelling the call cancels the run; a run with an idempotency key continues.

        Args:
            step: What to run.
            args: Inputs by position.
            inputs: Inputs by name.

        Returns:
            The result. After an abstention `result.output` raises `Abstained`.

        Raises:
            InputError: Before anything starts.
            RunFailed: The run has no output.
            BudgetExceeded: The run has no output because its budget is exhausted.
        """
        run = await self._launch(RunRequest(workflow=step, inputs=inputs, options=self._options), args)
        try:
            return await run
        # No context manager: every waiting run would keep three more objects.
        except (asyncio.CancelledError, OrchestraError) as error:
            raise run.abandon(error, has_key=self.has_key)  # noqa: B904 - it has its cause

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Starts a run, once its inputs are checked and the servers that it needs are up. Its first event is on disk
        when this returns.

        Args:
            step: What to run.
            args: Inputs by position.
            inputs: Inputs by name.

        Raises:
            InputError: Before anything starts.
            FleetError: A server that the run needs is not available.
            JournalError: J022: another process holds the lease of the run with this key.
        """
        run = await self._launch(RunRequest(workflow=step, inputs=inputs, options=self._options), args)
        return await run.wait_started(has_key=self.has_key)

    async def start_request(self, request: RunRequest) -> Run[Any]:
        """Starts the run of a complete request, as `start` does. The options are those of the request."""
        run = await self._launch(request)
        return await run.wait_started(has_key=bool(request.options.idempotency_key))

    def thread(self, id: str, /, *, budget: Budget | None = None, options: PlanOptions | None = None) -> Thread:
        """Returns a conversation with this id, new or continued. Raises `InputError` E040 for an invalid id."""
        from orchestra.app.threads import Thread

        return Thread(self, id, self._options.tags or {}, budget=budget, options=options)

    async def plan(self, step: Step[..., Any], /, **inputs: Any) -> Run[str]:
        """Starts a run of a request that ends when its plan is accepted. Its output is the text of the plan.

        Only the planners are called, no agent or tool of the plan. The run has a journal, a budget and a key as any
        other, and is resumed as any other.

            run = await orchestra.plan(request_workflow(orchestra, request, values), request=request, **values)

        Args:
            step: The workflow of a request (`orchestra.app.planning.request_workflow`).
            inputs: The request and its values, by name.

        Raises:
            InputError: R030: another workflow; and as `start`.
            FleetError: As `start`.
            JournalError: As `start`.
        """
        options = dataclasses.replace(self._options, purpose=self._options.purpose or PLANNING_PURPOSE, accept=None)
        return await self.start_request(RunRequest(workflow=step, inputs=inputs, options=options, plan_only=True))

    async def _launch(self, request: RunRequest, args: Sequence[Any] = ()) -> Run[Any]:
        """Starts the run of a request, or returns the existing run with its idempotency key."""
        self._affinity.check()
        request.options.reject_fork_options()
        step = self.find(request.workflow) if isinstance(request.workflow, str) else request.workflow
        workflow_program = self._project.compile_step(step, request.options.accept)
        program, snapshot = workflow_program.program, get_snapshot(self._project, workflow_program)
        bound = bind_arguments(program, args, request.inputs)
        if self._workers is not None:
            required_program: Program | None = program
            if len(program.nodes) == 1 and program.nodes[0].plan_settings is not None:
                from orchestra.app.planner_limits import needed_program

                required_program = needed_program(program, bound)
            if required_program is not None:
                await self._workers.prepare(stop_at_plan(program) if request.plan_only else required_program)
        graph, versions = snapshot.put(self.journal)
        request = msgspec.structs.replace(
            request, inputs=bound, graph=graph, versions=versions, label=request.options.data_label(program)
        )
        execution = await self._start_once(request.options.apply(program), request)
        workflow_snapshot = None if request.options.idempotency_key else snapshot
        return Run(execution, step.read, workflow_snapshot, by=request.options.by)

    def _begin(self, program: Program, request: RunRequest, workers: Workers | None) -> Execution:
        fresh = not (request.options.memo or request.parent)
        limits = plan_limit_options(self._project, program, request.label, fleet=self._workers is not None, fresh=fresh)
        request = msgspec.structs.replace(request, tiers=self._project.tiers(program), plan_limits=limits)
        return self._engine.start(apply_plan_limits(program, limits), request, workers=workers)

    async def _start_once(self, program: Program, request: RunRequest, workers: Workers | None = None) -> Execution:
        """Returns the run with the request's key, resumed if it was interrupted. Without a key, or a run, starts
        one.
        """
        if not (name := request.options.run_id):
            return self._begin(program, request, workers)
        execution = self._engine.find_run(name)
        if execution is None or execution.started is None:
            events = await self.journal.read(name)
            execution = self._engine.find_run(name)  # Another caller may have begun it meanwhile.
            if execution is None and not events:
                return self._begin(program, msgspec.structs.replace(request, run=name), workers)
            if execution is None or execution.started is None:
                execution = Execution(name, self.journal, events)
        if (conflict := request.key_conflict(name, execution.started)) is not None:
            raise conflict
        if (
            execution.finished is None
            and execution.started is not None
            and execution is not self._engine.find_run(name)
        ):
            return await self._take_over(name, execution.started, request.options)
        return execution.enable_text_stream(request.options.live)

    def observe(self, observer: Observer, restore: HistoryObserver | None = None) -> None:
        """Calls `observer` with the id and each further event of every run that this process drives, and `restore` with
        the earlier events of a run that it continues. They must return at once, and must not raise.
        """
        self._affinity.check()
        self._engine.add_observer(observer, restore)

    def activity(self) -> EngineActivity:
        """Returns how many runs and calls are in progress in this process, and how many wait."""
        return self._engine.activity()

    # Existing runs

    async def resume(self, run: str, *, by: str = "", require_fleet: bool = False) -> Run[Any]:
        """Resumes a run that was interrupted or waits, with the workflow with which it began. A run that has ended is
        returned as it is. Calls that have ended are not made again.

        Args:
            run: The id of the run.
            by: Who resumes it.
            require_fleet: Whether to check first that every model that the rest of the run needs is available.

        Raises:
            InputError: E020: there is no such run.
            JournalError: J022: another process holds its lease.
            OrchestraError: E019: its stored workflow cannot be read; T009 or T005: a tool has changed or is missing.
            FleetError: A model is not available, with `require_fleet`.
        """
        self._options.reject_fork_options()
        first, events = await self._read_run(run)
        execution = self._engine.find_run(run) or Execution(run, self.journal, events)
        if execution.finished is None and self._engine.find_run(run) is None:
            execution = await self._take_over(
                run, first, self._options.replace(by=by or None), require_fleet=require_fleet
            )
        return Run(execution.enable_text_stream(self._options.live), identity, by=by or self._options.by)

    async def _take_over(
        self, run: str, start_event: RunStarted, options: RunOptions, *, require_fleet: bool = False
    ) -> Execution:
        from orchestra.app.code_changes import remaining_agents, require_unchanged_tools
        from orchestra.app.fork_effects import restore_fork_workers

        program, events = await restore_program(self._project, self.journal, start_event), await self._read_events(run)
        require_unchanged_tools(self._project, program, run, events, missing=self._workers is not None)
        if self._workers is not None:
            await self._workers.prepare(program, remaining_agents(program, events) if require_fleet else ())
        workers = await restore_fork_workers(self._project, self._engine, self._read_run, start_event, program)
        try:
            return await self._engine.resume(program, run, by=options.by, workers=workers, stream_text=options.live)
        except OrchestraError as error:
            if error.code != RUN_ENDED:
                raise
            # Another process finished the run in the meantime.
            return Execution(run, self.journal, await self._read_events(run))

    def active_run(self, run: str) -> Run[Any] | None:
        """Returns the handle of a run that goes on here, or waits here for a person; None for any other run."""
        execution = self._engine.find_run(run)
        return None if execution is None else Run(execution, identity, by=self._options.by)

    async def wait_idle(self, seconds: float) -> int:
        """Waits until no run goes on here, at most this long; returns how many do. Waiting ones do not count."""
        return await self._engine.wait_idle(seconds)

    async def stored_program(self, started: RunStarted) -> Program:
        """Returns the workflow with which a run began, to look at it. Raises `OrchestraError` E019 if parts are
        missing, and the errors of compiling.
        """
        return await restore_program(self._project, self.journal, started, will_call=False)

    async def cancel(self, run: str, *, by: str = "") -> None:
        """Cancels a run, in whichever process it is. A run that no process holds ends at once, even if it cannot be
        resumed. Raises `InputError` E020 for an unknown run.
        """
        if isinstance((await self._read_events(run))[-1], RunFinished):
            return
        by = by or self._options.by
        if (execution := self._engine.find_run(run)) is not None:
            execution.cancel(by)
            await execution.wait()
            return
        try:
            await self.journal.send(run, InboxMessage(kind="cancel", by=by, at=self._engine.clock.now()))
            await self._engine.terminate(run, by)
        except OrchestraError as error:
            if error.code not in (LEASE_HELD, RUN_ENDED):
                raise

    async def view(self, run: str) -> RunView:
        """Returns the status of a run, its open questions, and its result if it has ended. It does not change the run.
        Raises `InputError` E020 for an unknown run.
        """
        from orchestra.app.run_status import view_run

        self._affinity.check()
        return await view_run(self.journal, run, self._engine.clock.now())

    async def runs(
        self,
        *,
        limit: int = 50,
        workflow: str = "",
        status: RunStatus | Collection[RunStatus] | None = None,
        tags: Tags | None = None,
        since: TimeSpec = None,
        until: TimeSpec = None,
        before: str = "",
    ) -> Sequence[RunSummary]:
        """Returns the latest runs, newest first.

        Args:
            limit: Number of runs at most.
            workflow: Only runs of this workflow.
            status: Only runs with this status, or one of these.
            tags: Only runs with all of these tags.
            since: Only runs that began at this time or later: a timestamp, or a duration before now.
            until: Only runs that began before this time.
            before: Only runs after this one in the list, for the next page.

        Raises:
            InputError: C010: an invalid status or time; E020: `before` is unknown; E040: invalid tags.
        """
        from orchestra.app.run_status import RunListQuery, latest_runs

        self._affinity.check()
        list_query = RunListQuery.of(limit, workflow, status, tags, since, until, before)
        return await latest_runs(self.journal, self._engine.clock.now(), list_query)

    async def questions(self, run: str) -> list[QuestionAsked]:
        """Returns the open questions of a run to persons. Raises `InputError` E020 for an unknown run."""
        events = await self._read_events(run)
        return unanswered_questions(open_questions(events), await self.journal.inbox(run, last_read_message(events)))

    async def answer(
        self,
        run: str,
        value: Any,
        *,
        node: str = "",
        by: str = "",
        question_digest: str = "",
        question_seq: int = 0,
        decline_reason: str = "",
        call_happened: bool = False,
    ) -> None:
        """Answers a question of a run, or declines it. The process that holds or resumes the run reads the message.

        Args:
            run: The id of the run.
            value: The answer; or the result of a call in doubt, with `call_happened`.
            node: The node that asks. May be left out if one question is open.
            by: Who answers.
            question_digest: `QuestionAsked.question_digest` of the question that the person saw; empty: the open one.
            question_seq: `QuestionAsked.seq`, because the same call in doubt may be asked about twice.
            decline_reason: Why the person does not answer. The node is then withheld.
            call_happened: Whether a call in doubt happened, with the result `value`.

        Raises:
            InputError: E020: an unknown run; E021: no question is open, or an answer is already in the inbox; E022: an
            invalid answer, or the question has changed; E031: the answer is late; E037: the question is closed, or was
            asked again and `question_seq` is missing; T009: a tool that the run may still call has changed.
        """
        events, now = await self._read_events(run), self._engine.clock.now()
        question = find_question(
            events, run, await self.journal.inbox(run, last_read_message(events)), node, question_digest, question_seq
        )
        fields: dict[str, Any] = {
            "question_digest": question_digest or question.question_digest,
            "question_seq": question_number(question),
            "at": now,
            "decline_reason": decline_reason or "",
            "call_happened": call_happened,
        }
        message = InboxMessage(
            kind="answer",
            node=question.node,
            value=None if decline_reason else to_jsonable(value),
            by=by or self._options.by,
            **fields,
        )
        if refusal := self._engine.rejection_reason(question, message):
            raise answer_error(question, run, refusal, late=0 < question.due <= now, call_happened=call_happened)
        if (handle := self._engine.find_run(run)) is None:
            from orchestra.app.code_changes import require_resumable

            await require_resumable(self._project, self.journal, events)
        await send_answer(self.journal, run, message, last_read_message(events))
        if handle is not None:
            handle.mark_answered(question)

    async def fork(self, run: str, step: Step[..., Any] | None = None, /, **inputs: Any) -> Fork:
        """Starts a new run with the inputs of an existing run: of its workflow as it is today, or of `step`.

        Pure calls of unchanged nodes are answered from the parent run, and so are its calls with effects. A call that
        might repeat an effect fails with E024, unless the option `again` is set. A node in the option `values` is not
        run: the value is its outcome, and what depends on it is run again; values given in the parent still hold.
        Options apply as in `start`: with a key there is one such fork; `accept` is the parent's.

        Args:
            run: The parent run.
            step: Another workflow than the parent's.
            inputs: Replace inputs of the parent.

        Raises:
            InputError: E020: an unknown run; E033: a value that its node does not accept; and as `start`.
        """
        from orchestra.app.fork_effects import fork_workers
        from orchestra.app.fork_overrides import ParentRun, collect_overrides
        from orchestra.app.reuse import fork_label

        first, events = await self._read_run(run)
        if self._options.accept is None and (accept := stored_accept(first)) is not None:
            return await self.options(accept=accept).fork(run, step, **inputs)
        step = step or self.find(first.workflow)
        workflow_program = self._project.compile_with_prompts(step, self._options.accept, self._options.prompts or {})
        program = workflow_program.program
        arguments = bind_arguments(
            program, (), {**{name: value for name, value in first.inputs.items() if name in program.inputs}, **inputs}
        )
        if self._workers is not None:
            await self._workers.prepare(stop_at_plan(program) if first.plan_only else program)
        graph, versions = get_snapshot(self._project, workflow_program).put(self.journal)
        program = self._options.apply(program)
        old = await fork_workers(self._project, self._engine, first, events, program, again=self._options.again)
        values = collect_overrides(
            program, self._options, ParentRun(first, None if inputs else events, old.changes), arguments
        )
        request = RunRequest(
            workflow=step,
            inputs=arguments,
            options=self._options.replace(
                tags={**first.tags, **(self._options.tags or {})},
                purpose=PLANNING_PURPOSE if first.plan_only else None,
            ),
            parent=run,
            graph=graph,
            versions=versions,
            label=fork_label(first, self._options.data_label(program)),
            overrides=values,
            plan_only=first.plan_only,
        )
        fork: Run[Any] = Run(await self._start_once(program, request, old.workers), step.read, by=self._options.by)
        return Fork(await fork.wait_started(has_key=self.has_key), old.changes, values)

    async def whatif(
        self, run: str, replacements: Mapping[str, Card | Contract] | None = None, /, *, workflow: str = ""
    ) -> WhatifResult:
        """Simulates a run that has ended with other agents; without any, with everything as it is today. Nothing is
        recorded, no tool with effects is called, and no person is asked.

        Args:
            run: The id of the run.
            replacements: Agents by the names that the workflow has for the replaced ones.
            workflow: The file of the workflow, if it is not known by name.

        Raises:
            InputError: E020: an unknown run; E025: the run has not ended; and the errors of compiling.
        """
        from orchestra.app.whatif import whatif

        self._options.reject_fork_options()
        label = join((self._options.label or "public", CURRENT_LABEL.get()))
        parts, events = (self._project, self._engine, self._workers), await self._read_events(run)
        return await whatif(*parts, events, replacements, workflow=workflow, label=label)

    async def replay(self, run: str) -> ReplayResult:
        """Compares a run's events with what the engine decides today, on the stored workflow. Raises `InputError` E020
        for an unknown run.
        """
        from orchestra.engine.replay import replay

        first, events = await self._read_run(run)
        return replay(await restore_program(self._project, self.journal, first, will_call=False), events)

    async def _read_run(self, run: str) -> tuple[RunStarted, list[Event]]:
        """Returns the first event of a run, and all of its events."""
        events = await self._read_events(run)
        first = events[0]
        if not isinstance(first, RunStarted):
            raise run_not_found(run)
        return first, events

    async def _read_events(self, run: str) -> list[Event]:
        self._affinity.check()
        if not (events := await self.journal.read(run)):
            raise run_not_found(run)
        return events

    async def check(
        self,
        answer: Any,
        *,
        against: Any,
        checks: Checks | str | Iterable[Checks | str] | None = None,
        accept: float | None = None,
        inputs: Mapping[str, Any] | None = None,
        confidence: float | None = None,
        combined: str | Path = "",
        back_off: bool = False,
    ) -> VerificationResult:
        """Checks an answer: a text, or a model with fields of type `Quote`.

        Checks that ask agents run them, each question as a run; other checks leave no trace.

        Args:
            answer: The answer. With the check `quote` a whole text is a quote; of a dict, the fields `quote` and
            `quotes` are.
            against: The evidence.
            checks: The checks; None for `quote`, or those of the combination.
            accept: The score from which the answer is accepted.
            inputs: The inputs from which the answer was made, for `rederive` and `agree`.
            confidence: The confidence of its producer, in [0, 1].
            combined: The agent that gave the answer, or the file of a combination: its checks become one score, as with
            `score: combined`. It is accepted from `accept` on; else by the agent's certificate for the combined score
            (`ruling.guarantee`), else from 0.5 on.
            back_off: Whether parts that `entailment` rejects are left out of the judgement: `ruling.dropped` lists
            them, `ruling.remaining(answer)` is the rest as JSON.

        Raises:
            InputError: V010: an invalid check; V011: an unknown agent or tool; V014: an invalid `accept` or
            `confidence`; with `combined`, as `orchestra.app.check_answer.combined_request`.
        """
        from orchestra.app import check_answer

        self._options.reject_fork_options()
        claim = check_answer.CheckedAnswer(value=answer, against=against, inputs=inputs or {}, confidence=confidence)
        situation, own_steps = check_answer.verification_request(
            self._project, claim, checks, accept, combined=combined, back_off=back_off
        )
        # The key and the acceptance apply to one run only.
        alone = dataclasses.replace(self._options, idempotency_key="", live=False, accept=None)
        view = Orchestra(self._project, self._engine, self._workers, self._affinity, alone)
        self._affinity.check()
        return await check_answer.run_checks(
            self._engine.clock,
            self._project,
            situation,
            own_steps,
            self.label,
            lambda sample: view.options(sample=sample).run,
        )

    async def costs(
        self,
        by: CostKey | Iterable[CostKey] = "workflow",
        *,
        since: TimeSpec = None,
        until: TimeSpec = None,
        workflow: str = "",
        tags: Tags | None = None,
    ) -> CostReport:
        """Sums the costs of the runs that `runs` returns for the same filters. Runs that cannot be read are named and
        left out.

        Args:
            by: One or several keys of `orchestra.app.costs.COST_KEYS`, or `tag:NAME`.

        Raises:
            InputError: C043: an invalid key; E040: invalid tags; F100: the fleet file, which has the prices, cannot be
            read.
        """
        from orchestra.app.costs import costs, fleet_servers

        self._affinity.check()
        servers = fleet_servers(self.settings)
        return await costs(self.journal, servers, by, since=since, until=until, workflow=workflow, tags=tags)

    async def load(self, agent: str) -> list[str]:
        """Loads an agent's adapter on the running local servers, before its first call; returns their names. Raises
        `InputError` A001.
        """
        self._affinity.check()
        card = self.registry.card(agent)
        return await self._workers.load(card) if self._workers is not None else []

    async def fleet_status(self, *, probe: bool = False) -> FleetStatus:
        """Returns the status of the fleet's servers, and whether they can serve (`can_serve`). It is empty if other
        `workers` replace the fleet.

        Only the supervisor of local servers is asked; with `probe` also endpoints, for at most 5 seconds. Raises
        `InputError` F100, F102.
        """
        from orchestra.fleet.status import FleetStatus

        self._affinity.check()
        return await self._workers.status(probe=probe) if self._workers is not None else FleetStatus()


def _blocking_method(
    method: Callable[Concatenate[Orchestra, P], Coroutine[Any, Any, T]],
) -> Callable[Concatenate[BlockingOrchestra, P], T]:
    """Returns a method of `BlockingOrchestra` that waits for a method of `Orchestra`."""

    @wraps(method)
    def wait(self: BlockingOrchestra, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return self._loop.run(method(self.inner, *args, **kwargs))

    return wait


class BlockingOrchestra(AbstractContextManager["BlockingOrchestra"]):
    """An open `Orchestra` whose methods block. They raise `OrchestraError` E027 on its own loop, and E028 after it is
    closed.

    `view`, `runs`, `questions`, `answer`, `cancel`, `check`, `costs`, `whatif` and `fleet_status` have the parameters
    of the methods of `Orchestra`.
    """

    def __init__(
        self,
        inner: Orchestra,
        loop: LoopThread,
        text: Callable[[TextPiece], None] | None = None,
        progress: NotebookProgress | None = None,
    ) -> None:
        self.inner = inner
        """The `Orchestra`; use it on its own loop only."""
        self._loop, self._text, self._progress = loop, text, progress

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops its runs, and closes journal, connections and loop. Idempotent."""
        self._loop.close()

    @overload
    def run(self, step: str, /, *args: Any, **inputs: Any) -> Result[Any]: ...

    @overload
    def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]: ...

    def run(self, step: Step[..., Any] | str, /, *args: Any, **inputs: Any) -> Result[Any]:
        """Runs a workflow, an agent or a tool to its end. Ctrl-C cancels the run. Raises as `find` and
        `Orchestra.run` do.

        Args:
            step: What to run, or its name.
            args: Inputs by position.
            inputs: Inputs by name.
        """
        step = self.find(step) if isinstance(step, str) else step
        if self._text is not None:
            run = self._loop.run(self.inner.options(live=True).start(step, *args, **inputs))
            with closing(self._iterate(run, run.text())) as pieces:
                for piece in pieces:
                    self._text(piece)
            return self._loop.run(_await_run(run))
        if (progress := self._progress) is None or not progress.is_usable:
            return self._loop.run(self.inner.run(step, *args, **inputs))
        with progress:
            run = self._loop.run(self.inner.start(step, *args, **inputs), progress.show)
            return self._loop.run(progress.follow(run, has_key=self.inner.has_key), progress.show)

    def stream(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Generator[Event, None, None]:
        """Runs a step and yields its events once they are on disk. Leaving it early (`break`, `close()`, Ctrl-C)
        cancels the run; a run with an idempotency key continues. Raises as `Orchestra.start` and `Run.events` do.
        """
        run = self._loop.run(self.inner.start(step, *args, **inputs))
        yield from self._iterate(run, run.events())

    def _iterate(self, run: Run[Any], items: AsyncGenerator[T, None]) -> Generator[T, None, None]:
        """Yields items of a run, to its end. Leaving it early cancels the run, unless it has a key."""
        return self._loop.iterate(items, on_end=lambda: None if self.inner.has_key else run.cancel())

    def options(self, **changes: Unpack[OptionChanges]) -> BlockingOrchestra:
        """Returns the same `Orchestra` with other options for its runs, as `Orchestra.options`."""
        return BlockingOrchestra(self.inner.options(**changes), self._loop, self._text, self._progress)

    def thread(self, id: str, /, *, budget: Budget | None = None, options: PlanOptions | None = None) -> BlockingThread:
        """Returns a conversation whose methods block, as `Orchestra.thread`."""
        from orchestra.app.blocking_thread import BlockingThread

        return BlockingThread(self.inner.thread(id, budget=budget, options=options), self._loop)

    def find(self, name: str, /) -> Step[..., Any]:
        """Returns a workflow, agent or tool by name, as `Orchestra.find`."""
        return self.inner.find(name)

    def workflows(self) -> list[str]:
        """Returns the names of all workflows, as `Orchestra.workflows`."""
        return self.inner.workflows()

    def workflow(self, step: Step[..., Any] | str, /) -> WorkflowView:
        """Returns a workflow that shows its graph, as `Orchestra.workflow`."""
        return self.inner.workflow(step)

    view = _blocking_method(Orchestra.view)
    runs = _blocking_method(Orchestra.runs)
    questions = _blocking_method(Orchestra.questions)
    answer = _blocking_method(Orchestra.answer)
    cancel = _blocking_method(Orchestra.cancel)
    check = _blocking_method(Orchestra.check)
    costs = _blocking_method(Orchestra.costs)
    whatif = _blocking_method(Orchestra.whatif)
    fleet_status = _blocking_method(Orchestra.fleet_status)


async def _await_run(run: Run[R]) -> Result[R]:
    return await run
