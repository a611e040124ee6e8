"""Models that every project knows by name: documents, passages, quotes, answers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

Quote = Annotated[str, WithJsonSchema({"type": "string", "format": "quote"})]
"""Text that stands word for word in the evidence of the very call that wrote it. On the wire it is the text alone."""


class StrictModel(BaseModel):
    """A frozen model that refuses unknown fields."""

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
    """Words of a document: `quote == document.text[start:end]`, in characters."""

    quote: str
    source: str
    start: int
    end: int


class Answer(StrictModel):
    """An answer with what it rests on; `text` is null where the documents do not tell."""

    text: str | None
    citations: list[Citation] = []


class Cell(StrictModel):
    """A cell of a table: its place, counted from 0, its text, and what its row and its column are called."""

    row: int
    column: int
    text: str
    row_heading: str = ""
    column_heading: str = ""


class Judgement(StrictModel):
    """What a tool that a check asks says of a value: whether it is right, null where it cannot tell; why, and how surely."""

    passed: bool | None
    reason: str = ""
    score: float | None = Field(default=None, ge=0, le=1)


class Reading(StrictModel):
    """What one passage says to a question, in its own words; null where it says nothing."""

    answer: Quote | None
