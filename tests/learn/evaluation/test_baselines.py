"""Baselines without a language model."""

from __future__ import annotations

from orchestra.learn.evaluation.baselines import fit_baselines
from orchestra.learn.evaluation.rows import ReferenceRow

ROWS = [
    ReferenceRow({"text": "my card has not come"}, {"intent": "card_arrival"}),
    ReferenceRow({"text": "where is my new card"}, {"intent": "card_arrival"}),
    ReferenceRow({"text": "the exchange rate is wrong"}, {"intent": "exchange_rate"}),
]


def test_baselines_most_frequent_and_nearest_row() -> None:
    constant, nearest = fit_baselines(ROWS)
    assert constant({"text": "exchange rate?"}) == {"intent": "card_arrival"}
    assert nearest({"text": "Exchange rate?"}) == {"intent": "exchange_rate"}
    assert nearest({"text": "zzz"}) == {"intent": "card_arrival"}


def test_baselines_without_rows_are_empty() -> None:
    assert fit_baselines([]) == ()


def test_baselines_spans_use_seen_values() -> None:
    shown = [
        ReferenceRow(
            {"text": "8 people at 7", "requested": []},
            {"slots": {"people": {"value": "8 people", "start": 0, "end": 8}}},
        ),
        ReferenceRow(
            {"text": "people", "requested": []}, {"slots": {"people": {"value": "people", "start": 0, "end": 6}}}
        ),
        ReferenceRow({"text": "today", "requested": []}, {"slots": {"date": {"value": "today", "start": 0, "end": 5}}}),
    ]
    *_, dictionary = fit_baselines(shown)
    found = dictionary({"text": "Today, for 8 people and a dog", "requested": []})
    assert found == {
        "slots": {
            "people": {"value": "8 people", "start": 11, "end": 19},
            "date": {"value": "Today", "start": 0, "end": 5},
        }
    }
