"""Runs found: the journal opened for looking, and the run that a name stands for."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from pathlib import Path

from orchestra.app.open_journal import recorded, recorder
from orchestra.cli.context import settings_to_inspect
from orchestra.cli.output import note
from orchestra.cli.signals import between_commits
from orchestra.core.errors import InputError
from orchestra.core.events import Event, opened
from orchestra.core.protocols import Journal, Letter
from orchestra.core.untrusted_text import visible
from orchestra.journal.errors import JournalError
from orchestra.journal.history import History
from orchestra.journal.summary import standing


@asynccontextmanager
async def opened_journal() -> AsyncIterator[Journal | None]:
    """The journal; None where nothing has been recorded: looking makes none. One whose folder cannot be written is only read, and that is
    said. Raises `InputError` C018 where it is off."""
    chosen = settings_to_inspect()
    if not recorded(chosen):
        yield None
        return
    with ExitStack() as signals:  # which outlasts the closing: it commits too
        async with AsyncExitStack() as stack:
            try:
                journal = await stack.enter_async_context(recorder(chosen))
            except JournalError:
                from orchestra.journal.sqlite.readonly import FrozenJournal, is_frozen

                if not isinstance(chosen.journal, Path) or not is_frozen(chosen.journal):
                    raise
                journal = await stack.enter_async_context(FrozenJournal.open(chosen.journal))
                note(f"{chosen.journal.parent} cannot be written: the journal is only read")
            signals.enter_context(between_commits(journal))
            yield journal


@asynccontextmanager
async def opened_at(name: str) -> AsyncIterator[tuple[Journal, str]]:
    """The journal, and the id of the run that a name stands for. Raises `InputError` C018."""
    async with opened_journal() as journal:
        if journal is None:
            raise nothing(repr(name))
        yield journal, await find_run(journal, name)


def nothing(which: str) -> InputError:
    """The error of looking for a run where nothing has been recorded."""
    return InputError("C018", f"there is no run {which}: nothing has been recorded yet", hint="begin with: orchestra run NAME")


async def find_run(journal: Journal, name: str) -> str:
    """The id that a name stands for: an id, the beginning of one, or `last`. Raises `InputError` C018 for none, or more than one."""
    if name == "last":
        latest = await journal.runs(1)
        if not latest:
            raise InputError("C018", "there is no run yet", hint="begin with: orchestra run NAME")
        return latest[0].run
    found = await journal.find(name)
    if name in found or len(found) == 1:
        return name if name in found else found[0]
    if found:
        raise InputError("C018", f"{len(found)} runs begin with {name!r}: {', '.join(found[:5])}", hint="give more of the id")
    raise InputError("C018", f"there is no run {name!r}", hint="orchestra runs list")


async def status_of(journal: Journal, run: str) -> str:
    """What a run does, or how it ended, as `runs list` says it; empty where it is not there any more."""
    found = await journal.summary(run)
    return standing(found, time.time()).status if found is not None else ""


async def why_interrupted(journal: Journal, run: str, events: Sequence[Event]) -> str:
    """Why nobody goes on with a run that is interrupted, and what to type."""
    if not History.of(events).rests:
        why = "the process that had it is gone"
    elif letters := await journal.letters(run, opened(events)):
        said = [
            f"{one.node} is {'declined' if one.declined else 'answered'}{_by(one)}" if one.node else f"it is asked to end{_by(one)}"
            for one in letters
        ]
        why = f"{', '.join(said)}, and nobody has it in hand"
    else:
        why = "the time to answer has passed, and nobody has it in hand"
    return f"{why}; go on with: orchestra runs resume {run}"


async def in_hand(journal: Journal, run: str) -> str:
    """Who has a run that is under way."""
    found = await journal.summary(run)
    by = f" in {found.holder}" if found is not None and found.holder else ""
    return visible(f"under way{by}; watch it: orchestra runs tail {run}")


def _by(letter: Letter) -> str:
    return f" by {letter.by}" if letter.by else ""
