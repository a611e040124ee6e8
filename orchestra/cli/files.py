"""Values from files: documents, tables and texts. Files that cannot be read are named on stderr."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

from orchestra.cli.output import print_note
from orchestra.cli.signals import interruptible
from orchestra.cli.text_files import read_text
from orchestra.core.errors import InputError
from orchestra.core.untrusted_text import escape_invisible, pluralize
from orchestra.documents.builder import FileContent
from orchestra.documents.excerpts import make_excerpts
from orchestra.documents.index import FolderIndex
from orchestra.documents.readers import READERS, TABLE_SUFFIXES
from orchestra.documents.reading import FileFailure, ReadResult, read_files
from orchestra.documents.tables import typed_rows
from orchestra.schema.builtin_models import Document, Table

MAX_NAMED = 20
"""Maximum number of files that are named."""
MAX_UPDATED = 50_000
"""Maximum passages of an index that is updated before a request."""
MAX_WHOLE = 200_000
"""Maximum characters of an index that is passed on as a whole."""
MAX_PASSAGES = 24
"""Passages of a larger index that are passed on."""
MAX_TABLES = 8
"""Tables of the files with these passages that are passed on."""
_PLAIN_SUFFIXES = frozenset(suffix for suffix, reader in READERS.items() if not reader.isolated)


def read_paths(paths: Sequence[Path]) -> ReadResult:
    """Reads files and folders. Raises the errors of `read_files`."""
    with interruptible():
        return read_files(paths)


def read_for_request(paths: Sequence[Path], request: str) -> ReadResult:
    """Reads files and folders for a request. From a large folder with an index only the passages are taken that answer
    the request best. Raises the errors of `read_files`.
    """
    with interruptible():
        indexes = {path: FolderIndex(path) for path in paths if path.is_dir()}
        existing_indexes = {path: index for path, index in indexes.items() if index.exists}
        rest = [path for path in paths if path not in existing_indexes]
        result = read_files(rest) if rest else ReadResult()
        results = [_read_index(index, request) for index in existing_indexes.values()]
    return ReadResult(
        [content for read_result in (*results, result) for content in read_result.contents],
        [failure for read_result in (*results, result) for failure in read_result.failures],
    )


def _read_index(index: FolderIndex, request: str) -> ReadResult:
    """Returns the content of an index for a request. A small index is updated before."""
    state = index.state()
    if changes := index.count_changes():
        if state.passages <= MAX_UPDATED:
            index.update()
            state = index.state()
        else:
            files = pluralize(changes, "file")
            print_note(f"{files} of {index.folder} changed after `orchestra index`; the answer does not know them")
    if state.characters <= MAX_WHOLE:
        return ReadResult(index.contents(), state.failures)
    from orchestra.app.embedding import open_embedder

    passages = index.search(request, MAX_PASSAGES, open_embedder() if state.encoded else None)
    excerpts = make_excerpts(passages)
    tables = index.tables([excerpt.source for excerpt in excerpts])[:MAX_TABLES]
    contents = [
        FileContent(excerpt, tuple(table for table in tables if table.source == excerpt.source)) for excerpt in excerpts
    ]
    return ReadResult(contents, state.failures)


def read_documents(path: Path) -> list[dict[str, Any]]:
    """Reads a file, or all files of a folder, as documents, and names those that cannot be read. Raises the errors of
    `read_files`.
    """
    result = read_paths([path])
    report_failures(result.failures)
    return [document_value(content.document) for content in result.contents]


def read_document(path: Path) -> dict[str, Any]:
    """Reads a file as a document. Raises the errors of `read_files`."""
    return document_value(read_paths([path]).contents[0].document)


def read_file_text(path: Path) -> str:
    """Reads the text of a file: as it is for text, JSON and CSV, what a reader sees for other formats. Raises the
    errors of `read_files`, and `InputError` C014.
    """
    if path.suffix.lower() in READERS.keys() - _PLAIN_SUFFIXES:
        return read_paths([path]).contents[0].document.text
    return read_text(path)


def read_tables(path: Path) -> list[Table]:
    """Reads the tables of a file; `FILE#NAME` is one of them. Raises the errors of `read_files`, and `InputError` D008
    for another name.
    """
    file, mark, name = str(path).rpartition("#")
    if not mark or path.exists():
        return read_paths([path]).tables
    tables = read_paths([Path(file)]).tables
    sheet_tables = [table for table in tables if table.sheet.casefold() == name.casefold()]
    if not sheet_tables:
        raise InputError("D008", f"{file} has no table {name!r}", hint=_table_hint(tables))
    return sheet_tables


def read_table(key: str, path: Path) -> Table:
    """Reads the only table of a file. `key` is used in hints. Raises as `read_tables`, and `InputError` D008 if there
    are more tables or none.
    """
    tables = read_tables(path)
    if not tables:
        raise InputError("D008", f"{path} has no table", hint=f"give a table: -i {key}=@FILE.csv")
    if len(tables) > 1:
        count = pluralize(len(tables), "table")
        raise InputError(
            "D008", f"{path} has {count}, and {key} is one", hint=f"-i {key}=@{path}#NAME; {_table_hint(tables)}"
        )
    return tables[0]


def read_table_records(key: str, path: Path) -> list[dict[str, Any]]:
    """Reads the only table of a file as records, with numbers and truth values as such. Raises as `read_table`."""
    table = read_table(key, path)
    texts = table.cells[table.header_rows :]
    return [
        {column.name: _json_value(value, text) for column, value, text in zip(table.columns, values, line, strict=True)}
        for values, line in zip(typed_rows(table), texts, strict=True)
    ]


def is_table_file(path: Path) -> bool:
    """Whether a file, or `FILE#NAME`, is nothing but tables."""
    return Path(str(path).partition("#")[0]).suffix.lower() in TABLE_SUFFIXES


def document_value(document: Document) -> dict[str, Any]:
    """Returns a document as a value; without locations if it has none."""
    return document.model_dump(mode="json", exclude_defaults=True)


def report_failures(failures: Sequence[FileFailure]) -> None:
    """Prints which files could not be read, and why."""
    if not failures:
        return
    lines = [f"  {failure}" for failure in failures[:MAX_NAMED]]
    if len(failures) > MAX_NAMED:
        lines.append(f"  and {len(failures) - MAX_NAMED} more")
    print_note(escape_invisible("\n".join([f"not read: {pluralize(len(failures), 'file')}", *lines])))


def failures_data(failures: Sequence[FileFailure]) -> list[dict[str, str]]:
    """Returns the files that could not be read as JSON values."""
    return [
        {"source": failure.source, "code": failure.code, "reason": failure.reason, "hint": failure.hint}
        for failure in failures
    ]


def _table_hint(tables: Sequence[Table]) -> str:
    names = [table.sheet or table.name for table in tables]
    return f"its tables are: {', '.join(names)}" if names else "it has none"


def _json_value(value: object, text: str) -> Any:
    match value:
        case None:
            return None
        case bool():
            return value
        case Decimal():
            return int(value) if value == value.to_integral_value() and "." not in text else float(value)
        case _:
            return text.strip()
