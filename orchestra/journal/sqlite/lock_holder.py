"""The holder of a journal's write lock: which process it is, and whether it is stopped. Known on Linux, within one process namespace."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

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
        if fields[1:4] == ["POSIX", "ADVISORY", "WRITE"] and fields[-2:] == [_WRITE_LOCK] * 2 and fields[5].rpartition(":")[2] == inode:
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
