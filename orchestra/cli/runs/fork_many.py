"""What `orchestra runs fork` does with several runs, or with those that failed: each is made again, a line each.

Of those that failed the newest run speaks: one that was forked, or followed by another try, is not the last word of its row. Forks of them
have an id that is made from the run's, so that two commands make one fork, and one that was cut off is gone on with.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestra.app.orchestra import Orchestra
from orchestra.app.run import Run
from orchestra.app.run_status import RunListQuery, latest_runs, started_events
from orchestra.cli.context import Opener, load_settings
from orchestra.cli.output import print_json, print_note, print_text
from orchestra.cli.run.watch import COMMAND_LINE_AUTHOR
from orchestra.cli.runs.batch_marks import BatchMarks, next_key, next_run
from orchestra.cli.runs.find import find_run
from orchestra.cli.runs.fork import step_of
from orchestra.cli.runs.resume import MAX_CONCURRENT_RUNS, open_recorded_orchestra
from orchestra.cli.task_window import map_in_order
from orchestra.core.error_codes import LEASE_HELD
from orchestra.core.errors import OrchestraError
from orchestra.core.protocols import NO_LIMIT
from orchestra.workflows.model import Budget

MAX_RUNS_SHOWN = 5
"""Runs that are named of those that are left out."""
FAILURE_STATUSES = ("failed", "budget", "cancelled", "not forked")


@dataclass(frozen=True, slots=True)
class ForkManyRequest:
    """Which runs are to be made again: those that are named, and of a period those that failed."""

    runs: Sequence[str]
    period: tuple[float, float] | None
    """When those began that failed; None for named ones alone."""
    budget: Budget | None
    fleet: str | None
    repeat_effects: bool
    """Whether effects that the runs had come about again."""


@dataclass(frozen=True, slots=True)
class _ForkEnd:
    """What became of a run that was to be made again; `run` is the new one."""

    run: str
    parent: str
    workflow: str
    status: str
    reason: str = ""


async def fork_all(open_: Opener, request: ForkManyRequest, *, as_json: bool) -> int:
    """Makes runs again, oldest first; prints a line for each, and gives 1 where one of them failed or was not forked. Being cancelled, it
    lets go of the forks, and says how to go on with them."""
    async with open_recorded_orchestra(
        open_, request.runs[0] if request.runs else "failed", None, load_settings(fleet=request.fleet)
    ) as orchestra:
        view, bad = orchestra.options(budget=request.budget, again=request.repeat_effects), False
        failed, lost = ({}, []) if request.period is None else await _find_failed(orchestra, *request.period)
        found = dict.fromkeys([await find_run(orchestra.journal, name) for name in request.runs], "") | failed
        if lost:
            runs, more = ", ".join(lost[:MAX_RUNS_SHOWN]), ", …" if len(lost) > MAX_RUNS_SHOWN else ""
            print_note(
                f"{len(lost)} left out that failed: what was made of them was deleted, and may have done something: {runs}{more}"
            )
            print_note(f"to make one again all the same: orchestra runs fork {lost[0]}")
        elif not found and not as_json:
            print_text("no run failed that was not made again since")

        async def one(run: str) -> _ForkEnd:
            return await _fork_run(view, run, found[run], kept=run in failed)

        async with aclosing(map_in_order(found, one, MAX_CONCURRENT_RUNS)) as ends:
            for _ in found:
                try:
                    end = await anext(ends)
                except asyncio.CancelledError:
                    print_note("to go on with all of them, give the same command again")
                    raise
                bad = bad or end.status in FAILURE_STATUSES
                if as_json:
                    print_json(
                        {
                            "run": end.run,
                            "parent": end.parent,
                            "workflow": end.workflow,
                            "status": end.status,
                            "reason": end.reason,
                        }
                    )
                else:
                    made = f"{end.run}  " if end.run else ""
                    print_text(
                        f"{made}{end.workflow}  {end.status}, forked from {end.parent}{f': {end.reason}' if end.reason else ''}"
                    )
    return int(bad)


async def _find_failed(orchestra: Orchestra, since: float, until: float) -> tuple[dict[str, str], list[str]]:
    """The runs of a period that failed and were not made again, oldest first, those of an evaluation left out. Each with its fork where
    that was cut off: it takes the place of the run. And those whose fork is deleted."""
    runs = await latest_runs(orchestra.journal, time.time(), RunListQuery(NO_LIMIT, since=since))
    marks, done, forks = BatchMarks(orchestra.journal), set[str](), dict[str, list[str]]()
    async for run, first in started_events(orchestra.journal, runs):
        if first.options.get("purpose"):
            done.add(run)
        elif first.parent:
            forks.setdefault(first.parent, []).append(run)
    cut_off = {run.run for run in runs if run.status == "interrupted"}
    found, lost = dict[str, str](), list[str]()
    for run in (
        run.run for run in reversed(runs) if run.status == "failed" and run.started < until and run.run not in done
    ):
        if run in forks:
            if forks[run] == [fork := next_run(run)] and fork in cut_off:
                found[run] = fork
        elif not (said := await marks.follow_state(run)):
            found[run] = ""
        elif said == "lost":
            lost.append(run)
    return found, lost


async def _fork_run(orchestra: Orchestra, old: str, fork: str, *, kept: bool) -> _ForkEnd:
    """How a run ends that is made again, by the fork of it that was cut off if there is one, or why it cannot be. With `kept` it has one
    such fork, whoever makes it."""
    going: Run[Any] | None = None
    workflow = ""
    try:
        workflow, step = await step_of(orchestra, old)
        if kept and not fork and await BatchMarks(orchestra.journal).follow_state(old):
            return _ForkEnd("", old, workflow, "not forked", "another try was made meanwhile")
        if fork:
            going = await orchestra.resume(fork, by=COMMAND_LINE_AUTHOR)
        else:
            if kept and await BatchMarks(orchestra.journal).is_unwritten(old):
                BatchMarks(orchestra.journal).mark_begun(next_run(old))  # the batch has still to write what comes of it
            going = (await orchestra.options(idempotency_key=next_key(old) if kept else "").fork(old, step)).run
        result = await going.wait_until_blocked()
    except OrchestraError as error:
        run = going.id if going is not None else fork
        if error.code == LEASE_HELD:
            return _ForkEnd(run, old, workflow, "running", f"{error.code}: {error.message}")
        hint = f"; orchestra runs fork {fork}" if fork else ""
        return _ForkEnd(run, old, workflow, "not forked", f"{error.code}: {error.message}{hint}")
    except asyncio.CancelledError:
        if going is not None:  # it is let go of
            print_note(f"stopped; go on with: orchestra runs resume {going.id}")
        raise
    if result is None:
        return _ForkEnd(going.id, old, workflow, "waiting", f"orchestra runs answer {going.id}")
    return _ForkEnd(going.id, old, workflow, result.status, result.error.message if result.error is not None else "")
