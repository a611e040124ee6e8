"""Tests that a model reads its own output: strict models, texts next to types written as texts, field aliases."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from typing import cast

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, computed_field

from orchestra import Orchestra, build, tool, workflow
from orchestra.core.errors import InputError
from orchestra.core.settings import Settings


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


async def test_strict_model_reads_own_output() -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        result = await orchestra.run(passed, text="a")
        assert result.output == Strict(on=date(2026, 1, 1), pair=(1, "a"), names=frozenset({"a"}))
        assert (await orchestra.run(told, text="a")).output == "01.01. (1, 'a') ['a']"


class Decided(BaseModel):
    """A text stays a text where the type may be one."""

    price: Decimal | str
    raw: bytes | str


@tool(effect="pure")
def kept(price: Decimal | str, decided: Decided) -> str:
    """The Python types of what it gets."""
    return f"{type(price).__name__} {type(decided.price).__name__} {type(decided.raw).__name__}"


@workflow()
def types(price: str) -> str:
    """A text where a number in a text would do as well."""
    return kept(price=price, decided=build(Decided, price=price, raw=price))


async def test_text_not_parsed_as_number() -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        assert (await orchestra.run(types, price="12")).output == "str str str"


class OneWay(BaseModel):
    name: str = Field(validation_alias="userName")


@tool(effect="pure")
def greeted(user: OneWay) -> str:
    """Its input comes as JSON."""
    return f"hi {user.name}"


async def test_model_with_validation_alias_is_input() -> None:
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        assert (await orchestra.run(greeted, user=cast("OneWay", {"userName": "Ann"}))).output == "hi Ann"


class Fine(BaseModel):
    model_config = ConfigDict(populate_by_name=True)
    a: int = Field(0, alias="A")
    b: int = Field(0, validation_alias=AliasChoices("B", "b"))
    c: int = Field(0, validation_alias="C")
    d: int = Field(0, exclude=True, serialization_alias="D")

    @computed_field
    def twice(self) -> int:
        """Serialized, but never parsed."""
        return self.a * 2


def test_model_with_alias_choices_unchanged() -> None:
    @tool(effect="pure")
    def same(fine: Fine) -> Fine:
        return fine

    assert same.read({"A": 1, "b": 2, "c": 3, "twice": 2}) == Fine.model_validate({"A": 1, "B": 2, "C": 3})


def test_exception_message_shows_placeholder() -> None:
    @workflow()
    def raising(text: str) -> str:
        raise TypeError(text)

    with pytest.raises(InputError) as caught:
        assert raising.graph
    assert caught.value.code == "W028"
    assert "TypeError: <text: str" in str(caught.value)
