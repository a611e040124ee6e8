"""Trials: one random workflow, run through one storm, from its start to an end that nothing can take back.

trial = attempt(draw(12), Storm.of(99))
trial.events      # what the store has
trial.ledger      # what the outside world saw
trial.wrong       # what went wrong on the way, though no fault of the storm explains it
trial.elder       # where there is one: the run that it is a fork of, or its neighbour
"""

from __future__ import annotations

from typing import Any

from orchestra.core.labels import join
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.summary import named
from orchestra.testing.virtual_clock import VirtualClock, run_simulated
from orchestra.workflows.model import AskNode
from orchestra.workflows.program import CompiledNode
from tests.simulation.lab.answers import Answering
from tests.simulation.lab.crashes import nobodys_task
from tests.simulation.lab.forks import Relative
from tests.simulation.lab.invariants import Case, audit
from tests.simulation.lab.people import declines, given_before, person
from tests.simulation.lab.random_workflows import Drawn
from tests.simulation.lab.stage import Stage
from tests.simulation.lab.stage import Trial as Trial
from tests.simulation.lab.storms import Elder, Storm, answer, refusal


def attempt(drawn: Drawn, storm: Storm) -> Trial:
    """Puts a workflow through a storm."""
    trial = Trial(drawn, storm, f"r{storm.seed}", MemoryStore(), inputs=drawn.inputs, label=drawn.program.label)

    async def scene(clock: VirtualClock) -> None:
        if storm.elder is None:
            await Stage(trial, clock).play()
        else:
            await _Family(trial, storm.elder, clock).play()

    try:
        run_simulated(scene, storm.seed)
    except Exception as error:  # noqa: BLE001 - whatever comes out of a trial, a deadlock and a leak too, is what it has to tell
        trial.wrong.append(f"I1 {type(error).__name__}: {error}")
    return trial


class _Family:
    """Two runs in one store: an elder that is begun first, and the younger one of the trial, which may be its fork. Somebody deletes what
    has ended meanwhile."""

    def __init__(self, trial: Trial, plan: Elder, clock: VirtualClock) -> None:
        self.trial, self.plan, self.clock = trial, plan, clock
        drawn, label = trial.drawn, join((plan.label, trial.drawn.program.label))
        inputs = {"text": plan.text} if plan.text else drawn.inputs
        self.elder = Trial(drawn, trial.storm.before(plan), f"e{trial.storm.seed}", trial.store, inputs=inputs, label=label)
        self.desk = MemoryJournal(trial.store)

    async def play(self) -> None:
        trial, elder = self.trial, self.elder
        trial.elder, trial.may_fork = elder, self.plan.forked
        await Stage(elder, self.clock).begin()
        sweeper = nobodys_task(self._sweep())
        try:
            await Stage(trial, self.clock).play()
        finally:
            sweeper.cancel()
        elder.jumped = elder.jumped or trial.jumped
        if trial.ended is not None and self.plan.last:
            await self._remove(trial)
        if elder.ended is None and not elder.waits:
            await Stage(elder, self.clock).go_on()

    async def _sweep(self) -> None:
        for when in sorted(self.plan.sweeps):
            await self.clock.sleep(when)
            await self._try_to_remove_what_is_under_way()
            if self.elder.ended is not None and self.elder.kept is None:
                await self._remove(self.elder)

    async def _try_to_remove_what_is_under_way(self) -> None:
        log = self.trial.store.logs.get(self.trial.run)
        if log is None or log.holder is None or log.holder._closed:
            return
        try:
            await self.desk.delete(self.trial.run)
        except JournalError as error:
            self.trial.ledger.strike(f"not deleted: {'under way' if error.code == 'J022' else error.code}")
        else:
            self.trial.wrong.append("I1 a run under way was deleted")

    async def _remove(self, of: Trial) -> None:
        """Deletes a run that has ended, and delivers its messages before, which must be."""
        ledger, store, run = self.trial.ledger, self.trial.store, of.run
        events = list(of.events)
        left = [message for message in await self.desk.outbox() if message.run == run]
        if left:
            try:
                await self.desk.delete(run)
            except JournalError as error:
                ledger.strike(f"not deleted: {'messages' if error.code == 'J024' else error.code}")
            else:
                self.trial.wrong.append("I3 a run was deleted, and its messages with it")
                return
            known = {message.key for message in of.delivered}
            of.delivered += [message for message in left if message.key not in known]
            await self.desk.delivered([message.number for message in left])
        await self.desk.delete(run)
        of.kept = events
        ledger.strike(
            "deleted, the younger" if of is self.trial else "deleted, the parent" if self.trial.forked else "deleted, a neighbour"
        )
        if run in store.logs or any(giver == run for giver, _ in store.memo.values()):
            self.trial.wrong.append("I7 a run was deleted, and something of it is left")


def findings(trial: Trial) -> list[str]:
    """What does not hold of a trial: what went wrong on the way, and what the auditor says; of an elder run as well."""
    found = _findings(trial, trial.elder)
    if trial.elder is not None:
        found += [f"{said} (the elder run)" for said in _findings(trial.elder, trial)]
        found += _blobs(trial)
    return found


def _findings(trial: Trial, other: Trial | None) -> list[str]:
    storm, drawn = trial.storm, trial.drawn

    def quiet() -> Answering:
        def say(path: str, node: CompiledNode, question: str) -> tuple[Any, str]:
            options = node.source.options if isinstance(node.source, AskNode) else ()
            return person(storm.seed, path, question, options, node.output), declines(storm.seed, path, question)

        return Answering(
            trial.inputs,
            trial.run,
            trial.label,
            lambda call: answer(storm.seed, call),
            say,
            lambda call: refusal(storm.seed, call),
            storm.tiers,
            given_before(storm.seed, drawn.program),
        )

    found = list(trial.wrong)
    if any(read.early for read in trial.reads):
        found.append("I7 a subscriber saw events that were not on disk")
    store = trial.store
    left = [message for message in store.messages.values() if message.run == trial.run and message not in trial.delivered]
    case = Case(
        program=drawn.program,
        events=trial.events,
        seen=trial.ledger.seen,
        messages=[*trial.delivered, *left],
        memo=store.memo,
        reads=[(read.after, read.events) for read in trial.reads],
        jumped=trial.jumped,
        cancelled=trial.cancelled,
        cancels=trial.cancels,
        waits=trial.waits,
        quiet=quiet,
        relative=None
        if other is None
        else Relative(other.run, drawn.program, other.events, trial.may_fork, trial.heirs, other.ledger.seen),
    )
    return found + (audit(case) if not found else [])


def _blobs(trial: Trial) -> list[str]:
    """I7: what a run that is there names is there as well, whatever was deleted; and what nobody names any more is gone."""
    store = trial.store
    wanted = {name for run in store.logs.values() for name in named(run.events)}
    found = [f"I7 blob {name} is lost" for name in sorted(wanted - store.blobs.keys())]
    gone = [one for one in (trial, trial.elder) if one is not None and one.kept is not None]
    orphans = {name for one in gone for name in named(one.kept or ())} - wanted
    return found + [f"I7 blob {name} is left of a run that was deleted" for name in sorted(orphans & store.blobs.keys())]
