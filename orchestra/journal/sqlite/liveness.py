"""Liveness of processes, by locks that the system releases when a process ends, and the holder of SQLite's write lock.

Each open journal holds an exclusive lock on its own presence file in a folder next to the journal. The system releases
the lock when the process ends for any reason. Process ids are not used, because they are reused. Only the owner may
enter the folder, and all users who may enter it may read its files: a user who could not read them would consider a
live writer dead.
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


def _try_lock(descriptor: int, *, is_shared: bool) -> bool:
    """Takes the lock and returns true, or returns false if it is held."""
    try:
        lock_file(descriptor, shared=is_shared)
    except (BlockingIOError, PermissionError):  # PermissionError is raised by Windows
        return False
    return True


class PresenceFolder:
    """The folder of presence files."""

    name = ""
    """The own presence, if there is one."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def is_alive(self, name: str) -> bool:
        """Returns whether the presence of that name still holds its lock."""
        if not name or Path(name).name != name:
            return False
        if name == self.name:
            return True
        try:
            descriptor = os.open(self.folder / name, os.O_RDONLY)
        except FileNotFoundError:
            return False
        except OSError:
            return True  # the file exists; being unable to open it does not show who locks it
        try:
            return not _try_lock(descriptor, is_shared=True)
        except OSError:
            return True
        finally:
            os.close(descriptor)

    def process_name(self, name: str) -> str:
        """Returns the process of a presence, with its host if known. Files of earlier versions have no host."""
        try:
            host = (self.folder / name).read_text("utf-8", "replace")
        except OSError:
            host = ""
        return process_name(name.partition("-")[0], host)

    def inaccessible_file(self, name: str) -> Path | None:
        """Returns the file of a presence that only counts as alive because this user may not open it; else None.

        The lock table in `/proc` does not help: it lacks the processes of other containers and machines.
        """
        try:
            os.close(os.open(self.folder / name, os.O_RDONLY))
        except PermissionError:
            return self.folder / name
        except OSError:
            return None
        return None


class SqlitePresence(PresenceFolder):
    """The lock of this journal. `name` is stored in the rows of the runs that it writes."""

    def __init__(self, folder: Path) -> None:
        """Takes the lock and removes files of dead presences. Raises `OSError`."""
        folder.mkdir(mode=0o700, exist_ok=True)
        super().__init__(folder)
        while True:
            self.name = f"{os.getpid()}-{secrets.token_hex(6)}"
            self._path = folder / self.name
            self._descriptor = os.open(self._path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o644)
            if sys.platform != "win32":
                with suppress(OSError):  # some mounts do not support modes
                    os.fchmod(self._descriptor, 0o644)  # independent of the umask
            os.write(self._descriptor, socket.gethostname().encode())
            # Another process may have removed the file as stale between its creation and its locking.
            if _try_lock(self._descriptor, is_shared=False) and self._path.exists():
                break
            os.close(self._descriptor)
        self._remove_stale_files()

    def is_alone(self) -> bool:
        """Returns whether there is no other live presence."""
        return not any(self.is_alive(name) for name in os.listdir(self.folder) if name != self.name)

    def release(self) -> None:
        """Releases the lock and removes its file."""
        self._path.unlink(missing_ok=True)
        os.close(self._descriptor)

    def _remove_stale_files(self) -> None:
        for name in os.listdir(self.folder):
            if name != self.name:
                with suppress(OSError):  # files that cannot be opened or removed are left
                    self._remove_if_stale(self.folder / name)

    def _remove_if_stale(self, path: Path) -> None:
        """Removes the file of a dead presence while holding its lock. Without the lock, the file could belong to a new
        presence by then.
        """
        descriptor = os.open(path, os.O_RDONLY)
        try:
            is_locked = _try_lock(descriptor, is_shared=True)
            if is_locked and sys.platform != "win32":
                path.unlink(missing_ok=True)
        finally:
            os.close(descriptor)
        if is_locked and sys.platform == "win32":  # Windows cannot remove an open file
            path.unlink(missing_ok=True)


_WRITE_LOCK = "120"
"""The byte of `-shm` that SQLite locks for a writer (https://www.sqlite.org/walformat.html#locks)."""
_LOCKS = Path("/proc/locks")


class LockHolder(NamedTuple):
    """The process that holds the write lock, its name, and whether it is stopped, as by Ctrl-Z or SIGSTOP. Available on
    Linux, within one process namespace.
    """

    pid: int
    name: str
    is_stopped: bool


def find_lock_holder(path: Path) -> LockHolder | None:
    """Returns the holder of the write lock of a journal's file; None if it is unknown.

    This reads `/proc/locks` instead of testing the lock: closing a descriptor of `-shm` would drop SQLite's locks of
    this process.
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
    """Returns the process from `/proc`: its number, its name in brackets, then its state."""
    try:
        line = Path(f"/proc/{process}/stat").read_text("utf-8", "replace")
    except OSError:
        return None
    name, _, rest = line.partition("(")[2].rpartition(")")
    return LockHolder(process, name, rest.split()[0] in ("T", "t"))
