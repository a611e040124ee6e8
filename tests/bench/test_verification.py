"""The tables of verification: met and missed goals, and their place on a page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from bench.answer_sheets import SETS
from bench.verification import certified, merged, write
from bench.verification_tables import ALONE, NODE, RANKINGS, Measured, accepted_and_wrong, areas, certificates

READING = next(one for one in SETS if one.kind == "reading")
RIGHT = [True] * 60 + [False] * 40


def measured(best: Sequence[float | None], times: int = 1) -> Measured:
    """A hundred answers or more, sixty correct, ranked so by all checks and at random by log-probability."""
    alone: list[float | None] = [0.5] * 100
    ids = [f"{number:03}" for number in range(100 * times)]
    scores = {name: [*(alone if name == ALONE else best)] * times for name in RANKINGS}
    return Measured(READING, ids, ids, frozenset(ids), RIGHT * times, scores, {}, {})


def test_goal_met_by_perfect_missed_by_random_ranking() -> None:
    knowing, blind = measured([0.9] * 60 + [0.1] * 40), measured([0.5] * 100)
    assert knowing.fewer(knowing.scores[NODE]).value == pytest.approx(1.0)
    assert blind.fewer(blind.scores[NODE]).value == pytest.approx(0.0)
    assert knowing.better().value > 0.5 > blind.better().value
    assert ["met" in accepted_and_wrong([one]) for one in (knowing, blind)] == [True, False]
    assert ["25%: missed" in areas([one]) for one in (knowing, blind)] == [False, True]


def test_table_shows_maximal_coverage() -> None:
    assert "accepts 30%" in accepted_and_wrong([measured([0.9] * 30 + [None] * 70)])


def test_table_reports_too_little_data() -> None:
    told = certificates({"reader": certified(measured([0.9] * 60 + [0.1] * 40, times=3))})
    assert "| 0 (0) of 200; 0.0% |" in told
    assert told.count("covers") == 2, "ninety sure answers of 150 carry 10 % and 5 %"
    assert told.count("too little data") == 1, "but not 2 %, which takes 149"


def test_merged_replaces_lines_of_sets() -> None:
    old = "| set | n |\n|---|---|\n| a | 1 |\n| b | 2 |\n| b | 3 |\n| c | 4 |"
    new = "| set | n |\n|---|---|\n| b | 5 |\n| d | 6 |"
    assert merged(old, new) == "| set | n |\n|---|---|\n| a | 1 |\n| b | 5 |\n| c | 4 |\n| d | 6 |"
    with pytest.raises(SystemExit, match="other columns"):
        merged(old, new.replace("| n |", "| m |"))


def test_write_replaces_between_markers_only(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("one\n<!-- bench.verification: a -->\nold\n<!-- /bench.verification: a -->\ntwo\n")
    write(page, "a", "new")
    write(page, "a", "newer")
    assert page.read_text() == "one\n<!-- bench.verification: a -->\nnewer\n<!-- /bench.verification: a -->\ntwo\n"
    with pytest.raises(SystemExit, match="no place for b"):
        write(page, "b", "new")
