"""The composition root: `Orchestra` puts registry, journal, workers and engine together. Only this module knows them all.

What an open `Orchestra` consists of is imported by `Orchestra.open`: a module that defines steps, or names the class, needs none of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec, Unpack, overload

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
from orchestra.core.event_logging import create_observer
from orchestra.core.events import QuestionAsked, RunFinished, RunStarted, last_read_message
from orchestra.core.labels import CURRENT_LABEL, Label, join
from orchestra.core.lifecycle import LoopAffinity, opening_context
from orchestra.core.protocols import InboxMessage
from orchestra.core.settings import Settings
from orchestra.engine.request import DEFAULT_OPTIONS, OptionChanges, RunOptions, RunRequest
from orchestra.engine.run import Execution
from orchestra.workflows.program import with_sample
from orchestra.workflows.python.steps import Step

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry
    from orchestra.app.costs import CostKey, CostReport, TimeSpec
    from orchestra.app.project import Project
    from orchestra.app.run_status import RunStatus, RunView
    from orchestra.app.whatif import WhatifResult
    from orchestra.app.workers import FleetMode, ProjectWorkers
    from orchestra.core.events import Event
    from orchestra.core.protocols import Clock, Journal, RunSummary, Workers
    from orchestra.core.tags import Tags
    from orchestra.engine.engine import Engine
    from orchestra.engine.replay import ReplayResult
    from orchestra.fleet.progress import Progress
    from orchestra.fleet.status import FleetStatus
    from orchestra.verification.acceptance import VerificationResult
    from orchestra.workflows.program import Program
    from orchestra.workflows.python.acceptance import Checks

P = ParamSpec("P")
R = TypeVar("R", default=Any)

__all__ = ["Fork", "Orchestra", "Result", "Run", "RunOptions", "RunRequest"]


class Orchestra:
    """A fleet, a journal and an engine, open for work. `Orchestra.open` makes one; any number may live in one process."""

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
        self._project, self._engine, self._workers, self._affinity, self._options = (
            project,
            engine,
            workers,
            affinity,
            options,
        )

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
        """An open `Orchestra`.

        `config` is a fleet (the name of a file in `configs/`, or a path) or whole `Settings`; without it the project's and
        the user's configuration hold. `project` is the folder with the project's `orchestra.toml`: without it the one that the variable
        `ORCHESTRA_PROJECT` names, else the nearest one from the current folder upwards. `fleet` says what to do about local servers:
        `start` adopts or starts a supervisor at the first call that needs one, `adopt` only adopts, `none` uses endpoints alone.
        `workers` stands in for fleet and tools (a simulation). `progress` hears of downloads and of servers that start.

        Leaving it ends its runs and closes journal and connections; the fleet's supervisor stays until it is idle. It is used on the event
        loop that opened it. Raises `InputError` for faults of configuration, cards and modules; C045 where `project` is none, C046 beside
        whole `Settings`.
        """
        from orchestra.app.open_journal import open_journal
        from orchestra.app.project import Project, load_settings
        from orchestra.app.workers import ProjectWorkers
        from orchestra.engine.engine import Engine

        settings = load_settings(config, project)
        loaded = Project.load(settings)
        async with AsyncExitStack() as stack:
            if journal is None:
                journal = await stack.enter_async_context(open_journal(settings))
            project_workers: ProjectWorkers | None = None
            if workers is None:
                workers = project_workers = await stack.enter_async_context(
                    ProjectWorkers.open(loaded, mode=fleet, progress=progress)
                )
            strict = settings.durability == "strict"
            observe = create_observer(settings.log, form=settings.log_as, reasons=settings.log_reasons)
            engine = Engine(
                clock or SystemClock(),
                journal,
                workers,
                concurrency=settings.concurrency,
                strict=strict,
                observe=observe,
            )
            stack.push_async_callback(engine.close)
            yield cls(loaded, engine, project_workers, LoopAffinity())

    @property
    def registry(self) -> Registry:
        """The agents and tools that are known by name."""
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
        """The label of the data that its runs are given, where their workflow says none."""
        return join((self._options.label or "internal", CURRENT_LABEL.get()))

    @property
    def has_key(self) -> bool:
        """Whether its runs have an idempotency key: whoever leaves one does not end it."""
        return bool(self._options.idempotency_key)

    def workflows(self) -> list[str]:
        """The names of all workflows that are known: the project's, and those of the package."""
        return self._project.workflow_names()

    def find(self, name: str, /) -> Step[..., Any]:
        """A workflow, an agent or a tool by name, or a workflow file by path. Raises `InputError` with the nearest name."""
        return self._project.find(name)

    def program(self, step: Step[..., Any], /) -> Program:
        """A step as the engine runs it. Raises `InputError`, or `InputErrors`, where it does not compile."""
        program = self._project.program(step, self._options.accept)
        told = plan_limit_options(
            self._project,
            program,
            _data_label(program, self._options),
            fleet=self._workers is not None,
            fresh=not self._options.memo,
        )
        return apply_plan_limits(program, told)

    @overload
    async def run(self, step: RunRequest, /) -> Result[Any]: ...

    @overload
    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]: ...

    async def run(self, step: Step[..., Any] | RunRequest, /, *args: Any, **inputs: Any) -> Result[Any]:
        """Runs a workflow, an agent or a tool to its end.

        Cancelling the call cancels the run; a run with an idempotency key continues.

        Args:
            step: What to run, or a whole request: then its options hold, and not those of this `Orchestra`.
            args: Inputs by position.
            inputs: Inputs by name.

        Returns:
            The result. After an abstention `result.output` raises `Abstained`.

        Raises:
            InputError: Before anything starts.
            RunFailed: The run has no output.
            BudgetExceeded: The run has no output because its budget is exhausted.
        """
        run = await self._launch(step, args, inputs)
        try:
            return await run
        except (
            asyncio.CancelledError,
            OrchestraError,
        ) as error:  # no context manager: a run that waits would hold three objects more
            raise run.abandon(error, has_key=self._has_key(step))  # noqa: B904 - it has its cause

    @overload
    async def start(self, step: RunRequest, /) -> Run[Any]: ...

    @overload
    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]: ...

    async def start(self, step: Step[..., Any] | RunRequest, /, *args: Any, **inputs: Any) -> Run[Any]:
        """Starts a run, once its inputs are checked and the servers that it needs are up. Its first event is on disk when this returns.

        Args:
            step: What to run, or a whole request: then its options hold, and not those of this `Orchestra`.
            args: Inputs by position.
            inputs: Inputs by name.

        Raises:
            InputError: Before anything starts.
            FleetError: A server that the run needs is not available.
            JournalError: J022: another process holds the lease of the run with this key.
        """
        return await (await self._launch(step, args, inputs)).wait_started(has_key=self._has_key(step))

    def _has_key(self, step: Step[..., Any] | RunRequest) -> bool:
        return bool((step.options if isinstance(step, RunRequest) else self._options).idempotency_key)

    async def _launch(
        self, step: Step[..., Any] | RunRequest, args: Sequence[Any], inputs: Mapping[str, Any]
    ) -> Run[Any]:
        """Starts the run of a request, or returns the existing run with its idempotency key."""
        self._affinity.check()
        request = (
            step if isinstance(step, RunRequest) else RunRequest(workflow=step, inputs=inputs, options=self._options)
        )
        request.options.reject_fork_options()
        step = self.find(request.workflow) if isinstance(request.workflow, str) else request.workflow
        compiled = self._project.compile_step(step, request.options.accept)
        program, snapshot = compiled.program, get_snapshot(self._project, compiled)
        bound = bind_arguments(program, args, request.inputs)
        if self._workers is not None:
            await self._workers.prepare(program)
        graph, versions = snapshot.put(self.journal)
        request = msgspec.structs.replace(
            request, inputs=bound, graph=graph, versions=versions, label=_data_label(program, request.options)
        )
        execution = await self._start_once(_apply_options(program, request.options), request)
        known = None if request.options.idempotency_key else snapshot
        return Run(execution, step.read, known, by=request.options.by)

    def _begin(self, program: Program, request: RunRequest, workers: Workers | None) -> Execution:
        fresh = not (request.options.memo or request.parent)
        limits = plan_limit_options(self._project, program, request.label, fleet=self._workers is not None, fresh=fresh)
        request = msgspec.structs.replace(request, tiers=self._project.tiers(program), plan_limits=limits)
        return self._engine.start(apply_plan_limits(program, limits), request, workers=workers)

    async def _start_once(self, program: Program, request: RunRequest, workers: Workers | None = None) -> Execution:
        """Returns the run with the request's key, resumed if it was interrupted; a new run if there is none, or no key."""
        if not (name := request.options.run_id):
            return self._begin(program, request, workers)
        execution = self._engine.find_run(name)
        if execution is None or execution.started is None:
            events = await self.journal.read(name)
            execution = self._engine.find_run(name)  # another caller may have begun it while we looked
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

    # Runs that are there already

    async def resume(self, run: str, *, by: str = "", require_fleet: bool = False) -> Run[Any]:
        """Goes on with a run that was interrupted, or that waits; on the workflow that it began with. One that has ended is just there.

        Calls that have an end are not made again. Raises `InputError` E020 for a run that is not there, `JournalError` J022 where
        another process has it in hand, `OrchestraError` E019 where what it stored cannot be read, T009 or T005 for another tool or none;
        with `ready`, `FleetError` where a model that the rest surely asks cannot be had now, and the run would fail for that.
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
        self, run: str, started: RunStarted, options: RunOptions, *, require_fleet: bool = False
    ) -> Execution:
        from orchestra.app.code_changes import remaining_agents, require_unchanged_tools

        program, events = await restore_program(self._project, self.journal, started), await self._read_events(run)
        require_unchanged_tools(self._project, program, run, events, missing=self._workers is not None)
        if self._workers is not None:
            await self._workers.prepare(program, remaining_agents(program, events) if require_fleet else ())
        workers = await self._fork_workers(started, program) if started.parent else None
        try:
            return await self._engine.resume(program, run, by=options.by, workers=workers, stream_text=options.live)
        except OrchestraError as error:
            if error.code != RUN_ENDED:
                raise
            # Another process finished the run in the meantime.
            return Execution(run, self.journal, await self._read_events(run))

    async def _fork_workers(self, started: RunStarted, program: Program) -> Workers:
        """The workers of a fork: they know what its parent was answered."""
        from orchestra.app.fork_effects import fork_workers, orphan_workers

        again = started.options.get("again") is True
        try:
            return (
                await fork_workers(
                    self._project, self._engine, *await self._read_run(started.parent), program, again=again
                )
            ).workers
        except OrchestraError:  # the parent was deleted, or cannot be read any more
            return orphan_workers(self._engine, started.parent, program, again=again)

    async def cancel(self, run: str, *, by: str = "") -> None:
        """Asks a run to end, wherever it is. One that nobody has in hand ends at once, even if it cannot be resumed. Raises E020."""
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
        """How a run stands, whoever has it in hand: its status, what persons are asked, and its result where it has ended. Nothing of it
        is changed. Raises `InputError` E020 for a run that is not there."""
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
        """The latest runs, newest first: those of a `workflow` alone, of one `status` or several, with all of these `tags`, that began at
        `since` or later and before `until` (a moment, or so long ago), and behind the run `before` in this order, for the next page.
        Raises `InputError` C010 for what is no status or no moment, E020 for a `before` that is not there, E040 for tags that are none."""
        from orchestra.app.run_status import RunListQuery, latest_runs

        self._affinity.check()
        wanted = RunListQuery.of(limit, workflow, status, tags, since, until, before)
        return await latest_runs(self.journal, self._engine.clock.now(), wanted)

    async def questions(self, run: str) -> list[QuestionAsked]:
        """What persons are asked by a run, and have not answered. Raises `InputError` E020 for one that is not there."""
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
        """Answers a question of a run, or declines it (`decline_reason`): the node is withheld then. The message is in the run's inbox
        when this returns: the process that holds the run, or the one that resumes it, reads it. For a call in doubt, `call_happened` says
        that the call happened, and that `value` is its result.

        `node` may be left out if one question is open. `question_digest` is the digest of the question that the person saw
        (`QuestionAsked.question_digest`), and `question_seq` the number of its event (`QuestionAsked.seq`): a call in doubt may be asked
        about twice. Without them the answer is to the question that is open now. Raises `InputError` E020 for an unknown run, E021 if no
        question is open or an answer is already in the inbox, E022 for an invalid answer or a question that has changed, E037 for a
        question that is closed, or asked again if `question_seq` is missing, E031 for a late answer, T009 if a tool that may yet be called
        has changed.
        """
        events, now = await self._read_events(run), self._engine.clock.now()
        one = find_question(
            events, run, await self.journal.inbox(run, last_read_message(events)), node, question_digest, question_seq
        )
        told: dict[str, Any] = {
            "question_digest": question_digest or one.question_digest,
            "question_seq": question_number(one),
            "at": now,
            "decline_reason": decline_reason or "",
            "call_happened": call_happened,
        }
        message = InboxMessage(
            kind="answer",
            node=one.node,
            value=None if decline_reason else to_jsonable(value),
            by=by or self._options.by,
            **told,
        )
        if refusal := self._engine.rejection_reason(one, message):
            raise answer_error(one, run, refusal, late=0 < one.due <= now, call_happened=call_happened)
        if (handle := self._engine.find_run(run)) is None:
            from orchestra.app.code_changes import require_resumable

            await require_resumable(self._project, self.journal, events)
        await send_answer(self.journal, run, message, last_read_message(events))
        if handle is not None:
            handle.mark_answered(one)

    async def fork(self, run: str, step: Step[..., Any] | None = None, /, **inputs: Any) -> Fork:
        """A new run of a run's workflow as it is today, or of `step`, on its inputs; `inputs` replace some of them.

        Pure calls of which nothing has changed are answered from the old run, and so is what it did in the world; a call that might do it
        a second time fails with E024, unless the option `again` is set. What the option `values` gives, and what was given before, is the
        outcome of its node: nothing is called for it, and what depends on it is made anew. Options hold as in `start`: with a key, there
        is one such fork; `accept` stays what it was. Raises `InputError` E020, E033 for a value that no node takes, and as `start`.
        """
        from orchestra.app.fork_effects import fork_workers
        from orchestra.app.fork_overrides import ParentRun, collect_overrides
        from orchestra.app.reuse import fork_label

        first, events = await self._read_run(run)
        if self._options.accept is None and (accept := stored_accept(first)) is not None:
            return await self.options(accept=accept).fork(run, step, **inputs)
        step = step or self.find(first.workflow)
        made = self._project.compile_step(step, self._options.accept)
        program = made.program
        given = bind_arguments(
            program, (), {**{name: value for name, value in first.inputs.items() if name in program.inputs}, **inputs}
        )
        if self._workers is not None:
            await self._workers.prepare(program)
        graph, versions = get_snapshot(self._project, made).put(self.journal)
        program = _apply_options(program, self._options)
        old = await fork_workers(self._project, self._engine, first, events, program, again=self._options.again)
        values = collect_overrides(
            program, self._options, ParentRun(first, None if inputs else events, old.changes), given
        )
        request = RunRequest(
            workflow=step,
            inputs=given,
            options=self._options.replace(tags={**first.tags, **(self._options.tags or {})}),
            parent=run,
            graph=graph,
            versions=versions,
            label=fork_label(first, _data_label(program, self._options)),
            overrides=values,
        )
        forked: Run[Any] = Run(await self._start_once(program, request, old.workers), step.read, by=self._options.by)
        return Fork(await forked.wait_started(has_key=self.has_key), old.changes, values)

    async def whatif(
        self, run: str, replacements: Mapping[str, Card | Contract] | None = None, /, *, workflow: str = ""
    ) -> WhatifResult:
        """What a run that has ended would have come to with other agents, by the names that its workflow knows them by; or, without
        any, with everything as it is today: `workflow` is its file, where it has no name here. Nothing is recorded, no tool with effects
        is called, no person is asked. Raises `InputError` E020, E025 for a run that has not ended, and what compiling it anew raises."""
        from orchestra.app.whatif import whatif

        self._options.reject_fork_options()
        label = join((self._options.label or "public", CURRENT_LABEL.get()))
        return await whatif(
            self._project,
            self._engine,
            self._workers,
            await self._read_events(run),
            replacements,
            workflow=workflow,
            label=label,
        )

    async def replay(self, run: str) -> ReplayResult:
        """A run's events held against what the engine decides today, on the workflow that the run stored. Raises `InputError` E020."""
        from orchestra.engine.replay import replay

        first, events = await self._read_run(run)
        return replay(await restore_program(self._project, self.journal, first, will_call=False), events)

    async def _read_run(self, run: str) -> tuple[RunStarted, list[Event]]:
        """How a run began, and all of its events."""
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
        """What the checks say of an answer: a text, or a model with fields of type `Quote`. Without checks or a combination, `quote`.

        A text is a quote as a whole where the check `quote` is asked for; of a dict the fields `quote` and `quotes` are quotes.
        Checks that ask agents run these, each question as a run of its own; those that ask nobody leave no trace. `inputs` is what the
        answer was made from, for `rederive` and `agree`; `confidence` is how sure its producer was, in [0, 1].

        `combined` names the agent whose answer it is, or the file of a combination: its checks are asked, and what they say becomes one
        score, as with `score: combined`. It is accepted from `accept` on; where that is not said, by the agent's certificate over the
        combined score (`ruling.guarantee`), or from 0.5 on. With `back_off` the parts that `entailment` does not pass are left out of the
        judgement: `ruling.dropped` are these, and `ruling.remaining(answer)` is the answer as JSON without them.

        Raises `InputError` V010 for what is no check, V011 for an agent or a tool that is not there, V014 for an `accept` or a `confidence`
        that is none, and with `combined` what `orchestra.app.check_answer.combined_request` does."""
        from orchestra.app import check_answer
        from orchestra.verification.session import ChecksPending, advance, start

        self._options.reject_fork_options()
        given = check_answer.CheckedAnswer(value=answer, against=against, inputs=inputs or {}, confidence=confidence)
        situation, own = check_answer.verification_request(
            self._project, given, checks, accept, combined=combined, back_off=back_off
        )
        stands = await check_answer.run_off_loop(self._engine.clock, start, situation)
        while isinstance(stands, ChecksPending):
            self._affinity.check()
            # The key and the acceptance apply to one run only.
            alone = dataclasses.replace(self._options, idempotency_key="", live=False, accept=None)
            view = Orchestra(self._project, self._engine, self._workers, self._affinity, alone)
            asked = [(one, view.options(sample=one.sample or None).run) for one in stands.questions]
            heard = [check_answer.ask_judge(run, self._project, one, own, self.label) for one, run in asked]
            stands = await check_answer.run_off_loop(
                self._engine.clock, advance, situation, stands, await asyncio.gather(*heard)
            )
        return stands

    async def costs(
        self,
        by: CostKey | Iterable[CostKey] = "workflow",
        *,
        since: TimeSpec = None,
        until: TimeSpec = None,
        workflow: str = "",
        tags: Tags | None = None,
    ) -> CostReport:
        """What the journal's runs cost, summed up by one key or several (`orchestra.app.costs.COST_KEYS`, `tag:NAME`):
        those of `runs` with the same
        `since`, `until`, `workflow` and `tags`. Runs that cannot be read are named, and left out. Raises `InputError` C043 for what is no
        key, E040 for tags that are none, F100 where the fleet's file, which has the prices, cannot be read."""
        from orchestra.app.costs import costs, fleet_servers

        self._affinity.check()
        return await costs(
            self.journal, fleet_servers(self.settings), by, since=since, until=until, workflow=workflow, tags=tags
        )

    async def load(self, agent: str) -> list[str]:
        """Has the local servers that run load an agent's adapter, before its first call; gives their names. Raises `InputError` A001."""
        self._affinity.check()
        card = self.registry.card(agent)
        return await self._workers.load(card) if self._workers is not None else []

    async def fleet_status(self, *, probe: bool = False) -> FleetStatus:
        """What is known of the fleet's servers, and whether they can serve (`can_serve`); it has none where other `workers` are used.

        Only the supervisor of local servers is asked; with `probe` endpoints too, for 5 seconds at most. Raises `InputError` F100, F102.
        """
        from orchestra.fleet.status import FleetStatus

        self._affinity.check()
        return await self._workers.status(probe=probe) if self._workers is not None else FleetStatus()


def _data_label(program: Program, options: RunOptions) -> Label:
    """Returns the strictest label of the workflow, the options and the caller's context."""
    return join((program.label, options.label or program.label, CURRENT_LABEL.get()))


def _apply_options(program: Program, options: RunOptions) -> Program:
    """Returns the program with the budget and the sample number of the options."""
    program, budget = with_sample(program, options.sample), options.budget
    return program if budget is None else dataclasses.replace(program, budget=budget.with_defaults(program.budget))
