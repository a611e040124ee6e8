"""HTML: its visible text by blocks, headings as locations, and its tables."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path

from orchestra.documents.builder import DocumentBuilder, FileContent
from orchestra.documents.formats.plain_text import decode

_COMMENT = re.compile(r"<!--.*?(?:-->|\Z)", re.DOTALL)
_CHARSET = re.compile(rb"""<meta[^>]{0,200}?charset\s*=\s*["']?([\w-]{2,40})""", re.IGNORECASE)
_BLOCKS = frozenset(
    {"address", "article", "aside", "blockquote", "body", "caption", "center", "dd", "details", "dialog", "div", "dl"}
    | {"dt", "fieldset", "figcaption", "figure", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "header", "hr"}
    | {"html", "legend", "li", "main", "nav", "ol", "option", "p", "pre", "section", "summary", "table", "tbody", "td"}
    | {"tfoot", "th", "thead", "title", "tr", "ul"}
)
_HIDDEN = frozenset(
    {"script", "style", "template", "noscript", "svg", "math", "iframe", "object", "select", "textarea", "canvas"}
)
_OPEN_ENDED = frozenset(("p", "li", "dt", "dd", "td", "th", "tr"))
"""Elements that the next block ends if they have no end tag."""
_HEADINGS = frozenset(("h1", "h2", "h3", "h4", "h5", "h6"))
MAX_DEPTH = 64
"""Maximum depth of nested tables."""
MAX_COLUMNS = 1_000
"""Maximum columns of a table; further cells of a row are left out."""
MAX_SPAN = 200
"""Maximum columns or rows that one cell covers."""


def read(path: Path, source: str) -> FileContent:
    """Reads a page.

    Raises:
        DocumentError: D003 for bytes that are no text, D005 for a text that is too long.
    """
    data = path.read_bytes()[:4096]
    match = _CHARSET.search(data)
    if match is not None and not data.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        try:
            return parse(path.read_bytes().decode(match[1].decode("ascii")), source)
        except (LookupError, UnicodeDecodeError):
            pass
    return parse(decode(path, source), source)


def parse(text: str, source: str) -> FileContent:
    """Returns the content of a page."""
    builder = DocumentBuilder(source)
    add_markup(text, builder)
    return builder.content()


def add_markup(text: str, builder: DocumentBuilder, location: str = "") -> None:
    """Appends a page. `location` is that of the text before the first heading."""
    parser = _PageParser(builder, location)
    parser.feed(_COMMENT.sub("", text))  # the parser takes quadratic time for comments without an end
    parser.close()
    parser.end()


@dataclass
class _Cells:
    """A table that is being read."""

    rows: list[list[str]] = field(default_factory=list)
    pending: dict[int, tuple[int, str]] = field(default_factory=dict)
    """By column: how many more rows a cell above covers, and its text."""
    text: list[str] | None = None
    columns: int = 1
    depth: int = 1
    data_rows: set[int] = field(default_factory=set)
    """The rows with a cell that is no header."""

    @property
    def header_rows(self) -> int | None:
        """How many rows at the top have header cells only; None if no row has."""
        return next((at for at in range(len(self.rows)) if at in self.data_rows), 0) or None

    def start_row(self) -> None:
        """Begins a row, unless the last one is still empty."""
        self.end_cell()
        if not self.rows or self.rows[-1]:
            self.rows.append([])

    def start_cell(self, tag: str, columns: int, depth: int) -> None:
        """Begins a cell that covers some columns and rows."""
        self.end_cell()
        self.text, self.columns, self.depth = [], columns, depth
        if tag == "td":
            self.data_rows.add(max(0, len(self.rows) - 1))

    def end_cell(self) -> None:
        """Adds the text of the open cell to the row, once for each column that it covers."""
        if self.text is None:
            return
        content = " ".join("".join(self.text).split())
        if not self.rows:
            self.rows.append([])
        row = self.rows[-1]
        self._fill(row)
        for _ in range(min(self.columns, MAX_COLUMNS - len(row))):
            if self.depth > 1:
                self.pending[len(row)] = (self.depth - 1, content)
            row.append(content)
        self.text = None

    def end_row(self) -> None:
        """Ends a row, with the cells above that cover its last columns."""
        self.end_cell()
        if self.rows:
            self._fill(self.rows[-1])

    def _fill(self, row: list[str]) -> None:
        while (pending_cell := self.pending.get(len(row))) is not None:
            depth, content = pending_cell
            if depth > 1:
                self.pending[len(row)] = (depth - 1, content)
            else:
                del self.pending[len(row)]
            row.append(content)


class _PageParser(HTMLParser):
    def __init__(self, builder: DocumentBuilder, location: str) -> None:
        super().__init__(convert_charrefs=True)
        self._builder, self._location = builder, location
        self._text: list[str] = []
        self._hidden = ""
        self._hidden_depth = 0
        self._pre = 0
        self._tables: list[_Cells] = []
        self._count = 0

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Begins a block, a table or a hidden element."""
        if self._hidden and not (self._hidden in _OPEN_ENDED and tag in _BLOCKS):
            self._hidden_depth += tag == self._hidden
            return
        self._hidden = ""
        attributes = dict(attrs)
        style = "".join((attributes.get("style") or "").split()).lower()
        if tag in _HIDDEN or "hidden" in attributes or "display:none" in style:
            if tag not in _VOID:
                self._hidden, self._hidden_depth = tag, 1
            return
        if tag == "br":
            self._text.append("\n")
        elif tag == "img":
            self._text.append(f" {attributes['alt']} " if attributes.get("alt") else "")
        elif tag == "table" and len(self._tables) < MAX_DEPTH:
            self._end_block()
            self._tables.append(_Cells())
        elif self._tables and tag == "tr":
            self._tables[-1].start_row()
        elif self._tables and tag in ("td", "th"):
            self._tables[-1].start_cell(tag, _span(attributes.get("colspan")), _span(attributes.get("rowspan")))
        elif tag in _BLOCKS:
            self._end_block()
        self._pre += tag == "pre"

    def handle_endtag(self, tag: str) -> None:
        """Ends what the tag has begun. A heading becomes the location of the text after it."""
        if self._hidden:
            self._hidden_depth -= tag == self._hidden
            if self._hidden_depth <= 0:
                self._hidden = ""
            return
        if tag in _HEADINGS:
            self._location = " ".join("".join(self._text).split()) or self._location
            self._end_block()
        elif self._tables and tag in ("td", "th"):
            self._tables[-1].end_cell()
        elif self._tables and tag == "tr":
            self._tables[-1].end_row()
        elif self._tables and tag == "table":
            self._end_table()
        elif tag in _BLOCKS:
            self._end_block()
        self._pre = max(0, self._pre - (tag == "pre"))

    def handle_data(self, data: str) -> None:
        """Adds text to the open cell or block."""
        if self._hidden:
            return
        if self._tables and self._tables[-1].text is not None:
            self._tables[-1].text.append(data)
        else:
            self._text.append(data if self._pre else re.sub(r"\s+", " ", data))

    def end(self) -> None:
        """Appends what is still open."""
        while self._tables:
            self._end_table()
        self._end_block()

    def _end_block(self) -> None:
        if self._tables and self._tables[-1].text is not None:
            self._tables[-1].text.append(" ")
            return
        lines = ("".join(self._text)).splitlines()
        text = "\n".join(lines if self._pre else (line.strip() for line in lines))
        self._text = []
        self._builder.add(text, self._location)

    def _end_table(self) -> None:
        cells = self._tables.pop()
        cells.end_row()
        rows = [row for row in cells.rows if row]
        if self._tables and self._tables[-1].text is not None:
            self._tables[-1].text.append(" ".join(text for row in rows for text in row))  # it lays out a cell
        elif len(rows) < 2 or max(map(len, rows)) < 2:
            for row in rows:
                self._builder.add("\n".join(filter(None, row)), self._location)
        else:
            self._count += 1
            self._builder.add_table(rows, f"table {self._count}", header_rows=cells.header_rows)


_VOID = frozenset(
    {"area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "source", "track", "wbr"}
)


def _span(text: str | None) -> int:
    return min(int(text), MAX_SPAN) if text and text.isascii() and text.isdigit() and len(text) < 6 and int(text) else 1
