"""Types: names, parts, combinations, and parsing from text and from Python."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from difflib import get_close_matches
from typing import Annotated, Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, TypeAdapter

from orchestra.core.errors import InputError, SourceLocation
from orchestra.core.suggestions import closest_match
from orchestra.schema.builtin_models import Answer, Document, Passage, Quote
from orchestra.schema.types import (
    ANY,
    Schema,
    Validator,
    bundle_definitions,
    element_type,
    field_type,
    format_type,
    is_map_result,
    item_type,
    localize_references,
    map_result_type,
    nullable,
    parse_type,
    schema_of,
    union,
)
from tests.unsafe_reference import assert_cost


class Tree(BaseModel):
    """A recursive type."""

    name: str
    children: list[Tree] = []


class Reading(BaseModel):
    answer: str | None
    quote: Quote | None = None
    kind: Literal["a", "b"] = "a"
    meta: dict[str, int] = {}
    pair: tuple[int, str] = (1, "x")


def written(python_type: Any) -> Schema:
    return schema_of(python_type, "serialization")


MODELS = {"Document": written(Document), "Answer": written(Answer), "Tree": written(Tree)}


@pytest.mark.parametrize(
    ("python_type", "name"),
    [
        (str, "str"),
        (int, "int"),
        (float, "float"),
        (bool, "bool"),
        (type(None), "null"),
        (list[str], "list[str]"),
        (Sequence[Document], "list[Document]"),
        (set[int], "set[int]"),
        (tuple[int, str], "tuple[int, str]"),
        (dict[str, Answer], "dict[str, Answer]"),
        (Answer | None, "Answer | null"),
        (None | str, "str | null"),
        (Literal["a", "b"], "Literal['a', 'b']"),
        (Literal[1], "Literal[1]"),
        (Quote, "Quote"),
        (Tree, "Tree"),
        (Any, "anything"),
    ],
)
def test_format_type_uses_type_syntax(python_type: Any, name: str) -> None:
    assert format_type(written(python_type)) == name


@pytest.mark.parametrize(
    "text",
    [
        "str",
        "int",
        "float",
        "bool",
        "list[str]",
        "list[Document]",
        "dict[str, list[int]]",
        "str | null",
        "list[Answer | null]",
        "Literal['a', 'b']",
        "Literal[1, 2]",
        "Tree",
        "dict[str, Tree]",
        "list[list[list[str]]]",
        "int | str",
    ],
)
def test_parse_type_round_trips(text: str) -> None:
    assert format_type(parse_type(text, MODELS)) == text


def test_parse_type_none_and_brackets() -> None:
    assert parse_type("None | str", {}) == parse_type("(null | str)", {})
    assert format_type(parse_type(" list [ (str | None) ] ", {})) == "list[str | null]"


@pytest.mark.parametrize(
    ("text", "code", "hint"),
    [
        ("Documnet", "L040", "did you mean 'Document'?"),
        ("list[Ansver]", "L040", "did you mean 'Answer'?"),
        ("string", "L040", "did you mean 'str'?"),
        ("List[str]", "L040", "did you mean 'list'?"),
        ("integer", "L040", "did you mean 'int'?"),
        ("Xyz", "L040", "models by name: Answer, Document, Tree"),
        ("list", "L041", ""),
        ("list[str", "L041", ""),
        ("list[str]]", "L041", ""),
        ("dict[int, str]", "L041", ""),
        ("str str", "L041", ""),
        ("", "L041", ""),
        ("str |", "L041", ""),
        ("Literal[]", "L041", ""),
        ("Literal[1.5]", "L041", ""),
        ("Literal['a]", "L041", ""),
        ("__import__('os')", "L040", ""),
        ("list[" * 40 + "str" + "]" * 40, "L041", ""),
        ("str | " * 400 + "int", "L041", ""),
    ],
)
def test_parse_type_invalid_text_is_refused(text: str, code: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_type(text, MODELS)
    assert caught.value.code == code
    assert hint in caught.value.hint


def test_parse_type_error_has_location() -> None:
    place = SourceLocation("f.yaml", 4, 12, 'input: {d: "list[Documnet]"}', 16)
    with pytest.raises(InputError) as caught:
        parse_type("list[Documnet]", MODELS, place)
    assert caught.value.location == SourceLocation("f.yaml", 4, 18, place.text, 8)


TYPE_TEXTS = st.text("strinlf[]|,'\"()Literadc ", max_size=20) | st.lists(
    st.sampled_from(
        ["str", "int", "float", "null", "Answer", "list[", "Literal[", "'a'", "1", "]", " | ", ", ", "(", ")"]
    ),
    max_size=8,
).map("".join)


@given(TYPE_TEXTS)
def test_parse_type_any_text_parses_or_is_refused(text: str) -> None:
    try:
        schema = parse_type(text, MODELS)
    except InputError:
        return
    Validator(schema)
    assert parse_type(format_type(schema, full=True), MODELS) == schema


def test_field_type_follows_references_and_unions() -> None:
    answer = written(Answer)
    citations = field_type(answer, "citations")
    assert isinstance(citations, dict)
    assert format_type(citations) == "list[Citation]"
    one = item_type(citations, 0)
    assert isinstance(one, dict)
    assert format_type(field_type(one, "start")) == "int"  # type: ignore[arg-type]  # it is a schema, as the line before says
    both = field_type(written(Document | Passage), "text")
    assert both == {"type": "string"}


@pytest.mark.parametrize(
    ("schema", "name", "reason"),
    [
        (written(Answer), "txt", "Answer has no field 'txt'; did you mean 'text'?"),
        (written(Answer | None), "text", "may be null (Answer | null)"),
        (written(str), "x", "str has no field 'x'"),
        (written(Document | Answer), "source", "Answer has no field 'source' (it has: text, citations)"),
        (written(list[Answer]), "text", "list[Answer] has no field 'text'"),
    ],
)
def test_field_type_missing_field_has_reason(schema: Schema, name: str, reason: str) -> None:
    assert field_type(schema, name) == reason


def test_field_type_of_dict_and_any() -> None:
    assert field_type(written(dict[str, int]), "k") == {"type": "integer"}
    assert field_type({"type": "object"}, "k") == ANY
    assert field_type(ANY, "k") == ANY


def test_item_type_of_lists_and_tuples() -> None:
    pair = written(tuple[int, str])
    assert item_type(pair, 1) == {"type": "string"}
    assert format_type(element_type(pair)) == "int | str"  # type: ignore[arg-type]  # a tuple has elements
    assert item_type(pair, 2) == "tuple[int, str] has 2 elements, and no [2]"
    assert element_type(written(str)) == "str is not a list"
    assert element_type(written(list[str] | None)) == "may be null (list[str] | null)"


def test_union_has_unique_members() -> None:
    assert union([written(str), written(str)]) == {"type": "string"}
    assert format_type(union([written(str), written(Answer), written(str | None)])) == "str | Answer | null"
    assert union([written(str), ANY]) == ANY
    assert nullable(nullable(written(str))) == nullable(written(str))


def test_bundle_definitions_numbers_equal_names() -> None:
    first = {"$ref": "#/$defs/X", "$defs": {"X": {"type": "string"}}}
    second = {"$ref": "#/$defs/X", "$defs": {"X": {"type": "integer"}}}
    both = bundle_definitions({"type": "object", "properties": {"a": first, "b": second}, "required": ["a", "b"]})
    validator = Validator(both)
    assert validator.is_valid({"a": "x", "b": 1})
    assert not validator.is_valid({"a": "x", "b": "x"})
    same = bundle_definitions({"type": "array", "prefixItems": [first, first]})
    assert list(same["$defs"]) == ["X"]


def test_bundle_definitions_recursive_types() -> None:
    schema = parse_type("list[Tree]", MODELS)
    assert Validator(schema).check([{"name": "a", "children": [{"name": "b", "children": []}]}]) is None
    assert (
        Validator(schema).check([{"name": "a", "children": [{"name": 1}]}])
        == "[0].children[0].name: expected str, got 1"
    )


def test_map_result_type_has_only_values() -> None:
    schema = map_result_type(written(Answer))
    assert is_map_result(schema)
    assert format_type(field_type(schema, "values")) == "list[Answer]"  # type: ignore[arg-type]  # it is there
    assert isinstance(field_type(schema, "text"), str)


@pytest.mark.parametrize(
    ("python_type", "value", "reason"),
    [
        (str, "x", None),
        (str, 5, "expected str, got 5"),
        (str, None, "expected str, got null"),
        (str | None, [], "expected str | null, got a list"),
        (Answer, {"text": 5}, "text: expected str | null, got 5"),
        (Answer, {}, "the field 'text' is missing"),
        (Answer, {"text": "a", "citatons": []}, "there is no field 'citatons' here; did you mean 'citations'?"),
        (Answer | None, {"text": "a", "citations": [{"quote": "x"}]}, "citations[0]: the field 'source' is missing"),
        (list[int], [1, "x"], "[1]: expected int, got 'x'"),
        (Literal["a", "b"], "c", "expected one of 'a', 'b'; got 'c'"),
        (Literal["a"], "c", "expected 'a', got 'c'"),
        (dict[str, int], {"k": True}, "k: expected int, got true"),
        (Document | Answer, {}, "an object fits none of the 2 types that are allowed here"),
        (str, "x" * 100, None),
        (int, "x" * 100, "expected int, got 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…"),
        (int, float("nan"), "expected int, got null"),
        (str, object(), "not JSON: Unsupported type: 'object'"),
    ],
)
def test_validator_error_has_location_and_reason(python_type: Any, value: Any, reason: str | None) -> None:
    assert Validator(written(python_type)).check(value) == reason


def test_validator_limit_errors_are_in_words() -> None:
    class Limited(BaseModel):
        n: int = Field(ge=3, multiple_of=2)
        s: str = Field(min_length=2, pattern="^a")
        xs: list[int] = Field(max_length=1)

    check = Validator(schema_of(Limited, "validation")).check
    assert check({"n": 2, "s": "ab", "xs": []}) == "n: expected at least 3, got 2"
    assert check({"n": 5, "s": "ab", "xs": []}) == "n: expected a multiple of 2, got 5"
    assert check({"n": 4, "s": "a", "xs": []}) == "s: expected at least 2 characters, got 1"
    assert check({"n": 4, "s": "ba", "xs": []}) == "s: expected a string that matches ^a, got 'ba'"
    assert check({"n": 4, "s": "ab", "xs": [1, 2]}) == "xs: expected at most 1 elements, got 2"


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "file:///etc/passwd"},
        {"$ref": "http://127.0.0.1:1/x"},
        {"$ref": "#/$defs/missing"},
        {"type": "strin"},
        {"pattern": "("},
        {"pattern": "(?=a)b"},
        {"pattern": "(a)\\1"},
    ],
)
def test_validator_invalid_or_external_schema_is_refused(schema: Schema) -> None:
    with pytest.raises(InputError) as caught:
        Validator(schema)
    assert caught.value.code == "L042"


def test_validator_patterns_take_linear_time() -> None:
    assert not Validator({"type": "string", "pattern": "^(a+)+$"}).is_valid("a" * 50_000 + "b")


def test_schema_of_type_without_json_form_is_refused() -> None:
    for python_type in (Callable[[int], int], type("Own", (), {})):
        with pytest.raises(InputError) as caught:
            schema_of(python_type, "validation")
        assert caught.value.code == "L043"


def test_schema_of_keeps_type_names() -> None:
    assert format_type(field_type(written(Reading), "meta")) == "dict[str, int]"  # type: ignore[arg-type]  # it is there
    assert format_type(field_type(written(Reading), "quote")) == "Quote | null"  # type: ignore[arg-type]  # it is there


def test_closest_match_of_many_words_is_fast() -> None:
    words = [f"node_{number}" for number in range(100_000)]
    assert_cost(lambda: [closest_match(f"nodes_{number}", words) for number in range(50)], at_most=1_000)


def test_closest_match_of_long_word_is_empty() -> None:
    assert closest_match("x" * 60_000, ["x" * 60_000]) == ""


@given(st.text("abc", max_size=8), st.lists(st.text("abc", max_size=24), max_size=8))
def test_closest_match_length_filter_is_exact(word: str, words: list[str]) -> None:
    assert closest_match(word, words) == next(iter(get_close_matches(word, words, 1, 0.6)), "")


def test_localize_references_creates_definitions() -> None:
    given = {
        "type": "object",
        "properties": {
            "$ref": {"type": "integer"},
            "first": {"$ref": "#/properties/$ref"},
            "more": {"anyOf": [{"$ref": "#"}, {"$ref": "#/$defs/Part"}]},
            "kind": {"const": {"$ref": "#"}},
        },
        "$defs": {"Part": {"type": "array", "items": {"$ref": "#"}}},
    }
    found = localize_references(given, "Part")
    assert found["properties"]["first"] == {"$ref": "#/$defs/Part_2"}
    assert found["properties"]["kind"] == {"const": {"$ref": "#"}}
    within = Validator(
        bundle_definitions({"type": "object", "properties": {"$ref": {"type": "string"}, "whole": found}})
    )
    alone = Validator(given)
    for value in (
        {"first": 1},
        {"first": "a"},
        {"more": {"first": "a"}},
        {"more": [{"first": 1}]},
        {"more": [{"$ref": "a"}]},
    ):
        assert within.is_valid({"whole": value}) == alone.is_valid(value)
    plain = {"$ref": "#/$defs/Part", "$defs": {"Part": {"type": "string"}}}
    assert localize_references(plain, "Part") is plain


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        (r"^\w+$", "Müller", False),
        (r"^\d$", "\u0663", False),
        (r"^[\p{L}\p{M}\p{N}_]+$", "Müller_1", True),
        (r"^[\p{L}\p{M}\p{N}_]+$", "a b", False),
        (r"^\p{Nd}$", "\u0663", True),
    ],
)
def test_validator_pattern_classes_are_ascii(pattern: str, value: str, fits: bool) -> None:
    assert Validator({"type": "string", "pattern": pattern}).is_valid(value) is fits
    if fits:
        assert TypeAdapter(Annotated[str, Field(pattern=pattern)]).validate_python(value) == value
