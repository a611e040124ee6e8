"""Tests sums over counts and unit prices: each count is multiplied by its price; the two are never added."""

from __future__ import annotations

import pytest

pytest.importorskip("numpy")
pytest.importorskip("tokenizers")

from orchestra.agents.inference.encoder import Encoder
from orchestra.agents.inference.tables.reader import TableReader
from orchestra.testing.tiny_encoder import write_encoder
from tests.agents.tables import WORDS, Hand, Place, answer, arrays, told, write

TABLE = [
    ["name", "rooms", "$", "total"],
    ["ada", "3", "68.00", "2.5"],
    ["grace", "40", "1.20", "7.5"],
    ["alan", "60", "0.85", "1"],
]
ROOMS, PRICE, TOTAL = 1, 2, 3


@pytest.fixture(scope="module")
def reader(tmp_path_factory: pytest.TempPathFactory) -> TableReader:
    base = Encoder.load(write_encoder(tmp_path_factory.mktemp("base"), WORDS))
    return TableReader.load(write(tmp_path_factory.mktemp("card"), arrays()), base)


def summed(
    reader: TableReader, places: list[tuple[int, int]], table: list[list[str]] = TABLE, *ways: str
) -> tuple[str, str | None]:
    strong: dict[Place, float] = dict.fromkeys(places, 9.0)
    sheet = reader.encode_inputs({"question": "how many ?", "table": table, "paragraphs": []})
    said = answer(reader, sheet, Hand(ways or ("sum",), cells=strong))
    return said["way"], said["expression"]


def test_total_of_one_row_is_product_of_count_and_price(reader: TableReader) -> None:
    assert summed(reader, [(1, ROOMS), (1, PRICE)]) == ("product", "3 * 68.00")


def test_total_of_rows_is_sum_of_products(reader: TableReader) -> None:
    places = [(2, ROOMS), (2, PRICE), (3, ROOMS), (3, PRICE)]
    assert summed(reader, places) == ("sum", "40 * 1.20 + 60 * 0.85")
    sheet = reader.encode_inputs({"question": "how many ?", "table": TABLE, "paragraphs": []})
    said = answer(reader, sheet, Hand(["sum"], cells=dict.fromkeys(places, 9.0)))
    assert said == told("sum", expression="40 * 1.20 + 60 * 0.85", cells=[list(place) for place in places])


@pytest.mark.parametrize(
    ("places", "expression"),
    [
        ([(1, ROOMS), (2, ROOMS), (3, ROOMS)], "3 + 40 + 60"),
        ([(1, PRICE), (3, PRICE)], "68.00 + 0.85"),
        ([(1, PRICE), (1, TOTAL)], "68.00 + 2.5"),
        ([(1, ROOMS), (1, TOTAL)], "3 + 2.5"),
    ],
)
def test_figures_of_one_or_unknown_kind_are_summed(
    reader: TableReader, places: list[tuple[int, int]], expression: str
) -> None:
    assert summed(reader, places) == ("sum", expression)


def test_total_with_incomplete_pairs_uses_next_operation(reader: TableReader) -> None:
    odd = [(1, ROOMS), (1, PRICE), (2, PRICE)]
    assert summed(reader, odd, TABLE, "sum", "cells") == ("cells", None)
    assert summed(reader, [(1, ROOMS), (1, PRICE)], TABLE, "mean", "cells") == ("cells", None), (
        "there is no mean of a count and a price"
    )


def test_years_are_no_counts(reader: TableReader) -> None:
    table = [["name", "age", "$"], ["ada", "1990", "68.00"], ["grace", "2004", "1.20"]]
    assert summed(reader, [(1, 1), (1, 2)], table, "sum", "cells") == ("cells", None)
