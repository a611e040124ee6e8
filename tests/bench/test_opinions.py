"""Check features of answers, and a score that is fitted on other rows."""

from __future__ import annotations

import math
import random
from pathlib import Path

import pytest

from bench.answer_sheets import SETS, Sheet, read
from bench.opinions import Answered, accepted, agreement, combined, opinions, said, verdicts, weighed
from bench.risk import Curve
from orchestra.agents.card import Card
from orchestra.learn.evaluation.rows import EvaluationRow

AGENTS = Path(__file__).parent.parent.parent / "agents"
QUESTION = EvaluationRow(
    "1", {"question": "Ann has 48 apples and sells half of them, then 7. How many are left?"}, {"answer": 17}
)


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ({"answer": "The Eiffel Tower"}, {"answer": "eiffel tower."}, True),
        ({"answer": None}, {"answer": ""}, True),
        ({"expression": "1+1", "answer": 2}, {"expression": "4/2", "answer": 2.0}, True),
        ({"answer": ["1,200"], "scale": "", "quotes": []}, {"answer": 1200}, True),
        ({"answer": ["b", "a"], "scale": ""}, {"answer": ["a", "b"], "scale": "thousand"}, True),
        ({"answer": "1889"}, {"answer": "1899"}, False),
        ({"intent": "a", "p_oos": 0.1}, {"intent": "a", "p_oos": 0.9}, True),
        ({"calls": [{"name": "f", "arguments": {"a": 1}}]}, {"calls": [{"arguments": {"a": 1}, "name": "f"}]}, True),
        ({"calls": []}, {"calls": [{"name": "f", "arguments": {}}]}, False),
        (
            {"slots": {"time": {"value": "8", "start": 1, "end": 2}}},
            {"slots": {"time": {"value": "8", "start": 4, "end": 5}}},
            False,
        ),
    ],
)
def test_equal_answers_compare_equal(one: object, other: object, same: bool) -> None:
    assert (said(one) == said(other)) is same


def test_agreement_share_and_entropy() -> None:
    assert agreement("a", ["a", "a", "a"]) == (1.0, 1.0)
    share, order = agreement("a", ["a", "b", "c"])
    assert share == pytest.approx(1 / 3)
    assert order == pytest.approx(0.0)


def test_features_of_expression_with_foreign_numbers() -> None:
    one, card = next(one for one in SETS if one.name == "svamp"), Card.load(AGENTS / "generative_calculator")

    def of(expression: str, answer: float) -> Answered:
        sheet = Sheet("1", {"expression": expression, "answer": answer}, 0.5, (-0.5, -0.2))
        return Answered(QUESTION, sheet, {})

    good, strange = (opinions(row, one, card) for row in (of("48/2-7", 17), of("93/2-5", 41.5)))
    assert good.keys() == strange.keys()
    assert sum(good["deterministic"]) > sum(strange["deterministic"])
    assert accepted(of("48/2-7", 17), card, ["schema", "confidence"]) == 0.5
    assert accepted(Answered(QUESTION, Sheet("1"), {}), card, ["schema"]) is None


def test_features_include_every_blind_agent() -> None:
    one, card = (
        next(one for one in SETS if one.title == "svamp, calculator"),
        Card.load(AGENTS / "generative_calculator"),
    )
    own, other = (
        Sheet("1", {"expression": "48/2-7", "answer": 17}, 0.9),
        Sheet("1", {"expression": "48-7", "answer": 41}, 0.5),
    )
    said = opinions(Answered(QUESTION, own, {"blind1": own, "blind2": other}), one, card)["rederive"]
    assert said[0::4] == [1.0, 0.0]
    assert said[3::4] == [pytest.approx(math.log(0.9)), 0.0]
    assert opinions(Answered(QUESTION, own, {}), one, card)["rederive"] == [0.0] * 8


def test_weighed_combines_recorded_verdicts() -> None:
    """The second agent has independent errors and gets weight; an answer without a verdict is never accepted."""
    one, chance = next(one for one in SETS if one.title == "svamp"), random.Random(1)
    cards = {name: Card.load(AGENTS / name) for name in (one.agent, *one.blind)}

    def row(number: int, good: bool, other: Sheet) -> Answered:
        own = Sheet(str(number), {"expression": "48/2-7", "answer": 17 if good else 9}, chance.random(), (-0.5,))
        return Answered(QUESTION, own, {"blind1": other})

    agreeing, lost = Sheet("", {"expression": "48/2-7", "answer": 17}), Sheet("", {"expression": "1", "answer": None})
    right = [number % 2 == 0 for number in range(200)]
    rows = [row(number, good, agreeing) for number, good in enumerate(right)] + [row(200, True, lost)]
    said = [verdicts(row, one, cards, ["schema", "confidence"]) for row in rows]
    assert [verdict.check for verdict in said[0]] == ["schema", "confidence", "rederive(deductive_calculator)"]
    assert [said[0][2].outcome, said[1][2].outcome, said[200][2].outcome] == ["pass", "fail", "unknown"]
    scores = weighed(said, [*right, True], [str(number) for number in range(201)])
    assert scores[200] is None
    assert Curve.of([*right, True], scores).area() < 0.3


def test_combined_is_fitted_on_other_rows() -> None:
    chance = random.Random(1)
    right = [chance.random() < 0.5 for _ in range(400)]
    telling = [{"good": [good + chance.gauss(0, 0.4)], "noise": [chance.random()]} for good in right]
    mute = [{"good": [chance.random()], "noise": [chance.random()]} for _ in right]
    assert Curve.of(right, combined(telling, right)).area() < 0.25
    assert Curve.of(right, combined(mute, right)).area() > 0.4, (
        "what says nothing ranks nothing, however often it is fitted"
    )
    assert Curve.of(right, combined(telling, right, without="good")).area() > 0.4


def test_combined_is_fitted_on_other_groups() -> None:
    """Features of one group alone, such as the position of a passage, carry no information about the next one."""
    chance = random.Random(4)
    groups = [str(number // 20) for number in range(400)]
    good = {group: (chance.random() < 0.5, [chance.gauss(0, 1) for _ in range(12)]) for group in dict.fromkeys(groups)}
    right, rows = [good[group][0] for group in groups], [{"which": good[group][1]} for group in groups]
    assert Curve.of(right, combined(rows, right)).area() < 0.2
    assert Curve.of(right, combined(rows, right, groups)).area() > 0.35, "as much as chance lets through"


def test_read_sheets_skips_torn_line(tmp_path: Path) -> None:
    (tmp_path / "sheet.jsonl").write_text('{"id": "1", "output": {"answer": 2}, "score": 0.5}\n{"id": "2", "outp')
    assert list(read(tmp_path / "sheet.jsonl")) == ["1"]
