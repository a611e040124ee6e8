"""A regression on text: an agent that estimates how much a question needs the larger model, from outcomes to its first
answer.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

pytest.importorskip("sklearn")

from orchestra.agents.card import Card
from orchestra.agents.inference.linear import LinearRegressor
from orchestra.learn.classical import share_thresholds
from orchestra.learn.linear import fit_regressor
from tests.cli.shell import Shell

CARD = "name: difficulty\nkind: sklearn\ninput: {question: str}\noutput: {need: float}\n"
LEARN = ("learn", "data", "difficulty", "--out", "set", "--licence", "own", "--tune", "0.2")


def outcomes(count: int = 120) -> list[dict[str, object]]:
    chance, rows = random.Random(3), []
    for number in range(count):
        hard = number % 3 == 0
        text = f"{'prove that' if hard else 'what is'} {chance.choice(('a', 'b', 'c', 'd'))} {number}?"
        rows.append({"prompt": text, "weak_right": not hard, "strong_right": True})
    return rows


@pytest.fixture
def project(shell: Shell) -> Shell:
    """A project with the card, and outcomes as JSON lines and as CSV."""
    Path("agents/difficulty").mkdir(parents=True)
    Path("agents/difficulty/agent.yaml").write_text(CARD)
    rows = outcomes()
    Path("rows.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    lines = [f"{row['prompt']},{str(row['weak_right']).lower()},{str(row['strong_right']).lower()}" for row in rows]
    Path("rows.csv").write_text("\n".join(["prompt,weak_right,strong_right", *lines]))
    return shell


@pytest.mark.parametrize("file", ["rows.jsonl", "rows.csv"])
def test_difficulty_agent_from_two_model_outcomes(project: Shell, file: str) -> None:
    mapped = ("--column", "question=prompt", "--column", "need=strong_right-weak_right")
    assert (made := project(*LEARN, file, *mapped)).code == 0, made.err
    assert (said := project("learn", "train", "difficulty", "--data", "set", "--out", "agents/difficulty")).code == 0, (
        said.err
    )
    assert "30% of the tune part is above" in said.out
    card = Card.load(Path("agents/difficulty"))
    hard, plain = (LinearRegressor.load(card).predict_number(text) for text in ("prove that b 7?", "what is b 7?"))
    assert 1 >= hard > 0.7 > 0.3 > plain >= 0
    answer = project("run", "difficulty", "-i", "question=prove that b 7?", "--json")
    assert answer.code == 0, answer.err
    assert json.loads(answer.out)["output"]["need"] == pytest.approx(hard)


@pytest.mark.parametrize(
    ("column", "code"),
    [("strong_right-weak", "N011"), ("prompt-weak_right", "N011"), ("strong_right", "N012"), ("-", "N011")],
)
def test_difference_of_non_numbers_refused(project: Shell, column: str, code: str) -> None:
    said = project(*LEARN, "rows.jsonl", "--column", "question=prompt", "--column", f"need={column}")
    assert (said.code, code in said.err) == (2, True)
    assert not Path("set").exists()


def test_regression_single_target_refused(project: Shell) -> None:
    Path("rows.jsonl").write_text("".join(f'{{"question": "what is {at}?", "need": 1}}\n' for at in range(20)))
    assert project(*LEARN, "rows.jsonl").code == 0
    said = project("learn", "train", "difficulty", "--data", "set")
    assert (said.code, "N104" in said.err) == (2, True)


def test_share_thresholds_bound_share() -> None:
    rows = [(at / 100, float(at >= 80)) for at in range(100)]
    assert [(one.share, one.threshold, one.mean_target) for one in share_thresholds(rows)] == [
        (0.1, 0.89, 1.0),
        (0.2, 0.79, 1.0),
        (0.3, 0.69, 2 / 3),
        (0.5, 0.49, 0.4),
    ]
    assert share_thresholds([]) == []


def test_regression_is_deterministic() -> None:
    rows = [(str(row["prompt"]), float(not row["weak_right"])) for row in outcomes(60)]
    first, second = (fit_regressor(rows, ("question", "need"), "weights.npz") for _ in range(2))
    assert (first.config_json, first.arrays) == (second.config_json, second.arrays)
