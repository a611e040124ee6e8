"""Locks on open files. Whoever holds one is alone with it, until the file is closed or the process ends."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
        """Holds a file. Windows locks bytes, so one is locked that is far behind the end, and knows no `shared` locks."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
        """Holds a file; with `wait` as soon as it is nobody else's, with `shared` beside others that share it.

        Raises `OSError` where it is somebody else's, and of another number than `EWOULDBLOCK` where the file system has no locks.
        """
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
