"""DOCX: paragraphs and tables in their order, with headings and numbers of paragraphs as locations."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError, damaged_file, missing_package
from orchestra.documents.formats.office_archive import check_archive


def read(path: Path, source: str) -> FileContent:
    """Reads a document. Headers, footers, comments and deleted text are left out.

    Raises:
        DocumentError: D002 without python-docx, D003 for a broken file, D004 for one with a password, D005 for one that
            is too large.
    """
    check_archive(path, source, "DOCX")
    try:
        import docx
        from docx.opc.exceptions import OpcError
        from docx.table import Table
    except ImportError as error:
        raise missing_package("python-docx", "DOCX") from error
    builder = DocumentBuilder(source)
    heading, number, tables = "", 0, 0
    try:
        for block in docx.Document(str(path)).iter_inner_content():
            if isinstance(block, Table):
                tables += 1
                _add_table(builder, block, f"table {tables}")
                continue
            text = block.text.strip()
            if not text:
                continue
            number += 1
            style = (block.style.name or "") if block.style is not None else ""
            if style.startswith(("Heading", "Title")):
                heading = text
            builder.add(text, f"{heading}, paragraph {number}" if heading else f"paragraph {number}")
    except DocumentError:
        raise
    except (OpcError, SyntaxError, KeyError, ValueError, TypeError, AttributeError, IndexError, OSError) as error:
        # python-docx raises any of these for a part that is missing or not as specified; SyntaxError is of its XML.
        raise damaged_file(source, "DOCX", error) from error
    return builder.content()


def _add_table(builder: DocumentBuilder, table: Any, name: str) -> None:
    rows = [[cell.text.strip() for cell in row.cells] for row in table.rows]
    width = max(map(len, rows), default=0)
    if len(rows) > 1 and width > 1:
        builder.add_table(rows, name)
        return
    for row in rows:  # a frame around text
        builder.add("\n".join(dict.fromkeys(filter(None, row))), name)
