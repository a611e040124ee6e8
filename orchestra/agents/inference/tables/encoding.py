"""Sheets: a question, a table and the text around it as an encoder reads them, with the places in them that may be pointed at.

The table is read once, row by row, its head on top; what is longer than the encoder reads at once is read in windows, each of which begins
with the question and the head. A place (`Spot`) is a cell, a figure of the text, or one of the question, in words too, for a sum may
need it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from orchestra.agents.inference.tables.operations import figure
from orchestra.agents.inference.tables.question import Given, given
from orchestra.text.keywords import whole
from orchestra.text.numbers.sort_keys import Spelling, spelling

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from orchestra.agents.inference.encoder import Encoder

MAX_QUESTION = 128
"""Tokens of a question that are read at most."""
MAX_HEAD = 3
"""Rows of a table that are taken for its head at most."""
_FIGURES = re.compile(
    r"(?<![\w.,])\(?(?:[-−–](?:(?:US|CA|AU|NZ|HK|[ACRS])\$|[₹₩₽₺₪])|[-−–]?[$€£¥]?)(?:\d{1,3}(?:\.\d{3})+,\d+|\d{1,3}(?:\.\d{3}){2,}(?![\d.])|\d(?:[\d,]*\d)?(?:\.\d+)?)\)?"
)
"""Figures of the text: of `2010-2015` and `COVID-19` the stroke is no minus."""
_YEAR = re.compile(r"\((?:19|20)\d\d\)")
TOTAL = re.compile(r"\s*(?:(?:grand |sub-?)?total|average)\b|\s*(?:mean|sum|all|together)\s*$", re.IGNORECASE)
"""The first cell of a row that is of other rows."""
A = TypeVar("A")


class Spot(NamedTuple):
    """A place that may be pointed at."""

    text: str
    """What stands there, blanks made one."""
    row: int = -1
    """The row of the table, from 0; -1 outside of it."""
    column: int = -1
    figure: str | None = None
    """Its first figure, as an expression has it."""
    given: Given | None = None
    """What it is in the question, if that gives it."""


@dataclass(frozen=True, slots=True)
class Frame(Generic[A]):
    """Which tokens make a place, and which places make a row and a column: arrays that average, so that products do all."""

    starts: A
    """(1, tokens): the first mark of each window."""
    spots: A
    """(spots, tokens)"""
    label: A
    """(rows, spots): the first filled cell of each row."""
    body: A
    """(rows, spots): the others."""
    head: A
    """(columns, spots): the cells of a column in the head."""
    below: A
    """(columns, spots): those below."""
    in_row: A
    """(spots, rows): 1 where a place is in a row."""
    in_column: A
    """(spots, columns)"""


def heads(table: Sequence[Sequence[str]]) -> int:
    """How many rows of a table are its head: the first, and those behind it until there is a row with a name."""
    full = any(cell.strip() for cell in table[0][1:]) if table else False
    count = min(1, len(table))
    while count < min(MAX_HEAD, len(table) - 1) and not (full and "".join(table[count][:1]).strip()):
        full = full or any(cell.strip() for cell in table[count][1:])
        count += 1
    return count


def spellings(rows: Sequence[Sequence[str]]) -> list[Spelling]:
    """How the columns of a table are written: as their own cells tell, or else those of all, for a table is written by one hand."""
    all_of = spelling([cell for row in rows for cell in row], sure=True)
    columns = zip_longest(*rows, fillvalue="")
    return [Spelling(*map(max, spelling(column), all_of)) for column in columns]


class Sheet:
    """What is read for one question."""

    def __init__(self, encoder: Encoder, question: str, table: Sequence[Sequence[str]], paragraphs: Sequence[str], tokens: int) -> None:
        """`tokens` are those of a window at most."""
        self.question, self.table, self.paragraphs = question, table, paragraphs
        self.top = heads(table)
        self.spelt = spellings(table[self.top :])
        """How each column is written, from the row below the head on."""
        self.spots: list[Spot] = []
        self.text = ""
        """The table and the text, as they are read behind the question."""
        self._places: list[tuple[int, int, int]] = []  # of spots: begin, end, number; in order
        self._prose: list[tuple[int, int]] = []
        after_head = self._written(question, table, paragraphs)
        self._owner: list[int] = []
        """Of each token the place that it is of, or -1."""
        self._read(encoder, after_head, tokens)

    def _written(self, question: str, table: Sequence[Sequence[str]], paragraphs: Sequence[str]) -> int:
        """Puts the text together; where the head ends in it."""
        after_head = 0
        for row, cells in enumerate(table):
            for column, cell in enumerate(cells):
                plain = " ".join(cell.split())
                if plain:
                    self._add(Spot(plain, row, column, figure(plain, points=self.spelt_in(column).points)), plain)
                self.text += " | "
            self.text += "\n"
            after_head = len(self.text) if row < self.top else after_head
        for one in given(question):
            self._add(Spot(one.text, figure=one.figure, given=one), one.text)
            self.text += " | "
        self.text += "\n"
        for paragraph in paragraphs:
            start = len(self.text)
            self._prose.append((start, start + len(paragraph)))
            for found in _FIGURES.finditer(paragraph):
                self._places.append((start + found.start(), start + found.end(), len(self.spots)))
                said = found[0].strip("()") if _YEAR.fullmatch(found[0]) else found[0]
                rest = paragraph[found.end() : whole(paragraph, *found.span())[1]]  # of `$5.3M` or `1990s`
                self.spots.append(Spot(said + rest, figure=figure(said)))
            self.text += f"{paragraph}\n"
        return after_head

    def _add(self, spot: Spot, text: str) -> None:
        self._places.append((len(self.text), len(self.text) + len(text), len(self.spots)))
        self.spots.append(spot)
        self.text += text

    def _read(self, encoder: Encoder, after_head: int, tokens: int) -> None:
        pair = encoder.pair(self.question, self.text)
        most = min(MAX_QUESTION, tokens // 2)
        ask = pair.head if len(pair.head) <= most else [*pair.head[: most - 2], *pair.head[-2:]]
        spans = list(pair.spans)
        top = next((at for at, (start, _) in enumerate(spans) if start >= after_head), len(spans))
        room = tokens - len(ask) - len(pair.tail)
        again = pair.body[:top] if top <= room // 2 else []
        self.windows: list[list[int]] = []
        self.chars: list[tuple[int, int] | None] = []
        """Of each token of all windows, one after the other, where it stands in `text`; None for marks and for what is repeated."""
        at = 0
        while at < len(pair.body) or not self.windows:
            first = again if self.windows else []
            piece = slice(at, at + room - len(first))
            self.windows.append([*ask, *first, *pair.body[piece], *pair.tail])
            self.chars += [*[None] * (len(ask) + len(first)), *spans[piece], *[None] * len(pair.tail)]
            at = piece.stop
        self._owner = list(self._owners())

    def _owners(self) -> Iterator[int]:
        places, at = self._places, 0
        for span in self.chars:
            if span is None:
                yield -1
                continue
            while at < len(places) and places[at][1] <= span[0]:
                at += 1
            yield places[at][2] if at < len(places) and places[at][0] <= span[0] < places[at][1] else -1

    def spelt_in(self, column: int) -> Spelling:
        """How a column is written."""
        return self.spelt[column] if column < len(self.spelt) else Spelling()

    def cell(self, row: int, column: int) -> str:
        """What stands in a cell; nothing where the row ends before it."""
        return self.table[row][column] if row < len(self.table) and column < len(self.table[row]) else ""

    def frame(self) -> Frame[NDArray[Any]]:
        """The arrays that average."""
        import numpy as np

        count, tokens = len(self.spots), len(self.chars)
        wide = max((len(row) for row in self.table), default=0)
        starts, at = np.zeros((1, tokens), np.float32), 0
        for window in self.windows:
            starts[0, at] = 1 / len(self.windows)
            at += len(window)
        spots = np.zeros((count, tokens), np.float32)
        for token, owner in enumerate(self._owner):
            if owner >= 0:
                spots[owner, token] = 1
        in_row, in_column = np.zeros((count, len(self.table)), np.float32), np.zeros((count, wide), np.float32)
        label, body = np.zeros((len(self.table), count), np.float32), np.zeros((len(self.table), count), np.float32)
        head, below = np.zeros((wide, count), np.float32), np.zeros((wide, count), np.float32)
        for number, spot in enumerate(self.spots):
            if spot.row >= 0:
                in_row[number, spot.row] = in_column[number, spot.column] = 1
                (body if label[spot.row].any() else label)[spot.row, number] = 1
                (head if spot.row < self.top else below)[spot.column, number] = 1
        return Frame(starts, _mean(spots), _mean(label), _mean(body), _mean(head), _mean(below), in_row, in_column)

    def prose(self) -> NDArray[Any]:
        """Of each token, whether it is one of the text around the table."""
        given: NDArray[Any] = self.paragraph() >= 0
        return given

    def paragraph(self) -> NDArray[Any]:
        """Of each token the number of the paragraph that it is of, -1 outside of the text around the table."""
        import numpy as np

        found = np.full(len(self.chars), -1)
        for number, (start, end) in enumerate(self._prose):
            for token, span in enumerate(self.chars):
                if span is not None and start <= span[0] < end:
                    found[token] = number
        return found


def _mean(ones: NDArray[Any]) -> NDArray[Any]:
    """Ones and noughts as what averages over the last axis."""
    import numpy as np

    made: NDArray[Any] = ones / np.maximum(ones.sum(axis=-1, keepdims=True), 1)
    return made
