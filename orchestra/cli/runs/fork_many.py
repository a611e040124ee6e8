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
from orchestra.app.run_status import Wanted, begun, listed
from orchestra.cli.context import Opener, settings
from orchestra.cli.output import note, print_json, say
from orchestra.cli.run.watch import WHO
from orchestra.cli.runs.batch_marks import Marks, next_key, next_run
from orchestra.cli.runs.find import find_run
from orchestra.cli.runs.fork import step_of
from orchestra.cli.runs.resume import AT_ONCE, opened
from orchestra.cli.task_window import in_order
from orchestra.core.error_codes import HELD
from orchestra.core.errors import OrchestraError
from orchestra.core.protocols import EVERY
from orchestra.workflows.model import Budget

SHOWN = 5
"""Runs that are named of those that are left out."""
BAD = ("failed", "budget", "cancelled", "not forked")


@dataclass(frozen=True, slots=True)
class Several:
    """Which runs are to be made again: those that are named, and of a period those that failed."""

    runs: Sequence[str]
    period: tuple[float, float] | None
    """When those began that failed; None for named ones alone."""
    budget: Budget | None
    fleet: str | None
    effects: bool
    """Whether effects that the runs had come about again."""


@dataclass(frozen=True, slots=True)
class _End:
    """What became of a run that was to be made again; `run` is the new one."""

    run: str
    parent: str
    workflow: str
    status: str
    reason: str = ""


async def fork_all(open_: Opener, asked: Several, *, as_json: bool) -> int:
    """Makes runs again, oldest first; prints a line for each, and gives 1 where one of them failed or was not forked. Being cancelled, it
    lets go of the forks, and says how to go on with them."""
    async with opened(open_, asked.runs[0] if asked.runs else "failed", None, settings(fleet=asked.fleet)) as orchestra:
        view, bad = orchestra.options(budget=asked.budget, again=asked.effects), False
        failed, lost = ({}, []) if asked.period is None else await _failed(orchestra, *asked.period)
        found = dict.fromkeys([await find_run(orchestra.journal, name) for name in asked.runs], "") | failed
        if lost:
            runs, more = ", ".join(lost[:SHOWN]), ", …" if len(lost) > SHOWN else ""
            note(f"{len(lost)} left out that failed: what was made of them was deleted, and may have done something: {runs}{more}")
            note(f"to make one again all the same: orchestra runs fork {lost[0]}")
        elif not found and not as_json:
            say("no run failed that was not made again since")

        async def one(run: str) -> _End:
            return await _again(view, run, found[run], kept=run in failed)

        async with aclosing(in_order(found, one, AT_ONCE)) as ends:
            for _ in found:
                try:
                    end = await anext(ends)
                except asyncio.CancelledError:
                    note("to go on with all of them, give the same command again")
                    raise
                bad = bad or end.status in BAD
                if as_json:
                    print_json({"run": end.run, "parent": end.parent, "workflow": end.workflow, "status": end.status, "reason": end.reason})
                else:
                    made = f"{end.run}  " if end.run else ""
                    say(f"{made}{end.workflow}  {end.status}, forked from {end.parent}{f': {end.reason}' if end.reason else ''}")
    return int(bad)


async def _failed(orchestra: Orchestra, since: float, until: float) -> tuple[dict[str, str], list[str]]:
    """The runs of a period that failed and were not made again, oldest first, those of an evaluation left out. Each with its fork where
    that was cut off: it takes the place of the run. And those whose fork is deleted."""
    runs = await listed(orchestra.journal, time.time(), Wanted(EVERY, since=since))
    marks, done, forks = Marks(orchestra.journal), set[str](), dict[str, list[str]]()
    async for run, first in begun(orchestra.journal, runs):
        if first.options.get("purpose"):
            done.add(run)
        elif first.parent:
            forks.setdefault(first.parent, []).append(run)
    cut_off = {run.run for run in runs if run.status == "interrupted"}
    found, lost = dict[str, str](), list[str]()
    for run in (run.run for run in reversed(runs) if run.status == "failed" and run.started < until and run.run not in done):
        if run in forks:
            if forks[run] == [fork := next_run(run)] and fork in cut_off:
                found[run] = fork
        elif not (said := await marks.followed(run)):
            found[run] = ""
        elif said == "lost":
            lost.append(run)
    return found, lost


async def _again(view: Orchestra, old: str, fork: str, *, kept: bool) -> _End:
    """How a run ends that is made again, by the fork of it that was cut off if there is one, or why it cannot be. With `kept` it has one
    such fork, whoever makes it."""
    going: Run[Any] | None = None
    workflow = ""
    try:
        workflow, step = await step_of(view, old)
        if kept and not fork and await Marks(view.journal).followed(old):
            return _End("", old, workflow, "not forked", "another try was made meanwhile")
        if fork:
            going = await view.resume(fork, by=WHO)
        else:
            if kept and await Marks(view.journal).unwritten(old):
                Marks(view.journal).begin(next_run(old))  # the batch has still to write what comes of it
            going = (await view.options(idempotency_key=next_key(old) if kept else "").fork(old, step)).run
        result = await going.pause()
    except OrchestraError as error:
        run = going.id if going is not None else fork
        if error.code == HELD:
            return _End(run, old, workflow, "running", f"{error.code}: {error.message}")
        hint = f"; orchestra runs fork {fork}" if fork else ""
        return _End(run, old, workflow, "not forked", f"{error.code}: {error.message}{hint}")
    except asyncio.CancelledError:
        if going is not None:  # it is let go of
            note(f"stopped; go on with: orchestra runs resume {going.id}")
        raise
    if result is None:
        return _End(going.id, old, workflow, "waiting", f"orchestra runs answer {going.id}")
    return _End(going.id, old, workflow, result.status, result.error.message if result.error is not None else "")
