"""`bench.routing`: scores depend on the question only, and figures equal the reference metrics."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

pytest.importorskip("sklearn")

from bench.routing import AGENT, Outcome, figures, scored, shape_of

HARD = ("integral", "matrix", "theorem", "isotope")
EASY = ("capital", "colour", "river", "animal")


def made(count: int, seed: int) -> list[Outcome]:
    chance = random.Random(seed)
    rows = []
    for number in range(count):
        hard = chance.random() < 0.5
        word, other = chance.choice(HARD if hard else EASY), chance.choice(("first", "second", "third"))
        text = f"Which {word} is the {other} one?\nA. this\nB. that\nAnswer:"
        rows.append(Outcome(f"q{number}", text, weak=not hard, strong=True, subject="hard" if hard else "easy"))
    return rows


def test_routing_learns_from_training_rows() -> None:
    train, judged = made(200, 1), made(60, 2)
    arms = scored(train, judged)
    assert figures(judged, arms[AGENT], 50)[0].value > 0.7
    assert figures(judged, arms["length"], 50)[0].value < 0.7


def test_routing_scores_ignore_test_labels() -> None:
    train, judged = made(120, 1), made(20, 2)
    hidden = [replace(one, weak=not one.weak, strong=not one.strong, subject="other") for one in judged]
    assert {name: list(scores) for name, scores in scored(train, judged).items()} == {
        name: list(scores) for name, scores in scored(train, hidden).items()
    }


def test_shape_of_any_text_is_finite() -> None:
    assert len({len(shape_of(text)) for text in ("", "?", "A. x\nB. y", "1 + 1 = 2%")}) == 1


def test_routing_interval_contains_figure() -> None:
    judged = made(80, 3)
    for one in figures(judged, [len(row.question) for row in judged], 200):
        assert one.low <= one.value <= one.high
