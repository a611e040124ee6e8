"""One process per training: two processes would corrupt each other's checkpoints."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.core.errors import InputError
from orchestra.core.file_locks import lock_file


@contextmanager
def lock_training(folder: Path) -> Iterator[None]:
    """Holds an exclusive lock on a folder of checkpoints. The folder need not exist. The lock ends with the process.

    Raises:
        InputError: N125 if another process holds the lock.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            lock_file(file.fileno())
        except OSError as error:
            hint = "wait for it, or use another --seed"
            raise InputError("N125", f"another process runs this training, in {folder}", hint=hint) from error
        yield
