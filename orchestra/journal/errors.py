"""Errors of all journals, with hints."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

from orchestra.core.errors import OrchestraError
from orchestra.journal import MAX_BODY_BYTES

_TRANSIENT_CODES = frozenset({"J010", "J011", "J012", "J015"})
# Not J014: after a failed sync the content of the disk is unknown, so nothing is appended until a person has looked at
# it.


class JournalError(OrchestraError):
    """A journal that cannot be opened, read or written, or a log that was altered."""

    @property
    def is_transient(self) -> bool:
        """Whether writing may be tried again later. Nothing that was reported as durable is in doubt."""
        return self.code in _TRANSIENT_CODES

    def copy(self) -> JournalError:
        """Returns a new exception with the same content, to be raised in another caller."""
        return JournalError(self.code, self.message, location=self.location, hint=self.hint, why=self.why)


FaultListener: TypeAlias = Callable[[JournalError | None], None]
"""Is called with a fault of the journal, and with None when the fault is over."""


def ignore_faults(_fault: JournalError | None) -> None:
    """A `FaultListener` that does nothing."""


def closed_error() -> JournalError:
    """Returns the error of using a closed journal."""
    return JournalError("J002", "the journal is closed", hint="append before `close`, or open the journal again")


def never_appended_error(run: str, seq: int) -> JournalError:
    """Returns the error of waiting for an event that was never appended."""
    return JournalError(
        "J003",
        f"event {seq} of run {run} was never appended, so it cannot become durable",
        hint="append before `wait_durable`",
    )


def not_json_error(what: str, reason: str) -> JournalError:
    """Returns the error of an event, inbox message or answer that is not valid JSON."""
    hint = "use JSON values or pydantic models: null, booleans, numbers, strings, lists, and objects with string keys"
    return JournalError("J004", f"{what} cannot be written as JSON: {reason}", hint=hint)


def too_large_error(what: str, size: int) -> JournalError:
    """Returns the error of an event, inbox message or answer that is too large."""
    message = f"{what} has {size / 2**20:.1f} MiB as JSON; the journal takes {MAX_BODY_BYTES >> 20} MiB at most"
    return JournalError("J004", message, hint="write the data to a file or blob, and pass its name")


def lease_lost_error(run: str) -> JournalError:
    """Returns the error of appending to a run whose lease is held by another process."""
    return JournalError(
        "J005",
        f"another process holds the lease of run {run}",
        hint=f"see its state with `orchestra runs show {run}`; start a new run instead of continuing this one",
    )


def after_end_error(run: str, seq: int) -> JournalError:
    """Returns the error of an event after the last event of a run."""
    return JournalError(
        "J006", f"event {seq} comes after the end of run {run}", hint="start a new run: this one has ended"
    )


def run_ended_error(run: str) -> JournalError:
    """Returns the error of leasing a run that has ended, or sending a message to it."""
    return JournalError(
        "J006",
        f"run {run} has ended, so it can neither be resumed nor receive messages",
        hint=f"see its result: orchestra runs show {run}; to run it again: orchestra runs fork {run}",
    )


def process_name(number: int | str, host: str) -> str:
    """Formats the name of a process; the host may be empty."""
    return f"process {number}" + (f" on {host}" if host else "")


def this_process_name() -> str:
    """Returns the name of this process."""
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
            f"run {run} is running in a process of another user, or was left by one: "
            f"{inaccessible_file} cannot be opened",
            hint=f"if process {number} of that user has ended, remove that file, and try again",
        )
    return JournalError(
        "J022",
        f"run {run} is running in {holder or 'a live process'}",
        hint=f"watch it: orchestra runs tail {run}",
    )


def events_lost_error(run: str) -> JournalError:
    """Returns the error of leasing a run whose last events may be missing."""
    return JournalError(
        "J026",
        f"the last events of run {run} may be lost: what it did after them is unknown",
        hint=f"check it: orchestra runs show {run}; to allow its next calls (again): orchestra runs recover {run}",
    )


def no_run_error(run: str) -> JournalError:
    """Returns the error of an unknown run."""
    return JournalError("J023", f"there is no run {run!r} in this journal", hint="orchestra runs list")


def undelivered_error(run: str) -> JournalError:
    """Returns the error of deleting a run with undelivered messages."""
    return JournalError(
        "J024",
        f"run {run} has undelivered messages in the outbox",
        hint="deliver them first: journal.outbox(), journal.mark_delivered(numbers)",
    )


def damaged_event_error(run: str, seq: int, reason: str) -> JournalError:
    """Returns the error of an altered log."""
    return JournalError(
        "J013",
        f"the journal is damaged at event {seq} of run {run}: {reason}",
        hint="restore the journal from a backup; other runs may be intact: `orchestra runs show RUN`",
    )


def damaged_rows_error(what: str, reason: str) -> JournalError:
    """Returns the error of altered rows besides the events."""
    return JournalError(
        "J013",
        f"the journal is damaged at {what}: {reason}",
        hint="restore the journal from a backup; runs may be intact: `orchestra runs show RUN`",
    )


def unknown_event_error(run: str, seq: int, reason: str) -> JournalError:
    """Returns the error of an event of an unknown kind."""
    return JournalError(
        "J021",
        f"event {seq} of run {run} has a type that this version does not support: {reason}",
        hint="another version of Orchestra wrote it: pip install --upgrade orchestra-slm, or use that version",
    )
