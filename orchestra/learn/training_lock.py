"""One process a training: two that kept checkpoints in one folder would break each other's."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.core.errors import InputError
from orchestra.core.file_locks import lock_file


@contextmanager
def lock_training(folder: Path) -> Iterator[None]:
    """Holds the folder of a training's checkpoints, which need not be there yet; the lock goes with the process that has it.

    Raises `InputError` N125 where another process has it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    with (folder.parent / f".{folder.name}.lock").open("w") as file:
        try:
            lock_file(file.fileno())
        except OSError as error:
            hint = "wait for it, or give this one another --seed"
            raise InputError("N125", f"another process does this very training, in {folder}", hint=hint) from error
        yield
