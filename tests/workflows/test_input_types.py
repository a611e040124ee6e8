"""Tests of input types: constraints are enforced, values are unchanged, and every type with a JSON form is accepted."""

from __future__ import annotations

from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

import pytest
from pydantic import BaseModel, Field, SecretStr

from orchestra import InputError, Orchestra, Step, as_text, tool, workflow
from orchestra.core.settings import Settings
from orchestra.schema.types import field_type
from orchestra.workflows.yaml.reader import read
from orchestra.workflows.yaml.writer import write
from tests.workflows.ensemble import compiled

T = TypeVar("T")
Few = Annotated[int, Field(ge=1, le=10)]


@tool(effect="pure")
def echo(x: str) -> str:
    """The text."""
    return x


async def outcome(step: Step[..., Any], **inputs: Any) -> Any:
    """What a step gives."""
    async with Orchestra.open(Settings.load({"journal": "off"}), fleet="none") as orchestra:
        return (await orchestra.run(step, **inputs)).output


@workflow()
def limited(n: Few = 3) -> str:
    """Its input has limits."""
    return echo(x=as_text(n))


async def test_input_constraints_enforced() -> None:
    assert await outcome(limited, n=7) == "7"
    assert await outcome(limited) == "3"
    with pytest.raises(InputError, match="expected at least 1, got -5") as caught:
        await outcome(limited, n=-5)
    assert caught.value.code == "E013"


class Page(BaseModel, Generic[T]):
    """A generic model."""

    items: list[T]


NOW = datetime(2026, 1, 1, 10, 30, tzinfo=UTC)
VALUES: tuple[tuple[Any, Any], ...] = (
    (datetime, NOW),
    (datetime, datetime(2026, 1, 1)),
    (datetime | None, NOW),
    (date, date(2026, 1, 1)),
    (time, time(10)),
    (timedelta, timedelta(milliseconds=500)),
    (timedelta, timedelta(hours=-1)),
    (Decimal, Decimal("1.10")),
    (UUID, UUID(int=5)),
    (Path, Path("a") / "b"),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (Any, {"a": [1]}),
    (dict[str, Any], {"a": None}),
    (Page[int], Page[int](items=[1])),
    (list[Few], [1, 2]),
    (dict[str, Few], {"a": 1}),
    (Annotated[str, Field(pattern="^a+$")], "aa"),
)


@pytest.mark.parametrize(("kind", "value"), VALUES, ids=lambda one: str(one)[:40])
async def test_input_value_unchanged(kind: Any, value: Any) -> None:
    given: list[Any] = []

    @tool(effect="pure")
    def take(x: kind) -> kind:
        given.append(x)
        return x

    @workflow()
    def flow(x: kind) -> kind:
        return take(x=x)

    assert await outcome(flow, x=value) == value
    assert await outcome(take, x=value) == value
    assert given == [value, value]


def test_input_outside_annotation_refused() -> None:
    @tool(effect="pure")
    def take(n: Few) -> int:
        return n

    @workflow()
    def flow(n: Annotated[int, Field(ge=0)]) -> int:
        return take(n=n)

    with pytest.raises(InputError) as caught:
        assert flow.graph
    assert caught.value.message == "take(n=...) takes int, got int: minimum 1 is not guaranteed"


def test_input_type_written_or_declared() -> None:
    @workflow()
    def flow(text: str, due_date: date | None, names: list[str]) -> str:
        return echo(x=text)

    graph = flow.graph
    assert {name: one.type for name, one in graph.input.items()} == {
        "text": "str",
        "due_date": "DueDateInput",
        "names": "list[str]",
    }
    assert graph.types == {"DueDateInput": {"anyOf": [{"type": "string", "format": "date"}, {"type": "null"}]}}
    assert compiled(flow).inputs["due_date"].schema == graph.types["DueDateInput"]
    assert read(write(graph), "flow.yaml").graph == graph


def test_input_models_of_one_name_distinct() -> None:
    def made(kind: Any) -> type[BaseModel]:
        class Item(BaseModel):
            value: kind

        return Item

    first, second = made(int), made(str)

    @tool(effect="pure")
    def take(a: first, b: second) -> str:  # type: ignore[valid-type]
        return str(a)

    @workflow()
    def flow(a: first, b: second) -> str:  # type: ignore[valid-type]
        return take(a=a, b=b)

    kinds = {name: field_type(one.schema, "value") for name, one in compiled(flow).inputs.items()}
    assert kinds == {"a": {"type": "integer"}, "b": {"type": "string"}}


async def test_input_secret_refused() -> None:
    @tool(effect="pure")
    def take(key: SecretStr) -> str:
        return key.get_secret_value()

    @workflow()
    def flow(key: SecretStr) -> str:
        return take(key=key)

    for step in (take, flow):
        with pytest.raises(InputError, match="secret, and what a run is given is written down") as caught:
            await outcome(step, key=SecretStr("a"))
        assert caught.value.code == "W018"


async def test_mapping_dynamic_key_has_value_type() -> None:
    @workflow()
    def flow(counts: dict[str, int], key: str) -> str:
        return echo(x=as_text(counts[key] + 1))

    assert await outcome(flow, counts={"a": 2}, key="a") == "3"
