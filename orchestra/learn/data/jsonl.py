"""JSON lines files written by users: each line is decoded as one type, and errors have a location."""

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
    """The type of the lines of a file, and the parts of its error messages."""

    type: type[T]
    code: str
    row_name: str
    """The name of a row in messages, as in “a line is not a row”."""
    hint: str

    def read_bytes(self, path: Path) -> bytes:
        """Returns the bytes of a file, decompressed if its name ends in `.gz`.

        Raises:
            InputError: The file cannot be read.
        """
        try:
            data = path.read_bytes()
            return gzip.decompress(data) if path.suffix == ".gz" else data
        except (OSError, EOFError, zlib.error) as error:
            reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
            raise InputError(self.code, f"{path} cannot be read: {reason}", hint=self.hint) from error

    def parse_lines(self, path: Path, data: bytes) -> Iterator[tuple[SourceLocation, T]]:
        """Yields the lines of a file with their locations.

        Raises:
            InputError: A line has another type.
        """
        return ((location, self.parse_line(text, location)) for location, text in numbered_lines(path, data))

    def parse_line(self, text: bytes, location: SourceLocation) -> T:
        """Decodes one line.

        Raises:
            InputError: The line has another type.
        """
        try:
            return decode_json(text, self.type)
        except JsonDecodingError as error:
            raise InputError(
                self.code, f"a line is not a {self.row_name}: {error}", location=location, hint=self.hint
            ) from error


def numbered_lines(path: Path, data: bytes) -> Iterator[tuple[SourceLocation, bytes]]:
    """Yields the lines of a file that are not blank, with their locations."""
    return (
        (SourceLocation(str(path), number, text=text.decode("utf-8", "replace")), text)
        for number, text in iter_json_lines(data)
    )
