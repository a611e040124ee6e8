"""What is written whole or not at all: whoever reads meanwhile sees what was there before, and so does who comes after a writer that was
killed."""

from __future__ import annotations

import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


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
def private_file(path: Path) -> Iterator[IO[bytes]]:
    """A file that only its owner may read, put in its place once it is whole; a link that stands there gives way to it. A pipe or a device
    is written to as it stands. Raises `OSError`; what was there is there then."""
    if path.exists() and not path.is_file():
        with path.open("wb") as there:
            yield there
        return
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    try:
        with os.fdopen(os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
            yield file
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def swap_folder(new: Path, place: Path) -> None:
    """Puts a folder in the place of another one. A writer that is killed between the two leaves the other aside, where `standing` finds
    it. Raises `OSError`."""
    old = _aside(standing(place))
    shutil.rmtree(old, ignore_errors=True)
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
    shutil.rmtree(old, ignore_errors=True)


def standing(place: Path) -> Path:
    """A folder that is written by `swap_folder`; brought back first where a writer was killed in the middle."""
    if not place.exists() and _aside(place).is_dir():
        os.replace(_aside(place), place)
    return place


def _aside(place: Path) -> Path:
    return place.with_name(f".{place.name}.old")
