"""Data for tables: derivations become expressions with the right value, and questions by rule have the right answers."""

from __future__ import annotations

import re

import pytest

from bench.table_data import asked, expression_of
from orchestra.learn.dataset import Row
from orchestra.values.arithmetic import evaluate

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
def test_a_derivation_becomes_an_expression_whose_value_is_the_answer(
    derivation: str, answer: float, scale: str, expression: str | None
) -> None:
    assert expression_of(derivation, answer, scale) == expression
    if expression is not None:
        assert float(evaluate(expression)) == pytest.approx(answer, abs=0.01)


def test_questions_by_rule_are_answered_from_the_right_cells() -> None:
    output = {"expression": None, "quotes": ["900"], "scale": "million"}
    row = Row("1", {"question": "?", "table": TABLE, "paragraphs": []}, output, "one")
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
