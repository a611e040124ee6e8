"""The archive of DOCX, XLSX and PPTX, checked before a library reads it."""

from __future__ import annotations

import zipfile
from pathlib import Path

from orchestra.documents.errors import DocumentError, damaged_file

MAX_UNPACKED = 512 << 20
"""Maximum bytes of all parts together."""
MAX_RATIO = 400
"""Maximum ratio of a part's size to its packed size; text of documents stays below 100."""
MAX_PARTS = 20_000
_OLD_OFFICE = b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1"
"""The first bytes of an OLE file: a format before 2007, or a document with a password."""
_PROLOGUE = 4096
"""Bytes at the start of a part in which a document type is declared."""


def check_archive(path: Path, source: str, kind: str) -> None:
    """Checks the sizes of all parts, and that no part declares entities, which no program writes into such files.

    Raises:
        DocumentError: D003 for a broken file, D004 for one with a password, D005 for one that unpacks to too much.
    """
    with path.open("rb") as file:
        start = file.read(len(_OLD_OFFICE))
    if start == _OLD_OFFICE:
        raise DocumentError(
            "D004",
            f"{source} has a password, or is in a format of before 2007",
            hint=f"save it without a password as .{kind.lower()}",
        )
    try:
        with zipfile.ZipFile(path) as archive:
            parts = archive.infolist()
            _check_sizes(parts, source)
            for part in parts:
                if part.filename.endswith((".xml", ".rels")):
                    with archive.open(part) as content:
                        _check_prologue(content.read(_PROLOGUE), source, kind)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, NotImplementedError, ValueError) as error:
        # RuntimeError: a part with a password; NotImplementedError: a compression that is not known.
        raise damaged_file(source, kind, error) from error


def _check_sizes(parts: list[zipfile.ZipInfo], source: str) -> None:
    total = sum(part.file_size for part in parts)
    is_compressed = any(
        part.file_size > MAX_RATIO * max(part.compress_size, 1) and part.file_size > 1 << 20 for part in parts
    )
    if total > MAX_UNPACKED or is_compressed or len(parts) > MAX_PARTS:
        raise DocumentError(
            "D005", f"{source} unpacks to {total >> 20} MiB", hint="save the part that is needed as a file of its own"
        )


def _check_prologue(start: bytes, source: str, kind: str) -> None:
    if b"<!DOCTYPE" in start.replace(b"\x00", b"") or b"<!ENTITY" in start.replace(b"\x00", b""):
        raise damaged_file(source, kind, "a part declares a document type")
