"""Models that every project can use by name: documents, passages, quotes, answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Quote = Annotated[str, WithJsonSchema({"type": "string", "format": "quote"})]
"""Text that occurs verbatim in the evidence of the call that produced it. It is transferred as plain text."""


class StrictModel(BaseModel):
    """A frozen model that rejects unknown fields."""

    model_config = ConfigDict(frozen=True, extra="forbid", defer_build=True)


class Document(StrictModel):
    """A text with a name."""

    source: str = Field(description="where it comes from: a file's name, a title, an address")
    text: str


class Passage(StrictModel):
    """A part of a document: `text == document.text[start:end]`, in characters."""

    source: str
    text: str
    start: int = 0
    end: int = 0
    score: float = 0.0


class Citation(StrictModel):
    """A quote of a document: `quote == document.text[start:end]`, in characters."""

    quote: str
    source: str
    start: int
    end: int


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
