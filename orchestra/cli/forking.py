"""What `orchestra runs fork` does with several runs, or with those that failed: each is made again, a line each."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any

from orchestra.app import Orchestra
from orchestra.cli.comparing import step_of
from orchestra.cli.finding import find_run
from orchestra.cli.going import AT_ONCE, opened
from orchestra.cli.opening import Opener, settings
from orchestra.cli.screen import note, print_json, say
from orchestra.cli.signals import Stop
from orchestra.cli.stream import in_order
from orchestra.cli.watching import WHO
from orchestra.doors import EVERY
from orchestra.errors import OrchestraError
from orchestra.run import Run
from orchestra.seen import Wanted, begun, listed
from orchestra.workflow.nodes import Budget

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


async def fork_all(open_: Opener, asked: Several, *, as_json: bool, stop: Stop) -> int:
    """Makes runs again, oldest first; prints a line for each, and gives 1 where one of them failed or was not forked."""
    async with opened(open_, asked.runs[0] if asked.runs else "failed", None, settings(fleet=asked.fleet)) as orchestra:
        found = [await find_run(orchestra.journal, name) for name in asked.runs]
        if asked.period is not None:
            found += await _failed(orchestra, *asked.period)
        if not found and not as_json:
            say("no run failed that was not made again since")
        view, bad = orchestra.options(budget=asked.budget, again=asked.effects), False

        async def one(run: str) -> _End:
            return await _again(view, run, stop)

        async with aclosing(in_order(list(dict.fromkeys(found)), one, AT_ONCE)) as ends:
            async for end in ends:
                bad = bad or end.status in BAD
                if as_json:
                    print_json({"run": end.run, "parent": end.parent, "workflow": end.workflow, "status": end.status, "reason": end.reason})
                else:
                    made = f"{end.run}  " if end.run else ""
                    say(f"{made}{end.workflow}  {end.status}, forked from {end.parent}{f': {end.reason}' if end.reason else ''}")
    return int(bad)


async def _failed(orchestra: Orchestra, since: float, until: float) -> list[str]:
    """The runs of a period that failed and were not made again, oldest first; those of an evaluation left out."""
    runs = await listed(orchestra.journal, time.time(), Wanted(EVERY, since=since))
    done = set[str]()
    async for run, first in begun(orchestra.journal, runs):
        done.add(run if first.options.get("purpose") else first.parent)
    return [run.run for run in reversed(runs) if run.status == "failed" and run.started < until and run.run not in done]


async def _again(view: Orchestra, old: str, stop: Stop) -> _End:
    """How a run ends that is made again, or why it cannot be."""
    going: Run[Any] | None = None
    workflow = ""
    try:
        workflow, step = await step_of(view, old)
        going = (await view.fork(old, step)).run
        result = await going.pause()
    except OrchestraError as error:
        return _End(going.id if going is not None else "", old, workflow, "not forked", f"{error.code}: {error.message}")
    except asyncio.CancelledError:
        if going is not None and stop.leaving:
            note(f"stopped; go on with: orchestra runs resume {going.id}")
        elif going is not None:
            going.cancel(WHO)
            await going.wait()
        raise
    if result is None:
        return _End(going.id, old, workflow, "waiting", f"orchestra runs answer {going.id}")
    return _End(going.id, old, workflow, result.status, result.error.message if result.error is not None else "")
