"""Tests of default factories: a constant result is the default of the type, another is known once pydantic has made
it.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from pydantic import BaseModel, Field

from orchestra import InputError, build, choose, length, tool, workflow
from orchestra.core.errors import OrchestraError
from orchestra.schema.types import schema_of
from orchestra.workflows.expressions.templates import compile_template
from tests.workflows.ensemble import compiled


class Layout(BaseModel):
    width: int = 80
    fonts: list[str] = Field(default_factory=lambda: ["serif"])


class Stamped(BaseModel):
    at: datetime = Field(default_factory=lambda: datetime.now(UTC))


class Note(BaseModel):
    text: str
    tags: list[str] = Field(default_factory=list)
    layout: Layout = Field(default_factory=Layout)
    id: UUID = Field(default_factory=uuid4)
    stamp: Stamped = Field(default_factory=Stamped)
    size: int = Field(default_factory=lambda data: len(data["text"]))


@tool(effect="pure")
def counted(tags: list[str]) -> int:
    """How many there are."""
    return len(tags)


@tool(effect="pure")
def echo(x: str) -> str:
    """The text."""
    return x


def test_constant_factory_is_default() -> None:
    for mode in ("validation", "serialization"):
        fields = schema_of(Note, mode)["properties"]
        assert {name: part.get("default", "none") for name, part in fields.items()} == {
            "text": "none",
            "tags": [],
            "layout": {"width": 80, "fonts": ["serif"]},
            "id": "none",
            "stamp": "none",
            "size": "none",
        }


def test_build_uses_factories() -> None:
    @workflow()
    def flow(text: str) -> int:
        note = build(Note, text=echo(x=text))
        return counted(tags=choose(length(note.tags) == 0, note.layout.fonts, ["no"]))

    inputs = compiled(flow).nodes[1].inputs
    assert inputs is not None
    assert inputs.evaluate({"echo": "a", "input": {"text": "a"}}) == {"tags": ["serif"]}


def test_variable_factory_field_unknown() -> None:
    @workflow()
    def flow(text: str) -> str:
        note = build(Note, text=echo(x=text))
        return echo(x=note.id)  # type: ignore[arg-type]

    with pytest.raises(InputError, match="Note has no field 'id'") as caught:
        assert flow.graph
    assert caught.value.code == "W002"


def test_factory_input_optional() -> None:
    @workflow()
    def flow(note: Note) -> str:
        return echo(x=choose(length(note.tags) == 0, "none", note.text))

    inputs = compiled(flow).nodes[0].inputs
    assert inputs is not None
    assert inputs.evaluate({"input": {"note": {"text": "a"}}}) == {"x": "none"}


def test_missing_factory_input_has_hint() -> None:
    @workflow()
    def flow(note: Note) -> str:
        return echo(x=note.id)  # type: ignore[arg-type]

    inputs = compiled(flow).nodes[0].inputs
    assert inputs is not None
    with pytest.raises(OrchestraError, match="there is no field 'id'") as caught:
        inputs.evaluate({"input": {"note": {"text": "a"}}})
    assert (caught.value.code, caught.value.hint) == (
        "L061",
        "give it in the input, or test it first: has(input.note.id)",
    )


def test_yaml_record_uses_factories() -> None:
    types: dict[str, Any] = {"note": schema_of(Note, "validation")}
    assert compile_template("${note.layout.width + size(note.tags)}", types).evaluate({"note": {"text": "a"}}) == 80
