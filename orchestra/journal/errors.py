"""What goes wrong with a journal, and what to type then."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from orchestra.core.errors import OrchestraError
from orchestra.journal import MAX_BODY_BYTES

_TRANSIENT_CODES = frozenset({"J010", "J011", "J012", "J015"})
# Not J014: what a disk that failed to sync has kept can be told by nobody, so nothing is appended to it until somebody has looked.


class JournalError(OrchestraError):
    """A store that cannot be opened, read or written, or a log that is not what was written."""

    @property
    def is_transient(self) -> bool:
        """Whether a file that could not be written for it may be written again: nothing that was told to be on disk is in doubt."""
        return self.code in _TRANSIENT_CODES

    def copy(self) -> JournalError:
        """The same error as a new exception, for another caller to raise."""
        return JournalError(self.code, self.message, location=self.location, hint=self.hint, why=self.why)


FaultListener: TypeAlias = Callable[[JournalError | None], None]
"""Hears of a fault of a journal, and with None that it has passed."""


def ignore_faults(_fault: JournalError | None) -> None:
    """An alarm that tells nobody."""


def closed_error() -> JournalError:
    """The error of a journal that takes no more events because it was closed."""
    return JournalError("J002", "the journal is closed", hint="append before `close`, or open the journal again")


def never_appended_error(run: str, seq: int) -> JournalError:
    """The error of waiting for what nobody appended; waiting would never end."""
    return JournalError(
        "J003",
        f"event {seq} of run {run} was never appended, so it cannot become durable",
        hint="append before `wait_durable`",
    )


def not_json_error(what: str, reason: str) -> JournalError:
    """The error of an event, a letter or an answer to be remembered that is no JSON."""
    hint = "give JSON values or pydantic models: null, booleans, numbers, text, lists, and objects with text for keys"
    return JournalError("J004", f"{what} cannot be written as JSON: {reason}", hint=hint)


def too_large_error(what: str, size: int) -> JournalError:
    """The error of an event, a letter or an answer that has too many bytes."""
    said = f"{what} has {size / 2**20:.1f} MiB as JSON; the journal takes {MAX_BODY_BYTES >> 20} MiB at most"
    return JournalError("J004", said, hint="write the data to a file or blob, and pass its name on")


def lease_lost_error(run: str) -> JournalError:
    """The error of appending to a run without its lease."""
    return JournalError(
        "J005",
        f"another process has the lease of run {run}",
        hint=f"see how it goes with `orchestra runs show {run}`; start a new run instead of continuing this one",
    )


def after_end_error(run: str, seq: int) -> JournalError:
    """The error of an event for a run that has its last one."""
    return JournalError(
        "J006", f"event {seq} comes after the end of run {run}", hint="start a new run: this one has its last event"
    )


def run_ended_error(run: str) -> JournalError:
    """The error of a lease of a run that has its last event, or of a letter to it."""
    return JournalError(
        "J006",
        f"run {run} has ended, so it can neither be taken over nor get letters",
        hint=f"see what it came to: orchestra runs show {run}; to run it again: orchestra runs fork {run}",
    )


def process_name(number: int | str, host: str) -> str:
    """How a process is told of; its host may not be known."""
    return f"process {number}" + (f" on {host}" if host else "")


def this_process_name() -> str:
    """How this process is told of."""
    return process_name(os.getpid(), socket.gethostname())


def lease_held_error(run: str, holder: str = "", inaccessible_file: Path | None = None) -> JournalError:
    """Returns the error of resuming a run whose lease another process holds.

    Args:
        run: The run.
        holder: The lease holder; empty if unknown.
        inaccessible_file: The presence file of the holder, if this user may not open it.
    """
    if inaccessible_file is not None:
        number = inaccessible_file.name.partition("-")[0]
        return JournalError(
            "J022",
            f"run {run} is under way in a process of another user, or was left by one: {inaccessible_file} may not be opened",
            hint=f"if process {number} of that user has ended, remove that file, and try again",
        )
    return JournalError(
        "J022",
        f"run {run} is under way in {holder or 'a process that is alive'}",
        hint=f"watch it: orchestra runs tail {run}",
    )


def events_lost_error(run: str) -> JournalError:
    """The error of a lease of a run whose last events may be missing."""
    return JournalError(
        "J026",
        f"the last events of run {run} may be lost: what it did after them is not known here",
        hint=f"look at it: orchestra runs show {run}; if its next calls may be made (again): orchestra runs recover {run}",
    )


def no_run_error(run: str) -> JournalError:
    """The error of a run that is not there."""
    return JournalError("J023", f"there is no run {run!r} in this journal", hint="orchestra runs list")


def undelivered_error(run: str) -> JournalError:
    """The error of deleting a run whose messages nobody has delivered."""
    return JournalError(
        "J024",
        f"run {run} has messages in the outbox that are not delivered",
        hint="deliver them first: journal.outbox(), journal.mark_delivered(numbers)",
    )


def damaged_event_error(run: str, seq: int, reason: str) -> JournalError:
    """The error of a log that is not what was written."""
    return JournalError(
        "J013",
        f"the journal is damaged at event {seq} of run {run}: {reason}",
        hint="restore the journal from a copy; other runs in it may be whole: `orchestra runs show RUN`",
    )


def damaged_rows_error(what: str, reason: str) -> JournalError:
    """The error of rows beside the events that are not what was written."""
    return JournalError(
        "J013",
        f"the journal is damaged at {what}: {reason}",
        hint="restore the journal from a copy; runs in it may be whole: `orchestra runs show RUN`",
    )


def unknown_event_error(run: str, seq: int, reason: str) -> JournalError:
    """The error of an event of a kind that this version does not know."""
    return JournalError(
        "J021",
        f"event {seq} of run {run} is of a kind that this version does not know: {reason}",
        hint="another version of Orchestra wrote it: pip install --upgrade orchestra-slm; read an older run with the version that wrote it",
    )
