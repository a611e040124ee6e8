"""The write-ahead log as a file (https://www.sqlite.org/fileformat2.html#walformat): its length and its validity.

Only the log itself is opened. Opening and closing the database or its `-shm` file would drop SQLite's locks of this
process.
"""

from __future__ import annotations

import struct
from io import FileIO
from pathlib import Path
from typing import BinaryIO

_HEADER = struct.Struct(">IIIIIIII")
_FRAME = struct.Struct(">IIIIII")
_MAX_PAGE = 65_536
_LITTLE, _BIG = 0x377F0682, 0x377F0683


def log_path(path: Path) -> Path:
    """Returns the path of the log of a journal's file. SQLite puts it next to the target of a symbolic link."""
    real = path.resolve()
    return real.with_name(real.name + "-wal")


class WalFile:
    """The log of an open journal. Its file stays open, because it is checked after each commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: FileIO | None = None

    def has_frames(self, count: int) -> bool:
        """Returns whether the log has at least this number of frames. Frames after its end belong to an earlier round
        and have other salts.
        """
        try:
            if self._file is None:
                self._file = FileIO(self._path)
            self._file.seek(0)
            header = self._file.read(_HEADER.size)
            if len(header) < _HEADER.size:
                return False
            self._file.seek(_HEADER.size + (count - 1) * (_FRAME.size + _page_size(header)))
            frame = self._file.read(_FRAME.size)
        except OSError:
            return False
        return len(frame) == _FRAME.size and frame[8:16] == header[16:24]

    def close(self) -> None:
        """Closes the file."""
        if self._file is not None:
            self._file.close()


def has_valid_transaction(log: Path) -> bool:
    """Returns whether the first transaction of the log is valid: its header and all frames up to a commit."""
    try:
        with log.open("rb") as file:
            return _is_first_transaction_valid(file)
    except OSError:
        return False


def _is_first_transaction_valid(file: BinaryIO) -> bool:
    header = file.read(_HEADER.size)
    if len(header) < _HEADER.size:
        return False
    magic, *_, word, two = _HEADER.unpack(header)
    if magic not in (_LITTLE, _BIG):
        return False
    order = "<" if magic == _LITTLE else ">"
    sums = _checksum(order, header[:24], (0, 0))
    if sums != (word, two):
        return False
    size = _page_size(header)
    if size > _MAX_PAGE:
        return False
    while len(frame := file.read(_FRAME.size + size)) == _FRAME.size + size:
        _, commit, _, _, word, two = _FRAME.unpack_from(frame)
        sums = _checksum(order, frame[_FRAME.size :], _checksum(order, frame[:8], sums))
        if frame[8:16] != header[16:24] or sums != (word, two):
            return False
        if commit:
            return True
    return False


def _page_size(header: bytes) -> int:
    return int.from_bytes(header[8:12], "big")


def _checksum(order: str, data: bytes, sums: tuple[int, int]) -> tuple[int, int]:
    word, two = sums
    for first, second in struct.iter_unpack(order + "II", data):
        word = (word + first + two) & 0xFFFFFFFF
        two = (two + second + word) & 0xFFFFFFFF
    return word, two
