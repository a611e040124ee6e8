"""The commit mark: a small file next to the journal with the number of the last durable commit.

SQLite stops reading at the first frame of the write-ahead log with a wrong checksum and ignores the rest. The database
has a commit counter, and each commit writes the same number into the mark after its fsync. If the counter of a database
is lower than the mark, commits are missing.
"""

from __future__ import annotations

import os
import struct
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

from orchestra.journal.sqlite.errors import from_os

_RECORD = struct.Struct("<8s16s16sqI")
_HEAD = struct.Struct("<8s16s16sq")
_COMMIT, _CHECKPOINT = b"OrchMrk1", b"OrchChk1"
_SLOT = 64
_SLOTS = 64
"""Slot 0 is for checkpoints; commit N uses slot 1 + N % 63, so late writers never hide a greater number."""
SIZE = _SLOT * _SLOTS
_BOOT = Path("/proc/sys/kernel/random/boot_id")
_NO_BOOT = bytes(16)


class MarkContent(NamedTuple):
    """Content of a mark: the journal's identity, its last durable commit, and whether a checkpoint started and did not
    finish.
    """

    journal_id: bytes
    commit_number: int
    in_checkpoint: bool


def mark_path(path: Path) -> Path:
    """Returns the path of the mark of a journal file."""
    return path.with_name(path.name + "-mark")


def read_mark(path: Path) -> MarkContent | None:
    """Reads a mark; None if it is missing or empty. Raises `JournalError` J015 if it cannot be read."""
    try:
        with path.open("rb") as file:
            data = file.read(SIZE)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise from_os(error, str(path)) from error
    slots = [_parse_slot(data[start : start + _SLOT]) for start in range(0, len(data), _SLOT)]
    # A commit without fsync survives the end of the process, but not a power failure: after a reboot its number is not
    # valid.
    boots = (_NO_BOOT, _boot_id())
    commits = [
        (slot.number, slot.journal_id) for slot in slots[1:] if slot and slot.kind == _COMMIT and slot.boot in boots
    ]
    if not commits:
        return None
    number, journal = max(commits)
    first = slots[0]
    return MarkContent(
        journal,
        number,
        first is not None and first.kind == _CHECKPOINT and first.number != 0 and first.journal_id == journal,
    )


class CommitMark:
    """The open mark file. Writes need no fsync: they follow the fsync of the commit, so the mark is never ahead of the
    log.
    """

    def __init__(self, path: Path, *, synced: bool = True) -> None:
        """Opens or creates the file. `synced` is true if commits are on disk when they return. Raises `JournalError`
        J015.
        """
        self.path = path
        self._boot = _NO_BOOT if synced else _boot_id()
        self._is_reliable = (
            synced or self._boot != _NO_BOOT
        )  # without a boot id, a number without fsync may be ahead after a power failure
        self._lock = threading.Lock()
        try:
            self._file = os.fdopen(
                os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600), "r+b", buffering=0
            )
            if os.fstat(self._file.fileno()).st_size < SIZE:
                os.ftruncate(self._file.fileno(), SIZE)
        except OSError as error:
            raise from_os(error, str(path)) from error

    def note_commit(self, journal: bytes, number: int) -> None:
        """Writes the number of a durable commit."""
        if self._is_reliable:
            self._write(1 + number % (_SLOTS - 1), _COMMIT, journal, self._boot, number)

    @contextmanager
    def checkpoint(self, journal: bytes) -> Iterator[None]:
        """Notes a checkpoint in progress.

        The note remains if the process ends during the checkpoint. The database file may then have only some pages of
        the last commits, and needs its log.
        """
        token = int.from_bytes(os.urandom(7), "little") + 1
        self._write(0, _CHECKPOINT, journal, _NO_BOOT, token)
        yield
        if (slot := self._read(0)) is not None and slot.number == token:  # otherwise another checkpoint has started
            self._write(0, _CHECKPOINT, journal, _NO_BOOT, 0)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def _write(self, slot: int, kind: bytes, journal: bytes, boot: bytes, number: int) -> None:
        head = _HEAD.pack(kind, journal, boot, number)
        # If the mark cannot be written, it is behind: fewer missing commits are detected, and this commit is still
        # durable.
        with suppress(OSError), self._lock:
            self._file.seek(slot * _SLOT)
            self._file.write(head + zlib.crc32(head).to_bytes(4, "little"))

    def _read(self, slot: int) -> _Slot | None:
        with suppress(OSError), self._lock:
            self._file.seek(slot * _SLOT)
            return _parse_slot(self._file.read(_SLOT))
        return None


class _Slot(NamedTuple):
    kind: bytes
    journal_id: bytes
    boot: bytes
    number: int


def _parse_slot(data: bytes) -> _Slot | None:
    if len(data) < _RECORD.size:
        return None
    *values, checksum = _RECORD.unpack_from(data)
    return _Slot(*values) if checksum == zlib.crc32(data[: _HEAD.size]) else None


def _boot_id() -> bytes:
    """Returns the id of the current boot; zeros if the system has none."""
    try:
        return bytes.fromhex(_BOOT.read_text("ascii").strip().replace("-", ""))
    except (OSError, ValueError):
        return _NO_BOOT
