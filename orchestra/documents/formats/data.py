"""JSON: a list of flat records is a table; other values are text."""

from __future__ import annotations

from pathlib import Path

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import damaged_file
from orchestra.documents.formats.plain_text import decode
from orchestra.documents.tables import is_records, records_to_cells
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted


def read(path: Path, source: str) -> FileContent:
    """Reads a value.

    Raises:
        DocumentError: D003 for a file that is no JSON, D005 for a text that is too long.
    """
    text = decode(path, source)
    try:
        value = parse_untrusted(text)
    except StrictJsonError as error:
        raise damaged_file(source, "JSON", error) from error
    builder = DocumentBuilder(source)
    if is_records(value):
        builder.add_table(records_to_cells(value), "", header_rows=1)
        return builder.content(is_table=True)
    builder.add(text)
    return builder.content()
