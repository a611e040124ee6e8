"""PPTX: the texts, tables and notes of each slide."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.errors import DocumentError, damaged_file, missing_package
from orchestra.documents.formats.office_archive import check_archive

MAX_DEPTH = 20
"""Maximum depth of nested groups of shapes."""


def read(path: Path, source: str) -> FileContent:
    """Reads a presentation. Shapes of a slide are read from top to bottom.

    Raises:
        DocumentError: D002 without python-pptx, D003 for a broken file, D004 for one with a password, D005 for one that
            is too large.
    """
    check_archive(path, source, "PPTX")
    try:
        from pptx import Presentation
        from pptx.exc import PythonPptxError
    except ImportError as error:
        raise missing_package("python-pptx", "PPTX") from error
    builder = DocumentBuilder(source)
    try:
        for number, slide in enumerate(Presentation(str(path)).slides, 1):
            _add_slide(builder, slide, f"slide {number}")
    except DocumentError:
        raise
    except (
        PythonPptxError,
        SyntaxError,
        KeyError,
        ValueError,
        TypeError,
        AttributeError,
        IndexError,
        OSError,
    ) as error:
        # python-pptx raises any of these for a part that is missing or not as specified; SyntaxError is of its XML.
        raise damaged_file(source, "PPTX", error) from error
    return builder.content()


def _add_slide(builder: DocumentBuilder, slide: Any, place: str) -> None:
    title = slide.shapes.title
    if title is not None and title.has_text_frame:
        builder.add(title.text_frame.text, place)
    tables = 0
    shapes = sorted(_leaf_shapes(slide.shapes, MAX_DEPTH), key=lambda shape: (shape.top or 0, shape.left or 0))
    for shape in shapes:
        if title is not None and shape.shape_id == title.shape_id:
            continue
        if shape.has_text_frame:
            builder.add(shape.text_frame.text, place)
        elif getattr(shape, "has_table", False):
            tables += 1
            rows = [[cell.text.strip() for cell in row.cells] for row in shape.table.rows]
            builder.add_table(rows, f"{place} table {tables}")
    if slide.has_notes_slide and (notes := slide.notes_slide.notes_text_frame) is not None:
        builder.add(notes.text, f"{place}, notes")


def _leaf_shapes(shapes: Any, depth: int) -> Iterator[Any]:
    for shape in shapes:
        if hasattr(shape, "shapes"):
            if depth > 0:
                yield from _leaf_shapes(shape.shapes, depth - 1)
        else:
            yield shape
