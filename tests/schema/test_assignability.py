"""Assignability: results and reasons, and that an assignable value is always valid (pydantic is the reference)."""

from __future__ import annotations

import datetime
import itertools
import json
from typing import Annotated, Any, Literal, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, create_model

from orchestra.schema.assignability import assignability_error
from orchestra.schema.builtin_models import Answer, Document, Passage, Quote, StrictModel
from orchestra.schema.types import Schema, schema_of
from tests.unsafe_reference import assert_cost


class Fact(StrictModel):
    fact: str
    quote: Quote


class Loose(BaseModel):
    fact: str


class Tree(BaseModel):
    name: str
    children: list[Tree]


class Forest(BaseModel):
    name: str | None
    children: list[Forest]


class IntTree(BaseModel):
    name: str
    children: list[Tree | int]


def check(producer: Any, consumer: Any) -> str | None:
    return assignability_error(schema_of(producer, "serialization"), schema_of(consumer, "validation"))


@pytest.mark.parametrize(
    ("producer", "consumer"),
    [
        (str, str),
        (int, float),
        (str, str | None),
        (Literal["a"], str),
        (Literal["a"], Literal["a", "b"]),
        (Literal[1, 2], int),
        (list[int], list[float]),
        (tuple[int, int], list[int]),
        (Quote, str),
        (Quote, Quote),
        (list[Quote], list[str]),
        (Passage, Loose | Passage),
        (Fact, Loose),
        (dict[str, int], dict[str, float]),
        (Tree, Forest),
        (list[Tree], list[Forest]),
        (Answer, Any),
        (Annotated[int, Field(ge=3, le=5)], Annotated[int, Field(ge=0)]),
        (Annotated[list[int], Field(min_length=2)], Annotated[list[int], Field(min_length=1)]),
    ],
)
def test_assignable_types(producer: Any, consumer: Any) -> None:
    assert check(producer, consumer) is None


@pytest.mark.parametrize(
    ("producer", "consumer", "reason"),
    [
        (int, str, "expected str, got int"),
        (float, int, "expected int, got float"),
        (str | None, str, "expected str, got null"),
        (str, Quote, "expected Quote, got str"),
        (Literal["a"], Quote, "expected Quote, got 'a'"),
        (list[str], list[Quote], "[]: expected Quote, got str"),
        (str, Literal["a"], "expected Literal['a'], got str"),
        (Literal["c"], Literal["a", "b"], "expected Literal['a', 'b'], got 'c'"),
        (list[Passage], list[Fact], "[].fact: required by Fact, absent in Passage"),
        (Loose, Fact, ".quote: required by Fact, absent in Loose"),
        (list[int], str, "expected str, got list[int]"),
        (list[int], tuple[int, int], "minItems 2 is not guaranteed"),
        (str | int, str, "expected str, got int"),
        (bool, int, "expected int, got bool"),
        (Any, str, "expected str, got anything"),
        (Answer, Document, ".source: required by Document, absent in Answer"),
        (IntTree, Tree, ".children[]: expected Tree, got int"),
        (Forest, Tree, ".name: expected str, got null"),
        (int, Annotated[int, Field(gt=0)], "exclusiveMinimum 0 is not guaranteed"),
        (dict[str, int], Loose, ".fact: required by Loose, may be absent in dict[str, int]"),
        (str, Annotated[str, Field(pattern="^a")], "pattern '^a' is not guaranteed"),
    ],
)
def test_unassignable_types_have_reason(producer: Any, consumer: Any, reason: str) -> None:
    assert check(producer, consumer) == reason


def test_assignability_names_forbidden_fields() -> None:
    class Closed(StrictModel):
        fact: str

    assert check(Fact, Closed) == ".quote: Closed has no such field, Fact has"


def test_assignability_bare_object_has_no_fields() -> None:
    assert assignability_error({"type": "object"}, schema_of(dict[str, int], "validation")) is not None


def test_assignability_compares_each_constant() -> None:
    consumer = schema_of(Document, "validation")
    assert assignability_error({"const": {"source": "a", "text": "b"}}, consumer) is None
    assert assignability_error({"const": {"source": "a", "txt": "b"}}, consumer) is not None
    assert (
        assignability_error({"const": {"fact": "a", "quote": "b"}}, schema_of(Fact, "validation"))
        == "expected Quote, got an object"
    )
    assert assignability_error({"const": 6}, {"type": "integer"}) is None
    assert assignability_error({"const": True}, {"type": "integer"}) == "expected int, got true"


def test_assignability_unknown_keyword_must_be_equal() -> None:
    wants = {"type": "object", "patternProperties": {"^a": {"type": "string"}}}
    assert assignability_error({"type": "object", "properties": {}}, wants) == "cannot prove 'patternProperties'"
    assert assignability_error({**wants, "title": "X"}, wants) is None


def test_assignability_hostile_types_are_refused() -> None:
    def wide(depth: int, leaf: Schema) -> Schema:
        inner = leaf if not depth else wide(depth - 1, leaf)
        return {"anyOf": [{"type": "array", "items": inner, "minItems": n} for n in (0, 1, 2, 3, 4, 5)]}

    given, wants = wide(8, {"type": "integer"}), wide(8, {"type": "number"})
    assert "too complex" in str(assignability_error(given, wants))
    assert_cost(lambda: assignability_error(given, wants), at_most=300)


INT = st.builds(lambda a, b: Annotated[int, Field(ge=min(a, b), le=max(a, b))], st.integers(-3, 3), st.integers(-3, 3))
OPEN = st.builds(lambda low: Annotated[int, Field(gt=low)], st.integers(-3, 3))
FLOAT = st.builds(lambda low: Annotated[float, Field(ge=low)], st.integers(-2, 2))
STR = st.builds(
    lambda low, n: Annotated[str, Field(min_length=low, max_length=low + n)], st.integers(0, 2), st.integers(0, 3)
)
LITERALS = [Literal["a"], Literal["a", "b"], Literal[1, "a"], Literal[1, 2], Literal[True]]
LEAF: st.SearchStrategy[Any] = (
    st.sampled_from([int, float, bool, str, type(None), datetime.date, *LITERALS, Any]) | INT | OPEN | FLOAT | STR
)
NUMBER = itertools.count()


def model(fields: dict[str, tuple[Any, bool]], extra: Literal["ignore", "forbid", "allow"]) -> Any:
    made: Any = {name: ((kind, ...) if required else (kind, None)) for name, (kind, required) in fields.items()}
    return create_model(f"M{next(NUMBER)}", __config__=ConfigDict(extra=extra, validate_default=False), **made)


def wider(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    fields = st.dictionaries(st.sampled_from("abc"), st.tuples(inner, st.just(True)), max_size=3)
    return st.one_of(
        inner.map(lambda t: list[t]),  # type: ignore[valid-type]  # types are made at run time here
        inner.map(lambda t: Annotated[list[t], Field(min_length=1, max_length=3)]),  # type: ignore[valid-type]  # as above
        st.tuples(inner, inner).map(lambda ts: Union[ts]),  # noqa: UP007 - types are made at run time here
        inner.map(lambda t: dict[str, t]),  # type: ignore[valid-type]  # types are made at run time here
        inner.map(lambda t: Union[t, None]),  # noqa: UP007 - as above
        st.tuples(inner, inner).map(lambda ts: tuple[ts]),  # type: ignore[valid-type]  # types are made at run time here
        st.builds(model, fields, st.sampled_from(["ignore", "forbid", "allow"])),
    )


TYPE = st.recursive(LEAF, wider, max_leaves=5)


def values(schema: Schema, root: Schema) -> st.SearchStrategy[Any]:
    """Draws JSON values that are similar to a schema; pydantic decides whether they are valid for the producer."""
    if "$ref" in schema:
        schema = root["$defs"][schema["$ref"].rsplit("/", 1)[-1]]
    if "const" in schema or "enum" in schema:
        return st.sampled_from(schema.get("enum", [schema.get("const")]))
    if "anyOf" in schema:
        return st.one_of([values(part, root) for part in schema["anyOf"]])
    match schema.get("type"):
        case "integer":
            low = max(schema.get("minimum", -4), schema.get("exclusiveMinimum", -5) + 1)
            return st.integers(low, schema.get("maximum", 9))
        case "number":
            return st.floats(schema.get("minimum", -4), 4, allow_nan=False)
        case "boolean":
            return st.booleans()
        case "null":
            return st.none()
        case "string" if schema.get("format") == "date":
            return st.dates().map(str)
        case "string":
            return st.text("abz1", min_size=schema.get("minLength", 0), max_size=schema.get("maxLength", 3))
        case "array" if "prefixItems" in schema:
            return st.tuples(*[values(part, root) for part in schema["prefixItems"]]).map(list)
        case "array":
            return st.lists(
                values(schema.get("items", {}), root),
                min_size=schema.get("minItems", 0),
                max_size=schema.get("maxItems", 2),
            )
        case "object":
            known = st.fixed_dictionaries(
                {name: values(part, root) for name, part in schema.get("properties", {}).items()}
            )
            more = schema.get("additionalProperties", False)
            inner = values(more if isinstance(more, dict) else {}, root)
            extra = st.dictionaries(st.sampled_from("abcd"), inner, max_size=2) if more else st.just({})
            return st.builds(lambda known, extra: {**extra, **known}, known, extra)
        case _:
            return st.one_of(st.none(), st.integers(), st.text("ab", max_size=2), st.just([]), st.just({}))


def loosened(draw: Any, kind: Any) -> Any:
    """Returns a type that many values of `kind` fit."""
    match draw(st.integers(0, 4)):
        case 0:
            return Union[kind, None]  # noqa: UP007 - as above
        case 1:
            return Union[kind, draw(LEAF)]  # noqa: UP007 - as above
        case 2 | 3 if isinstance(kind, type) and issubclass(kind, BaseModel):
            keep = {name: field for name, field in kind.model_fields.items() if draw(st.booleans())}
            fields = {
                name: (
                    loosened(draw, field.annotation) if draw(st.booleans()) else field.rebuild_annotation(),
                    draw(st.booleans()),
                )
                for name, field in keep.items()
            }
            return model(fields, draw(st.sampled_from(["ignore", "allow", "forbid"])))
        case _:
            return kind


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.data())
def test_assignable_producer_values_are_valid(data: st.DataObject) -> None:
    producer = data.draw(TYPE)
    consumer = loosened(data.draw, producer) if data.draw(st.booleans()) else data.draw(TYPE)
    writes, reads = TypeAdapter(producer), TypeAdapter(consumer)
    written, read = writes.json_schema(mode="serialization"), reads.json_schema(mode="validation")
    reason = assignability_error(written, read)
    for _ in range(3):
        raw = data.draw(values(written, written))
        try:
            produced = writes.dump_json(writes.validate_json(json.dumps(raw)))
        except ValueError:
            continue
        try:
            reads.validate_json(produced, strict=True)
        except ValueError:
            assert reason is not None, (producer, consumer, produced)
    if reason is None:
        either = {
            "anyOf": [{key: value for key, value in read.items() if key != "$defs"}, {"type": "null"}],
            "$defs": read.get("$defs", {}),
        }
        assert assignability_error(written, either) is None


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(TYPE)
def test_type_is_assignable_to_itself(kind: Any) -> None:
    adapter = TypeAdapter(kind)
    assert (
        assignability_error(adapter.json_schema(mode="serialization"), adapter.json_schema(mode="validation")) is None
    )
