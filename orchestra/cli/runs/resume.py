"""What `orchestra runs answer`, `resume` and `cancel` do: runs that are there already, answered, gone on with, ended."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from orchestra.app.inputs import questions as questions_of
from orchestra.app.open_journal import recorded
from orchestra.app.orchestra import Orchestra
from orchestra.app.run import Run
from orchestra.cli.context import Opener, serving, settings
from orchestra.cli.exit_codes import STATUS_CODES
from orchestra.cli.output import note, print_json, say
from orchestra.cli.progress import Waiting
from orchestra.cli.run import questions
from orchestra.cli.run.watch import WHO, Manner, Watch
from orchestra.cli.runs.find import find_run, nothing, status_of
from orchestra.cli.signals import Stop
from orchestra.cli.task_window import in_order
from orchestra.core.error_codes import HELD
from orchestra.core.errors import InputError, OrchestraError
from orchestra.core.events import Asked, RunFinished
from orchestra.core.events import opened as opened_letters
from orchestra.core.protocols import EVERY
from orchestra.core.settings import Settings

AT_ONCE = 8
"""Runs that `resume --all` goes on with at once."""
PATIENCE = 5.0
"""Seconds that `cancel` waits for whoever has the run in hand."""
POLL = 0.2


@asynccontextmanager
async def opened(open_: Opener, name: str, waiting: Waiting | None = None, chosen: Settings | None = None) -> AsyncIterator[Orchestra]:
    """An `Orchestra` on a journal that is there. Raises `InputError` C018."""
    chosen = chosen or settings()
    if not recorded(chosen):
        raise nothing(repr(name))
    async with serving(open_, chosen, waiting) as orchestra:
        yield orchestra


async def resume(open_: Opener, name: str, by: str, manner: Manner, stop: Stop) -> int:
    """Goes on with a run, and shows what came of it; gives the exit code."""
    waiting = Waiting()
    async with opened(open_, name, waiting) as orchestra:
        run = await find_run(orchestra.journal, name)
        return await _go_on(orchestra, run, by, manner, stop, waiting)


async def _go_on(orchestra: Orchestra, run: str, by: str, manner: Manner, stop: Stop, waiting: Waiting) -> int:
    events = await orchestra.journal.read(run)
    before, ended = len(events), isinstance(events[-1], RunFinished)
    going = await orchestra.options(live=manner.live).resume(run, by=by)
    ending = await Watch(orchestra, going, stop, waiting, manner, after=before).ending()
    ending.show(manner)
    if ended and ending.status in ("failed", "budget", "cancelled"):
        note(f"it had ended; to go on with what it came to: orchestra runs fork {run}")
    return ending.code


async def resume_all(open_: Opener, by: str, *, as_json: bool, stop: Stop) -> int:
    """Goes on with all runs that were interrupted, or were answered, or ask with a deadline that has passed; prints a line for each, and
    gives 1 where one of them failed."""
    if not recorded(settings()):
        if not as_json:
            say("no run was interrupted")
        return 0
    waiting = Waiting()
    async with opened(open_, "", waiting) as orchestra:
        found = await orchestra.runs(limit=EVERY, status="interrupted")
        if not found and not as_json:
            say("no run was interrupted")

        async def one(run: str) -> tuple[str, str]:
            return await _end_of(orchestra, run, by, stop)

        failed = False
        ends = in_order([summary.run for summary in reversed(found)], one, AT_ONCE)
        for summary in reversed(found):
            status, reason = await anext(ends)
            failed = failed or status in ("failed", "budget", "not resumed")
            if as_json:
                print_json({"run": summary.run, "workflow": summary.workflow, "status": status, "reason": reason})
            else:
                say(f"{summary.run}  {summary.workflow}  {status}{f': {reason}' if reason else ''}")
    return int(failed)


async def _end_of(orchestra: Orchestra, run: str, by: str, stop: Stop) -> tuple[str, str]:
    """How a run ends, or why it cannot go on."""
    going: Run[Any] | None = None
    try:
        going = await orchestra.resume(run, by=by, ready=True)
        result = await going.pause()
    except OrchestraError as error:
        return "running" if error.code == HELD else "not resumed", f"{error.code}: {error.message}"
    except asyncio.CancelledError:
        if stop.leaving:
            note(f"stopped; go on with: orchestra runs resume {run}")
        elif going is not None:  # else its servers were coming up, and it stays as it was: interrupted
            going.cancel(WHO)
            await going.wait()
        raise
    if result is None:
        return "waiting", f"orchestra runs answer {run}"
    return result.status, result.error.message if result.error is not None else ""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer as it was typed; `value` is None where it is to be asked for at the terminal."""

    run: str
    value: str | None
    node: str = ""
    to: str = ""
    """The word of the question that its author has read."""
    by: str = ""
    later: bool = False
    declined: str | None = None
    """Why nobody answers."""
    gave: str | None = None
    """What a call in doubt gave."""


async def answer(open_: Opener, given: Answer, manner: Manner, stop: Stop) -> int:
    """Posts an answer, and goes on with the run; gives the exit code. Raises `InputError`."""
    waiting = Waiting()
    async with opened(open_, given.run, waiting) as orchestra:
        run = await find_run(orchestra.journal, given.run)
        events = await orchestra.journal.read(run)
        letters = await orchestra.journal.letters(run, opened_letters(events))
        asked = questions.meant(questions_of(events), run, given.node, given.to, letters)
        value, declined, gave = None, (given.declined or "").strip(), given.gave is not None
        if sum(said is not None for said in (given.value, given.declined, given.gave)) > 1 or (given.declined is not None and not declined):
            hint = "--decline 'your reason'" + (", or --gave VALUE" if asked.gives is not None else "")
            raise InputError("C024", f"{asked.node} takes an answer, or the reason why there is none", hint=hint)
        if given.gave is not None:
            text, as_json = questions.read(given.gave, asked.gives or {}, "--gave")
            value = questions.gave(asked, text, as_json=as_json)
        elif given.value is not None:
            takes = {"enum": list(asked.options)} if asked.options else asked.schema
            text, as_json = questions.read(given.value, takes, "the answer")
            value = questions.parsed(run, asked, text, as_json=as_json)
        elif given.declined is None:
            value, declined, gave = await _typed(run, asked)
        if (given.value, given.declined, given.gave) != (None, None, None):
            await _read_by_its_author(orchestra, given, run, asked)
        await orchestra.answer(run, value, node=asked.node, by=given.by, shown=asked.shown, asked=asked.seq, declined=declined, gave=gave)
        done = "declined" if declined else "answered"
        if given.later:
            note(f"{asked.node} is {done}; go on with: orchestra runs resume {run}")
            return 0
        try:
            return await _go_on(orchestra, run, given.by, manner, stop, waiting)
        except OrchestraError as error:
            if error.code != HELD:
                raise
    note(f"{asked.node} is {done}; another process has the run in hand and goes on with it: orchestra runs tail {run}")
    return 0


async def _read_by_its_author(orchestra: Orchestra, given: Answer, run: str, asked: Asked) -> None:
    """Lets an answer pass that can be to no other question than this one; else somebody at the terminal reads it and says so. Raises
    `InputError` E037 where nobody does."""
    events = await orchestra.journal.read(run)
    ever = sum(isinstance(one, Asked) and given.node in ("", one.node) for one in events)
    waiting = await orchestra.runs(limit=2, status="waiting") if given.run == "last" else []
    if any(one.run != run for one in waiting):
        why = f"`last` is the run {run}, and it is not the only one that waits"
    elif not given.to and ever > 1:
        why = f"this is not the first question of the run {run}"
    else:
        return
    if questions.somebody_is_here():
        sys.stderr.write(f"{questions.question_text(asked)}\n\n{why}; is this the one that you answer? [y/N] ")
        sys.stderr.flush()
        if (await questions.line_from_terminal() or "").strip().lower() in ("y", "yes"):
            return
    said = f"which question is answered? {why}; it asks now:\n\n{questions.question_text(asked)}\n"
    raise InputError("E037", said, hint=questions.same_command(run, asked, given.value, given.declined, given.gave))


async def _typed(run: str, asked: Asked) -> tuple[object, str, bool]:
    """What a person answers at the terminal; why nothing, where he declines; and whether it is what a call gave. Raises `InputError` C024
    where nobody sits there, or says nothing."""
    hint = questions.answer_command(run, asked)
    if not questions.somebody_is_here():
        raise InputError("C024", f"what is the answer?\n\n{questions.question_text(asked)}\n", hint=hint)
    while True:
        questions.prompt(asked)
        line = await questions.line_from_terminal()
        if line is None:
            raise InputError("C024", f"{asked.node} was not answered", hint=hint)
        try:
            declined = questions.declined(asked, line)
            if declined:
                return None, declined, False
            value, gave = questions.said_at_terminal(run, asked, line)
            return value, "", gave
        except InputError as error:
            note(error.message)


async def cancel(open_: Opener, name: str, by: str, *, as_json: bool) -> int:
    """Asks a run to end, wherever it is, and says how it stands; gives 0, also where it had ended before."""
    async with opened(open_, name) as orchestra:
        run = await find_run(orchestra.journal, name)
        before = await status_of(orchestra.journal, run)
        if before in STATUS_CODES and before != "waiting":
            status, said = before, f"run {run} has ended before: {before}"
        else:
            await orchestra.cancel(run, by=by)
            status = await _end(orchestra, run)
            said = f"run {run} is {status}"
            if status not in STATUS_CODES:
                said = f"run {run} is asked to end; whoever has it in hand ends it: orchestra runs tail {run}"
    if as_json:
        print_json({"run": run, "status": status})
    else:
        say(said)
    return 0


async def _end(orchestra: Orchestra, run: str) -> str:
    """The status of a run that was asked to end, after a while at most."""
    for _ in range(round(PATIENCE / POLL)):
        events = await orchestra.journal.read(run)
        if isinstance(events[-1], RunFinished):
            return events[-1].status
        await asyncio.sleep(POLL)
    return await status_of(orchestra.journal, run)
