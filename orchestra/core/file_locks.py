"""Locks on open files. They are released when the file is closed or the process ends."""

from __future__ import annotations

import os
import sys

if sys.platform == "win32":
    import msvcrt

    def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
        """Locks a file. Windows locks bytes: one byte far behind the end. `shared` locks are not supported."""
        os.lseek(descriptor, 1 << 30, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_LOCK if wait else msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def lock_file(descriptor: int, *, wait: bool = False, shared: bool = False) -> None:
        """Locks a file.

        Args:
            descriptor: The open file.
            wait: Whether to wait until the lock is free.
            shared: Whether other shared locks are allowed.

        Raises:
            OSError: The lock is held (`EWOULDBLOCK`), or the file system does not support locks (another number).
        """
        fcntl.flock(descriptor, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
