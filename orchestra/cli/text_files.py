"""Texts of files and of stdin: UTF-8, and of limited size."""

from __future__ import annotations

from pathlib import Path
from typing import IO

from orchestra.cli.signals import interruptible
from orchestra.core.errors import InputError

MAX_BYTES = 1 << 20
"""The maximum size of one file in bytes."""


def read_text(path: Path, hint: str = "") -> str:
    """Reads a UTF-8 text of at most 1 MiB. Raises `InputError` C014, with a hint for texts that start with @."""
    try:
        with interruptible(), path.open("rb") as file:
            return read_limited(file, str(path))
    except OSError as error:
        hint = hint or f"write @@{path} for a text that starts with @"
        raise InputError("C014", f"{path} cannot be read: {error.strerror}", hint=hint) from error


def read_limited(file: IO[bytes], name: str) -> str:
    """Reads the text of an open file. `name` is used in messages. Raises `InputError` C014."""
    data = file.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise InputError(
            "C014",
            f"{name} is larger than 1 MiB",
            hint="for documents, split it into several files, and pass their folder",
        )
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(
            "C014", f"{name} is not UTF-8: byte {error.start}", hint="convert it: iconv -t UTF-8"
        ) from error
