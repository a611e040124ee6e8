"""Floors: what anybody gets without a language model."""

from __future__ import annotations

from orchestra.learn.floors import floors
from orchestra.learn.questions import Shown

ROWS = [
    Shown({"text": "my card has not come"}, {"intent": "card_arrival"}),
    Shown({"text": "where is my new card"}, {"intent": "card_arrival"}),
    Shown({"text": "the exchange rate is wrong"}, {"intent": "exchange_rate"}),
]


def test_the_most_frequent_output_and_that_of_the_nearest_row() -> None:
    constant, nearest = floors(ROWS)
    assert constant({"text": "exchange rate?"}) == {"intent": "card_arrival"}
    assert nearest({"text": "Exchange rate?"}) == {"intent": "exchange_rate"}
    assert nearest({"text": "zzz"}) == {"intent": "card_arrival"}


def test_without_rows_there_is_no_floor() -> None:
    assert floors([]) == ()
