"""The comparison of the own code for numbers with libraries counts correctly, and needs no library."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

from bench import number_libraries
from bench.number_libraries import (
    LIBRARIES,
    NO_RESULT,
    UNKNOWN,
    Case,
    Comparison,
    compare,
    comparisons,
    parameters_of,
    row,
)


def doubled(text: str) -> object:
    return 2 * int(text)


def compared(cases: dict[str, object], ours: Callable[[str], object]) -> Comparison:
    rows = [Case(text, correct) for text, correct in cases.items()]
    return Comparison("mine", "theirs", "numbers", rows, ours, lambda: doubled)


def test_compare_counts_wrong_results_of_each_side() -> None:
    mine: dict[str, object] = {"1": 2, "2": 5, "3": 6, "4": 0, "5": 11, "x": 1}
    outcome = compare(compared({"1": 2, "2": 4, "3": 7, "4": 9, "5": 11, "x": 1}, mine.__getitem__))
    assert (outcome.same, outcome.library_wrong, outcome.ours_wrong, outcome.both_wrong) == (2, 2, 1, 2)
    assert outcome.differing == (("2", 5, 4), ("4", 0, 8), ("5", 11, 10), ("x", 1, NO_RESULT))


def test_compare_without_correct_result_counts_agreement_only() -> None:
    comparison = compared({"1": UNKNOWN, "2": UNKNOWN}, lambda text: 2)
    outcome = compare(comparison)
    assert (outcome.same, outcome.library_wrong, outcome.ours_wrong, outcome.both_wrong) == (1, 0, 0, 0)
    assert row(comparison, outcome).startswith("| `mine` | theirs | numbers | 2 | 1 | - | - | - |")


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("2", 2)])
def test_parameters_of_test_are_its_table(text: str, value: int) -> None:
    assert (text, value) in parameters_of(test_parameters_of_test_are_its_table)


def test_comparisons_own_code_is_correct_where_known() -> None:
    wrong = [
        (comparison.function, case.text)
        for comparison in comparisons(None, seed=1)
        for case in comparison.cases[:200]
        if case.correct is not UNKNOWN and comparison.ours(case.text) != case.correct
    ]
    assert wrong == []


def test_command_reports_missing_libraries(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(number_libraries, "find_spec", lambda name: None)
    monkeypatch.setattr(sys, "argv", ["number_libraries"])
    number_libraries.main()
    lines = capsys.readouterr().out.splitlines()
    assert lines[: len(LIBRARIES)] == [f"{library} is not installed, and is left out" for library in LIBRARIES]
