"""Inputs of the command line become values of the input type, or a coded error."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli.inputs import read_inputs
from orchestra.cli.text_files import MAX_BYTES
from orchestra.core.errors import InputError
from orchestra.schema.builtin_models import Document
from orchestra.schema.types import schema_of

FIELDS: dict[str, dict[str, Any]] = {
    "text": {"type": "string"},
    "maybe": {"anyOf": [{"type": "string"}, {"type": "null"}]},
    "choice": {"enum": ["a", "b"]},
    "count": {"type": "integer"},
    "share": {"type": "number"},
    "really": {"type": "boolean"},
    "words": {"type": "array", "items": {"type": "string"}},
    "numbers": {"type": "array", "items": {"type": "integer"}},
    "record": {"type": "object", "properties": {"x": {"type": "integer"}}},
    "document": schema_of(Document, "validation"),
    "documents": schema_of(list[Document], "validation"),
}


def read(*options: str) -> dict[str, Any]:
    return read_inputs(options, FIELDS)


def pipe(monkeypatch: pytest.MonkeyPatch, said: str | bytes) -> None:
    """Writes a text, or arbitrary bytes, to stdin."""
    data = said.encode() if isinstance(said, str) else said
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(data), "utf-8"))


def code(*options: str) -> str:
    with pytest.raises(InputError) as caught:
        read(*options)
    return caught.value.code


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("text=plain", "plain"),
        ("text=a=b", "a=b"),
        ("text=", ""),
        ("text=3", "3"),
        ('text="quoted"', '"quoted"'),
        ("text=@@handle", "@handle"),
        ("maybe=null", "null"),
        ("choice=a", "a"),
        ("count=3", 3),
        ("share=0.5", 0.5),
        ("really=true", True),
        ('words=["a", "b"]', ["a", "b"]),
        ("words=a", ["a"]),
        ("numbers=3", [3]),
        ('record={"x": 1}', {"x": 1}),
        ('document={"source": "a", "text": "b"}', {"source": "a", "text": "b"}),
    ],
)
def test_a_text_becomes_a_value_of_the_type(option: str, value: Any) -> None:
    key = option.partition("=")[0]
    assert read(option) == {key: value}


def test_a_list_is_given_element_by_element() -> None:
    assert read("words=a", "words=b", "numbers=1", "numbers=2") == {"words": ["a", "b"], "numbers": [1, 2]}


def test_what_is_no_list_is_given_once() -> None:
    assert code("text=a", "text=b") == "C010"


@pytest.mark.parametrize("option", ["count=many", "share=x", "really=yes", "record=x", "numbers=[1,", "count=NaN"])
def test_a_text_of_another_type_is_refused(option: str) -> None:
    assert code(option) == "C012"


def test_an_option_without_a_key_is_refused() -> None:
    assert code("what is this?") == "C010"
    assert code("=x") == "C010"


def test_an_unknown_input_gets_the_nearest_name() -> None:
    with pytest.raises(InputError) as caught:
        read("txt=x")
    assert (caught.value.code, caught.value.hint) == ("C011", "did you mean 'text'?")


def test_a_file_is_its_text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\ufeffgrüße\n", encoding="utf-8")
    assert read(f"text=@{tmp_path}/a.txt") == {"text": "grüße\n"}


def test_a_file_of_json_is_its_value(tmp_path: Path) -> None:
    (tmp_path / "n.json").write_text("[1, 2]")
    assert read(f"numbers=@{tmp_path}/n.json") == {"numbers": [1, 2]}


DOCUMENT = {"source": "stdin", "text": "all of it"}


def test_files_and_folders_are_documents(tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    for name in ("b.md", "a.txt", "deep/c.txt", "ignored.pdf"):
        (tmp_path / name).write_text(f"text of {name}")
    expected = [{"source": name, "text": f"text of {name}"} for name in ("a.txt", "b.md", "deep/c.txt")]
    assert read(f"documents=@{tmp_path}") == {"documents": expected}
    assert read(f"documents=@{tmp_path}/b.md", f"documents=@{tmp_path}/a.txt") == {
        "documents": [expected[1], expected[0]]
    }
    assert read(f"document=@{tmp_path}/a.txt") == {"document": expected[0]}


def test_an_object_gives_many_inputs_and_an_option_wins_over_it(tmp_path: Path) -> None:
    (tmp_path / "all.json").write_text('{"text": "a", "count": 1}')
    assert read(f"@{tmp_path}/all.json", "count=2") == {"text": "a", "count": 2}


def test_stdin_is_an_object_or_a_text(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe(monkeypatch, '{"text": "a"}')
    assert read("-") == {"text": "a"}
    pipe(monkeypatch, "all of it")
    assert read("text=-") == {"text": "all of it"}


@pytest.mark.parametrize("dash", ["-", "@-"])
def test_stdin_is_a_document_where_documents_are_wanted(monkeypatch: pytest.MonkeyPatch, dash: str) -> None:
    for wanted, given in (
        ("document", {"document": DOCUMENT}),
        ("documents", {"documents": [DOCUMENT]}),
        ("text", {"text": "all of it"}),
    ):
        pipe(monkeypatch, "all of it")
        assert read(f"{wanted}={dash}") == given
    one = {"source": "a.txt", "text": "b"}
    for said, found in ((one, [one]), ([one, one], [one, one])):
        pipe(monkeypatch, json.dumps(said))
        assert read(f"documents={dash}") == {"documents": found}
    pipe(monkeypatch, json.dumps(one))
    assert read(f"document={dash}") == {"document": one}
    pipe(monkeypatch, "{{ no JSON }}")
    assert read(f"document={dash}") == {"document": {"source": "stdin", "text": "{{ no JSON }}"}}
    for said_so, expected in (("", "C014"), (json.dumps([one, one]), "C012")):
        pipe(monkeypatch, said_so)
        assert code(f"document={dash}") == expected


@pytest.mark.parametrize("text", ["[1]", "{", '{"text": 1, "text": 2}', '{"text": NaN}'])
def test_what_is_no_strict_json_object_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    pipe(monkeypatch, text)
    assert code("-") == "C013"


@pytest.mark.parametrize(
    ("options", "second"),
    [
        (("text=-", "maybe=-"), "maybe=-"),
        (("-", "text=@-"), "text=@-"),
        (("@-", "-"), "-"),
        (("words=-", "words=-"), "words=-"),
        (("documents=-", "documents=@-"), "documents=-"),
        (("document=-", "text=-"), "text=-"),
    ],
)
def test_stdin_is_for_one_option(monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...], second: str) -> None:
    pipe(monkeypatch, '{"source": "a", "text": "b"}')
    with pytest.raises(InputError) as caught:
        read_inputs(options, {**FIELDS, "source": {"type": "string"}})
    assert (caught.value.code, caught.value.message.endswith(f"; -i {second} cannot read it again")) == ("C010", True)


@pytest.mark.parametrize("option", ["-", "text=-", "words=@-", "document=-", "documents=@-", "record=-"])
@pytest.mark.parametrize(
    ("said", "says"),
    [(b'"gr\xfc\xdfe"', "stdin is not UTF-8: byte 3"), (b"x" * (MAX_BYTES + 1), "stdin is larger than 1 MiB")],
    ids=["latin", "large"],
)
def test_stdin_is_read_as_a_file_is(monkeypatch: pytest.MonkeyPatch, option: str, said: bytes, says: str) -> None:
    pipe(monkeypatch, said)
    with pytest.raises(InputError) as caught:
        read(option)
    assert (caught.value.code, caught.value.message) == ("C014", says)


def test_a_mark_of_the_order_of_bytes_on_stdin_is_none_of_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    for option, given in (("text=-", '{"text": "a"}'), ("-", "a")):
        pipe(monkeypatch, b'\xef\xbb\xbf{"text": "a"}')
        assert read(option) == {"text": given}
    monkeypatch.setattr("sys.stdin", None)
    assert code("text=-") == "C014"


def test_unreadable_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "large.txt").write_text("x" * (MAX_BYTES + 1))
    (tmp_path / "latin.txt").write_bytes(b"gr\xfc\xdfe")
    (tmp_path / "empty").mkdir()
    for name in ("large.txt", "latin.txt", "absent.txt"):
        assert code(f"text=@{tmp_path}/{name}") == "C014", name
    assert code(f"documents=@{tmp_path}/empty") == "C014"


def test_a_folder_s_link_to_a_file_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "link.txt").symlink_to(tmp_path / "secret.txt")
    assert code(f"documents=@{tmp_path}/folder") == "C014"
