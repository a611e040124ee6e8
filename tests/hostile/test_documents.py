"""Documents made to exhaust or to deceive a reader: each has a coded error or a small text, and others are read."""

from __future__ import annotations

from email.message import EmailMessage
from pathlib import Path

import openpyxl
import pytest

from orchestra.core.errors import InputError
from orchestra.documents.builder import FileContent
from orchestra.documents.reader_process import ProcessLimits, ReaderProcess
from orchestra.documents.reading import FileReader, FoundFile
from tests.documents import office_files

LIMITS = ProcessLimits(seconds=20.0, memory=1 << 30)
LAUGHS = b'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">' + b"".join(
    f'<!ENTITY {chr(98 + at)} "{f"&{chr(97 + at)};" * 10}">'.encode() for at in range(12)
)
SECRET = "the secret of another file"


def read(path: Path) -> FileContent:
    with FileReader(LIMITS) as reader:
        return reader.read(FoundFile(path, path.name))


def code(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    return caught.value.code


def rewritten(path: Path, name: str, old: bytes, new: bytes) -> Path:
    """The archive with a part changed."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        parts = {one.filename: archive.read(one) for one in archive.infolist()}
    assert old in parts[name]
    parts[name] = parts[name].replace(old, new)
    return office_files.write_archive(path, parts)


@pytest.mark.parametrize("suffix", ["docx", "xlsx", "pptx"])
def test_archive_that_unpacks_to_gigabytes_is_refused(tmp_path: Path, suffix: str) -> None:
    parts = {f"part{at}.xml": bytes(1 << 20) for at in range(520)}  # each is too small to be refused by itself
    assert code(office_files.write_archive(tmp_path / f"bomb.{suffix}", parts)) == "D005"


def test_part_packed_a_thousand_times_is_refused(tmp_path: Path) -> None:
    assert code(office_files.write_archive(tmp_path / "bomb.docx", {"word/document.xml": bytes(8 << 20)})) == "D005"


@pytest.mark.parametrize("name", ["word/document.xml", "word/styles.xml"])
def test_entities_in_a_part_are_refused(tmp_path: Path, name: str) -> None:
    path = office_files.write_docx(tmp_path / "laughs.docx", "Title", ["text"])
    old = b"<?xml version='1.0' encoding='UTF-8' standalone='yes'?>"
    assert code(rewritten(path, name, old, LAUGHS + b"]>")) == "D003"


def test_entity_of_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text(SECRET)
    path = office_files.write_docx(tmp_path / "x.docx", "Title", ["text"])
    entity = f'<!DOCTYPE x [<!ENTITY s SYSTEM "{(tmp_path / "secret.txt").as_uri()}">]>'.encode()
    rewritten(path, "word/document.xml", b"<w:document", entity + b"<w:document")
    assert code(path) == "D003"


def test_sheet_whose_only_cell_is_far_away_is_small(tmp_path: Path) -> None:
    book = openpyxl.Workbook()
    book.worksheets[0].cell(1, 1, "first")
    book.worksheets[0].cell(1_048_576, 16_384, "last")
    book.save(tmp_path / "far.xlsx")
    assert len(read(tmp_path / "far.xlsx").document.text) < 100


def test_sheet_with_too_many_cells_is_refused(tmp_path: Path) -> None:
    (tmp_path / "many.csv").write_text("a" + "," * 1_000 + "\n" + ("1" + "," * 1_000 + "\n") * 2_100)
    assert code(tmp_path / "many.csv") == "D005"


def test_csv_field_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "open.csv").write_text('a,b\n"' + "x" * 500_000)
    assert code(tmp_path / "open.csv") == "D003"


@pytest.mark.parametrize("page", ["<table><tr><td>" * 20_000, "<div>" * 200_000 + "x", "<" * 300_000, "<!--" * 100_000])
def test_page_of_nested_or_open_elements_is_read_in_time(tmp_path: Path, page: str) -> None:
    (tmp_path / "deep.html").write_text(page)
    assert len(read(tmp_path / "deep.html").document.text) < 1_000_000


def test_table_of_wide_cells_has_an_end(tmp_path: Path) -> None:
    cell = "<td colspan=99999 rowspan=99999>x</td>"
    (tmp_path / "wide.html").write_text("<table>" + f"<tr>{cell * 20}</tr>" * 200 + "</table><p>after")
    assert read(tmp_path / "wide.html").document.text.endswith("after")


def test_page_of_hidden_instructions_shows_what_a_reader_sees(tmp_path: Path) -> None:
    (tmp_path / "p.html").write_text(
        f"<p>seen</p><p style='display:none'>{SECRET}</p><!-- {SECRET} --><div hidden>{SECRET}"
    )
    assert read(tmp_path / "p.html").document.text == "seen"


def test_messages_within_messages_have_an_end(tmp_path: Path) -> None:
    inner = EmailMessage()
    inner["Subject"] = "innermost"
    inner.set_content("text")
    for _ in range(60):
        outer = EmailMessage()
        outer["Subject"] = "outer"
        outer.set_content("text")
        outer.add_attachment(inner)
        inner = outer
    (tmp_path / "deep.eml").write_bytes(inner.as_bytes())
    text = read(tmp_path / "deep.eml").document.text
    assert "outer" in text
    assert "innermost" not in text


def test_pdf_whose_pages_name_themselves_is_read_in_time(tmp_path: Path) -> None:
    (tmp_path / "loop.pdf").write_bytes(
        b"%PDF-1.4\n1 0 obj<</Type/Catalog/Pages 2 0 R>>endobj\n"
        b"2 0 obj<</Type/Pages/Kids[2 0 R 2 0 R]/Count 2>>endobj\ntrailer<</Root 1 0 R>>"
    )
    assert code(tmp_path / "loop.pdf") in ("D003", "D006")


def test_database_cannot_call_functions_while_it_is_read(tmp_path: Path) -> None:
    path = office_files.write_sqlite(
        tmp_path / "v.db",
        "CREATE TABLE t (x)",
        "INSERT INTO t VALUES (1)",
        "CREATE VIEW heavy AS WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT x FROM c",
    )
    assert [table.sheet for table in read(path).tables] == ["t"]


def test_duckdb_view_of_another_file_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text(f"a\n{SECRET}\n")
    statement = f"CREATE VIEW v AS SELECT * FROM read_csv('{tmp_path / 'secret.csv'}')"
    path = office_files.write_duckdb(tmp_path / "v.duckdb", "CREATE TABLE t AS SELECT 1 AS a", statement)
    assert SECRET not in read(path).document.text


def test_next_file_is_read_after_one_that_exhausts_memory(tmp_path: Path) -> None:
    (tmp_path / "large.html").write_text("<p>" + "word " * 3_000_000)
    (tmp_path / "small.html").write_text("<p>words</p>")
    with ReaderProcess(ProcessLimits(memory=220 << 20)) as process:
        with pytest.raises(InputError):
            process.read(tmp_path / "large.html", "large.html")
        assert process.read(tmp_path / "small.html", "small.html").document.text == "words"
