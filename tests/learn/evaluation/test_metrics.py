"""Metrics: hand-computed cases; intervals and paired differences: statistical properties."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestra.learn.evaluation.bootstrap import estimate_interval, paired_difference
from orchestra.learn.evaluation.metrics import Case, MetricConfig, MetricKind, build_metric
from orchestra.verification.certificates.certify import confidence_interval


def of(kind: MetricKind, cases: Sequence[tuple[Any, Any]], **more: Any) -> float:
    """A metric over pairs of expected and given values, both under the name `x`; None for no output."""
    made = [Case({"x": wanted}, None if output is None else {"x": output}) for wanted, output in cases]
    return build_metric("m", MetricConfig(of=kind, field="x", **more)).compute(made)


@pytest.mark.parametrize(
    ("kind", "cases", "value"),
    [
        ("accuracy", [("a", "a"), ("a", "b"), (1, 1), (1, True), ("a", None)], 2 / 5),
        (
            "exact",
            [(["The Amber Line"], "amber line!"), (["x", "y"], "y"), ([], None), ([], "z"), (["x"], None)],
            3 / 5,
        ),
        ("exact", [([{"text": "Mara Lindt", "start": 3}], "mara lindt"), (None, None)], 1.0),
        (
            "exact",
            [
                ("A", "A"),
                ("The", "the."),
                ("+", " + "),
                ("日本。", "日本。"),
                ("A", "B"),
                ("+", "-"),
                ("a", "the"),
                ("A", ""),
            ],
            4 / 8,
        ),
        (
            "exact",
            [([1, 2], [1, 2]), ([1, 2], [2, 1]), (3.5, 3.5), (3.5, 35), ({"city": "Rome"}, {"city": "Rome"})],
            3 / 5,
        ),
        (
            "exact",
            [
                ({"city": "Rome"}, {"city": "Bonn"}),
                ({"city": "Rome"}, "Rome"),
                (["x", "y"], ["x", "y"]),
                (1889, "1889"),
            ],
            2 / 4,
        ),
        (
            "text",
            [("4.50", "-450"), ("3.5", "35"), ("-5", "5"), ("$5", "5"), ("10%", "10"), ("10²", "102"), ("the x", "x")],
            0.0,
        ),
        (
            "text",
            [("Ünï  x", "u\u0308ni\u0308 X "), (["x", "y"], "Y"), ([], None), (["x", "y"], ["x", "y"]), (5, "5")],
            1.0,
        ),
        ("token_f1", [(["one two three"], "two three four"), (["a b"], None)], (2 * 2 / 6) / 2),
        (
            "token_f1",
            [("A", "A"), ("+", "+"), ("+", "-"), ([1, 2], [1, 2]), ({"city": "Rome"}, {"city": "Rome"})],
            4 / 5,
        ),
        ("silence", [([], None), ([], "x"), (["y"], None)], 1 / 2),
        ("silence", [([], "A"), ([], "."), ([], " "), ([], [])], 2 / 4),
        ("wrong", [([], "x"), (["y"], "y"), (["y"], None), (["y"], "z")], 2 / 4),
        ("wrong", [([], "A"), (["B"], "A"), (["A"], "A"), (["-"], "%"), (["A"], "")], 3 / 5),
        ("balanced_accuracy", [("a", "a"), ("a", "a"), ("a", "a"), ("b", "a")], 1 / 2),
        ("macro_f1", [("a", "a"), ("a", "b"), ("b", "b")], (2 / 3 + 2 / 3) / 2),
        ("macro_f1", [("a", "a"), ("a", "a"), ("a", None), ("b", "b")], (4 / 5 + 1) / 2),
        ("macro_f1", [(None, None), ("a", "a"), ("a", None)], (2 / 3 + 2 / 3) / 2),
        ("macro_f1", [({"a": 1, "b": 2}, {"b": 2, "a": 1}), ({"a": 2}, {"a": 1})], 1 / 3),
        ("balanced_accuracy", [([1], [1]), ([1], [2]), ([2], [2])], 3 / 4),
        ("auroc", [("yes", 0.9), ("no", 0.1), ("yes", 0.4), ("no", 0.4)], 3.5 / 4),
        ("number", [("1,200", 1200), (3, 3.1), (2.5, "2.5"), (1, None)], 2 / 4),
        ("number", [(1_000_000, 1_000_001), (1000, "1_000"), (1000, "1e3"), (72, "72%"), (1, True)], 0.0),
        ("number", [(72, "$72"), (0.72, "72%"), (-3.1, "(3.1)"), ("1,452.40", "€1452.4"), (5, " 5 ")], 1.0),
        ("number", [("inf", 5), (5, "nan"), (10**400, 5), (5, 10**400), (5, 5)], 1 / 5),
        ("scaled", [(5, 10**400), (5, 5)], 1 / 2),
        ("auroc", [("yes", 0.9), ("no", 10**400)], 1.0),
        ("span_f1", [({"t": {"start": [0], "end": 2}}, {})], 0.0),
        ("calls", [([{"f": {"x": [1]}}], [{"name": "f", "arguments": {"x": 10**400}}])], 0.0),
        (
            "span_f1",
            [({"t": {"start": 0, "end": 2}}, {"t": {"start": 0, "end": 2}, "d": {"start": 3, "end": 4}}), ({}, {})],
            2 / 3,
        ),
        (
            "joint",
            [
                ({"t": {"start": 0, "end": 2}}, {"t": {"start": 0, "end": 2}}),
                ({}, {}),
                ({}, {"t": {"start": 0, "end": 1}}),
            ],
            2 / 3,
        ),
    ],
)
def test_metric_values_by_hand(kind: MetricKind, cases: Sequence[tuple[Any, Any]], value: float) -> None:
    more = {"positive": "yes"} if kind == "auroc" else {}
    assert of(kind, cases, **more) == pytest.approx(value)


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [
        ("accuracy", None),
        ("exact", []),
        ("token_f1", []),
        ("silence", []),
        ("joint", {}),
        ("balanced_accuracy", None),
        ("macro_f1", None),
    ],
)
def test_metrics_withheld_may_be_correct_failed_never(kind: MetricKind, wanted: Any) -> None:
    one = build_metric("m", MetricConfig(of=kind, field="x"))
    assert (one.compute([Case({"x": wanted}, None)]), one.compute([Case({"x": wanted}, None, failed=True)])) == (
        1.0,
        0.0,
    )


@pytest.mark.parametrize(("kind", "value"), [("wrong", 0.0), ("macro_f1", (2 / 3 + 1) / 2)])
def test_metrics_failed_case_is_no_label(kind: MetricKind, value: float) -> None:
    made = [Case({"x": "a"}, {"x": "a"}), Case({"x": "b"}, {"x": "b"}), Case({"x": "a"}, None, failed=True)]
    assert build_metric("m", MetricConfig(of=kind, field="x")).compute(made) == pytest.approx(value)


def test_metric_without_leaves_out_expected_values() -> None:
    assert of("accuracy", [("a", "a"), ("generic", "b")], without=("generic",)) == 1.0


@pytest.mark.parametrize("kind", ["accuracy", "balanced_accuracy", "macro_f1", "auroc", "silence", "span_f1"])
def test_metric_without_cases_is_nan(kind: MetricKind) -> None:
    assert math.isnan(of(kind, []))


answers = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("ab")), min_size=1, max_size=40)
ACCURACY = build_metric("accuracy", MetricConfig(of="accuracy", field="x"))


def cases(pairs: Sequence[tuple[str, str]]) -> list[Case]:
    return [Case({"x": wanted}, {"x": output}) for wanted, output in pairs]


@given(answers)
def test_estimate_interval_contains_value_deterministic(pairs: list[tuple[str, str]]) -> None:
    found = estimate_interval(ACCURACY, cases(pairs), seed=3, resamples=100)
    assert 0 <= found.low <= found.high <= 1
    assert found == estimate_interval(ACCURACY, cases(pairs), seed=3, resamples=100)


@given(answers)
def test_paired_difference_with_itself_is_zero(pairs: list[tuple[str, str]]) -> None:
    found = paired_difference(ACCURACY, cases(pairs), cases(pairs), resamples=50)
    assert (found.value, found.p_value) == (0.0, 1.0)
    assert found.low == -found.high < 0  # agreement of all cases does not imply that the next one agrees


@given(answers)
def test_paired_difference_is_antisymmetric(pairs: list[tuple[str, str]]) -> None:
    right = cases([(wanted, wanted) for wanted, _ in pairs])
    there, back = (
        paired_difference(ACCURACY, cases(pairs), right, resamples=50),
        paired_difference(ACCURACY, right, cases(pairs), resamples=50),
    )
    assert there.value == -back.value >= 0


def test_estimate_interval_matches_normal_approximation() -> None:
    """300 of 400 answers are correct: a standard error of 0.0217, so 95 % reach from about 0.708 to 0.793."""
    found = estimate_interval(ACCURACY, cases([("a", "a")] * 300 + [("a", "b")] * 100))
    assert found.low == pytest.approx(0.708, abs=0.01)
    assert found.high == pytest.approx(0.793, abs=0.01)


@pytest.mark.parametrize(("right", "rows"), [(89, 89), (0, 20), (88, 89), (1, 200)])
def test_estimate_interval_near_0_or_1_is_exact(right: int, rows: int) -> None:
    found = estimate_interval(ACCURACY, cases([("a", "a")] * right + [("a", "b")] * (rows - right)))
    assert (found.low, found.high) == pytest.approx(confidence_interval(right, rows))
    assert found.low < found.high


def test_estimate_interval_89_of_89() -> None:
    assert str(estimate_interval(ACCURACY, cases([("a", "a")] * 89))) == "1.000 [0.959, 1.000]"


def families(chances: random.Random, count: int, size: int) -> list[Case]:
    """Cases of one group have the same answer."""
    told = [(str(at), chances.random() < 0.6) for at in range(count)]
    return [Case({"x": "a"}, {"x": "a" if right else "b"}, group=name) for name, right in told for _ in range(size)]


def test_estimate_interval_groups_has_nominal_coverage() -> None:
    chances, held, apart = random.Random(1), 0, 0
    for _ in range(200):
        found = families(chances, 40, 6)
        held += (of := estimate_interval(ACCURACY, found, resamples=200)).low <= 0.6 <= of.high
        apart += (
            (of := estimate_interval(ACCURACY, [replace(case, group="") for case in found], resamples=200)).low
            <= 0.6
            <= of.high
        )
    assert held >= 180
    assert apart <= 140  # treated as independent


def test_estimate_interval_agreeing_groups_count_once() -> None:
    found = estimate_interval(
        ACCURACY, [Case({"x": "a"}, {"x": "a"}, group=str(at)) for at in range(40) for _ in range(6)]
    )
    assert (found.low, found.high) == pytest.approx(confidence_interval(40, 40))


def test_paired_difference_exchanges_groups_together() -> None:
    """Three groups of ten are better: one of eight exchanges of groups is as good; of thirty cases it would be one in a
    billion.
    """
    old, new = ([Case({"x": "a"}, {"x": said}, group=str(at)) for at in range(3) for _ in range(10)] for said in "ba")
    assert paired_difference(ACCURACY, old, new).p_value == pytest.approx(1 / 8, abs=0.04)
    apart = [[replace(case, group="") for case in arm] for arm in (old, new)]
    assert paired_difference(ACCURACY, *apart).p_value == pytest.approx(0.5**30)


def test_paired_difference_lower_is_better() -> None:
    wrong = build_metric("wrong", MetricConfig(of="wrong", field="x"))
    bad: Mapping[str, Any] = {"x": "b"}
    old, new = [Case({"x": "a"}, bad)] * 20, [Case({"x": "a"}, None)] * 20
    found = paired_difference(wrong, old, new)
    assert found.value == 1.0
    assert found.p_value < 0.01


def test_paired_difference_undefined_metric_is_no_gain() -> None:
    """An AUROC of one label; F1 of spans if neither arm, or only the new one, has any."""
    ranked = build_metric("r", MetricConfig(of="auroc", field="x", positive="yes"))
    old, new = ([Case({"x": "no"}, {"x": sure})] * 20 for sure in (0.1, 0.9))
    spans = build_metric("s", MetricConfig(of="span_f1", field="x"))
    none, some = ([Case({"x": {}}, {"x": found})] * 20 for found in ({}, {"t": {"start": 0, "end": 1}}))
    for found in (paired_difference(ranked, old, new), paired_difference(spans, none, some)):
        assert math.isnan(found.value)
        assert found.p_value == 1.0


def test_paired_difference_few_cases_not_significant() -> None:
    """Three of three are better: if both arms are equally good, that happens in one of eight exchanges."""
    found = paired_difference(ACCURACY, cases([("a", "b")] * 3), cases([("a", "a")] * 3))
    assert found.value == 1.0
    assert found.p_value == pytest.approx(1 / 8, abs=0.04)
