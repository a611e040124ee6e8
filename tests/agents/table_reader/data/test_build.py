"""Table data: derivations become expressions with the correct value, generated questions have correct answers, and rows
have their operation.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from agents.table_reader.data.build import asked, expression_of, made, rows_of, told
from bench.written_rows import written
from orchestra.agents.computed_fields import TABLE_ANSWER_FIELDS
from orchestra.agents.inference.tables.operations import OPERATIONS
from orchestra.learn.data.dataset import DatasetRow
from orchestra.text.arithmetic import evaluate

pytestmark = pytest.mark.slow

TABLE = [["", "2019", "2018"], ["Revenue", "$1,200", "900"], ["Cost of sales", "(300)", "250"]]


@pytest.mark.parametrize(
    ("derivation", "answer", "scale", "expression"),
    [
        ("(1,123,572+1,098,615+858,537)/3", 1026908, "thousand", "(1,123,572 + 1,098,615 + 858,537) / 3"),
        ("(0.7-0.5)/0.5", 40, "percent", "(0.7 - 0.5) / 0.5 * 100"),
        ("( (70-129)/129) * 100", -45.74, "percent", "(70 - 129) / 129 * 100"),
        ("$5 - $3", 2, "million", "5 - 3"),
        ("3-5", 2, "", "-(3 - 5)"),
        ("2018##2019", 2, "", None),
        ("5 - 3", 3, "", None),
    ],
)
def test_expression_of_has_value_of_answer(derivation: str, answer: float, scale: str, expression: str | None) -> None:
    assert expression_of(derivation, answer, scale) == expression
    if expression is not None:
        assert float(evaluate(expression)) == pytest.approx(answer, abs=0.01)


def test_generated_questions_use_correct_cells() -> None:
    output = {"expression": None, "quotes": ["900"], "scale": "million"}
    row = DatasetRow("1", {"question": "?", "table": TABLE, "paragraphs": []}, output, "one")
    made = list(asked([row], 60))

    figures = {"revenue": {"2019": 1200, "2018": 900}, "cost of sales": {"2019": -300, "2018": 250}}
    kinds = set()
    for one in made:
        said, question = one.output, one.input["question"].lower()
        names = [name for name in figures if name in question]
        years = re.findall(r"20\d\d", question)
        if "percentage change" in question:
            (name,), (old, new) = names, years
            wanted = (figures[name][new] - figures[name][old]) / figures[name][old] * 100
        elif "change" in question:
            (name,), (old, new) = names, years
            wanted = figures[name][new] - figures[name][old]
        elif "average" in question:
            (name,) = names
            wanted = sum(figures[name][year] for year in years) / 2
        elif "sum" in question:
            wanted = sum(figures[name][years[0]] for name in names)
        else:
            kinds.add("cell")
            cells = {cell for line in TABLE for cell in line}
            assert set(said["quotes"]) <= cells
            assert said["expression"] is None
            continue
        kinds.add("sum")
        assert float(evaluate(said["expression"])) == pytest.approx(wanted)
        assert said["scale"] == ("percent" if "percentage" in question else "million")
    assert kinds == {"cell", "sum"}


@pytest.mark.parametrize(
    ("output", "way"),
    [
        ({"expression": "900 - 250", "quotes": []}, ("gap", [], None)),
        ({"expression": "250 - 900", "quotes": []}, ("difference", [], None)),
        ({"expression": "250 - 250", "quotes": []}, ("gap", [], None)),
        ({"expression": "(900 + 250) / 2", "quotes": []}, ("mean", [], None)),
        ({"expression": None, "quotes": ["Revenue", "900"]}, ("cells", [], None)),
        ({"expression": None, "quotes": ["Revenue grew"]}, ("text", [], None)),
        ({"expression": None, "quotes": ["Revenue"], "way": "most", "rows": [1, 2], "column": 1}, ("most", [1, 2], 1)),
        ({"expression": "900 / 250", "quotes": [], "way": "least", "rows": [1, 2], "column": 2}, ("ratio", [], None)),
        ({"expression": "2", "quotes": [], "way": "count", "rows": [1, 2], "column": None}, ("count", [1, 2], None)),
        ({"expression": "2", "quotes": []}, None),
        ({"expression": "900 - 250 + 1", "quotes": []}, None),
        ({"expression": "900 - 250 + 1", "quotes": [], "way": "most", "rows": [1], "column": 1}, None),
    ],
)
def test_told_adds_operation(output: dict[str, Any], way: tuple[str, list[int], int | None] | None) -> None:
    row = DatasetRow("1", {"question": "?", "table": TABLE, "paragraphs": []}, {"scale": "million", **output}, "one")
    found = list(told([row]))

    assert [(one.output["way"], one.output["rows"], one.output["column"]) for one in found] == ([way] if way else [])
    for one in found:
        assert one.output.keys() == set(TABLE_ANSWER_FIELDS)
        assert {name: one.output[name] for name in ("expression", "quotes", "scale")} == {
            "expression": output["expression"],
            "quotes": output["quotes"],
            "scale": "million",
        }
        assert (one.id, one.input, one.group) == (row.id, row.input, row.group)


@pytest.mark.parametrize(
    ("question", "way"),
    [
        ("How much more did we take in 2019?", "gap"),
        ("What was the change in revenue?", "difference"),
        ("Did revenue Increase, and by how much?", "difference"),
        ("By how much is it overchanged?", "gap"),
        ("How did sales develop?", "difference"),
        ("Growth of sales?", "difference"),
        ("The movement of the year?", "difference"),
        ("Variation of sales in a year?", "difference"),
        ("The decrease in costs?", "difference"),
    ],
)
def test_sign_depends_on_question_words(question: str, way: str) -> None:
    output = {"scale": "", "expression": "1,200 - 900", "quotes": []}
    (found,) = told([DatasetRow("1", {"question": question, "table": TABLE, "paragraphs": []}, output, "one")])
    assert found.output["way"] == way


TOWNS = [
    ["Town", "People", "Opened"],
    ["Ulm", "126", "1890"],
    ["Riga", "605", "1930"],
    ["Bern", "134", ""],
    ["Oslo", "709", "1965"],
    ["Brest"],
]
TOTAL = ["Total", "1,574", ""]
ULM, RIGA, BERN, OSLO = 1, 2, 3, 4
OVER = {"column": 1, "bound": "above", "limit": "130"}


def towns(question: str, table: list[list[str]] = TOWNS, **output: Any) -> dict[str, Any]:
    """The target of a question about the towns."""
    said = {"scale": "", "expression": None, "quotes": [], **output}
    (found,) = told([DatasetRow("1", {"question": question, "table": table, "paragraphs": []}, said, "one")])
    assert found.output.keys() == set(TABLE_ANSWER_FIELDS)
    return dict(found.output)


@pytest.mark.parametrize(
    "output",
    [
        {"way": "count", "expression": "3", "rows": [RIGA, BERN, OSLO], "column": None},
        {"way": "most", "quotes": ["Oslo"], "rows": [RIGA, BERN, OSLO], "column": 1},
        {"way": "least", "quotes": ["Riga"], "rows": [RIGA, BERN, OSLO], "column": 2},
        {"way": "range", "expression": "709 - 134", "rows": [RIGA, BERN, OSLO], "column": 1},
        {"quotes": ["Riga", "Bern", "Oslo"]},
        {"expression": "605 + 134 + 709"},
        {"expression": "(605 + 709 + 134) / 3"},
    ],
)
def test_told_adds_condition_that_selects_rows(output: dict[str, Any]) -> None:
    for table in (TOWNS, [*TOWNS, TOTAL]):
        found = towns("Which have more than 130?", table, **output)
        assert (found["condition"], found["rows"]) == (OVER, [RIGA, BERN, OSLO]), "a total is none of them"


@pytest.mark.parametrize(
    ("question", "output"),
    [
        ("Which of the 130?", {"quotes": ["Riga", "Bern", "Oslo"]}),
        ("Which have less than 130?", {"quotes": ["Riga", "Bern", "Oslo"]}),
        ("Which have more than 130?", {"quotes": ["Riga", "Bern"]}),
        ("Which have more than 130?", {"quotes": ["Riga", "Oslo", "Bern"]}),
        ("Which have more than 130?", {"quotes": ["Ulm"]}),
        ("Which have more than 130?", {"expression": "605 + 134"}),
        ("Which have more than 130?", {"way": "count", "expression": "2", "rows": [RIGA, OSLO], "column": None}),
        ("Which have more than 9000?", {"way": "count", "expression": "0", "rows": [], "column": None}),
        ("Which have more than 130?", {"expression": "709 - 134"}),
        ("Which have more than 130?", {"quotes": ["Ri"]}),
        ("Which is it?", {"quotes": ["Riga"]}),
    ],
)
def test_told_no_condition_for_other_rows(question: str, output: dict[str, Any]) -> None:
    assert towns(question, **output)["condition"] is None


def test_told_no_condition_if_all_rows_match() -> None:
    table = TOWNS[:5]
    found = towns("Which have more than 100?", table, way="count", expression="4", rows=[1, 2, 3, 4], column=None)
    assert (found["condition"], found["rows"]) == (None, [1, 2, 3, 4])


@pytest.mark.parametrize(("people", "condition"), [("126", {**OVER, "limit": "500"}), ("505", None)])
def test_told_no_condition_for_two_columns(people: str, condition: dict[str, Any] | None) -> None:
    table = [["Town", "People", "Beds"], ["Ulm", "7", "9"], ["Riga", "605", people], ["Oslo", "709", "800"]]
    output: dict[str, Any] = {"way": "count", "expression": "2", "rows": [2, 3], "column": None}
    assert towns("Which have more than 500?", table, **output)["condition"] == condition


def test_told_no_condition_for_ambiguous_figures() -> None:
    output: dict[str, Any] = {"way": "count", "expression": "3", "rows": [RIGA, BERN, OSLO], "column": None}
    assert towns("Which have more than 130, and over 20?", **output)["condition"] == OVER
    assert towns("Which have more than 130, and over 131?", **output)["condition"] is None


def test_told_keeps_written_condition() -> None:
    written = {"column": 2, "bound": "from", "limit": "130"}
    output: dict[str, Any] = {
        "way": "count",
        "expression": "3",
        "rows": [RIGA, BERN, OSLO],
        "column": None,
        "condition": written,
    }
    found = towns("Which have more than 130?", **output)
    assert (found["condition"], found["rows"]) == (written, [RIGA, BERN, OSLO])


@pytest.mark.parametrize(("way", "expression"), [("gap", "709 - 605"), ("share", "605 / 709 * 100")])
def test_told_no_condition_for_two_figures(way: str, expression: str) -> None:
    found = towns("Which have more than 600, and how do they differ?", expression=expression)
    assert (found["way"], found["condition"]) == (way, None)


@pytest.mark.parametrize("table", [[], [[]], [["Town"]], [["Town", "People"], ["Ulm"]]])
def test_told_no_condition_for_empty_table(table: list[list[str]]) -> None:
    assert (
        towns("Which have more than 130?", table, way="count", expression="0", rows=[], column=None)["condition"]
        is None
    )


def source(folder: Path, count: int) -> Path:
    """A file of TAT-QA with its own tables: a difference, words, and a count for each."""
    items = []
    for number in range(count):
        table = [*TABLE, [f"Sites of {number}", "12", "11"]]
        answers: list[dict[str, Any]] = [
            {"type": "arithmetic", "answer": 300, "scale": "million", "derivation": "1,200 - 900"},
            {"type": "span", "answer": ["All are"], "scale": "", "derivation": ""},
            {"type": "count", "answer": 2, "scale": "", "derivation": "2018##2019"},
        ]
        for kind, expected in enumerate(answers):
            given = {"question": "?", "table": table, "paragraphs": ["All are open."]}
            items.append({"id": f"{number}-{kind}", "input": given, "expected": expected})
    path = folder / "train.jsonl"
    path.write_text("".join(f"{json.dumps(item)}\n" for item in items))
    return path


def test_tatqa_rows_skip_counts_and_long_texts(tmp_path: Path) -> None:
    path = source(tmp_path, 2)

    assert [row.id for row in rows_of(path)] == ["0-0", "0-1", "1-0", "1-1"]
    long = sum(len(cell) for row in TABLE for cell in row) + len("Sites of 01211") + len("All are open.")
    assert rows_of(path, long) == rows_of(path)
    assert rows_of(path, long - 1) == []


def test_table_data_set_mixes_tatqa_and_written_rows(tmp_path: Path) -> None:
    path = source(tmp_path, 60)
    whole, none = made(path, 1, 1.0), made(path, 1, 0.0)
    rows = {part: whole.rows[part] for part in whole.rows}

    assert all(
        row.output["way"] in OPERATIONS and row.output.keys() == set(TABLE_ANSWER_FIELDS)
        for part in rows.values()
        for row in part
    )
    ids = [row.id for row in rows["train"]]
    ours = {row.id for row in written("tables")[0]}
    theirs, by_rule = [one for one in ids if one[0].isdigit()], [one for one in ids if one.startswith("asked-")]
    tune = [row.id for row in rows["tune"] if row.id[0].isdigit()]
    assert len(theirs) + len(tune) == 120
    assert len(by_rule) == len(theirs) / 2
    assert [one.output["way"] for part in rows.values() for one in part if one.id == "7-0" or one.id == "7-1"] == [
        "gap",
        "text",
    ]
    kept = {row.id for row in none.rows["train"]}
    assert kept == {one for one in ids if one.startswith("written-")}
    assert 0.98 * len(ours) < sum(row.id in ours for part in rows.values() for row in part) <= len(ours)
    compared = [row for row in rows["train"] if row.output["way"] in ("most", "least", "count")]
    assert len(compared) > 100
    assert all(row.output["rows"] for row in compared if row.output["way"] != "count")
    assert all((row.output["column"] is None) == (row.output["way"] == "count") for row in compared)
    assert (whole.manifest.name, whole.manifest.licence) == ("tables", "MIT and Apache-2.0")
    assert [origin.rows for origin in whole.manifest.sources][:2] == [120, len(by_rule)]
    assert whole.manifest.sources[0].description == "derivations as expressions, and quotes; 100% of them"
