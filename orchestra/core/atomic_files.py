"""Atomic replacement of files and folders. Readers see the old or the new content, also after a writer was killed."""

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
    """Replaces a file atomically. Concurrent writers are safe. Raises `OSError`; the file is unchanged then."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        partial.write_bytes(data)
        os.replace(partial, path)
    except OSError:
        partial.unlink(missing_ok=True)
        raise


@contextmanager
def open_private_file(path: Path) -> Iterator[IO[bytes]]:
    """Writes a file that only its owner may read. It replaces the old file, or a link at this path, when it is
    complete.

    A path that is not a regular file, or that leads to an open descriptor (`/dev/stdout`), is written to directly. So
    is a file in a folder that accepts no other file (read-only, another owner, a single mounted file); it keeps its
    permissions.

    Raises:
        OSError: The file cannot be written; it is unchanged then.
    """
    if (special_file := _open_special_file(path)) is not None:
        with special_file:
            yield special_file
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.EROFS) or not path.is_file() or path.is_symlink():
            raise
        with _open_in_place(path) as special_file:
            yield special_file
        return
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
        try:
            os.replace(partial, path)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            with partial.open("rb") as stream, _open_in_place(path) as special_file:
                shutil.copyfileobj(stream, special_file)
            partial.unlink()
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _open_special_file(path: Path) -> IO[bytes] | None:
    """Opens the target of a path if it is an open descriptor, such as `/dev/stdout`, or not a regular file; else
    returns None.
    """
    target = path
    for _link in range(40):  # the limit of Linux
        folder = os.path.realpath(target.parent)
        if folder == os.path.realpath("/proc/self/fd") and target.name.isdecimal():
            # opening it again would truncate a file that `>>` appends to
            return os.fdopen(os.dup(int(target.name)), "wb")
        if folder in ("/dev", "/dev/fd") or _DESCRIPTOR_FOLDER.fullmatch(folder):
            return path.open("wb")
        if not target.is_symlink():
            break
        target = Path(folder, os.readlink(target))
    return path.open("wb") if path.exists() and not path.is_file() else None


def _open_in_place(path: Path) -> IO[bytes]:
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_TRUNC | getattr(os, "O_NOFOLLOW", 0)), "wb")


def replace_folder(new: Path, target: Path) -> None:
    """Replaces a folder by a new one. If the writer is killed in between, `recover_folder` restores the old one. Raises
    `OSError`.
    """
    old = _backup_path(recover_folder(target))
    shutil.rmtree(old, ignore_errors=True)
    if target.exists():
        os.replace(target, old)
    os.replace(new, target)
    shutil.rmtree(old, ignore_errors=True)


def recover_folder(target: Path) -> Path:
    """Returns a folder written by `replace_folder`. Restores it first if a writer was killed."""
    if not target.exists() and _backup_path(target).is_dir():
        os.replace(_backup_path(target), target)
    return target


def _backup_path(target: Path) -> Path:
    return target.with_name(f".{target.name}.old")
