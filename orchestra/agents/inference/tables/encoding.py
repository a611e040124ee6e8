"""Table encodings: a question, a table and the text around it as token windows, with the locations that an answer may
use.

The table is read once, row by row, with its header rows first. A text longer than the limit of the encoder is split
into windows. Each window begins with the question and the header rows. A location (`TableLocation`) is a cell, a figure
of the text, or a figure of the question (also as words, because a sum may need it).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from orchestra.agents.inference.tables.operations import parse_figure
from orchestra.agents.inference.tables.question import QuestionFigure, question_figures
from orchestra.text.keywords import expand_to_words
from orchestra.text.numbers.sort_keys import NumberFormat, detect_format

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.encoder import Encoder

MAX_QUESTION = 128
"""Maximum tokens of a question that are read."""
MAX_HEADER_ROWS = 3
"""Maximum number of header rows of a table."""
_FIGURES = re.compile(
    r"(?<![\w.,])\(?(?:[-−–](?:(?:US|CA|AU|NZ|HK|[ACRS])\$|[₹₩₽₺₪])|[-−–]?[$€£¥]?)(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![\d.])|\d(?:[\d,]*\d)?(?:\.\d+)?)\)?"
)
"""Figures of the text. In `2010-2015` and `COVID-19` the hyphen is not a minus."""
_YEAR = re.compile(r"\((?:19|20)\d\d\)")
TOTAL_ROW = re.compile(r"\s*(?:(?:grand |sub-?)?total|average)\b|\s*(?:mean|sum|all|together)\s*$", re.IGNORECASE)
"""The first cell of a row that aggregates other rows."""
A = TypeVar("A")


class TableLocation(NamedTuple):
    """A location that an answer may use."""

    text: str
    """Its text, with normalized white space."""
    row: int = -1
    """The row of the table, from 0; -1 outside of the table."""
    column: int = -1
    figure: str | None = None
    """Its first figure, in the form of an expression."""
    question_figure: QuestionFigure | None = None
    """The figure of the question, if the location is one."""


@dataclass(frozen=True, slots=True)
class PoolingMatrices(Generic[A]):
    """Averaging matrices from tokens to locations, and from locations to rows and columns."""

    starts: A
    """(1, tokens): the first mark of each window."""
    locations: A
    """(locations, tokens)"""
    row_label: A
    """(rows, locations): the first filled cell of each row."""
    row_body: A
    """(rows, locations): the other cells."""
    column_header: A
    """(columns, locations): the cells of a column in the header rows."""
    column_body: A
    """(columns, locations): the cells below."""
    in_row: A
    """(locations, rows): 1 if a location is in a row."""
    in_column: A
    """(locations, columns)"""


def count_header_rows(table: Sequence[Sequence[str]]) -> int:
    """Returns the number of header rows of a table: the first row, and the next ones up to a row with a name."""
    full = any(cell.strip() for cell in table[0][1:]) if table else False
    count = min(1, len(table))
    while count < min(MAX_HEADER_ROWS, len(table) - 1) and not (full and "".join(table[count][:1]).strip()):
        full = full or any(cell.strip() for cell in table[count][1:])
        count += 1
    return count


def column_spellings(rows: Sequence[Sequence[str]]) -> list[NumberFormat]:
    """Returns the number format of each column: from its own cells, or from all cells if these do not determine it."""
    all_of = detect_format([cell for row in rows for cell in row], is_other_column=True)
    columns = zip_longest(*rows, fillvalue="")
    return [NumberFormat(*map(max, detect_format(column), all_of)) for column in columns]


class TableEncoding:
    """The encoding of a question and a table."""

    def __init__(
        self, encoder: Encoder, question: str, table: Sequence[Sequence[str]], paragraphs: Sequence[str], tokens: int
    ) -> None:
        """Encodes the inputs. `tokens` is the maximum of a window."""
        self.question, self.table, self.paragraphs = question, table, paragraphs
        self.header_rows = count_header_rows(table)
        self.spellings = column_spellings(table[self.header_rows :])
        """The number format of each column, from the rows below the header."""
        self.locations: list[TableLocation] = []
        self.text = ""
        """The table and the text after the question, as one string."""
        self._location_spans: list[tuple[int, int, int]] = []  # start, end and index of each location, in order
        self._paragraph_spans: list[tuple[int, int]] = []
        after_head = self._build_text(question, table, paragraphs)
        self._token_locations: list[int] = []
        """The location of each token, or -1."""
        self._tokenize(encoder, after_head, tokens)

    def _build_text(self, question: str, table: Sequence[Sequence[str]], paragraphs: Sequence[str]) -> int:
        """Builds the string. Returns the end of the header rows in it."""
        after_head = 0
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                plain = " ".join(cell.split())
                if plain:
                    self._add_location(
                        TableLocation(
                            plain, row, column, parse_figure(plain, points=self.spelling_of(column).decimal_comma)
                        ),
                        plain,
                    )
                self.text += " | "
            self.text += "\n"
            after_head = len(self.text) if row < self.header_rows else after_head
        for question_figure in question_figures(question):
            self._add_location(
                TableLocation(question_figure.text, figure=question_figure.figure, question_figure=question_figure),
                question_figure.text,
            )
            self.text += " | "
        self.text += "\n"
        for paragraph in paragraphs:
            start = len(self.text)
            self._paragraph_spans.append((start, start + len(paragraph)))
            for match in _FIGURES.finditer(paragraph):
                self._location_spans.append((start + match.start(), start + match.end(), len(self.locations)))
                figure_text = match[0].strip("()") if _YEAR.fullmatch(match[0]) else match[0]
                rest = paragraph[match.end() : expand_to_words(paragraph, *match.span())[1]]  # of `$5.3M` or `1990s`
                self.locations.append(TableLocation(figure_text + rest, figure=parse_figure(figure_text)))
            self.text += f"{paragraph}\n"
        return after_head

    def _add_location(self, spot: TableLocation, text: str) -> None:
        self._location_spans.append((len(self.text), len(self.text) + len(text), len(self.locations)))
        self.locations.append(spot)
        self.text += text

    def _tokenize(self, encoder: Encoder, after_head: int, tokens: int) -> None:
        pair = encoder.tokenize_pair(self.question, self.text)
        max_question = min(MAX_QUESTION, tokens // 2)
        ask = pair.head if len(pair.head) <= max_question else [*pair.head[: max_question - 2], *pair.head[-2:]]
        spans = list(pair.offsets)
        top = next((at for at, (start, _) in enumerate(spans) if start >= after_head), len(spans))
        room = tokens - len(ask) - len(pair.tail)
        again = pair.body[:top] if top <= room // 2 else []
        self.windows: list[list[int]] = []
        self.chars: list[tuple[int, int] | None] = []
        """The span in `text` of each token of all windows; None for marks and repeated tokens."""
        at = 0
        while at < len(pair.body) or not self.windows:
            first = again if self.windows else []
            piece = slice(at, at + room - len(first))
            self.windows.append([*ask, *first, *pair.body[piece], *pair.tail])
            self.chars += [*[None] * (len(ask) + len(first)), *spans[piece], *[None] * len(pair.tail)]
            at = piece.stop
        self._token_locations = list(self._locate_tokens())

    def _locate_tokens(self) -> Iterator[int]:
        places, at = self._location_spans, 0
        for span in self.chars:
            if span is None:
                yield -1
                continue
            while at < len(places) and places[at][1] <= span[0]:
                at += 1
            yield places[at][2] if at < len(places) and places[at][0] <= span[0] < places[at][1] else -1

    def spelling_of(self, column: int) -> NumberFormat:
        """Returns the number format of a column."""
        return self.spellings[column] if column < len(self.spellings) else NumberFormat()

    def cell(self, row: int, column: int) -> str:
        """Returns the text of a cell; empty if the row is shorter."""
        return self.table[row][column] if row < len(self.table) and column < len(self.table[row]) else ""

    def pooling(self) -> PoolingMatrices[NDArray[Any]]:
        """Returns the averaging matrices."""
        import numpy as np

        count, tokens = len(self.locations), len(self.chars)
        wide = max((len(row) for row in self.table), default=0)
        starts, at = np.zeros((1, tokens), np.float32), 0
        for window in self.windows:
            starts[0, at] = 1 / len(self.windows)
            at += len(window)
        locations = np.zeros((count, tokens), np.float32)
        for token, owner in enumerate(self._token_locations):
            if owner >= 0:
                locations[owner, token] = 1
        in_row, in_column = np.zeros((count, len(self.table)), np.float32), np.zeros((count, wide), np.float32)
        label, body = np.zeros((len(self.table), count), np.float32), np.zeros((len(self.table), count), np.float32)
        head, below = np.zeros((wide, count), np.float32), np.zeros((wide, count), np.float32)
        for number, location in enumerate(self.locations):
            if location.row >= 0:
                in_row[number, location.row] = in_column[number, location.column] = 1
                (body if label[location.row].any() else label)[location.row, number] = 1
                (head if location.row < self.header_rows else below)[location.column, number] = 1
        return PoolingMatrices(
            starts,
            _normalize_rows(locations),
            _normalize_rows(label),
            _normalize_rows(body),
            _normalize_rows(head),
            _normalize_rows(below),
            in_row,
            in_column,
        )

    def prose_mask(self) -> NDArray[Any]:
        """Whether each token is of the text around the table."""
        mask: NDArray[Any] = self.paragraph_ids() >= 0
        return mask

    def paragraph_ids(self) -> NDArray[Any]:
        """Returns the paragraph index of each token; -1 outside of the text around the table."""
        import numpy as np

        ids = np.full(len(self.chars), -1)
        for number, (start, end) in enumerate(self._paragraph_spans):
            for token, span in enumerate(self.chars):
                if span is not None and start <= span[0] < end:
                    ids[token] = number
        return ids


def _normalize_rows(matrix: NDArray[Any]) -> NDArray[Any]:
    """Divides the rows of a 0/1 matrix by their sums, to average over the last axis."""
    import numpy as np

    normalized_rows: NDArray[Any] = matrix / np.maximum(matrix.sum(axis=-1, keepdims=True), 1)
    return normalized_rows
