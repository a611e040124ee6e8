"""Files that are only ever added to: one writer at a time, and each addition on disk when it returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.core.file_locks import lock_file


@contextmanager
def open_locked(path: Path) -> Iterator[int]:
    """The file, open, and nobody else's as long as it is."""
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        lock_file(file, wait=True)
        yield file
    finally:
        os.close(file)


def read(file: int, max_bytes: int) -> bytes:
    """Returns the content, at most `max_bytes` + 1 bytes."""
    with os.fdopen(os.dup(file), "rb") as copy:
        copy.seek(0)
        return copy.read(max_bytes + 1)


def write(file: int, data: bytes, offset: int) -> None:
    """Writes `data` at `offset` and drops what was behind: an append that was cut off, on which nothing relies."""
    os.ftruncate(file, offset)
    os.lseek(file, offset, os.SEEK_SET)
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
