"""Tests conditions: the rows that match a figure and a bound of the question, and what is counted, compared and summed
up over them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.filters import (  # noqa: E402
    WORD_BONUS,
    Condition,
    choice_logits,
    choose_condition,
    condition_choices,
    condition_locations,
    matching_rows,
)
from orchestra.agents.inference.tables.head import OUTPUT_INDEX, OUTPUT_NAMES, table_logits  # noqa: E402
from orchestra.agents.inference.tables.reader import TableReader  # noqa: E402
from orchestra.testing.tiny_encoder import write_encoder  # noqa: E402
from orchestra.text.numbers.sort_keys import ABOVE, BELOW, BOUNDS, FROM, UP_TO  # noqa: E402
from tests.agents.tables import (  # noqa: E402
    WORDS,
    Hand,
    Place,
    answer,
    arrays,
    share,
    sigmoid,
    spot,
    sure,
    told,
    way_and_scale,
    write,
)

TABLE = [
    ["name", "age", "books", "open"],
    ["ada", "36", "12", "9:30"],
    ["grace", "85", "-", "13:00"],
    ["alan", "", "9"],
    ["donald", "40", "7"],
]
ADA, GRACE, ALAN, DONALD = 1, 2, 3, 4
NAME, AGE, BOOKS, OPEN = 0, 1, 2, 3
OLDER = "who of the 2 is older than 36 ?"


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TableReader:
    base: Path = write_encoder(tmp_path_factory.mktemp("base"), WORDS)
    return TableReader.load(write(tmp_path_factory.mktemp("card"), arrays()), Encoder.load(base))


def sheet_of(reader: TableReader, question: str = OLDER, table: Any = TABLE) -> TableEncoding:
    return reader.encode_inputs({"question": question, "table": table, "paragraphs": ["ada has 7 ."]})


def bounded(way: str, bound: str = FROM, limit: str = "36", column: int = AGE, **more: Any) -> Hand:
    """Returns logits of a condition; every matching row counts."""
    rows = dict.fromkeys(range(5), 4.0)
    return Hand([way], **{"rows": rows, "bounded": {column: 3.0}, "limits": {limit: 5.0}, "bound": bound, **more})


def condition(bound: str = FROM, limit: str = "36", column: int = AGE) -> dict[str, Any]:
    return {"column": column, "bound": bound, "limit": limit}


def nought(sheet: TableEncoding) -> list[float]:
    """Returns zero scores for locations and bounds, so that only the words count."""
    return choice_logits(sheet, np.zeros(len(sheet.locations)), np.zeros(1 + len(BOUNDS)))


# Possible conditions


def test_conditions_combine_each_figure_with_each_bound(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    assert [sheet.locations[at].text for at in condition_locations(sheet)] == ["2", "36"], (
        "and none of the table or of the text"
    )
    assert condition_choices(sheet) == [
        (at, bound) for at in (spot(sheet, "2"), spot(sheet, "36")) for bound in range(4)
    ]
    assert nought(sheet) == [0.0] * 4 + [WORD_BONUS, 0.0, 0.0, 0.0]


def test_conditions_without_figures_are_empty(reader: TableReader) -> None:
    sheet = sheet_of(reader, "who is it ?")
    assert (condition_locations(sheet), condition_choices(sheet), nought(sheet)) == ([], [], [])


# Rows that match a condition


@pytest.mark.parametrize(
    ("question", "column", "bound", "rows"),
    [
        ("older than 36 ?", AGE, ABOVE, [GRACE, DONALD]),
        ("older than 36 ?", AGE, FROM, [ADA, GRACE, DONALD]),
        ("older than 36 ?", AGE, BELOW, []),
        ("older than 36 ?", AGE, UP_TO, [ADA]),
        ("more than eight ?", BOOKS, ABOVE, [ADA, ALAN]),
        ("after 12:30 ?", OPEN, ABOVE, [GRACE]),
        ("at half past nine or later ?", OPEN, FROM, [ADA, GRACE]),
        ("by noon ?", OPEN, UP_TO, [ADA]),
        ("before 6pm ?", OPEN, BELOW, [ADA, GRACE]),
        ("at 13 ?", OPEN, FROM, [GRACE]),
    ],
)
def test_condition_matches_by_cell_and_never_header_or_short_rows(
    reader: TableReader, question: str, column: int, bound: str, rows: list[int]
) -> None:
    sheet = sheet_of(reader, question)
    holds = matching_rows(sheet, column, bound, condition_locations(sheet)[0])
    assert holds is not None
    assert (len(holds), [row for row, held in enumerate(holds) if held]) == (5, rows)


@pytest.mark.parametrize(
    ("question", "column"), [("over 36 ?", NAME), ("after 6pm ?", AGE), ("before 1 May ?", OPEN), ("over 36 ?", 9)]
)
def test_condition_with_incomparable_figure_is_dropped(reader: TableReader, question: str, column: int) -> None:
    sheet = sheet_of(reader, question)
    assert matching_rows(sheet, column, ABOVE, condition_locations(sheet)[0]) is None


@pytest.mark.parametrize("place", [(ADA, AGE), "7"])
def test_condition_with_figure_outside_question_is_dropped(reader: TableReader, place: Place) -> None:
    sheet = sheet_of(reader)
    assert matching_rows(sheet, AGE, ABOVE, spot(sheet, place)) is None


@pytest.mark.parametrize("table", [[], [[]], [["name", "age"]], [["name", "age"], ["ada"]]])
def test_condition_on_no_rows_matches_none(reader: TableReader, table: list[list[str]]) -> None:
    sheet = sheet_of(reader, table=table)
    assert matching_rows(sheet, AGE, ABOVE, spot(sheet, "36")) is None


def test_condition_reads_unit_from_any_header_row(reader: TableReader) -> None:
    table = [["name", "age"], ["", "hours"], ["ada", "1"], ["alan", "2"]]
    sheet = sheet_of(reader, "more than 90 minutes ?", table)
    assert sheet.header_rows == 2
    assert matching_rows(sheet, 1, ABOVE, condition_locations(sheet)[0]) == (False, False, False, True)


# Choice of the condition


def chances(sheet: TableEncoding, at: int, probability: float) -> Any:
    """Returns logits in which each choice has the given probability; there are no other choices."""
    made = np.zeros(1 + len(condition_choices(sheet)))
    made[0], made[at] = 1 - probability, probability
    return made


def test_condition_choice_takes_likeliest_comparable_column(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    at = 1 + condition_choices(sheet).index((spot(sheet, "36"), BOUNDS.index(BELOW)))
    found, probability = choose_condition(sheet, chances(sheet, at, 0.75), np.array([0.5, 0.125, 0.25, 0.125]))
    assert found == Condition(BOOKS, BELOW, spot(sheet, "36"), (False, True, False, True, True)), "the names cannot be"
    assert probability == 0.1875


def test_condition_choice_is_none_if_likelier_or_incomparable(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    columns = np.array([0.25, 0.25, 0.25, 0.25])
    assert choose_condition(sheet, chances(sheet, 5, 0.375), columns) == (None, 0.625)
    dated = sheet_of(reader, "before 1 May 2024 ?")
    assert choose_condition(dated, chances(dated, 1, 0.75), columns) == (None, 0.25)


# Answers under a condition


def test_count_with_condition_counts_matches_and_cites_cells(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    said = answer(reader, sheet, bounded("count"))
    cells = [[ADA, AGE], [GRACE, AGE], [DONALD, AGE]]
    assert said == told("count", expression="1 + 1 + 1", rows=[ADA, GRACE, DONALD], cells=cells, condition=condition())


def test_count_with_unmatched_condition_is_zero(reader: TableReader) -> None:
    sheet = sheet_of(reader, "who is older than 90 ?")
    said = answer(reader, sheet, bounded("count", ABOVE, "90"))
    assert said == told("count", expression="0", condition=condition(ABOVE, "90"))


def test_count_with_condition_needs_probability_above_half(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = bounded("count", rows={ADA: 2.0, GRACE: -0.5, ALAN: 9.0, DONALD: 1.0})
    assert answer(reader, sheet, hand)["rows"] == [ADA, DONALD]
    logits = hand.logits(sheet)
    weighed = [
        logits.limits[at] + logits.bounds[1 + bound] + more
        for (at, bound), more in zip(condition_choices(sheet), nought(sheet), strict=True)
    ]
    at = condition_choices(sheet).index((spot(sheet, "36"), BOUNDS.index(FROM)))
    this = share(np.array([*weighed, logits.bounds[0]]), at) * share(logits.condition_columns, AGE)
    rows = sigmoid(2.0) * sigmoid(0.5) * sigmoid(1.0)
    assert sure(reader, sheet, hand) == pytest.approx(this * rows * way_and_scale(logits, "count")), (
        "the other rows say nothing"
    )


def test_confidence_without_condition_falls_with_condition_probability(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["count"], rows={ADA: 4.0}, limits={"36": 12.0})
    logits = hand.logits(sheet)
    weighed = [logits.limits[at] + logits.bounds[1 + bound] for at, bound in condition_choices(sheet)]
    choice = np.array([logits.bounds[0], *weighed]) + np.array([0.0, *nought(sheet)])
    rows = sigmoid(4.0) * sigmoid(6.0) ** 3
    assert share(choice, 0) < 0.6
    assert answer(reader, sheet, hand)["condition"] is None
    assert sure(reader, sheet, hand) == pytest.approx(share(choice, 0) * rows * way_and_scale(logits, "count"))


def test_condition_words_decide_if_encoder_is_undecided(reader: TableReader) -> None:
    sheet = sheet_of(reader, "36 or older ?")
    logits = bounded("count").logits(sheet)._replace(bounds=np.array([0.0, 2.0, 0.0, 0.0, 2.5]))
    found, _ = reader.decode(sheet, logits)
    assert [one.bound for one in found.conditions] == [FROM]
    more = logits._replace(bounds=np.array([0.0, 2.0, 0.0, 0.0, WORD_BONUS + 0.5]))
    other, _ = reader.decode(sheet, more)
    assert [one.bound for one in other.conditions] == [UP_TO]


@pytest.mark.parametrize(
    ("way", "by", "asked", "bound", "quote", "rows", "cells"),
    [
        ("most", BOOKS, NAME, FROM, "ada", [ADA, GRACE, DONALD], [[ADA, NAME], [ADA, AGE], [ADA, BOOKS]]),
        ("most", BOOKS, NAME, ABOVE, "donald", [GRACE, DONALD], [[DONALD, NAME], [DONALD, AGE], [DONALD, BOOKS]]),
        ("least", BOOKS, BOOKS, FROM, "7", [ADA, GRACE, DONALD], [[DONALD, BOOKS], [DONALD, AGE]]),
        ("most", AGE, AGE, ABOVE, "85", [GRACE, DONALD], [[GRACE, AGE]]),
    ],
)
def test_extreme_with_condition_is_among_matching_rows(
    reader: TableReader, way: str, by: int, asked: int, bound: str, quote: str, rows: list[int], cells: list[list[int]]
) -> None:
    hand = bounded(way, bound, by={by: 3.0}, asked={asked: 3.0})
    assert answer(reader, sheet_of(reader), hand) == told(
        way, [quote], rows=rows, column=by, cells=cells, condition=condition(bound)
    )


@pytest.mark.parametrize("way", ["most", "range"])
def test_comparison_excludes_rows_without_condition(reader: TableReader, way: str) -> None:
    hand = bounded(way, BELOW, "50", rows={}, by={AGE: 3.0}, asked={NAME: 3.0})
    said = answer(reader, sheet_of(reader, "who of those below 50 ?"), hand)
    assert said["condition"] == condition(BELOW, "50")
    assert GRACE not in said["rows"], "at 85"


@pytest.mark.parametrize("way", ["most", "range"])
def test_comparison_without_matching_rows_is_skipped(reader: TableReader, way: str) -> None:
    sheet = sheet_of(reader, "who of those above 90 ?")
    found, _ = reader.decode(sheet, bounded(way, ABOVE, "90", by={AGE: 3.0}, asked={NAME: 3.0}).logits(sheet))
    assert found.operation != way


@pytest.mark.parametrize(
    ("bound", "limit", "expression", "rows"),
    [(FROM, "36", "85 - 36", [1, 2, 4]), (UP_TO, "40", "40 - 36", [1, 4]), (ABOVE, "40", "85 - 85", [2])],
)
def test_range_with_condition_spans_matching_rows(
    reader: TableReader, bound: str, limit: str, expression: str, rows: list[int]
) -> None:
    sheet = sheet_of(reader, f"of {limit} ?")
    said = answer(reader, sheet, bounded("range", bound, limit, by={AGE: 3.0}))
    assert (said["expression"], said["rows"], said["column"]) == (expression, rows, AGE)
    assert said["condition"] == condition(bound, limit)


def test_range_without_condition_spans_all_or_chosen_rows(reader: TableReader) -> None:
    sheet = sheet_of(reader, "how many ?")
    every = answer(reader, sheet, Hand(["range"], by={AGE: 3.0}))
    assert every == told("range", expression="85 - 36", rows=[1, 2, 3, 4], column=AGE, cells=[[GRACE, AGE], [ADA, AGE]])
    some = answer(reader, sheet, Hand(["range"], by={AGE: 3.0}, rows={ADA: 3.0, DONALD: 2.0}))
    assert some == told(
        "range", expression="40 - 36", rows=[ADA, DONALD], column=AGE, cells=[[DONALD, AGE], [ADA, AGE]]
    )
    logits = Hand(["range"], by={AGE: 3.0}).logits(sheet)
    assert sure(reader, sheet, Hand(["range"], by={AGE: 3.0})) == pytest.approx(
        sigmoid(6.0) ** 4 * share(logits.order_columns, AGE) * way_and_scale(logits, "range")
    )


def test_range_of_negative_figures_and_times_is_computed(reader: TableReader) -> None:
    cold = sheet_of(reader, "how many ?", [["name", "age"], ["ada", "-7"], ["alan", "(12)"], ["grace", "3"]])
    assert answer(reader, cold, Hand(["range"], by={1: 3.0}))["expression"] == "3 - -12"
    times = sheet_of(reader, "how many ?")
    assert answer(reader, times, Hand(["range"], by={OPEN: 3.0}))["expression"] == "(13 * 60 + 0) - (9 * 60 + 30)"


def test_range_skips_column_of_words(reader: TableReader) -> None:
    assert answer(reader, sheet_of(reader), Hand(["range"], by={NAME: 9.0, BOOKS: 1.0}))["expression"] == "12 - 7"
    days = sheet_of(reader, "who ?", [["name", "age"], ["Monday", "7"], ["Friday", "9"]])
    assert answer(reader, days, Hand(["range"], by={0: 9.0, 1: 1.0}))["expression"] == "9 - 7", (
        "a day of the week is no figure"
    )


@pytest.mark.parametrize("table", [[], [["name", "age"]], [["name", "of"], ["ada", "grace"]]])
def test_range_of_table_without_figures_is_none(reader: TableReader, table: list[list[str]]) -> None:
    sheet = sheet_of(reader, "who ?", table)
    assert answer(reader, sheet, Hand(["range", "text"]))["way"] == "text"


@pytest.mark.parametrize(
    ("way", "asked", "rest"),
    [
        (
            "cells",
            NAME,
            {
                "quotes": ["ada", "grace", "donald"],
                "cells": [[row, at] for at in (NAME, AGE) for row in (ADA, GRACE, DONALD)],
            },
        ),
        (
            "cells",
            BOOKS,
            {"quotes": ["12", "-", "7"], "cells": [[row, at] for at in (BOOKS, AGE) for row in (ADA, GRACE, DONALD)]},
        ),
        ("sum", BOOKS, {"expression": "12 + 7", "cells": [[ADA, BOOKS], [DONALD, BOOKS], [ADA, AGE], [DONALD, AGE]]}),
        ("mean", AGE, {"expression": "(36 + 85 + 40) / 3", "cells": [[ADA, AGE], [GRACE, AGE], [DONALD, AGE]]}),
    ],
)
def test_cells_with_condition_come_from_matching_rows(
    reader: TableReader, way: str, asked: int, rest: dict[str, Any]
) -> None:
    sheet, hand = sheet_of(reader), bounded(way, asked={asked: 3.0})
    assert answer(reader, sheet, hand) == told(way, rows=[ADA, GRACE, DONALD], condition=condition(), **rest)
    none = Hand(
        [way], rows=dict.fromkeys(range(5), 4.0), asked={asked: 3.0}, cells={(GRACE, AGE): 2.0, (ALAN, BOOKS): 1.0}
    )
    assert answer(reader, sheet, none)["cells"] == [[GRACE, AGE], [ALAN, BOOKS]], "without one they are pointed at"


def test_cells_with_condition_multiply_probabilities(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = bounded("cells", rows={ADA: 1.0, GRACE: 2.0, ALAN: 0.1, DONALD: -0.5}, asked={NAME: 1.0, BOOKS: 0.5})
    counted = bounded("count", rows=hand.rows)
    logits = hand.logits(sheet)
    ways = way_and_scale(logits, "cells") / way_and_scale(counted.logits(sheet), "count")
    assert sure(reader, sheet, hand) == pytest.approx(
        sure(reader, sheet, counted) * share(logits.answer_columns, NAME) * ways
    )


def test_sum_with_condition_accepts_one_row(reader: TableReader) -> None:
    sheet = sheet_of(reader, "older than 40 ?")
    assert answer(reader, sheet, bounded("sum", ABOVE, "40", asked={AGE: 3.0}))["expression"] == "85"
    assert answer(reader, sheet, bounded("mean", ABOVE, "40", asked={AGE: 3.0}))["expression"] == "(85) / 1"


def test_cells_with_condition_skip_columns_empty_in_matching_rows(reader: TableReader) -> None:
    sheet = sheet_of(reader, "less than 10 ?")
    names = bounded("cells", UP_TO, "10", BOOKS, asked={OPEN: 9.0, AGE: 1.0})
    assert answer(reader, sheet, names)["quotes"] == ["40"]
    sums = bounded("sum", UP_TO, "10", BOOKS, asked={NAME: 9.0, BOOKS: 1.0})
    assert answer(reader, sheet, sums)["expression"] == "9 + 7"
    assert share(sums.logits(sheet).answer_columns, BOOKS) < 0.01
    assert 0 < sure(reader, sheet, sums) < 0.01


@pytest.mark.parametrize("way", ["cells", "sum", "mean"])
def test_operation_without_matching_rows_takes_next_one(reader: TableReader, way: str) -> None:
    sheet = sheet_of(reader, "older than 90 ?")
    hand = bounded(way, ABOVE, "90", asked={AGE: 3.0})
    other = Hand([way, "text"], rows=hand.rows, bounded=hand.bounded, limits=hand.limits, bound=ABOVE, asked=hand.asked)
    assert answer(reader, sheet, other)["way"] == "text"


def test_pair_operations_and_words_have_no_condition(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    pair = bounded("ratio", first={(GRACE, AGE): 3.0}, second={"2": 2.0})
    assert answer(reader, sheet, pair) == told("ratio", expression="85 / 2", cells=[[GRACE, AGE]])
    assert answer(reader, sheet, bounded("text"))["condition"] is None


def test_rows_with_condition_use_separate_bias(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    plain = reader.config
    some = {ADA: 2.0, GRACE: 4.0, DONALD: 4.0}
    try:
        reader.config = plain.model_copy(update={"rows": -9.0, "held": -3.0})
        assert answer(reader, sheet, bounded("count", rows=some))["rows"] == [GRACE, DONALD]
        reader.config = plain.model_copy(update={"rows": -3.0, "held": 9.0})
        assert answer(reader, sheet, Hand(["count"], rows=some))["rows"] == [GRACE, DONALD]
    finally:
        reader.config = plain


def test_condition_score_uses_column_figure_and_first_marks(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    read = np.random.default_rng(7).normal(size=(len(sheet.chars), len(OUTPUT_NAMES)))
    frame = sheet.pooling()
    logits = table_logits(read, frame, lambda values: np.log(np.exp(values).sum(axis=0)))

    def of(place: Place, name: str) -> float:
        return float(frame.locations[spot(sheet, place)] @ read[:, OUTPUT_INDEX[name]])

    below = np.mean([of((row, AGE), "bounded.below") for row in (ADA, GRACE, DONALD)])
    assert logits.condition_columns[AGE] == pytest.approx(of((0, AGE), "bounded.head") + below, abs=1e-5)
    assert logits.limits[spot(sheet, "36")] == pytest.approx(of("36", "limit"), abs=1e-5)
    starts = np.cumsum([0, *map(len, sheet.windows)])[:-1]
    names = [f"bound.{bound}" for bound in ("none", *BOUNDS)]
    assert logits.bounds == pytest.approx([read[starts, OUTPUT_INDEX[name]].mean() for name in names], abs=1e-5)
    also = np.mean([of((row, AGE), "also.below") for row in (ADA, GRACE, DONALD)])
    assert logits.extra_columns[AGE] == pytest.approx(of((0, AGE), "also.head") + also, abs=1e-5)
    assert logits.extra_limits[spot(sheet, "36")] == pytest.approx(of("36", "also.limit"), abs=1e-5)
    assert logits.extra_bounds == pytest.approx(
        [read[starts, OUTPUT_INDEX[f"also.{name}"]].mean() for name in names], abs=1e-5
    )
