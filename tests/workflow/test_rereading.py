"""What a model writes is what it reads again: strict models, and names of fields."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from orchestra import InputError, Orchestra, agent, tool, workflow
from orchestra.config import Settings


class Strict(BaseModel):
    model_config = ConfigDict(strict=True)
    on: date
    pair: tuple[int, str]
    names: frozenset[str] = frozenset()


@tool(effect="pure")
def made(text: str) -> Strict:
    """A strict model."""
    return Strict(on=date(2026, 1, 1), pair=(1, text), names=frozenset({text}))


@tool(effect="pure")
def said(strict: Strict) -> str:
    """What is in a strict model."""
    return f"{strict.on:%d.%m.} {strict.pair} {sorted(strict.names)}"


@workflow()
def passed(text: str) -> Strict:
    """A strict model is the output."""
    return made(text=text)


@workflow()
def told(text: str) -> str:
    """A strict model is an input of a tool."""
    return said(strict=made(text=text))


async def test_strict_models_are_read_from_what_they_wrote() -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        result = await orchestra.run(passed, text="a")
        assert result.output == Strict(on=date(2026, 1, 1), pair=(1, "a"), names=frozenset({"a"}))
        assert (await orchestra.run(told, text="a")).output == "01.01. (1, 'a') ['a']"


class Renamed(BaseModel):
    n: int = Field(0, serialization_alias="nOut")


class Unread(BaseModel):
    n: int = Field(0, validation_alias="N")


class Nested(BaseModel):
    unread: Unread


class Outer(BaseModel):
    inner: list[Renamed] | None = None


def output(text: str) -> Renamed:
    """Its output."""
    return Renamed(n=3)


def given(inner: dict[str, Outer]) -> str:
    """Its input."""
    return "a"


@pytest.mark.parametrize("function", [output, given])
def test_a_name_that_is_written_and_not_read_is_refused(function: Callable[..., Any]) -> None:
    with pytest.raises(InputError, match="Renamed writes 'n' as 'nOut', and reads no such name") as caught:
        tool(effect="pure")(function)
    assert (caught.value.code, caught.value.hint) == ("W017", "n: ... = Field(alias='nOut')")


def test_models_of_agents_are_looked_at_too() -> None:
    with pytest.raises(InputError, match="Unread writes 'n' as 'n', and reads no such name"):
        agent("reader", Nested, str)
    assert agent("reader", Unread, str).signature.fields == {"N": {"default": 0, "type": "integer"}}  # its fields alone are given


class Fine(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(0, alias="A")
    b: int = Field(0, validation_alias=AliasChoices("B", "b"))
    c: int = Field(0, validation_alias="C")
    d: int = Field(0, exclude=True, serialization_alias="D")

    @computed_field
    def twice(self) -> int:
        """Written, and read by nobody."""
        return self.a * 2


def test_what_is_read_by_another_name_too_stays() -> None:
    @tool(effect="pure")
    def same(fine: Fine) -> Fine:
        return fine

    assert same.read({"A": 1, "b": 2, "c": 3, "twice": 2}) == Fine.model_validate({"A": 1, "B": 2, "C": 3})
