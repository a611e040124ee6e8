"""Append-only files: one writer at a time, and every append is on disk when the call returns."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from orchestra.core.file_locks import lock_file


@contextmanager
def open_locked(path: Path) -> Iterator[int]:
    """Opens a file for reading and writing and holds an exclusive lock on it."""
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
    """Writes `data` at `offset` and truncates the file there first: bytes behind it are from an interrupted append."""
    os.ftruncate(file, offset)
    os.lseek(file, offset, os.SEEK_SET)
    while data:
        data = data[os.write(file, data) :]
    os.fsync(file)
