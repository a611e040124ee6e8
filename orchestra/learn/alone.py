"""One process a training: two that kept checkpoints in one folder would break each other's."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.errors import InputError

if sys.platform == "win32":
    import msvcrt

    def _hold(descriptor: int) -> None:
        """Raises `OSError` where the file is somebody else's."""
        os.lseek(descriptor, 0, os.SEEK_SET)
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)

else:
    import fcntl

    def _hold(descriptor: int) -> None:
        """Raises `OSError` where the file is somebody else's."""
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Holds the folder of a training's checkpoints, which need not be there yet; the lock goes with the process that has it.

    Raises `InputError` N125 where another process has it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            _hold(file.fileno())
        except OSError as error:
            hint = "wait for it, or give this one another --seed"
            raise InputError("N125", f"another process does this very training, in {folder}", hint=hint) from error
        yield
