"""Conditions in the training of table readers: targets with their rows and columns, and the loss."""

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
"""Whether each row is above 36."""


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("encoder"), WORDS))


def encoding_of(encoder: Encoder, question: str = OLDER, table: Any = TABLE) -> TableEncoding:
    return TableEncoding(encoder, question, table, ["ada has 7 ."], 64)


def condition(bound: str = ABOVE, limit: str = "36", column: int = AGE) -> dict[str, Any]:
    return {"column": column, "bound": bound, "limit": limit}


def choice(table_encoding: TableEncoding, bound: str = ABOVE, limit: str = "36") -> int:
    """Index of a choice by its bound and the text of its figure."""
    [found] = [
        at
        for at, (spot, number) in enumerate(condition_choices(table_encoding))
        if (BOUNDS[number], table_encoding.locations[spot].text) == (bound, limit)
    ]
    return found


def place(table_encoding: TableEncoding, limit: str) -> int:
    """First location of a figure of the question."""
    return next(
        at for at, one in enumerate(table_encoding.locations) if one.question_figure is not None and one.text == limit
    )


def wanted(table_encoding: TableEncoding, way: str, **more: Any) -> TableTarget:
    """The target if the rows of the answer are those above 36."""
    found = {
        "rows": frozenset({GRACE, ALAN}),
        "condition": ConditionTarget(AGE, frozenset({choice(table_encoding)}), place(table_encoding, "36"), HOLDS),
        **more,
    }
    return TableTarget(OPERATIONS.index(way), SCALES.index(""), **found)


# Targets


def test_condition_target_of_count_has_matching_rows(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    output = told("count", expression="2", rows=[GRACE, ALAN], condition=condition())
    assert build_target(output, table_encoding) == wanted(table_encoding, "count")


def test_condition_without_matching_rows_is_target(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "older than 90 ?")
    found = build_target(told("count", expression="0", condition=condition(limit="90")), table_encoding)
    assert found == TableTarget(
        OPERATIONS.index("count"),
        0,
        condition=ConditionTarget(
            AGE, frozenset({choice(table_encoding, limit="90")}), place(table_encoding, "90"), (False,) * 5
        ),
    )
    assert build_target(told("count", expression="0"), table_encoding) is None


@pytest.mark.parametrize(("limit", "text"), [("36", "36"), ("thirty-six", "36"), ("2", "2"), (" 36 ", "36")])
def test_condition_target_limit_in_question(encoder: Encoder, limit: str, text: str) -> None:
    table_encoding = encoding_of(encoder)
    found = build_target(told("count", expression="3", rows=[ADA], condition=condition(FROM, limit)), table_encoding)
    assert found is not None
    assert found.condition is not None
    assert min(found.condition.choices) == choice(table_encoding, FROM, text)


def test_condition_target_repeated_figure_allows_either(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "of 36 books , who is older than 36 ?")
    found = build_target(told("count", expression="2", rows=[GRACE, ALAN], condition=condition()), table_encoding)
    assert found is not None
    assert found.condition is not None
    places = {condition_choices(table_encoding)[at][0] for at in found.condition.choices}
    assert len(places) == 2
    assert [table_encoding.locations[at].text for at in sorted(places)] == ["36", "36"]


@pytest.mark.parametrize(
    "told_of",
    [
        condition(limit="40"),
        condition(limit="7"),
        condition(limit="nobody"),
        condition(column=NAME),
        condition(column=9),
    ],
)
def test_condition_unknown_or_incomparable_figure_gives_none(encoder: Encoder, told_of: dict[str, Any]) -> None:
    assert build_target(told("count", expression="1", rows=[ADA], condition=told_of), encoding_of(encoder)) is None


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
def test_condition_column_has_answer_in_matching_rows(
    encoder: Encoder, way: str, said: dict[str, Any], asked: set[int]
) -> None:
    table_encoding = encoding_of(encoder)
    output = told(way, rows=[GRACE, ALAN], condition=condition(), **said)
    assert build_target(output, table_encoding) == wanted(table_encoding, way, answer_columns=frozenset(asked))


def test_condition_several_answer_columns_allowed(encoder: Encoder) -> None:
    table = [["name", "age", "books"], ["ada", "9", "9"], ["alan", "3", "8"], ["grace", "8", "3"]]
    table_encoding = encoding_of(encoder, "of 5 or more ?", table)
    output = told("cells", ["9", "8"], rows=[1, 3], condition=condition(FROM, "5"))
    found = build_target(output, table_encoding)
    assert found is not None
    assert found.answer_columns == {AGE}
    total = build_target(
        told("sum", expression="9 + 8 + 3", rows=[1, 2, 3], condition=condition(FROM, "5")), table_encoding
    )
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
def test_condition_without_answer_column_gives_none(encoder: Encoder, way: str, said: dict[str, Any]) -> None:
    assert build_target(told(way, rows=[GRACE, ALAN], condition=condition(), **said), encoding_of(encoder)) is None
    assert build_target(told(way, rows=[], condition=condition(), **said), encoding_of(encoder)) is None


def test_condition_no_cells_of_no_rows_gives_none(encoder: Encoder) -> None:
    assert build_target(told("cells", condition=condition(limit="90")), encoding_of(encoder, "older than 90 ?")) is None


@pytest.mark.parametrize("way", ["most", "least"])
def test_condition_comparison_has_both_columns(encoder: Encoder, way: str) -> None:
    table_encoding = encoding_of(encoder)
    quote = {"most": "alan", "least": "grace"}[way]
    output = told(way, [quote], rows=[GRACE, ALAN], column=BOOKS, condition=condition())
    assert build_target(output, table_encoding) == wanted(
        table_encoding, way, ranking_column=BOOKS, answer_columns=frozenset({NAME})
    )


def test_range_target_with_and_without_condition(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    under = told("range", expression="85 - 40", rows=[GRACE, ALAN], column=AGE, condition=condition())
    assert build_target(under, table_encoding) == wanted(table_encoding, "range", ranking_column=AGE)
    plain = told("range", expression="85 - 36", rows=[ADA, GRACE, ALAN, DONALD], column=AGE)
    assert build_target(plain, table_encoding) == TableTarget(
        OPERATIONS.index("range"), 0, rows=frozenset({1, 2, 3, 4}), ranking_column=AGE
    )
    assert build_target(plain | {"column": None}, table_encoding) is None
    assert build_target(plain | {"rows": []}, table_encoding) is None


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
def test_target_may_have_condition_if_words_set_bound(encoder: Encoder, question: str, way: str, opened: bool) -> None:
    quotes, expression = (["alan"], None) if way != "count" else ([], "2")
    rows = {"most": [ADA, GRACE, ALAN], "least": [GRACE, ALAN], "count": [ADA, ALAN]}.get(way, [])
    output = told(way, quotes, expression, rows=rows, column={"most": BOOKS, "least": AGE}.get(way))
    found = build_target(output | ({"quotes": ["ada"]} if way == "most" else {}), encoding_of(encoder, question))
    assert found is not None
    assert (found.may_have_condition, found.condition) == (opened, None)


# Two conditions


BOTH = "who has under 12 books and is under 90 ?"
SECOND: dict[str, Any] = {"condition": condition(BELOW, "12", BOOKS), "also": condition(BELOW, "90", AGE)}


def test_two_conditions_have_rows_matching_both(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, BOTH)
    found = build_target(told("count", expression="1", rows=[GRACE], **SECOND), table_encoding)
    assert found is not None
    assert found.condition is not None
    assert found.second_condition is not None
    assert (found.condition.column, found.second_condition.column) == (BOOKS, AGE)
    assert found.second_condition.choices == {choice(table_encoding, BELOW, "90")}
    held = [row for row in range(5) if found.satisfies_conditions(row)]
    assert held == [
        row for row in range(5) if found.condition.row_matches[row] and found.second_condition.row_matches[row]
    ]
    assert len(held) < min(sum(found.condition.row_matches), sum(found.second_condition.row_matches)), (
        "neither alone says as much"
    )


def test_two_conditions_second_figure_follows_first(encoder: Encoder) -> None:
    turned: dict[str, Any] = {"condition": SECOND["also"], "also": SECOND["condition"]}
    assert build_target(told("count", expression="1", rows=[GRACE], **turned), encoding_of(encoder, BOTH)) is None
    unknown = SECOND | {"also": condition(BELOW, "41", AGE)}
    assert build_target(told("count", expression="1", rows=[GRACE], **unknown), encoding_of(encoder, BOTH)) is None


def test_loss_covers_second_condition(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "who has under 12 books and is 90 ?")
    two = build_target(told("count", expression="1", rows=[GRACE], **SECOND), table_encoding)
    one = build_target(
        told("count", expression="2", rows=[GRACE, DONALD], condition=SECOND["condition"]), table_encoding
    )
    assert two is not None
    assert one is not None
    right, alone = (
        float(loss(logits_for(table_encoding, found), TableExample(table_encoding, found))) for found in (two, one)
    )
    assert right == pytest.approx(0, abs=1e-2)
    assert alone == pytest.approx(0, abs=1e-2)
    assert float(loss(logits_for(table_encoding, one), TableExample(table_encoding, two))) > 9, (
        "neither the figure nor the column"
    )
    assert float(loss(logits_for(table_encoding, two), TableExample(table_encoding, one))) > 9, (
        "that there is none should be said too"
    )


def test_loss_ignores_possible_second_condition(encoder: Encoder) -> None:
    for question, costs in ((BOTH, False), ("who has under 12 books and is 90 ?", True)):
        table_encoding = encoding_of(encoder, question)
        one = build_target(
            told("count", expression="2", rows=[GRACE, DONALD], condition=SECOND["condition"]), table_encoding
        )
        assert one is not None
        best = logits_for(table_encoding, one)
        more = loss(best._replace(extra_bounds=-best.extra_bounds), TableExample(table_encoding, one)) - loss(
            best, TableExample(table_encoding, one)
        )
        assert (float(more) > 1) == costs, question


def test_two_conditions_repeated_figure_in_order(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "of the 90 who has over 8 books and is under 90 ?")
    both: dict[str, Any] = {"condition": condition(BELOW, "90", AGE), "also": condition(ABOVE, "8", BOOKS)}
    found = build_target(told("count", expression="2", rows=[ADA, ALAN], **both), table_encoding)
    assert found is not None
    assert found.condition is not None
    assert found.second_condition is not None
    assert [
        condition_choices(table_encoding)[at][0] < found.second_condition.location for at in found.condition.choices
    ] == [True]


# Loss


def logits_for(table_encoding: TableEncoding, found: TableTarget, high: float = 9.0) -> TableLogits[Any]:
    """Logits that give the target nearly all probability."""

    def filled(count: int, *those: int) -> Any:
        made = torch.full((count,), -high)
        made[list(those)] = high
        return made

    places, rows, wide = (
        len(table_encoding.locations),
        len(table_encoding.table),
        max(len(row) for row in table_encoding.table),
    )
    at, bound = (0, -1) if found.condition is None else condition_choices(table_encoding)[min(found.condition.choices)]
    behind, other = (
        (0, -1)
        if found.second_condition is None
        else condition_choices(table_encoding)[min(found.second_condition.choices)]
    )
    return TableLogits(
        operations=filled(len(OPERATIONS), found.operation),
        scales=filled(len(SCALES), found.scale),
        cells=filled(places, *found.cells),
        first=filled(places, *found.first),
        second=filled(places, *found.second),
        rows=filled(rows, *found.rows),
        answer_columns=filled(wide, *found.answer_columns),
        order_columns=filled(wide, *([] if found.ranking_column is None else [found.ranking_column])),
        begin=filled(len(table_encoding.chars)),
        end=filled(len(table_encoding.chars)),
        condition_columns=filled(wide, *([] if found.condition is None else [found.condition.column])),
        limits=filled(places, *([] if found.condition is None else [at])),
        bounds=filled(1 + len(BOUNDS), 1 + bound),
        extra_columns=filled(wide, *([] if found.second_condition is None else [found.second_condition.column])),
        extra_limits=filled(places, *([] if found.second_condition is None else [behind])),
        extra_bounds=filled(1 + len(BOUNDS), 1 + other),
    )


SAID: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "count": (told("count", expression="2"), ("rows",)),
    "most": (told("most", ["alan"], column=BOOKS), ("rows", "order_columns", "answer_columns")),
    "range": (told("range", expression="85 - 40", column=AGE), ("rows", "order_columns")),
    "cells": (told("cells", ["grace", "alan"]), ("rows", "answer_columns")),
    "sum": (told("sum", expression="85 + 40"), ("rows", "answer_columns")),
}


@pytest.mark.parametrize("way", SAID)
def test_loss_covers_condition_column_and_operation(encoder: Encoder, way: str) -> None:
    table_encoding = encoding_of(encoder)
    output, counts = SAID[way]
    found = build_target(output | {"rows": [GRACE, ALAN], "condition": condition()}, table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    least = float(loss(best, TableExample(table_encoding, found)))
    assert least < 0.02
    for name in TableLogits._fields:
        other = loss(best._replace(**{name: -getattr(best, name)}), TableExample(table_encoding, found))
        assert (float(other) > least + 1) == (
            name in ("operations", "scales", "condition_columns", "limits", "bounds", *counts)
        ), name


def test_loss_ignores_rows_outside_condition(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder)
    found = build_target(told("count", expression="1", rows=[ALAN], condition=condition()), table_encoding)
    assert found is not None
    rows = torch.zeros(len(table_encoding.table), requires_grad=True)
    loss(logits_for(table_encoding, found)._replace(rows=rows), TableExample(table_encoding, found)).backward()
    assert rows.grad is not None
    assert [float(one.sign()) for one in rows.grad] == [0, 0, 1, -1, 0]


def test_loss_covers_condition_without_matching_rows(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "older than 90 ?")
    found = build_target(told("count", expression="0", condition=condition(limit="90")), table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    least = float(loss(best, TableExample(table_encoding, found)))
    assert least < 0.02
    assert float(loss(best._replace(rows=-best.rows), TableExample(table_encoding, found))) == least
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(table_encoding, found))) > 1


@pytest.mark.parametrize("way", ["count", "most"])
def test_loss_ignores_possible_condition(encoder: Encoder, way: str) -> None:
    output = (
        told("count", expression="2", rows=[ADA, GRACE])
        if way == "count"
        else told("most", ["grace"], rows=[ADA, GRACE], column=AGE)
    )
    for question, costs in ((OLDER, False), ("who of the 36 ?", True)):
        table_encoding = encoding_of(encoder, question)
        found = build_target(output, table_encoding)
        assert found is not None
        best = logits_for(table_encoding, found)
        bounded = best._replace(bounds=-best.bounds, limits=torch.full((len(table_encoding.locations),), 9.0))
        more = float(
            loss(bounded, TableExample(table_encoding, found)) - loss(best, TableExample(table_encoding, found))
        )
        assert (more > 1) == costs, question
        assert more >= 0


@pytest.mark.parametrize("way", PAIR_OPERATIONS)
def test_two_figures_have_no_condition_loss(encoder: Encoder, way: str) -> None:
    form = {"change": "(85 - 36) / 36 * 100", "share": "85 / 36 * 100", "ratio": "85 / 36", "product": "85 * 36"}
    form |= {"portion": "85 * 36 / 100", "discount": "85 * (100 - 36) / 100", "surcharge": "85 * (100 + 36) / 100"}
    table_encoding = encoding_of(encoder, "who ?")
    found = build_target(told(way, expression=form.get(way, "85 - 36")), table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(table_encoding, found))) == float(
        loss(best, TableExample(table_encoding, found))
    )


def test_question_without_figures_has_no_condition_loss(encoder: Encoder) -> None:
    table_encoding = encoding_of(encoder, "who ?")
    found = build_target(told("count", expression="2", rows=[ADA, GRACE]), table_encoding)
    assert found is not None
    best = logits_for(table_encoding, found)
    assert float(loss(best._replace(bounds=-best.bounds), TableExample(table_encoding, found))) == pytest.approx(
        float(loss(best, TableExample(table_encoding, found)))
    )


def test_bound_words_lower_condition_loss(encoder: Encoder) -> None:
    def lost(question: str) -> float:
        table_encoding = encoding_of(encoder, question)
        found = build_target(told("count", expression="2", rows=[GRACE, ALAN], condition=condition()), table_encoding)
        assert found is not None
        flat = logits_for(table_encoding, found)._replace(
            bounds=torch.zeros(5), limits=torch.zeros(len(table_encoding.locations))
        )
        return float(loss(flat, TableExample(table_encoding, found)))

    assert lost("36 ?") - lost("over 36 ?") == pytest.approx(
        np.log(5) - np.log((4 + np.exp(WORD_BONUS)) / np.exp(WORD_BONUS)), abs=1e-5
    )
    assert lost("at most 36 ?") > lost("36 ?")


def test_answers_match_ignores_condition() -> None:
    said = told("count", expression="1 + 1", rows=[1, 2], condition=condition(UP_TO))
    assert answers_match(said, told("count", expression="2", rows=[1, 3]))
    assert answers_match(told("range", expression="85 - 40"), told("gap", expression="85 - 40"))
    assert not answers_match(told("range", expression="40 - 85"), told("range", expression="85 - 40"))
