"""Models that every project can use by name: documents, passages, quotes, answers."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Quote = Annotated[str, WithJsonSchema({"type": "string", "format": "quote"})]
"""Text that occurs verbatim in the evidence of the call that produced it. It is transferred as plain text."""


class StrictModel(BaseModel):
    """A frozen model that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Location(StrictModel):
    """Where a part of a document is in its file: a page, a heading, a range of cells. It ends where the next one
    starts.
    """

    start: int = Field(description="its first character in the document's text")
    name: str = Field(description="as a reader says it: `p. 3`, `Q3!A7:D7`, `slide 4`")


class Document(StrictModel):
    """A text with a name."""

    source: str = Field(description="where it comes from: a file's name, a title, an address")
    text: str
    locations: list[Location] = Field(default=[], description="pages, headings or cells of the file, in order")


class Passage(StrictModel):
    """A part of a document: `text == document.text[start:end]`, in characters."""

    source: str
    text: str
    start: int = 0
    end: int = 0
    score: float = 0.0
    locations: list[Location] = Field(default=[], description="the locations in the file that it overlaps, in order")


class Citation(StrictModel):
    """A quote of a document: `quote == document.text[start:end]`, in characters."""

    quote: str
    source: str
    start: int
    end: int
    location: str = Field(default="", description="where it is in the file, such as `p. 3`")


class Answer(StrictModel):
    """An answer with its evidence; `text` is null if the documents do not contain the answer."""

    text: str | None
    citations: list[Citation] = []


class Cell(StrictModel):
    """A cell of a table: its position from 0, its text, and the headers of its row and column."""

    row: int
    column: int
    text: str
    row_heading: str = ""
    column_heading: str = ""
    location: str = Field(default="", description="where it is in a file, such as `sales.xlsx Q3!B7`")


ColumnType = Literal["text", "integer", "number", "percent", "money", "date", "datetime", "boolean"]
"""What the cells of a column are; all of them that are not empty can be read so."""


class Column(StrictModel):
    """A column of a table: its name, and how its cells are read."""

    name: str
    type: ColumnType = "text"
    unit: str = Field(default="", description="a currency (`EUR`), `%`, or what all numbers have behind them (`kg`)")
    decimal_comma: bool = Field(default=False, description="whether `1.234` is more than a thousand")
    month_first: bool = Field(default=False, description="whether `1/2/2024` is in January")


class Table(StrictModel):
    """A table of a file: the texts of its cells, and the types of its columns."""

    name: str = Field(description="unique among the tables of a request: `sales.xlsx Q3`, `report.docx table 2`")
    source: str = ""
    sheet: str = Field(default="", description="the sheet, or which table of the file; empty for a file that is one")
    cells: list[list[str]] = Field(description="all rows of equal length, the header first")
    header_rows: int = 1
    row: int = Field(default=1, description="the row of the first cell in its sheet, from 1")
    column: int = Field(default=1, description="the column of the first cell in its sheet, from 1")
    columns: list[Column] = []


class Judgement(StrictModel):
    """Result of a tool that checks a value: whether the value is right (null if unknown), the reason, and the
    confidence.
    """

    passed: bool | None
    reason: str = ""
    score: float | None = Field(default=None, ge=0, le=1)


class Reading(StrictModel):
    """The answer of one passage to a question, in its own words; null if there is none."""

    answer: Quote | None
