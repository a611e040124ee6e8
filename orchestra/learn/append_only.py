"""Files that are only ever added to: one writer at a time, and each addition on disk when it returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.core.file_locks import hold


@contextmanager
def locked(path: Path) -> Iterator[int]:
    """The file, open, and nobody else's as long as it is."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        hold(file, wait=True)
        yield file
    finally:
        os.close(file)


def read(file: int, most: int) -> bytes:
    """What stands in it, up to one byte more than `most`."""
    with os.fdopen(os.dup(file), "rb") as copy:
        copy.seek(0)
        return copy.read(most + 1)


def write(file: int, data: bytes, at: int) -> None:
    """Adds to the first `at` bytes: what stands behind them was cut off when it was written, and never relied on."""
    os.ftruncate(file, at)
    os.lseek(file, at, os.SEEK_SET)
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
