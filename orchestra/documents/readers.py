"""The readers of all formats, by the suffix of a file's name. A reader's module is imported when a file needs it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Final

from orchestra.documents.builder import FileContent


@dataclass(frozen=True, slots=True)
class Reader:
    """A reader: its module in `orchestra.documents.formats`, its function, and whether a process of its own runs it."""

    module: str
    function: str = "read"
    isolated: bool = True

    def read(self, path: Path, source: str) -> FileContent:
        """Reads a file in this process. Raises `DocumentError`."""
        module = import_module(f"orchestra.documents.formats.{self.module}")
        content: FileContent = getattr(module, self.function)(path, source)
        return content


_TEXT = Reader("plain_text", "read_text", isolated=False)
_MARKDOWN = Reader("plain_text", "read_markdown", isolated=False)
_DELIMITED = Reader("delimited", isolated=False)
_MARKUP = Reader("markup")
_SQLITE = Reader("database", "read_sqlite")
READERS: Final[Mapping[str, Reader]] = {
    ".txt": _TEXT,
    ".text": _TEXT,
    ".log": _TEXT,
    ".rst": _TEXT,
    ".md": _MARKDOWN,
    ".markdown": _MARKDOWN,
    ".csv": _DELIMITED,
    ".tsv": _DELIMITED,
    ".tab": _DELIMITED,
    ".json": Reader("data", isolated=False),
    ".html": _MARKUP,
    ".htm": _MARKUP,
    ".xhtml": _MARKUP,
    ".eml": Reader("mail"),
    ".pdf": Reader("pdf"),
    ".docx": Reader("word"),
    ".xlsx": Reader("workbook"),
    ".xlsm": Reader("workbook"),
    ".pptx": Reader("slides"),
    ".db": _SQLITE,
    ".sqlite": _SQLITE,
    ".sqlite3": _SQLITE,
    ".duckdb": Reader("database", "read_duckdb"),
}
"""Formats that a library parses, or that nest, are read in a process with limits."""
TEXT_READER: Final = _TEXT


TABLE_SUFFIXES: Final = frozenset(
    suffix for suffix, reader in READERS.items() if reader.module in ("delimited", "workbook", "database")
)
"""Files that are tables and nothing else."""


def reader_for(path: Path) -> Reader | None:
    """Returns the reader of a file; None for an unknown suffix."""
    return READERS.get(path.suffix.lower())


def reader_key(path: Path) -> str:
    """Returns the suffix by which another process finds the same reader."""
    return path.suffix.lower()
