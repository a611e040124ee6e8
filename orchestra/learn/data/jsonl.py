"""Files of JSON lines that somebody wrote: each line is a value of one type, or is shown to him with its place."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from orchestra.core.errors import InputError, Place
from orchestra.schema.strict_json import NotDecodable, decoded, records

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Lines(Generic[T]):
    """What the lines of a file are, and what is said of others."""

    type: type[T]
    code: str
    what: str
    """One of them, as in “a line that is no row”."""
    hint: str

    def bytes_of(self, path: Path) -> bytes:
        """A file's bytes, unpacked where its name ends in `.gz`. Raises `InputError` where it cannot be read."""
        try:
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(self.code, f"{path} cannot be read: {reason}", hint=self.hint) from error

    def rows(self, path: Path, data: bytes) -> Iterator[tuple[Place, T]]:
        """The lines of a file, each with its place. Raises `InputError` for one that is none."""
        return ((place, self.row(text, place)) for place, text in places(path, data))

    def row(self, text: bytes, place: Place) -> T:
        """One line. Raises `InputError`."""
        try:
            return decoded(text, self.type)
        except NotDecodable as error:
            raise InputError(self.code, f"a line that is no {self.what}: {error}", place=place, hint=self.hint) from error


def places(path: Path, data: bytes) -> Iterator[tuple[Place, bytes]]:
    """The lines of a file that say something, with where they stand."""
    return ((Place(str(path), number, text=text.decode("utf-8", "replace")), text) for number, text in records(data))
