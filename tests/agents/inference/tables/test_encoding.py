"""Tests table encodings: each cell and each figure is a location with its own tokens, and windows cover the whole
table.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import (  # noqa: E402
    MAX_QUESTION,
    TableEncoding,
    TableLocation,
    count_header_rows,
)
from orchestra.agents.inference.tables.question import QuestionFigure  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from tests.agents.tables import WORDS  # noqa: E402

TABLE = [["Name", "Age", "Books  of\nAda"], ["Ada", "", "14,200"], ["", "36", " - "], ["Grace Alan", "($ 85)", "9,350"]]
TEXT = ["Ada has 12 of the 1,200.5 books, and $3 (-7).", "Grace is (40)."]
FILLED = [
    (0, 0, "Name", None), (0, 1, "Age", None), (0, 2, "Books of Ada", None), (1, 0, "Ada", None),
    (1, 2, "14,200", "14,200"),
    (2, 1, "36", "36"), (2, 2, "-", None), (3, 0, "Grace Alan", None), (3, 1, "($ 85)", "-85"),
    (3, 2, "9,350", "9,350"),
]  # fmt: skip
CELL = st.text("aé1|$,.(-) \n", max_size=6)
WORDED = st.lists(
    st.sampled_from(["ada", "é", "7", "(7)", "1,200.5", "-3", "1-2", "$4,", "(", ".", "|"]), max_size=6
).map(" ".join)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))


def long(rows: int, columns: int = 3) -> list[list[str]]:
    """Returns a table of figures with a header. Each word is one token."""
    head = ["name", *(f"{number}" for number in range(10, 9 + columns))]
    return [
        head,
        *(["ada", *(str((row * columns + column) % 100) for column in range(1, columns))] for row in range(rows)),
    ]


def told(sheet: TableEncoding, number: int) -> str:
    """Returns the text of the tokens that are pooled for a location, without blanks."""
    tokens = np.flatnonzero(sheet.pooling().locations[number])
    spans = [sheet.chars[at] for at in tokens]
    return "".join(sheet.text[span[0] : span[1]] for span in spans if span is not None)


# Headers


@pytest.mark.parametrize(
    ("table", "rows"),
    [
        ([], 0),
        ([["Name", "Age"]], 1),
        ([["Name", "Age"], ["Ada", "36"]], 1),
        ([["", "2019", "2018"], ["Books", "1", "2"], ["", "3", "4"]], 1),
        ([["", "2019", "2018"], ["", "audited", ""], ["Books", "1", "2"]], 2),
        ([["Books", "", ""], ["", "2019", "2018"], ["Sold", "1", "2"]], 2),
        ([["Books", ""], ["(of 2019)", ""], ["", "Sold"], ["Ada", "3"], ["", "4"]], 3),
        ([["", "a"], ["", "b"], ["", "c"], ["", "d"], ["Ada", "3"]], 3),
        ([["Books", ""], ["Ada", ""]], 1),
        ([["Name"], ["Ada"], ["Grace"], ["Alan"], ["Edsger"]], 3),
        ([["", "2019"], ["", "5"]], 1),
    ],
)
def test_header_ends_at_first_labelled_row(table: list[list[str]], rows: int) -> None:
    assert count_header_rows(table) == rows


@given(st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=6))
def test_header_leaves_at_least_one_body_row(table: list[list[str]]) -> None:
    assert (count_header_rows(table) == 0) == (table == [])
    assert count_header_rows(table) <= min(3, max(1, len(table) - 1))


# Locations


def test_location_per_filled_cell_has_row_column_and_figure(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "Who is it?", TABLE, [], 64)
    assert sheet.locations == [TableLocation(text, row, column, found) for row, column, text, found in FILLED]


def test_locations_include_figures_of_question_and_text(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "How many of 1,500 are twice the 7 of Both, bothersome or Twelve?", TABLE, TEXT, 64)
    asked = [("1,500", "1,500"), ("twice", "2"), ("7", "7"), ("both", "2"), ("twelve", "12")]
    text = [("12", "12"), ("1,200.5", "1,200.5"), ("$3", "3"), ("(-7)", "-7"), ("(40)", "-40")]
    assert sheet.locations[len(FILLED) :] == [
        *(
            TableLocation(said, figure=figure, question_figure=QuestionFigure(said, figure, figure))
            for said, figure in asked
        ),
        *(TableLocation(said, figure=figure) for said, figure in text),
    ]


@pytest.mark.parametrize("tokens", [64, 40, 512])
def test_location_pools_its_own_tokens(encoder: Encoder, tokens: int) -> None:
    sheet = TableEncoding(encoder, "Is it twice the 7?", TABLE * 3, TEXT, tokens)
    assert len(sheet.windows) > 1 or tokens == 512
    for number, spot in enumerate(sheet.locations):
        assert told(sheet, number) == spot.text.replace(" ", ""), spot


@given(
    st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=5),
    st.lists(WORDED, max_size=2),
    st.text("twice 7a", max_size=9),
)
def test_location_tokens_match_for_any_table(
    encoder: Encoder, table: list[list[str]], paragraphs: list[str], question: str
) -> None:
    sheet = TableEncoding(encoder, question, table, paragraphs, 64)
    for number, spot in enumerate(sheet.locations):
        assert told(sheet, number) == spot.text.replace(" ", ""), spot
    filled = [(row, at) for row, cells in enumerate(table) for at, cell in enumerate(cells) if cell.strip()]
    assert [(spot.row, spot.column) for spot in sheet.locations if spot.row >= 0] == filled


def test_text_tokens_are_distinct_from_table_tokens(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "Twice?", TABLE, TEXT, 64)
    spans = [span for span, inside in zip(sheet.chars, sheet.prose_mask(), strict=True) if inside and span is not None]
    assert len(spans) == sheet.prose_mask().sum()
    assert "".join(sheet.text[slice(*span)] for span in spans) == "".join(TEXT).replace(" ", "")


# Windows


def test_short_table_has_one_window(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "who is it ?", long(3), [], 64)
    pair = encoder.tokenize_pair("who is it ?", sheet.text)
    assert sheet.windows == [[*pair.head, *pair.body, *pair.tail]]
    assert len(sheet.chars) == len(sheet.windows[0])
    assert [span for span in sheet.chars if span is not None] == pair.offsets


@pytest.mark.parametrize("rows", [8, 9, 10, 11, 30, 99])
def test_long_table_windows_repeat_question_and_header_and_cover_all(encoder: Encoder, rows: int) -> None:
    table, question = long(rows), "who is it ?"
    sheet = TableEncoding(encoder, question, table, TEXT, 64)
    pair, head = (
        encoder.tokenize_pair(question, sheet.text),
        encoder.tokenize_pair(question, "name | 10 | 11 | \n").body,
    )
    assert len(sheet.windows) > 1
    assert {len(window) for window in sheet.windows[:-1]} == {64}
    assert all(window[: len(pair.head) + len(head)] == [*pair.head, *head] for window in sheet.windows)
    assert all(window[-len(pair.tail) :] == pair.tail for window in sheet.windows)
    firsts = np.cumsum([0, *map(len, sheet.windows)])[:-1].tolist()
    assert sheet.pooling().starts[0, firsts] == pytest.approx(1 / len(firsts))
    marks = [sheet.chars[first : first + 64].count(None) for first in firsts]
    assert marks == [
        len(pair.head) + 1,
        *[len(pair.head) + len(head) + 1] * (len(marks) - 1),
    ], "no more than the head is read again"
    assert [span for span in sheet.chars if span is not None] == pair.offsets, "each token once"
    read = [token for window in sheet.windows for token in window]
    assert [token for token, span in zip(read, sheet.chars, strict=True) if span is not None] == pair.body


def test_long_header_is_not_repeated_in_windows(encoder: Encoder) -> None:
    table = [["name", *["age"] * 20], ["ada", *["7"] * 20], ["alan", *["8"] * 20]]
    sheet = TableEncoding(encoder, "who is it ?", table, [], 64)
    pair = encoder.tokenize_pair("who is it ?", sheet.text)
    assert [token for window in sheet.windows for token in window[len(pair.head) : -1]] == pair.body


def test_long_question_is_truncated_at_the_end(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "who " * 500, long(30), [], 300)
    who, mark = sheet.windows[0][1], sheet.windows[0][0]
    assert mark != who
    assert all(window[: MAX_QUESTION - 2] == [mark, *[who] * (MAX_QUESTION - 3)] for window in sheet.windows)
    assert all(who not in window[MAX_QUESTION - 2 :] and len(window) <= 300 for window in sheet.windows)


def test_question_truncation_leaves_tokens_for_table(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "who " * 500, long(3), [], 64)
    assert all(len(window) <= 64 for window in sheet.windows)
    assert {sheet.locations[at].row for at in range(len(sheet.locations))} == set(range(len(sheet.table)))
    assert sheet.pooling().locations.any(axis=1).all(), "every cell is read"


def test_encoding_without_table_and_text_has_one_window(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "who ?", [], [], 64)
    assert (len(sheet.windows), sheet.locations, sheet.header_rows) == (1, [], 0)
    assert sheet.pooling().locations.shape == (0, len(sheet.chars))
    assert not sheet.prose_mask().any()


# Pooling


def test_pooling_selects_labels_and_bodies_of_rows_and_columns(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "Twice?", TABLE, TEXT, 64)
    pooling, count = sheet.pooling(), len(sheet.locations)
    numbers = {(row, column): number for number, (row, column, *_) in enumerate(FILLED)}

    def places(array: object) -> list[set[int]]:
        return [set(np.flatnonzero(row).tolist()) for row in np.asarray(array)]

    assert places(pooling.row_label) == [{numbers[0, 0]}, {numbers[1, 0]}, {numbers[2, 1]}, {numbers[3, 0]}]
    assert places(pooling.row_body) == [
        {numbers[0, 1], numbers[0, 2]},
        {numbers[1, 2]},
        {numbers[2, 2]},
        {numbers[3, 1], numbers[3, 2]},
    ]
    assert places(pooling.column_header) == [{numbers[0, 0]}, {numbers[0, 1]}, {numbers[0, 2]}]
    assert places(pooling.column_body) == [{numbers[1, 0], numbers[3, 0]}, {numbers[2, 1], numbers[3, 1]}, {4, 6, 9}]
    assert pooling.in_row.shape == (count, 4)
    assert pooling.in_column.shape == (count, 3)
    for number, spot in enumerate(sheet.locations):
        assert set(np.flatnonzero(pooling.in_row[number])) == ({spot.row} if spot.row >= 0 else set())
        assert set(np.flatnonzero(pooling.in_column[number])) == ({spot.column} if spot.row >= 0 else set())


@given(st.lists(st.lists(CELL, min_size=1, max_size=3), max_size=5), st.lists(WORDED, max_size=2))
def test_pooling_rows_sum_to_one_or_zero(encoder: Encoder, table: list[list[str]], paragraphs: list[str]) -> None:
    sheet = TableEncoding(encoder, "twice ?", table, paragraphs, 64)
    pooling = sheet.pooling()
    for name in ("starts", "locations", "row_label", "row_body", "column_header", "column_body"):
        sums = getattr(pooling, name).sum(axis=1)
        assert np.all(np.isclose(sums, 1) | (sums == 0)), name
    assert np.isclose(pooling.starts.sum(), 1)
    assert np.all(pooling.locations.sum(axis=1) > 0), "every place has a token"
    firsts = np.cumsum([0, *map(len, sheet.windows)])[:-1]
    assert np.flatnonzero(pooling.starts[0]).tolist() == firsts.tolist()


def test_text_figure_quote_covers_whole_word(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "Who is it?", TABLE, ["It grew to $5.3M in the 1990s."], 64)
    assert [(spot.text, spot.figure) for spot in sheet.locations[-2:]] == [("$5.3M", "5.3"), ("1990s", "1990")]


def test_text_figure_keeps_minus_before_any_currency(encoder: Encoder) -> None:
    sheet = TableEncoding(encoder, "Who is it?", TABLE, ["It made -₹500, -US$3 and US$7."], 64)
    assert [spot.figure for spot in sheet.locations[-3:]] == ["-500", "-3", "7"]
