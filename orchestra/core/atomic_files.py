"""What is written whole or not at all: whoever reads meanwhile sees what was there before, and so does who comes after a writer that was
killed."""

from __future__ import annotations

import errno
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

_DESCRIPTOR_FOLDER = re.compile(r"/proc/.*/fd")


def write_file(path: Path, data: bytes) -> None:
    """Puts a file in its place, whoever else does so too. Raises `OSError`; what was there is there then."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def open_private_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that only its owner may read, put in its place once it is whole; a link that stands there gives way to it. Raises `OSError`;
    what was there is there then.

    What is no regular file, or a way to what is open (`/dev/stdout`), is written to as it stands; and so is a file in a folder that takes
    no other (read-only, not one's own, a single file that was mounted), which keeps its rights.
    """
    if (there := _open_special_file(path)) is not None:
        with there:
            yield there
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS) or not path.is_file() or path.is_symlink():
            raise
        with _open_in_place(path) as there:
            yield there
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        try:
            os.replace(partial, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            with partial.open("rb") as whole, _open_in_place(path) as there:
                shutil.copyfileobj(whole, there)
            partial.unlink()
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _open_special_file(path: Path) -> IO[bytes] | None:
    """What a path leads to, opened, where that is no regular file, or a descriptor, as `/dev/stdout` is; else None."""
    place = path
    for _link in range(40):  # as many as Linux follows
        folder = os.path.realpath(place.parent)
        if folder == os.path.realpath("/proc/self/fd") and place.name.isdecimal():
            return os.fdopen(os.dup(int(place.name)), "wb")  # opened anew, what `>>` adds to would be cut off
        if folder in ("/dev", "/dev/fd") or _DESCRIPTOR_FOLDER.fullmatch(folder):
            return path.open("wb")
        if not place.is_symlink():
            break
        place = Path(folder, os.readlink(place))
    return path.open("wb") if path.exists() and not path.is_file() else None


def _open_in_place(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)), "wb")


def replace_folder(new: Path, place: Path) -> None:
    """Replaces a folder by a new one. If the writer is killed in between, `recover_folder` restores the old one. Raises `OSError`."""
    old = _backup_path(recover_folder(place))
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(place: Path) -> Path:
    """A folder that is written by `replace_folder`; brought back first where a writer was killed in the middle."""
    if not place.exists() and _backup_path(place).is_dir():
        os.replace(_backup_path(place), place)
    return place


def _backup_path(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")
