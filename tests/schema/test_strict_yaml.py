"""The strict YAML parser: data, locations, and refused files."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.core.errors import InputError
from orchestra.schema.strict_json import StrictJsonError, parse_untrusted, storage_error
from orchestra.schema.strict_yaml import MAX_BYTES, load_yaml
from tests.unsafe_reference import assert_cost

CASES: list[dict[str, Any]] = tomllib.loads(Path(__file__).with_name("hostile.toml").read_text())["case"]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["name"])
def test_yaml_hostile_file_is_refused_with_location(case: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(case["text"], "f.yaml")
    error = caught.value
    assert error.location is not None
    assert (error.code, [error.location.line, error.location.column]) == (case["code"], case["at"])
    assert error.hint


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("input: {orders: list[Order], b: int}", "put the type in quotes: 'list[Order]'"),
        ("input: {a: dict[str, list[int]]}", "put the type in quotes: 'dict[str, list[int]]'"),
        ('input: {a: Literal["a", "b"]}', 'put the type in quotes: \'Literal["a", "b"]\''),
        ("input: {a: Literal['a']}", "put the type in quotes: \"Literal['a']\""),
        ('output: "${x == null ? "none" : x}"', 'the quote inside ${…} ends the text: use \' inside "${…}"'),
        ('a: {b: "${x["k"]}", c: 1}', 'the quote inside ${…} ends the text: use \' inside "${…}"'),
        ("a: ['${x['k']}']", "the quote inside ${…} ends the text: use \" inside '${…}'"),
        ("a: [1, 2\nb: list[str]", "close the quote or bracket that is open"),
        ('a: {b: "${x}" "y"}', "close the quote or bracket that is open"),
    ],
)
def test_yaml_missing_quotes_have_hint(text: str, hint: str) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(text, "f.yaml")
    assert (caught.value.code, caught.value.hint) == ("L004", hint)


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a: {b: ${input.x}, c: 1}", '"${input.x}"'),
        ("a: [1, say ${x} and ${y[0]}, 2]", '"say ${x} and ${y[0]}"'),
        ("a: {\n  ${x}: 1}", '"${x}"'),
        ("""a: {b: ${m.map(k, {"k": 1, "l": [2]})}}""", """'${m.map(k, {"k": 1, "l": [2]})}'"""),
        ("""a: [${x == 'a' ? "b" : 'c'}]""", "'${…}'"),
        ("a: {b: ${x", '"${…}"'),
    ],
)
def test_yaml_unquoted_expression_in_flow_style_has_hint(text: str, quoted: str) -> None:
    with pytest.raises(InputError) as caught:
        load_yaml(text, "f.yaml")
    assert caught.value.hint == f"inside {{…}} and […], a text with ${{…}} needs quotes: {quoted}"


@pytest.mark.parametrize(
    ("text", "number"), [("007", "7"), ("-007", "-7"), ("+05", "5"), ("-00.5", "-0.5"), ("00", "0"), ("01e3", "1e3")]
)
def test_yaml_leading_zero_hint_is_valid(text: str, number: str) -> None:
    with pytest.raises(InputError, match="ambiguous") as caught:
        load_yaml(f"a: {text}", "f.yaml")
    assert caught.value.hint == f'write "{text}" for the text, or {number} for the number'
    assert load_yaml(f"a: {number}", "f.yaml").value == {"a": float(text)}


@pytest.mark.parametrize("digits", [1, 39, 40])
@pytest.mark.parametrize("sign", ["", "-"])
def test_yaml_sign_is_not_a_digit(digits: int, sign: str) -> None:
    text = sign + "7" * digits
    assert load_yaml(f"a: {text}", "f.yaml").value == {"a": int(text)} == parse_untrusted(f'{{"a": {text}}}')
    assert not storage_error({"a": int(text)})
    with pytest.raises(InputError, match="41 digits"):
        load_yaml(f"a: {sign}{'7' * 41}", "f.yaml")
    with pytest.raises(StrictJsonError, match="41 digits"):
        parse_untrusted(sign + "7" * 41)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("22:22", "22:22"),
        ("0x1F", "0x1F"),
        ("0o17", "0o17"),
        ("2026-01-01", "2026-01-01"),
        ("1_000", "1_000"),
        ("1.2.3", "1.2.3"),
        ("+", "+"),
        (".", "."),
        ("", None),
        ("~", None),
        ("null", None),
        ("true", True),
        ("False", False),
        ("7", 7),
        ("-7", -7),
        ("+7", 7),
        ("0", 0),
        ("1.5", 1.5),
        (".5", 0.5),
        ("1.", 1.0),
        ("1e3", 1000.0),
        ("-1.5E-3", -0.0015),
        ('"7"', "7"),
        ("'true'", "true"),
        ("${a.b}", "${a.b}"),
    ],
)
def test_yaml_scalars_follow_core_schema(text: str, value: object) -> None:
    got = load_yaml(f"x: {text}", "f").value["x"]
    assert (got, type(got)) == (value, type(value))


def test_yaml_quoted_keys_are_strings() -> None:
    assert load_yaml('"1": a\n"true": b\nno: c', "f").value == {"1": "a", "true": "b", "no": "c"}


def test_yaml_bom_and_crlf_are_accepted() -> None:
    assert load_yaml(b"\xef\xbb\xbfa: 1\r\nb: |\r\n  x\r\n  y\r\n", "f").value == {"a": 1, "b": "x\ny\n"}


@pytest.mark.parametrize("data", ["a: é".encode("latin-1"), "a: 1".encode("utf-16"), b"\xff\xfea"])
def test_yaml_other_encoding_is_refused(data: bytes) -> None:
    with pytest.raises(InputError, match="not UTF-8") as caught:
        load_yaml(data, "f")
    assert caught.value.code == "L002"


@pytest.mark.parametrize("text", ["# " + "x" * MAX_BYTES, "# " + "é" * (MAX_BYTES // 2)])
def test_yaml_large_file_is_refused(text: str) -> None:
    for form in (text, text.encode()):
        with pytest.raises(InputError) as caught:
            load_yaml(form, "f")
        assert caught.value.code == "L001"


@pytest.mark.parametrize(
    "text", ["[" * 65 + "]" * 65, "- " * 65 + "x", "{a: " * 65 + "1" + "}" * 65, "{" * 5000, "[" * 900_000]
)
def test_yaml_deep_nesting_is_refused(text: str) -> None:
    def refused() -> None:
        with pytest.raises(InputError) as caught:
            load_yaml(text, "f")
        assert caught.value.code in {"L010", "L011"}

    assert_cost(refused, at_most=50)


def test_yaml_nesting_of_64_is_accepted() -> None:
    assert load_yaml("[" * 64 + "]" * 64, "f").value


def test_yaml_long_scalar_is_refused() -> None:
    assert load_yaml("a: " + "x" * (64 << 10), "f").value
    with pytest.raises(InputError) as caught:
        load_yaml("a: " + "x" * ((64 << 10) + 1), "f")
    assert caught.value.code == "L012"


def test_yaml_locations_of_values_and_keys() -> None:
    marked = load_yaml('a:\n  b: [x, "yy"]\n  cc: |\n    hello\n', "f.yaml")
    value, key = marked.location(("a", "b", 1)), marked.location(("a", "cc"), key=True)
    assert (value.line, value.column, value.width, value.text) == (2, 10, 4, '  b: [x, "yy"]')
    assert (key.line, key.column, key.width) == (3, 3, 2)
    assert marked.location(("a", "missing")) == marked.location(("a",))
    assert marked.location(()).line == 1


def test_yaml_report_shortens_and_escapes_line() -> None:
    with pytest.raises(InputError) as caught:
        load_yaml("a: [" + "1, " * 1000 + "\x1b[31m]", "f")
    report = str(caught.value)
    assert max(map(len, report.splitlines())) < 200
    assert "\x1b" not in report


TEXT = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufffe\uffff"), max_size=8
)
DATA = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=12,
)


@given(DATA)
def test_yaml_json_is_read_unchanged(data: Any) -> None:
    escaped = json.dumps(data, ensure_ascii=False)
    assert load_yaml(escaped, "f").value == data


@given(st.text(max_size=40) | st.binary(max_size=40))
def test_yaml_any_text_is_read_or_refused_with_location(text: str | bytes) -> None:
    found = None
    try:
        load_yaml(text, "f")
    except InputError as error:
        found = error
    assert found is None or (found.code.startswith("L0") and found.location is not None and str(found))
