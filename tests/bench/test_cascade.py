"""`bench.cascade`: votes by value, tiers from stored answers, and the report of a pair of tiers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.answer_sheets import Set, Sheet, read
from bench.cascade import AFTER, VOTES, Tier, arms_of, ensemble_of, gap, pair, tiers_of, voted
from bench.page import renewed
from orchestra.agents.card import Card
from orchestra.agents.inference.linear import LinearRegressor
from orchestra.agents.registry import builtin_folder
from orchestra.learn.evaluation import rows as rows_module
from orchestra.learn.evaluation.rows import EvaluationRow

CARD = Card.load(builtin_folder("agents") / "generative_calculator")
SVAMP = Set("svamp", "generative_calculator", "svamp")


def sheet(answer: float | None, expression: str = "1") -> Sheet:
    return Sheet(
        "1", None if answer is None else {"expression": expression, "answer": answer}, prompt_tokens=10, output_tokens=2
    )


def test_voted_by_value_ties_to_first() -> None:
    assert voted(CARD, [sheet(3), sheet(4, "2+2"), sheet(4, "1+3")]) == {"expression": "2+2", "answer": 4}
    assert voted(CARD, [sheet(None), sheet(5), sheet(6)]) == {"expression": "1", "answer": 5}
    assert voted(CARD, [sheet(None), sheet(None)]) is None


def rows(count: int) -> list[EvaluationRow]:
    return [
        EvaluationRow(str(number), {"question": f"What is {number} and 1?"}, {"answer": number + 1})
        for number in range(count)
    ]


def written(folder: Path, count: int) -> None:
    """The base is correct on no row, the adapter on even ones, three of five samples on those and every third one."""

    def lines(name: str, right: object) -> None:
        given = [(number, number + 1 if right(number) else 0) for number in range(count)]  # type: ignore[operator]
        sheets = [
            {
                "id": str(number),
                "output": {"expression": "1", "answer": answer},
                "score": 0.5,
                "prompt_tokens": 10,
                "output_tokens": 2,
            }
            for number, answer in given
        ]
        (folder / f"svamp.{name}.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in sheets))

    lines("untuned", lambda number: False)
    lines("adapter", lambda number: number % 2 == 0)
    for sample in range(1, VOTES + 1):
        lines(f"sample{sample}", lambda number, sample=sample: number % 2 == 0 or (number % 3 == 0 and sample <= 3))
    lines("adapter.alone", lambda number: True)
    lines("ensemble", lambda number: number % 4 != 1)


def test_tiers_use_rows_answered_by_all(tmp_path: Path) -> None:
    written(tmp_path, 12)
    known, tiers = tiers_of(SVAMP, CARD, rows_module.EvaluationSet("svamp", "", rows(15)), tmp_path)
    assert len(known) == 12
    assert [tier.share for tier in tiers] == [0.0, 0.5, pytest.approx(8 / 12)]
    assert [tier.tokens for tier in tiers] == [(10.0, 2.0), (10.0, 2.0), (50.0, 10.0)]
    assert tiers[0].doubt == [0.5] * 12
    assert len(read(tmp_path / "svamp.adapter.alone.jsonl")) == 12


def test_ensemble_is_separate_tier(tmp_path: Path) -> None:
    written(tmp_path, 12)
    cards = {
        card.name: card
        for card in map(Card.load, (builtin_folder("agents") / name for name in ("generative_reader", "reader")))
    }
    ensemble = ensemble_of(cards["generative_reader"], cards)
    assert ensemble is cards["reader"]
    assert ensemble_of(cards["reader"], cards) is None
    test = rows_module.EvaluationSet("svamp", "", rows(15))
    arms = list(arms_of(SVAMP, CARD, test, ensemble))
    assert [arm.name for arm in arms[:4]] == ["adapter", "untuned", "ensemble", "sample1"]
    assert arms[2].card.name == "reader"
    _, tiers = tiers_of(SVAMP, CARD, test, tmp_path, ensemble)
    assert [tier.share for tier in tiers] == [0.0, 0.5, pytest.approx(8 / 12), 0.75]
    assert "`reader`" in tiers[3].name


def test_pair_table_needs_gap_and_costs_both_tiers() -> None:
    weak = Tier("weak", [False, True] * 50, [0.9, 0.1] * 50, (100.0, 10.0), 1.0)
    strong = Tier("strong", [True] * 100, [0.0] * 100, (500.0, 50.0), 5.0)
    regressor = LinearRegressor.load(Card.load(builtin_folder("agents") / "difficulty"))
    told = pair(rows(100), weak, strong, regressor, 50)
    after = next(line for line in told if line.startswith(f"| {AFTER}"))
    assert after.split("|")[2].split()[0] == "0.750"  # half of the rows gain, and they come first
    assert after.endswith("| 300, 30 |")  # all of the cheaper tier, and 0.4 of the more expensive one
    assert "no gap that is surely there" in pair(rows(100), weak, weak, regressor, 50)[0]
    assert gap(weak, strong, 50).value == 0.5


def test_cascade_page_keeps_unmeasured_block() -> None:
    page = "<!-- measured:one -->\nold\n<!-- end:one -->\n<!-- measured:two -->\nold\n<!-- end:two -->\n"
    assert renewed(page, {"two": "new\n"}) == page.replace("measured:two -->\nold", "measured:two -->\n\nnew\n")
