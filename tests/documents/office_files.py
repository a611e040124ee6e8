"""Small files of each format, written by the libraries that others write them with."""

from __future__ import annotations

import sqlite3
import zipfile
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import docx
import duckdb
import openpyxl
import pptx
import pypdf
from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

Placed = tuple[int, int, str]
"""A text with its place on a page: points from the left and from the bottom."""


def write_pdf(path: Path, *pages: Sequence[Placed], password: str = "") -> Path:
    """Writes pages with texts at their places."""
    writer = pypdf.PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    for texts in pages:
        page = writer.add_blank_page(612, 792)
        named = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
        fonts = DictionaryObject({NameObject("/F1"): named})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        content = DecodedStreamObject()
        content.set_data("".join(f"BT /F1 12 Tf {x} {y} Td ({text}) Tj ET\n" for x, y, text in texts).encode("latin-1"))
        page[NameObject("/Contents")] = writer._add_object(content)
    if password:
        writer.encrypt(password)
    writer.write(path)
    return path


def write_lines(path: Path, *pages: Sequence[str]) -> Path:
    """Writes pages of lines."""
    return write_pdf(path, *([(72, 720 - 20 * at, line) for at, line in enumerate(lines)] for lines in pages))


def write_docx(path: Path, heading: str, paragraphs: Sequence[str], table: Sequence[Sequence[str]] = ()) -> Path:
    """Writes a heading, paragraphs, and a table after them."""
    document = docx.Document()
    document.add_heading(heading, 1)
    for text in paragraphs:
        document.add_paragraph(text)
    if table:
        made = document.add_table(len(table), len(table[0]))
        for at, row in enumerate(table):
            for column, text in enumerate(row):
                made.cell(at, column).text = text
    document.save(str(path))
    return path


def write_xlsx(
    path: Path, sheets: dict[str, Sequence[Sequence[object]]], formats: dict[str, str] | None = None
) -> Path:
    """Writes sheets; `formats` are the number formats of cells of the first one."""
    book = openpyxl.Workbook()
    book.remove(book.worksheets[0])
    for name, rows in sheets.items():
        sheet = book.create_sheet(name)
        for row in rows:
            sheet.append(list(row))
    for address, number_format in (formats or {}).items():
        book.worksheets[0][address].number_format = number_format
    book.save(path)
    return path


def write_pptx(path: Path, *slides: tuple[str, str]) -> Path:
    """Writes slides with a title and a text."""
    presentation = pptx.Presentation()
    for title, text in slides:
        slide = presentation.slides.add_slide(presentation.slide_layouts[1])
        slide.shapes.title.text = title
        slide.placeholders[1].text = text
    presentation.save(str(path))
    return path


def write_sqlite(path: Path, *statements: str) -> Path:
    """Writes a database of SQLite."""
    with closing(sqlite3.connect(path)) as connection:
        for statement in statements:
            connection.execute(statement)
        connection.commit()
    return path


def write_duckdb(path: Path, *statements: str) -> Path:
    """Writes a database of DuckDB."""
    with closing(duckdb.connect(str(path))) as connection:
        for statement in statements:
            connection.execute(statement)
    return path


def write_archive(path: Path, parts: dict[str, bytes]) -> Path:
    """Writes an archive with these parts, packed as much as possible."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, data in parts.items():
            archive.writestr(name, data)
    return path
