"""Presence: whether the process that writes a run is still there, told by a lock that dies with it.

Each opened journal holds an exclusive lock on a file of its own beside the journal. The system lets go of the lock when
the process ends, however it ends; process ids, which are given again, play no part. Whoever may enter the folder, which is its maker's
alone, may read the files of it: another user who could not would take the one who writes for gone.
"""

from __future__ import annotations

import os
import secrets
import socket
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from orchestra.core.file_locks import lock_file
from orchestra.journal.errors import process_name


def _try_lock(descriptor: int, *, shared: bool) -> bool:
    """Takes the lock and gives true, or gives false where somebody has it."""
    try:
        lock_file(descriptor, shared=shared)
    except (BlockingIOError, PermissionError):  # the second is how Windows says it
        return False
    return True


class PresenceFolder:
    """The openers whose files lie in a folder."""

    name = ""
    """Whoever looks, if he is one of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_alive(self, name: str) -> bool:
        """Whether the opener of that name still holds its lock."""
        if not name or Path(name).name != name:
            return False
        if name == self.name:
            return True
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # its file is there: what keeps us from opening it says nothing of whoever locks it
        try:
            return not _try_lock(descriptor, shared=True)
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def process_name(self, name: str) -> str:
        """The process of an opener, and its host where that is known: files of earlier versions do not say it."""
        try:
            host = (self.folder / name).read_text("utf-8", "replace")
        except OSError:
            host = ""
        return process_name(name.partition("-")[0], host)

    def inaccessible_file(self, name: str) -> Path | None:
        """The file of an opener that counts as alive only because this user may not open it; None where that tells nothing.

        The table of locks in `/proc` could not tell it either: it leaves out the processes of other containers and other machines.
        """
        try:
            os.close(os.open(self.folder / name, os.O_RDONLY))
        except PermissionError:
            return self.folder / name
        except OSError:
            return None
        return None


class SqlitePresence(PresenceFolder):
    """This opener's own lock; `name` goes into the rows of the runs that it writes."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock, and sweeps away the files of openers that are gone. Raises `OSError`."""
        folder.mkdir(mode=0o700, exist_ok=True)
        super().__init__(folder)
        while True:
            self.name = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._path = folder / self.name
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            if sys.platform != "win32":
                with suppress(OSError):  # there are mounts that know no modes
                    os.fchmod(self._descriptor, 0o644)  # whatever the mask of this process is
            os.write(self._descriptor, socket.gethostname().encode())
            # Somebody who sweeps may have taken the file for an old one between its making and its locking.
            if _try_lock(self._descriptor, shared=False) and self._path.exists():
                break
            os.close(self._descriptor)
        self._remove_stale_files()

    def is_alone(self) -> bool:
        """Whether no other opener is there."""
        return not any(self.is_alive(name) for name in os.listdir(self.folder) if name != self.name)

    def release(self) -> None:
        """Lets go of the lock and removes its file."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _remove_stale_files(self) -> None:
        for name in os.listdir(self.folder):
            if name != self.name:
                with suppress(OSError):  # what cannot be opened, or not be removed, stays
                    self._remove_if_stale(self.folder / name)

    def _remove_if_stale(self, path: Path) -> None:
        """Removes the file of an opener that is gone, under its lock: without it the file may have become another's by then."""
        descriptor = os.open(path, os.O_RDONLY)
        try:
            gone = _try_lock(descriptor, shared=True)
            if gone and sys.platform != "win32":
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if gone and sys.platform == "win32":  # where nobody can remove what anybody has open
            path.unlink(missing_ok=True)


_WRITE_LOCK = "120"
"""The byte of `-shm` that SQLite locks for a writer (https://www.sqlite.org/walformat.html#locks)."""
_LOCKS = Path("/proc/locks")


class LockHolder(NamedTuple):
    """A process that has the write lock, its name, and whether it is stopped, as by Ctrl-Z or SIGSTOP."""

    pid: int
    name: str
    is_stopped: bool


def find_lock_holder(path: Path) -> LockHolder | None:
    """Who has the write lock of a journal's file; None where that cannot be found out.

    `/proc/locks` is read, and not the lock itself: to close a descriptor of `-shm` would drop SQLite's locks of this process.
    """
    real = path.resolve()
    try:
        inode = str(os.stat(real.with_name(real.name + "-shm")).st_ino)
        locks = _LOCKS.read_text("ascii", "replace")
    except OSError:
        return None
    for line in locks.splitlines():
        # 1: POSIX  ADVISORY  WRITE 11368 fe:00:11174039 120 120
        fields = line.split()
        if (
            fields[1:4] == ["POSIX", "ADVISORY", "WRITE"]
            and fields[-2:] == [_WRITE_LOCK] * 2
            and fields[5].rpartition(":")[2] == inode
        ):
            return _describe_process(int(fields[4])) if fields[4].isdigit() and fields[4] != "0" else None
    return None


def _describe_process(process: int) -> LockHolder | None:
    """The process as `/proc` describes it: its number, its name in brackets, then its state."""
    try:
        line = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    name, _, rest = line.partition("(")[2].rpartition(")")
    return LockHolder(process, name, rest.split()[0] in ("T", "t"))
