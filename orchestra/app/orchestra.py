"""The composition root: `Orchestra` puts registry, journal, workers and engine together. Only this module knows them all.

What an open `Orchestra` consists of is imported by `Orchestra.open`: a module that defines steps, or names the class, needs none of it.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator, Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, ParamSpec

from typing_extensions import TypeVar

from orchestra.app.inputs import bound, jsonable, meant, nowhere, number_of, posted, questions, refused, unanswered
from orchestra.app.result import Result, plainly
from orchestra.app.run import Fork, Run, left
from orchestra.app.run_options import PLAIN, Options
from orchestra.app.snapshot import Parcel
from orchestra.app.snapshot_store import accepted_by, of_plans, parcel, restored, with_plans
from orchestra.core.clock import SystemClock
from orchestra.core.error_codes import ENDED, HELD
from orchestra.core.errors import OrchestraError
from orchestra.core.event_logging import observer
from orchestra.core.events import Asked, RunFinished, RunStarted, opened
from orchestra.core.labels import WITHIN, Label, join
from orchestra.core.lifecycle import Home, opening
from orchestra.core.protocols import Letter
from orchestra.core.settings import Settings
from orchestra.engine.run import Request, steady
from orchestra.engine.run import Run as Execution
from orchestra.workflows.model import Budget
from orchestra.workflows.program import sampled
from orchestra.workflows.python.steps import Step

if TYPE_CHECKING:
    from orchestra.agents.card import Card
    from orchestra.agents.contract import Contract
    from orchestra.agents.registry import Registry
    from orchestra.app.costs import Costs, Key, When
    from orchestra.app.project import Project
    from orchestra.app.run_status import RunStatus, Seen
    from orchestra.app.whatif import Rehearsal
    from orchestra.app.workers import FleetMode, Troupe
    from orchestra.core.events import Event
    from orchestra.core.protocols import Clock, Journal, RunSummary, Workers
    from orchestra.core.tags import Tags
    from orchestra.engine.engine import Engine
    from orchestra.engine.replay import Replayed
    from orchestra.fleet.progress import Progress
    from orchestra.fleet.status import FleetStatus
    from orchestra.verification.acceptance import Ruling
    from orchestra.workflows.program import Program
    from orchestra.workflows.python.acceptance import Accept, Checks

P = ParamSpec("P")
R = TypeVar("R", default=Any)

__all__ = ["Fork", "Options", "Orchestra", "Result", "Run"]


class Orchestra:
    """A fleet, a journal and an engine, open for work. `Orchestra.open` makes one; any number may live in one process."""

    def __init__(self, project: Project, engine: Engine, troupe: Troupe | None, home: Home, options: Options = PLAIN) -> None:
        self.settings = project.settings
        self.journal = engine.journal
        self._project, self._engine, self._troupe, self._home, self._options = project, engine, troupe, home, options

    @classmethod
    @opening
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
        from orchestra.app.open_journal import recorder
        from orchestra.app.project import Project, settled
        from orchestra.app.workers import Troupe
        from orchestra.engine.engine import Engine

        settings = settled(config, project)
        loaded = Project.load(settings)
        async with AsyncExitStack() as stack:
            if journal is None:
                journal = await stack.enter_async_context(recorder(settings))
            troupe: Troupe | None = None
            if workers is None:
                workers = troupe = await stack.enter_async_context(Troupe.open(loaded, mode=fleet, progress=progress))
            strict = settings.durability == "strict"
            observe = observer(settings.log, form=settings.log_as, reasons=settings.log_reasons)
            engine = Engine(clock or SystemClock(), journal, workers, concurrency=settings.concurrency, strict=strict, observe=observe)
            stack.push_async_callback(engine.close)
            yield cls(loaded, engine, troupe, Home())

    @property
    def registry(self) -> Registry:
        """The agents and tools that are known by name."""
        return self._project.registry

    def options(
        self,
        *,
        idempotency_key: str | None = None,
        budget: Budget | None = None,
        label: Label | None = None,
        memo: bool | None = None,
        purpose: str = "",
        sample: int | None = None,
        again: bool | None = None,
        live: bool | None = None,
        values: Mapping[str, Any] | None = None,
        unset: Collection[str] | None = None,
        by: str | None = None,
        tags: Tags | None = None,
        accept: Accept | None = None,
    ) -> Orchestra:
        """The same `Orchestra`, whose runs have these options; what is left out stays as it is here, the key too, which `""` takes away.

        A run with a key that is there already is not started again; if it was interrupted, it goes on. What it came to stays the answer of
        its key: `fork` it under another key for another try. With `memo`, pure calls that any run has made before are answered from the
        memo. `purpose` stands in the journal: runs of an `evaluation` teach nobody. `sample`, from 1 on, has the agents answer at a
        temperature above 0, with this as their seed. With `again`, a fork repeats effects. `values` are what nodes give in a fork, by name,
        whatever they would come to; a node of `unset` does without the value that it had in the run before. `by` says who says so; who
        answers, resumes and cancels too, where these are not told another name. Limits that `budget` states replace those of the workflow;
        its others stay. With `live`, what models write can be read while they do, unverified (`Run.text`). `tags`, as `{"customer": "42"}`,
        find runs. With `accept="certified"` the output is accepted as a whole, by the certificate of the workflow or the agent, or from a
        score on; else it is withheld. Raises `InputError` E040 for tags that are none, V029 for an `accept` that is none."""
        told: dict[str, Any] = {"idempotency_key": idempotency_key, "budget": budget, "label": label or None, "memo": memo, "tags": tags}
        told |= {"purpose": purpose or None, "sample": sample, "again": again, "live": live, "values": values, "unset": unset, "by": by}
        told["accept"] = accept
        chosen = dataclasses.replace(self._options, **{name: value for name, value in told.items() if value is not None})
        return Orchestra(self._project, self._engine, self._troupe, self._home, chosen)

    @property
    def label(self) -> Label:
        """The label of the data that its runs are given, where their workflow says none."""
        return join((self._options.label or "internal", WITHIN.get()))

    @property
    def keyed(self) -> bool:
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
        told = of_plans(self._project, program, self._labelled(program), fleet=self._troupe is not None, fresh=not self._options.memo)
        return with_plans(program, told)

    async def run(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Result[R]:
        """Runs a workflow, an agent or a tool to its end. Being cancelled cancels the run; under a key it goes on, for whoever has the key.

        Raises `InputError` before anything starts, `RunFailed` or `BudgetExceeded` for a run without an output. A run that
        abstained gives its result; `result.output` raises `Abstained`.
        """
        execution, stored = await self._launched(step, args, inputs)
        try:
            return await Run(execution, step.read, stored, by=self._options.by)
        except (asyncio.CancelledError, OrchestraError) as error:  # no context manager: a run that waits would hold three objects more
            raise left(execution, error, keyed=self.keyed)  # noqa: B904 - it has its cause

    async def start(self, step: Step[P, R], /, *args: P.args, **inputs: P.kwargs) -> Run[R]:
        """Begins a run, once its inputs are checked and the servers that it will ask are up; it is on record when this returns.

        Raises `InputError`, `FleetError`, and `JournalError`: J022 where another process has the run of the key in hand."""
        execution, stored = await self._launched(step, args, inputs)
        try:
            await execution.begun()
        except (asyncio.CancelledError, OrchestraError) as error:
            raise left(execution, error, keyed=self.keyed)  # noqa: B904 - it has its cause
        return Run(execution, step.read, stored, by=self._options.by)

    async def _launched(self, step: Step[..., Any], args: Sequence[Any], inputs: Mapping[str, Any]) -> tuple[Execution, Parcel | None]:
        """A run that has begun, or that of the key; and what it stores of its workflow, where that is known."""
        self._home.check()
        self._options.forkless()
        made = self._project.compiled(step, self._options.accept)
        program = made.program
        given = bound(program, args, inputs)
        if self._troupe is not None:
            await self._troupe.prepare(program)
        whole = parcel(self._project, made)
        graph, versions = whole.put(self.journal)
        program = self._told(program)
        stored = None if self._options.idempotency_key else whole
        return await self._once(program, given, graph, versions), stored

    def _told(self, program: Program) -> Program:
        """A program with what the options say of its budget and its agents."""
        program, told = sampled(program, self._options.sample), self._options.budget
        return program if told is None else dataclasses.replace(program, budget=told.beside(program.budget))

    def _begin(self, program: Program, given: Mapping[str, Any], graph: str, versions: dict[str, str], **more: Any) -> Execution:
        more = {"label": self._labelled(program), "tiers": self._project.tiers(program), **more}
        fresh = not (self._options.memo or more.get("parent"))
        kept = self._options.kept(program.budget, more.pop("tags", {}))
        kept |= of_plans(self._project, program, more["label"], fleet=self._troupe is not None, fresh=fresh)
        program = with_plans(program, kept)
        return self._engine.start(program, given, graph=graph, versions=versions, options=kept, live=self._options.live, **more)

    def _labelled(self, program: Program) -> Label:
        return join((program.label, self._options.label or program.label, WITHIN.get()))

    async def _once(self, program: Program, given: Mapping[str, Any], graph: str, versions: dict[str, str], **more: Any) -> Execution:
        """The run that has the key; one that was interrupted goes on; else, and without a key, a new one. Raises `InputError`."""
        if not (name := self._options.run):
            return self._begin(program, given, graph, versions, **more)
        execution = self._engine.running(name)
        if execution is None or execution.started is None:
            events = await self.journal.read(name)
            execution = self._engine.running(name)  # another caller may have begun it while we looked
            if execution is None and not events:
                return self._begin(program, given, graph, versions, run=name, **more)
            if execution is None or execution.started is None:
                execution = Execution(name, self.journal, events)
        label = more.get("label", self._labelled(program))
        asked = Request(graph, given, more.get("parent", ""), steady(more.get("values", {})), label)
        if execution.of != asked:
            raise self._options.taken(name, execution.of, asked)
        if execution.finished is None and execution.started is not None and execution is not self._engine.running(name):
            return await self._taken(name, execution.started)
        return execution.listen(self._options.live)

    # Runs that are there already

    async def resume(self, run: str, *, by: str = "", ready: bool = False) -> Run[Any]:
        """Goes on with a run that was interrupted, or that waits; on the workflow that it began with. One that has ended is just there.

        Calls that have an end are not made again. Raises `InputError` E020 for a run that is not there, `JournalError` J022 where
        another process has it in hand, `OrchestraError` E019 where what it stored cannot be read, T009 or T005 for another tool or none;
        with `ready`, `FleetError` where a model that the rest surely asks cannot be had now, and the run would fail for that.
        """
        self._options.forkless()
        first, events = await self._begun(run)
        execution = self._engine.running(run) or Execution(run, self.journal, events)
        if execution.finished is None and self._engine.running(run) is None:
            execution = await self._taken(run, first, by, ready)
        return Run(execution.listen(self._options.live), plainly, by=by or self._options.by)

    async def _taken(self, run: str, started: RunStarted, by: str = "", ready: bool = False) -> Execution:
        from orchestra.app.code_changes import agents_ahead, check

        program, events = await restored(self._project, self.journal, started), await self._events(run)
        check(self._project, program, run, events, missing=self._troupe is not None)
        if self._troupe is not None:
            await self._troupe.prepare(program, agents_ahead(program, events) if ready else ())
        workers = await self._recalling(started, program) if started.parent else None
        try:
            return await self._engine.resume(program, run, by=by or self._options.by, workers=workers, live=self._options.live)
        except OrchestraError as error:
            if error.code != ENDED:
                raise
            return Execution(run, self.journal, await self._events(run))  # another process brought it to its end meanwhile

    async def _recalling(self, started: RunStarted, program: Program) -> Workers:
        """The workers of a fork: they know what its parent was answered."""
        from orchestra.app.fork_effects import heir, orphan

        again = started.options.get("again") is True
        try:
            return (await heir(self._project, self._engine, *await self._begun(started.parent), program, again=again)).workers
        except OrchestraError:  # the parent was deleted, or cannot be read any more
            return orphan(self._engine, started.parent, program, again=again)

    async def cancel(self, run: str, *, by: str = "") -> None:
        """Asks a run to end, wherever it is. One that nobody has in hand ends at once, even if it cannot be resumed. Raises E020."""
        if isinstance((await self._events(run))[-1], RunFinished):
            return
        by = by or self._options.by
        if (execution := self._engine.running(run)) is not None:
            execution.cancel(by)
            await execution.wait()
            return
        try:
            await self.journal.post(run, Letter(kind="cancel", by=by, at=self._engine.clock.now()))
            await self._engine.close_off(run, by)
        except OrchestraError as error:
            if error.code not in (HELD, ENDED):
                raise

    async def look(self, run: str) -> Seen:
        """How a run stands, whoever has it in hand: its status, what persons are asked, and its result where it has ended. Nothing of it
        is changed. Raises `InputError` E020 for a run that is not there."""
        from orchestra.app.run_status import look

        self._home.check()
        return await look(self.journal, run, self._engine.clock.now())

    async def runs(
        self,
        *,
        limit: int = 50,
        workflow: str = "",
        status: RunStatus | Collection[RunStatus] | None = None,
        tags: Tags | None = None,
        since: When = None,
        until: When = None,
        before: str = "",
    ) -> Sequence[RunSummary]:
        """The latest runs, newest first: those of a `workflow` alone, of one `status` or several, with all of these `tags`, that began at
        `since` or later and before `until` (a moment, or so long ago), and behind the run `before` in this order, for the next page.
        Raises `InputError` C010 for what is no status or no moment, E020 for a `before` that is not there, E040 for tags that are none."""
        from orchestra.app.run_status import Wanted, listed

        self._home.check()
        wanted = Wanted.of(limit, workflow, status, tags, since, until, before)
        return await listed(self.journal, self._engine.clock.now(), wanted)

    async def asked(self, run: str) -> list[Asked]:
        """What persons are asked by a run, and have not answered. Raises `InputError` E020 for one that is not there."""
        events = await self._events(run)
        return unanswered(questions(events), await self.journal.letters(run, opened(events)))

    async def answer(
        self, run: str, value: Any, *, node: str = "", by: str = "", shown: str = "", asked: int = 0, declined: str = "", gave: bool = False
    ) -> None:
        """Answers what a run asks, or says why nobody does (`declined`): the node is withheld then. The letter lies in the run's inbox when
        this returns: who has the run, or resumes it, takes it. Of a call in doubt, `gave` says that it happened, and that `value` is what
        it gave.

        `node` may be left out where one question is open. `shown` is the digest of what the person saw (`Asked.shown`), and `asked` the
        number of the event (`Asked.seq`): of a call in doubt the same may be asked again. They are left out only where nobody has read
        a question: the answer is to that of now then, whatever it says. Raises `InputError` E020 for a run that is not there, E021 where
        nobody asks or an answer lies there already, E022 for an answer that is none, or to a question that has changed, E037 to one that
        is asked no more, or again where `asked` does not say which, E031 late, T009 where a tool that may yet be called has changed.
        """
        events, now = await self._events(run), self._engine.clock.now()
        one = meant(events, run, await self.journal.letters(run, opened(events)), node, shown, asked)
        told: dict[str, Any] = {"shown": shown or one.shown, "asked": number_of(one), "at": now, "declined": declined or "", "gave": gave}
        letter = Letter(kind="answer", node=one.node, value=None if declined else jsonable(value), by=by or self._options.by, **told)
        if refusal := self._engine.objection(one, letter):
            raise refused(one, run, refusal, late=0 < one.due <= now, gave=gave)
        if (handle := self._engine.running(run)) is None:
            from orchestra.app.code_changes import stands

            await stands(self._project, self.journal, events)
        await posted(self.journal, run, letter, opened(events))
        if handle is not None:
            handle.told(one)

    async def fork(self, run: str, step: Step[..., Any] | None = None, /, **inputs: Any) -> Fork:
        """A new run of a run's workflow as it is today, or of `step`, on its inputs; `inputs` replace some of them.

        Pure calls of which nothing has changed are answered from the old run, and so is what it did in the world; a call that might do it
        a second time fails with E024, unless the option `again` is set. What the option `values` gives, and what was given before, is the
        outcome of its node: nothing is called for it, and what depends on it is made anew. Options hold as in `start`: with a key, there
        is one such fork; `accept` stays what it was. Raises `InputError` E020, E033 for a value that no node takes, and as `start`.
        """
        from orchestra.app.fork_effects import heir
        from orchestra.app.fork_overrides import Before, values_of
        from orchestra.app.reuse import inherited

        first, events = await self._begun(run)
        if self._options.accept is None and (accept := accepted_by(first)) is not None:
            return await self.options(accept=accept).fork(run, step, **inputs)
        step = step or self.find(first.workflow)
        made = self._project.compiled(step, self._options.accept)
        program = made.program
        given = bound(program, (), {**{name: value for name, value in first.inputs.items() if name in program.inputs}, **inputs})
        if self._troupe is not None:
            await self._troupe.prepare(program)
        graph, versions = parcel(self._project, made).put(self.journal)
        program = self._told(program)
        old = await heir(self._project, self._engine, first, events, program, again=self._options.again)
        values = values_of(program, self._options, Before(first, None if inputs else events, old.changes), given)
        more = {"parent": run, "workers": old.workers, "label": inherited(first, self._labelled(program)), "values": values}
        execution = await self._once(program, given, graph, versions, **more, tags=first.tags)
        try:
            await execution.begun()
        except (asyncio.CancelledError, OrchestraError) as error:
            raise left(execution, error, keyed=self.keyed)  # noqa: B904 - it has its cause
        return Fork(Run(execution, step.read, by=self._options.by), old.changes, values)

    async def whatif(self, run: str, instead: Mapping[str, Card | Contract] | None = None, /, *, workflow: str = "") -> Rehearsal:
        """What a run that has ended would have come to with other agents, by the names that its workflow knows them by; or, without
        any, with everything as it is today: `workflow` is its file, where it has no name here. Nothing is recorded, no tool with effects
        is called, no person is asked. Raises `InputError` E020, E025 for a run that has not ended, and what compiling it anew raises."""
        from orchestra.app.whatif import whatif

        self._options.forkless()
        label = join((self._options.label or "public", WITHIN.get()))
        return await whatif(self._project, self._engine, self._troupe, await self._events(run), instead, named=workflow, label=label)

    async def replay(self, run: str) -> Replayed:
        """A run's events held against what the engine decides today, on the workflow that the run stored. Raises `InputError` E020."""
        from orchestra.engine.replay import replay

        first, events = await self._begun(run)
        return replay(await restored(self._project, self.journal, first, asking=False), events)

    async def _begun(self, run: str) -> tuple[RunStarted, list[Event]]:
        """How a run began, and all of its events."""
        events = await self._events(run)
        first = events[0]
        if not isinstance(first, RunStarted):
            raise nowhere(run)
        return first, events

    async def _events(self, run: str) -> list[Event]:
        self._home.check()
        if not (events := await self.journal.read(run)):
            raise nowhere(run)
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
    ) -> Ruling:
        """What the checks say of an answer: a text, or a model with fields of type `Quote`. Without checks or a combination, `quote`.

        A text is a quote as a whole where the check `quote` is asked for; of a dict the fields `quote` and `quotes` are quotes.
        Checks that ask agents run these, each question as a run of its own; those that ask nobody leave no trace. `inputs` is what the
        answer was made from, for `rederive` and `agree`; `confidence` is how sure its producer was, in [0, 1].

        `combined` names the agent whose answer it is, or the file of a combination: its checks are asked, and what they say becomes one
        score, as with `score: combined`. It is accepted from `accept` on; where that is not said, by the agent's certificate over the
        combined score (`ruling.promise`), or from 0.5 on. With `back_off` the parts that `entailment` does not pass are left out of the
        judgement: `ruling.dropped` are these, and `ruling.rest(answer)` is the answer as JSON without them.

        Raises `InputError` V010 for what is no check, V011 for an agent or a tool that is not there, V014 for an `accept` or a `confidence`
        that is none, and with `combined` what `orchestra.app.check_answer.weighed` does."""
        from orchestra.app import check_answer
        from orchestra.verification.session import Asked, go_on, start

        self._options.forkless()
        given = check_answer.Answer(value=answer, against=against, inputs=inputs or {}, confidence=confidence)
        situation, own = check_answer.situation(self._project, given, checks, accept, combined=combined, back_off=back_off)
        stands = await check_answer.aside(self._engine.clock, start, situation)
        while isinstance(stands, Asked):
            self._home.check()
            alone = dataclasses.replace(self._options, idempotency_key="", live=False, accept=None)  # a key, and a score, are for one run
            view = Orchestra(self._project, self._engine, self._troupe, self._home, alone)
            asked = [(one, view.options(sample=one.sample or None).run) for one in stands.questions]
            heard = [check_answer.heard(run, self._project, one, own, self.label) for one, run in asked]
            stands = await check_answer.aside(self._engine.clock, go_on, situation, stands, await asyncio.gather(*heard))
        return stands

    async def costs(
        self, by: Key | Iterable[Key] = "workflow", *, since: When = None, until: When = None, workflow: str = "", tags: Tags | None = None
    ) -> Costs:
        """What the journal's runs cost, summed up by one key or several (`orchestra.app.costs.KEYS`, `tag:NAME`):
        those of `runs` with the same
        `since`, `until`, `workflow` and `tags`. Runs that cannot be read are named, and left out. Raises `InputError` C043 for what is no
        key, E040 for tags that are none, F100 where the fleet's file, which has the prices, cannot be read."""
        from orchestra.app.costs import costs, servers

        self._home.check()
        return await costs(self.journal, servers(self.settings), by, since=since, until=until, workflow=workflow, tags=tags)

    async def load(self, agent: str) -> list[str]:
        """Has the local servers that run load an agent's adapter, before its first call; gives their names. Raises `InputError` A001."""
        self._home.check()
        card = self.registry.card(agent)
        return await self._troupe.load(card) if self._troupe is not None else []

    async def fleet_status(self, *, probe: bool = False) -> FleetStatus:
        """What is known of the fleet's servers, and whether they can serve (`can_serve`); it has none where other `workers` are used.

        Only the supervisor of local servers is asked; with `probe` endpoints too, for 5 seconds at most. Raises `InputError` F100, F102.
        """
        from orchestra.fleet.status import FleetStatus

        self._home.check()
        return await self._troupe.status(probe=probe) if self._troupe is not None else FleetStatus()
