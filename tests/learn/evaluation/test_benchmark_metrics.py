"""Function calls compared with possible answers: hand-computed cases of BFCL's AST check."""

from __future__ import annotations

import random
from typing import Any

import pytest

from orchestra.learn.evaluation.benchmark_metrics import call_matches, calls_match
from orchestra.learn.evaluation.metrics import Case, MetricConfig, build_metric

ANSWER = {"f": {"city": ["San Francisco", "SF"], "n": [3], "unit": ["", "c"]}}


@pytest.mark.parametrize(
    ("arguments", "right"),
    [
        ({"city": "san francisco", "n": 3.0}, True),
        ({"city": "S.F.", "n": 3, "unit": "C"}, True),
        ({"city": "sf"}, False),
        ({"city": "sf", "n": 4}, False),
        ({"city": "sf", "n": "3"}, False),
        ({"city": "sf", "n": 3, "unit": "f"}, False),
        ({"city": "sf", "n": 3, "extra": 1}, False),
        (None, False),
        ([], False),
    ],
)
def test_call_matches_accepted_values_only(arguments: Any, right: bool) -> None:
    assert call_matches(ANSWER, {"name": "f", "arguments": arguments}) is right
    assert not call_matches(ANSWER, {"name": "g", "arguments": arguments})


@pytest.mark.parametrize(
    ("accepted", "given", "right"),
    [
        ([True], True, True),
        ([True], 1, False),
        ([1], True, False),
        ([None], None, True),
        ([["a", "b"]], ["A", "b"], True),
        ([["a", "b"]], ["b", "a"], False),
        ([["a", "b"]], ["a"], False),
        ([["a"], ["b"]], ["b"], True),
        ([{"k": ["", "v"], "m": [1]}], {"m": 1}, True),
        ([{"k": ["", "v"], "m": [1]}], {"k": "v"}, False),
        ([{"k": ["", "v"], "m": [1]}], {"m": 1, "z": 2}, False),
        ([[{"name": ["Ann"]}, {"name": ["Bo"]}]], [{"name": "ann"}, {"name": "bo"}], True),
        (["it's"], 'it"s', True),
        ([0.1], 0.1 + 1e-12, True),
        ([5], "5", False),
    ],
)
def test_call_matches_equal_values(accepted: Any, given: Any, right: bool) -> None:
    assert call_matches({"f": {"x": accepted}}, {"name": "f", "arguments": {"x": given}}) is right


def test_calls_match_one_to_one_in_any_order() -> None:
    two = [{"f": {"x": [1, 2]}}, {"f": {"x": [1]}}]
    one, other = ({"name": "f", "arguments": {"x": value}} for value in (1, 2))
    assert calls_match(two, [one, other])
    assert calls_match(two, [other, one])
    assert not calls_match(two, [other, other])
    assert not calls_match(two, [one])
    assert not calls_match(two, [one, other, other])


def test_calls_match_finds_augmenting_path() -> None:
    wanted = [{"f": {"x": list(range(at, at + 2))}} for at in range(20)]
    given = [{"name": "f", "arguments": {"x": value}} for value in range(1, 21)]
    random.Random(1).shuffle(given)
    assert calls_match(wanted, given)
    assert not calls_match(wanted, [*given[1:], {"name": "f", "arguments": {"x": 40}}])


@pytest.mark.parametrize("given", [None, "f()", {"name": "f"}, ["f"], [{"name": "f", "arguments": "x"}], [{}], [None]])
def test_calls_match_non_list_is_wrong(given: Any) -> None:
    assert not calls_match([{"f": {"x": [1]}}], given)


def test_calls_metric_by_category_withheld_is_wrong() -> None:
    cases = [
        Case({"calls": [], "category": "none"}, {"calls": []}),
        Case({"calls": [], "category": "none"}, None),
        Case({"calls": [ANSWER]}, {"calls": []}),
    ]
    assert build_metric("all", MetricConfig(of="calls", field="calls")).compute(cases) == pytest.approx(1 / 3)
    assert build_metric("none", MetricConfig(of="calls", field="calls", where={"category": "none"})).compute(
        cases
    ) == pytest.approx(1 / 2)
    assert build_metric("wrong", MetricConfig(of="wrong", field="calls", by="calls")).compute(cases) == pytest.approx(
        0.0
    )
