"""Written training rows: both forms are read, and errors are refused with their line."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from bench.evaluate import OWN
from bench.written_rows import PLACES, READERS, Unusable, as_test, claims, renewed, sentences, tables, written
from orchestra.learn.data.dataset import DatasetRow, SplitShares
from orchestra.text.arithmetic import evaluate

pytestmark = pytest.mark.slow

CLAIMS = """; a remark
The bridge was closed in May 1931.
+ In May 1931 no one crossed it.
- It was closed in June.

Another passage.
? It is long.
"""
TABLE = """Branch | Opened | Books
Northgate | 1962 | 14,200
Quay Street | 1998 | 9,350
> It is closed on Mondays.
"""


def file(folder: Path, text: str) -> Path:
    path = folder / "some.txt"
    path.write_text(text)
    return path


def test_claims_grouped_by_passage(tmp_path: Path) -> None:
    first, second, third = claims(file(tmp_path, CLAIMS))

    assert first.input == {"claim": "In May 1931 no one crossed it.", "evidence": "The bridge was closed in May 1931."}
    assert [row.output["label"] for row in (first, second, third)] == ["supported", "contradicted", "not stated"]
    assert first.group == second.group != third.group
    assert len({row.id for row in (first, second, third)}) == 3


def test_sentences_supported_edits_contradicted(tmp_path: Path) -> None:
    stands, edited = sentences(file(tmp_path, CLAIMS))

    assert stands.input["claim"] == stands.input["evidence"] == "The bridge was closed in May 1931."
    assert edited.input["claim"] != edited.input["evidence"] == stands.input["evidence"]
    assert [row.output["label"] for row in (stands, edited)] == ["supported", "contradicted"]
    assert stands.group == edited.group == claims(file(tmp_path, CLAIMS))[0].group


def test_table_questions_have_table_and_paragraphs(tmp_path: Path) -> None:
    asked = (
        "? When?\n"
        "= 1962 ; 1998\n"
        "? How many?\n"
        "# 14,200 + 9,350\n"
        "? More, in percent?\n"
        "# (14,200 - 9,350) / 9,350 * 100 [percent]\n"
    )
    quoted, added, percent = tables(file(tmp_path, TABLE + asked))

    assert quoted.input["table"][1] == ["Northgate", "1962", "14,200"]
    assert quoted.input["paragraphs"] == ["It is closed on Mondays."]
    assert quoted.output == {"expression": None, "quotes": ["1962", "1998"], "scale": ""}
    assert evaluate(added.output["expression"]) == 23_550
    assert percent.output["scale"] == "percent"


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        ("= 1963", "is not in the table"),
        ("# 14,201 + 9,350", "is not in the table"),
        ("# 14,200 +", "no arithmetic"),
        ("= 1962 [dozen]", "no scale"),
        ("? And then?", "take turns"),
        ("", "take turns"),
    ],
)
def test_table_answer_invalid_refused(tmp_path: Path, answer: str, said: str) -> None:
    with pytest.raises(Unusable, match=rf"some\.txt:5: .*{said}"):
        tables(file(tmp_path, f"{TABLE}? When?\n{answer}\n"))


COMPARED = """Branch | Opened | Books
Northgate | 1962 | 14,200
Quay Street | 1998 | 9,350
Mill Lane | 1962 | –
Total | 3 | 23,550
"""


@pytest.mark.parametrize(
    ("answer", "how", "way", "rows", "column"),
    [
        ("= Quay Street", "most Opened", "most", [1, 2, 3, 4], 1),
        ("= Total", "least Opened", "least", [1, 2, 3, 4], 1),
        ("= Northgate", "most Books ! Total", "most", [1, 2, 3], 2),
        ("= 9,350", "least Books ! Total", "least", [1, 2, 3], 2),
        ("= Northgate", "most Books ! Total ; Quay Street", "most", [1, 3], 2),
        ("= Quay Street", "most Books : Quay Street ; Mill Lane", "most", [2, 3], 2),
        ("= Quay Street", "most Opened : #3 ; #2 ; 14,200", "most", [1, 2, 3], 1),
        ("= Quay Street", "most Books ! Northgate : Northgate ; Quay Street", "most", [2], 2),
        ("= Mill Lane", "least Opened : #1 ; #2 ; #3", "least", [1, 2, 3], 1),
        ("# 14,200 * 2", "most Books ! Total", "most", [1, 2, 3], 2),
        ("# 2", "count Northgate ; #3", "count", [1, 3], None),
        ("# 1 + 1", "count Mill Lane ; Northgate ; Mill Lane", "count", [1, 3], None),
        ("# 1", "count 9,350", "count", [2], None),
        ("# 0", "count", "count", [], None),
    ],
)
def test_third_line_compares_or_counts_rows(
    tmp_path: Path, answer: str, how: str, way: str, rows: list[int], column: int | None
) -> None:
    (row,) = tables(file(tmp_path, f"{COMPARED}? Which?\n{answer}\n@ {how}\n"))

    assert {name: row.output[name] for name in ("way", "rows", "column")} == {
        "way": way,
        "rows": rows,
        "column": column,
    }
    assert row.output.keys() == {"expression", "quotes", "scale", "way", "rows", "column"}


def test_third_line_is_optional(tmp_path: Path) -> None:
    asked = "? When?\n= 1998\n? Which is newer?\n= Quay Street\n@ most Opened ! Total\n? How many?\n# 14,200 + 9,350\n"
    first, second, third = tables(file(tmp_path, COMPARED + asked))

    assert "way" not in first.output.keys() | third.output.keys()
    assert second.output["way"] == "most"
    assert [row.input["question"] for row in (first, second, third)] == ["When?", "Which is newer?", "How many?"]


@pytest.mark.parametrize(
    ("answer", "how", "said"),
    [
        (
            "= Northgate",
            "highest Opened",
            "'highest Opened' is not a way of count, cells, sum, mean, most, least, range, a column, and rows",
        ),
        ("= Northgate", "most Shut", "'Shut' is not the head of one column"),
        ("= Northgate", "most 1962", "'1962' is not the head of one column"),
        ("= Northgate", "most", "'' is not the head of one column"),
        ("= Northgate", "most Books : Nowhere", "'Nowhere' is no cell of exactly one row"),
        ("= Northgate", "most Books ! 1962", "'1962' is no cell of exactly one row"),
        ("= Northgate", "most Books : #5", "'#5' is no cell of exactly one row"),
        ("= Northgate", "most Books : #0", "'#0' is no cell of exactly one row"),
        ("= Northgate", "most Books : Branch", "'Branch' is no cell of exactly one row"),
        ("= Northgate", "least Books", "the least of Books is in ['Quay Street'], and the answer is not"),
        (
            "= Northgate",
            "most Opened : #1 ; #2",
            "the most of Opened is in ['Quay Street'], and the answer is not",
        ),
        ("= 9,350", "most Books", "the most of Books is in ['Total'], and the answer is not"),
        ("= Northgate", "most Branch", "the most of Branch is in [], and the answer is not"),
        ("# 9,350 * 9", "most Books", "the most of Books is in ['Total'], and the answer is not"),
        ("# 2", "count Northgate", "1 rows are counted, and the answer is 2"),
        ("# 2", "count Northgate ; #1", "1 rows are counted, and the answer is 2"),
        ("# 1", "count", "0 rows are counted, and the answer is 1"),
        ("= Northgate", "count Northgate", "1 rows are counted, and the answer is ['Northgate']"),
        ("# 1", "count Nowhere", "'Nowhere' is no cell of exactly one row"),
    ],
)
def test_third_line_with_other_result_refused(tmp_path: Path, answer: str, how: str, said: str) -> None:
    with pytest.raises(Unusable) as caught:
        tables(file(tmp_path, f"{COMPARED}? Which?\n{answer}\n@ {how}\n"))
    assert str(caught.value) == f"{tmp_path / 'some.txt'}:6: {said}"


FLATS = """Flat | Rent (€) | Rooms | Opens | Balance
Lindenhof | 780 | 2 | 9:15 | (3)
Am Wehr | 640 | 1 | 11:40 | 5
Kirchgasse | 1,120 | 4 | 18:00 | -
Total | 2,540 | 7 | - | 2
"""
LINDENHOF, WEHR, KIRCHGASSE, ALL = 1, 2, 3, 4
RENT, ROOMS, OPENS, BALANCE = 1, 2, 3, 4


def asked(folder: Path, question: str, answer: str, how: str) -> dict[str, Any]:
    """The output of a question about the flats."""
    (row,) = tables(file(folder, f"{FLATS}? {question}\n{answer}\n@ {how}\n"))
    return dict(row.output)


@pytest.mark.parametrize(
    ("question", "answer", "how", "rows", "column", "condition"),
    [
        ("under 700?", "# 1", "count if Rent (€) < 700", [WEHR], None, (RENT, "below", "700")),
        ("at most 780?", "# 2", "count if Rent (€) <= 780", [LINDENHOF, WEHR], None, (RENT, "upto", "780")),
        ("over 780?", "# 1", "count if Rent (€) > 780 ! Total", [KIRCHGASSE], None, (RENT, "above", "780")),
        ("from 780?", "# 2", "count if Rent (€) >= 780 ! Total", [LINDENHOF, KIRCHGASSE], None, (RENT, "from", "780")),
        ("over 780?", "# 1", "count if Rent (€) > 780 : #1 ; #3", [KIRCHGASSE], None, (RENT, "above", "780")),
        ("over 780?", "# 1", "count #1 ; Kirchgasse if Rent (€) > 780", [KIRCHGASSE], None, (RENT, "above", "780")),
        ("over 9000?", "# 0", "count if Rent (€) > 9000", [], None, (RENT, "above", "9000")),
        ("two or more?", "# 1", "count if Rooms >= 2 : #1 ; #2", [LINDENHOF], None, (ROOMS, "from", "two")),
        ("1 of those over 2?", "# 1", "count if Rooms > 2 ! Total", [KIRCHGASSE], None, (ROOMS, "above", "2")),
        (
            "after half past nine?",
            "# 2",
            "count if Opens > 9:30",
            [WEHR, KIRCHGASSE],
            None,
            (OPENS, "above", "half past nine"),
        ),
        ("by 6pm?", "# 3", "count if Opens <= 6pm", [LINDENHOF, WEHR, KIRCHGASSE], None, (OPENS, "upto", "6pm")),
        (
            "under 800?",
            "= Lindenhof ; Am Wehr",
            "cells Flat if Rent (€) < 800",
            [LINDENHOF, WEHR],
            None,
            (RENT, "below", "800"),
        ),
        (
            "under 800?",
            "= Am Wehr ; Lindenhof",
            "cells Flat if Rent (€) < 800",
            [LINDENHOF, WEHR],
            None,
            (RENT, "below", "800"),
        ),
        (
            "under 800?",
            "# 780 + 640",
            "sum Rent (€) if Rent (€) < 800",
            [LINDENHOF, WEHR],
            None,
            (RENT, "below", "800"),
        ),
        (
            "under 800?",
            "# (780 + 640) / 2",
            "mean Rent (€) if Rent (€) < 800",
            [LINDENHOF, WEHR],
            None,
            (RENT, "below", "800"),
        ),
        ("under 800?", "# -3 + 5", "sum Balance if Rent (€) < 800", [LINDENHOF, WEHR], None, (RENT, "below", "800")),
        ("under 800?", "= Lindenhof", "most Rooms if Rent (€) < 800", [LINDENHOF, WEHR], ROOMS, (RENT, "below", "800")),
        (
            "over 1 room?",
            "= 780",
            "least Rent (€) if Rooms > 1 ! Total",
            [LINDENHOF, KIRCHGASSE],
            RENT,
            (ROOMS, "above", "1"),
        ),
        (
            "over 1 room?",
            "# 1,120 - 780",
            "range Rent (€) if Rooms > 1 ! Total",
            [LINDENHOF, KIRCHGASSE],
            RENT,
            (ROOMS, "above", "1"),
        ),
    ],
)
def test_condition_selects_rows(
    tmp_path: Path,
    question: str,
    answer: str,
    how: str,
    rows: list[int],
    column: int | None,
    condition: tuple[int, str, str],
) -> None:
    output = asked(tmp_path, question, answer, how)
    assert (output["way"], output["rows"], output["column"]) == (how.split()[0], rows, column)
    assert output["condition"] == dict(zip(("column", "bound", "limit"), condition, strict=True))


@pytest.mark.parametrize(
    ("answer", "how", "rows"),
    [
        ("= Lindenhof ; Am Wehr ; Kirchgasse", "cells Flat ! Total", [LINDENHOF, WEHR, KIRCHGASSE]),
        ("# 780 + 640 + 1,120", "sum Rent (€) ! Total", [LINDENHOF, WEHR, KIRCHGASSE]),
        ("# (2 + 1) / 2", "mean Rooms : #1 ; #2", [LINDENHOF, WEHR]),
        ("# 1,120 - 640", "range Rent (€) ! Total", [LINDENHOF, WEHR, KIRCHGASSE]),
        ("# 5 - -3", "range Balance", [LINDENHOF, WEHR, KIRCHGASSE, ALL]),
        ("# 18:00 - 9:15", "range Opens", [LINDENHOF, WEHR, KIRCHGASSE, ALL]),
    ],
)
def test_cells_sum_range_without_condition(tmp_path: Path, answer: str, how: str, rows: list[int]) -> None:
    output = asked(tmp_path, "And?", answer, how)
    assert (output["way"], output["rows"]) == (how.split()[0], rows)
    assert output["column"] == (
        {"Balance": BALANCE, "Opens": OPENS}.get(how.split()[1], RENT) if how.startswith("range") else None
    )
    assert "condition" not in output


@pytest.mark.parametrize(
    ("question", "answer", "how", "said"),
    [
        ("under 700?", "# 2", "count if Rent (€) < 700", "1 rows are counted, and the answer is 2"),
        ("over 700?", "# 1", "count if Rent (€) < 600", "'600' is no figure of the question, which has 700"),
        ("over 700 for 2?", "# 1", "count if Rent (€) < 600", "'600' is no figure of the question, which has 700, 2"),
        ("And?", "# 1", "count if Rent (€) < 700", "'700' is no figure of the question, which has none"),
        ("after 6pm?", "# 0", "count if Rooms > 6pm", "'6pm' cannot be compared with the column Rooms"),
        ("over 700?", "# 4", "count if Flat > 700", "'700' cannot be compared with the column Flat"),
        ("over 700?", "# 4", "count if Shut > 700", "'Shut' is not the head of one column"),
        ("under 800?", "= Lindenhof", "cells if Rooms < 800", "'' is not the head of one column"),
        (
            "under 800?",
            "= Lindenhof",
            "cells Flat if Rent (€) < 800",
            "the cells are ['Lindenhof', 'Am Wehr'], and the answer is ['Lindenhof']",
        ),
        (
            "under 800?",
            "# 780 + 2",
            "sum Rent (€) if Rent (€) < 800",
            "the figures are ['780', '640'], and the answer is 780 + 2",
        ),
        (
            "under 800?",
            "# (780 + 640) / 3",
            "mean Rent (€) if Rent (€) < 800",
            "the figures are ['780', '640'], and the answer is (780 + 640) / 3",
        ),
        (
            "under 800?",
            "= Am Wehr",
            "most Rent (€) if Rent (€) < 800",
            "the most of Rent (€) is in ['Lindenhof'], and the answer is not",
        ),
        (
            "over 9000?",
            "= Total",
            "most Rent (€) if Rent (€) > 9000",
            "the most of Rent (€) is in [], and the answer is not",
        ),
        (
            "And?",
            "# 640 - 1,120",
            "range Rent (€) ! Total",
            "the range of Rent (€) is 1,120 - 640, and the answer is 640 - 1,120",
        ),
        ("And?", "= 640", "range Rent (€) ! Total", "the range of Rent (€) is 1,120 - 640, and the answer is ['640']"),
        ("And?", "# 1 - 1", "range Flat", "the range of Flat is None, and the answer is 1 - 1"),
    ],
)
def test_condition_with_other_result_refused(tmp_path: Path, question: str, answer: str, how: str, said: str) -> None:
    with pytest.raises(Unusable) as caught:
        asked(tmp_path, question, answer, how)
    assert str(caught.value) == f"{tmp_path / 'some.txt'}:6: {said}"


@pytest.mark.parametrize(
    "how", ["count if Rooms = 800", "count if Rooms >", "count if > 800", "if Rooms > 800", "count Flat of Rooms >> 8"]
)
def test_condition_of_other_form_refused(tmp_path: Path, how: str) -> None:
    with pytest.raises(Unusable, match=r"some\.txt:6: "):
        asked(tmp_path, "over 800?", "# 0", how)


@pytest.mark.parametrize(
    ("question", "answer", "how"),
    [
        ("under 800?", "# 780 - 640", "sum Rent (€) if Rent (€) < 800"),
        ("under 800?", "# 3 + 5", "sum Balance if Rent (€) < 800"),
        ("under 800?", "# 780 * 640 / 2", "mean Rent (€) if Rent (€) < 800"),
        ("under 60?", "# 3", "count if Rooms < 6 ! Total"),
    ],
)
def test_wrong_sum_and_partial_figure_refused(tmp_path: Path, question: str, answer: str, how: str) -> None:
    with pytest.raises(Unusable):
        asked(tmp_path, question, answer, how)


@pytest.mark.parametrize(
    ("question", "answer", "minutes"),
    [
        ("How long?", "11:40 - 9:15", 145),
        ("until 6:30 pm?", "6:30 pm - 9:15", 555),
        ("until 12:10 am?", "9:15 - 12:10 a.m.", 545),
    ],
)
def test_times_of_table_or_question_allowed(tmp_path: Path, question: str, answer: str, minutes: int) -> None:
    asked = question.replace("am", "a.m.")
    (row,) = tables(file(tmp_path, f"{FLATS}? {asked}\n# {answer}\n"))
    assert evaluate(row.output["expression"]) == minutes


@pytest.mark.parametrize("answer", ["11:41 - 9:15", "6:30 pm - 9:15", "11:40 - 9:15 -"])
def test_unknown_times_refused(tmp_path: Path, answer: str) -> None:
    with pytest.raises(Unusable, match=r"some\.txt:6: "):
        tables(file(tmp_path, f"{FLATS}? How long?\n# {answer}\n"))


def test_unknown_figure_beside_times_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable):
        tables(file(tmp_path, f"{FLATS}? How long?\n# 11:40 - 9:15 + 77\n"))


@pytest.mark.parametrize(
    ("question", "answer"), [("for twenty-five?", "25 * 780"), ("a dozen?", "12 * 780"), ("at 1,500?", "1,500 - 780")]
)
def test_figures_of_question_in_words_allowed(tmp_path: Path, question: str, answer: str) -> None:
    (row,) = tables(file(tmp_path, f"{FLATS}? {question}\n# {answer}\n"))
    assert row.output["expression"] == answer
    with pytest.raises(Unusable, match="is not in the table"):
        tables(file(tmp_path, f"{FLATS}? And?\n# {answer.replace('12', '35')}\n"))


@pytest.mark.parametrize(
    ("asked", "line", "said"),
    [
        ("@ most Books\n? Which?\n= Total\n", 6, "take turns"),
        ("? Which?\n@ most Books\n= Total\n", 6, "take turns"),
        ("? Which?\n= Total\n@ most Books\n@ least Opened\n", 9, "take turns"),
        ("? Which?\n= Total\n@ most Books\nA line.\n", 9, "begins with one of > ? = # @"),
    ],
)
def test_third_line_needs_answer(tmp_path: Path, asked: str, line: int, said: str) -> None:
    with pytest.raises(Unusable, match=rf"some\.txt:{line}: .*{re.escape(said)}"):
        tables(file(tmp_path, COMPARED + asked))


def test_uneven_table_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"some\.txt:1: .*\[2, 3\]"):
        tables(file(tmp_path, TABLE.replace("Opened | ", "") + "? When?\n= 1962\n"))


@pytest.mark.parametrize(("text", "line"), [(TABLE, 1), (TABLE + "A paragraph.\n? When?\n= 1962\n", 5)])
def test_line_without_question_refused(tmp_path: Path, text: str, line: int) -> None:
    with pytest.raises(Unusable, match=rf"some\.txt:{line}: "):
        tables(file(tmp_path, text))


def test_claims_without_sign_refused(tmp_path: Path) -> None:
    with pytest.raises(Unusable, match=r"some\.txt:2"):
        claims(file(tmp_path, "A passage.\nA claim.\n"))


@pytest.mark.parametrize("kind", READERS)
def test_written_files_are_valid(kind: str) -> None:
    rows, origin = written(kind)

    assert origin.rows == len(rows) > 500
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.parametrize("kind", READERS)
def test_evaluation_rows_match_files_not_trained_on(kind: str) -> None:
    rows = READERS[kind](OWN / f"{PLACES.get(kind, kind)}.txt")

    assert (OWN / f"{kind}.jsonl").read_bytes() == as_test(rows)
    assert not {row.group for row in rows} & {row.group for row in written(kind)[0]}


def test_renewed_keeps_share_of_old_rows() -> None:
    old = [DatasetRow(str(number), {}, {}, str(number)) for number in range(1000)]
    ours, origin = written("claims")
    parts, (found,) = renewed(
        {"train": old, "tune": old[:7], "test": []}, ("claims",), 0.3, SplitShares(tune=0.06, test=0.0)
    )

    kept = [row for row in parts["train"] if row in old]
    assert 250 < len(kept) < 350
    assert parts["tune"][:7] == old[:7]
    assert len(parts["train"]) + len(parts["tune"]) == len(kept) + 7 + len(ours)
    assert (found.digest, found.description) == (origin.digest, "as they are, beside 30% of the other rows to train on")
    assert renewed({"train": old, "tune": [], "test": []}, ("claims",), 0.3, SplitShares())[0]["train"][:9] == kept[:9]


@pytest.mark.parametrize(("limit", "sign"), [("one", ">"), ("6pm", "<="), ("two hundred", ">=")])
def test_limit_in_words_compared_as_written(tmp_path: Path, limit: str, sign: str) -> None:
    words = {"one": "more than one", "6pm": "until 6pm", "two hundred": "at least two hundred"}[limit]
    table = "Name | Baths | Shut | Seats\nAda | 2 | 17:30 | 250\nBob | 1 | 19:00 | 90\n"
    column = {"one": "Baths", "6pm": "Shut", "two hundred": "Seats"}[limit]
    [row] = tables(file(tmp_path, f"{table}? Who has {words}?\n= Ada\n@ cells Name if {column} {sign} {limit}\n"))
    assert (row.output["rows"], row.output["condition"]["limit"]) == ([1], limit)


@pytest.mark.parametrize(
    ("question", "how", "first", "second"),
    [
        (
            "from 1 room, under 800?",
            "count if Rooms >= 1 and Rent (€) < 800",
            (ROOMS, "from", "1"),
            (RENT, "below", "800"),
        ),
        (
            "under 800, from 1 room?",
            "count if Rooms >= 1 and Rent (€) < 800",
            (RENT, "below", "800"),
            (ROOMS, "from", "1"),
        ),
        (
            "between 600 and 800?",
            "count if Rent (€) <= 800 and Rent (€) >= 600",
            (RENT, "from", "600"),
            (RENT, "upto", "800"),
        ),
    ],
)
def test_two_conditions_in_question_order(
    tmp_path: Path, question: str, how: str, first: tuple[int, str, str], second: tuple[int, str, str]
) -> None:
    output = asked(tmp_path, question, "# 2", f"{how} ! Total")
    assert output["rows"] == [LINDENHOF, WEHR]
    conditions = [tuple(output[name].values()) for name in ("condition", "also")]
    assert conditions == [first, second]


def test_two_conditions_select_rows_matching_both(tmp_path: Path) -> None:
    output = asked(
        tmp_path,
        "from 2 rooms, over 780?",
        "= Kirchgasse",
        "cells Flat if Rooms >= 2 and Rent (€) > 780 : #1 ; #2 ; #3",
    )
    assert output["rows"] == [KIRCHGASSE]


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("count if Rooms >= 1 and Rent (€) < 800 and Rooms < 3", "two conditions at most"),
        ("count if Rooms >= 1 and Rent (€) = 800", "two conditions at most"),
        ("count if Rooms >= 1 and Rent (€)", "two conditions at most"),
        ("count if Rooms >= 1 and Rooms <= 1", "are one figure of the question"),
        ("count if Rooms >= 1 and Terms < 800", "is not the head of one column"),
    ],
)
def test_invalid_second_condition_refused(tmp_path: Path, how: str, said: str) -> None:
    with pytest.raises(Unusable, match=said):
        asked(tmp_path, "from 1 room, under 800 and 3?", "# 2", how)
