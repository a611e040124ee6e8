"""Files of JSON lines that somebody wrote: each line is a value of one type, or is shown to him with its place."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from orchestra.core.errors import InputError, SourceLocation
from orchestra.schema.strict_json import JsonDecodingError, decode_json, iter_json_lines

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class JsonLinesFormat(Generic[T]):
    """What the lines of a file are, and what is said of others."""

    type: type[T]
    code: str
    row_name: str
    """One of them, as in “a line that is no row”."""
    hint: str

    def read_bytes(self, path: Path) -> bytes:
        """A file's bytes, unpacked where its name ends in `.gz`. Raises `InputError` where it cannot be read."""
        try:
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(self.code, f"{path} cannot be read: {reason}", hint=self.hint) from error

    def parse_lines(self, path: Path, data: bytes) -> Iterator[tuple[SourceLocation, T]]:
        """The lines of a file, each with its place. Raises `InputError` for one that is none."""
        return ((place, self.parse_line(text, place)) for place, text in numbered_lines(path, data))

    def parse_line(self, text: bytes, place: SourceLocation) -> T:
        """One line. Raises `InputError`."""
        try:
            return decode_json(text, self.type)
        except JsonDecodingError as error:
            raise InputError(self.code, f"a line that is no {self.row_name}: {error}", location=place, hint=self.hint) from error


def numbered_lines(path: Path, data: bytes) -> Iterator[tuple[SourceLocation, bytes]]:
    """The lines of a file that say something, with where they stand."""
    return ((SourceLocation(str(path), number, text=text.decode("utf-8", "replace")), text) for number, text in iter_json_lines(data))
