"""`evaluation.yaml`: one or several evaluations, selected rows, goals and published baselines; and answers with a
scale.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from orchestra.core.errors import InputError
from orchestra.learn.evaluation.config import FILE, RowSelection, find_evaluation, read_evaluations
from orchestra.learn.evaluation.metrics import Case, MetricConfig, build_metric
from orchestra.learn.evaluation.rows import read_selected_rows

ONE = "metrics: {EM: {of: exact, field: answer}}\n"
SEVERAL = """\
schema: orchestra/evaluation/v1
evaluations:
  begin:
    data: the first set
    rows: {file: begin/dev.jsonl, train: begin/train.jsonl, sample: 2, seed: 7}
    metrics: {right: {of: accuracy, field: label}, accepted and wrong: {of: wrong, field: label, by: accuracy}}
    goals: {right: 0.8, accepted and wrong: 0.1}
    floors: {overlap: {right: 0.7}}
  other:
    metrics: {macro F1: {of: macro_f1, field: label}}
"""


def written(folder: Path, text: str) -> Path:
    path = folder / FILE
    path.write_text(text, "utf-8")
    return path


def test_evaluation_single_is_named_after_set(tmp_path: Path) -> None:
    assert list(read_evaluations(written(tmp_path, ONE))) == ["rows"]
    assert list(read_evaluations(written(tmp_path, f"rows: {{file: svamp/dev.jsonl}}\n{ONE}"))) == ["svamp"]


def test_evaluations_named_first_is_default(tmp_path: Path) -> None:
    path = written(tmp_path, SEVERAL)
    assert list(read_evaluations(path)) == ["begin", "other"]
    name, first = find_evaluation(path)
    assert (name, first.rows and first.rows.sample, first.data) == ("begin", 2, "the first set")
    assert find_evaluation(path, "other")[1].rows is None
    with pytest.raises(InputError, match="no evaluation 'othr'") as caught:
        find_evaluation(path, "othr")
    assert (caught.value.code, caught.value.hint) == ("N204", "did you mean 'other'?")


def test_meets_goal_minimum_or_maximum(tmp_path: Path) -> None:
    first = find_evaluation(written(tmp_path, SEVERAL))[1]
    assert (first.meets_goal("right", 0.8), first.meets_goal("right", 0.79)) == (True, False)
    assert (first.meets_goal("accepted and wrong", 0.1), first.meets_goal("accepted and wrong", 0.11)) == (True, False)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"{ONE}goals: {{ME: 0.5}}\n", "'ME' is not a metric of this evaluation"),
        (f"{ONE}floors: {{rule: {{F1: 0.5}}}}\n", "'F1' is not a metric"),
        (f"{ONE}rows: {{file: ../secret.jsonl}}\n", "is outside of the data folder"),
        (f"{ONE}rows: {{file: /etc/passwd}}\n", "is outside of the data folder"),
        (f"{ONE}rows: {{file: a.jsonl, sample: -1}}\n", "rows.sample"),
        (f"{ONE}evaluations: {{a: {{{ONE.strip()}}}}}\n", "metrics: Extra inputs"),
        ("evaluations: {}\n", "evaluations"),
        ("evaluations: {Begin: {metrics: {EM: {of: exact}}}}\n", "evaluations.Begin"),
        ("evaluations: {begin: {metrics: {}}}\n", "evaluations.begin.metrics"),
        ("- 1\n", "valid dictionary"),
    ],
)
def test_read_evaluations_invalid_file_has_location(tmp_path: Path, text: str, said: str) -> None:
    with pytest.raises(InputError, match=said.replace("?", r"\?")) as caught:
        read_evaluations(written(tmp_path, text))
    assert caught.value.code == "N201"
    assert caught.value.location is not None


def test_read_selected_rows_under_data_folder(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    row = {"id": "1", "input": {"text": "a", "of no interest": 1}, "expected": {"label": "b"}}
    (tmp_path / "set" / "dev.jsonl").write_text(json.dumps(row) + "\n", "utf-8")
    test = read_selected_rows(
        tmp_path, RowSelection(file="set/dev.jsonl", train="set/dev.jsonl", inputs={"claim": "text"})
    )
    assert (test.name, test.rows[0].input, test.reference_rows[0].input) == (
        "set/dev.jsonl",
        {"claim": "a"},
        {"claim": "a"},
    )
    assert len(read_selected_rows(tmp_path, RowSelection(file="set/dev.jsonl", where={"label": ["b", "c"]})).rows) == 1
    with pytest.raises(InputError, match="has no row where"):
        read_selected_rows(tmp_path, RowSelection(file="set/dev.jsonl", where={"label": "c"}))
    with pytest.raises(InputError, match="cannot be read"):
        read_selected_rows(tmp_path, RowSelection(file="set/other.jsonl"))


def part(measure: MetricConfig, expected: dict[str, Any], output: dict[str, Any] | None) -> Any:
    return build_metric("it", measure).case_score(Case(expected, output))


@pytest.mark.parametrize(
    ("wanted", "scale", "given", "given_scale", "right"),
    [
        (-12.6, "million", "-12.6", "million", True),
        (-12.6, "million", "-12.6", "", False),
        (1.5, "million", 1500, "thousand", True),
        (17.7, "percent", "17.7%", "", True),
        (17.7, "percent", 0.177, "", True),
        (17.7, "percent", 17.7, "", False),
        (["2019", "2018"], "", ["2018", "2019"], "", True),
        (["2019", "2018"], "", ["2018"], "", False),
        (["the Modified method"], "", ["modified method"], "", True),
        (["$1,452.4"], "", "1452.40", "", True),
        ("(3.1)", "", -3.1, "", True),
        (["x"], "", None, "", False),
        (0, "", 0, "", True),
        ("A", "", "The", "", False),
        ("+", "", "+", "", True),
    ],
)
def test_scaled_metric_follows_tatqa(wanted: Any, scale: str, given: Any, given_scale: str, right: bool) -> None:
    measure = MetricConfig(of="scaled", field="answer")
    assert part(measure, {"answer": wanted, "scale": scale}, {"answer": given, "scale": given_scale}) == (
        float(right),
        1.0,
    )


@pytest.mark.parametrize(("given", "wrong"), [(4, 0.0), (5, 1.0), (None, 0.0), (0, 1.0)])
def test_wrong_metric_uses_named_criterion(given: Any, wrong: float) -> None:
    assert part(MetricConfig(of="wrong", field="answer", by="number"), {"answer": 4}, {"answer": given}) == (wrong, 1.0)


def test_metric_where_filters_rows() -> None:
    only = MetricConfig(of="accuracy", field="label", where={"type": ["a", "b"]})
    but = MetricConfig(of="accuracy", field="label", where_not={"type": "a"})
    found = [
        [part(one, {"label": "x", "type": kind}, {"label": "x"}) is not None for kind in "abc"] for one in (only, but)
    ]
    assert found == [[True, True, False], [False, True, True]]


def test_metric_means_maps_values() -> None:
    measure = MetricConfig(of="accuracy", field="label", means={"not stated": "unsupported"})
    assert part(measure, {"label": "unsupported"}, {"label": "not stated"}) == (1.0, 1.0)
    assert part(measure, {"label": "supported"}, {"label": "supported"}) == (1.0, 1.0)
