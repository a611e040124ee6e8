"""Errors of the SQLite journal: codes for SQLite's errors, with hints."""

from __future__ import annotations

import sqlite3
from pathlib import Path

from orchestra.core.untrusted_text import escape_invisible
from orchestra.journal.errors import JournalError
from orchestra.journal.sqlite.liveness import LockHolder

_SQLITE_CODES: dict[int, tuple[str, str, str]] = {
    sqlite3.SQLITE_FULL: (
        "J010",
        "the disk or the journal is full",
        "free some space (df -h {folder}), then run again",
    ),
    sqlite3.SQLITE_READONLY: (
        "J011",
        "the journal cannot be written",
        "make it writable (ls -l {path}), or set `journal:` to another file",
    ),
    sqlite3.SQLITE_PERM: (
        "J011",
        "the journal cannot be written",
        "make it writable (ls -l {path}), or set `journal:` to another file",
    ),
    sqlite3.SQLITE_BUSY: (
        "J012",
        "another process locks the journal",
        "find it with `fuser {path}`; wait for it or end it",
    ),
    sqlite3.SQLITE_LOCKED: (
        "J012",
        "another process locks the journal",
        "find it with `fuser {path}`; wait for it or end it",
    ),
    sqlite3.SQLITE_CORRUPT: (
        "J013",
        "the journal is damaged",
        "restore {path} from a backup, or move {path}* away to start a new one",
    ),
    sqlite3.SQLITE_NOTADB: (
        "J013",
        "the file is not a journal, or its header is damaged",
        "move {path}* away, or set `journal:` to another file",
    ),
    sqlite3.SQLITE_IOERR: (
        "J014",
        "the disk failed",
        "check the system log (dmesg); open the Orchestra again on a healthy disk",
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "J015",
        "the journal cannot be opened",
        "check that {folder} is a folder that you may write",
    ),
}


SQLITE_ERRORS = (sqlite3.Error, UnicodeDecodeError)
"""Exceptions of the module `sqlite3`. For a damaged file it may fail to decode a message of SQLite."""


def from_sqlite(error: sqlite3.Error | UnicodeDecodeError, path: str, folder: str) -> JournalError:
    """Converts an error of SQLite to a coded error with a hint."""
    number: int = getattr(error, "sqlite_errorcode", None) or 0
    primary = sqlite3.SQLITE_FULL if number == sqlite3.SQLITE_IOERR_SHMSIZE else number & 0xFF
    if isinstance(error, UnicodeDecodeError) or (not primary and "decode to UTF-8" in str(error)):
        primary = sqlite3.SQLITE_CORRUPT  # this package writes only UTF-8
    code, message, hint = _SQLITE_CODES.get(
        primary, ("J019", "the journal failed", "open it again; if that fails, move {path}* away")
    )
    return JournalError(code, f"{message}: {path}", why=str(error), hint=hint.format(path=path, folder=folder))


def locked_error(path: Path, error: Exception, holder: LockHolder) -> JournalError:
    """Returns the error of a file whose write lock is held by a known process."""
    holder_text = f"process {holder.pid} ({escape_invisible(holder.name)})"
    if holder.is_stopped:
        message = f"{holder_text} locks the journal, and is stopped: {path}"
        hint = f"let it continue: kill -CONT {holder.pid} (or `fg` in its terminal); or end it: kill -9 {holder.pid}"
    else:
        message, hint = f"{holder_text} locks the journal: {path}", f"wait for process {holder.pid}, or end it"
    return JournalError("J012", message, why=str(error), hint=hint)


def disk_full_error(path: str, folder: str, free: int) -> JournalError:
    """Returns the error of a disk with too little free space."""
    code, message, hint = _SQLITE_CODES[sqlite3.SQLITE_FULL]
    return JournalError(
        code, f"{message}: {path}", why=f"{free >> 10} KiB are free", hint=hint.format(path=path, folder=folder)
    )


def from_os(error: OSError, path: str) -> JournalError:
    """Returns the error of a file or folder that the system cannot open."""
    return JournalError(
        "J015",
        f"the journal cannot be opened: {path}",
        why=str(error),
        hint=f"make {path} readable and writable, or set `journal:` to another file",
    )


def moved_error(path: str) -> JournalError:
    """Returns the error of a file that was deleted or replaced while it was open."""
    hint = "do not move the file; open the Orchestra again"
    return JournalError("J016", f"the journal was deleted or replaced while it was open: {path}", hint=hint)


def commits_missing_error(path: Path, what: str) -> JournalError:
    """Returns the error of a journal with missing durable commits."""
    return JournalError(
        "J025",
        f"the journal has lost durable commits: {path}: {what}",
        hint=f"put {path} and {path.name}-wal back if you can; else accept the loss: orchestra runs recover",
    )


def in_use_error(path: Path) -> JournalError:
    """Returns the error of accepting a loss while another process has the journal open."""
    return JournalError(
        "J027",
        f"another process has the journal open: {path}",
        hint="end all processes that use the journal, then try again",
    )
