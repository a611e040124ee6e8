"""Values of `ask` and `run` from files: documents with locations, tables, texts, and files that cannot be read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.cli import files
from orchestra.cli.inputs import read_inputs
from orchestra.cli.run.plan import read_values
from orchestra.core.errors import InputError
from orchestra.documents.index import FolderIndex
from orchestra.router.input_types import infer_schema
from orchestra.router.prompt import value_lines
from orchestra.schema.assignability import assignability_error
from orchestra.schema.builtin_models import Document, Table
from orchestra.schema.types import schema_of
from tests.documents import office_files

CELLS = [["Region", "Q1"], ["North", "1,200"], ["South", "900"]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "files"
    made.mkdir()
    (made / "sales.csv").write_text('Region,Q1\nNorth,"1,200"\nSouth,900\n')
    office_files.write_xlsx(made / "sales.xlsx", {"Q1": [["Region", "Q1"], ["North", 5]], "Q2": [["a", "b"], ["c", 7]]})
    office_files.write_lines(made / "handbook.pdf", ["Leave"], ["27 days of paid leave."])
    (made / "notes.txt").write_text("Some notes.")
    return made


def test_table_alone_is_the_value_table(folder: Path) -> None:
    assert read_values([folder / "sales.csv"], []).values == {"table": CELLS}


def test_several_tables_are_the_value_tables(folder: Path) -> None:
    values = read_values([folder / "sales.xlsx"], []).values
    assert [table["name"] for table in values["tables"]] == ["sales.xlsx Q1", "sales.xlsx Q2"]
    assert [Table.model_validate(table).columns[1].type for table in values["tables"]] == ["integer", "integer"]


def test_documents_beside_a_table_have_both(folder: Path) -> None:
    (folder / "sales.xlsx").unlink()
    values = read_values([folder], []).values
    assert [document["source"] for document in values["documents"]] == ["handbook.pdf", "notes.txt", "sales.csv"]
    assert values["documents"][0]["locations"] == [{"start": 0, "name": "p. 1"}, {"start": 7, "name": "p. 2"}]
    assert values["documents"][1] == {"source": "notes.txt", "text": "Some notes."}
    assert values["table"] == CELLS


def test_documents_with_and_without_locations_are_documents_of_a_plan(folder: Path) -> None:
    documents = infer_schema(read_values([folder / "handbook.pdf", folder / "notes.txt"], []).values["documents"])
    assert assignability_error(documents, schema_of(list[Document], "validation")) is None
    assert value_lines({"documents": documents}) == "input.documents: list[{source, text}]"


def test_unread_files_are_values_and_notes(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "bad.docx").write_bytes(b"nonsense")
    unread = read_values([folder], []).unread
    assert files.failures_data(unread)[0] | {"reason": ""} == {
        "source": "bad.docx",
        "code": "D003",
        "reason": "",
        "hint": "open it in the program that wrote it, and save it again",
    }
    assert "not read: 1 file\n  D003: bad.docx is not a readable DOCX file" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("table=@sales.csv", CELLS),
        ("figures=@sales.csv", CELLS),
        ("table=@sales.xlsx#Q2", [["a", "b"], ["c", "7"]]),
        ("table=@rows.json", [["Region", "Q1"], ["North", "5"]]),
        ("sales_table=@rows.json", [["Region", "Q1"], ["North", "5"]]),
        ("rows=@rows.json", [{"Region": "North", "Q1": 5}]),
        ("text=@handbook.pdf", "Leave\n\n27 days of paid leave."),
        ("text=@notes.txt", "Some notes."),
    ],
)
def test_option_of_ask_reads_a_file(folder: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: Any) -> None:
    (folder / "rows.json").write_text(json.dumps([{"Region": "North", "Q1": 5}]))
    monkeypatch.chdir(folder)
    assert read_values([], [option]).values == {option.partition("=")[0]: value}


def test_option_tables_has_all_tables_of_a_file(folder: Path) -> None:
    values = read_values([], [f"tables=@{folder}/sales.xlsx"]).values
    assert [table["sheet"] for table in values["tables"]] == ["Q1", "Q2"]


@pytest.mark.parametrize("option", ["table=@sales.xlsx", "table=@sales.xlsx#Q9"])
def test_table_that_is_not_the_only_one_is_refused(folder: Path, monkeypatch: pytest.MonkeyPatch, option: str) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(InputError) as caught:
        read_values([], [option])
    assert (caught.value.code, "Q1, Q2" in caught.value.hint) == ("D008", True)


FIELDS: dict[str, dict[str, Any]] = {
    "cells": schema_of(list[list[str]], "validation"),
    "table": schema_of(Table, "validation"),
    "tables": schema_of(list[Table], "validation"),
    "rows": {"type": "array", "items": {"type": "object", "properties": {"Region": {}, "Q1": {}}}},
    "text": {"type": "string"},
    "document": schema_of(Document, "validation"),
    "documents": schema_of(list[Document], "validation"),
}


def test_input_of_run_reads_a_file_as_its_type(folder: Path) -> None:
    values = read_inputs(
        [
            f"cells=@{folder}/sales.csv",
            f"table=@{folder}/sales.xlsx#Q2",
            f"tables=@{folder}/sales.xlsx",
            f"rows=@{folder}/sales.csv",
            f"text=@{folder}/handbook.pdf",
            f"document=@{folder}/handbook.pdf",
            f"documents=@{folder}/handbook.pdf",
        ],
        FIELDS,
    )
    assert values["cells"] == CELLS
    assert values["table"]["cells"] == [["a", "b"], ["c", "7"]]
    assert [table["sheet"] for table in values["tables"]] == ["Q1", "Q2"]
    assert values["rows"] == [{"Region": "North", "Q1": 1200}, {"Region": "South", "Q1": 900}]
    assert values["text"] == "Leave\n\n27 days of paid leave."
    assert values["documents"] == [values["document"]]
    assert [location["name"] for location in values["document"]["locations"]] == ["p. 1", "p. 2"]


@pytest.fixture
def indexed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (folder / "long.txt").write_text(
        "\n\n".join(f"Paragraph {at} is about lamp number {at}." * 4 for at in range(2_000))
    )
    FolderIndex(folder).update()
    return folder


def test_large_index_gives_the_passages_of_the_request(indexed: Path) -> None:
    documents = read_values([indexed], [], "What is lamp number 1234 about?").values["documents"]
    (excerpt,) = [document for document in documents if document["source"] == "long.txt"]
    assert "lamp number 1234." in excerpt["text"]
    assert len(excerpt["text"]) < 40_000


def test_small_index_gives_all_documents_and_its_changes(indexed: Path) -> None:
    (indexed / "long.txt").unlink()
    (indexed / "new.txt").write_text("A new file.")
    documents = read_values([indexed], [], "anything").values["documents"]
    assert [document["source"] for document in documents] == [
        "handbook.pdf",
        "new.txt",
        "notes.txt",
        "sales.csv",
        "sales.xlsx",
    ]
