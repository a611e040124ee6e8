"""Trials: one random workflow, run under one fault plan, from its start to a final end.

trial = run_trial(random_workflow(12), FaultPlan.from_seed(99))
trial.events          # the events in the store
trial.log             # the observations of the outside world
trial.violations      # errors on the way that no planned fault explains
trial.earlier         # the run that it is a fork of, or an unrelated earlier one, if any
"""

from __future__ import annotations

from typing import Any

from orchestra.core.labels import join
from orchestra.journal.errors import JournalError
from orchestra.journal.memory import MemoryJournal, MemoryStore
from orchestra.journal.summary import blob_digests
from orchestra.testing.virtual_clock import VirtualClock, run_simulated
from orchestra.workflows.model import AskNode
from orchestra.workflows.program import CompiledNode
from tests.simulation.lab.answers import FaultlessAnswers
from tests.simulation.lab.crashes import detached_task
from tests.simulation.lab.forks import RelatedRun
from tests.simulation.lab.invariants import AuditCase, audit
from tests.simulation.lab.people import decline_reason, person_answer, values_given
from tests.simulation.lab.random_workflows import RandomWorkflow
from tests.simulation.lab.stage import Trial as Trial
from tests.simulation.lab.stage import TrialRunner
from tests.simulation.lab.storms import EarlierRun, FaultPlan, refusal_code, simulated_answer


def run_trial(workflow: RandomWorkflow, plan: FaultPlan) -> Trial:
    """Runs a workflow under a fault plan."""
    trial = Trial(workflow, plan, f"r{plan.seed}", MemoryStore(), inputs=workflow.inputs, label=workflow.program.label)

    async def scene(clock: VirtualClock) -> None:
        if plan.earlier is None:
            await TrialRunner(trial, clock).run()
        else:
            await _RunPair(trial, plan.earlier, clock).run()

    try:
        run_simulated(scene, plan.seed)
    except Exception as error:  # noqa: BLE001 - any exception, also of a deadlock or a leak, is a violation
        trial.violations.append(f"I1 {type(error).__name__}: {error}")
    return trial


class _RunPair:
    """Two runs in one store: an earlier one, and the one of the trial, which may be its fork. Ended runs are deleted
    meanwhile.
    """

    def __init__(self, trial: Trial, plan: EarlierRun, clock: VirtualClock) -> None:
        self.trial, self.plan, self.clock = trial, plan, clock
        drawn, label = trial.workflow, join((plan.label, trial.workflow.program.label))
        inputs = {"text": plan.text} if plan.text else drawn.inputs
        self.earlier = Trial(
            drawn, trial.plan.for_earlier_run(plan), f"e{trial.plan.seed}", trial.store, inputs=inputs, label=label
        )
        self.journal = MemoryJournal(trial.store)

    async def run(self) -> None:
        trial, elder = self.trial, self.earlier
        trial.earlier, trial.may_fork = elder, self.plan.forked
        await TrialRunner(elder, self.clock).run_plan()
        sweeper = detached_task(self._delete_finished())
        try:
            await TrialRunner(trial, self.clock).run()
        finally:
            sweeper.cancel()
        elder.clock_jumped = elder.clock_jumped or trial.clock_jumped
        if trial.ended is not None and self.plan.deletes_later_run:
            await self._delete(trial)
        if elder.ended is None and not elder.left_waiting:
            await TrialRunner(elder, self.clock).resume()

    async def _delete_finished(self) -> None:
        for when in sorted(self.plan.deletion_times):
            await self.clock.sleep(when)
            await self._try_delete_unfinished()
            if self.earlier.ended is not None and self.earlier.deleted_events is None:
                await self._delete(self.earlier)

    async def _try_delete_unfinished(self) -> None:
        log = self.trial.store.logs.get(self.trial.run)
        if log is None or log.holder is None or log.holder._closed:
            return
        try:
            await self.journal.delete(self.trial.run)
        except JournalError as error:
            self.trial.log.count_fault(f"not deleted: {'under way' if error.code == 'J022' else error.code}")
        else:
            self.trial.violations.append("I1 an active run was deleted")

    async def _delete(self, of: Trial) -> None:
        """Deletes an ended run, after its messages were delivered, which is required."""
        ledger, store, run = self.trial.log, self.trial.store, of.run
        events = list(of.events)
        left = [message for message in await self.journal.outbox() if message.run == run]
        if left:
            try:
                await self.journal.delete(run)
            except JournalError as error:
                ledger.count_fault(f"not deleted: {'messages' if error.code == 'J024' else error.code}")
            else:
                self.trial.violations.append("I3 a run was deleted, and its messages with it")
                return
            known = {message.key for message in of.delivered}
            of.delivered += [message for message in left if message.key not in known]
            await self.journal.mark_delivered([message.number for message in left])
        await self.journal.delete(run)
        of.deleted_events = events
        ledger.count_fault(
            "deleted, the younger"
            if of is self.trial
            else "deleted, the parent"
            if self.trial.forked
            else "deleted, a neighbour"
        )
        if run in store.logs or any(giver == run for giver, _ in store.memos.values()):
            self.trial.violations.append("I7 a run was deleted, and parts of it remain")


def findings(trial: Trial) -> list[str]:
    """Returns the violations of a trial: errors on the way, and the auditor's findings; also of the earlier run."""
    found = _findings(trial, trial.earlier)
    if trial.earlier is not None:
        found += [f"{said} (the elder run)" for said in _findings(trial.earlier, trial)]
        found += _blob_findings(trial)
    return found


def _findings(trial: Trial, other: Trial | None) -> list[str]:
    storm, drawn = trial.plan, trial.workflow

    def quiet() -> FaultlessAnswers:
        def say(path: str, node: CompiledNode, question: str) -> tuple[Any, str]:
            options = node.source.options if isinstance(node.source, AskNode) else ()
            return person_answer(storm.seed, path, question, options, node.output), decline_reason(
                storm.seed, path, question
            )

        return FaultlessAnswers(
            trial.inputs,
            trial.run,
            trial.label,
            lambda call: simulated_answer(storm.seed, call),
            say,
            lambda call: refusal_code(storm.seed, call),
            storm.tiers,
            values_given(storm.seed, drawn.program),
        )

    found = list(trial.violations)
    if any(read.undurable for read in trial.subscriptions):
        found.append("I7 a subscriber received events that were not on disk")
    store = trial.store
    left = [
        message for message in store.messages.values() if message.run == trial.run and message not in trial.delivered
    ]
    case = AuditCase(
        program=drawn.program,
        events=trial.events,
        calls=trial.log.calls,
        messages=[*trial.delivered, *left],
        memo=store.memos,
        subscriptions=[(read.after, read.events) for read in trial.subscriptions],
        clock_jumped=trial.clock_jumped,
        cancelled=trial.cancelled,
        cancel_times=trial.cancel_times,
        left_waiting=trial.left_waiting,
        faultless_answers=quiet,
        related_run=None
        if other is None
        else RelatedRun(
            other.run, drawn.program, other.events, trial.may_fork, trial.informed_processes, other.log.calls
        ),
    )
    return found + (audit(case) if not found else [])


def _blob_findings(trial: Trial) -> list[str]:
    """I7: blobs that a present run refers to exist; blobs without references are gone."""
    store = trial.store
    wanted = {name for run in store.logs.values() for name in blob_digests(run.events)}
    found = [f"I7 blob {name} is lost" for name in sorted(wanted - store.blobs.keys())]
    gone = [one for one in (trial, trial.earlier) if one is not None and one.deleted_events is not None]
    orphans = {name for one in gone for name in blob_digests(one.deleted_events or ())} - wanted
    return found + [f"I7 blob {name} remains of a deleted run" for name in sorted(orphans & store.blobs.keys())]
