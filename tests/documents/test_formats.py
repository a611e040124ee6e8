"""Formats: the text, the locations and the tables of a file."""

from __future__ import annotations

import csv
import io
from email.message import EmailMessage
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.documents.builder import FileContent
from orchestra.documents.errors import DocumentError
from orchestra.documents.formats import markup
from orchestra.documents.formats.delimited import DELIMITERS, find_delimiter, parse_rows
from orchestra.documents.formats.pdf import clean_text
from orchestra.documents.passages import location_at
from orchestra.documents.readers import READERS
from tests.documents import office_files


def read(path: Path) -> FileContent:
    return READERS[path.suffix].read(path, path.name)


def located(content: FileContent, words: str) -> str:
    """The location of words in a document."""
    return location_at(content.document.locations, content.document.text.index(words))


def test_pdf_words_have_pages(tmp_path: Path) -> None:
    path = office_files.write_lines(tmp_path / "h.pdf", ["Handbook"], ["Sick leave is reported by", "nine o'clock."])
    content = read(path)
    assert located(content, "Handbook") == "p. 1"
    assert located(content, "nine") == "p. 2"
    assert content.tables == ()


def test_pdf_aligned_lines_are_a_table(tmp_path: Path) -> None:
    rows = [("Region", "Q1", "Q2"), ("North", "1,200", "1,300"), ("South West", "900", "950")]
    texts = [(72, 740, "Rates of this year, by region and quarter")]
    texts += [
        (x, 700 - 20 * at, text) for at, row in enumerate(rows) for x, text in zip((72, 200, 300), row, strict=True)
    ]
    (table,) = read(office_files.write_pdf(tmp_path / "r.pdf", texts)).tables
    assert table.cells == [list(row) for row in rows]
    assert (table.sheet, table.columns[1].type) == ("p. 1 table 1", "integer")


def test_pdf_two_columns_of_text_are_no_table(tmp_path: Path) -> None:
    lines = [(x, 740 - 15 * at, "words of a newspaper, set in columns") for at in range(20) for x in (72, 330)]
    assert read(office_files.write_pdf(tmp_path / "n.pdf", lines)).tables == ()


def test_pdf_two_aligned_lines_of_a_letter_are_no_table(tmp_path: Path) -> None:
    lines = [(72, 740, "Ann Lee"), (330, 740, "1 May 2026"), (72, 720, "High Street 5"), (330, 720, "No. 17")]
    assert read(office_files.write_pdf(tmp_path / "l.pdf", lines)).tables == ()


def test_pdf_word_divided_at_line_end_is_joined() -> None:
    assert clean_text("the per\ufffe\r\nmission of Smith\ufffe\r\nJones") == "the permission of Smith-\nJones"


def test_docx_paragraphs_and_tables_in_order(tmp_path: Path) -> None:
    table = [["City", "Limit"], ["Paris", "180 €"]]
    content = read(office_files.write_docx(tmp_path / "t.docx", "Travel", ["By car 0.30 EUR."], table))
    assert content.document.text == "Travel\n\nBy car 0.30 EUR.\n\nCity: Paris; Limit: 180 €"
    assert located(content, "By car") == "Travel, paragraph 2"
    assert located(content, "180") == "table 1 A2:B2"
    assert (content.tables[0].name, content.tables[0].cells) == ("t.docx table 1", table)


def test_xlsx_cells_have_addresses_and_formats(tmp_path: Path) -> None:
    rows: list[list[object]] = [
        ["Sales 2026"],
        [],
        ["Region", "Amount", "Share"],
        ["North", 1234.5, 0.125],
        ["South", 0.1 + 0.2, 0.07],
    ]
    formats = {"B4": '#,##0.00 "€"', "B5": '#,##0.00 "€"', "C4": "0.0%", "C5": "0%"}
    content = read(office_files.write_xlsx(tmp_path / "s.xlsx", {"Q3": rows, "Empty": []}, formats))
    (table,) = content.tables
    assert table.cells[1:] == [["North", "€1234.5", "12.5%"], ["South", "€0.3", "7%"]]
    assert [column.type for column in table.columns] == ["text", "money", "percent"]
    assert located(content, "South") == "Q3!A5:C5"
    assert located(content, "Sales 2026") == "Q3!A1"
    assert content.is_table


def test_pptx_text_has_slides(tmp_path: Path) -> None:
    content = read(office_files.write_pptx(tmp_path / "p.pptx", ("Plan", "Launch in May"), ("Costs", "None")))
    assert located(content, "Launch") == "slide 1"
    assert located(content, "Costs") == "slide 2"


def test_html_text_is_what_a_reader_sees() -> None:
    page = """<html><head><title>T</title><style>p {color: red}</style></head><body><h2>Leave</h2>
    <p>27 days of <b>paid</b> leave&nbsp;a year.<script>alert("x")</script>
    <p style="display: none">secret<div>second<br>line</div></body></html>"""
    content = markup.parse(page, "p.html")
    assert content.document.text == "T\n\nLeave\n\n27 days of paid leave a year.\n\nsecond\nline"
    assert located(content, "27 days") == "Leave"


def test_html_table_cells_over_rows_and_columns_are_repeated() -> None:
    page = "<table><tr><th rowspan=2>R<th colspan=2>Sales<tr><th>Q1<th>Q2<tr><td>N<td>1<td>2</table>after"
    content = markup.parse(page, "p.html")
    assert content.tables[0].cells == [["R", "Sales", "Sales"], ["R", "Q1", "Q2"], ["N", "1", "2"]]
    assert [column.name for column in content.tables[0].columns] == ["R", "Sales Q1", "Sales Q2"]


@given(
    st.text(max_size=300)
    | st.lists(
        st.sampled_from(
            [
                "<table>",
                "</table>",
                "<tr>",
                "<td>",
                "</td>",
                "<td colspan=3 rowspan=2>",
                "<p>",
                "x",
                "<pre>",
                "<h1>",
                "</h1>",
                "<b",
                "<!--",
            ]
        ),
        max_size=40,
    ).map("".join)
)
def test_html_of_any_text_has_valid_locations(page: str) -> None:
    document = markup.parse(page, "p.html").document
    starts = [location.start for location in document.locations]
    assert starts == sorted(starts)
    assert all(0 <= start < len(document.text) for start in starts)


def test_eml_header_body_and_attachments_have_locations(tmp_path: Path) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "ann@example.org", "bob@example.org", "Grüße"
    message.set_content("The invoice is due.\n")
    message.add_alternative("<p>The <b>invoice</b> is due.</p>", subtype="html")
    message.add_attachment("Total: 5", filename="total.txt")
    message.add_attachment(b"\x00", maintype="application", subtype="pdf", filename="a.pdf")
    path = tmp_path / "m.eml"
    path.write_bytes(message.as_bytes())
    content = read(path)
    assert located(content, "Grüße") == "Subject"
    assert located(content, "The invoice") == "message"
    assert located(content, "Total") == "attachment 1 (total.txt)"
    assert "a.pdf" in content.document.text


def test_markdown_headings_are_locations_and_text_unchanged(tmp_path: Path) -> None:
    text = (
        "# One\n\nfirst\n\n```\n# code\n| x | y |\n|---|---|\n```\n\n## Two ##\n\n| a | b |\n|:--|--:|\n| 1 | x\\|y |\n"
    )
    path = tmp_path / "n.md"
    path.write_text(text)
    content = read(path)
    assert content.document.text == text
    assert [location.name for location in content.document.locations] == ["One", "Two"]
    assert [table.cells for table in content.tables] == [[["a", "b"], ["1", "x|y"]]]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "cp1252"])
def test_text_of_common_encodings_is_read(tmp_path: Path, encoding: str) -> None:
    path = tmp_path / "a.txt"
    path.write_bytes("Grüße, 5 €".encode(encoding))
    assert read(path).document.text == "Grüße, 5 €"


CELLS = st.text(st.sampled_from("ab1 ,;\t|\"\n'é"), max_size=6)


@given(st.lists(st.lists(CELLS, min_size=3, max_size=3), min_size=2, max_size=8), st.sampled_from(DELIMITERS))
def test_csv_written_with_a_delimiter_is_read_back(rows: list[list[str]], delimiter: str) -> None:
    header = [["first", "second", "third"], ["a", "b", "c"], ["d", "e", "f"]]
    written = io.StringIO()
    csv.writer(written, delimiter=delimiter, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([*header, *rows])
    assert parse_rows(written.getvalue(), "a.csv") == [*header, *rows]


@pytest.mark.parametrize(
    ("text", "delimiter"),
    [
        ("a,b\n1,2\n", ","),
        ("a;b\n1,5;2,5\n", ";"),
        ("a\tb, c\n1\t2\n", "\t"),
        ("a|b\n1|2", "|"),
        ("a\n1\n", ","),
        ("", ","),
    ],
)
def test_csv_delimiter_found(text: str, delimiter: str) -> None:
    assert find_delimiter(text) == delimiter


def test_csv_states_its_delimiter() -> None:
    assert parse_rows("sep=;\na;b,c\n", "a.csv") == [["a", "b,c"]]


def test_sqlite_tables_are_read_and_views_are_not(tmp_path: Path) -> None:
    path = office_files.write_sqlite(
        tmp_path / "x.db",
        'CREATE TABLE "odd ""name""" (id INT, amount REAL)',
        'INSERT INTO "odd ""name""" VALUES (1, 2.5), (2, NULL)',
        "CREATE VIEW v AS SELECT 1",
    )
    (table,) = read(path).tables
    assert (table.sheet, table.cells) == ('odd "name"', [["id", "amount"], ["1", "2.5"], ["2", ""]])


def test_duckdb_tables_are_read(tmp_path: Path) -> None:
    path = office_files.write_duckdb(tmp_path / "x.duckdb", "CREATE TABLE t AS SELECT 1 AS a, DATE '2024-05-01' AS d")
    (table,) = read(path).tables
    assert table.cells == [["a", "d"], ["1", "2024-05-01"]]
    assert [column.type for column in table.columns] == ["integer", "date"]


def test_json_records_are_a_table_and_other_values_text(tmp_path: Path) -> None:
    (tmp_path / "r.json").write_text('[{"a": 1}, {"a": 2}]')
    (tmp_path / "o.json").write_text('{"a": [1]}')
    assert read(tmp_path / "r.json").tables[0].cells == [["a"], ["1"], ["2"]]
    assert read(tmp_path / "o.json").document.text == '{"a": [1]}'


@pytest.mark.parametrize(
    "name", ["a.pdf", "a.docx", "a.xlsx", "a.pptx", "a.db", "a.duckdb", "a.eml", "a.json", "a.txt"]
)
def test_broken_file_has_code(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"PK\x03\x04 \x00\x01\x02 nonsense \x81")
    with pytest.raises(DocumentError) as caught:
        read(tmp_path / name)
    assert caught.value.code == "D003"


def test_pdf_with_a_password_has_code(tmp_path: Path) -> None:
    office_files.write_pdf(tmp_path / "a.pdf", [(72, 720, "secret")], password="x")
    with pytest.raises(DocumentError) as caught:
        read(tmp_path / "a.pdf")
    assert caught.value.code == "D004"


def test_office_file_with_a_password_has_code(tmp_path: Path) -> None:
    (tmp_path / "a.docx").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(512))
    with pytest.raises(DocumentError) as caught:
        read(tmp_path / "a.docx")
    assert caught.value.code == "D004"


def test_pdf_without_text_has_code(tmp_path: Path) -> None:
    with pytest.raises(DocumentError) as caught:
        read(office_files.write_pdf(tmp_path / "scan.pdf", []))
    assert caught.value.code == "D006"
