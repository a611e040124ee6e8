"""Tests table readers: the answer of each operation for given logits, the next operation if one is impossible, and
refused cards.
"""

from __future__ import annotations

import math
from bisect import bisect
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

np = pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.card import Card  # noqa: E402
from orchestra.agents.inference.array_files import pack_arrays  # noqa: E402
from orchestra.agents.inference.encoder import Encoder  # noqa: E402
from orchestra.agents.inference.tables.encoding import TableEncoding  # noqa: E402
from orchestra.agents.inference.tables.head import OUTPUT_INDEX, OUTPUT_NAMES, table_logits  # noqa: E402
from orchestra.agents.inference.tables.operations import OPERATIONS, SCALES  # noqa: E402
from orchestra.agents.inference.tables.reader import (  # noqa: E402
    MAX_WINDOWS,
    TableAnswer,
    TableReader,
    TableReaderConfig,
    answer_fields,
    reads_tables,
)
from orchestra.core.errors import InputError  # noqa: E402
from orchestra.schema.types import Validator  # noqa: E402
from orchestra.testing.tiny_encoder import SHAPE, write_encoder  # noqa: E402
from orchestra.text.arithmetic import evaluate  # noqa: E402
from tests.agents.tables import (  # noqa: E402
    CARD,
    WORDS,
    Hand,
    Place,
    answer,
    arrays,
    layout,
    share,
    sigmoid,
    spot,
    sure,
    told,
    way_and_scale,
    write,
)

TABLE = [
    ["name", "age", "books"],
    ["ada", "36", "12"],
    ["grace", "85", "-"],
    ["alan", "", "$ 9"],
    ["total", "(2)", "21"],
]
TEXT = ["ada has 7 books . is it ?", "alan is 40 ."]
QUESTION = "what is twice the difference of 5 ?"
ADA, GRACE, ALAN, TOTAL = 1, 2, 3, 4
NAME, AGE, BOOKS = 0, 1, 2


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Encoder:
    return Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))


@pytest.fixture(scope="module")
def card(tmp_path_factory: pytest.TempPathFactory) -> Card:
    return write(tmp_path_factory.mktemp("card"), arrays())


@pytest.fixture(scope="module")
def reader(card: Card, encoder: Encoder) -> TableReader:
    return TableReader.load(card, encoder)


def sheet_of(
    reader: TableReader, question: str = QUESTION, table: Any = TABLE, paragraphs: Sequence[str] = TEXT
) -> TableEncoding:
    return reader.encode_inputs({"question": question, "table": table, "paragraphs": list(paragraphs)})


def token(sheet: TableEncoding, text: str) -> int:
    """Returns the first token with this text outside the table."""
    prose = sheet.prose_mask()
    return next(
        at for at, span in enumerate(sheet.chars) if prose[at] and span is not None and sheet.text[slice(*span)] == text
    )


# Cells and words


def test_reader_returns_one_cell_at_any_probability(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["cells"], "thousand", cells={(ADA, BOOKS): -1.0, "7": 4.0, "5": 4.0})
    assert answer(reader, sheet, hand) == told("cells", ["12"], scale="thousand", cells=[[ADA, BOOKS]])
    logits = hand.logits(sheet)
    others = sum(one.row >= 0 for one in sheet.locations) - 1
    alone, none = sigmoid(-1.0) * sigmoid(6.0) ** others, sigmoid(1.0) * sigmoid(6.0) ** others
    assert sure(reader, sheet, hand) == pytest.approx(alone / (1 - none) * way_and_scale(logits, "cells")), (
        "of sets of one at least"
    )


def test_reader_cells_above_half_come_in_table_order(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["cells"], cells={(TOTAL, NAME): 3.0, (ADA, NAME): 1.0, (0, AGE): 2.0, (GRACE, NAME): -0.1})
    assert answer(reader, sheet, hand) == told(
        "cells", ["age", "ada", "total"], cells=[[0, AGE], [ADA, NAME], [TOTAL, NAME]]
    )
    rest = sum(one.row >= 0 for one in sheet.locations) - 4
    chances = [*map(sigmoid, (3.0, 1.0, 2.0, 0.1)), *[sigmoid(6.0)] * rest]
    none = np.prod([*(1 - np.array(chances[:3])), *chances[3:]])
    assert sure(reader, sheet, hand) == pytest.approx(
        np.prod(chances) / (1 - none) * way_and_scale(hand.logits(sheet), "cells")
    )


def test_reader_returns_words_of_one_paragraph(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    first, last = token(sheet, "has"), token(sheet, "books")
    inside = next(at for at, span in enumerate(sheet.chars) if span is not None and sheet.text[slice(*span)] == "grace")
    hand = Hand(["text"], begin={first: 4.0, inside: 9.0}, end={last: 3.0, inside: 9.0, first - 1: 8.0})
    assert answer(reader, sheet, hand) == told("text", ["has 7 books"]), "not of the table, and not before it begins"
    logits, prose = hand.logits(sheet), sheet.prose_mask()
    begin, end = (
        share(one[prose], int(np.flatnonzero(prose).searchsorted(at)))
        for one, at in ((logits.begin, first), (logits.end, last))
    )
    assert sure(reader, sheet, hand) == pytest.approx(begin * end * way_and_scale(logits, "text"))


def test_reader_words_do_not_cross_paragraphs(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    has, alan = token(sheet, "has"), token(sheet, "alan")
    assert answer(reader, sheet, Hand(["text"], begin={has: 9.0, alan: 5.0}, end={alan: 9.0})) == told("text", ["alan"])


def test_reader_words_do_not_cross_windows(reader: TableReader) -> None:
    sheet = sheet_of(
        reader, paragraphs=["the total of the books is in the rooms of grace and alan and ada and edsger . " * 2]
    )
    prose = np.flatnonzero(sheet.prose_mask())
    [*_, last] = [at for at in prose if at < len(sheet.windows[0])]
    first = min(at for at in prose if at > last)
    assert (len(sheet.windows), first > last + 1) == (2, True)
    hand = Hand(["text"], begin={int(last) - 1: 9.0}, end={int(first): 9.0, int(last): 1.0})
    found, _ = reader.decode(sheet, hand.logits(sheet))
    assert len(found.text.split()) == 2


def test_reader_words_respect_length_limit(reader: TableReader, card: Card) -> None:
    sheet = sheet_of(reader)
    first, last = token(sheet, "ada"), token(sheet, "books")
    hand = Hand(["text"], begin={first: 9.0}, end={last: 9.0, first + 1: 1.0})
    short = TableReader(reader.config.model_copy(update={"longest": last - first}), arrays(), reader.encoder, card)
    assert answer(reader, sheet, hand)["quotes"] == ["ada has 7 books"]
    assert answer(short, sheet, hand)["quotes"] == ["ada has"]


# Rows


@pytest.mark.parametrize(
    ("rows", "expression"),
    [({}, "0"), ({GRACE: 0.1}, "1"), ({ADA: 3.0, GRACE: -0.1, TOTAL: 1.0}, "1 + 1"), ({0: 9.0, ALAN: 2.0}, "1")],
)
def test_reader_counts_body_rows_above_half(reader: TableReader, rows: dict[int, float], expression: str) -> None:
    sheet = sheet_of(reader)
    counted = [row for row, value in rows.items() if value > 0 and row > 0]
    hand = Hand(["count"], rows=rows)
    assert answer(reader, sheet, hand) == told(
        "count", expression=expression, rows=counted, cells=[[row, NAME] for row in counted]
    )
    chances = np.prod([sigmoid(abs(rows.get(row, -6.0))) for row in range(1, 5)])
    assert sure(reader, sheet, hand) == pytest.approx(chances * way_and_scale(hand.logits(sheet), "count"))


@pytest.mark.parametrize(
    ("way", "by", "asked", "rows", "quote", "compared", "top"),
    [
        ("most", BOOKS, NAME, [], "total", [1, 2, 3, 4], TOTAL),
        ("least", BOOKS, NAME, [], "alan", [1, 2, 3, 4], ALAN),
        ("most", BOOKS, NAME, [ADA, GRACE, ALAN], "ada", [1, 2, 3], ADA),
        ("most", AGE, NAME, [ADA, GRACE, ALAN], "grace", [1, 2, 3], GRACE),
        ("least", AGE, NAME, [ADA, GRACE, ALAN], "ada", [1, 2, 3], ADA),
        ("least", AGE, BOOKS, [], "21", [1, 2, 3, 4], TOTAL),
        ("most", AGE, AGE, [ADA, TOTAL], "36", [1, 4], ADA),
    ],
)
def test_reader_extreme_returns_cell_of_its_row(
    reader: TableReader, way: str, by: int, asked: int, rows: list[int], quote: str, compared: list[int], top: int
) -> None:
    sheet = sheet_of(reader)
    hand = Hand([way], rows=dict.fromkeys(rows, 4.0), by={by: 3.0}, asked={asked: 2.0})
    cells = [[top, asked]] if asked == by else [[top, asked], [top, by]]
    assert answer(reader, sheet, hand) == told(way, [quote], rows=compared, column=by, cells=cells)
    logits, outs = hand.logits(sheet), 4 - len(rows)
    chances = (
        sigmoid(4.0) ** len(rows)
        * sigmoid(6.0) ** outs
        * share(logits.order_columns, by)
        * share(logits.answer_columns, asked)
    )
    assert sure(reader, sheet, hand) == pytest.approx(chances * way_and_scale(logits, way))


def test_reader_extreme_skips_column_without_figures(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["most"], rows={ADA: 4.0, GRACE: 4.0}, by={NAME: 9.0, AGE: 1.0, BOOKS: 3.0}, asked={NAME: 2.0})
    assert answer(reader, sheet, hand) == told(
        "most", ["ada"], rows=[ADA, GRACE], column=BOOKS, cells=[[ADA, NAME], [ADA, BOOKS]]
    )
    alone = Hand(["most"], rows={GRACE: 4.0}, by={NAME: 9.0, AGE: 1.0, BOOKS: 3.0}, asked={NAME: 2.0})
    assert answer(reader, sheet, alone) == told(
        "most", ["grace"], rows=[GRACE], column=AGE, cells=[[GRACE, NAME], [GRACE, AGE]]
    ), "a dash has no measure either"


def test_reader_extreme_with_empty_cell_uses_next_column(reader: TableReader) -> None:
    hand = Hand(["least"], by={BOOKS: 3.0}, asked={AGE: 5.0, NAME: 2.0})
    assert answer(reader, sheet_of(reader), hand)["quotes"] == ["alan"]


def test_reader_config_biases_add_cells_and_rows(reader: TableReader, card: Card) -> None:
    sheet = sheet_of(reader)
    layout = reader.config.model_copy(update={"cells": 1.5, "rows": -1.5})
    other = TableReader(layout, arrays(), reader.encoder, card)
    cells = Hand(["cells"], cells={(ADA, AGE): 2.0, (ADA, BOOKS): -1.0})
    assert (answer(reader, sheet, cells)["quotes"], answer(other, sheet, cells)["quotes"]) == (["36"], ["36", "12"])
    rows = Hand(["count"], rows={ADA: 2.0, ALAN: 1.0})
    assert (answer(reader, sheet, rows)["rows"], answer(other, sheet, rows)["rows"]) == ([ADA, ALAN], [ADA])
    chances = [*map(sigmoid, (0.5, 7.5, 0.5, 7.5))]
    assert sure(other, sheet, rows) == pytest.approx(np.prod(chances) * way_and_scale(rows.logits(sheet), "count"))


# Sums


def test_reader_sum_uses_figures_of_table_and_text(reader: TableReader) -> None:
    sheet = sheet_of(reader, "what is it of 5 ?", [["name", "20"], *TABLE[1:]])
    strong: dict[Place, float] = {(0, 1): 9.0, "5": 9.0, (ADA, NAME): 9.0, (TOTAL, 1): 1.0, (ALAN, 2): 2.0, "7": 0.5}
    cells = [[0, 1], [ALAN, 2], [TOTAL, 1]]
    said = answer(reader, sheet, Hand(["sum"], "million", cells=strong))
    assert said == told("sum", expression="20 + 9 + -2 + 7", scale="million", cells=cells)
    assert answer(reader, sheet, Hand(["mean"], cells=strong)) == told(
        "mean", expression="(20 + 9 + -2 + 7) / 4", cells=cells
    )


def test_reader_sum_has_at_least_two_figures(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    hand = Hand(["mean"], cells={(ADA, AGE): 2.0, (ADA, BOOKS): -2.0})
    assert answer(reader, sheet, hand) == told("mean", expression="(36 + 12) / 2", cells=[[ADA, AGE], [ADA, BOOKS]])
    figures = sum(one.figure is not None and one.question_figure is None for one in sheet.locations)
    two = math.prod([sigmoid(2.0), sigmoid(-2.0), *[sigmoid(6.0)] * (figures - 2)])
    none = math.prod([sigmoid(-2.0), sigmoid(2.0), *[sigmoid(6.0)] * (figures - 2)])
    one = none * (math.exp(2.0) + math.exp(-2.0) + math.exp(-6.0) * (figures - 2))
    assert sure(reader, sheet, hand) == pytest.approx(
        two / (1 - none - one) * way_and_scale(hand.logits(sheet), "mean")
    ), "of two at least"


@pytest.mark.parametrize(
    ("way", "expression"),
    [
        *[
            ("difference", "85 - 7"),
            ("change", "(85 - 7) / 7 * 100"),
            ("share", "85 / 7 * 100"),
            ("ratio", "85 / 7"),
            ("product", "85 * 7"),
        ],
        *[("portion", "85 * 7 / 100"), ("discount", "85 * (100 - 7) / 100"), ("surcharge", "85 * (100 + 7) / 100")],
    ],
)
def test_reader_pair_operations_use_two_figures(reader: TableReader, way: str, expression: str) -> None:
    sheet = sheet_of(reader)
    hand = Hand([way], "percent", first={(GRACE, AGE): 3.0, (GRACE, NAME): 9.0}, second={"7": 2.0})
    assert answer(reader, sheet, hand) == told(way, expression=expression, scale="percent", cells=[[GRACE, AGE]])
    logits = hand.logits(sheet)
    figures = [at for at, one in enumerate(sheet.locations) if one.figure is not None]
    pairs = [(one, two) for one in figures for two in figures if one != two]
    worth = [logits.first[one] + logits.second[two] for one, two in pairs]
    chance = share(np.array(worth), pairs.index((spot(sheet, (GRACE, AGE)), spot(sheet, "7"))))
    assert sure(reader, sheet, hand) == pytest.approx(chance * way_and_scale(logits, way))


def test_reader_computes_with_question_figures_in_words(reader: TableReader) -> None:
    sheet = sheet_of(reader)
    assert (
        answer(reader, sheet, Hand(["product"], first={(TOTAL, AGE): 3.0}, second={"twice": 2.0}))["expression"]
        == "-2 * 2"
    )
    assert (
        answer(reader, sheet, Hand(["ratio"], first={"5": 3.0}, second={(ALAN, BOOKS): 2.0}))["expression"] == "5 / 9"
    )


# Impossible operations


@pytest.mark.parametrize("count", [200, 245, 250, 1000])
def test_reader_counts_and_sums_any_number_of_rows(reader: TableReader, count: int) -> None:
    sheet = sheet_of(reader, "who ?", [["name", "age"], *[["ada", "1,234.50"]] * count], [])
    rows = range(1, count + 1)
    counted = answer(reader, sheet, Hand(["count", "cells"], rows=dict.fromkeys(rows, 4.0), cells={(7, 1): 2.0}))
    assert (counted["way"], evaluate(counted["expression"])) == ("count", Fraction(count))
    for way, value in (("sum", count * Fraction("1234.5")), ("mean", Fraction("1234.5"))):
        found = answer(reader, sheet, Hand([way, "cells"], cells={(row, 1): 2.0 for row in rows}))
        assert (found["way"], evaluate(found["expression"])) == (way, value)


WORDS_ONLY = [["name", "of"], ["ada", "grace"]]


@pytest.mark.parametrize(
    ("way", "table", "paragraphs"),
    [
        ("text", TABLE, []),
        ("cells", [], TEXT),
        ("count", [["name", "age"]], TEXT),
        ("most", WORDS_ONLY, TEXT),
        ("least", [], TEXT),
        ("sum", WORDS_ONLY, ["it is 7 ."]),
        ("mean", [["name", "20"], ["ada", "grace"]], ["it is ."]),
        ("share", WORDS_ONLY, ["it is ."]),
    ],
)
def test_reader_impossible_operation_uses_next_one(
    reader: TableReader, way: str, table: Any, paragraphs: list[str]
) -> None:
    sheet = sheet_of(reader, "who is 5 ?", table, paragraphs)
    other = "cells" if way == "text" else "text"
    hand = Hand([way, other])
    found, scale = reader.decode(sheet, hand.logits(sheet))
    assert (found.operation, scale) == (other, "")
    assert 0 < found.probability < way_and_scale(hand.logits(sheet), other) < 0.5
    assert answer_fields(found, scale, sheet)["quotes"] != []


def test_reader_without_table_and_text_finds_nothing(reader: TableReader) -> None:
    sheet = sheet_of(reader, "who is it ?", [], [])
    assert reader.decode(sheet, Hand(["sum"], "percent").logits(sheet)) == (TableAnswer("cells", 0.0), "")
    output, probability = reader.predict({"question": "who is it ?", "table": [], "paragraphs": []})
    assert (output, probability) == (told("cells", answer=[]), 0.0)


# Whole readers


def test_reader_location_score_uses_cell_row_and_column(reader: TableReader) -> None:
    sheet = sheet_of(reader, paragraphs=[*TEXT, *["ada is 36 ."] * 3])
    read = np.random.default_rng(5).normal(size=(len(sheet.chars), len(OUTPUT_NAMES)))
    logits, frame = (
        table_logits(read, sheet.pooling(), lambda values: np.log(np.exp(values).sum(axis=0))),
        sheet.pooling(),
    )

    def mean(places: list[Place], name: str) -> float:
        return float(np.mean([frame.locations[spot(sheet, place)] @ read[:, OUTPUT_INDEX[name]] for place in places]))

    for role, found in (("cells", logits.cells), ("first", logits.first), ("second", logits.second)):
        row = mean([(ALAN, NAME)], f"{role}.label") + mean([(ALAN, BOOKS)], f"{role}.body")
        column = mean([(0, BOOKS)], f"{role}.head")
        column += mean([(ADA, BOOKS), (GRACE, BOOKS), (ALAN, BOOKS), (TOTAL, BOOKS)], f"{role}.below")
        assert found[spot(sheet, (ALAN, BOOKS))] == pytest.approx(mean([(ALAN, BOOKS)], f"{role}.own") + row + column)
        assert found[spot(sheet, "7")] == pytest.approx(mean(["7"], f"{role}.own"))
    rows = mean([(GRACE, NAME)], "rows.label") + mean([(GRACE, AGE), (GRACE, BOOKS)], "rows.body")
    assert logits.rows[GRACE] == pytest.approx(rows)
    for name, found in (("asked", logits.answer_columns), ("by", logits.order_columns)):
        below: list[Place] = [(ADA, AGE), (GRACE, AGE), (TOTAL, AGE)]
        assert found[AGE] == pytest.approx(mean([(0, AGE)], f"{name}.head") + mean(below, f"{name}.below"))
    starts = np.cumsum([0, *map(len, sheet.windows)])[:-1]
    assert len(starts) > 1
    assert logits.operations == pytest.approx(
        [read[starts, OUTPUT_INDEX[f"way.{way}"]].mean() for way in OPERATIONS], abs=1e-6
    )
    of_scales = [read[:, OUTPUT_INDEX[f"scale.{scale}"]] for scale in SCALES]
    assert logits.scales == pytest.approx(
        [one[starts].mean() + np.log(np.exp(one).sum()) for one in of_scales], abs=1e-6
    )
    assert logits.begin.tolist() == read[:, OUTPUT_INDEX["begin"]].tolist()
    assert logits.end.tolist() == read[:, OUTPUT_INDEX["end"]].tolist()


@pytest.mark.parametrize(
    ("way", "answered"),
    [("count", 4), ("cells", ["name"]), ("sum", 57), ("mean", 28.5), ("change", 71.42857), ("most", ["ada"])],
)
def test_reader_answer_with_expression_is_computed(encoder: Encoder, tmp_path: Path, way: str, answered: Any) -> None:
    made, table = arrays(), [["name", "age"], ["ada", "36"], ["alan", "21"], ["total", "-"], ["grace", ""]]
    made["weight"][:] = 0
    made["bias"][[OUTPUT_INDEX[f"way.{way}"], OUTPUT_INDEX["scale.percent"], OUTPUT_INDEX["rows.label"]]] = 20
    said = {"question": "what ?", "table": table if way != "cells" else [["name"]], "paragraphs": []}
    output, probability = TableReader.load(write(tmp_path / "one", made), encoder).predict(said)
    assert (output["way"], output["scale"]) == (way, "percent")
    assert output["answer"] == (answered if isinstance(answered, list) else pytest.approx(answered))
    for name in ("sharpen", "heat"):  # the present name and the former one
        same, sure_of_it = TableReader.load(write(tmp_path / name, made, **{name: 0.5}), encoder).predict(said)
        assert same == output
        assert sure_of_it == pytest.approx(probability**0.5)


CELLS = st.lists(st.lists(st.text("ab 1,.$(-)", max_size=5), min_size=2, max_size=3), max_size=4)


@given(st.text(max_size=20), CELLS, st.lists(st.text(max_size=30), max_size=2), st.integers(0, 9))
def test_reader_answer_has_its_type_and_exact_quotes(
    card: Card, encoder: Encoder, question: str, table: list[list[str]], paragraphs: list[str], seed: int
) -> None:
    made = arrays() | {"bias": np.random.default_rng(seed).normal(0, 5, len(OUTPUT_NAMES))}
    reader = TableReader(TableReaderConfig.model_validate(layout() | {"sha256": "0" * 64}), made, encoder, card)
    output, probability = reader.predict({"question": question, "table": table, "paragraphs": paragraphs})
    assert Validator(card.output_schema).check(output) is None
    assert 0 <= probability <= 1
    stands = [*(" ".join(cell.split()) for row in table for cell in row), *paragraphs]
    assert all(any(quote in one for one in stands) for quote in output["quotes"])
    assert output["expression"] is None or not output["quotes"]


# Cards


def test_table_card_is_distinct_from_span_card(card: Card, tmp_path: Path) -> None:
    assert reads_tables(card)
    without = CARD.replace("  rows: list[Index]\n", "").replace(
        "computed:\n  answer: {value: expression, otherwise: quotes}\n", ""
    )
    (tmp_path / "agent.yaml").write_text(without)
    assert not reads_tables(Card.load(tmp_path))


def test_reader_adapter_changes_output(encoder: Encoder, tmp_path: Path) -> None:
    sheet = sheet_of(TableReader.load(write(tmp_path, arrays()), encoder))
    plain, changed = (
        TableReader.load(write(tmp_path / str(up), arrays(up=up)), encoder).logits(sheet) for up in (0.0, 0.3)
    )
    assert np.abs(plain.cells - changed.cells).max() > 0.1


BAD: dict[str, dict[str, Any]] = {
    "a weight for fewer outputs": {"weight": np.zeros((len(OUTPUT_NAMES) - 1, SHAPE.hidden_size))},
    "a weight of another width": {"weight": np.zeros((len(OUTPUT_NAMES), SHAPE.hidden_size + 1))},
    "a bias for fewer outputs": {"bias": np.zeros(len(OUTPUT_NAMES) - 1)},
    "an adapter of another width": {f"up.{next(SHAPE.linear_layers)}": np.zeros((1, 5, 2))},
    "adapters of two members": {f"down.{next(SHAPE.linear_layers)}": np.zeros((2, 2, SHAPE.hidden_size))},
    "no bias": {"bias": None},
    "half of an adapter": {f"up.{next(SHAPE.linear_layers)}": None},
}


@pytest.mark.parametrize("bad", BAD)
def test_arrays_that_do_not_fit_are_refused(encoder: Encoder, tmp_path: Path, bad: str) -> None:
    made = {name: array for name, array in (arrays() | BAD[bad]).items() if array is not None}
    with pytest.raises(InputError) as caught:
        TableReader.load(write(tmp_path, made), encoder)
    assert caught.value.code == "A011"


@pytest.mark.parametrize(
    "change", [{"format": "orchestra/spans/v1"}, {"tokens": 63}, {"heat": 0}, {"sharpen": 0}, {"more": 1}]
)
def test_reader_invalid_config_is_refused(encoder: Encoder, tmp_path: Path, change: dict[str, Any]) -> None:
    with pytest.raises(InputError) as caught:
        TableReader.load(write(tmp_path, arrays(), **change), encoder)
    assert caught.value.code == "A011"


def test_reader_changed_arrays_are_refused(encoder: Encoder, tmp_path: Path) -> None:
    card = write(tmp_path, arrays())
    (tmp_path / "tables.npz").write_bytes(pack_arrays(layout(), arrays(up=1.0))[1])
    with pytest.raises(InputError) as caught:
        TableReader.load(card, encoder)
    assert caught.value.code == "A011"


def test_reader_too_long_table_is_refused_before_encoding(reader: TableReader) -> None:
    def ask(rows: int) -> tuple[dict[str, Any], int]:
        given = {"question": "who ?", "table": [["name", "age"], *[["ada", "7"]] * rows], "paragraphs": []}
        return given, len(reader.encode_inputs(given).windows)

    rows = bisect(range(999), MAX_WINDOWS, key=lambda rows: ask(rows)[1])
    given, windows = ask(rows - 1)
    assert windows == MAX_WINDOWS
    assert reader.predict(given)[0]["way"] in OPERATIONS
    with pytest.raises(InputError, match="table and paragraphs have about 1,0") as caught:
        reader.predict(ask(rows)[0])
    assert caught.value.code == "A023"
