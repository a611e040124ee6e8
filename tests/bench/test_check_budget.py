"""The baseline rules of `bench.check_budget`."""

from __future__ import annotations

import pytest

from bench import check_budget
from bench.check_budget import Row, Shape, first, table, uniform, worth

ROWS = [Row(doubt=0.1 * (at % 10), right=at % 3 > 0, passes=at % 2 > 0, tokens=100) for at in range(40)]
EARLY = [0.5, *[0.1] * 5]


def test_uniform_rule_ignores_arrival_order() -> None:
    rule = uniform(0)
    chosen = [rule(ROWS[:6], EARLY, 330) for _ in range(600)]
    assert {sum(one) for one in chosen} == {3}  # same budget, fully spent
    assert sum(first(ROWS[:6], EARLY, 330)) == 3
    asked = [sum(one[at] for one in chosen) / len(chosen) for at in range(6)]
    assert asked == pytest.approx([0.5] * 6, abs=0.08)
    assert [uniform(1)(ROWS, [1 / 40] * 40, 900) for _ in range(2)] == [uniform(1)(ROWS, [1 / 40] * 40, 900)] * 2


def test_worth_rule_uses_influence() -> None:
    alike = [Row(doubt=0.5, right=True, passes=True, tokens=100)] * 6
    assert worth(alike, [*[0.1] * 5, 0.5], 130)[-1]
    assert not all(uniform(seed)(alike, [*[0.1] * 5, 0.5], 130)[-1] for seed in range(10))


def test_check_budget_table_has_all_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_budget, "RESAMPLES", 5)
    said, _, head, line, *found = table("a set", ROWS, Shape("a list of 4 values", (0.25,) * 4))
    assert said.startswith("a set, a list of 4 values; 40 rows")
    assert head.count("uniform") == 4
    assert {one.count("|") for one in (head, line, *found)} == {14}
