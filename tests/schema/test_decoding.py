"""Decoding of Python types: changing the result does not change the value."""

from __future__ import annotations

import dataclasses
import re
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from typing import Annotated, Any

import pytest
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    InstanceOf,
    JsonValue,
    SkipValidation,
    TypeAdapter,
)
from pydantic import model_validator as validator
from typing_extensions import NamedTuple, TypedDict

from orchestra.schema.builtin_models import Answer, Document
from orchestra.schema.decoding import copy_value, decode_value, may_alias_input


class Bag(BaseModel):
    words: list[str]
    more: Any = None


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class OpenDict(TypedDict):
    __pydantic_config__ = ConfigDict(extra="allow")  # type: ignore[misc]


class Renamed(BaseModel):
    words: list[str]

    @validator(mode="before")
    @classmethod
    def _renamed(cls, value: Any) -> Any:
        if isinstance(value, dict) and "old" in value:
            value["words"] = value.pop("old")
        return value


class Made(BaseModel):
    words: list[str]

    def __init__(self, **given: Any) -> None:
        given["words"].append("more")
        super().__init__(**given)


class Plain(BaseModel):
    default: list[str]
    config: dict[str, list[int]] = {}


class Tree(BaseModel):
    children: list[Tree] = []


class Pair(NamedTuple):
    left: list[int]
    right: list[int]


@dataclasses.dataclass
class Row:
    cells: list[str]


class Typed(TypedDict):
    rows: list[list[int]]


NESTED = {"rows": [[1], {"a": [2]}]}
KEPT: list[tuple[Any, Any]] = [
    (Any, NESTED),
    (object, NESTED),
    (dict, NESTED),
    (list, [[1], [2]]),
    (tuple, [[1], [2]]),
    (dict[str, Any], NESTED),
    (list[dict[str, Any]], [NESTED]),
    (Sequence, [[1]]),
    (Mapping, NESTED),
    (JsonValue, NESTED),
    (int | list[Any], [[1]]),
    (Bag, {"words": ["a"], "more": [[1]]}),
    (Open, {"words": ["a"]}),
    (OpenDict, {"words": ["a"]}),
    (Annotated[list[int], SkipValidation], [1]),
    (Annotated[list[int], InstanceOf], [1]),
    (Annotated[list[int], BeforeValidator(lambda value: value)], [1]),
    (Renamed, {"old": ["a"]}),
    (Made, {"words": ["a"]}),
]
REBUILT: list[tuple[Any, Any]] = [
    (list[int], [1]),
    (list[list[int]], [[1]]),
    (dict[str, list[int]], {"a": [1]}),
    (tuple[list[int], ...], [[1]]),
    (deque[int], [1]),
    (Sequence[list[int]], [[1]]),
    (Mapping[str, list[int]], {"a": [1]}),
    (list[int] | dict[str, list[int]] | None, {"a": [1]}),
    (Annotated[list[int], Field(max_length=3)], [1]),
    (Annotated[list[int], AfterValidator(lambda value: value)], [1]),
    (Plain, {"default": ["a"], "config": {"a": [1]}}),
    (Tree, {"children": [{"children": []}]}),
    (Pair, [[1], [2]]),
    (Row, {"cells": ["a"]}),
    (Typed, {"rows": [[1]]}),
    (Document, {"source": "a", "text": "b"}),
    (Answer, {"text": None, "citations": []}),
    (Sequence[Document], [{"source": "a", "text": "b"}]),
    (str | int | float | bool | None, 1),
]


def changed(value: Any, seen: set[int]) -> None:
    """Changes every container in a value of any type."""
    if id(value) in seen:
        return
    seen.add(id(value))
    if isinstance(value, dict):
        for inner in [*value.values()]:
            changed(inner, seen)
        value["changed"] = True
    elif isinstance(value, list | deque):
        for inner in [*value]:
            changed(inner, seen)
        value.append("changed")
    elif isinstance(value, tuple):
        for inner in value:
            changed(inner, seen)
    elif hasattr(value, "__dict__"):
        for inner in [*vars(value).values(), *(getattr(value, "__pydantic_extra__", None) or {}).values()]:
            changed(inner, seen)


def spoken(value: Any) -> str:
    """Returns the name of a case, which is the same in every process."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


@pytest.mark.parametrize(("kind", "value"), [*KEPT, *REBUILT], ids=spoken)
def test_decode_value_result_is_independent(kind: Any, value: Any) -> None:
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    before = deepcopy(value)
    changed(decode_value(adapter, value, copy_first=may_alias_input(adapter)), set())
    assert value == before


@pytest.mark.parametrize(("kind", "value"), REBUILT, ids=spoken)
def test_decode_value_avoids_needless_copy(kind: Any, value: Any) -> None:
    assert not may_alias_input(TypeAdapter(kind))


@pytest.mark.parametrize(
    "kind", [*(kind for kind, _ in KEPT), defaultdict[str, list[Any]], Counter[str], Iterable[int]], ids=spoken
)
def test_decode_value_copies_aliasing_types(kind: Any) -> None:
    assert may_alias_input(TypeAdapter(kind))


def test_copy_value_equals_value() -> None:
    value: dict[str, Any] = {"a": [1, (2, [3])], "b": {"c": None}}
    assert copy_value(value) == value
    assert copy_value(value)["a"] is not value["a"]
    assert copy_value(value)["a"][1][1] is not value["a"][1][1]
