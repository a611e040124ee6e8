"""SQLite and DuckDB files: each table, read only. Views, which are programs, are not read."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError, damaged_file, missing_package

MAX_ROWS = 200_000
"""Maximum rows of all tables of a file."""
MAX_CELL = 10_000
"""Maximum characters of a cell; a longer one is cut."""


def read_sqlite(path: Path, source: str) -> FileContent:
    """Reads the tables of an SQLite file.

    Raises:
        DocumentError: D003 for a broken file, D005 for one with too many rows.
    """
    builder = DocumentBuilder(source)
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True)) as connection:
            connection.execute("PRAGMA trusted_schema = OFF")
            connection.execute("PRAGMA cell_size_check = ON")
            names = connection.execute(
                "SELECT name FROM sqlite_schema WHERE type = 'table' AND sql NOT LIKE 'CREATE VIRTUAL%'"
                " AND name NOT LIKE 'sqlite^_%' ESCAPE '^' ORDER BY rowid"
            ).fetchall()
            _add_tables(builder, ((str(name), _query(connection, name)) for (name,) in names))
    except sqlite3.Error as error:
        raise damaged_file(source, "SQLite", error) from error
    return builder.content(is_table=True)


def read_duckdb(path: Path, source: str) -> FileContent:
    """Reads the tables of a DuckDB file.

    Raises:
        DocumentError: D002 without duckdb, D003 for a broken file, D005 for one with too many rows.
    """
    try:
        import duckdb
    except ImportError as error:
        raise missing_package("duckdb", "DuckDB") from error
    builder = DocumentBuilder(source)
    config: dict[str, str | bool | int | float | list[str]] = {
        "enable_external_access": "false",
        "autoload_known_extensions": "false",
        "threads": "1",
    }
    try:
        with duckdb.connect(str(path), read_only=True, config=config) as connection:
            names = connection.execute(
                "SELECT schema_name, table_name FROM duckdb_tables() WHERE NOT internal ORDER BY table_oid"
            ).fetchall()
            _add_tables(builder, ((table, _query(connection, schema, table)) for schema, table in names))
    except duckdb.Error as error:
        raise damaged_file(source, "DuckDB", error) from error
    return builder.content(is_table=True)


def _query(connection: Any, *name: str) -> Any:
    quoted_name = ".".join('"' + part.replace('"', '""') + '"' for part in name)
    return connection.execute(f"SELECT * FROM {quoted_name}")  # noqa: S608 - the name is quoted, and of the file's own schema


def _add_tables(builder: DocumentBuilder, tables: Iterable[tuple[str, Any]]) -> None:
    room = MAX_ROWS
    for name, cursor in tables:
        header = [str(column[0]) for column in cursor.description]
        rows = [header]
        for row in _fetch(cursor):
            rows.append([_text(value) for value in row])
            room -= 1
            if room < 0:
                raise DocumentError(
                    "D005", f"{builder.source} has more than {MAX_ROWS:,} rows", hint="export what is needed as CSV"
                )
        builder.add_table(rows, name, header_rows=1)


def _fetch(cursor: Any) -> Iterator[tuple[Any, ...]]:
    while rows := cursor.fetchmany(1_000):
        yield from rows


def _text(value: Any) -> str:
    match value:
        case None:
            return ""
        case bool():
            return str(value).lower()
        case bytes() | bytearray() | memoryview():
            return f"({len(value)} bytes)"
        case _:
            return str(value)[:MAX_CELL]
