"""Conditions in a training of readers of tables: which one should be found for a row, with which rows and columns, and what is lost."""

from __future__ import annotations

from typing import Any

import pytest

torch = pytest.importorskip("torch")
np = pytest.importorskip("numpy")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.filters import WORD_BONUS, condition_choices  # noqa: E402
from orchestra.agents.inference.tables.head import TableLogits  # noqa: E402
from orchestra.agents.inference.tables.operations import OPERATIONS, PAIR_OPERATIONS, SCALES  # noqa: E402
from orchestra.learn.encoders.table_targets import ConditionTarget, TableTarget, answers_match, build_target  # noqa: E402
from orchestra.learn.encoders.tables import TableExample, loss  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from orchestra.text.numbers.sort_keys import ABOVE, BELOW, BOUNDS, FROM, UP_TO  # noqa: E402
from tests.agents.tables import WORDS, told  # noqa: E402

TABLE = [
    ["name", "age", "books", "rooms"],
    ["ada", "36", "12", "2"],
    ["grace", "85", "(7)"],
    ["alan", "40", "12", "3"],
    ["donald", "", "9", "3"],
]
ADA, GRACE, ALAN, DONALD = 1, 2, 3, 4
NAME, AGE, BOOKS, ROOMS = 0, 1, 2, 3
OLDER = "who of the 2 is older than 36 ?"
HOLDS = (False, False, True, True, False)
"""Which rows are above 36."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS))


def sheet_of(encoder: Encoder, question: str = OLDER, table: Any = TABLE) -> TableEncoding:
    return TableEncoding(encoder, question, table, ["ada has 7 ."], 64)


def condition(bound: str = ABOVE, limit: str = "36", column: int = AGE) -> dict[str, Any]:
    return {"column": column, "bound": bound, "limit": limit}


def choice(sheet: TableEncoding, bound: str = ABOVE, limit: str = "36") -> int:
    """The number of a choice by its bound and the text of its figure."""
    [found] = [
        at for at, (spot, number) in enumerate(condition_choices(sheet)) if (BOUNDS[number], sheet.locations[spot].text) == (bound, limit)
    ]
    return found


def place(sheet: TableEncoding, limit: str) -> int:
    """The first place of a figure of the question."""
    return next(at for at, one in enumerate(sheet.locations) if one.question_figure is not None and one.text == limit)


def wanted(sheet: TableEncoding, way: str, **more: Any) -> TableTarget:
    """What should be found where the rows above 36 are those of the answer."""
    found = {
        "rows": frozenset({GRACE, ALAN}),
        "condition": ConditionTarget(AGE, frozenset({choice(sheet)}), place(sheet, "36"), HOLDS),
        **more,
    }
    return TableTarget(OPERATIONS.index(way), SCALES.index(""), **found)


# What should be found


def test_of_counted_rows_the_condition_should_be_found_and_the_rows_that_hold_it(encoder: Encoder) -> None:
    sheet = sheet_of(encoder)
    output = told("count", expression="2", rows=[GRACE, ALAN], condition=condition())
    assert build_target(output, sheet) == wanted(sheet, "count")


def test_a_condition_that_no_row_holds_is_learnt_and_a_count_of_nothing_else_is_not(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "older than 90 ?")
    found = build_target(told("count", expression="0", condition=condition(limit="90")), sheet)
    assert found == TableTarget(
        OPERATIONS.index("count"),
        0,
        condition=ConditionTarget(AGE, frozenset({choice(sheet, limit="90")}), place(sheet, "90"), (False,) * 5),
    )
    assert build_target(told("count", expression="0"), sheet) is None


@pytest.mark.parametrize(("limit", "text"), [("36", "36"), ("thirty-six", "36"), ("2", "2"), (" 36 ", "36")])
def test_the_limit_is_found_among_the_figures_of_the_question(encoder: Encoder, limit: str, text: str) -> None:
    sheet = sheet_of(encoder)
    found = build_target(told("count", expression="3", rows=[ADA], condition=condition(FROM, limit)), sheet)
    assert found is not None
    assert found.condition is not None
    assert min(found.condition.choices) == choice(sheet, FROM, text)


def test_of_a_figure_that_stands_twice_either_place_will_do(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "of 36 books , who is older than 36 ?")
    found = build_target(told("count", expression="2", rows=[GRACE, ALAN], condition=condition()), sheet)
    assert found is not None
    assert found.condition is not None
    places = {condition_choices(sheet)[at][0] for at in found.condition.choices}
    assert len(places) == 2
    assert [sheet.locations[at].text for at in sorted(places)] == ["36", "36"]


@pytest.mark.parametrize(
    "told_of", [condition(limit="40"), condition(limit="7"), condition(limit="nobody"), condition(column=NAME), condition(column=9)]
)
def test_a_condition_by_what_the_question_does_not_say_or_cannot_be_compared_is_not_learnt(
    encoder: Encoder, told_of: dict[str, Any]
) -> None:
    assert build_target(told("count", expression="1", rows=[ADA], condition=told_of), sheet_of(encoder)) is None


@pytest.mark.parametrize(
    ("way", "said", "asked"),
    [
        ("cells", {"quotes": ["grace", "alan"]}, {NAME}),
        ("cells", {"quotes": ["Alan", "GRACE"]}, {NAME}),
        ("cells", {"quotes": ["85", "40"]}, {AGE}),
        ("sum", {"expression": "85 + 40"}, {AGE}),
        ("sum", {"expression": "12 + -7"}, {BOOKS}),
        ("sum", {"expression": "3"}, {ROOMS}),
        ("mean", {"expression": "(40 + 85) / 2"}, {AGE}),
        ("mean", {"expression": "(12 - 7) / 2"}, {BOOKS}),
        ("mean", {"expression": "(3) / 1"}, {ROOMS}),
    ],
)
def test_the_column_is_the_one_whose_cells_in_these_rows_are_what_answers(
    encoder: Encoder, way: str, said: dict[str, Any], asked: set[int]
) -> None:
    sheet = sheet_of(encoder)
    output = told(way, rows=[GRACE, ALAN], condition=condition(), **said)
    assert build_target(output, sheet) == wanted(sheet, way, asked=frozenset(asked))


def test_where_several_columns_answer_one_of_them_will_do(encoder: Encoder) -> None:
    table = [["name", "age", "books"], ["ada", "9", "9"], ["alan", "3", "8"], ["grace", "8", "3"]]
    sheet = sheet_of(encoder, "of 5 or more ?", table)
    output = told("cells", ["9", "8"], rows=[1, 3], condition=condition(FROM, "5"))
    found = build_target(output, sheet)
    assert found is not None
    assert found.answer_columns == {AGE}
    total = build_target(told("sum", expression="9 + 8 + 3", rows=[1, 2, 3], condition=condition(FROM, "5")), sheet)
    assert total is not None
    assert total.answer_columns == {AGE, BOOKS}


@pytest.mark.parametrize(
    ("way", "said"),
    [
        ("cells", {"quotes": ["ada", "alan"]}),
        ("cells", {"quotes": ["grace"]}),
        ("cells", {"quotes": ["grace", "alan", "alan"]}),
        ("sum", {"expression": "85 + 41"}),
        ("sum", {"expression": "12 + 7"}),
        ("mean", {"expression": "(85 + 40) / 3"}),
        ("mean", {"expression": "85 / 0"}),
    ],
)
def test_what_no_column_comes_to_is_not_learnt(encoder: Encoder, way: str, said: dict[str, Any]) -> None:
    assert build_target(told(way, rows=[GRACE, ALAN], condition=condition(), **said), sheet_of(encoder)) is None
    assert build_target(told(way, rows=[], condition=condition(), **said), sheet_of(encoder)) is None


def test_no_cells_of_no_rows_are_not_learnt(encoder: Encoder) -> None:
    assert build_target(told("cells", condition=condition(limit="90")), sheet_of(encoder, "older than 90 ?")) is None


@pytest.mark.parametrize("way", ["most", "least"])
def test_what_is_compared_under_a_condition_has_both_columns(encoder: Encoder, way: str) -> None:
    sheet = sheet_of(encoder)
    quote = {"most": "alan", "least": "grace"}[way]
    output = told(way, [quote], rows=[GRACE, ALAN], column=BOOKS, condition=condition())
    assert build_target(output, sheet) == wanted(sheet, way, by=BOOKS, asked=frozenset({NAME}))


def test_a_range_has_its_column_and_its_rows_with_a_condition_and_without(encoder: Encoder) -> None:
    sheet = sheet_of(encoder)
    under = told("range", expression="85 - 40", rows=[GRACE, ALAN], column=AGE, condition=condition())
    assert build_target(under, sheet) == wanted(sheet, "range", by=AGE)
    plain = told("range", expression="85 - 36", rows=[ADA, GRACE, ALAN, DONALD], column=AGE)
    assert build_target(plain, sheet) == TableTarget(OPERATIONS.index("range"), 0, rows=frozenset({1, 2, 3, 4}), ranking_column=AGE)
    assert build_target(plain | {"column": None}, sheet) is None
    assert build_target(plain | {"rows": []}, sheet) is None


@pytest.mark.parametrize(
    ("question", "way", "opened"),
    [
        (OLDER, "count", True),
        (OLDER, "most", True),
        (OLDER, "least", True),
        ("who of the 36 ?", "count", False),
        ("who ?", "most", False),
        (OLDER, "cells", False),
    ],
)
def test_where_words_set_a_bound_and_none_is_told_there_may_be_a_condition(encoder: Encoder, question: str, way: str, opened: bool) -> None:
    quotes, expression = (["alan"], None) if way != "count" else ([], "2")
    rows = {"most": [ADA, GRACE, ALAN], "least": [GRACE, ALAN], "count": [ADA, ALAN]}.get(way, [])
    output = told(way, quotes, expression, rows=rows, column={"most": BOOKS, "least": AGE}.get(way))
    found = build_target(output | ({"quotes": ["ada"]} if way == "most" else {}), sheet_of(encoder, question))
    assert found is not None
    assert (found.may_have_condition, found.condition) == (opened, None)


# Two conditions


BOTH = "who has under 12 books and is under 90 ?"
SECOND: dict[str, Any] = {"condition": condition(BELOW, "12", BOOKS), "also": condition(BELOW, "90", AGE)}


def test_of_two_conditions_both_should_be_found_and_the_rows_that_hold_both(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, BOTH)
    found = build_target(told("count", expression="1", rows=[GRACE], **SECOND), sheet)
    assert found is not None
    assert found.condition is not None
    assert found.second_condition is not None
    assert (found.condition.column, found.second_condition.column) == (BOOKS, AGE)
    assert found.second_condition.choices == {choice(sheet, BELOW, "90")}
    held = [row for row in range(5) if found.satisfies_conditions(row)]
    assert held == [row for row in range(5) if found.condition.row_matches[row] and found.second_condition.row_matches[row]]
    assert len(held) < min(sum(found.condition.row_matches), sum(found.second_condition.row_matches)), "neither alone says as much"


def test_the_second_figure_stands_behind_the_first_or_nothing_is_learnt(encoder: Encoder) -> None:
    turned: dict[str, Any] = {"condition": SECOND["also"], "also": SECOND["condition"]}
    assert build_target(told("count", expression="1", rows=[GRACE], **turned), sheet_of(encoder, BOTH)) is None
    unknown = SECOND | {"also": condition(BELOW, "41", AGE)}
    assert build_target(told("count", expression="1", rows=[GRACE], **unknown), sheet_of(encoder, BOTH)) is None


def test_that_a_second_condition_is_not_found_is_lost(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "who has under 12 books and is 90 ?")
    two = build_target(told("count", expression="1", rows=[GRACE], **SECOND), sheet)
    one = build_target(told("count", expression="2", rows=[GRACE, DONALD], condition=SECOND["condition"]), sheet)
    assert two is not None
    assert one is not None
    right, alone = (float(loss(logits_for(sheet, found), TableExample(sheet, found))) for found in (two, one))
    assert right == pytest.approx(0, abs=1e-2)
    assert alone == pytest.approx(0, abs=1e-2)
    assert float(loss(logits_for(sheet, one), TableExample(sheet, two))) > 9, "neither the figure nor the column"
    assert float(loss(logits_for(sheet, two), TableExample(sheet, one))) > 9, "that there is none should be said too"


def test_a_second_condition_that_nobody_told_costs_nothing_where_words_set_a_bound(encoder: Encoder) -> None:
    for question, costs in ((BOTH, False), ("who has under 12 books and is 90 ?", True)):
        sheet = sheet_of(encoder, question)
        one = build_target(told("count", expression="2", rows=[GRACE, DONALD], condition=SECOND["condition"]), sheet)
        assert one is not None
        best = logits_for(sheet, one)
        more = loss(best._replace(also_bounds=-best.extra_bounds), TableExample(sheet, one)) - loss(best, TableExample(sheet, one))
        assert (float(more) > 1) == costs, question


def test_of_a_figure_that_stands_twice_the_first_condition_is_before_the_second(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "of the 90 who has over 8 books and is under 90 ?")
    both: dict[str, Any] = {"condition": condition(BELOW, "90", AGE), "also": condition(ABOVE, "8", BOOKS)}
    found = build_target(told("count", expression="2", rows=[ADA, ALAN], **both), sheet)
    assert found is not None
    assert found.condition is not None
    assert found.second_condition is not None
    assert [condition_choices(sheet)[at][0] < found.second_condition.location for at in found.condition.choices] == [True]


# What is lost


def logits_for(sheet: TableEncoding, found: TableTarget, high: float = 9.0) -> TableLogits[Any]:
    """Logits that say what should be found and hardly anything else."""

    def filled(count: int, *those: int) -> Any:
        made = torch.full((count,), -high)
        made[list(those)] = high
        return made

    places, rows, wide = len(sheet.locations), len(sheet.table), max(len(row) for row in sheet.table)
    at, bound = (0, -1) if found.condition is None else condition_choices(sheet)[min(found.condition.choices)]
    behind, other = (0, -1) if found.second_condition is None else condition_choices(sheet)[min(found.second_condition.choices)]
    return TableLogits(
        operations=filled(len(OPERATIONS), found.operation),
        scales=filled(len(SCALES), found.scale),
        cells=filled(places, *found.cells),
        first=filled(places, *found.first),
        second=filled(places, *found.second),
        rows=filled(rows, *found.rows),
        answer_columns=filled(wide, *found.answer_columns),
        order_columns=filled(wide, *([] if found.ranking_column is None else [found.ranking_column])),
        begin=filled(len(sheet.chars)),
        end=filled(len(sheet.chars)),
        condition_columns=filled(wide, *([] if found.condition is None else [found.condition.column])),
        limits=filled(places, *([] if found.condition is None else [at])),
        bounds=filled(1 + len(BOUNDS), 1 + bound),
        extra_columns=filled(wide, *([] if found.second_condition is None else [found.second_condition.column])),
        extra_limits=filled(places, *([] if found.second_condition is None else [behind])),
        extra_bounds=filled(1 + len(BOUNDS), 1 + other),
    )


SAID: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "count": (told("count", expression="2"), ("rows",)),
    "most": (told("most", ["alan"], column=BOOKS), ("rows", "by", "asked")),
    "range": (told("range", expression="85 - 40", column=AGE), ("rows", "by")),
    "cells": (told("cells", ["grace", "alan"]), ("rows", "asked")),
    "sum": (told("sum", expression="85 + 40"), ("rows", "asked")),
}


@pytest.mark.parametrize("way", SAID)
def test_under_a_condition_the_loss_is_of_it_its_column_and_what_the_way_takes(encoder: Encoder, way: str) -> None:
    sheet = sheet_of(encoder)
    output, counts = SAID[way]
    found = build_target(output | {"rows": [GRACE, ALAN], "condition": condition()}, sheet)
    assert found is not None
    best = logits_for(sheet, found)
    least = float(loss(best, TableExample(sheet, found)))
    assert least < 0.02
    for name in TableLogits._fields:
        other = loss(best._replace(**{name: -getattr(best, name)}), TableExample(sheet, found))
        assert (float(other) > least + 1) == (name in ("ways", "scales", "bounded", "limits", "bounds", *counts)), name


def test_of_rows_that_do_not_hold_a_condition_nothing_is_said(encoder: Encoder) -> None:
    sheet = sheet_of(encoder)
    found = build_target(told("count", expression="1", rows=[ALAN], condition=condition()), sheet)
    assert found is not None
    rows = torch.zeros(len(sheet.table), requires_grad=True)
    loss(logits_for(sheet, found)._replace(rows=rows), TableExample(sheet, found)).backward()
    assert rows.grad is not None
    assert [float(one.sign()) for one in rows.grad] == [0, 0, 1, -1, 0]


def test_where_no_row_holds_a_condition_it_is_learnt_all_the_same(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "older than 90 ?")
    found = build_target(told("count", expression="0", condition=condition(limit="90")), sheet)
    assert found is not None
    best = logits_for(sheet, found)
    least = float(loss(best, TableExample(sheet, found)))
    assert least < 0.02
    assert float(loss(best._replace(rows=-best.rows), TableExample(sheet, found))) == least
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(sheet, found))) > 1


@pytest.mark.parametrize("way", ["count", "most"])
def test_a_condition_that_nobody_told_costs_nothing_where_words_set_a_bound(encoder: Encoder, way: str) -> None:
    output = told("count", expression="2", rows=[ADA, GRACE]) if way == "count" else told("most", ["grace"], rows=[ADA, GRACE], column=AGE)
    for question, costs in ((OLDER, False), ("who of the 36 ?", True)):
        sheet = sheet_of(encoder, question)
        found = build_target(output, sheet)
        assert found is not None
        best = logits_for(sheet, found)
        bounded = best._replace(bounds=-best.bounds, limits=torch.full((len(sheet.locations),), 9.0))
        more = float(loss(bounded, TableExample(sheet, found)) - loss(best, TableExample(sheet, found)))
        assert (more > 1) == costs, question
        assert more >= 0


@pytest.mark.parametrize("way", PAIR_OPERATIONS)
def test_of_two_figures_no_condition_is_asked(encoder: Encoder, way: str) -> None:
    form = {"change": "(85 - 36) / 36 * 100", "share": "85 / 36 * 100", "ratio": "85 / 36", "product": "85 * 36"}
    form |= {"portion": "85 * 36 / 100", "discount": "85 * (100 - 36) / 100", "surcharge": "85 * (100 + 36) / 100"}
    sheet = sheet_of(encoder, "who ?")
    found = build_target(told(way, expression=form.get(way, "85 - 36")), sheet)
    assert found is not None
    best = logits_for(sheet, found)
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(sheet, found))) == float(loss(best, TableExample(sheet, found)))


def test_a_question_without_figures_costs_nothing_for_its_conditions(encoder: Encoder) -> None:
    sheet = sheet_of(encoder, "who ?")
    found = build_target(told("count", expression="2", rows=[ADA, GRACE]), sheet)
    assert found is not None
    best = logits_for(sheet, found)
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(sheet, found))) == pytest.approx(
        float(loss(best, TableExample(sheet, found)))
    )


def test_what_words_say_makes_a_condition_cheaper(encoder: Encoder) -> None:
    def lost(question: str) -> float:
        sheet = sheet_of(encoder, question)
        found = build_target(told("count", expression="2", rows=[GRACE, ALAN], condition=condition()), sheet)
        assert found is not None
        flat = logits_for(sheet, found)._replace(bounds=torch.zeros(5), limits=torch.zeros(len(sheet.locations)))
        return float(loss(flat, TableExample(sheet, found)))

    assert lost("36 ?") - lost("over 36 ?") == pytest.approx(np.log(5) - np.log((4 + np.exp(WORD_BONUS)) / np.exp(WORD_BONUS)), abs=1e-5)
    assert lost("at most 36 ?") > lost("36 ?")


def test_an_answer_is_right_whatever_its_condition() -> None:
    said = told("count", expression="1 + 1", rows=[1, 2], condition=condition(UP_TO))
    assert answers_match(said, told("count", expression="2", rows=[1, 3]))
    assert answers_match(told("range", expression="85 - 40"), told("gap", expression="85 - 40"))
    assert not answers_match(told("range", expression="40 - 85"), told("range", expression="85 - 40"))
