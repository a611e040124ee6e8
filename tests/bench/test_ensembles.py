"""The value of an ensemble, from its members' recorded answers."""

from __future__ import annotations

import pytest

from bench.ensembles import ENOUGH, LAST, line, oracle, until, ways
from orchestra.agents.ensemble_voting import EnsembleAnswer
from orchestra.learn.evaluation.metrics import MetricConfig, build_metric
from orchestra.learn.evaluation.rows import EvaluationRow
from orchestra.learn.evaluation.rows import EvaluationSet as Rows

ROWS = [
    [EnsembleAnswer({"answer": "one"}, 0.97), EnsembleAnswer({"answer": "two"}, 0.98)],
    [EnsembleAnswer({"answer": "one"}, 0.6), EnsembleAnswer({"answer": "one"}, 0.8)],
    [EnsembleAnswer({"answer": None}, 0.55), EnsembleAnswer({"answer": "two"}, 0.5)],
    [EnsembleAnswer({"answer": "c"}, 0.3), EnsembleAnswer({"answer": "d"}, 0.2)],
]
WANTED = [["two"], ["one"], [], ["e"]]
TEST = Rows(
    "rows",
    "",
    [EvaluationRow(str(at), {}, {"answers": [{"text": text} for text in texts]}) for at, texts in enumerate(WANTED)],
)
EM = build_metric("EM", MetricConfig(of="exact", field="answer", expected="answers"))


def test_until_stops_at_enough_confidence() -> None:
    assert [len(until(row, 0.95)) for row in ROWS] == [1, 2, 2, 2]
    assert [len(until(row, 0.5)) for row in ROWS] == [1, 1, 1, 2]


def test_ensemble_table_has_members_and_pools() -> None:
    lines = [line(way, TEST, EM) for way in ways(("first", "second"), ROWS)]
    cells = {row.split(" | ")[0].removeprefix("| "): row.strip("| ").split(" | ")[1:] for row in lines}
    assert list(cells) == [
        "first",
        "second",
        *(f"pooled, the last counts {last:g}" for last in LAST),
        *(f"pooled, enough: {enough:g}" for enough in ENOUGH),
    ]
    assert cells["first"][0] == "0.500"
    assert cells["second"][0] == "0.500"
    assert cells["pooled, the last counts 1"][0] == "0.750"  # the more confident answer of the first row is correct
    assert cells["pooled, enough: 0.95"][0] == "0.500"  # and is not requested here
    assert [
        cells[name][3] for name in ("first", "pooled, the last counts 1", "pooled, enough: 0.95", "pooled, enough: 0.5")
    ] == [
        "1.00",
        "2.00",
        "1.75",
        "1.25",
    ]


def test_oracle_bounds_pool_accuracy() -> None:
    assert oracle(ROWS, TEST, EM) == pytest.approx(0.75)
